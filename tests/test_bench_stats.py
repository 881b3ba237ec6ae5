"""The ratio's interval covers the truth as often as it says, under drift; percentiles; what needs more samples."""

import numpy as np
import pytest

from anatomy_export.bench.stats import paired_ratio, summarize, total_ratio, unpaired_ratio


def drifting_pair(generator: np.random.Generator, rounds: int, *, interleaved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of two equal engines on a machine that drifts by a random walk and a wave, with noise and outliers."""
    calls = 2 * rounds
    wave = 0.1 * np.sin(np.arange(calls) / generator.uniform(5, 50) + generator.uniform(0, 6))
    drift = generator.normal(0, 0.01, calls).cumsum() + wave
    noise = generator.normal(0, 0.03, calls)
    noise += np.where(generator.random(calls) < 0.05, generator.exponential(0.3, calls), 0)
    times = 0.01 * np.exp(drift + noise)
    if not interleaved:
        return times[:rounds], times[rounds:]
    pairs = times.reshape(rounds, 2)
    first = generator.integers(0, 2, rounds)
    return pairs[np.arange(rounds), first], pairs[np.arange(rounds), 1 - first]


def coverage(rounds: int, runs: int, *, interleaved: bool = True) -> float:
    generator = np.random.default_rng(2024)
    inside = 0
    for _ in range(runs):
        ratio = paired_ratio(*drifting_pair(generator, rounds, interleaved=interleaved))
        inside += ratio.low <= 1 <= ratio.high
    return inside / runs


@pytest.mark.parametrize("rounds", [20, 30])
def test_interval_of_two_equal_engines_under_drift_contains_one(rounds):
    assert 0.93 <= coverage(rounds, 600) <= 0.97


def test_one_engine_after_the_other_would_not_do():
    assert coverage(20, 100, interleaved=False) < 0.7


def test_known_ratio():
    own = np.full(10, 0.02)
    ratio = paired_ratio(own * 1.5, own)
    assert ratio.median == pytest.approx(1.5) and ratio.bounds == pytest.approx([1.5, 1.5])
    assert not ratio.void
    assert total_ratio([2.0, 1.0], [1.0, 1.0]).median == 1.5
    assert unpaired_ratio([3.0] * 6, [2.0] * 8).median == pytest.approx(1.5)


def test_few_rounds_have_no_interval_and_noise_makes_a_comparison_void():
    assert paired_ratio([1.0] * 4, [1.0] * 4).bounds is None
    generator = np.random.default_rng(0)
    assert paired_ratio(np.exp(generator.normal(0, 1, 10)), np.ones(10)).void
    with pytest.raises(ValueError):
        paired_ratio([], [])


def test_percentiles():
    summary = summarize([float(value) for value in range(1, 101)])
    assert (summary.p50_s, summary.mean_s) == (50.5, 50.5)
    assert summary.p90_s == pytest.approx(90.1)
    assert summary.p99_s == pytest.approx(99.01)
    assert summarize([1.0] * 99).p99_s is None
