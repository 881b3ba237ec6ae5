"""Optimal brain surgeon: what removing a neuron costs once the others are refitted (ZipLM, arXiv 2302.04089).

H is the Gram matrix of the *centred* activations, their covariance: what a neuron gives on average b2 can give, which
every repair but none refits. ZipLM's H is not centred; unrepaired, a neuron that is nearly constant is underrated here.

The plain variants measure the FFN output's squared error. The gradient variant measures it by `M = E[Σ g gᵀ]`, g the
logit margin's gradient at the output, and weighs tokens by ‖g‖: a Kronecker-factored estimate of the margin's own
change (EigenDamage, arXiv 1905.05934; LLM Surgeon, arXiv 2312.17244).
"""

import numpy as np

from anatomy_export.calibration.layer_statistics import LayerStatistics
from anatomy_export.criteria.context import Context
from anatomy_export.kernels.gram import Moments
from anatomy_export.kernels.obs import Removal, obs_removal, obs_scores


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """One-shot ‖w_j‖² / [H⁻¹]_jj, (n,)."""
    return obs_scores(_plain(layer).covariance, layer.down_weight, ridge=context.ridge).cpu().numpy()


def score_greedy(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Squared error of the output once the neuron has gone, greedily one after the other, (n,)."""
    return removal_scores(obs_removal(_plain(layer).covariance, layer.down_weight, ridge=context.ridge))


def score_gradient(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Predicted squared change of the margin once the neuron has gone, greedily, (n,)."""
    return removal_scores(gradient_removal(layer, context))


def gradient_removal(layer: LayerStatistics, context: Context) -> Removal:
    """Greedy removal in the gradient metric."""
    return obs_removal(layer.moments.covariance, layer.down_weight, layer.metric, ridge=context.ridge)


def removal_damage(removal: Removal) -> np.ndarray:
    """Predicted squared change of the margin once 0, 1, … n neurons are gone, (n + 1,)."""
    return np.concatenate([[0.0], removal.error.cpu().numpy()])


def removal_scores(removal: Removal) -> np.ndarray:
    """The error reached, in the neurons' own order, (n,); ties made to follow the order of removal."""
    error = np.maximum.accumulate(removal.error.cpu().numpy())
    error = error + np.arange(len(error)) * max(error[-1], 1e-300) * 1e-12
    scores = np.empty(len(error))
    scores[removal.order.cpu().numpy()] = error
    return scores


def _plain(layer: LayerStatistics) -> Moments:
    if layer.plain is None:
        raise ValueError("obs and obs-greedy need statistics collected with plain=True")
    return layer.plain
