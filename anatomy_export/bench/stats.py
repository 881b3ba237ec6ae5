"""What repeated timings say: percentiles, ratios with a 95 % interval, and when they say nothing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from anatomy_export.core.errors import MissingExtraError

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_ROUNDS = 10
P99_SAMPLES = 100
VOID_SPREAD = 0.10


@dataclass(frozen=True)
class Summary:
    """Percentiles and mean of the times of one call, in seconds; `p99_s` is None under 100 samples."""

    p50_s: float
    p90_s: float
    p99_s: float | None
    mean_s: float

    def values(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """A ratio of times (the median of paired rounds, or of totals) and its 95 % interval `[low, high]`.

    The bounds are None under 10 rounds.
    """

    median: float
    bounds: list[float] | None = None

    @property
    def void(self) -> bool:
        """True where the interval is wider than a tenth of the ratio, so that comparing means little."""
        return self.wider_than(VOID_SPREAD * self.median)

    def wider_than(self, width: float) -> bool:
        """True where there is an interval and it is wider than `width`."""
        return self.bounds is not None and self.bounds[1] - self.bounds[0] > width

    def mapped(self, change: Callable[[float], float]) -> "Ratio":
        """Another value of the same measurement: `change` of the ratio and of its bounds, whose order it keeps."""
        bounds = None if self.bounds is None else [float(change(bound)) for bound in self.bounds]
        return Ratio(float(change(self.median)), bounds)


def summarize(times_s: Sequence[float]) -> Summary:
    """Percentiles and mean of `times_s`, at least one value."""
    values = np.asarray(times_s, dtype=np.float64)
    return Summary(
        p50_s=float(np.median(values)),
        p90_s=float(np.quantile(values, 0.9)),
        p99_s=float(np.quantile(values, 0.99)) if len(values) >= P99_SAMPLES else None,
        mean_s=float(values.mean()),
    )


def median_interval(times_s: Sequence[float], *, seed: int = 0) -> list[float] | None:
    """95 % interval of the median of `times_s` by the smoothed bootstrap of `paired_ratio`; None under 10 values."""
    return _median_interval(np.asarray(times_s, dtype=np.float64), seed) if len(times_s) >= MIN_ROUNDS else None


def paired_ratio(
    reference_s: Sequence[float], times_s: Sequence[float], *, launches: Sequence[int] | None = None, seed: int = 0
) -> Ratio:
    """Median over rounds of reference time ÷ time, both of the same round, and its 95 % interval.

    The interval is a smoothed bootstrap of the median of log ratios: each resampled value gets normal noise of
    standard deviation IQR / 1.349 / sqrt(rounds), because the plain bootstrap of a median of few values covers less
    than it claims (smoothing: Hall, DiCiccio & Romano, "On smoothing and the bootstrap", Annals of Statistics 1989).
    Rounds of several launches of the worker processes give the geometric mean of the launches' medians, and Student's
    interval of that mean: what is luck of a process (where its memory lies) varies between launches only.

    Args:
        reference_s, times_s: seconds, one value a round, (rounds,) each.
        launches: of each round, which launch it was in, (rounds,); None: all the same.

    Raises:
        ValueError: the lengths differ or there is no round. MissingExtraError: several launches, and scipy is not
            installed.
    """
    logs = np.log(np.asarray(reference_s, dtype=np.float64)) - np.log(np.asarray(times_s, dtype=np.float64))
    if logs.ndim != 1 or not len(logs):
        raise ValueError(f"expected one or more rounds, got shape {logs.shape}")
    medians = _launch_medians(logs, launches)
    estimate = float(medians.mean())
    if len(logs) < MIN_ROUNDS:
        bounds = None
    elif len(medians) == 1:
        bounds = _median_interval(logs, seed)
    else:
        bounds = _student_interval(estimate, medians.var(ddof=1) / len(medians), len(medians) - 1)
    return Ratio(estimate, bounds).mapped(np.exp)


def unpaired_ratio(
    reference_s: Sequence[float],
    times_s: Sequence[float],
    *,
    reference_launches: Sequence[int],
    launches: Sequence[int],
) -> Ratio:
    """Ratio of two separate runs, each the geometric mean of its launches' medians, and its 95 % interval.

    The interval is Welch's of the two means of log medians (B. L. Welch, "The generalization of 'Student's' problem
    when several different population variances are involved", Biometrika 1947): what is luck of a process varies
    between launches only, so that a run of one launch has none. It knows nothing of drift between the runs, which
    pairing would have removed.

    Args:
        reference_s, times_s: seconds, one value a round, (rounds,) each. reference_launches, launches: of each round,
            which launch it was in, (rounds,) each.

    Raises:
        MissingExtraError: both have several launches, and scipy is not installed.
    """
    runs = ((reference_s, reference_launches), (times_s, launches))
    medians = [_launch_medians(np.log(np.asarray(times, dtype=np.float64)), which) for times, which in runs]
    estimate = float(medians[0].mean() - medians[1].mean())
    few_rounds = min(len(reference_s), len(times_s)) < MIN_ROUNDS
    if few_rounds or min(map(len, medians)) < 2:
        return Ratio(estimate).mapped(np.exp)
    parts = [values.var(ddof=1) / len(values) for values in medians]
    variance = sum(parts)
    scale = sum(part**2 / (len(values) - 1) for part, values in zip(parts, medians, strict=True))
    return Ratio(estimate, _student_interval(estimate, variance, variance**2 / scale if scale else 1)).mapped(np.exp)


def total_ratio(reference_s: Sequence[float], times_s: Sequence[float], *, seed: int = 0) -> Ratio:
    """Total reference time ÷ total time of a job in parts, and its 95 % interval by resampling parts in pairs.

    Args:
        reference_s, times_s: seconds of each part, (parts,) each; part i of both ran at about the same time.
    """
    reference, times = (np.asarray(values, dtype=np.float64) for values in (reference_s, times_s))
    ratio = float(reference.sum() / times.sum())
    if len(times) < MIN_ROUNDS:
        return Ratio(ratio)
    drawn = np.random.default_rng(seed).integers(0, len(times), size=(RESAMPLES, len(times)))
    return Ratio(ratio, _middle(reference[drawn].sum(axis=1) / times[drawn].sum(axis=1)))


def closure_of(speedup: Ratio | None, removed_share: float | None) -> Ratio | None:
    """(dense time − variant time) ÷ (dense time × removed share), from dense ÷ variant: how far the gap is closed."""
    if speedup is None or not removed_share:
        return None
    return speedup.mapped(lambda ratio: (1 - 1 / ratio) / removed_share)


def require_intervals(launches: int) -> None:
    """Raise MissingExtraError where `launches` of the worker processes would have no interval, before they start."""
    if launches > 1:
        _student()


def _student():
    """Student's t distribution."""
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingExtraError("scipy", "edge") from error
    return t


def _student_interval(estimate: float, variance: float, freedom: float) -> list[float]:
    """95 % interval of a mean from the variance of the mean and its degrees of freedom."""
    reach = _student().ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance)
    return [estimate - reach, estimate + reach]


def _launch_medians(logs: np.ndarray, launches: Sequence[int] | None) -> np.ndarray:
    """The median of each launch's rounds, (launches,)."""
    labels = np.zeros(len(logs)) if launches is None else np.asarray(launches)
    return np.array([np.median(logs[labels == label]) for label in np.unique(labels)])


def _median_interval(values: np.ndarray, seed: int) -> list[float]:
    count, generator = len(values), np.random.default_rng(seed)
    low, high = np.quantile(values, [0.25, 0.75])
    scale = (high - low) / 1.349 / np.sqrt(count)
    draws = values[generator.integers(0, count, size=(RESAMPLES, count))]
    return _middle(np.median(draws + generator.normal(0.0, 1.0, draws.shape) * scale, axis=1))


def _middle(draws: np.ndarray) -> list[float]:
    """Between which 95 % of the draws lie."""
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(draws, [tail, 1 - tail]).tolist()
