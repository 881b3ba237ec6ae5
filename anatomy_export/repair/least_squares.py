"""Closed-form repair of what pruning leaves of an FFN: W2 and b2 refitted to what the dense model computes.

Layer by layer, on the pruned model's inputs. With `a` the kept activations and `e` what the output lacks, ridge
regression gives `W2_K + (C + λ mean(diag C) I)⁻¹ C_ae` and the bias that keeps the mean, `C` the centred covariance;
tokens are weighted (`token_weights`). For `e = W2_Pᵀ a_P`, all that masking takes, this is the affine least squares
`W2_K + (C_KK + λI)⁻¹ C_KP W2_P`. λ, and whether least squares, the bias alone or nothing is best, is decided on text
that was held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from anatomy_export.kernels.gram import Moments
from anatomy_export.kernels.solve import ridge_solve
from anatomy_export.repair.repair_modes import AUTO, BIAS, LEAST_SQUARES, NONE

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Correction:
    """What is added to one layer's kept W2 and to its b2.

    Attributes:
        weight: (k, d), float64.
        bias: (d,), float64.
        mode: "none", "bias" or "least-squares".
        ridge: relative λ of the least squares, else None.
        error: held-out mean squared error of what is fitted to, with this correction.
        masked_error: the same with none.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    mode: str
    ridge: float | None
    error: float
    masked_error: float


def fit_correction(
    fit: Moments,
    held_out: Moments,
    kept: int,
    *,
    mode: str = AUTO,
    metric: torch.Tensor | None = None,
    ridges: Sequence[float] = RIDGES,
) -> Correction:
    """The correction with the smallest held-out error; λ is walked to from the middle while that error falls.

    Args:
        fit, held_out: moments of the rows `[a (k) | e (d)]`.
        kept: k.
        mode: what may be chosen; "auto" for all of them.
        metric: (d, d) of the output error; the identity by default.
        ridges: λ that may be chosen, rising, relative to the mean diagonal of C.

    Raises:
        AnatomyError: the moments are not finite.
    """
    hidden = len(fit.mean) - kept
    empty, still = fit.mean.new_zeros(kept, hidden), fit.mean.new_zeros(hidden)
    masked_error = correction_error(held_out, empty, still, metric)
    candidates = [Correction(empty, still, NONE, None, masked_error, masked_error)]
    if mode in (BIAS, AUTO):
        shift = fit.mean[kept:]
        error = correction_error(held_out, empty, shift, metric)
        candidates.append(Correction(empty, shift, BIAS, None, error, masked_error))
    if mode in (LEAST_SQUARES, AUTO):
        candidates.append(_best_ridge(fit, held_out, kept, metric, ridges, masked_error))
    allowed = [candidate for candidate in candidates if mode in (AUTO, candidate.mode)]
    return min(allowed, key=lambda candidate: candidate.error)


def _best_ridge(
    fit: Moments,
    held_out: Moments,
    kept: int,
    metric: torch.Tensor | None,
    ridges: Sequence[float],
    masked_error: float,
) -> Correction:
    """The least squares with the best λ: from the middle of `ridges` as far as the held-out error falls."""

    def solve(ridge: float) -> Correction:
        weight, used = ridge_solve(fit.covariance[:kept, :kept], fit.covariance[:kept, kept:], ridge)
        shift = fit.mean[kept:] - weight.T @ fit.mean[:kept]
        error = correction_error(held_out, weight, shift, metric)
        return Correction(weight, shift, LEAST_SQUARES, used, error, masked_error)

    middle = len(ridges) // 2
    start = best = solve(ridges[middle])
    for direction in (ridges[middle + 1 :], ridges[:middle][::-1]):
        for ridge in direction:
            correction = solve(ridge)
            if not correction.error < best.error:
                break
            best = correction
        if best is not start:
            break
    return best


def correction_error(
    moments: Moments, weight: torch.Tensor, bias: torch.Tensor, metric: torch.Tensor | None = None
) -> float:
    """E of `rᵀ M r` with `r = e − weightᵀ a − bias`, from the moments of `[a | e]`."""
    kept = len(weight)
    covariance, mean = moments.covariance, moments.mean
    second, offset = covariance[kept:, kept:], mean[kept:] - bias
    if weight.any():
        # Not symmetric, but of the same trace with M as `second − A − Aᵀ + Wᵀ C W`, A = Wᵀ C_ae.
        second = second + weight.T @ torch.addmm(covariance[:kept, kept:], covariance[:kept, :kept], weight, beta=-2)
        offset = offset - weight.T @ mean[:kept]
    second = second + torch.outer(offset, offset)
    return float(second.trace() if metric is None else (second * metric).sum())
