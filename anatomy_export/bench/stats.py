"""What repeated timings say: percentiles, ratios with a bootstrap interval, and when they say nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_ROUNDS = 5
P99_SAMPLES = 100
VOID_SPREAD = 0.10


@dataclass(frozen=True)
class Summary:
    """Percentiles and mean of the times of one call, in seconds; `p99_s` is None under 100 samples."""

    p50_s: float
    p90_s: float
    p99_s: float | None
    mean_s: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of times (the median of paired rounds, or of totals) and its bootstrap 95 % interval.

    The bounds are None under 5 rounds.
    """

    median: float
    low: float | None
    high: float | None

    @property
    def bounds(self) -> list[float] | None:
        """`[low, high]` for a results file."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    @property
    def void(self) -> bool:
        """True where the interval is wider than a tenth of the ratio, so that comparing means little."""
        return self.low is not None and self.high is not None and (self.high - self.low) / self.median > VOID_SPREAD


def summarize(times_s: Sequence[float]) -> Summary:
    """Percentiles and mean of `times_s`, at least one value."""
    values = np.asarray(times_s, dtype=np.float64)
    return Summary(
        p50_s=float(np.median(values)),
        p90_s=float(np.quantile(values, 0.9)),
        p99_s=float(np.quantile(values, 0.99)) if len(values) >= P99_SAMPLES else None,
        mean_s=float(values.mean()),
    )


def paired_ratio(reference_s: Sequence[float], own_s: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median over rounds of reference time ÷ own time, both of the same round, and its 95 % interval.

    The interval is a smoothed bootstrap of the median of log ratios: each resampled value gets normal noise of
    standard deviation IQR / 1.349 / sqrt(rounds), because the plain bootstrap of a median of few values covers less
    than it claims (smoothing: Hall, DiCiccio & Romano, "On smoothing and the bootstrap", Annals of Statistics 1989).

    Args:
        reference_s, own_s: seconds, one value a round, (rounds,) each.

    Raises:
        ValueError: the lengths differ or there is no round.
    """
    logs = np.log(np.asarray(reference_s, dtype=np.float64)) - np.log(np.asarray(own_s, dtype=np.float64))
    if logs.ndim != 1 or not len(logs):
        raise ValueError(f"expected one or more rounds, got shape {logs.shape}")
    median = float(np.exp(np.median(logs)))
    if len(logs) < MIN_ROUNDS:
        return Ratio(median, None, None)
    low, high = np.exp(_interval(_median_draws(logs, np.random.default_rng(seed))))
    return Ratio(median, float(low), float(high))


def unpaired_ratio(reference_s: Sequence[float], own_s: Sequence[float], *, seed: int = 0) -> Ratio:
    """Ratio of medians of two separate runs, and its 95 % interval by resampling each on its own.

    It knows nothing of drift between the runs, which pairing would have removed.
    """
    reference, own = (np.log(np.asarray(values, dtype=np.float64)) for values in (reference_s, own_s))
    median = float(np.exp(np.median(reference) - np.median(own)))
    if min(len(reference), len(own)) < MIN_ROUNDS:
        return Ratio(median, None, None)
    generator = np.random.default_rng(seed)
    low, high = np.exp(_interval(_median_draws(reference, generator) - _median_draws(own, generator)))
    return Ratio(median, float(low), float(high))


def total_ratio(reference_s: Sequence[float], own_s: Sequence[float], *, seed: int = 0) -> Ratio:
    """Total reference time ÷ total own time of a job in parts, and its 95 % interval by resampling parts in pairs.

    Args:
        reference_s, own_s: seconds of each part, (parts,) each; part i of both ran at about the same time.
    """
    reference, own = (np.asarray(values, dtype=np.float64) for values in (reference_s, own_s))
    ratio = float(reference.sum() / own.sum())
    if len(own) < MIN_ROUNDS:
        return Ratio(ratio, None, None)
    drawn = np.random.default_rng(seed).integers(0, len(own), size=(RESAMPLES, len(own)))
    low, high = _interval(reference[drawn].sum(axis=1) / own[drawn].sum(axis=1))
    return Ratio(ratio, float(low), float(high))


def _median_draws(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    count = len(values)
    low, high = np.quantile(values, [0.25, 0.75])
    scale = (high - low) / 1.349 / np.sqrt(count)
    draws = values[generator.integers(0, count, size=(RESAMPLES, count))]
    return np.median(draws + generator.normal(0.0, 1.0, draws.shape) * scale, axis=1)


def _interval(draws: np.ndarray) -> np.ndarray:
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(draws, [tail, 1 - tail])
