"""Anatomy Export: training-free structured pruning of transformer classifiers, exported to verified ONNX.

Importing this package imports no torch; the functions below do, when called.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anatomy_export.core.errors import AnatomyError, VerifyError

if TYPE_CHECKING:
    from anatomy_export.paper.anatomy import Anatomy
    from anatomy_export.plan_files.plan import PrunePlan


__all__ = ["AnatomyError", "VerifyError", "__version__", "load", "plan", "score", "slice_neurons"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up among the installed packages when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from anatomy_export.core.version import __version__

    return __version__


def load(directory, *, allow_random_head: bool = False):
    """Load the torch model and tokenizer of a bundle (its `checkpoint/`) or of a checkpoint directory, strictly.

    Returns:
        A `Checkpoint` with `model` (float32, evaluation mode) and `tokenizer`.

    Raises:
        AnatomyError: there is no checkpoint, or a tensor of it is missing, left over, damaged or of another shape.
    """
    from anatomy_export.models.checkpoint import checkpoint_of, load_checkpoint

    return load_checkpoint(str(checkpoint_of(directory)), allow_random_head=allow_random_head)


def score(
    model,
    tokenizer,
    probes: Sequence[str] | None = None,
    *,
    strong_threshold: float = 0.35,
    max_length: int | None = None,
) -> "Anatomy":
    """The anatomy of a transformers classifier in float32 on the CPU: similarities with the token that it reads.

    >>> anatomy = score(model, tokenizer, ["the film is good", "the plot is bad"])
    >>> anatomy.layer_similarity.shape  # probes, hidden states: the embedding's and one a layer
    (2, 4)
    >>> [similarity.shape for similarity in anatomy.neuron_similarity]  # probes, neurons
    [(2, 24), (2, 24), (2, 24)]
    >>> anatomy.layer_similarity[:, -1].round(6).tolist()  # the target token with itself
    [1.0, 1.0]

    Args:
        probes: sentences, None for the ten built-in ones; one is cut off at `max_length` tokens (None: what the model
            and its tokenizer take).
        strong_threshold: a neuron is strong where its similarity with any probe's target token is above.

    Raises:
        AnatomyError: an unsupported family, another precision or device, no probes, or one longer than the model takes.
    """
    from anatomy_export.jobs.api import score_model

    return score_model(model, tokenizer, probes, strong_threshold=strong_threshold, max_length=max_length)


def plan(
    model,
    anatomy: "Anatomy",
    *,
    preset: str | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    focus: Sequence[int] | None = None,
    keep_ratio: float | None = None,
    probe_reduction: str = "mean",
    align: int = 1,
) -> "PrunePlan":
    """Which neurons stay by the paper's rule for this family: its thresholds, or the best `keep_ratio` of each layer.

    >>> anatomy = score(model, tokenizer, ["the film is good"], strong_threshold=0.9)
    >>> half = plan(model, anatomy, keep_ratio=0.5)
    >>> half.kept_widths, half.removed
    ([12, 12, 12], 36)
    >>> plan(model, anatomy, alpha=0, beta=0, focus=[]).removed  # no |similarity| is below 0
    0

    Args:
        preset: of the paper, the family's first by default; `alpha`, `beta` and `focus` override its values.
        probe_reduction: "mean" over the probes, or the "first" alone.
        align: widths are rounded up to a multiple of it.

    Raises:
        AnatomyError: an unknown preset or layer, a threshold that empties a layer, or too many strong neurons.
    """
    from anatomy_export.models.supported_families import family_of
    from anatomy_export.paper.rule import paper_plan
    from anatomy_export.paper.thresholds import chosen_setup

    if keep_ratio is not None and (alpha is not None or beta is not None):
        raise AnatomyError("keep_ratio ranks neurons without a threshold; next step: leave out alpha and beta")
    rule = family_of(model.config).rule
    setup = chosen_setup(rule, anatomy.num_layers, preset=preset, alpha=alpha, beta=beta, focus=focus)
    return paper_plan(
        anatomy, rule=rule, setup=setup, keep_ratio=keep_ratio, probe_reduction=probe_reduction, align=align
    )


def slice_neurons(model, plan: "PrunePlan"):
    """A new model without the neurons that the plan removes; `model` stays as it is.

    >>> half = plan(model, score(model, tokenizer, strong_threshold=0.9), keep_ratio=0.5)
    >>> sliced = slice_neurons(model, half)
    >>> before, after = (sum(weights.numel() for weights in each.parameters()) for each in (model, sliced))
    >>> (before - after) // half.removed  # a neuron: its row of W1 and of W2, 16 each, and its bias
    33

    Raises:
        AnatomyError: the plan was made for another model.
    """
    from anatomy_export.models.prune import slice_neurons

    return slice_neurons(model, plan)
