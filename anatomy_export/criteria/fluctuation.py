"""Variance of the activation · ‖W2 row‖²: FLAP (arXiv 2312.11983); the mean is what a bias can stand in for."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Var[a] · ‖W2 row‖², (n,)."""
    return (layer.variance * layer.down_weight.square().sum(1)).cpu().numpy()
