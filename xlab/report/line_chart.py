"""A chart of lines: plots one above the other, each with its key, in one style.

kernel datapath                    a plot a class of datapath, or a method where lines are many
── bridge            42 µs         the key stands above, with a figure where there is one
╌╌ weave fastdp      70 µs
│      ╭──────
│   ╭──╯ ╭╌╌╌╌                     colours and dashes go with methods, the same in every chart
└──────────────
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlab.report import drawing, text
from xlab.report.drawing import CARD, DIM, INK, PALETTE, RULE, SIDE, SIZE, SMALL_SIZE, WIDTH, Canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE_H, _KEY_H, _PLOT_H, _COURSE_H, _AXIS_H, _LEFT = 20, 15, 150, 66, 42, 60
#: Between the key and the plot; below a plot whose axis is named further down.
_GAP_H, _TICKS_H, _NOTE_H, _NOTE_COLUMNS = 8, 28, 16, 56
#: One a method, in their order: colour and dash, so that neither alone tells them apart.
STYLES: Sequence[tuple[str, Any]] = (
    ("ink", (0, (1, 1.2))),
    ("method", "solid"),
    ("line-2", (0, (6, 1.5))),
    ("line-3", (0, (4, 1.2, 1, 1.2))),
    ("line-4", (0, (2.5, 1.2))),
    ("line-5", (0, (8, 1.5, 1, 1.5, 1, 1.5))),
    ("line-6", (0, (3, 3))),
)
#: A metric of y: parts of a whole.
SHARE = "share"
#: What a letter of the usual and of the small size takes, in px.
_EM, _SMALL_EM = 6.1, 5.3
#: From this part of the axis on a label in the middle of its mark would leave the chart.
_NEAR_END = 0.94
#: How far apart lines stand whose intervals would hide each other, as a part of the axis.
_ASIDE = 0.008
#: How wide a plot is, in px.
PLOT_W = WIDTH - _LEFT - SIDE


@dataclass(frozen=True, slots=True)
class Series:
    """One method's line, or its course: at each x from `lows` to `highs`."""

    label: str
    #: Which of STYLES.
    style: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    #: A figure beside its name.
    said: str = ""
    #: What is dotted on it, as (x, y).
    dots: tuple[tuple[float, float], ...] = ()
    #: (x, low, high).
    intervals: tuple[tuple[float, float, float], ...] = ()
    #: A course's: the largest y of each x, whose smallest is in `y`.
    highs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    lines: tuple[Series, ...]
    #: From where to where the path was full; of a course.
    load: tuple[float, float] | None = None
    #: When what was sent had no reply; of a course.
    lost: tuple[float, ...] = ()
    #: In place of the chart's, and between which values it has to reach.
    y_metric: str = ""
    reach: tuple[float, float] | None = None


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
    #: What holds for all of it, above the first plot.
    note: str = ""
    #: Up to where y must reach, and a line is drawn.
    mark: float | None = None
    #: What a dot is.
    dot: str = "a round; lines go through the medians"

    @property
    def height(self) -> float:
        return _NOTE_H * len(self._notes) + sum(map(self._plot_height, self.plots))

    @property
    def _notes(self) -> list[str]:
        return textwrap.wrap(self.note, _NOTE_COLUMNS)

    def in_words(self) -> str:
        said = []
        for plot in self.plots:
            lines = [
                line.said if line.label == plot.title else f"{line.label} {line.said}"
                for line in plot.lines
            ]
            said.append(f"{plot.title}: {', '.join(lines)}.")
        return f"{self.title}{f', {self.note}' if self.note else ''}. {' '.join(said)}"

    def key(self) -> list[tuple[str, str]]:
        drawn = [line for plot in self.plots for line in plot.lines]
        signs = (
            ("round", self.dot, any(line.dots for line in drawn)),
            ("interval", "95 % interval, by build", any(line.intervals for line in drawn)),
            ("load", "TCP runs both ways in full", any(plot.load for plot in self.plots)),
            ("lost", "no reply came", any(plot.lost for plot in self.plots)),
        )
        return [(kind, said) for kind, said, there in signs if there]

    def draw(self, canvas: Canvas) -> None:
        for number, note in enumerate(self._notes):
            y = 11 + _NOTE_H * number
            canvas.say(note, y=y, colour=DIM, size=SMALL_SIZE, room=_NOTE_COLUMNS)
        top = float(_NOTE_H * len(self._notes))
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
            _draw_line(axes, line, (number - (len(plot.lines) - 1) / 2) * _ASIDE)
        if plot.load:
            axes.axvspan(*plot.load, facecolor=PALETTE["sunken"], edgecolor="none", zorder=0)
        if plot.lost:
            height = axes.get_ylim()[1]
            axes.plot(
                plot.lost, [height] * len(plot.lost), color=PALETTE["line-2"], marker="x",
                markersize=4, linestyle="none", clip_on=False, zorder=5,
            )  # fmt: skip

    def _scale(self, axes: Axes, plot: Plot) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter

        xs = [x for line in plot.lines for x in line.x]
        ys = [y for line in plot.lines for y in _ys(line)]
        ys += [*([self.mark] if self.mark else []), *(plot.reach or ())]
        y_metric = plot.y_metric or self.y_metric
        _limit(axes.set_xlim, axes.set_xscale, xs, log=self.x_log, from_zero=not self.x_ticks)
        if y_metric == SHARE:
            axes.set_ylim(0, 1.02)
        else:
            _limit(axes.set_ylim, axes.set_yscale, ys, log=self.y_log, from_zero=True)
        most = 4 if _is_course(plot) else 6
        for axis, metric, log, ticks in (
            (axes.xaxis, self.x_metric, self.x_log, self.x_ticks),
            (axes.yaxis, y_metric, self.y_log, ()),
        ):
            low, high = axis.get_view_interval()
            marks = _apart(axes, ticks, metric) or (
                _round_marks(low, high, most) if log else drawing.even_marks(low, high)
            )
            if log and axis is axes.xaxis and not ticks:
                # A label at the very end would run into the one before.
                marks = [m for m in marks if m <= low * (high / low) ** _NEAR_END]
            axis.set_major_locator(FixedLocator(marks))
            axis.set_major_formatter(FuncFormatter(lambda v, _, m=metric: _tick(m, v)))
            axis.minorticks_off()
        axes.grid(visible=True, color=RULE, linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
        if self.mark:
            axes.axhline(self.mark, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), zorder=2)
        if plot is self.plots[-1] or not _is_course(plot):
            axes.set_xlabel(self.x_axis, fontsize=SIZE, labelpad=2)
        _keep_inside(axes)
        axes.tick_params(axis="y", labelsize=SMALL_SIZE, length=0)


def _ys(line: Series) -> Iterator[float]:
    yield from (*line.y, *line.highs, *(y for _, y in line.dots))
    for _, low, high in line.intervals:
        yield from (low, high)


def _is_course(plot: Plot) -> bool:
    return any(line.highs for line in plot.lines)


# ---------------------------------------------------------------------------------------- drawing


def _say_key(canvas: Canvas, line: Series, top: float) -> None:
    colour, dash = STYLES[line.style]
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


def _draw_line(axes: Axes, line: Series, aside: float) -> None:
    colour, dash = STYLES[line.style]
    if line.highs:
        _draw_course(axes, line, PALETTE[colour])
        return
    low, high = axes.get_xlim()
    logarithmic = axes.get_xscale() == "log"

    def moved(x: float) -> float:
        if not line.intervals:
            return x
        return x * (high / low) ** aside if logarithmic else x + (high - low) * aside

    axes.plot(
        list(map(moved, line.x)), line.y,
        color=PALETTE[colour], linestyle=dash, linewidth=1.8, zorder=3,
    )  # fmt: skip
    for x, bottom, top in line.intervals:
        axes.errorbar(
            [moved(x)], [(bottom + top) / 2], yerr=(top - bottom) / 2, fmt="none",
            ecolor=PALETTE[colour], elinewidth=1.4, capsize=3, zorder=3,
        )  # fmt: skip
    if line.dots:
        axes.plot(
            [moved(x) for x, _ in line.dots], [y for _, y in line.dots],
            color=PALETTE[colour], linestyle="none", marker="o", markersize=3,
            markerfacecolor=CARD, markeredgewidth=0.9, zorder=4, clip_on=False,
        )  # fmt: skip


def _draw_course(axes: Axes, line: Series, colour: str) -> None:
    # A column in which all echoes took the same time is seen, too.
    columns = [
        (x, low, max(high, low * 1.01))
        for x, low, high in zip(line.x, line.y, line.highs, strict=True)
    ]
    # Rounded to whole pixels, short lines would have no length, and not be drawn.
    drawing.strokes(axes, columns, edgecolor=colour, linewidth=1.6, capstyle="round", snap=False)


def _limit(limit: Any, scale: Any, values: Sequence[float], *, log: bool, from_zero: bool) -> None:
    low, high = min(values), max(values)
    if log:
        scale("log")
        limit(low / 1.25, high * 1.25)
    elif from_zero:
        limit(0, high * 1.05 or 1.0)
    else:
        aside = (high - low) * 0.05
        limit(low - aside, high + aside)


def _apart(axes: Axes, ticks: Sequence[float], metric: str) -> list[float]:
    """The last, and those before it whose labels do not touch the next one's."""
    kept: list[float] = []
    free = math.inf
    for x in reversed(ticks):
        place = float(axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0])
        half = _EM * (len(_tick(metric, x)) + 1) / 2 / PLOT_W
        if place + half <= free:
            kept.append(x)
            free = place - half
    return kept[::-1]


def _round_marks(low: float, high: float, most: int) -> list[float]:
    """1, 10, 100 …, with others between where these are few; no more than `most`."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(marks) < 2:
            return drawing.even_marks(low, high)  # within a decade
        if len(marks) <= most:
            return marks
    return marks[:: -(-len(marks) // most)]


def _tick(metric: str, value: float) -> str:
    if not metric or not value:
        return f"{value:g}"
    size, unit = text.scale(metric, "", value)
    return f"{value / size:.3g} {unit}".rstrip()
