"""Ridge-regularised Cholesky solves; the ridge grows until the factorisation succeeds."""

import torch

from anatomy_export.core.errors import AnatomyError

SMALLEST_RIDGE, LARGEST_RIDGE = 1e-10, 1e3


def ridge_factor(gram: torch.Tensor, ridge: float) -> tuple[torch.Tensor, float]:
    """Cholesky factor of `gram + ridge · mean(diag gram) · I`.

    Args:
        gram: (n, n) symmetric, float64.
        ridge: relative to the mean of the diagonal; multiplied by ten until the sum is positive definite.

    Returns:
        Lower factor (n, n), and the relative ridge that was used.

    Raises:
        AnatomyError: `gram` is not finite, or no ridge helps.
    """
    if not torch.isfinite(gram).all():
        raise AnatomyError("Gram matrix holds NaN or infinity; next step: check the model on the calibration text")
    scale = float(gram.diagonal().mean())
    while ridge <= LARGEST_RIDGE:
        regular = gram.clone()
        regular.diagonal().add_(ridge * (scale if scale > 0 else 1.0))
        factor, failed = torch.linalg.cholesky_ex(regular)
        if not failed and bool((factor.diagonal() > 0).all()):
            return factor, ridge
        ridge = max(10 * ridge, SMALLEST_RIDGE)
    raise AnatomyError(f"Gram matrix ({len(gram)} × {len(gram)}) is indefinite at any ridge up to {LARGEST_RIDGE:g}")


def ridge_solve(gram: torch.Tensor, right: torch.Tensor, ridge: float) -> tuple[torch.Tensor, float]:
    """`(gram + ridge · mean(diag gram) · I)⁻¹ right`: (n, n) and (n, d) give (n, d); and the ridge that was used.

    Raises as `ridge_factor`.
    """
    factor, used = ridge_factor(gram, ridge)
    return torch.cholesky_solve(right, factor), used


def ridge_inverse(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """`(gram + ridge · mean(diag gram) · I)⁻¹`, (n, n). Raises as `ridge_factor`."""
    factor, _ = ridge_factor(gram, ridge)
    return torch.cholesky_inverse(factor)
