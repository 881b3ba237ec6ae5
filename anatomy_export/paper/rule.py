"""The paper's rule: from an anatomy to the neurons that stay, by its thresholds or by a share of each layer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from anatomy_export.core.arguments import check_share, check_whole
from anatomy_export.core.errors import AnatomyError
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.thresholds import LayerThreshold, ThresholdSetup, layer_thresholds
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan


def paper_plan(
    anatomy: Anatomy,
    *,
    rule: str,
    setup: ThresholdSetup,
    keep_ratio: float | None,
    probe_reduction: str = "mean",
    align: int = 1,
) -> PrunePlan:
    """`ratio_plan` for a `keep_ratio`, `threshold_plan` for None; raises as they do."""
    if keep_ratio is None:
        return threshold_plan(anatomy, rule=rule, setup=setup, probe_reduction=probe_reduction, align=align)
    return ratio_plan(
        anatomy, rule=rule, setup=setup, keep_ratio=keep_ratio, probe_reduction=probe_reduction, align=align
    )


def threshold_plan(
    anatomy: Anatomy, *, rule: str, setup: ThresholdSetup, probe_reduction: str = "mean", align: int = 1
) -> PrunePlan:
    """The paper's rule: prune below the layer's threshold; strong neurons stay.

    Raises:
        AnatomyError: a threshold would empty a layer, or an argument means nothing.
    """
    check_whole("align", align, 1)
    layers = []
    for ranked in _ranked_layers(anatomy, rule, setup, probe_reduction):
        pruned = ranked.threshold.prunes(ranked.similarity)
        pruned[ranked.strong] = False
        if pruned.all():
            raise AnatomyError(
                f"layer {ranked.layer}: threshold {ranked.threshold.value:.6g} would remove all {len(pruned)} neurons; "
                "next step: lower --alpha or --beta, or take the layer out of --focus"
            )
        count = _align_up(int((~pruned).sum()), align, len(pruned))
        layers.append(ranked.plan(count, ranked.threshold.value))
    parameters = {**anatomy_parameters(anatomy, rule, setup, probe_reduction, align), "budget": "thresholds"}
    return _plan(anatomy, layers, parameters)


def ratio_plan(
    anatomy: Anatomy,
    *,
    rule: str,
    setup: ThresholdSetup,
    keep_ratio: float,
    probe_reduction: str = "mean",
    align: int = 1,
) -> PrunePlan:
    """Per layer the lowest-scoring neurons go until `keep_ratio` is left; strong neurons stay.

    The ranking is by |s|, and by s itself in one-sided layers.

    Raises:
        AnatomyError: `keep_ratio` is not in (0, 1], another argument means nothing, or more neurons of a layer are
            strong than may stay.
    """
    check_share("keep_ratio", keep_ratio)
    check_whole("align", align, 1)
    layers = []
    for ranked in _ranked_layers(anatomy, rule, setup, probe_reduction):
        width = len(ranked.similarity)
        count = _align_up(max(1, round(keep_ratio * width)), align, width)
        if len(ranked.strong) > count:
            raise AnatomyError(
                f"layer {ranked.layer}: {len(ranked.strong)} strong neurons are protected but a keep ratio of "
                f"{keep_ratio} leaves room for {count} of {width}; next step: raise --keep-ratio or --strong-threshold"
            )
        layers.append(ranked.plan(count, None))
    ranked_by = anatomy_parameters(anatomy, rule, setup, probe_reduction, align)
    return _plan(anatomy, layers, {**ranked_by, "budget": "keep-ratio", "keep_ratio": keep_ratio})


@dataclass(frozen=True)
class _RankedLayer:
    """One layer's threshold, similarities (n,), and the indices of its strong neurons."""

    layer: int
    threshold: LayerThreshold
    similarity: np.ndarray
    strong: np.ndarray

    def plan(self, count: int, value: float | None) -> LayerPlan:
        """Keep the `count` best neurons, the strong first, ties by index; `value` is the threshold that is recorded."""
        scores = self.threshold.measure(self.similarity)
        weak = np.ones(len(scores))
        weak[self.strong] = 0
        order = np.lexsort((np.arange(len(scores)), -scores, weak))
        return LayerPlan(
            layer=self.layer,
            width=len(scores),
            keep=tuple(np.sort(order[:count]).tolist()),
            threshold=value,
            rule=self.threshold.rule,
            protected=tuple(self.strong.tolist()),
        )


def _ranked_layers(anatomy: Anatomy, rule: str, setup: ThresholdSetup, probe_reduction: str) -> list[_RankedLayer]:
    layer_similarity, similarity = anatomy.reduced(probe_reduction)
    thresholds = layer_thresholds(rule, layer_similarity, anatomy.num_layers, setup)
    return [
        _RankedLayer(layer, threshold, similarity[layer], anatomy.strong(layer))
        for layer, threshold in enumerate(thresholds)
    ]


def _align_up(count: int, align: int, width: int) -> int:
    return min(width, ceil(count / align) * align)


def anatomy_parameters(anatomy: Anatomy, rule: str, setup: ThresholdSetup, probe_reduction: str, align: int) -> dict:
    """What a plan records of a ranking by anatomy."""
    return {
        "threshold_rule": rule,
        "alpha": setup.alpha,
        "beta": setup.beta,
        "focus": list(setup.focus),
        "strong_threshold": anatomy.strong_threshold,
        "probe_reduction": probe_reduction,
        "align": align,
    }


def _plan(anatomy: Anatomy, layers: Sequence[LayerPlan], parameters: dict) -> PrunePlan:
    return PrunePlan(
        anatomy.fingerprint,
        tuple(layers),
        "anatomy",
        parameters,
        calibration_fingerprint=hashlib.sha256("\n".join(anatomy.probes).encode()).hexdigest(),
        recorded_logits=anatomy.recorded_logits,
    )
