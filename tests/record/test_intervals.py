"""Paired ratios, intervals by build, verdicts and trends, against cases whose answer is known."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.record import intervals, stats
from xlab.record.intervals import (
    Key,
    estimate,
    ratio,
    slope,
    spread,
    trend_p_value,
)


def by_build(*builds: Sequence[float]) -> dict[Key, float]:
    """Rounds are numbered through all builds, as in a comparison."""
    numbers = itertools.count(1)
    return {
        (build, next(numbers)): value for build, values in enumerate(builds, 1) for value in values
    }


def interval(builds: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Worked out anew, whatever is kept."""
    intervals.interval.cache_clear()
    return intervals.interval(tuple(map(tuple, builds)))


# -- ratios ----------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_its_round() -> None:
    """A disturbance that all of a round share is in no ratio."""
    weather = [1.0, 7.0, 0.2, 3.0, 1.5, 40.0]
    baseline = by_build(*[[w] for w in weather])
    method = by_build(*[[2 * w] for w in weather])
    found = ratio(method, baseline, more_is_better=False)
    assert found is not None
    assert (found.median, found.rounds, found.builds) == (2.0, 6, 6)
    assert found.ci95 == pytest.approx((2.0, 2.0))
    assert found.verdict == "slower"


def test_a_round_that_lacks_either_figure_is_left_out() -> None:
    method, baseline = by_build([2, 2], [4, 4], [6, 6]), by_build([1, 1], [1, 1], [1, 1])
    del method[1, 1], baseline[3, 6]
    baseline[2, 3] = 0.0
    found = ratio(method, baseline, more_is_better=True)
    assert found is not None
    assert (found.median, found.rounds, found.builds) == (4.0, 3, 3)
    assert ratio(method, {}, more_is_better=True) is None


@pytest.mark.parametrize(
    ("more_is_better", "factor", "verdict"),
    [
        (True, 1.5, "faster"),
        (True, 0.5, "slower"),
        (False, 1.5, "slower"),
        (False, 0.5, "faster"),
        (True, 1.0, "indistinguishable"),
    ],
)
def test_the_verdict_is_in_the_metrics_own_direction(
    more_is_better: bool, factor: float, verdict: str
) -> None:
    wobble = [0.99, 1.01, 1.0, 1.02, 0.98]
    method = by_build(*[[factor * w] for w in wobble])
    baseline = by_build(*[[1.0]] * 5)
    found = ratio(method, baseline, more_is_better=more_is_better)
    assert found is not None
    assert found.verdict == verdict


def test_two_builds_are_too_few_for_an_interval_or_a_verdict() -> None:
    found = ratio(
        by_build([2.0] * 9, [2.0] * 9), by_build([1.0] * 9, [1.0] * 9), more_is_better=True
    )
    assert found is not None
    assert (found.ci95, found.verdict) == (None, "unknown")
    assert intervals.half_width(found) is None


# -- intervals -------------------------------------------------------------------------------------


def test_the_interval_is_the_same_each_time_and_holds_the_median() -> None:
    builds = [[1.0, 1.1], [1.2, 0.9], [1.05, 1.3]]
    found = interval(builds)
    assert found == interval(builds)
    assert found is not None
    assert found[0] < 1.075 < found[1]


def test_a_ratio_turned_over_has_the_interval_turned_over() -> None:
    builds = [[1.0, 1.4], [1.3, 0.8], [1.05, 2.3], [1.7]]
    found = interval(builds)
    turned = interval([[1 / value for value in build] for build in builds])
    assert found is not None
    assert turned is not None
    assert turned == pytest.approx((1 / found[1], 1 / found[0]), rel=0.05)


def test_rounds_of_one_build_do_not_stand_for_builds() -> None:
    """A thousand rounds of three builds that differ tell no more than three rounds of them."""
    one_each = interval([[1.0], [2.0], [4.0]])
    many = interval([[1.0] * 300, [2.0] * 300, [4.0] * 300])
    assert one_each == pytest.approx(many)


def test_losses_of_nothing_have_an_interval_all_the_same() -> None:
    assert interval([[0.0], [0.0, 0.0], [0.0]]) == (0.0, 0.0)


def coverage(builds: Sequence[int], between: float, trials: int) -> float:
    """How often the interval holds the truth, if `between` of the variance is between builds.

    `builds` has the number of rounds of each.
    """
    generator = random.Random(f"{builds} {between}")
    held = 0
    for _ in range(trials):
        values = []
        for rounds in builds:
            shared = generator.gauss(0, math.sqrt(between))
            values.append(
                [
                    math.exp(0.1 * (shared + generator.gauss(0, math.sqrt(1 - between))))
                    for _ in range(rounds)
                ]
            )
        found = interval(values)
        assert found is not None
        held += found[0] <= 1.0 <= found[1]
    return held / trials


@pytest.mark.parametrize("between", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("builds", "least"), [((1,) * 5, 0.93), ((2,) * 5, 0.94), ((2,) * 3, 0.86)]
)
def test_an_interval_of_95_percent_holds_the_truth_about_so_often(
    builds: tuple[int, ...], least: float, between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rounds differ by chance or builds do.  Fewer resamples, for the sake of time."""
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    assert coverage(builds, between, trials=250) >= least


@pytest.mark.parametrize("between", [0.0, 1.0])
def test_stopping_at_narrow_intervals_does_not_spoil_them(
    between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look after each build from the third on, to the tenth; most end on the way."""
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    generator = random.Random(f"stopping {between}")
    held, early, trials = 0, 0, 100
    for _ in range(trials):
        values: dict[Key, float] = {}
        for build in range(1, 11):
            shared = generator.gauss(0, math.sqrt(between))
            for _ in range(2):
                off = 0.06 * (shared + generator.gauss(0, math.sqrt(1 - between)))
                values[build, len(values)] = math.exp(off)
            found = ratio(values, dict.fromkeys(values, 1.0), more_is_better=True)
            assert found is not None
            width = intervals.half_width(found)
            if width is not None and width <= 0.1:
                early += build < 10
                break
        assert found is not None
        held += found.verdict == "indistinguishable"
    assert early > trials / 2
    assert held / trials >= 0.86


def test_without_the_widening_it_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    monkeypatch.setattr(intervals, "widening", lambda _: 1.0)
    assert coverage((2, 2, 2), 1.0, trials=250) < 0.86


# -- estimates of anything -------------------------------------------------------------------------

_FIGURES = st.floats(1e-6, 1e12)


@given(st.dictionaries(st.tuples(st.integers(1, 6), st.integers(1, 9)), _FIGURES))
def test_any_figures_give_an_estimate_inside_its_interval(values: dict[Key, float]) -> None:
    found = estimate(values)
    assert (found is None) == (not values)
    if found is not None:
        assert min(values.values()) <= found.median <= max(values.values())
        assert (found.ci95 is None) == (found.builds < intervals.LEAST_BUILDS)
        if found.ci95:
            low, high = found.ci95
            assert low <= found.median * (1 + 1e-9)
            assert high >= found.median * (1 - 1e-9)


# -- trends ----------------------------------------------------------------------------------------


def test_the_slope_is_not_moved_by_one_leap() -> None:
    assert slope([1, 2, 3, 100, 5, 6]) == pytest.approx(1.0, abs=0.2)
    assert slope([5.0]) == 0.0


def score(series: Sequence[float]) -> int:
    return sum((b > a) - (b < a) for a, b in itertools.combinations(series, 2))


class Counting(float):
    """Notes how often it is subtracted from, or compared."""

    __slots__ = ()
    times = 0

    def __sub__(self, other: float) -> float:
        Counting.times += 1
        return float(self) - float(other)

    def __lt__(self, other: float) -> bool:
        Counting.times += 1
        return float(self) < float(other)

    def __gt__(self, other: float) -> bool:
        Counting.times += 1
        return float(self) > float(other)


@pytest.mark.parametrize("of", [slope, trend_p_value])
def test_work_does_not_grow_by_the_square_of_the_rounds(of: Callable[[list[float]], float]) -> None:
    """2,000 have two million pairs; of 20,000 a list of them would be 8 GB."""
    generator = random.Random(3)
    Counting.times = 0
    of([Counting(generator.random()) for _ in range(2000)])
    assert 2000 < Counting.times < 200_000


@given(st.integers(501, 3000), st.floats(-5, 5), st.floats(-9, 9))
def test_the_slope_of_many_values_is_that_of_the_few_that_are_taken(
    many: int, step: float, begin: float
) -> None:
    assert slope([begin + step * i for i in range(many)]) == pytest.approx(step, abs=1e-9)


@given(st.lists(st.integers(0, 9) | st.floats(-9, 9), max_size=40))
def test_the_score_is_that_of_all_pairs(series: list[float]) -> None:
    assert intervals._score(series) == score(series)


@pytest.mark.parametrize(
    "series", [[1, 2, 3, 4, 5], [3, 1, 2, 5, 4, 6], [2, 1], [6, 5, 4, 1, 2, 3]]
)
def test_the_trends_p_value_is_that_of_all_orders(series: list[float]) -> None:
    orders = [score(order) for order in itertools.permutations(series)]
    expected = sum(abs(other) >= abs(score(series)) for other in orders) / len(orders)
    assert trend_p_value(series) == pytest.approx(expected)


def test_no_trend_where_nothing_changes() -> None:
    assert trend_p_value([3.0] * 7) == 1.0
    assert trend_p_value([]) == 1.0


def test_a_thousand_rounds_have_a_p_value_too() -> None:
    assert trend_p_value(list(range(100))) < 1e-40
    assert trend_p_value([1.0, 2.0] * 500) > 0.9
    assert trend_p_value([3.0] * 1000) == 1.0


@pytest.mark.parametrize("rounds", [50, 51])
def test_the_normal_approximation_is_near_the_exact_p_value_where_it_takes_over(
    rounds: int,
) -> None:
    """By scores of ties too, which lie between the others."""
    pairs = rounds * (rounds - 1) // 2
    for score in range(0, pairs + 1, 37):
        exact = intervals._exact_p_value(rounds, score)
        approximate = intervals._normal_p_value(rounds, score)
        # Half a step of the distribution where a tie's score lies between two of its values.
        assert approximate == pytest.approx(exact, abs=0.002 if score % 2 == pairs % 2 else 0.01)
        if exact < 0.1 and score % 2 == pairs % 2:
            assert approximate >= exact, "errs to the side of no trend"


def test_many_rounds_do_not_make_a_trends_p_value_slow() -> None:
    """Counting all orders of 400 takes 10 s, of 1,000 minutes; the approximation 10 ms."""
    begun = time.process_time()
    trend_p_value(list(range(400)))
    assert time.process_time() - begun < 2


def test_spread() -> None:
    assert spread([]) == 0.0
    assert spread([10.0] * 5) == 0.0
    assert spread([float(n) for n in range(1, 12)]) == pytest.approx((10 - 2) / 6)
