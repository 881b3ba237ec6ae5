"""Which neurons stay and how the rest is repaired, by any criterion, allocation and budget, from calibration text."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from anatomy_export.calibration.batches import (
    Batch,
    calibration_batches,
    calibration_sample,
    on_calibration_device,
)
from anatomy_export.calibration.gradients import run_dense
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.measure import Measurement, measure
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.evaluation.metrics import ValidationDrop, validation_drop
from anatomy_export.evaluation.torch_classifier import class_probabilities
from anatomy_export.models.checkpoint import Checkpoint, sequence_length
from anatomy_export.models.families import model_blocks
from anatomy_export.models.flops import count_flops
from anatomy_export.models.prune import slice_neurons
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import anatomy_parameters
from anatomy_export.planning.allocate import SENSITIVITY, choose_widths, kept_neurons
from anatomy_export.planning.budget import ratio_for_flops, ratio_for_speedup
from anatomy_export.planning.latency import MeasureLatency
from anatomy_export.planning.options import BUDGETS, ScoreOptions
from anatomy_export.planning.search import last_that_fits, predicted_drop, summed_damage
from anatomy_export.plans.plan import LayerPlan, PrunePlan
from anatomy_export.plans.repair import Repair
from anatomy_export.repair.least_squares import NONE
from anatomy_export.repair.refit import Refit, refit

ROUNDING = 1e-9
SEARCHED_RATIOS = (0.95, *np.geomspace(0.9, 0.02, 14).tolist())


@dataclass(frozen=True)
class Chosen:
    """A plan, and the repaired weights that it names (None where it names none)."""

    plan: PrunePlan
    repair: Repair | None = None


@dataclass(frozen=True)
class Calibration:
    """What every choice is made from: the dense model, the calibration text as batches, and what was asked for.

    `worker` is the dense model where the batches are: on CUDA where there is one.
    """

    checkpoint: Checkpoint
    worker: torch.nn.Module
    data: Dataset
    batches: list[Batch]
    options: ScoreOptions
    max_length: int
    sample: Examples
    measure_latency: MeasureLatency
    progress: Progress

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the calibration texts."""
        return hashlib.sha256("\n".join(self.sample.texts).encode()).hexdigest()


def calibration_of(
    checkpoint: Checkpoint,
    data: Dataset | None,
    options: ScoreOptions,
    *,
    max_length: int,
    examples: int | None,
    measure_latency: MeasureLatency,
    progress: Progress,
) -> Calibration:
    """Calibration text from the train split, tokenized; `examples` as in `calibration_sample`.

    Raises:
        AnatomyError: there is no data, its train split is too small, or the model does not take `seq_len` tokens.
    """
    if data is None:
        raise AnatomyError(
            f"{_budget_option(options)} by --criterion {options.criterion} with --compensate {options.compensate} "
            "needs calibration text; next step: pass --data, or use --criterion anatomy --compensate none "
            "--keep-ratio 0.5"
        )
    sequence_length(checkpoint, options.seq_len, "--seq-len")
    sample = calibration_sample(checkpoint, data.train, examples, seed=options.seed, max_length=max_length)
    worker = on_calibration_device(checkpoint)
    batches = calibration_batches(worker, sample.texts, sample.labels or None, max_length=max_length, seed=options.seed)
    return Calibration(checkpoint, worker.model, data, batches, options, max_length, sample, measure_latency, progress)


def _budget_option(options: ScoreOptions) -> str:
    given = [name for name in BUDGETS if getattr(options, name) is not None]
    return f"--{given[0].replace('_', '-')}" if given else "a plan"


def repaired_plan(calibration: Calibration, plan: PrunePlan) -> Chosen:
    """Keep the neurons of `plan` and repair what is left of every layer."""
    with calibration.progress.bar("run the dense model", len(calibration.batches)) as tick:
        dense = run_dense(calibration.worker, calibration.batches, after_batch=tick)
    keep = [np.array(layer.keep) for layer in plan.layers]
    with calibration.progress.bar("repair", len(keep)) as tick:
        done = refit(
            calibration.worker,
            calibration.batches,
            dense,
            keep,
            mode=calibration.options.compensate,
            after_layer=lambda layer: tick(),
        )
    _say_what_is_weak(calibration.progress, done, keep)
    parameters = {**plan.parameters, **_how(calibration, done)}
    return Chosen(
        PrunePlan(
            plan.fingerprint, plan.layers, plan.criterion, parameters, calibration.fingerprint, done.repair.entry()
        ),
        done.repair,
    )


def budgeted_plan(calibration: Calibration, context: Context, fingerprint: str) -> Chosen:
    """The plan that the criterion and the budget give.

    Raises:
        AnatomyError: an unknown criterion, or a budget that cannot be kept.
    """
    options, model = calibration.options, calibration.checkpoint.model
    find_criterion(options.criterion)
    steps = len(calibration.batches) + len(model_blocks(model))
    with calibration.progress.bar("measure neurons", steps) as tick:
        measurement = measure(
            calibration.worker,
            calibration.batches,
            [options.criterion],
            context,
            repair=options.compensate != NONE,
            damage=options.allocate == SENSITIVITY or options.max_accuracy_drop is not None,
            tick=tick,
        )
    _say_what_is_ranked_on_little(calibration, measurement)
    if options.max_accuracy_drop is not None:
        return _smallest_within(calibration, measurement, context, fingerprint)
    ratio, budget = _ratio(calibration, measurement)
    keep = _keep(calibration, measurement, ratio)
    done = _refit(calibration, measurement, keep)
    _say_what_is_weak(calibration.progress, done, keep)
    return _chosen(calibration, context, keep, done, fingerprint, budget)


def _ratio(calibration: Calibration, measurement: Measurement) -> tuple[float, dict]:
    """Share of the neurons that the budget leaves, and what the plan records of it."""
    options, model = calibration.options, calibration.checkpoint.model
    if options.target_speedup is not None:
        return _ratio_for_speedup(calibration, measurement, options.target_speedup)
    if options.flops_ratio is not None:
        tokens = _mean_tokens(calibration.batches)
        ratio = ratio_for_flops(count_flops(model), options.flops_ratio, tokens)
        return ratio, {"flops_ratio": options.flops_ratio, "flops_tokens": tokens, "keep_ratio": ratio}
    assert options.keep_ratio is not None
    return options.keep_ratio, {"keep_ratio": options.keep_ratio}


def _mean_tokens(batches: Sequence[Batch]) -> int:
    """Tokens of a text on average, without padding."""
    tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)
    return round(tokens / sum(len(batch.index) for batch in batches))


def _ratio_for_speedup(calibration: Calibration, measurement: Measurement, wanted: float) -> tuple[float, dict]:
    options, checkpoint = calibration.options, calibration.checkpoint
    length = sequence_length(checkpoint, options.seq_len, "--seq-len")
    table = calibration.measure_latency(checkpoint, batch=options.batch, seq_len=length, progress=calibration.progress)

    def widths_at(ratio: float) -> list[int]:
        return [len(kept) for kept in _keep(calibration, measurement, ratio)]

    widths = _widths(checkpoint)
    ratio = ratio_for_speedup(table, wanted, widths, widths_at)
    return ratio, {
        "target_speedup": wanted,
        "predicted_speedup": round(table.speedup(widths_at(ratio), widths), 4),
        "batch": table.batch,
        "seq_len": table.seq_len,
        "device": table.device,
        "keep_ratio": ratio,
    }


def _keep(calibration: Calibration, measurement: Measurement, ratio: float) -> list[np.ndarray]:
    options = calibration.options
    widths = choose_widths(
        measurement, options.criterion, keep_ratio=ratio, allocate=options.allocate, align=options.align
    )
    return kept_neurons(measurement.scores[options.criterion], widths)


def _refit(
    calibration: Calibration,
    measurement: Measurement,
    keep: list[np.ndarray],
    *,
    quiet: bool = False,
) -> Refit | None:
    if calibration.options.compensate == NONE:
        return None
    model, mode = calibration.worker, calibration.options.compensate
    if quiet:
        return refit(model, calibration.batches, measurement.dense, keep, mode=mode)
    with calibration.progress.bar("repair", len(keep)) as count:
        return refit(model, calibration.batches, measurement.dense, keep, mode=mode, after_layer=lambda layer: count())


def _say_what_is_ranked_on_little(calibration: Calibration, measurement: Measurement) -> None:
    """Note the layers whose Gram matrix, which optimal brain surgeon inverts, has fewer tokens than neurons."""
    options = calibration.options
    if not options.criterion.startswith("obs") and options.allocate != SENSITIVITY:
        return
    few = [
        str(layer)
        for layer, (tokens, width) in enumerate(zip(measurement.tokens, _widths(calibration.checkpoint), strict=True))
        if tokens < width
    ]
    if few:
        calibration.progress.note(
            f"note: fewer calibration tokens than neurons in layer {', '.join(few)}: the ranking leans on its ridge; "
            "more text may help"
        )


def _say_what_is_weak(progress: Progress, done: Refit | None, keep: Sequence[np.ndarray]) -> None:
    """Note a repair that was left out, or the layers that were fitted on fewer tokens than neurons."""
    if done is None:
        return
    if done.left_out:
        progress.note("note: on held-out text the repair costs right answers, so none is made; more text may help")
        return
    few = [str(one.layer) for one, kept in zip(done.outcomes, keep, strict=True) if one.tokens < len(kept)]
    if few:
        progress.note(
            f"note: fewer calibration tokens than neurons in layer {', '.join(few)}: the ridge holds the repair up; "
            "more text may help"
        )


def _chosen(
    calibration: Calibration,
    context: Context,
    keep: list[np.ndarray],
    done: Refit | None,
    fingerprint: str,
    budget: dict,
) -> Chosen:
    """The plan of these kept neurons, with what it was made from."""
    options, anatomy = calibration.options, context.anatomy
    layers = tuple(
        LayerPlan(index, width, tuple(map(int, kept)), protected=_protected(anatomy, options.criterion, index))
        for index, (kept, width) in enumerate(zip(keep, _widths(calibration.checkpoint), strict=True))
    )
    parameters = {**budget, "align": options.align, "allocate": options.allocate, **_how(calibration, done)}
    if anatomy is not None and context.setup is not None and find_criterion(options.criterion).needs_anatomy:
        ranked_by = anatomy_parameters(anatomy, context.rule, context.setup, options.probe_reduction, options.align)
        parameters = {**ranked_by, **parameters}
    repair = None if done is None else done.repair
    plan = PrunePlan(
        fingerprint,
        layers,
        options.criterion,
        parameters,
        calibration.fingerprint,
        None if repair is None else repair.entry(),
    )
    return Chosen(plan, repair)


def _widths(checkpoint: Checkpoint) -> list[int]:
    return [block.width for block in model_blocks(checkpoint.model)]


def _protected(anatomy: Anatomy | None, criterion: str, layer: int) -> tuple[int, ...]:
    if anatomy is None or not find_criterion(criterion).needs_anatomy:
        return ()
    return tuple(int(neuron) for neuron in anatomy.strong(layer))


def _how(calibration: Calibration, done: Refit | None) -> dict:
    """What the plan records of calibration and repair."""
    options = calibration.options
    recorded: dict = {"compensate": options.compensate, "calibration_examples": len(calibration.sample)}
    recorded["seed"] = options.seed
    if done is not None:
        recorded["repair"] = [asdict(outcome) for outcome in done.outcomes]
    return recorded


def _smallest_within(calibration: Calibration, measurement: Measurement, context: Context, fingerprint: str) -> Chosen:
    """The smallest model whose accuracy on validation is at most `max_accuracy_drop` points below the dense one's.

    Of the shares in `SEARCHED_RATIOS`, each tried with its repair, from where the predicted drop is the budget.
    Accuracy on a thousand texts is noisy, and a search finds the luckiest share: the expected drop must be within the
    budget too.

    Raises:
        AnatomyError: no share that was tried keeps within it; says the best.
    """
    checkpoint, examples = calibration.checkpoint, calibration.data.validation
    allowed = calibration.options.max_accuracy_drop
    assert allowed is not None
    budget = {"max_accuracy_drop": allowed, "validation_examples": len(examples)}
    fitting: list[tuple[Chosen, Refit | None, list[np.ndarray], ValidationDrop]] = []  # the last: repairs are large
    drops: list[ValidationDrop] = []
    with calibration.progress.bar("search on validation", None) as tick:
        dense = class_probabilities(checkpoint, checkpoint.model, examples.texts, calibration.max_length)

        def fits(position: int) -> bool:
            ratio = SEARCHED_RATIOS[position]
            try:
                keep = _keep(calibration, measurement, ratio)
            except AnatomyError:  # no room for every layer, or for the protected neurons
                if position == 0:
                    raise
                return False
            done = _refit(calibration, measurement, keep, quiet=True)
            sliced = _chosen(calibration, context, keep, done, fingerprint, {**budget, "keep_ratio": ratio})
            model = slice_neurons(checkpoint.model, sliced.plan, sliced.repair)
            own = class_probabilities(checkpoint, model, examples.texts, calibration.max_length)
            drops.append(validation_drop(dense, own, np.array(examples.labels)))
            tick()
            if drops[-1].points > allowed + ROUNDING:
                return False
            found = {f"validation_{name}": value for name, value in asdict(drops[-1]).items()}
            plan = replace(sliced.plan, parameters={**sliced.plan.parameters, **found})
            fitting[:] = [(replace(sliced, plan=plan), done, keep, drops[-1])]
            return True

        last_that_fits(fits, len(SEARCHED_RATIOS), _predicted_position(calibration, measurement, allowed))
    if not fitting:
        best = min(drops, key=lambda drop: drop.points)
        raise AnatomyError(
            f"--max-accuracy-drop {allowed:g} cannot be kept: of the models tried, the largest keeps "
            f"{SEARCHED_RATIOS[0]:.0%} of the neurons, and the best loses {best.measured_points:.2f} points on "
            f"{len(examples):,} validation texts (expected {100 * best.expected_drop:.2f}); next step: allow more, or "
            "pass more calibration text"
        )
    chosen, done, keep, drop = fitting[0]
    kept, widths = chosen.plan.kept_widths, chosen.plan.widths
    calibration.progress.note(
        f"{sum(kept) / sum(widths):.1%} of the neurons kept; on {len(examples):,} validation texts "
        f"{100 * drop.accuracy_dense:.2f} → {100 * drop.accuracy_pruned:.2f} %, "
        f"expected drop {100 * drop.expected_drop:.2f} points"
    )
    _say_what_is_weak(calibration.progress, done, keep)
    return chosen


def _predicted_position(calibration: Calibration, measurement: Measurement, allowed: float) -> int:
    """Of the smallest share in `SEARCHED_RATIOS` whose predicted drop is within the budget."""
    assert measurement.damage is not None
    position = 0
    for position, ratio in enumerate(SEARCHED_RATIOS):
        try:
            widths = [len(one) for one in _keep(calibration, measurement, ratio)]
        except AnatomyError:
            return position - 1
        if predicted_drop(measurement.dense.logits, summed_damage(measurement.damage, widths)) > allowed:
            return position - 1
    return position
