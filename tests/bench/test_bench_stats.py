"""The ratio's interval covers the truth as often as it says, under drift; percentiles; what needs more samples."""

import numpy as np
import pytest

from anatomy_export.bench.simulation import compare_coverage, interval_coverage
from anatomy_export.bench.stats import _welch_reach, paired_ratio, summarize, total_ratio, unpaired_ratio


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
        ratio = unpaired_ratio([3.0] * 20, [2.0] * 20, reference_launches=launches[0], own_launches=launches[1])
        assert ratio.median == pytest.approx(1.5) and ratio.bounds is None


def test_quantiles_between_whole_degrees_of_freedom_are_those_of_student():
    """Of (1, 3) against (0, 1, 2): standard error √(1 + 1/3), 1.684 degrees of freedom, quantile 5.1762 (scipy)."""
    reach = _welch_reach(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    assert reach == pytest.approx(5.1762 * np.sqrt(4 / 3), rel=0.03)
    assert _welch_reach(np.array([0.0, 2.0]), np.array([0.0, 2.0])) == pytest.approx(4.303 * np.sqrt(2), rel=1e-3)


def test_known_ratio():
    own = np.full(10, 0.02)
    ratio = paired_ratio(own * 1.5, own)
    assert ratio.median == pytest.approx(1.5) and ratio.bounds == pytest.approx([1.5, 1.5])
    assert not ratio.void
    assert total_ratio([2.0, 1.0], [1.0, 1.0]).median == 1.5
    launches = {"reference_launches": [0] * 5 + [1] * 5, "own_launches": [0] * 6 + [1] * 6}
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
