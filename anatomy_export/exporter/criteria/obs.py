"""Optimal brain surgeon: what removing a neuron costs once the others are refitted (ZipLM, arXiv 2302.04089).

The plain variants measure the FFN output's squared error. The gradient variant measures it by `M = E[Σ g gᵀ]`, g the
logit margin's gradient at the output, and weighs tokens by ‖g‖: a Kronecker-factored estimate of the margin's own
change (EigenDamage, arXiv 1905.05934; LLM Surgeon, arXiv 2312.17244).
"""

import numpy as np
import torch

from anatomy_export.exporter.criteria.context import Context
from anatomy_export.exporter.statistics import LayerStatistics
from anatomy_export.kernels.obs import Removal, obs_removal, obs_scores


def score(layer: LayerStatistics, context: Context) -> np.ndarray:
    """One-shot ‖w_j‖² / [H⁻¹]_jj, (n,)."""
    return obs_scores(layer.moments.covariance, layer.down_weight, ridge=context.ridge).numpy()


def score_greedy(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Squared error of the output once the neuron has gone, greedily one after the other, (n,)."""
    return _scores(obs_removal(layer.moments.covariance, layer.down_weight, ridge=context.ridge))


def score_gradient(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Predicted squared change of the margin once the neuron has gone, greedily, (n,)."""
    return _scores(removal(layer, context))


def removal(layer: LayerStatistics, context: Context) -> Removal:
    """Greedy removal in the gradient metric."""
    return obs_removal(layer.moments.covariance, layer.down_weight, layer.metric, ridge=context.ridge)


def damage(layer: LayerStatistics, context: Context) -> np.ndarray:
    """Predicted squared change of the margin once 0, 1, … n neurons are gone, (n + 1,)."""
    return np.concatenate([[0.0], removal(layer, context).error.numpy()])


def _scores(removal: Removal) -> np.ndarray:
    """The error reached, in the neurons' own order; ties made to follow the order of removal."""
    error = np.maximum.accumulate(removal.error.numpy())
    error = error + np.arange(len(error)) * max(error[-1], 1e-300) * 1e-12
    scores = torch.empty(len(error), dtype=torch.float64)
    scores[removal.order] = torch.from_numpy(error)
    return scores.numpy()
