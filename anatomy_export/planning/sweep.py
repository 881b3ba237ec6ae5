"""Accuracy against neurons removed: many ways to prune one model, each planned, repaired, sliced and evaluated."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import torch

from anatomy_export.calibration.batches import (
    Batch,
    calibration_batches,
    calibration_sample,
    on_calibration_device,
)
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.measure import Measurement, measure
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.data.loading import Examples
from anatomy_export.data.probes import BUILT_IN_PROBES
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.families import family_of, model_blocks
from anatomy_export.models.identity import model_identity
from anatomy_export.models.prune import slice_neurons
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import preset_setup
from anatomy_export.planning.allocate import SENSITIVITY, choose_widths, kept_neurons
from anatomy_export.plans.identity import ModelIdentity
from anatomy_export.plans.plan import LayerPlan, PrunePlan
from anatomy_export.plans.repair import Repair
from anatomy_export.repair.least_squares import NONE
from anatomy_export.repair.refit import refit


@dataclass(frozen=True)
class Way:
    """One way to prune: `removed` is the share of all FFN neurons that goes."""

    criterion: str
    allocate: str
    compensate: str
    removed: float

    @property
    def name(self) -> str:
        return f"{self.criterion}/{self.allocate}/{self.compensate}/{self.removed:g}"


@dataclass(frozen=True)
class Pruned:
    """What a way gave: the sliced model with its plan and repair, widths, what was decided for each layer."""

    way: Way
    model: torch.nn.Module
    plan: PrunePlan
    repair: Repair | None
    outcomes: list[dict] | None

    @property
    def widths(self) -> list[int]:
        return self.plan.kept_widths


@dataclass(frozen=True)
class Refused:
    """A way that this model does not allow, and why."""

    way: Way
    reason: str


def prune_ways(
    checkpoint: Checkpoint,
    train: Examples,
    ways: Iterable[Way],
    *,
    seed: int,
    examples: int | None,
    align: int = 1,
    max_length: int = 128,
    probes: tuple[str, ...] = BUILT_IN_PROBES,
) -> Iterator[Pruned | Refused]:
    """Prune by each way in turn; one calibration pass over `examples` seeded texts of `train` serves all.

    `examples` as in `calibration_sample`. Probes are cut off at `max_length` tokens.

    Raises:
        AnatomyError: too little calibration text, or labels are missing that a criterion needs.
    """
    ways = list(ways)
    sample = calibration_sample(checkpoint, train, examples, seed=seed, max_length=max_length)
    worker = on_calibration_device(checkpoint)
    batches = calibration_batches(worker, sample.texts, sample.labels or None, max_length=max_length, seed=seed)
    rule = family_of(checkpoint.model.config).rule
    anatomical = any(find_criterion(way.criterion).needs_anatomy for way in ways)
    context = Context(
        seed=seed,
        anatomy=score_anatomy(checkpoint, probes, max_length=max_length, cut_off=True) if anatomical else None,
        rule=rule,
        setup=preset_setup(f"{rule}-1", rule, len(model_blocks(checkpoint.model))),
    )
    repair = any(way.compensate != NONE for way in ways)
    criteria, damage = sorted({way.criterion for way in ways}), any(way.allocate == SENSITIVITY for way in ways)
    measurement = measure(worker.model, batches, criteria, context, repair=repair, damage=damage)
    identity = model_identity(checkpoint.model)
    for way in ways:
        try:
            yield _prune(checkpoint.model, worker.model, batches, measurement, way, align, identity)
        except AnatomyError as error:
            yield Refused(way, str(error))


def _prune(
    model, worker, batches: list[Batch], measurement: Measurement, way: Way, align: int, identity: ModelIdentity
) -> Pruned:
    widths = choose_widths(measurement, way.criterion, keep_ratio=1 - way.removed, allocate=way.allocate, align=align)
    keep = kept_neurons(measurement.scores[way.criterion], widths)
    done = None
    if way.compensate != NONE:
        done = refit(worker, batches, measurement.dense, keep, mode=way.compensate)
    layers = tuple(
        LayerPlan(block.layer, block.width, tuple(kept.tolist()))
        for block, kept in zip(model_blocks(model), keep, strict=True)
    )
    repair = done.repair if done else None
    plan = PrunePlan(
        identity.fingerprint,
        layers,
        way.criterion,
        repair=repair.entry() if repair else None,
        recorded_logits=identity.recorded_logits,
    )
    outcomes = [asdict(outcome) for outcome in done.outcomes] if done else None
    return Pruned(way, slice_neurons(model, plan, repair), plan, repair, outcomes)
