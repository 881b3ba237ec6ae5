"""How far two computations of the same logits may be apart."""

import numpy as np

TOLERANCE = 1e-4
REFERENCE_TOLERANCE = {"fp32": TOLERANCE, "fp16": 1e-2, "int8": 5e-2}  # 16 and 8 bits: kernels differ from CPU to CPU


def scaled_tolerance(logits: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """`tolerance` absolute, or as a share of the largest of `logits` where that exceeds 1; an absolute value."""
    largest = float(np.abs(logits).max(initial=1.0))
    return tolerance * largest if np.isfinite(largest) else tolerance
