"""Power laws: found where there is one, with an interval that says how sure that is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.record.power_law import power_law
from xlab.record.stats import students_t


@given(
    factor=st.floats(1e-4, 10.0),
    wanted=st.floats(-2.5, 2.5),
    sizes=st.lists(st.integers(2, 5000), min_size=2, max_size=8, unique=True),
)
def test_a_law_without_scatter_is_found(factor: float, wanted: float, sizes: list[int]) -> None:
    law = power_law([(size, factor * size**wanted) for size in sizes])
    assert law is not None
    assert law.exponent == pytest.approx(wanted, abs=1e-6)
    assert law.at(sizes[0]) == pytest.approx(factor * sizes[0] ** wanted, rel=1e-6)
    assert (law.ci95 is None) == (len(sizes) == 2)
    assert law.points == len(sizes)


def test_an_interval_as_textbooks_have_it() -> None:
    """By hand: x = 0, 1, 2, 3, y = 0, 2, 1, 3 give slope 0.8, standard error sqrt(0.18)."""
    points = [(math.e**x, math.e**y) for x, y in ((0, 0), (1, 2), (2, 1), (3, 3))]
    law = power_law(points)
    assert law is not None
    assert law.ci95 is not None
    assert law.exponent == pytest.approx(0.8)
    assert law.factor == pytest.approx(math.exp(0.3))
    reach = 4.303 * math.sqrt(0.18)
    assert law.ci95 == pytest.approx((0.8 - reach, 0.8 + reach))


def test_the_interval_holds_the_exponent_as_often_as_it_says() -> None:
    chooser = random.Random(1)
    held = 0
    for _ in range(400):
        points = [
            (size, size**1.1 * math.exp(chooser.gauss(0, 0.2)))
            for size in (2, 4, 8, 16)
            for _ in range(2)
        ]
        law = power_law(points)
        assert law is not None
        assert law.ci95 is not None
        held += law.ci95[0] <= 1.1 <= law.ci95[1]
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 30])
def test_students_t(freedom: int) -> None:
    """Its density, from -t to t by Simpson's rule, is 0.95."""
    constant = math.gamma((freedom + 1) / 2) / (
        math.sqrt(freedom * math.pi) * math.gamma(freedom / 2)
    )

    def density(t: float) -> float:
        return float(constant * (1 + t * t / freedom) ** (-(freedom + 1) / 2))

    end, steps = students_t(freedom), 20_000
    step = 2 * end / steps
    weights = [1, *(4 if i % 2 else 2 for i in range(1, steps)), 1]
    area = sum(w * density(-end + i * step) for i, w in enumerate(weights)) * step / 3
    assert area == pytest.approx(0.95, abs=2e-4)


@pytest.mark.parametrize(
    "points", [[], [(2, 1.0)], [(2, 1.0), (2, 1.1), (2, 0.9)], [(2, 0.0), (4, 1.0), (8, 2.0)]]
)
def test_what_has_no_law(points: list[tuple[float, float]]) -> None:
    assert power_law(points) is None


def test_the_size_at_which_a_value_is_reached() -> None:
    law = power_law([(10, 100.0), (100, 10_000.0)])
    assert law is not None
    assert law.size_at(1e6) == pytest.approx(1000)
    level = power_law([(10, 100.0), (100, 100.0)])
    assert level is not None
    assert level.size_at(1e6) is None
    # So flat that no number holds the size.
    nearly = power_law([(10, 100.0), (100, 100.001)])
    assert nearly is not None
    assert nearly.size_at(1e6) is None
