"""Norm of each W2 row: of the weights alone, no text enters (Li et al., arXiv 1608.08710, for filters)."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """‖W2 row‖, (n,)."""
    return layer.down_weight.norm(dim=1).cpu().numpy()
