"""Power laws through measured points: how a cost grows with the number of hosts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

#: Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; beyond, it is near the normal's.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


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
        reach = error * (_T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.5 / freedom)
        interval = (slope - reach, slope + reach)
    return PowerLaw(math.exp(intercept), slope, interval, len(known))
