"""Anatomy Export: training-free structured pruning of transformer classifiers, exported to verified ONNX.

Importing this package imports no torch; the functions below do, when called.
"""

from importlib.metadata import version

from anatomy_export.errors import AnatomyError, VerifyError

__version__ = version("anatomy-export")
__all__ = ["AnatomyError", "VerifyError", "__version__", "load"]


def load(directory, *, allow_random_head: bool = False):
    """Load the torch model and tokenizer of a bundle (its `checkpoint/`) or of a checkpoint directory, strictly.

    Returns:
        A `Checkpoint` with `model` (float32, evaluation mode) and `tokenizer`.

    Raises:
        AnatomyError: there is no checkpoint, or a tensor of it is missing, left over, damaged or of another shape.
    """
    from anatomy_export.exporter.bundle import checkpoint_of
    from anatomy_export.models.checkpoint import load_checkpoint

    return load_checkpoint(str(checkpoint_of(directory)), allow_random_head=allow_random_head)
