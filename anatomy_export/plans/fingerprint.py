"""The fingerprint that ties a plan to a model, the same from torch and from ONNX."""

import hashlib
from collections.abc import Iterable

import numpy as np

ROWS = 512


def ffn_fingerprint(blocks: Iterable[Iterable[np.ndarray]]) -> str:
    """SHA-256 over every layer's W1 (n, d), b1 (n,), W2 (n, d) as little-endian float32, in that order.

    Arrays are asked for one by one, and converted in groups of rows.
    """
    digest = hashlib.sha256()
    for arrays in blocks:
        for array in arrays:
            for start in range(0, len(array), ROWS):
                digest.update(np.ascontiguousarray(array[start : start + ROWS], dtype="<f4").data)
    return digest.hexdigest()
