"""Optimal brain surgeon for whole neurons: what removing rows of W2 costs once the rest is refitted.

Removing neuron j and refitting the others by least squares raises the squared error of the FFN output by
`w_jᵀ M w_j / [H⁻¹]_jj`, H the Gram matrix of the activations, M the metric of the output (Hassibi & Stork 1993; for
structures, ZipLM, arXiv 2302.04089). Then `W ← W − H⁻¹[:, j] w_jᵀ / [H⁻¹]_jj`, and H⁻¹ loses row and column j likewise.
"""

from dataclasses import dataclass

import numpy as np
import torch

from anatomy_export.kernels.solve import ridge_inverse

BLOCK, CANDIDATES = 32, 4


@dataclass(frozen=True)
class Removal:
    """`order: (r,)` neurons, first to go first; `error: (r,)` squared error of the output once each has gone."""

    order: torch.Tensor
    error: torch.Tensor


def obs_scores(
    gram: torch.Tensor, rows: torch.Tensor, metric: torch.Tensor | None = None, *, ridge: float = 1e-4
) -> torch.Tensor:
    """One-shot scores (n,): the error that each neuron's removal alone would cause.

    Args:
        gram: H, (n, n), float64; of centred activations where a bias is refitted too.
        rows: W2, (n, d).
        metric: M, (d, d), positive semidefinite; the identity by default.
        ridge: relative to the mean of H's diagonal.

    Raises:
        AnatomyError: H is not finite, or is indefinite at any ridge.
    """
    inverse = ridge_inverse(gram, ridge)
    return in_metric(rows, metric).square().sum(1) / inverse.diagonal()


def obs_removal(
    gram: torch.Tensor,
    rows: torch.Tensor,
    metric: torch.Tensor | None = None,
    *,
    ridge: float = 1e-4,
    count: int | None = None,
    block: int = BLOCK,
) -> Removal:
    """Greedy order of removal, W2 and H⁻¹ updated exactly after each.

    Neurons go one at a time among the `4 · block` cheapest; the others are updated once a block.

    Args:
        gram, rows, metric, ridge: see `obs_scores`.
        count: how many go; all by default.
        block: neurons between two updates of the whole.

    Raises:
        AnatomyError: as `obs_scores`.
    """
    inverse, current = ridge_inverse(gram, ridge), in_metric(rows, metric).clone()
    names = torch.arange(len(current), device=current.device)
    gone = torch.zeros_like(names, dtype=torch.bool)
    order, errors = [], []
    left, alive = len(current) if count is None else count, len(current)
    while left > 0:
        scores = torch.where(gone, torch.inf, torch.linalg.vector_norm(current, dim=1).square_() / inverse.diagonal())
        candidates = torch.argsort(scores, stable=True)[: min(CANDIDATES * block, alive)]
        chosen, error = _remove_among(inverse, current, candidates, min(block, left, alive))
        order.append(names[chosen])
        errors.append(error)
        _eliminate_(inverse, current, chosen)
        gone[chosen] = True
        left, alive = left - len(chosen), alive - len(chosen)
        if 4 * alive < 3 * len(gone):
            kept = (~gone).nonzero()[:, 0]
            inverse, current, names, gone = inverse[kept][:, kept], current[kept], names[kept], gone[kept]
    total = torch.cat(errors).cumsum(0) if errors else current.new_zeros(0)
    return Removal(torch.cat(order) if order else names[:0], total)


def in_metric(rows: torch.Tensor, metric: torch.Tensor | None) -> torch.Tensor:
    """Rows (n, d) turned so that their squared norm is `wᵀ M w`, in float64."""
    if metric is None:
        return rows.double()
    values, vectors = torch.linalg.eigh(metric.double())
    return rows.double() @ (vectors * values.clamp_min(0).sqrt())


def _remove_among(
    inverse: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedily take `count` of the candidates; positions (count,) and the error that each adds (count,).

    Of their rows only the inner products are needed and kept up to date. So many small steps are NumPy's, whatever the
    device.
    """
    weights = rows[candidates]
    local, inner = inverse[candidates][:, candidates].cpu().numpy(), (weights @ weights.T).cpu().numpy()
    pivots, norms = np.einsum("jj->j", local), np.einsum("jj->j", inner)  # views: they follow the updates
    gone = np.zeros(len(local))
    taken, errors = [], []
    for _ in range(count):
        scores = norms / pivots + gone
        first = int(scores.argmin())
        taken.append(first)
        errors.append(scores[first])
        column = local[:, first] / local[first, first]
        pair = np.stack([column, inner[:, first] - column * (inner[first, first] / 2)])
        inner -= pair.T @ pair[::-1]
        local -= np.outer(column, local[first])
        gone[first], pivots[first] = np.inf, 1.0
    return candidates[taken], torch.tensor(errors, dtype=rows.dtype, device=rows.device)


def _eliminate_(inverse: torch.Tensor, rows: torch.Tensor, gone: torch.Tensor) -> None:
    """Take the neurons `gone` out of the inverse and refit the other rows, in place; their own become zero."""
    across = inverse[gone]
    share = torch.linalg.solve(across[:, gone], across).T
    inverse.addmm_(share, across, alpha=-1)
    rows.addmm_(share, rows[gone], alpha=-1)
