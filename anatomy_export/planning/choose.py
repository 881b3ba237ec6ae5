"""From what was asked for to a plan: the dense identity, the paper's own rule, or a choice from calibration text."""

from dataclasses import dataclass, replace

from anatomy_export.calibration.batches import Calibration, calibrate
from anatomy_export.calibration.gradients import run_dense
from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.data.loading import Dataset
from anatomy_export.data.probes import Probes
from anatomy_export.models.checkpoint import Checkpoint, sequence_length
from anatomy_export.models.supported_families import family_of, model_blocks
from anatomy_export.paper.rule import paper_plan
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import chosen_setup
from anatomy_export.plan_files.model_identity import ModelIdentity
from anatomy_export.plan_files.plan import identity_plan
from anatomy_export.planning.accuracy_budget import AccuracySearch
from anatomy_export.planning.allocation import SENSITIVITY, UNIFORM
from anatomy_export.planning.flops_and_speed_budgets import budget_share
from anatomy_export.planning.latency_table import MeasureLatency
from anatomy_export.planning.options import BUDGETS, ScoreOptions
from anatomy_export.planning.plan_maker import PlanMaker, PlanWithRepair, few_tokens, repaired
from anatomy_export.repair.repair_modes import NONE


@dataclass(frozen=True)
class PlanRequest:
    """What a plan is made from; `identity` is the dense model's.

    `examples`: train texts to calibrate on, as in `calibration_sample`.
    """

    checkpoint: Checkpoint
    data: Dataset | None
    probes: Probes
    options: ScoreOptions
    max_length: int
    examples: int | None
    identity: ModelIdentity
    measure_latency: MeasureLatency
    progress: Progress

    @property
    def rule(self) -> str:
        return family_of(self.checkpoint.model.config).rule


def dense_plan(request: PlanRequest) -> PlanWithRepair:
    """The plan that keeps every neuron."""
    widths = [block.width for block in model_blocks(request.checkpoint.model)]
    plan = identity_plan(request.identity.fingerprint, widths)
    return PlanWithRepair(replace(plan, recorded_logits=request.identity.recorded_logits))


def choose_plan(request: PlanRequest) -> PlanWithRepair:
    """The plan that was asked for, and the repair that goes with it.

    Raises:
        AnatomyError: a criterion without a budget or without calibration text, or a budget that cannot be kept.
    """
    options = request.options
    _check_thresholds(options)
    anatomical = find_criterion(options.criterion).needs_anatomy
    context = _context(request, anatomical)
    planned = _by_paper(request, context) if options.by_anatomy_alone else _by_budget(request, context)
    if planned.note:
        request.progress.note(planned.note)
    return planned.recording({"probes": request.probes.origin}) if anatomical else planned


def _check_thresholds(options: ScoreOptions) -> None:
    """Raise AnatomyError for what the paper's thresholds leave no choice of."""
    if not options.by_thresholds:
        return
    if options.criterion != "anatomy":
        raise AnatomyError(
            f"--criterion {options.criterion} has no thresholds; next step: give a budget by --keep-ratio, "
            "--flops-ratio, --target-speedup or --max-accuracy-drop"
        )
    if options.allocate != UNIFORM:
        raise AnatomyError(
            f"--allocate {options.allocate}: the paper's thresholds already say how many neurons each layer keeps; "
            "next step: leave it out, or give a budget, as --keep-ratio"
        )


def _context(request: PlanRequest, anatomical: bool) -> Context:
    """What the criterion may use; the anatomy is scored where it is of it."""
    options, rule = request.options, request.rule
    context = Context(seed=options.seed, rule=rule, probe_reduction=options.probe_reduction)
    if not anatomical:
        return context
    if request.probes.note:
        request.progress.note(request.probes.note)
    with request.progress.stage("score the anatomy"):
        anatomy = score_anatomy(
            request.checkpoint,
            request.probes.texts,
            strong_threshold=options.strong_threshold,
            max_length=request.max_length,
            cut_off=request.probes.cut_off,
            identity=request.identity,
        )
        setup = chosen_setup(
            rule,
            anatomy.num_layers,
            preset=options.preset,
            alpha=options.alpha,
            beta=options.beta,
            focus=options.focus,
        )
    return replace(context, anatomy=anatomy, setup=setup)


def _by_paper(request: PlanRequest, context: Context) -> PlanWithRepair:
    """The paper's own rule, and a repair where one was asked for."""
    options, progress = request.options, request.progress
    assert context.anatomy is not None and context.setup is not None
    plan = paper_plan(
        context.anatomy,
        rule=context.rule,
        setup=context.setup,
        keep_ratio=options.keep_ratio,
        probe_reduction=options.probe_reduction,
        align=options.align,
    )
    if not options.calibrated:
        return PlanWithRepair(plan)
    calibration = _calibration(request)
    with progress.bar("run the dense model", len(calibration.batches)) as tick:
        dense = run_dense(calibration.worker, calibration.batches, after_batch=tick)
    with progress.bar("repair", len(plan.layers)) as tick:
        return repaired(plan, calibration, dense, options.compensate, tick)


def _by_budget(request: PlanRequest, context: Context) -> PlanWithRepair:
    """What the criterion and the budget give on calibration text."""
    options, progress = request.options, request.progress
    calibration = _calibration(request)
    with progress.bar("measure neurons", len(calibration.batches) + len(calibration.widths)) as tick:
        maker = PlanMaker.measured(
            calibration,
            [options.method],
            context,
            request.identity,
            align=options.align,
            damage=options.max_accuracy_drop is not None,
            tick=tick,
        )
    if options.criterion.startswith("obs") or options.allocate == SENSITIVITY:
        tokens = maker.measurement.tokens
        if note := few_tokens(tokens, calibration.widths, "the ranking leans on its ridge"):
            progress.note(note)
    if options.max_accuracy_drop is not None:
        assert request.data is not None
        search = AccuracySearch(
            maker, options.method, request.data.validation, options.max_accuracy_drop, request.max_length
        )
        return search.smallest(progress)
    budget = budget_share(options, maker, request.measure_latency, progress)
    keep = maker.kept_neurons(options.method, budget["keep_ratio"])
    if options.compensate == NONE:
        return maker.plan(options.method, keep, budget)
    with progress.bar("repair", len(keep)) as tick:
        return maker.plan(options.method, keep, budget, tick)


def _calibration(request: PlanRequest) -> Calibration:
    """Calibration text from the train split, tokenized.

    Raises:
        AnatomyError: there is no data, its train split is too small, or the model does not take `seq_len` tokens.
    """
    options = request.options
    if request.data is None:
        given = [f"--{name.replace('_', '-')}" for name in BUDGETS if getattr(options, name) is not None]
        raise AnatomyError(
            f"{given[0] if given else 'a plan'} by --criterion {options.criterion} with --compensate "
            f"{options.compensate} needs calibration text; next step: pass --data, or use --criterion anatomy "
            "--compensate none --keep-ratio 0.5"
        )
    sequence_length(request.checkpoint, options.seq_len, "--seq-len")
    return calibrate(
        request.checkpoint, request.data.train, request.examples, seed=options.seed, max_length=request.max_length
    )
