"""Similarity of each W2 row with the token that the classifier reads (the paper's ranking); strong neurons stay."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """|s|, or s in one-sided layers, (n,); infinite for strong neurons."""
    similarity, threshold, strong = context.similarity(layer.layer)
    scores = threshold.measure(similarity).astype(np.float64)
    scores[strong] = np.inf
    return scores
