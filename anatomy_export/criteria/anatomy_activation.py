"""The paper's view of the target token, weighted by what the neuron really sends: RMS activation · |W2 row · t|."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """RMS activation · |s| · ‖W2 row‖, (n,): the target's own norm is the same for all; infinite for strong neurons."""
    similarity, _, strong = context.similarity(layer.layer)
    rms, norms = layer.mean_square.sqrt().cpu().numpy(), layer.down_weight.norm(dim=1).cpu().numpy()
    scores = rms * np.abs(similarity) * norms
    scores[strong] = np.inf
    return scores
