"""Accuracy against neurons removed: many ways to prune one model, each planned, repaired and sliced."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from anatomy_export.calibration.batches import calibrate
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.data.loading import Examples
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.fingerprint import model_identity
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import family_of, model_blocks
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import preset_setup
from anatomy_export.plan_files.plan import PrunePlan
from anatomy_export.plan_files.repair_file import Repair
from anatomy_export.planning.options import PruneMethod
from anatomy_export.planning.plan_maker import PlanMaker


@dataclass(frozen=True)
class PruneSpec(PruneMethod):
    """One way to prune: `removed` is the share of all FFN neurons that goes."""

    removed: float

    @property
    def name(self) -> str:
        return f"{self.criterion}/{self.allocate}/{self.compensate}/{self.removed:g}"


@dataclass(frozen=True)
class Pruned:
    """What a way gave: the sliced model with its plan and repair."""

    spec: PruneSpec
    model: torch.nn.Module
    plan: PrunePlan
    repair: Repair | None

    @property
    def widths(self) -> list[int]:
        return self.plan.kept_widths

    @property
    def outcomes(self) -> list[dict] | None:
        """What was decided for each layer, see `LayerOutcome`; None without a repair."""
        return self.plan.parameters.get("repair")


@dataclass(frozen=True)
class Refused:
    """A way that this model does not allow, and why."""

    spec: PruneSpec
    reason: str


def prune_each(
    checkpoint: Checkpoint,
    train: Examples,
    specs: Sequence[PruneSpec],
    *,
    seed: int,
    examples: int | None,
    max_length: int,
    align: int = 1,
    probes: Sequence[str] = BUILT_IN_PROBES,
) -> Iterator[Pruned | Refused]:
    """Prune by each way in turn; one calibration pass over `examples` seeded texts of `train` serves all.

    `examples` as in `calibration_sample`. Texts and probes are cut off at `max_length` tokens.

    Raises:
        AnatomyError: too little calibration text, or labels are missing that a criterion needs.
    """
    calibration = calibrate(checkpoint, train, examples, seed=seed, max_length=max_length)
    rule = family_of(checkpoint.model.config).rule
    anatomical = any(find_criterion(spec.criterion).needs_anatomy for spec in specs)
    context = Context(
        seed=seed,
        anatomy=score_anatomy(checkpoint, probes, max_length=max_length, cut_off=True) if anatomical else None,
        rule=rule,
        setup=preset_setup(f"{rule}-1", rule, len(model_blocks(checkpoint.model))),
    )
    maker = PlanMaker.measured(calibration, specs, context, model_identity(checkpoint.model), align=align)
    for spec in specs:
        keep_ratio = 1 - spec.removed
        try:
            planned = maker.plan(spec, maker.kept_neurons(spec, keep_ratio), {"keep_ratio": keep_ratio})
            model = slice_neurons(checkpoint.model, planned.plan, planned.repair)
            yield Pruned(spec, model, planned.plan, planned.repair)
        except AnatomyError as error:
            yield Refused(spec, str(error))
