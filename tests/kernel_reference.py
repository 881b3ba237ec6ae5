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


def gram_moments(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (b, n) with weights (b,) give their weighted mean (n,) and centred covariance (n, n)."""
    rows, weights = rows.astype(np.float64), weights.astype(np.float64)
    mean = sum(weight * row for weight, row in zip(weights, rows, strict=True)) / weights.sum()
    products = [weight * np.outer(row - mean, row - mean) for weight, row in zip(weights, rows, strict=True)]
    return mean, sum(products) / weights.sum()


def ridge_solve(gram: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """`(gram + ridge · mean(diag gram) · I)⁻¹ right`: (n, n) and (n, d) give (n, d)."""
    scale = np.mean(np.diag(gram)) or 1.0
    return np.linalg.solve(gram + ridge * scale * np.eye(len(gram)), right)


def obs_scores(gram: np.ndarray, rows: np.ndarray, metric: np.ndarray, ridge: float) -> np.ndarray:
    """Gram (n, n), rows (n, d) and metric (d, d) give (n,): error after refitting the others without neuron j."""
    return np.array([refit_error(gram, rows, metric, ridge, [neuron]) for neuron in range(len(rows))])


def obs_removal(gram: np.ndarray, rows: np.ndarray, metric: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Greedy order (n,) and the error (n,) once each has gone, every trial refitted from scratch."""
    gone: list[int] = []
    errors = []
    for _ in range(len(rows)):
        trials = {
            neuron: refit_error(gram, rows, metric, ridge, [*gone, neuron])
            for neuron in range(len(rows))
            if neuron not in gone
        }
        best = min(trials, key=lambda neuron: trials[neuron])
        gone.append(best)
        errors.append(trials[best])
    return np.array(gone), np.array(errors)


def refit_error(gram: np.ndarray, rows: np.ndarray, metric: np.ndarray, ridge: float, gone: list[int]) -> float:
    """`tr(M Dᵀ H D)`, H the Gram matrix with its ridge, D the change of the rows when `gone` go and others refit."""
    regular = gram + ridge * np.mean(np.diag(gram)) * np.eye(len(gram))
    kept = [neuron for neuron in range(len(rows)) if neuron not in gone]
    change = rows.astype(np.float64).copy()
    change[kept] = -np.linalg.solve(regular[np.ix_(kept, kept)], regular[np.ix_(kept, gone)] @ rows[gone])
    return float(np.trace(metric @ change.T @ regular @ change))
