"""A sweep as columns of text and as charts: what each method costs as one parameter grows.

TCP, × plain hosts             a plot a class of datapaths and metric
── bridge        0.96–1.02     ratios to the baseline of the same point, with 95 % intervals
╌╌ weave         0.04–0.11
│ ┬  ┬   ┬
│ ┼──┼╌╌╌┼                     along one axis; all others stand at their first value
└───────────
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlab.record import metrics
from xlab.record.comparisons import Ratio, find
from xlab.record.record import DatapathClass
from xlab.report import text, virtual
from xlab.report.line_chart import STYLES, LineChart, Plot, Series
from xlab.report.prose import Verdict
from xlab.report.tables import Column, Table

if TYPE_CHECKING:
    # Every report imports this module, and few are of a sweep.
    from xlab.experiments.sweep.outcome import Axis, PointDone, Sweep

_SHOWN = tuple(row for row in metrics.TABLE if row.in_sweeps)
#: In the order of the classes of datapaths.
_KINDS: tuple[DatapathClass, ...] = ("kernel", "userspace")

_AXIS_NAMES = {
    "hosts": "hosts",
    "mtu": "MTU of the physical network, bytes",
    "rate": "rate of each link",
    "delay": "delay of each link, each way",
    "loss": "loss of each link, each way",
    "flows": "TCP streams at once",
}
#: By axis: the metric whose units its values are shown in.
_UNITS = {"rate": "x_bits_per_second", "delay": "x_ms", "loss": "x_ratio"}

LEGEND = (
    "Every ratio is to two plain hosts in a lab of their own, under the conditions of the same "
    "point and in the same round; shown is the median over the rounds, and its 95 % interval by "
    "build. TCP is that of as many streams as the point has."
)


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep, and the folder it is in."""

    sweep: Sweep
    folder: Path
    #: Whether its files will be found where they are now, by whoever reads this.
    linked: bool = True

    @property
    def verdict(self) -> Verdict:
        """How many points there are, what came of them, and what a reader must know of them."""
        sweep = self.sweep
        methods = dict.fromkeys(m.name for point in sweep.points for m in point.methods[1:])
        done = sum(point.status == "passed" for point in sweep.points)
        total = len(sweep.points)
        many = text.count(total, "point") if done == total else f"{done} of {total} points passed"
        axes = " × ".join(axis.name for axis in sweep.axes)
        named = ", ".join(map(text.plain, methods))
        headline = f"{many}{f' ({axes})' if axes else ''}: {named or 'nothing'} beside plain hosts"
        meaning = [virtual.MEANING] if sweep.clock == "virtual" else []
        return Verdict(sweep.status, headline, (*out(sweep), *meaning, *sweep.notes))


def ratio(point: PointDone, method: str, metric: str) -> Ratio | None:
    """Of a method at a point to its baseline; of several streams, where the point has several."""
    streams = int(point.values.get("flows", "1")) if metrics.of(metric).of_streams else 1
    figure = find(point.figures, method, metric, streams)
    return figure.to_baseline if figure else None


# -- tables ----------------------------------------------------------------------------------------


def tables(sweep: Sweep) -> list[Table]:
    """A table a class of datapaths: every point and method, ratios to the baseline of the point."""
    return [
        Table(_columns(sweep), rows, f"{kind} datapath{_clock(sweep)}, × plain hosts", _blank(rows))
        for kind in _KINDS
        if (rows := tuple(_rows(sweep, kind)))
    ]


def _blank(rows: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What a – means, if there is one."""
    said = "no figure (–): the point has none, or too few builds for an interval"
    return (said,) if any(text.NOTHING in row for row in rows) else ()


def _clock(sweep: Sweep) -> str:
    return f", {virtual.NAME}" if sweep.clock == "virtual" else ""


def _columns(sweep: Sweep) -> tuple[Column, ...]:
    columns = [Column(axis.name, right=True) for axis in sweep.axes]
    columns.append(Column("method"))
    for number, row in enumerate(_SHOWN):
        columns += [
            Column(row.label, right=True),
            Column("95 % interval", short="interval", right=True, expendable=1 + number % 2),
        ]
    return tuple(columns)


def _rows(sweep: Sweep, kind: DatapathClass) -> Iterator[tuple[str, ...]]:
    for point in sweep.points:
        for method in point.methods[1:]:
            if method.datapath_class != kind:
                continue
            row = [*(text.plain(value) for value in point.values.values()), text.plain(method.name)]
            for metric in _SHOWN:
                found = ratio(point, method.name, metric.name)
                row += [text.ratio(found), text.ratio_interval(found)]
            yield tuple(row)


def points(sweep: Sweep) -> Table:
    """What came of each point, and where it was measured."""
    columns = (
        Column("point"),
        Column("result"),
        Column("lasted", right=True),
        Column("machine"),
        Column("measured on"),
    )
    rows = tuple(
        (
            named(point),
            point.status,
            "not timed" if point.seconds is None else text.seconds(point.seconds),
            point.noise or "not judged",
            text.plain(point.machine) or "unknown",
        )
        for point in sweep.points
    )
    return Table(columns, rows)


def out(sweep: Sweep) -> Iterator[str]:
    """Why a point, or a method at it, has no figures."""
    for point in sweep.points:
        if not point.methods:
            yield f"{named(point)} {point.status}: {text.plain(point.reason)}"
        for method in point.methods:
            if method.status != "passed":
                reason = text.plain(method.reason)
                yield f"{named(point)}: {text.plain(method.name)} {method.status}: {reason}"


def named(point: PointDone) -> str:
    """ "mtu=9000 delay=5ms"."""
    return text.plain(" ".join(f"{axis}={value}" for axis, value in point.values.items()) or "only")


# -- charts ----------------------------------------------------------------------------------------

#: Styles of lines: without the first, which is the baseline's.
_STYLES = range(1, len(STYLES))
#: An axis that grows more than so many times is logarithmic.
_FAR = 8.0


def charts(sweep: Sweep) -> dict[str, LineChart]:
    """One for each axis along which something was measured at two points or more, by its name."""
    return {axis.name: chart for axis in sweep.axes if (chart := _chart(sweep, axis))}


def _chart(sweep: Sweep, axis: Axis) -> LineChart | None:
    others = {other.name: other.values[0] for other in sweep.axes if other is not axis}
    along = [
        (number, point)
        for value, number in zip(axis.values, axis.numbers, strict=True)
        for point in sweep.points
        if number is not None and point.values == {**point.values, **others, axis.name: value}
    ]
    along.sort(key=lambda found: found[0])
    methods = list(dict.fromkeys(m.name for point in sweep.points for m in point.methods[1:]))
    plots = tuple(_plots(along, methods)) if len(along) > 1 else ()
    if not plots:
        return None
    xs = sorted({x for plot in plots for line in plot.lines for x in line.x})
    still = ", ".join(f"{name} {value}" for name, value in others.items())
    return LineChart(
        f"Cost against {'MTU' if axis.name == 'mtu' else axis.name}{_clock(sweep)}",
        _AXIS_NAMES.get(axis.name, axis.name),
        plots,
        _UNITS.get(axis.name, ""),
        "times",
        x_log=xs[0] > 0 and xs[-1] / xs[0] > _FAR,
        x_ticks=tuple(xs),
        note=text.plain(f"at {still}" if still else ""),
        # Up to plain hosts at least, so that no difference looks larger than it is.
        mark=1.0,
        dot="the median of a point's rounds, × its baseline",
    )


def _plots(along: Sequence[tuple[float, PointDone]], methods: Sequence[str]) -> Iterator[Plot]:
    for kind in _KINDS:
        for row in _SHOWN:
            lines = [
                _line(name, _STYLES[number % len(_STYLES)], dots)
                for number, name in enumerate(methods)
                if len(dots := list(_dots(along, name, kind, row.name))) > 1
            ]
            if lines:
                yield Plot(f"{kind} datapath: {row.label}, × plain hosts", tuple(lines))


def _line(name: str, style: int, dots: Sequence[tuple[float, Ratio]]) -> Series:
    xs, ys = tuple(x for x, _ in dots), tuple(found.median for _, found in dots)
    said = " to ".join(dict.fromkeys(map(text.ratio_digits, (ys[0], ys[-1]))))
    intervals = tuple((x, *found.ci95) for x, found in dots if found.ci95)
    return Series(text.plain(name), style, xs, ys, said, tuple(zip(xs, ys, strict=True)), intervals)


def _dots(
    along: Sequence[tuple[float, PointDone]], name: str, kind: DatapathClass, metric: str
) -> Iterator[tuple[float, Ratio]]:
    for x, point in along:
        if any((m.name, m.datapath_class) == (name, kind) for m in point.methods):
            found = ratio(point, name, metric)
            if found and all(1e-9 < y < 1e9 for y in (found.median, *(found.ci95 or ()))):
                yield x, found
