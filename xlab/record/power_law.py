"""Power laws through measured points: how a cost grows with the number of hosts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from xlab.record.stats import NORMAL, students_t


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """value = factor * size ^ exponent."""

    factor: float
    exponent: float
    #: 95 % interval of the exponent; None with two points, which lie on any number of lines.
    ci95: tuple[float, float] | None
    points: int

    def at(self, size: float) -> float:
        return self.factor * math.pow(size, self.exponent)

    def size_at(self, value: float) -> float | None:
        """The size at which `value` is reached; None if it never is, or beyond all counting."""
        if self.exponent <= 0 or value <= 0:
            return None
        logarithm = (math.log(value) - math.log(self.factor)) / self.exponent
        return math.exp(logarithm) if logarithm < 700 else None


def power_law(points: Iterable[tuple[float, float]]) -> PowerLaw | None:
    """Least squares of the logarithms of (size, value); None below two sizes.

    The interval is the usual one of a regression's slope: it takes the scatter around the law to be
    of the same ratio at every size.  Points with a value of 0 have no logarithm: None.
    """
    known = list(points)
    if len({size for size, _ in known}) < 2 or any(value <= 0 for _, value in known):
        return None
    x = [math.log(size) for size, _ in known]
    y = [math.log(value) for _, value in known]
    slope, intercept = statistics.linear_regression(x, y)
    freedom = len(known) - 2
    interval = None
    if freedom:
        left = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
        mean = statistics.fmean(x)
        error = math.sqrt(left / freedom / sum((a - mean) ** 2 for a in x))
        reach = error * students_t(freedom, beyond=NORMAL + 2.5 / freedom)
        interval = (slope - reach, slope + reach)
    return PowerLaw(math.exp(intercept), slope, interval, len(known))
