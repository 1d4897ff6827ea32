"""A sweep as columns of text and as charts: what each method costs as one parameter grows.

TCP, × plain hosts             a plot a class of datapaths and metric
── bridge        0.96–1.02     ratios to the baseline of the same point, with 95 % intervals
╌╌ weave         0.04–0.11
│ ┬  ┬   ┬
│ ┼──┼╌╌╌┼                     along one axis; all others stand at their first value
└───────────
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlab.compare.result import Figure, Ratio
from xlab.record import DatapathClass
from xlab.report import drawing, text
from xlab.report.drawing import CARD, DIM, INK, PALETTE, RULE, SIDE, SIZE, SMALL_SIZE, WIDTH, Canvas
from xlab.report.tables import Column, Table
from xlab.sweep.outcome import Axis, PointDone, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What is shown of each point: the metric, and whether it is that of all TCP streams of the point.
_SHOWN = (("icmp_rtt_ms", False), ("loaded_rtt_ms", False), ("tcp_bits_per_second", True))
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


def shown(point: PointDone, method: str, metric: str, *, all_streams: bool) -> Figure | None:
    """A figure of a method at a point; of several streams, where the point has several."""
    streams = int(point.values.get("flows", "1")) if all_streams else 1
    for figure in point.figures:
        if (figure.method, figure.metric, figure.streams) == (method, metric, streams):
            return figure
    return None


# -- tables ----------------------------------------------------------------------------------------


def tables(sweep: Sweep) -> list[Table]:
    """A table a class of datapaths: every point and method, ratios to the baseline of the point."""
    found = []
    for kind in _KINDS:
        rows = list(_rows(sweep, kind))
        if rows:
            found.append(Table(_columns(sweep), tuple(rows), f"{kind} datapath, × plain hosts"))
    return found


def _columns(sweep: Sweep) -> tuple[Column, ...]:
    columns = [Column(axis.name, right=True) for axis in sweep.axes]
    columns.append(Column("method"))
    for number, (metric, all_streams) in enumerate(_SHOWN):
        name = "TCP" if all_streams else text.label(metric)
        columns += [
            Column(name, right=True),
            Column("95 % interval", short="interval", right=True, expendable=1 + number % 2),
        ]
    return tuple(columns)


def _rows(sweep: Sweep, kind: DatapathClass) -> Iterator[tuple[str, ...]]:
    for point in sweep.points:
        for method in point.methods[1:]:
            if method.datapath_class != kind:
                continue
            row = [*(text.plain(value) for value in point.values.values()), text.plain(method.name)]
            for metric, all_streams in _SHOWN:
                figure = shown(point, method.name, metric, all_streams=all_streams)
                row += _cells(figure.to_baseline if figure else None)
            yield tuple(row)


def _cells(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return text.NOTHING, text.NOTHING
    interval = "–".join(map(text.ratio_digits, ratio.ci95)) if ratio.ci95 else text.NOTHING
    return text.ratio_digits(ratio.median), interval


def out(sweep: Sweep) -> list[str]:
    """Why a point, or a method at it, has no figures."""
    said = []
    for point in sweep.points:
        if not point.methods:
            said.append(f"{named(point)} {point.status}: {text.plain(point.reason)}")
        for method in point.methods:
            if method.status != "passed":
                reason = text.plain(method.reason)
                said.append(f"{named(point)}: {text.plain(method.name)} {method.status}: {reason}")
    return said


def named(point: PointDone) -> str:
    """ "mtu=9000 delay=5ms"."""
    return text.plain(" ".join(f"{axis}={value}" for axis, value in point.values.items()) or "only")


# -- charts ----------------------------------------------------------------------------------------

_TITLE_H, _KEY_H, _GAP_H, _PLOT_H, _AXIS_H, _LEFT, _HEAD_H = 20, 15, 8, 130, 42, 44, 16
_STYLES: Sequence[tuple[str, Any]] = (
    ("method", "solid"),
    ("line-2", (0, (6, 1.5))),
    ("line-3", (0, (4, 1.2, 1, 1.2))),
    ("line-4", (0, (2.5, 1.2))),
    ("line-5", (0, (8, 1.5, 1, 1.5, 1, 1.5))),
    ("line-6", (0, (3, 3))),
)
#: An axis that grows more than so many times is logarithmic.
_FAR = 8.0


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    #: Which of _STYLES.
    style: int
    #: (x, ratio), ascending.
    dots: tuple[tuple[float, Ratio], ...]

    @property
    def said(self) -> str:
        """From the first to the last: "0.64 to 0.69"; no interval."""
        ends = (self.dots[0][1].median, self.dots[-1][1].median)
        return " to ".join(dict.fromkeys(map(text.ratio_digits, ends)))


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class AxisChart:
    """What a chart shows, before it is drawn."""

    axis: str
    #: What stands still, in words.
    still: str
    plots: tuple[Plot, ...]

    @property
    def title(self) -> str:
        return f"Cost against {'MTU' if self.axis == 'mtu' else self.axis}"

    @property
    def height(self) -> float:
        return _HEAD_H + sum(map(_height, self.plots))

    def in_words(self) -> str:
        said = []
        for plot in self.plots:
            lines = [f"{line.label} {line.said}" for line in plot.lines]
            said.append(f"{plot.title}: {', '.join(lines)}.")
        return f"{self.title}{f', {self.still}' if self.still else ''}. {' '.join(said)}"

    def key(self) -> list[tuple[str, str]]:
        dots = [ratio for plot in self.plots for line in plot.lines for _, ratio in line.dots]
        entries = [("round", "the median of a point's rounds, × its baseline")]
        if any(ratio.ci95 for ratio in dots):
            entries.append(("interval", "95 % interval, by build"))
        return entries

    def draw(self, canvas: Canvas) -> None:
        canvas.say(self.still, y=11, colour=DIM, size=SMALL_SIZE, room=56)
        top: float = _HEAD_H
        for plot in self.plots:
            _draw(canvas, self, plot, top)
            top += _height(plot)


def charts(sweep: Sweep) -> list[AxisChart]:
    """One for each axis along which something was measured at two points or more."""
    found = (_chart(sweep, axis) for axis in sweep.axes)
    return [chart for chart in found if chart]


def save(sweep: Sweep, folder: Path) -> list[Path]:
    """Write each chart as AXIS.svg and AXIS.png; returns the files.  Raises OSError."""
    return [file for chart in charts(sweep) for file in drawing.saved(chart, chart.axis, folder)]


def _chart(sweep: Sweep, axis: Axis) -> AxisChart | None:
    others = {other.name: other.values[0] for other in sweep.axes if other is not axis}
    along = [
        (number, point)
        for value, number in zip(axis.values, axis.numbers, strict=True)
        for point in sweep.points
        if number is not None and point.values == {**point.values, **others, axis.name: value}
    ]
    along.sort(key=lambda found: found[0])
    if len(along) < 2:
        return None
    methods = list(dict.fromkeys(m.name for point in sweep.points for m in point.methods[1:]))
    styles = {name: number % len(_STYLES) for number, name in enumerate(methods)}
    plots = tuple(_plots(along, styles))
    still = ", ".join(f"{name} {value}" for name, value in others.items())
    return (
        AxisChart(axis.name, text.plain(f"at {still}" if still else ""), plots) if plots else None
    )


def _plots(along: Sequence[tuple[float, PointDone]], styles: Mapping[str, int]) -> Iterator[Plot]:
    for kind in _KINDS:
        for metric, all_streams in _SHOWN:
            lines = []
            for name, style in styles.items():
                dots = tuple(_dots(along, name, kind, metric, all_streams=all_streams))
                if len(dots) > 1:
                    lines.append(Line(text.plain(name), style, dots))
            if lines:
                what = "TCP" if all_streams else text.label(metric)
                yield Plot(f"{kind} datapath: {what}, × plain hosts", tuple(lines))


def _dots(
    along: Sequence[tuple[float, PointDone]],
    name: str,
    kind: DatapathClass,
    metric: str,
    *,
    all_streams: bool,
) -> Iterator[tuple[float, Ratio]]:
    for x, point in along:
        if any((m.name, m.datapath_class) == (name, kind) for m in point.methods):
            figure = shown(point, name, metric, all_streams=all_streams)
            ratio = figure.to_baseline if figure else None
            if ratio and all(1e-9 < y < 1e9 for y in (ratio.median, *(ratio.ci95 or ()))):
                yield x, ratio


def _height(plot: Plot) -> float:
    return _TITLE_H + _KEY_H * len(plot.lines) + _GAP_H + _PLOT_H + _AXIS_H


def _draw(canvas: Canvas, chart: AxisChart, plot: Plot, top: float) -> None:
    canvas.say(plot.title, y=top + 14, weight="bold", colour=DIM)
    for number, line in enumerate(plot.lines):
        _say_key(canvas, line, top + _TITLE_H + _KEY_H * number)
    body = top + _TITLE_H + _KEY_H * len(plot.lines) + _GAP_H
    axes = canvas.axes(body, _PLOT_H, left=_LEFT, right=SIDE + 12)
    _scale(axes, chart, plot)
    # Lines whose intervals would hide each other stand side by side.
    low, high = axes.get_xlim()
    for number, line in enumerate(plot.lines):
        _draw_line(axes, line, (number - (len(plot.lines) - 1) / 2) * 0.008, (low, high))


def _say_key(canvas: Canvas, line: Line, top: float) -> None:
    colour, dash = _STYLES[line.style]
    sample = canvas.axes(top, _KEY_H, left=SIDE, right=WIDTH - SIDE - 24)
    sample.axis("off")
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.plot([0, 1], [0.35, 0.35], color=PALETTE[colour], linestyle=dash, linewidth=2)
    canvas.say(line.label, x=SIDE + 30, y=top + 11.5, room=42 - len(line.said))
    canvas.say(line.said, y=top + 11.5, at_right=True, colour=DIM, size=SMALL_SIZE)


def _scale(axes: Axes, chart: AxisChart, plot: Plot) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    xs = sorted({x for line in plot.lines for x, _ in line.dots})
    ys = [y for line in plot.lines for _, r in line.dots for y in (r.median, *(r.ci95 or ()))]
    if xs[0] > 0 and xs[-1] / xs[0] > _FAR:
        axes.set_xscale("log")
        margin = (xs[-1] / xs[0]) ** 0.05
        axes.set_xlim(xs[0] / margin, xs[-1] * margin)
    else:
        aside = (xs[-1] - xs[0]) * 0.05
        axes.set_xlim(xs[0] - aside, xs[-1] + aside)
    # From zero, and up to plain hosts at least, so that no difference looks larger than it is.
    axes.set_ylim(0, max(*ys, 1.0) * 1.08)
    metric = _UNITS.get(chart.axis, "")
    axes.xaxis.set_major_locator(FixedLocator(_apart(axes, xs)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(metric, x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.axhline(1.0, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), zorder=2)
    axes.set_xlabel(_AXIS_NAMES.get(chart.axis, chart.axis), fontsize=SIZE, labelpad=2)
    axes.tick_params(axis="y", labelsize=SMALL_SIZE, length=0)


def _apart(axes: Axes, xs: Sequence[float]) -> list[float]:
    """The last, and those before it whose labels do not touch the next one's."""

    def place(x: float) -> float:
        return float(axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0])

    kept: list[float] = []
    for x in reversed(xs):
        if not kept or place(kept[-1]) - place(x) > 0.16:
            kept.append(x)
    return kept[::-1]


def _tick(metric: str, value: float) -> str:
    if not metric:
        return f"{value:g}"
    if not value:
        return "0"
    size, unit = text.scale(metric, "", value)
    return f"{value / size:.3g} {unit}"


def _draw_line(axes: Axes, line: Line, aside: float, limits: tuple[float, float]) -> None:
    colour, dash = _STYLES[line.style]
    low, high = limits
    logarithmic = axes.get_xscale() == "log"
    xs = [x * (high / low) ** aside if logarithmic else x + (high - low) * aside
          for x, _ in line.dots]  # fmt: skip
    ys = [ratio.median for _, ratio in line.dots]
    axes.plot(
        xs, ys, color=PALETTE[colour], linestyle=dash, linewidth=1.8, marker="o", markersize=4,
        markerfacecolor=CARD, markeredgewidth=1, zorder=4, clip_on=False,
    )  # fmt: skip
    for x, (_, ratio) in zip(xs, line.dots, strict=True):
        if ratio.ci95:
            axes.errorbar(
                [x], [ratio.median],
                yerr=[[ratio.median - ratio.ci95[0]], [ratio.ci95[1] - ratio.median]],
                color=PALETTE[colour], linewidth=1.4, capsize=3, zorder=3,
            )  # fmt: skip
