"""From a measured model to a plan: the widths of a share, the neurons kept, the repair, and what the plan records."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from anatomy_export.calibration.batches import Calibration
from anatomy_export.calibration.gradients import DenseRun
from anatomy_export.core.arguments import check_choice, check_share
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.criteria.scoring_pass import Measurement, measure
from anatomy_export.paper.rule import anatomy_parameters
from anatomy_export.plan_files.model_identity import ModelIdentity
from anatomy_export.plan_files.plan import LayerPlan, PrunePlan
from anatomy_export.plan_files.repair_file import Repair
from anatomy_export.planning.allocation import (
    ALLOCATIONS,
    GLOBAL,
    SENSITIVITY,
    UNIFORM,
    global_widths,
    marginal_widths,
    uniform_widths,
)
from anatomy_export.planning.options import PruneMethod
from anatomy_export.repair.refit import Refit, refit
from anatomy_export.repair.repair_modes import NONE


@dataclass(frozen=True)
class PlanWithRepair:
    """A plan, and the repaired weights that it names (None where it names none).

    `note` is what the user is to be told of the repair, empty where there is nothing.
    """

    plan: PrunePlan
    repair: Repair | None = None
    note: str = ""

    def recording(self, parameters: dict) -> "PlanWithRepair":
        """The same, its plan with more parameters."""
        return replace(self, plan=replace(self.plan, parameters={**self.plan.parameters, **parameters}))


@dataclass(frozen=True)
class PlanMaker:
    """Makes plans of one measured model, by any method that was measured and for any share of the neurons.

    Attributes:
        measurement: of the dense model on `calibration`.
        context: that the criteria had.
        identity: of the dense model.
        align: widths are multiples of it.
    """

    calibration: Calibration
    measurement: Measurement
    context: Context
    identity: ModelIdentity
    align: int

    @classmethod
    def measured(
        cls,
        calibration: Calibration,
        methods: Sequence[PruneMethod],
        context: Context,
        identity: ModelIdentity,
        *,
        align: int,
        damage: bool = False,
        tick: Callable[[], object] = lambda: None,
    ) -> "PlanMaker":
        """Measure once what all `methods` need, and the predicted damage where `damage` asks for it; see `measure`.

        Raises:
            AnatomyError: an unknown criterion, or one whose labels or anatomy are missing.
        """
        measurement = measure(
            calibration.worker,
            calibration.batches,
            sorted({method.criterion for method in methods}),
            context,
            repair=any(method.compensate != NONE for method in methods),
            damage=damage or any(method.allocate == SENSITIVITY for method in methods),
            tick=tick,
        )
        return cls(calibration, measurement, context, identity, align)

    def kept_neurons(self, method: PruneMethod, keep_ratio: float) -> list[np.ndarray]:
        """Per layer the sorted kept neurons, (k,).

        Raises:
            AnatomyError: there is no room for every layer, or for the protected neurons.
        """
        widths = choose_widths(
            self.measurement, method.criterion, keep_ratio=keep_ratio, allocate=method.allocate, align=self.align
        )
        return kept_neurons(self.measurement.scores[method.criterion], widths)

    def plan(
        self,
        method: PruneMethod,
        keep: Sequence[np.ndarray],
        budget: dict,
        after_layer: Callable[[], object] = lambda: None,
    ) -> PlanWithRepair:
        """The plan of these kept neurons, repaired as the method says.

        Args:
            keep: see `kept_neurons`.
            budget: what the plan records of how many neurons were to stay.
            after_layer: called once a layer is repaired.
        """
        widths, anatomy, context = self.calibration.widths, self.context.anatomy, self.context
        protected: list[tuple[int, ...]] = [()] * len(widths)
        ranked_by: dict = {}
        if find_criterion(method.criterion).needs_anatomy and anatomy is not None and context.setup is not None:
            protected = [tuple(anatomy.strong(layer).tolist()) for layer in range(len(widths))]
            ranked_by = anatomy_parameters(anatomy, context.rule, context.setup, context.probe_reduction, self.align)
        layers = tuple(
            LayerPlan(layer, width, tuple(keep[layer].tolist()), protected=protected[layer])
            for layer, width in enumerate(widths)
        )
        plan = PrunePlan(
            self.identity.fingerprint,
            layers,
            method.criterion,
            {**ranked_by, **budget, "align": self.align, "allocate": method.allocate},
            recorded_logits=self.identity.recorded_logits,
        )
        return repaired(plan, self.calibration, self.measurement.dense, method.compensate, after_layer)


def repaired(
    plan: PrunePlan,
    calibration: Calibration,
    dense: DenseRun,
    mode: str,
    after_layer: Callable[[], object] = lambda: None,
) -> PlanWithRepair:
    """The plan of the same neurons with what is left of every layer repaired, and calibration and repair recorded.

    Args:
        dense: the dense model's run on the calibration text.
        mode: see `refit`; "none" repairs nothing.
        after_layer: called once a layer is repaired.
    """
    recorded = {
        "compensate": mode,
        "calibration_examples": len(calibration.sample),
        "seed": calibration.seed,
    }
    planned = PlanWithRepair(replace(plan, calibration_fingerprint=calibration.fingerprint)).recording(recorded)
    if mode == NONE:
        return planned
    keep = [np.array(layer.keep) for layer in plan.layers]
    result = refit(calibration.worker, calibration.batches, dense, keep, mode=mode, after_layer=after_layer)
    planned = planned.recording({"repair": [asdict(outcome) for outcome in result.outcomes]})
    return PlanWithRepair(
        replace(planned.plan, repair=result.repair.entry()), result.repair, _weakness(result, plan.kept_widths)
    )


def _weakness(result: Refit, kept_widths: Sequence[int]) -> str:
    """That a repair was left out, or which layers were fitted on fewer tokens than neurons; empty where neither is."""
    if result.left_out:
        return "note: on held-out text the repair costs right answers, so none is made; more text may help"
    return few_tokens([outcome.tokens for outcome in result.outcomes], kept_widths, "the ridge holds the repair up")


def few_tokens(tokens: Sequence[int], widths: Sequence[int], consequence: str) -> str:
    """Note the layers that have fewer calibration tokens than neurons, with what comes of it; empty where none has."""
    few = [str(layer) for layer, (count, width) in enumerate(zip(tokens, widths, strict=True)) if count < width]
    if not few:
        return ""
    return f"note: fewer calibration tokens than neurons in layer {', '.join(few)}: {consequence}; more text may help"


def choose_widths(
    measurement: Measurement, criterion: str, *, keep_ratio: float, allocate: str = SENSITIVITY, align: int = 1
) -> list[int]:
    """Neurons that each layer keeps.

    Raises:
        AnatomyError: the ratio is not in (0, 1], the allocation does not exist, `align` is no multiple, or there is no
            room for every layer.
    """
    check_share("keep_ratio", keep_ratio)
    check_choice("allocation", allocate, ALLOCATIONS)
    scores = measurement.scores[criterion]
    widths = [len(layer) for layer in scores]
    total = max(len(widths), round(keep_ratio * sum(widths)))
    if allocate == UNIFORM:
        return uniform_widths(widths, keep_ratio, align)
    if allocate == GLOBAL:
        return global_widths(scores, total, comparable=find_criterion(criterion).comparable, align=align)
    if measurement.damage is None:
        raise ValueError("sensitivity needs a measurement with damage=True")
    return marginal_widths(measurement.damage, total, align)


def kept_neurons(scores: Sequence[np.ndarray], widths: Sequence[int]) -> list[np.ndarray]:
    """Per layer the sorted indices of the `widths[l]` best neurons by their `scores`, (n,); ties by index.

    Raises:
        AnatomyError: more neurons of a layer are protected (infinite scores) than may stay.
    """
    kept = []
    for layer, (values, width) in enumerate(zip(scores, widths, strict=True)):
        protected = int(np.isposinf(values).sum())
        if protected > width:
            raise AnatomyError(
                f"layer {layer}: {protected} strong neurons are protected but the budget leaves room for {width} of "
                f"{len(values)}; next step: keep more, or raise --strong-threshold"
            )
        kept.append(np.sort(np.lexsort((np.arange(len(values)), -values))[:width]))
    return kept
