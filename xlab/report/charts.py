"""Charts of bars: ratios to plain hosts, round-trip times, the cost in CPU time, recovery.

    kernel datapath                          a panel a class of datapath, each with a scale of its
      bridge                                 own: methods are not ranked across classes
      linux bridge                 0.95
      ████████████████████─•─                the method: its median, interval, and every round
      control, host to host        0.98
      ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒─•─               the control, measured in the same rounds

Text stands above the bars, so that all of the width is theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from xlab.record import metrics, stats
from xlab.record.figures import Points, ratio_points, value_points
from xlab.record.portrait import Range
from xlab.record.record import DatapathClass, Measurement, Route, RunRecord
from xlab.record.stats import Spread
from xlab.report import tables, text
from xlab.report.drawing import (
    CARD,
    COLUMNS,
    DIM,
    HEADING_SIZE,
    INK,
    PALETTE,
    RULE,
    SIZE,
    SMALL_SIZE,
    WIDTH,
    Canvas,
)
from xlab.report.portraits import in_words, published
from xlab.report.recoveries import fault_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A record and what it is called in the report.
Subject = tuple[str, RunRecord]

_TITLE_H, _HEADING_H, _LABEL_H, _BAR_H, _NOTE_H, _GAP_H, _AXIS_H = 22, 19, 16, 14, 14, 8, 40
#: Beyond so many times the largest bar and round a sample is counted, not drawn, and an interval
#: leaves the chart: else no bar could be read.
_FARTHEST = 4.0
#: What is drawn of the time before the axis begins, as a part of it.
_BEFORE = 0.04
#: From this part of the axis on a label in the middle of its mark would leave the chart.
_NEAR_END = 0.95


@dataclass(frozen=True, slots=True)
class Bar:
    """One route of one record."""

    label: str
    route: Route
    points: Points
    #: What is said in place of a figure where there is none.
    missing: str = "not measured"
    band: Range | None = None
    #: When mending was done, of a recovery.
    mended: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A record's bars: the method and its control."""

    heading: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows, before it is drawn."""

    title: str
    #: What its axis counts.
    axis: str
    panels: tuple[Panel, ...]
    #: Of what: gives figures their unit; "" for ratios.
    metric: str
    #: Where a line is drawn through all bars.
    mark: float | None = None
    #: Whether bars stand for time, and something came before it.
    timeline: bool = False

    @property
    def height(self) -> float:
        return sum(_panel_height(self, panel) for panel in self.panels)

    def in_words(self) -> str:
        said = []
        for panel in self.panels:
            groups = [
                f"{group.heading}: "
                + ", ".join(f"{bar.label} {_figure(self, bar)}" for bar in group.bars)
                for group in panel.groups
            ]
            said.append(f"{panel.title}: {'; '.join(groups)}." if groups else "")
        return f"{self.title}. {' '.join(said)}".strip()

    def key(self) -> list[tuple[str, str]]:
        bars = [bar for panel in self.panels for group in panel.groups for bar in group.bars]
        entries = [("method", "no answers" if self.timeline else "method")]
        if self.timeline:
            entries.append(("broken", "the fault is in force"))
        if any(bar.mended is not None for bar in bars):
            entries.append(("mended", "mending is done"))
        if any(bar.route == "control" for bar in bars):
            entries.append(("control", "control: the same two hosts, without the method"))
        entries.append(("round", "a build" if self.timeline else "a round"))
        if any(bar.points.samples for bar in bars):
            entries.append(("sample", "a sample"))
        if any(bar.points.spread and bar.points.spread.ci95 for bar in bars):
            entries.append(("interval", "95 % interval"))
        if any(bar.band for bar in bars):
            entries.append(("published", "published by others, as context"))
        return entries

    def say(self, spread: Spread) -> str:
        """A figure and its interval in words."""
        if not self.metric:
            said, interval = text.ratio(spread), text.ratio_interval(spread)
        else:
            said = text.median(self.metric, "", spread)
            interval = text.interval(self.metric, "", spread)
        return f"{said} ({interval})" if spread.ci95 else said

    def draw(self, canvas: Canvas) -> None:
        top = 0.0
        for panel in self.panels:
            _draw_panel(canvas, self, panel, top)
            top += _panel_height(self, panel)


def ratios(subjects: Sequence[Subject], metric: str, shown: metrics.ChartOfOne) -> Chart | None:
    """A metric, of one stream, against plain hosts; None where nothing was measured."""

    def bars(record: RunRecord) -> tuple[Bar, ...]:
        context = published(record)
        bands = (
            {"tcp_bits_per_second": context.throughput, "icmp_rtt_ms": context.latency}
            if context
            else {}
        )
        return (
            _bar(record, "method", ratio_points(record, metric, "method"), bands.get(metric)),
            _bar(record, "control", ratio_points(record, metric, "control")),
        )

    blank = Chart(shown.title, shown.axis, (), "", mark=1.0)
    return _chart([each for each in subjects if not _is_yardstick(each[1])], blank, bars)


def values(subjects: Sequence[Subject], metric: str, shown: metrics.ChartOfOne) -> Chart | None:
    """A metric as it is; None where nothing was measured."""

    def bars(record: RunRecord) -> tuple[Bar, ...]:
        routes: tuple[Route, ...] = ("method",) if _is_yardstick(record) else ("method", "control")
        return tuple(_bar(record, route, value_points(record, metric, route)) for route in routes)

    return _chart(subjects, Chart(shown.title, shown.axis, (), metric), bars)


def recovery(subjects: Sequence[Subject]) -> Chart | None:
    """How long the flow was gone after each fault, from when mending began; None without any."""

    def bars(record: RunRecord) -> tuple[Bar, ...]:
        found = [m for m in record.measurements if metrics.is_recovery(m.metric)]
        return tuple(
            _lane(record, metric, [m for m in found if m.metric == metric])
            for metric in dict.fromkeys(m.metric for m in found)
        )

    blank = Chart(
        "Recovery from faults", "time since mending began", (), "recovery_s", timeline=True
    )
    return _chart([each for each in subjects if bars(each[1])], blank, bars)


def _lane(record: RunRecord, metric: str, measured: Sequence[Measurement]) -> Bar:
    """A fault on the timeline: until when no answers came, and until when it was being mended."""
    points = value_points(record, metric, "method")
    bar = _bar(record, "method", points, label=_fault(metric, measured))
    done = [s for m in measured if _is_duration(s := m.detail.get("mend_s"))]
    return dataclasses.replace(bar, mended=stats.median(done), missing="it was not back")


def _is_duration(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6


def _fault(metric: str, measured: Sequence[Measurement]) -> str:
    name = fault_of(metric)
    if measured and all(m.detail.get("stopped") is False for m in measured):
        return f"{name}: went on"
    return name


# ------------------------------------------------------------------------------- what is in a chart


def _is_yardstick(record: RunRecord) -> bool:
    """The baseline of a comparison, which is its own control; that of a run has one."""
    return (
        record.scenario == "baseline"
        and bool(record.measurements)
        and all(m.route != "control" for m in record.measurements)
    )


def _chart(
    subjects: Sequence[Subject], blank: Chart, bars: Callable[[RunRecord], tuple[Bar, ...]]
) -> Chart | None:
    panels = []
    for kind, members in grouped(subjects):
        groups = tuple(Group(name, bars(record)) for name, record in members)
        if any(bar.points.spread for group in groups for bar in group.bars):
            panels.append(Panel(panel_title(kind), groups))
    return dataclasses.replace(blank, panels=tuple(panels)) if panels else None


def grouped(subjects: Sequence[Subject]) -> list[tuple[DatapathClass, list[Subject]]]:
    """By class of datapath, without what was skipped."""
    ran = [each for each in subjects if each[1].status != "skipped"]
    named = {id(record): name for name, record in ran}
    return [
        (kind, [(named[id(record)], record) for record in members])
        for kind, members in tables.groups([record for _, record in ran])
    ]


def panel_title(kind: DatapathClass) -> str:
    return f"{kind} datapath"


def _bar(
    record: RunRecord, route: Route, points: Points, band: Range | None = None, label: str = ""
) -> Bar:
    usual = (
        text.plain(record.environment.datapath) if route == "method" else "control, host to host"
    )
    return Bar(label or usual, route, _drawable(points), _missing(record), band)


def _drawable(points: Points) -> Points:
    """Without what no axis has room for: a record may hold any finite number, and their ratios."""

    def fits(value: float) -> bool:
        return value == 0 or 1e-12 < value < 1e15

    spread = points.spread
    if spread and not all(map(fits, (spread.median, *(spread.ci95 or ())))):
        spread = None
    # Where a round is one sample, that is shown once.
    samples = points.samples if len(points.samples) > len(points.rounds) else ()
    return Points(
        spread,
        tuple(value for value in points.rounds if fits(value)),
        tuple(value for value in samples if fits(value)),
    )


def _missing(record: RunRecord) -> str:
    if record.path and not record.path.proved:
        return "not measured: the path is not proved"
    return "not measured" if not record.measurements else "no figure"


def _figure(chart: Chart, bar: Bar) -> str:
    return chart.say(bar.points.spread) if bar.points.spread else bar.missing


# ---------------------------------------------------------------------------------------- drawing


def _bar_height(chart: Chart, bar: Bar, right: float) -> int:
    return _LABEL_H + _BAR_H + _GAP_H + (_NOTE_H if _note(chart, bar, right) else 0)


def _panel_height(chart: Chart, panel: Panel) -> int:
    bars = [bar for group in panel.groups for bar in group.bars]
    right = _right_end(chart, bars)
    heights = sum(_bar_height(chart, bar, right) for bar in bars)
    return _TITLE_H + _HEADING_H * len(panel.groups) + heights + _AXIS_H


def _draw_panel(canvas: Canvas, chart: Chart, panel: Panel, top: float) -> None:
    """Draw downwards; y counts px from the panel's top."""
    bars = [bar for group in panel.groups for bar in group.bars]
    right = _right_end(chart, bars)
    body = _panel_height(chart, panel) - _AXIS_H
    axes = canvas.axes(top, body)
    axes.set_xlim(-_BEFORE * right if chart.timeline else 0, right)
    axes.set_ylim(top + body, top)
    axes.yaxis.set_visible(False)
    _ticks(axes, chart, right)
    canvas.say(panel.title, y=top + _TITLE_H - 7, colour=DIM, weight="bold")
    y = top + _TITLE_H
    for group in panel.groups:
        canvas.say(group.heading, y=y + 13.5, weight="bold", size=HEADING_SIZE)
        y += _HEADING_H
        for bar in group.bars:
            _draw_bar(canvas, axes, chart, bar, y, right)
            y += _bar_height(chart, bar, right)


def _draw_bar(canvas: Canvas, axes: Axes, chart: Chart, bar: Bar, y: float, right: float) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    figure = _figure(chart, bar)
    canvas.say(bar.label, y=y + 11.5, colour=DIM, room=COLUMNS - len(figure) - 2)
    canvas.say(figure, y=y + 11.5, at_right=True)
    top = y + _LABEL_H
    # Behind the bars alone, so that no line goes through a figure.
    axes.vlines(axes.get_xticks(), top, top + _BAR_H + 3, color=RULE, linewidth=1, zorder=0)
    if chart.mark is not None:
        axes.vlines(
            chart.mark, top - 1, top + _BAR_H + 3, color=INK, linewidth=1.2, linestyle=(0, (3, 2)),
            zorder=2,
        )  # fmt: skip

    def block(left: float, width: float, *, over: float = 0, **style: Any) -> None:
        axes.add_patch(Rectangle((left, top - over), width, _BAR_H + 2 * over, **style))

    middle = top + _BAR_H / 2
    spread = bar.points.spread
    if spread:
        face, edge = ("method", "method") if bar.route == "method" else ("control", "control-edge")
        block(0, spread.median, facecolor=PALETTE[face], edgecolor=PALETTE[edge], linewidth=0.8)
    if chart.timeline:
        block(-_BEFORE * right, _BEFORE * right, facecolor=PALETTE["line-2"], edgecolor="none")
    if bar.mended is not None and bar.mended <= right:
        axes.vlines(
            bar.mended, top - 2, top + _BAR_H + 2, color=PALETTE["line-3"], linewidth=2.4, zorder=4
        )
    if bar.band:
        low, width = bar.band[0], max(bar.band[1] - bar.band[0], right / 200)
        block(low, width, over=2, zorder=0.5, facecolor=PALETTE["published"], edgecolor="none")
        # Over the bar but open, so that it hides nothing.
        block(
            low, width, over=2, zorder=2.5, fill=False, edgecolor=PALETTE["published-edge"],
            linewidth=1, linestyle=(0, (2, 2)),
        )  # fmt: skip
    ticks = _distinct(bar.points.samples, right)
    if ticks:
        vertices = [(x, end) for x in ticks for end in (top + _BAR_H - 3.5, top + _BAR_H + 2.5)]
        path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(ticks))
        axes.add_patch(PathPatch(path, edgecolor=INK, fill=False, linewidth=0.6, zorder=3))
    if spread and spread.ci95:
        _whiskers(axes, spread.ci95, middle, right)
    for number, x in enumerate(_distinct(bar.points.rounds, right)):
        axes.plot(
            [x], [middle + (0, -2.5, 2.5)[number % 3] if len(bar.points.rounds) > 1 else middle],
            color=INK, linestyle="none", marker="o", markersize=4,
            markerfacecolor=CARD, markeredgecolor=INK, markeredgewidth=1, zorder=5, clip_on=False,
        )  # fmt: skip
    note = _note(chart, bar, right)
    if note:
        canvas.say(note, y=top + _BAR_H + 12.5, colour=DIM, size=SMALL_SIZE)


def _whiskers(axes: Axes, interval: Range, y: float, right: float) -> None:
    """The interval; an end beyond the chart has no bar."""
    low, high = interval
    axes.hlines(y, min(low, right), min(high, right), color=INK, linewidth=1.6, zorder=4)
    ends = [end for end in interval if end <= right]
    axes.vlines(ends, y - 3, y + 3, color=INK, linewidth=1.6, zorder=4)


def _note(chart: Chart, bar: Bar, right: float) -> str:
    """What was published, or how many samples are too far out to be drawn."""
    if bar.band:
        return f"published {in_words(bar.band)}"
    beyond = [value for value in bar.points.samples if value > right]
    if not beyond:
        return ""
    farthest = text.value(chart.metric, "", max(beyond))
    return f"{text.count(len(beyond), 'sample')} beyond, up to {farthest}"


def _reach(bar: Bar) -> Iterable[float]:
    """What of a bar must be seen whatever else there is."""
    yield from bar.points.rounds
    if bar.points.spread:
        yield bar.points.spread.median
    if bar.mended is not None:
        yield bar.mended


def _right_end(chart: Chart, bars: Sequence[Bar]) -> float:
    largest = max((value for bar in bars for value in _reach(bar)), default=0.0)
    intervals = [bar.points.spread.ci95 or () for bar in bars if bar.points.spread]
    further = [*(bar.points.samples for bar in bars), *intervals]
    samples = [value for values in further for value in values if value <= largest * _FARTHEST]
    bands = [bar.band[1] for bar in bars if bar.band]
    ends = [largest, *samples, *bands, *([chart.mark] if chart.mark else [])]
    return max(ends) * 1.04 or 1.0


def _ticks(axes: Axes, chart: Chart, right: float) -> None:
    from matplotlib.ticker import MaxNLocator

    marks = [x for x in MaxNLocator(nbins=5).tick_values(0, right) if 0 <= x <= right]
    # All in one unit: that of the largest.
    scale, unit = text.scale(chart.metric, "", marks[-1]) if chart.metric else (1.0, "")
    axes.set_xticks(marks, [f"{x / scale:g}" for x in marks], fontsize=SIZE)
    axes.set_xlabel(f"{chart.axis}, {unit}" if unit else chart.axis, fontsize=SIZE, labelpad=2)
    # A label at either end stays inside.
    for mark, label in zip(marks, axes.get_xticklabels(), strict=True):
        if mark == 0 or mark > _NEAR_END * right:
            label.set_horizontalalignment("left" if mark == 0 else "right")


def _distinct(values: Iterable[float], right: float) -> list[float]:
    """Values that an axis of this length shows apart: a quarter of a px each, in order."""
    step = right / WIDTH / 4
    return [key * step for key in sorted({round(v / step) for v in values if v <= right})]
