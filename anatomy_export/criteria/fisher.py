"""Diagonal of the empirical Fisher information of each neuron's mask (Kwon et al., arXiv 2204.09656)."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """E over sentences of (Σ over tokens of a ∂loss/∂a)², (n,).

    Raises:
        AnatomyError: the calibration text had no labels.
    """
    if layer.fisher is None:
        raise AnatomyError("fisher needs labelled calibration text; next step: pass labelled --data")
    return layer.fisher.cpu().numpy()
