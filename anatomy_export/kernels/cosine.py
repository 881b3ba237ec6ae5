"""Cosine similarity of every row with every target."""

import torch


def cosine_similarity(rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cosine of each row with each target; 0 where either is all zeros.

    Args:
        rows: (n, d).
        targets: (p, d).

    Returns:
        (p, n), in the dtype of the inputs.
    """
    return _unit(targets) @ _unit(rows).T


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, torch.ones_like(norms))
