"""Ratios of the same round, and intervals by build.

What two rounds of one lab have in common (where its processes and buffers came to lie) they have in
common by chance, and no number of rounds shows it: the independent unit is one build.  So the
bootstrap is hierarchical: builds are drawn with replacement, then rounds within each; the figure
is the median of all that was drawn.

With few builds such an interval is too narrow, because the spread of k draws is (k-1)/k of the true
one and because k are few to know a spread from: with three builds that differ in nothing but
chance it holds the truth in three cases of four.  It is widened by sqrt(k/(k-1)) and by Student's t
over the normal distribution's quantile (Hesterberg, "What teachers should know about the
bootstrap", 2015).  Simulated (tests/record/test_intervals.py), it then holds the truth in 91
to 99 of 100 cases with three builds, in 97 to 99 with five.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from xlab.record import stats
from xlab.record.comparisons import Estimate, Point, Ratio, Verdict
from xlab.record.record import Measurement

#: A spread of fewer builds says nothing: Student's t would widen it thirteenfold.
LEAST_BUILDS = 3

#: Of build and round.
Key = tuple[int, int]
#: What each round gave.
Values = Mapping[Key, float]
#: The same by build.
Builds = tuple[tuple[float, ...], ...]


def estimate(values: Values) -> Estimate | None:
    """The median of the rounds and its interval; None without any round."""
    middle = stats.median(list(values.values()))
    if middle is None:
        return None
    builds = by_build(values)
    return Estimate(middle, interval(builds), len(values), len(builds))


#: By a clock that counts instructions: so far may another seed, which is chance, move a ratio.
RESOLUTION = 0.02


def ratio(
    above: Values, below: Values, *, more_is_better: bool, resolution: float | None = None
) -> Ratio | None:
    """`above` / `below`, paired by round; a round in which either is missing is left out.

    Of too few builds for an interval the verdict is by the `resolution`, if it is known.
    None without any round, or where nothing can be said in proportion to zero.
    """
    found = estimate(paired({key: value for key, value in above.items() if value > 0}, below))
    if found is None:
        return None
    seen = found.ci95
    if seen is None and resolution is not None:
        seen = found.median * (1 - resolution), found.median * (1 + resolution)
    verdict = _verdict(seen, more_is_better=more_is_better)
    return Ratio(found.median, found.ci95, found.rounds, found.builds, verdict)


def paired(above: Values, below: Values) -> dict[Key, float]:
    """The ratio of each round that has both; nothing can be said in proportion to zero."""
    return {key: above[key] / below[key] for key in sorted(above) if below.get(key)}


def half_width(found: Ratio) -> float | None:
    """How far the interval reaches from the median at most, as a part of the median."""
    if found.ci95 is None:
        return None
    low, high = found.ci95
    return max(found.median - low, high - found.median) / found.median


@functools.lru_cache(maxsize=1024)
def interval(builds: Builds) -> tuple[float, float] | None:
    """The 95 % interval of the median; None below LEAST_BUILDS.

    Positive values are taken by their logarithms: a ratio of 2 is as far from 1 as 1/2.  Seeded, so
    that the same values always give the same interval.  Kept: a comparison asks for it at each look
    and at the end, its report once more.
    """
    if len(builds) < LEAST_BUILDS:
        return None
    import numpy as np

    logarithmic = all(value > 0 for build in builds for value in build)
    scaled = [np.log(build) if logarithmic else np.asarray(build, np.float64) for build in builds]
    middle, wider = float(np.median(np.concatenate(scaled))), widening(len(builds))
    low, high = np.percentile(stats.clustered_medians(scaled), [2.5, 97.5])
    low, high = (middle + wider * (float(end) - middle) for end in (low, high))
    return (math.exp(low), math.exp(high)) if logarithmic else (low, high)


def widening(builds: int) -> float:
    """How many times wider than the bootstrap's an interval of so few builds must be."""
    t = stats.students_t(builds - 1)
    return math.sqrt(builds / (builds - 1)) * t / stats.NORMAL


def _verdict(ci95: tuple[float, float] | None, *, more_is_better: bool) -> Verdict:
    if ci95 is None:
        return "unknown"
    low, high = ci95
    if low <= 1 <= high:
        return "indistinguishable"
    return "faster" if (low > 1) == more_is_better else "slower"


def by_round(measured: Iterable[Measurement | Point]) -> dict[Key, float]:
    """What each round gave: the median over the pairs of end points measured in it."""
    medians: dict[Key, list[float]] = {}
    for m in measured:
        if m.median is not None:
            medians.setdefault((m.build, m.round), []).append(m.median)
    return {key: stats.median(values) or 0.0 for key, values in medians.items()}


def by_build(values: Values) -> Builds:
    builds: dict[int, list[float]] = {}
    for (build, _), value in sorted(values.items()):
        builds.setdefault(build, []).append(value)
    return tuple(map(tuple, builds.values()))


# -- trends ----------------------------------------------------------------------------------------


#: So many values have 125,000 pairs, which takes a tenth of a second.
_MOST_FOR_SLOPE = 500


def slope(series: Sequence[float]) -> float:
    """The median of the slopes between any two values (Theil-Sen), a step; 0 of fewer than two.

    Pairs grow by the square: of more than 500 values 500 are taken, evenly, the first and the last
    among them.
    """
    last, kept = len(series) - 1, min(len(series), _MOST_FOR_SLOPE)
    places = [i * last // (kept - 1) for i in range(kept)] if kept > 1 else []
    slopes = [(series[j] - series[i]) / (j - i) for i, j in itertools.combinations(places, 2)]
    return stats.median(slopes) or 0.0


#: Up to so many values all orders are counted: some n³ additions of numbers of n log n bits.
_EXACT_UP_TO = 50


def trend_p_value(series: Sequence[float]) -> float:
    """Mann-Kendall's trend test, two-sided: how often chance alone orders them so much.

    Exact for up to 50 values; of more the normal distribution is taken, with a correction for
    continuity, which differs by less than 0.002 there.  Two equal values count as half an
    inversion, which errs to the side of no trend.
    """
    n = len(series)
    score = abs(_score(series))
    return _exact_p_value(n, score) if n <= _EXACT_UP_TO else _normal_p_value(n, score)


def _score(series: Sequence[float]) -> int:
    """Pairs whose later value is larger, less those where it is smaller; n log² n steps."""
    equal = sum(math.comb(count, 2) for count in Counter(series).values())
    return math.comb(len(series), 2) - equal - 2 * _inversions(series)


def _inversions(series: Sequence[float]) -> int:
    """How many pairs stand in descending order, counted as a merge sort puts them right."""
    runs, found = [[value] for value in series], 0
    nothing: list[float] = []
    while len(runs) > 1:
        merged = []
        for left, right in itertools.zip_longest(runs[::2], runs[1::2], fillvalue=nothing):
            found += sum(len(left) - bisect.bisect_right(left, value) for value in right)
            merged.append(sorted(left + right))
        runs = merged
    return found


def _exact_p_value(n: int, score: int) -> float:
    """Counts the orders of n values by their inversions (Mahonian numbers)."""
    counts = [1]
    for size in range(2, n + 1):
        upto, last = [0, *itertools.accumulate(counts)], len(counts)
        counts = [
            upto[min(k + 1, last)] - upto[max(0, k - size + 1)] for k in range(last + size - 1)
        ]
    pairs = n * (n - 1) // 2
    extreme = sum(
        count for inversions, count in enumerate(counts) if abs(pairs - 2 * inversions) >= score
    )
    return extreme / math.factorial(n)


def _normal_p_value(n: int, score: int) -> float:
    """Scores lie two apart, so one less than `score` is the middle between it and the next."""
    # Not the variance for ties, which is smaller: the exact distribution knows none either.
    variance = n * (n - 1) * (2 * n + 5) / 18
    return min(1.0, math.erfc((score - 1) / math.sqrt(2 * variance)))


def spread(series: Iterable[float]) -> float:
    """From the 10th to the 90th percentile, as a part of the median; 0 where there is none."""
    values = list(series)
    low, middle, high = (stats.percentile(values, percent) or 0.0 for percent in (10, 50, 90))
    return (high - low) / middle if middle else 0.0
