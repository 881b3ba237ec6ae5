"""From what was asked for to a plan: the dense identity, the paper's own rule, or a choice from calibration text."""

from dataclasses import dataclass, replace
from typing import Any

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import Context, find_criterion
from anatomy_export.data.loading import Dataset
from anatomy_export.data.probes import Probes
from anatomy_export.models.checkpoint import Checkpoint
from anatomy_export.models.families import family_of, model_blocks
from anatomy_export.paper.anatomy import Anatomy
from anatomy_export.paper.rule import ratio_plan, threshold_plan
from anatomy_export.paper.scoring import score_anatomy
from anatomy_export.paper.thresholds import ThresholdSetup, preset_setup
from anatomy_export.planning.allocate import UNIFORM, width_multiple
from anatomy_export.planning.choose import Chosen, budgeted_plan, calibration_of, repaired_plan
from anatomy_export.planning.latency import MeasureLatency
from anatomy_export.planning.options import BUDGETS, OF_ANATOMY, PAPERS_OWN, ScoreOptions, score_options
from anatomy_export.plans.identity import ModelIdentity
from anatomy_export.plans.plan import PrunePlan, identity_plan

FEWEST_SEARCHED = 100


@dataclass(frozen=True)
class Planning:
    """What a plan is made from; `identity` is the dense model's."""

    checkpoint: Checkpoint
    data: Dataset | None
    probes: Probes
    options: ScoreOptions
    max_length: int
    identity: ModelIdentity
    measure_latency: MeasureLatency
    progress: Progress

    @property
    def rule(self) -> str:
        return family_of(self.checkpoint.model.config).rule


def resolve_options(given: dict, data: Dataset | None, *, random_weights: bool, progress: Progress) -> ScoreOptions:
    """The options that were given and the defaults that this model and data allow; says where they allow less.

    A search that was not asked for needs `FEWEST_SEARCHED` validation texts.

    Raises:
        AnatomyError: a budget of accuracy, but accuracy cannot be measured.
    """
    reason = _unmeasurable(data, random_weights)
    if reason and given.get("max_accuracy_drop") is not None:
        raise AnatomyError(
            f"--max-accuracy-drop needs accuracy on validation text, but {reason}; next step: use --keep-ratio"
        )
    why_half = f"accuracy cannot be measured ({reason})" if reason else None
    if not reason and given.get("max_accuracy_drop") is None and data and len(data.validation) < FEWEST_SEARCHED:
        why_half = f"a search takes {FEWEST_SEARCHED} validation texts, --data leaves {len(data.validation)}"
    options = score_options(given, calibrated=data is not None, measured=not why_half, align=width_multiple("auto"))
    if why_half and not any(name in given for name in (*BUDGETS, *PAPERS_OWN)):
        how = "" if data is not None else ", ranked by anatomy alone and not repaired"
        progress.note(f"note: {why_half}, so half of the neurons stay (--keep-ratio 0.5){how}")
    for name in OF_ANATOMY if not find_criterion(options.criterion).needs_anatomy else ():
        if name in given:
            raise AnatomyError(
                f"--{name.replace('_', '-')} is of the anatomy criteria, but {options.criterion} ranks the neurons; "
                "next step: leave it out, or pass --criterion anatomy"
            )
    budget = options.max_accuracy_drop
    if budget is not None and data is not None and 100 / len(data.validation) > budget:
        progress.note(
            f"note: one of {len(data.validation)} validation texts is {100 / len(data.validation):.2f} points, the "
            f"budget is {budget:g}: too few to see such a drop; next step: pass more rows, or use --keep-ratio"
        )
    return options


def _unmeasurable(data: Dataset | None, random_weights: bool) -> str | None:
    """Why accuracy on validation text cannot be measured; None where it can."""
    if random_weights:
        return "this model is not trained"
    if data is None:
        return "there is no --data"
    if not data.labels:
        return "--data has no labels"
    return None if len(data.validation) else "--data leaves no row for validation"


def choose_neurons(planning: Planning, mode: str, examples: int | None) -> Chosen:
    """The plan that was asked for, and the repair that goes with it.

    Args:
        mode: "dense" keeps every neuron.
        examples: train texts to calibrate on, as in `calibration_sample`.

    Raises:
        AnatomyError: a criterion without a budget or without calibration text, or a budget that cannot be kept.
    """
    chosen = _choose(planning, mode, examples)
    return replace(chosen, plan=replace(chosen.plan, recorded_logits=planning.identity.recorded_logits))


def _choose(planning: Planning, mode: str, examples: int | None) -> Chosen:
    options, progress = planning.options, planning.progress
    if mode == "dense":
        widths = [block.width for block in model_blocks(planning.checkpoint.model)]
        return Chosen(identity_plan(planning.identity.fingerprint, widths))
    if options.by_thresholds and options.criterion != "anatomy":
        raise AnatomyError(
            f"--criterion {options.criterion} has no thresholds; next step: give a budget by --keep-ratio, "
            "--flops-ratio, --target-speedup or --max-accuracy-drop"
        )
    if options.by_thresholds and options.allocate != UNIFORM:
        raise AnatomyError(
            f"--allocate {options.allocate}: the paper's thresholds already say how many neurons each layer keeps; "
            "next step: leave it out, or give a budget, as --keep-ratio"
        )
    if not find_criterion(options.criterion).needs_anatomy:
        return _by_criterion(planning, None, examples)
    if planning.probes.note:
        progress.note(planning.probes.note)
    chosen = _by_criterion(planning, _scored(planning), examples)
    parameters = {**chosen.plan.parameters, "probes": planning.probes.origin}
    return replace(chosen, plan=replace(chosen.plan, parameters=parameters))


def _by_criterion(planning: Planning, scored: tuple[Anatomy, ThresholdSetup] | None, examples: int | None) -> Chosen:
    """`scored` is there where the criterion needs the anatomy."""
    options = planning.options
    if scored is not None and not options.calibrated:
        return Chosen(_paper_plan(planning, *scored))
    calibration = calibration_of(
        planning.checkpoint,
        planning.data,
        options,
        max_length=planning.max_length,
        examples=examples,
        measure_latency=planning.measure_latency,
        progress=planning.progress,
    )
    if scored is not None and options.by_anatomy_alone:
        return repaired_plan(calibration, _paper_plan(planning, *scored))
    anatomy, setup = scored or (None, None)
    context = Context(
        seed=options.seed,
        anatomy=anatomy,
        rule=planning.rule,
        setup=setup,
        probe_reduction=options.probe_reduction,
    )
    return budgeted_plan(calibration, context, planning.identity.fingerprint)


def _scored(planning: Planning) -> tuple[Anatomy, ThresholdSetup]:
    """The model's anatomy, and the thresholds that it is judged by."""
    with planning.progress.stage("score the anatomy"):
        anatomy = score_anatomy(
            planning.checkpoint,
            planning.probes.texts,
            strong_threshold=planning.options.strong_threshold,
            max_length=planning.max_length,
            cut_off=planning.probes.cut_off,
            identity=planning.identity,
        )
        return anatomy, _setup(planning)


def _setup(planning: Planning) -> ThresholdSetup:
    """The preset's values, overridden by those that were given."""
    options, rule = planning.options, planning.rule
    base = preset_setup(options.preset or f"{rule}-1", rule, len(model_blocks(planning.checkpoint.model)))
    return ThresholdSetup(
        alpha=base.alpha if options.alpha is None else options.alpha,
        beta=base.beta if options.beta is None else options.beta,
        focus=base.focus if options.focus is None else options.focus,
    )


def _paper_plan(planning: Planning, anatomy: Anatomy, setup: ThresholdSetup) -> PrunePlan:
    options = planning.options
    common: dict[str, Any] = {
        "rule": planning.rule,
        "setup": setup,
        "probe_reduction": options.probe_reduction,
        "align": options.align,
    }
    if options.keep_ratio is None:
        return threshold_plan(anatomy, **common)
    return ratio_plan(anatomy, keep_ratio=options.keep_ratio, **common)
