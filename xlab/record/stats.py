"""Medians, percentiles, and how far to trust them.

Everything takes plain floats that are already free of failed samples, and answers None where there
is nothing to answer from, so that a missing figure never turns into a zero.  numpy is imported
where it is used: it costs more than the rest of a command's start.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

RESAMPLES = 2000
#: Resampled in pieces of so many values, 8 bytes each.
_PIECE = 1_000_000


#: Quantiles of 97.5 %: of the normal distribution, and of Student's t for 1, 2, 3 … degrees of
#: freedom.
NORMAL = 1.960
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of what the rounds gave, and its 95 % interval; None where they are too few."""

    median: float
    ci95: tuple[float, float] | None
    rounds: int


def median(samples: Sequence[float]) -> float | None:
    if not samples:
        return None
    middle = statistics.median(samples)
    if math.isfinite(middle):
        return middle
    # The sum of the two in the middle was too large, as in `_medians`.
    return statistics.median_low(samples) / 2 + statistics.median_high(samples) / 2


def students_t(freedom: int, *, beyond: float = NORMAL) -> float:
    """Two-sided 95 %; `beyond` the table it is near the normal distribution's."""
    return _T[freedom - 1] if freedom <= len(_T) else beyond


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """`percent` from 0 to 100, interpolated linearly between neighbours (numpy's default)."""
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is no percentage")
    if not samples:
        return None
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(rounds: Sequence[float]) -> Spread | None:
    """Of rounds that do not hang together, each its own build say; None without any."""
    middle = median(rounds)
    return None if middle is None else Spread(middle, median_interval(rounds), len(rounds))


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median by the percentile bootstrap; None below three samples.

    The samples are drawn from anew, with replacement, `RESAMPLES` times; the interval holds the
    middle 95 % of the medians.  With few samples it is too narrow (three give their range, which
    covers the true median in three of four cases, six the first that reach 95 %), and it assumes
    independent samples: of several builds pass one figure each.  The seed is fixed, so the same
    samples always give the same interval.
    """
    return None if len(samples) < 3 else _drawn_interval(tuple(samples))


@functools.lru_cache(maxsize=1024)
def _drawn_interval(samples: tuple[float, ...]) -> tuple[float, float]:
    """Kept: a report asks for it in the table, the chart and the text."""
    import numpy as np

    generator = np.random.default_rng(0)
    values = np.asarray(samples, dtype=np.float64)
    rows = max(1, _PIECE // len(values))
    medians = np.concatenate(
        [
            _medians(generator.choice(values, size=(min(rows, RESAMPLES - done), len(values))))
            for done in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def _medians(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row; NaN stands for what a shorter row lacks.

    To sort many short rows whole is quicker than np.median, and than np.nanmedian by far.
    """
    import numpy as np

    ordered = np.sort(rows, axis=1)  # NaN goes to the end
    counts = np.count_nonzero(~np.isnan(ordered), axis=1)
    each = np.arange(len(rows))
    below, above = ordered[each, (counts - 1) // 2], ordered[each, counts // 2]
    # Halved before they are added, the smallest would lose a bit; after it, the largest overflow.
    with np.errstate(over="ignore"):
        medians: NDArray[np.float64] = (below + above) / 2
    return np.where(np.isfinite(medians), medians, below / 2 + above / 2)


def clustered_medians(
    groups: Sequence[Sequence[float] | NDArray[np.float64]],
    *,
    generator: Generator | None = None,
    count: int | None = None,
) -> NDArray[np.float64]:
    """Medians of values that come in groups, drawn anew `RESAMPLES` times: shape (RESAMPLES,).

    Rounds of one build resemble each other more than those of another, so the independent unit is
    the build: `count` groups, or as many as there are, are drawn with replacement, and within each
    as many of its values (two-stage cluster bootstrap, Davison & Hinkley 1997, 3.8).  Raises
    ValueError for an empty group, or none.
    """
    if not min(map(len, groups), default=0):
        raise ValueError("there is a group without values")
    import numpy as np

    generator = generator or np.random.default_rng(0)
    drawn = generator.integers(len(groups), size=RESAMPLES * (count or len(groups)))
    # One row a drawn group, as long as the longest: what a shorter one lacks is NaN.
    rows = np.full((len(drawn), max(map(len, groups))), np.nan)
    where = np.split(
        np.argsort(drawn, kind="stable"), np.cumsum(np.bincount(drawn, minlength=len(groups)))
    )
    for group, places in zip(groups, where[:-1], strict=True):
        picks = generator.integers(len(group), size=(len(places), len(group)))
        rows[places, : len(group)] = np.asarray(group, np.float64)[picks]
    return _medians(rows.reshape(RESAMPLES, -1))
