"""Charts of lines: all round trips as a distribution, RTT over time, and throughput as something
grows.

    kernel datapath                    a panel a class of datapath, or a method where lines are many
    ── bridge            42 µs         the key stands above, with a figure where there is one
    ╌╌ weave fastdp      70 µs
    │      ╭──────
    │   ╭──╯ ╭╌╌╌╌                     colours and dashes go with methods, the same in every chart
    └──────────────
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from xlab import stats
from xlab.record import Measurement, RunRecord
from xlab.report import text
from xlab.report.charts import Subject, grouped, panel_title
from xlab.report.drawing import CARD, DIM, INK, PALETTE, RULE, SIDE, SIZE, SMALL_SIZE, WIDTH, Canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE_H, _KEY_H, _PLOT_H, _COURSE_H, _AXIS_H, _LEFT = 20, 15, 150, 66, 42, 60
#: Between the key and the plot; below a plot whose axis is named further down.
_GAP_H, _TICKS_H = 8, 28
#: One a method, in their order: colour and dash, so that neither alone tells them apart.
_STYLES: Sequence[tuple[str, Any]] = (
    ("ink", (0, (1, 1.2))),
    ("method", "solid"),
    ("line-2", (0, (6, 1.5))),
    ("line-3", (0, (4, 1.2, 1, 1.2))),
    ("line-4", (0, (2.5, 1.2))),
    ("line-5", (0, (8, 1.5, 1, 1.5, 1, 1.5))),
    ("line-6", (0, (3, 3))),
)
#: What a letter of the usual and of the small size takes, in px.
_EM, _SMALL_EM = 6.1, 5.3
#: From this part of the axis on a label in the middle of its mark would leave the chart.
_NEAR_END = 0.94
#: Of a method's samples so many are enough to draw their distribution.
_STEPS = 200
#: Two points show no course: every run has TCP with one stream and with several.
_FEWEST = 3
#: Of a course over time: as many columns as there are px.
_COLUMNS = WIDTH - _LEFT - SIDE


@dataclass(frozen=True, slots=True)
class Line:
    """One method's line, or its course: at each x from `lows` to `highs`."""

    label: str
    #: Which of _STYLES.
    style: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    #: A figure beside its name.
    said: str = ""
    #: Every round, as (x, y).
    rounds: tuple[tuple[float, float], ...] = ()
    #: A course's: the largest y of each x, whose smallest is in `y`.
    highs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    lines: tuple[Line, ...]
    #: From where to where the path was full; of a course.
    load: tuple[float, float] | None = None
    #: When what was sent had no reply; of a course.
    lost: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LineChart:
    """What a chart shows, before it is drawn."""

    title: str
    x_axis: str
    plots: tuple[Plot, ...]
    #: Metrics, which give ticks their units; "" for plain numbers.
    x_metric: str
    y_metric: str
    x_log: bool = False
    y_log: bool = False
    #: Ticks of x, where only some values were tried.
    x_ticks: tuple[float, ...] = ()

    @property
    def height(self) -> float:
        return sum(map(self._plot_height, self.plots))

    def in_words(self) -> str:
        said = []
        for plot in self.plots:
            lines = [
                line.said if line.label == plot.title else f"{line.label} {line.said}"
                for line in plot.lines
            ]
            said.append(f"{plot.title}: {', '.join(lines)}.")
        return f"{self.title}. {' '.join(said)}"

    def key(self) -> list[tuple[str, str]]:
        entries = []
        if any(line.rounds for plot in self.plots for line in plot.lines):
            entries.append(("round", "a round; lines go through the medians"))
        if any(plot.load for plot in self.plots):
            entries.append(("load", "TCP runs both ways in full"))
        if any(plot.lost for plot in self.plots):
            entries.append(("lost", "no reply came"))
        return entries

    def draw(self, canvas: Canvas) -> None:
        top = 0.0
        for plot in self.plots:
            self._draw_plot(canvas, plot, top)
            top += self._plot_height(plot)

    def _plot_height(self, plot: Plot) -> float:
        if _is_course(plot):
            named = _AXIS_H if plot is self.plots[-1] else _TICKS_H
            return _TITLE_H + _COURSE_H + named
        return _TITLE_H + _KEY_H * len(plot.lines) + _GAP_H + _PLOT_H + _AXIS_H

    def _draw_plot(self, canvas: Canvas, plot: Plot, top: float) -> None:
        course = _is_course(plot)
        canvas.say(plot.title, y=top + 14, weight="bold", colour=INK if course else DIM)
        body = top + _TITLE_H
        if course:
            canvas.say(plot.lines[0].said, y=top + 14, at_right=True)
        else:
            body += _KEY_H * len(plot.lines) + _GAP_H
        axes = canvas.axes(body, _COURSE_H if course else _PLOT_H, left=_LEFT, right=SIDE + 4)
        self._scale(axes, plot)
        for number, line in enumerate(plot.lines):
            if not course:
                _say_key(canvas, line, top + _TITLE_H + _KEY_H * number)
            _draw_line(axes, line, stepped=self.y_metric == "")
        if plot.load:
            axes.axvspan(*plot.load, facecolor=PALETTE["sunken"], edgecolor="none", zorder=0)
        if plot.lost:
            height = axes.get_ylim()[1]
            axes.plot(
                plot.lost, [height] * len(plot.lost), color=PALETTE["line-2"], marker="x",
                markersize=4, linestyle="none", clip_on=False, zorder=5,
            )  # fmt: skip

    def _scale(self, axes: Axes, plot: Plot) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

        xs = [x for line in plot.lines for x in line.x]
        ys = [
            y for line in plot.lines for y in (*line.y, *line.highs, *(y for _, y in line.rounds))
        ]
        _limit(axes.set_xlim, axes.set_xscale, xs, log=self.x_log, from_zero=not self.x_log)
        if self.y_metric:
            _limit(axes.set_ylim, axes.set_yscale, ys, log=self.y_log, from_zero=not self.y_log)
        else:
            axes.set_ylim(0, 1.02)
        for axis, metric, log, ticks in (
            (axes.xaxis, self.x_metric, self.x_log, self.x_ticks),
            (axes.yaxis, self.y_metric, self.y_log, ()),
        ):
            low, high = axis.get_view_interval()
            marks = list(ticks) or (_round_marks(low, high) if log else _even_marks(low, high))
            if log and axis is axes.xaxis and not ticks:
                # A label at the very end would run into the one before.
                marks = [m for m in marks if m <= low * (high / low) ** _NEAR_END]
            axis.set_major_locator(FixedLocator(marks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda v, _, m=metric: _tick(m, v)))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, color=RULE, linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
        if plot is self.plots[-1] or not _is_course(plot):
            axes.set_xlabel(self.x_axis, fontsize=SIZE, labelpad=2)
        _keep_inside(axes)
        axes.tick_params(axis="y", labelsize=SMALL_SIZE, length=0)


def _is_course(plot: Plot) -> bool:
    return any(line.highs for line in plot.lines)


# ------------------------------------------------------------------------------- what is in a chart


def distribution(subjects: Sequence[Subject], metric: str, title: str) -> LineChart | None:
    """The cumulative distribution of all samples of a latency; None where there are none."""

    def line(record: RunRecord, name: str, style: int) -> Line | None:
        samples = [s for m in _of(record, metric) for s in m.samples if _fits(s)]
        if len(samples) < 2:
            return None
        steps = min(_STEPS, len(samples))
        shares = [i / steps for i in range(steps + 1)]
        values = tuple(stats.percentile(samples, 100 * share) or 0.0 for share in shares)
        p50, p99 = (text.value(metric, "", stats.percentile(samples, p) or 0.0) for p in (50, 99))
        return Line(name, style, values, tuple(shares), f"50 % {p50}, 99 % {p99}")

    plots = _by_class(subjects, line)
    return LineChart(title, "no longer than", plots, metric, "", x_log=True) if plots else None


def against_message_size(subjects: Sequence[Subject]) -> LineChart | None:
    """TCP throughput for each size of message; None where it was not measured."""
    found = _swept(subjects, lambda m: text.message_bytes(m.metric))
    if not found:
        return None
    plots, sizes = found
    return LineChart(
        "Throughput against message size", "bytes a message", plots, "", "x_bits_per_second",
        x_log=True, y_log=True, x_ticks=sizes,
    )  # fmt: skip


def against_flows(subjects: Sequence[Subject]) -> LineChart | None:
    """TCP throughput of all streams together; None where it was not measured."""
    found = _swept(subjects, lambda m: m.streams if m.metric == "tcp_bits_per_second" else None)
    if not found:
        return None
    plots, flows = found
    return LineChart(
        "Throughput against streams", "TCP streams at once", plots, "", "x_bits_per_second",
        x_log=True, x_ticks=flows,
    )  # fmt: skip


def course(subjects: Sequence[Subject]) -> LineChart | None:
    """RTT over time, idle and then loaded, of each method's middle round; None without any."""
    plots = [
        plot
        for number, (name, record) in enumerate(subjects)
        if (plot := _course(record, name, number)) is not None
    ]
    if not plots:
        return None
    title = "RTT over time, idle and loaded"
    return LineChart(title, "seconds", tuple(plots), "", "x_ms", y_log=True)


def middle_course(record: RunRecord) -> Measurement | None:
    """The measurement of RTT under load whose median is in the middle of all rounds'."""
    found = [m for m in _of(record, "loaded_rtt_ms") if series(m)]
    measured = sorted((m for m in found if m.median is not None), key=lambda m: m.median or 0.0)
    ranked = measured or found
    return ranked[(len(ranked) - 1) // 2] if ranked else None


def series(m: Measurement) -> list[tuple[float, float | None]]:
    """The echoes of a measurement under load: (seconds, ms), without what makes no sense."""
    listed = m.detail.get("series")
    found: list[tuple[float, float | None]] = []
    for entry in listed if isinstance(listed, list) else ():
        match entry:
            case [seconds, ms] if _is_number(seconds) and 0 <= seconds < 1e6:
                if ms is None or (_is_number(ms) and _fits(ms)):
                    found.append((float(seconds), None if ms is None else float(ms)))
    return found


def _course(record: RunRecord, name: str, style: int) -> Plot | None:
    chosen = middle_course(record)
    if chosen is None:
        return None
    echoes = series(chosen)
    end = max(seconds for seconds, _ in echoes) or 1.0
    columns: dict[int, list[float]] = {}
    for seconds, ms in echoes:
        if ms is not None:
            columns.setdefault(int(_COLUMNS * seconds / end), []).append(ms)
    if not columns:
        return None
    since, until = (chosen.detail.get(name) for name in ("load_since_s", "load_until_s"))
    load = None
    if _is_number(since) and _is_number(until) and 0 <= since < until <= 2 * end:
        load = (float(since), float(until))
    idle = chosen.detail.get("idle_median_ms")
    said = [
        f"{when} {text.value('x_ms', '', value)}"
        for when, value in (("idle", idle), ("loaded", chosen.median))
        if _is_number(value) and _fits(value)
    ]
    line = Line(
        text.plain(name),
        min(style, 1),
        tuple((column + 0.5) * end / _COLUMNS for column in sorted(columns)),
        tuple(min(columns[column]) for column in sorted(columns)),
        ", ".join(said),
        highs=tuple(max(columns[column]) for column in sorted(columns)),
    )
    return Plot(text.plain(name), (line,), load, tuple(s for s, ms in echoes if ms is None))


def _swept(
    subjects: Sequence[Subject], place: Callable[[Measurement], int | None]
) -> tuple[tuple[Plot, ...], tuple[float, ...]] | None:
    tried: set[float] = set()

    def line(record: RunRecord, name: str, style: int) -> Line | None:
        values: dict[float, list[float]] = {}
        for m in record.measurements:
            x = place(m)
            if m.route == "method" and m.median and _fits(m.median) and x and 0 < x < 1e9:
                values.setdefault(float(x), []).append(m.median)
        if len(values) < _FEWEST:
            return None
        xs = tuple(sorted(values))
        tried.update(xs)
        middles = tuple(stats.median(values[x]) or 0.0 for x in xs)
        said = "–".join(
            dict.fromkeys(text.value("x_bits_per_second", "", y) for y in (middles[0], middles[-1]))
        )
        rounds = tuple((x, y) for x in xs for y in values[x])
        return Line(name, style, xs, middles, said, rounds)

    plots = _by_class(subjects, line)
    return (plots, tuple(sorted(tried))) if plots else None


def _by_class(
    subjects: Sequence[Subject], line: Callable[[RunRecord, str, int], Line | None]
) -> tuple[Plot, ...]:
    """A plot a class of datapaths, with those of which there is a line."""
    styles = styles_of(subjects)
    plots = []
    for kind, members in grouped(subjects):
        lines = [line(record, text.plain(name), styles[id(record)]) for name, record in members]
        drawn = tuple(each for each in lines if each)
        if drawn:
            plots.append(Plot(panel_title(kind), drawn))
    return tuple(plots)


def styles_of(subjects: Sequence[Subject]) -> Mapping[int, int]:
    """The style of each record, by its id(): the first of all for baselines, then in turn."""
    styles, next_one = {}, 1
    for _, record in subjects:
        styles[id(record)] = 0 if record.scenario == "baseline" else next_one
        if record.scenario != "baseline":
            next_one = next_one % (len(_STYLES) - 1) + 1
    return styles


def _of(record: RunRecord, metric: str) -> list[Measurement]:
    return [m for m in record.measurements if (m.metric, m.route) == (metric, "method")]


def _fits(value: float) -> bool:
    return 1e-9 < value < 1e15


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---------------------------------------------------------------------------------------- drawing


def _say_key(canvas: Canvas, line: Line, top: float) -> None:
    colour, dash = _STYLES[line.style]
    sample = canvas.axes(top, _KEY_H, left=SIDE, right=WIDTH - SIDE - 24)
    sample.axis("off")
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.plot([0, 1], [0.35, 0.35], color=PALETTE[colour], linestyle=dash, linewidth=2)
    room = int((WIDTH - 2 * SIDE - 30 - _SMALL_EM * len(line.said)) / _EM)
    canvas.say(line.label, x=SIDE + 30, y=top + 11.5, room=max(room, 8))
    canvas.say(line.said, y=top + 11.5, at_right=True, colour=DIM, size=SMALL_SIZE)


def _keep_inside(axes: Axes) -> None:
    """The label of the last mark ends with the chart where it would leave it."""
    low, high = axes.get_xlim()
    for mark, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        place = axes.transAxes.inverted().transform(axes.transData.transform((mark, 0)))[0]
        if low <= mark <= high and place > _NEAR_END:
            label.set_horizontalalignment("right")


def _draw_line(axes: Axes, line: Line, *, stepped: bool) -> None:
    colour, dash = _STYLES[line.style]
    if line.highs:
        _draw_course(axes, line, PALETTE[colour])
        return
    axes.plot(line.x, line.y, color=PALETTE[colour], linestyle=dash, linewidth=1.8, zorder=3)
    if line.rounds and not stepped:
        xs, ys = zip(*line.rounds, strict=True)
        axes.plot(
            xs, ys, color=PALETTE[colour], linestyle="none", marker="o", markersize=3,
            markerfacecolor=CARD, markeredgewidth=0.9, zorder=4, clip_on=False,
        )  # fmt: skip


def _draw_course(axes: Axes, line: Line, colour: str) -> None:
    """All columns as one path, which is a tenth of the size of a mark for each."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    vertices = []
    for x, low, high in zip(line.x, line.y, line.highs, strict=True):
        # A column in which all echoes took the same time is seen, too.
        vertices += [(x, low), (x, max(high, low * 1.01))]
    path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(line.x))
    drawn = PathPatch(path, edgecolor=colour, fill=False, linewidth=1.6, capstyle="round", zorder=3)
    # Rounded to whole pixels, short lines would have no length, and not be drawn.
    drawn.set_snap(False)
    axes.add_patch(drawn)


def _limit(limit: Any, scale: Any, values: Sequence[float], *, log: bool, from_zero: bool) -> None:
    low, high = min(values), max(values)
    if log:
        scale("log")
        limit(low / 1.25, high * 1.25)
    else:
        limit(0 if from_zero else low, high * 1.05 or 1.0)


def _even_marks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return [x for x in MaxNLocator(nbins=5).tick_values(low, high) if low <= x <= high]


def _round_marks(low: float, high: float) -> list[float]:
    """1, 10, 100 …, with others between where these are few."""
    from math import floor, log10

    decades = range(floor(log10(low)), floor(log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(marks) < 2:
            return _even_marks(low, high)  # within a decade
        if len(marks) <= 6:
            return marks
    return marks[:: -(-len(marks) // 6)]


def _tick(metric: str, value: float) -> str:
    if not metric:
        return f"{value:g}"
    size, unit = text.scale(metric, "", value)
    return f"{value / size:.3g} {unit}"
