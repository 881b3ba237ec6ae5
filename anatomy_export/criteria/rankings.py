"""The rankings of one layer's neurons that are a formula each: statistics and context give (n,), higher = keep."""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.core.errors import AnatomyError
from anatomy_export.criteria.context import Context


def anatomy(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Similarity of each W2 row with the token that the classifier reads, the paper's ranking: |s|, or s in one-sided
    layers; infinite for strong neurons, which stay."""
    similarity, threshold, strong = context.similarity(layer.layer)
    scores = threshold.measure(similarity).astype(np.float64)
    scores[strong] = np.inf
    return scores


def anatomy_activation(layer: LayerStatistics, context: Context) -> np.ndarray:
    """The paper's view of the target token t, weighted by what the neuron really sends: RMS activation · |W2 row · t|.

    That is RMS activation · |s| · ‖W2 row‖: the target's own norm is the same for all. Infinite for strong neurons.
    """
    similarity, _, strong = context.similarity(layer.layer)
    scores = activation(layer, context) * np.abs(similarity)
    scores[strong] = np.inf
    return scores


def random(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Uniformly random in [0, 1), the same for the same seed: the control."""
    return np.random.default_rng([context.seed, layer.layer]).random(len(layer.down_weight))


def magnitude(layer: LayerStatistics, context: Context) -> np.ndarray:
    """‖W2 row‖: of the weights alone, no text enters (Li et al., arXiv 1608.08710, for filters)."""
    return layer.down_weight.norm(dim=1).cpu().numpy()


def activation(layer: LayerStatistics, context: Context) -> np.ndarray:
    """RMS activation √E[a²] · ‖W2 row‖: Wanda (arXiv 2306.11695), for whole neurons."""
    return (layer.mean_square.sqrt() * layer.down_weight.norm(dim=1)).cpu().numpy()


def fluctuation(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Var[a] · ‖W2 row‖²: FLAP (arXiv 2312.11983); the mean is what a bias can stand in for."""
    return (layer.variance * layer.down_weight.square().sum(1)).cpu().numpy()


def fisher(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Diagonal of the empirical Fisher information of each neuron's mask (Kwon et al., arXiv 2204.09656): E over
    sentences of (Σ over tokens of a ∂loss/∂a)².

    Raises:
        AnatomyError: the calibration text had no labels.
    """
    if layer.fisher is None:
        raise AnatomyError("fisher needs labelled calibration text; next step: pass labelled --data")
    return layer.fisher.cpu().numpy()
