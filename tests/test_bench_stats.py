"""The ratio's interval covers the truth as often as it says, under drift; percentiles; what needs more samples."""

import numpy as np
import pytest

from anatomy_export.bench.simulation import interval_coverage
from anatomy_export.bench.stats import paired_ratio, summarize, total_ratio, unpaired_ratio


@pytest.mark.parametrize("rounds", [10, 30])
def test_interval_of_two_equal_engines_under_drift_contains_one(rounds):
    assert 0.93 <= interval_coverage(rounds=rounds, runs=600) <= 0.97


def test_one_engine_after_the_other_would_not_do():
    assert interval_coverage(rounds=20, runs=100, interleaved=False) < 0.7


def test_the_luck_of_a_process_is_in_the_interval_of_several_launches():
    drawn = {"rounds": 10, "runs": 600, "launch_effect": 0.03}
    assert 0.92 <= interval_coverage(launches=4, **drawn) <= 0.98
    assert interval_coverage(launches=1, **drawn) < 0.9


def test_known_ratio():
    own = np.full(10, 0.02)
    ratio = paired_ratio(own * 1.5, own)
    assert ratio.median == pytest.approx(1.5) and ratio.bounds == pytest.approx([1.5, 1.5])
    assert not ratio.void
    assert total_ratio([2.0, 1.0], [1.0, 1.0]).median == 1.5
    assert unpaired_ratio([3.0] * 10, [2.0] * 12).median == pytest.approx(1.5)


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
