"""Figures of one record: medians by metric, and ratios paired round by round.

A ratio is taken within a round and only then summed up: two probes of one round met the same state
of the machine, two medians over all rounds did not (Abedi & Brecht, ICPE 2017).  Intervals are
those of xlab.record.stats, narrower than they ought to be with few rounds; the number of rounds
goes with them.  Of a method built several times they are by build, as in xlab.experiments.compare.

UDP has no ratios: each pair of end points is offered 90 % of its own TCP rate, so what arrives and
what is lost says how a path takes nearly all that it can carry, not how it compares with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xlab.record import intervals, metrics, stats
from xlab.record.comparisons import Point
from xlab.record.intervals import Key, by_round, paired
from xlab.record.record import ROUTES, Measurement, Route, RunRecord
from xlab.record.stats import Spread

_HIGHEST_RATE = 1e18


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric on the three routes of one record; None where nothing was found out."""

    metric: str
    streams: int
    unit: str
    method: Spread | None
    control: Spread | None
    baseline: Spread | None
    #: method / control and method / baseline, of the rounds that have both.
    to_control: Spread | None
    to_baseline: Spread | None
    #: Samples that failed, by route, where any did; they are in no median.
    failed_samples: dict[Route, int]
    #: What a probe that found nothing out said of the reason, by route.
    errors: dict[Route, str]
    #: UDP alone: what each route was offered, in bits per second, and what of it could be sent.
    offered_bits_per_second: dict[Route, float]
    sent_bits_per_second: dict[Route, float]
    #: Routes that took all there was: what the sender made is the figure, not what fits.
    sender_limited: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Points:
    """What a chart shows of one route: its spread, and every value behind it."""

    spread: Spread | None
    #: One a round: what the spread is of.
    rounds: tuple[float, ...]
    #: The single samples, where they are of the same kind as the rounds' values.
    samples: tuple[float, ...] = ()


def figures(record: RunRecord) -> tuple[Figure, ...]:
    """The figures of a record, in the usual order of metrics, then by number of streams."""
    found = by_metric(record.measurements)
    return tuple(_figure(found[key]) for key in sorted(found, key=metrics.order))


def by_metric(measurements: Iterable[Measurement]) -> dict[tuple[str, int], list[Measurement]]:
    """Measurements by metric and streams, in one pass: a stranger's may have many thousands."""
    found: dict[tuple[str, int], list[Measurement]] = {}
    for m in measurements:
        found.setdefault((m.metric, m.streams), []).append(m)
    return found


def find(found: Iterable[Figure], metric: str, streams: int = 1) -> Figure | None:
    """The figure of that metric with that many streams, if there is one."""
    return next((f for f in found if (f.metric, f.streams) == (metric, streams)), None)


def ratio_points(record: RunRecord, metric: str, route: Route) -> Points:
    """A route's ratios to the plain hosts of the same rounds, of one stream."""
    return ratios_of(
        [m for m in record.measurements if (m.metric, m.streams) == (metric, 1)], route
    )


def ratios_of(chosen: Sequence[Measurement], route: Route) -> Points:
    """The same of the measurements of one metric."""
    values, plain = (
        by_round([m for m in chosen if m.route == each]) for each in (route, "baseline")
    )
    ratios = paired(values, plain)
    return Points(_spread(ratios, None), tuple(ratios.values()))


def value_points(record: RunRecord, metric: str, route: Route) -> Points:
    """A route's values, of one stream: one a round, and the samples they are the medians of."""
    return values_of([m for m in record.measurements if m.metric == metric], route)


def values_of(measured: Iterable[Measurement], route: Route) -> Points:
    """The same of the measurements of one metric."""
    chosen = [m for m in measured if (m.streams, m.route) == (1, route)]
    values = by_round(chosen)
    return Points(
        _spread(values, _interval(chosen, route)),
        tuple(values[r] for r in sorted(values)),
        tuple(sample for m in chosen for sample in m.samples),
    )


def _figure(measurements: Sequence[Measurement]) -> Figure:
    first = measurements[0]
    proportional = metrics.of(first.metric).has_ratios
    method, control, baseline = (
        by_round([m for m in measurements if m.route == route]) for route in ROUTES
    )
    rates = measurements if first.metric == "udp_bits_per_second" else ()
    return Figure(
        metric=first.metric,
        streams=first.streams,
        unit=first.unit,
        method=_spread(method, _interval(measurements, "method")),
        control=_spread(control, _interval(measurements, "control")),
        baseline=_spread(baseline, _interval(measurements, "baseline")),
        to_control=_spread(paired(method, control), None) if proportional else None,
        to_baseline=_spread(paired(method, baseline), None) if proportional else None,
        failed_samples=failed_samples(measurements),
        errors={
            m.route: str(m.detail["error"])
            for m in reversed(measurements)
            if m.median is None and m.detail.get("error")
        },
        offered_bits_per_second=_rates(rates, "offered_bits_per_second"),
        sent_bits_per_second=_rates(rates, "sent_bits_per_second"),
        sender_limited=tuple(
            route
            for route in ROUTES
            if any(m.route == route and m.detail.get("sender_limited") for m in measurements)
        ),
    )


def _rates(measurements: Iterable[Measurement], name: str) -> dict[Route, float]:
    """The median of what the measurements of each route have in their detail as `name`."""
    given: dict[Route, list[float]] = {}
    for m in measurements:
        rate = m.detail.get(name)
        # Nobody has checked a measurement's detail when the record was read.
        if isinstance(rate, int | float) and 0 < rate < _HIGHEST_RATE:
            given.setdefault(m.route, []).append(float(rate))
    return {route: stats.median(given[route]) or 0.0 for route in ROUTES if route in given}


def failed_samples(measurements: Iterable[Measurement | Point]) -> dict[Route, int]:
    failed: dict[Route, int] = {}
    for m in measurements:
        if m.failed_samples:
            failed[m.route] = failed.get(m.route, 0) + m.failed_samples
    return failed


def _interval(measurements: Iterable[Measurement], route: Route) -> tuple[float, float] | None:
    """The 95 % interval of the only measurement on a route, if it is the only one."""
    intervals = [m.ci95 for m in measurements if m.route == route and m.median is not None]
    return intervals[0] if len(intervals) == 1 else None


def _spread(rounds: dict[Key, float], of_samples: tuple[float, float] | None) -> Spread | None:
    """The interval is that of the rounds, from three rounds on; of a single round its samples'.

    Of a method built several times it is by build; a ratio of a single round has none.
    """
    several = len({build for build, _ in rounds}) > 1
    found = intervals.estimate(rounds) if several else stats.spread(list(rounds.values()))
    return found and Spread(found.median, found.ci95 or of_samples, found.rounds)
