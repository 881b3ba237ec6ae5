"""RMS activation · ‖W2 row‖: Wanda (arXiv 2306.11695), for whole neurons."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """√E[a²] · ‖W2 row‖, (n,)."""
    return (layer.mean_square.sqrt() * layer.down_weight.norm(dim=1)).cpu().numpy()
