"""Uniformly random scores: the control."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """(n,) in [0, 1), the same for the same seed."""
    return np.random.default_rng([context.seed, layer.layer]).random(len(layer.down_weight))
