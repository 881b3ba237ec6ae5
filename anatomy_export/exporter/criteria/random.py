"""Uniformly random scores: the control."""

import numpy as np

from anatomy_export.exporter.criteria.context import Context
from anatomy_export.exporter.statistics import LayerStatistics


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """(n,) in [0, 1), the same for the same seed."""
    return np.random.default_rng([context.seed, layer.layer]).random(len(layer.down_weight))
