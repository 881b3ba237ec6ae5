"""What repeated timings say: percentiles, ratios with a bootstrap interval, and when they say nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_ROUNDS = 10
P99_SAMPLES = 100
VOID_SPREAD = 0.10
MAX_LAUNCHES = 10
# The 97.5 % quantile of Student's t at 1 to 18 degrees of freedom: of two runs of 10 launches, or fewer.
STUDENT_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262),
    *(2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101),
)


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

    The bounds are None under 10 rounds.
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
        return self.wider_than(VOID_SPREAD * self.median)

    def wider_than(self, width: float) -> bool:
        """True where there is an interval and it is wider than `width`."""
        return self.low is not None and self.high is not None and self.high - self.low > width


def summarize(times_s: Sequence[float]) -> Summary:
    """Percentiles and mean of `times_s`, at least one value."""
    values = np.asarray(times_s, dtype=np.float64)
    return Summary(
        p50_s=float(np.median(values)),
        p90_s=float(np.quantile(values, 0.9)),
        p99_s=float(np.quantile(values, 0.99)) if len(values) >= P99_SAMPLES else None,
        mean_s=float(values.mean()),
    )


def median_interval(times_s: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the median of `times_s` by the smoothed bootstrap of `paired_ratio`; None under 10 values."""
    values = np.asarray(times_s, dtype=np.float64)
    if len(values) < MIN_ROUNDS:
        return None
    low, high = _interval(_median_draws(values, np.random.default_rng(seed)))
    return float(low), float(high)


def paired_ratio(
    reference_s: Sequence[float], own_s: Sequence[float], *, launches: Sequence[int] | None = None, seed: int = 0
) -> Ratio:
    """Median over rounds of reference time ÷ own time, both of the same round, and its 95 % interval.

    The interval is a smoothed bootstrap of the median of log ratios: each resampled value gets normal noise of
    standard deviation IQR / 1.349 / sqrt(rounds), because the plain bootstrap of a median of few values covers less
    than it claims (smoothing: Hall, DiCiccio & Romano, "On smoothing and the bootstrap", Annals of Statistics 1989).
    Rounds of several launches of the worker processes give the geometric mean of the launches' medians, and Student's
    interval of that mean: what is luck of a process (where its memory lies) varies between launches only.

    Args:
        reference_s, own_s: seconds, one value a round, (rounds,) each.
        launches: of each round, which launch it was in, (rounds,); None: all the same.

    Raises:
        ValueError: the lengths differ or there is no round.
    """
    logs = np.log(np.asarray(reference_s, dtype=np.float64)) - np.log(np.asarray(own_s, dtype=np.float64))
    if logs.ndim != 1 or not len(logs):
        raise ValueError(f"expected one or more rounds, got shape {logs.shape}")
    medians = _launch_medians(logs, launches)
    estimate = float(medians.mean())
    if len(logs) < MIN_ROUNDS:
        return Ratio(float(np.exp(estimate)), None, None)
    if len(medians) == 1:
        low, high = _interval(_median_draws(logs, np.random.default_rng(seed)))
    else:
        reach = STUDENT_975[len(medians) - 2] * medians.std(ddof=1) / np.sqrt(len(medians))
        low, high = estimate - reach, estimate + reach
    return Ratio(float(np.exp(estimate)), float(np.exp(low)), float(np.exp(high)))


def unpaired_ratio(
    reference_s: Sequence[float],
    own_s: Sequence[float],
    *,
    reference_launches: Sequence[int],
    own_launches: Sequence[int],
) -> Ratio:
    """Ratio of two separate runs, each the geometric mean of its launches' medians, and its 95 % interval.

    The interval is Welch's of the two means of log medians (B. L. Welch, "The generalization of 'Student's' problem
    when several different population variances are involved", Biometrika 1947): what is luck of a process varies
    between launches only, so that a run of one launch has none. It knows nothing of drift between the runs, which
    pairing would have removed.

    Args:
        reference_s, own_s: seconds, one value a round, (rounds,) each. reference_launches, own_launches: of each round,
            which launch it was in, (rounds,) each.
    """
    runs = ((reference_s, reference_launches), (own_s, own_launches))
    reference, own = (_launch_medians(np.log(np.asarray(times, dtype=np.float64)), which) for times, which in runs)
    estimate = float(reference.mean() - own.mean())
    few_rounds = min(len(reference_s), len(own_s)) < MIN_ROUNDS
    if few_rounds or min(len(reference), len(own)) < 2:
        return Ratio(float(np.exp(estimate)), None, None)
    reach = _welch_reach(reference, own)
    return Ratio(float(np.exp(estimate)), float(np.exp(estimate - reach)), float(np.exp(estimate + reach)))


def _launch_medians(logs: np.ndarray, launches: Sequence[int] | None) -> np.ndarray:
    """The median of each launch's rounds, (launches,)."""
    labels = np.zeros(len(logs)) if launches is None else np.asarray(launches)
    return np.array([np.median(logs[labels == label]) for label in np.unique(labels)])


def _welch_reach(first: np.ndarray, second: np.ndarray) -> float:
    """Half the 95 % interval of the difference of two means, of two values or more each."""
    parts = [values.var(ddof=1) / len(values) for values in (first, second)]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    whole = np.arange(1, len(STUDENT_975) + 1)
    quantile = np.exp(np.interp(1 / freedom, 1 / whole[::-1], np.log(STUDENT_975[::-1])))
    return float(quantile * np.sqrt(sum(parts)))


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


def closure_of(speedup: Ratio | None, removed_share: float | None) -> Ratio | None:
    """(dense time − variant time) ÷ (dense time × removed share), from dense ÷ variant: how far the gap is closed."""
    if speedup is None or not removed_share:
        return None

    def closed(ratio: float | None) -> float | None:
        return None if ratio is None else (1 - 1 / ratio) / removed_share

    return Ratio((1 - 1 / speedup.median) / removed_share, closed(speedup.low), closed(speedup.high))


def _median_draws(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    count = len(values)
    low, high = np.quantile(values, [0.25, 0.75])
    scale = (high - low) / 1.349 / np.sqrt(count)
    draws = values[generator.integers(0, count, size=(RESAMPLES, count))]
    return np.median(draws + generator.normal(0.0, 1.0, draws.shape) * scale, axis=1)


def _interval(draws: np.ndarray) -> np.ndarray:
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(draws, [tail, 1 - tail])
