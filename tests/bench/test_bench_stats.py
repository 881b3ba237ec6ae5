"""The ratio's interval covers the truth as often as it says, under drift; percentiles; what needs more samples."""

import sys

import numpy as np
import pytest
from simulation import compare_coverage, interval_coverage

from anatomy_export.bench.stats import paired_ratio, require_intervals, summarize, total_ratio, unpaired_ratio
from anatomy_export.core.errors import MissingExtraError


@pytest.mark.parametrize("rounds", [10, 30])
def test_interval_of_two_equal_engines_under_drift_contains_one(rounds):
    assert 0.93 <= interval_coverage(rounds=rounds, runs=600) <= 0.97


def test_one_engine_after_the_other_would_not_do():
    assert interval_coverage(rounds=20, runs=100, interleaved=False) < 0.7


def test_the_luck_of_a_process_is_in_the_interval_of_several_launches():
    drawn = {"rounds": 10, "runs": 600, "launch_effect": 0.03}
    assert 0.92 <= interval_coverage(launches=4, **drawn) <= 0.98
    assert interval_coverage(launches=1, **drawn) < 0.9


@pytest.mark.parametrize("launches", [(2, 2), (3, 3), (3, 6)])
def test_the_luck_of_processes_is_in_the_interval_of_two_separate_runs(launches):
    assert 0.92 <= compare_coverage(rounds=10, runs=600, launches=launches, launch_effect=0.03) <= 0.985


def test_a_run_of_one_launch_has_no_interval_against_another():
    several, alone = [0] * 10 + [1] * 10, [0] * 20
    for launches in ((alone, alone), (several, alone), (alone, several)):
        ratio = unpaired_ratio([3.0] * 20, [2.0] * 20, reference_launches=launches[0], launches=launches[1])
        assert ratio.median == pytest.approx(1.5) and ratio.bounds is None


def test_the_interval_of_two_separate_runs_is_welchs():
    """Of log medians (1, 3) and (0, 1, 2): standard error √(1 + 1/3), 1.684 degrees of freedom, quantile 5.1762."""
    assert reach_of([1.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(5.1762 * np.sqrt(4 / 3), rel=1e-4)
    assert reach_of([0.0, 2.0], [0.0, 2.0]) == pytest.approx(4.3027 * np.sqrt(2), rel=1e-4)


def reach_of(reference: list[float], medians: list[float]) -> float:
    """Half the interval of log ratios of runs with these log medians, one a launch of ten equal rounds."""
    runs = [(np.exp(np.repeat(values, 10)), np.repeat(range(len(values)), 10)) for values in (reference, medians)]
    (reference_s, reference_launches), (times_s, launches) = runs
    ratio = unpaired_ratio(reference_s, times_s, reference_launches=reference_launches, launches=launches)
    assert ratio.bounds is not None
    return float(np.log(ratio.bounds[1] / ratio.bounds[0]) / 2)


def test_the_interval_of_several_launches_is_students():
    """Of log medians 0, 1 and 2: standard error 1 / √3, 2 degrees of freedom, quantile 4.3027."""
    ratio = paired_ratio(np.exp(np.repeat([0.0, 1.0, 2.0], 4)), np.ones(12), launches=np.repeat(range(3), 4))
    assert ratio.median == pytest.approx(np.e)
    assert np.log(ratio.bounds) == pytest.approx([1 - 4.3027 / np.sqrt(3), 1 + 4.3027 / np.sqrt(3)], rel=1e-4)


def test_without_scipy_several_launches_are_refused_before_they_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    require_intervals(1)
    with pytest.raises(MissingExtraError, match="scipy is not installed"):
        require_intervals(2)


def test_known_ratio():
    times_s = np.full(10, 0.02)
    ratio = paired_ratio(times_s * 1.5, times_s)
    assert ratio.median == pytest.approx(1.5) and ratio.bounds == pytest.approx([1.5, 1.5])
    assert not ratio.void
    assert total_ratio([2.0, 1.0], [1.0, 1.0]).median == 1.5
    launches = {"reference_launches": [0] * 5 + [1] * 5, "launches": [0] * 6 + [1] * 6}
    apart = unpaired_ratio([3.0] * 10, [2.0] * 12, **launches)
    assert apart.median == pytest.approx(1.5) and apart.bounds == pytest.approx([1.5, 1.5])


def test_few_rounds_have_no_interval_and_noise_makes_a_comparison_void():
    assert paired_ratio([1.0] * 9, [1.0] * 9).bounds is None
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
