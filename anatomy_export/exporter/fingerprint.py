"""The fingerprint that ties a plan to a model, the same from torch and from ONNX."""

import hashlib
from collections.abc import Iterable

import numpy as np


def ffn_fingerprint(blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> str:
    """SHA-256 over every layer's W1 (n, d), b1 (n,), W2 (n, d) as little-endian float32, in that order."""
    digest = hashlib.sha256()
    for arrays in blocks:
        for array in arrays:
            digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()
