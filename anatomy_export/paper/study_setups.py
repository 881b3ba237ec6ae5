"""The setups of the paper's experiment: its thresholds, and neurons removed at random for comparison (figures 4, 5)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anatomy_export.core.arguments import check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import threshold_plan
from anatomy_export.paper.thresholds import PRESETS, preset_setup
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan

ANATOMY, RANDOM = "anatomy", "random"
PROBE_REDUCTION = "mean"


@dataclass(frozen=True)
class StudySetup:
    """One way to remove neurons without anything else: by a preset, or at random with a seed.

    A random setup removes as many as the preset `matches`, or a `share` of all.
    """

    preset: str | None = None
    matches: str | None = None
    share: float | None = None
    seed: int | None = None

    @property
    def kind(self) -> str:
        return ANATOMY if self.preset else RANDOM

    @property
    def name(self) -> str:
        if self.preset:
            return self.preset
        what = f"{self.share:g}" if self.matches is None else self.matches
        return f"random-{what}-seed-{self.seed}"

    def plan(self, anatomy: Anatomy, rule: str) -> PrunePlan:
        """The neurons that stay, widths as they come (align 1).

        Raises:
            AnatomyError: a threshold would empty a layer, or the strong neurons leave too few to remove.
        """
        if self.preset:
            thresholds = preset_setup(self.preset, rule, anatomy.num_layers)
            return threshold_plan(anatomy, rule=rule, setup=thresholds, probe_reduction=PROBE_REDUCTION)
        if self.matches:
            removed = StudySetup(preset=self.matches).plan(anatomy, rule).removed
        else:
            removed = round((self.share or 0) * sum(anatomy.widths))
        return random_plan(anatomy, removed, seed=self.seed or 0)

    def describe(self, rule: str, num_layers: int) -> dict:
        """What it is, as plain values for `study.json`."""
        thresholds = preset_setup(self.preset, rule, num_layers) if self.preset else None
        return {
            "kind": self.kind,
            "preset": self.preset,
            "alpha": thresholds.alpha if thresholds else None,
            "beta": thresholds.beta if thresholds and rule == "bert" else None,
            "focus": list(thresholds.focus) if thresholds else [],
            "seed": self.seed,
            "matches": self.matches,
            "share": self.share,
        }


def study_setups(rule: str, seeds: Sequence[int], shares: Sequence[float]) -> list[StudySetup]:
    """Every preset of the rule, random removal at each preset's number, and at `shares` of all neurons."""
    presets = [preset for preset in PRESETS if preset.startswith(f"{rule}-")]
    return [
        *(StudySetup(preset=preset) for preset in presets),
        *(StudySetup(matches=preset, seed=seed) for preset in presets for seed in seeds),
        *(StudySetup(share=share, seed=seed) for share in shares for seed in seeds),
    ]


def random_plan(anatomy: Anatomy, removed: int, *, seed: int) -> PrunePlan:
    """Remove `removed` neurons at random, as many in each layer as the next; strong ones stay (the paper's baseline).

    Of one seed, the neurons removed at a lower number are among those removed at a higher one.

    Raises:
        AnatomyError: fewer may go without emptying a layer or touching a strong neuron, or a number below 0.
    """
    check_whole("removed", removed, 0)
    check_whole("seed", seed, 0)
    widths = anatomy.widths
    strong = [anatomy.strong(layer) for layer in range(anatomy.num_layers)]
    spare = [width - max(1, len(neurons)) for width, neurons in zip(widths, strong, strict=True)]
    if removed > sum(spare):
        raise AnatomyError(
            f"{removed} neurons cannot go at random: only {sum(spare)} of {sum(widths)} are neither strong nor a "
            "layer's last; next step: raise --strong-threshold or lower --removed"
        )
    layers = []
    for layer, count in enumerate(_spread(removed, spare)):
        order = np.random.default_rng([seed, layer]).permutation(widths[layer])
        gone = order[~np.isin(order, strong[layer])][:count]
        keep = np.setdiff1d(np.arange(widths[layer]), gone)
        protected = tuple(strong[layer].tolist())
        layers.append(LayerPlan(layer, widths[layer], tuple(keep.tolist()), protected=protected))
    parameters = {"seed": seed, "removed": removed, "strong_threshold": anatomy.strong_threshold}
    return PrunePlan(anatomy.fingerprint, tuple(layers), RANDOM, parameters, recorded_logits=anatomy.recorded_logits)


def _spread(total: int, spare: list[int]) -> list[int]:
    """`total` over layers as evenly as `spare`, the most that each can give, allows; the first layers give one more."""
    given = [0] * len(spare)
    while total:
        open_layers = [layer for layer, most in enumerate(spare) if given[layer] < most]
        part, rest = divmod(total, len(open_layers))
        for position, layer in enumerate(open_layers):
            more = min(part + (position < rest), spare[layer] - given[layer])
            given[layer] += more
            total -= more
    return given


def kept_sha256(plan: PrunePlan) -> str:
    """SHA-256 of the kept neurons alone: setups that keep the same compute the same."""
    return hashlib.sha256("\n".join(",".join(map(str, layer.keep)) for layer in plan.layers).encode()).hexdigest()


def describe_plan(plan: PrunePlan) -> dict:
    """Thresholds and counts of a plan, as plain values for `study.json`; a random plan has no thresholds."""
    removed = [width - kept for width, kept in zip(plan.widths, plan.kept_widths, strict=True)]
    ruled = any(layer.threshold is not None for layer in plan.layers)
    return {
        "thresholds": [{"layer": layer.layer, "value": layer.threshold, "rule": layer.rule} for layer in plan.layers]
        if ruled
        else None,
        "removed_per_layer": removed,
        "removed": plan.removed,
        "removed_share": plan.removed / sum(plan.widths),
        "kept_sha256": kept_sha256(plan),
    }
