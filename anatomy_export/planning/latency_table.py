"""How fast a model is at given FFN widths on one device: a measured table, and what it says between its entries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LatencyTable:
    """The whole model's time with the same share of every FFN, relative to the dense model's.

    Attributes:
        shares: of the neurons, rising; the last is 1.
        relative: time ÷ dense time at each share; the last is 1.
        dense_s: median time of the dense model, seconds.
        batch, seq_len: what was timed.
        device: the machine, in words.
    """

    shares: tuple[float, ...]
    relative: tuple[float, ...]
    dense_s: float
    batch: int
    seq_len: int
    device: str

    def relative_time(self, kept: Sequence[int], widths: Sequence[int]) -> float:
        """Predicted time ÷ dense time where layers keep `kept` of `widths` neurons: each layer has its part in it."""
        parts = np.interp(np.array(kept) / np.array(widths), self.shares, self.relative)
        return float(np.average(parts, weights=widths))

    def speedup(self, kept: Sequence[int], widths: Sequence[int]) -> float:
        """Predicted dense time ÷ time."""
        return 1 / self.relative_time(kept, widths)


MeasureLatency = Callable[..., LatencyTable]
"""Makes the table of a checkpoint for `batch` inputs of `seq_len` tokens; keywords batch, seq_len, progress."""
