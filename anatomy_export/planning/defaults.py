"""What is taken where nothing was asked for, by what this model and data allow."""

from dataclasses import replace

from anatomy_export.core.errors import AnatomyError
from anatomy_export.core.progress import Progress
from anatomy_export.criteria.registry import find_criterion
from anatomy_export.data.loading import Dataset
from anatomy_export.planning.allocation import width_multiple
from anatomy_export.planning.options import BUDGETS, OF_ANATOMY, PAPERS_OWN, ScoreOptions

FEWEST_SEARCHED = 100

PAPER = ScoreOptions()
UNCALIBRATED = ScoreOptions(keep_ratio=0.5)
UNMEASURED = ScoreOptions(criterion="obs-gradient", compensate="auto", allocate="sensitivity", keep_ratio=0.5)
DEFAULT = replace(UNMEASURED, keep_ratio=None, max_accuracy_drop=0.5)


def score_options(given: dict, *, calibrated: bool, measured: bool, align: int) -> ScoreOptions:
    """What was given, and for the rest the defaults (docs/adr/0003).

    Args:
        given: fields of `ScoreOptions` by name. One of the paper's own (preset, alpha, beta, focus) asks for its rule.
        calibrated: there is calibration text.
        measured: accuracy on validation can be measured.
        align: width multiple of this device, for all but the paper's rule.
    """
    if any(name in given for name in PAPERS_OWN):
        return replace(PAPER, **given)
    base = replace(UNCALIBRATED if not calibrated else DEFAULT if measured else UNMEASURED, align=align)
    if any(name in given for name in BUDGETS):
        base = replace(base, keep_ratio=None, max_accuracy_drop=None)
    return replace(base, **given)


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
