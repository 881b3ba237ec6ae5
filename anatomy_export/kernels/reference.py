"""Plain NumPy float64 references, one for each kernel, of the same name."""

import numpy as np


def cosine_similarity(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, d) and (p, d) give (p, n); 0 where either vector is all zeros."""
    result = np.zeros((len(targets), len(rows)), dtype=np.float64)
    for i, target in enumerate(targets.astype(np.float64)):
        for j, row in enumerate(rows.astype(np.float64)):
            norms = np.sqrt(np.sum(row * row)) * np.sqrt(np.sum(target * target))
            result[i, j] = np.sum(row * target) / norms if norms > 0 else 0.0
    return result


def gather_neurons(
    up_weight: np.ndarray, up_bias: np.ndarray, down_weight: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W1 (n, d), b1 (n,), W2 (n, d) and kept indices (k,) give the kept W1 (k, d), b1 (k,), W2 (k, d)."""
    return (
        np.stack([up_weight[neuron] for neuron in keep]),
        np.array([up_bias[neuron] for neuron in keep]),
        np.stack([down_weight[neuron] for neuron in keep]),
    )
