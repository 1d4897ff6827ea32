"""Figures whose right answer is known by other means: numpy, the definition, or simulation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.record import stats

FLOATS = st.floats(-1e9, 1e9)


def test_nothing_gives_none() -> None:
    assert stats.median([]) is None
    assert stats.percentile([], 50) is None
    assert stats.median_interval([]) is None
    assert stats.spread([]) is None


def test_median() -> None:
    assert stats.median([3.0, 1.0, 2.0]) == 2.0
    assert stats.median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert stats.median([9e307, 9.2e307]) == 9.1e307


@given(st.lists(FLOATS, min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpys(samples: list[float], percent: float) -> None:
    assert stats.percentile(samples, percent) == pytest.approx(
        float(np.percentile(samples, percent)), rel=1e-9, abs=1e-6
    )


@pytest.mark.parametrize("percent", [-1.0, 100.5, float("nan")])
def test_what_is_no_percentage(percent: float) -> None:
    with pytest.raises(ValueError, match="no percentage"):
        stats.percentile([1.0], percent)


def test_too_few_samples_have_no_interval() -> None:
    assert stats.median_interval([1.0]) is None
    assert stats.median_interval([1.0, 2.0]) is None
    assert stats.median_interval([1.0, 9.0, 4.0]) == (1.0, 9.0)


@given(st.lists(FLOATS, min_size=3, max_size=40))
def test_the_interval_lies_within_the_samples_and_holds_their_median(samples: list[float]) -> None:
    interval = stats.median_interval(samples)
    assert interval is not None
    low, high = interval
    middle = stats.median(samples)
    assert middle is not None
    assert min(samples) <= low <= middle <= high <= max(samples)


def test_the_interval_is_the_same_each_time() -> None:
    samples = [float(value) for value in np.random.default_rng(1).normal(size=31)]
    found = stats.median_interval(samples)
    stats._drawn_interval.cache_clear()
    assert stats.median_interval(samples) == found


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    """300 experiments of 25 samples: 95 % nominal; the binomial spread of the count is 3.8."""
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        samples = [float(value) for value in generator.exponential(size=25)]
        interval = stats.median_interval(samples)
        assert interval is not None
        covered += interval[0] <= float(np.log(2)) <= interval[1]
    assert 268 <= covered <= 298


def test_the_interval_of_many_samples_is_made_in_pieces() -> None:
    samples = [float(value) for value in np.random.default_rng(1).normal(size=2_345)]
    interval = stats.median_interval(samples)
    assert interval is not None
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * 1.2533 / 2_345**0.5, rel=0.15)


def test_a_spread_is_of_the_rounds_that_there_are() -> None:
    assert stats.spread([0.9, 1.1, 1.0]) == stats.Spread(1.0, (0.9, 1.1), 3)
    assert stats.spread([0.5]) == stats.Spread(0.5, None, 1)


def test_numpy_is_not_loaded_before_it_is_needed() -> None:
    program = (
        "import sys; from xlab.record import stats; stats.median([1.0]); "
        "print('numpy' in sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert loaded.stdout.strip() == "False"
