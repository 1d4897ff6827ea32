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
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeGuard

from xlab.record import metrics, stats
from xlab.record.comparisons import Ratio
from xlab.record.figures import Points, ratio_points, value_points, values_of
from xlab.record.portrait import Range
from xlab.record.record import Measurement, Route, RunRecord
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
    even_marks,
    strokes,
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

    @property
    def bars(self) -> list[Bar]:
        return [bar for group in self.groups for bar in group.bars]


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
    #: What its bars stand for, where that is not a method and its control.
    signs: tuple[tuple[str, str], ...] = ()

    @property
    def height(self) -> float:
        return sum(_panel_height(self, panel) for panel in self.panels)

    def in_words(self) -> str:
        said = [self.title]
        for panel in self.panels:
            groups = [
                f"{group.heading}: "
                + ", ".join(f"{bar.label} {self.figure(bar)}" for bar in group.bars)
                for group in panel.groups
            ]
            said.append(f"{panel.title}: {'; '.join(groups)}")
        return f"{'. '.join(said)}."

    def key(self) -> list[tuple[str, str]]:
        bars = [bar for panel in self.panels for bar in panel.bars]
        controlled = any(bar.route == "control" for bar in bars)
        spreads = [bar.points.spread for bar in bars if bar.points.spread]
        named = {kind for kind, _ in self.signs}
        signs = (
            *((kind, said, True) for kind, said in self.signs),
            ("method", "no answers" if self.timeline else "method", True),
            ("broken", "the fault is in force", self.timeline),
            ("mended", "mending is done", any(bar.mended is not None for bar in bars)),
            ("control", "control: the same two hosts, without the method", controlled),
            (
                "round",
                "a build" if self.timeline else "a round",
                any(b.points.rounds for b in bars),
            ),
            ("sample", "a sample", any(bar.points.samples for bar in bars)),
            ("interval", "95 % interval", any(spread.ci95 for spread in spreads)),
            ("published", "published by others, as context", any(bar.band for bar in bars)),
        )
        found = [(kind, said) for kind, said, there in signs if there]
        return [each for each in found if each[0] not in named or each in self.signs]

    def figure(self, bar: Bar) -> str:
        """A bar's figure and its interval in words, or why there is none."""
        spread = bar.points.spread
        if spread is None:
            return bar.missing
        said, interval = text.ratio(spread), text.ratio_interval(spread)
        if self.metric:
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
        measured: dict[str, list[Measurement]] = {}
        for m in record.measurements:
            if metrics.is_recovery(m.metric):
                measured.setdefault(m.metric, []).append(m)
        return tuple(_lane(metric, measured[metric]) for metric in measured)

    blank = Chart(
        "Recovery from faults", "time since mending began", (), "recovery_s", timeline=True
    )
    return _chart([each for each in subjects if bars(each[1])], blank, bars)


def _lane(metric: str, measured: Sequence[Measurement]) -> Bar:
    """A fault on the timeline: until when no answers came, and until when it was being mended."""
    told = [m.detail for m in measured]
    went_on = all(detail.get("stopped") is False for detail in told)
    done = [s for detail in told if is_number(s := detail.get("mend_s")) and 0 <= s < 1e6]
    return Bar(
        fault_of(metric) + (": went on" if went_on else ""),
        "method",
        _drawable(values_of(measured, "method")),
        "it was not back",
        mended=stats.median(done),
    )


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
    for title, members in grouped(subjects):
        panel = Panel(title, tuple(Group(name, bars(record)) for name, record in members))
        if any(bar.points.spread for bar in panel.bars):
            panels.append(panel)
    return dataclasses.replace(blank, panels=tuple(panels)) if panels else None


def grouped(subjects: Sequence[Subject]) -> list[tuple[str, list[Subject]]]:
    """By class of datapath, each with its title; without what was skipped."""
    named = {id(record): name for name, record in subjects}
    ran = [record for _, record in subjects if record.status != "skipped"]
    return [
        (kind, [(named[id(record)], record) for record in members])
        for kind, members in tables.groups(ran)
    ]


def _bar(record: RunRecord, route: Route, points: Points, band: Range | None = None) -> Bar:
    datapath = text.plain(record.environment.datapath)
    label = datapath if route == "method" else "control, host to host"
    return Bar(label, route, _drawable(points), _missing(record), band)


def is_number(value: object) -> TypeGuard[int | float]:
    """Of what probes leave in the detail of a measurement, which nobody has checked."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _drawable(points: Points) -> Points:
    """Without what no axis has room for: a record may hold any finite number, and their ratios."""

    def fits(value: float) -> bool:
        return value == 0 or 1e-12 < value < 1e15

    spread = points.spread
    if spread and not all(map(fits, (spread.median, *(spread.ci95 or ())))):
        spread = None
    # Where a round is one sample, that is shown once.
    samples = points.samples if len(points.samples) > len(points.rounds) else ()
    return Points(spread, tuple(filter(fits, points.rounds)), tuple(filter(fits, samples)))


def points_of(ratio: Ratio | None) -> Points:
    """What a chart shows of a ratio that has been summed up."""
    return _drawable(Points(ratio, ()))


def _missing(record: RunRecord) -> str:
    if record.path and not record.path.proved:
        return "not measured: the path is not proved"
    return "not measured" if not record.measurements else "no figure"


# ---------------------------------------------------------------------------------------- drawing


def _bar_height(chart: Chart, bar: Bar, right: float) -> int:
    return _LABEL_H + _BAR_H + _GAP_H + (_NOTE_H if _note(chart, bar, right) else 0)


def _panel_height(chart: Chart, panel: Panel) -> int:
    right = _right_end(chart, panel)
    heights = sum(_bar_height(chart, bar, right) for bar in panel.bars)
    return _TITLE_H + _HEADING_H * len(panel.groups) + heights + _AXIS_H


def _draw_panel(canvas: Canvas, chart: Chart, panel: Panel, top: float) -> None:
    """Draw downwards; y counts px from the panel's top."""
    right = _right_end(chart, panel)
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
    from matplotlib.patches import Rectangle

    figure = chart.figure(bar)
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
        ends = top + _BAR_H - 3.5, top + _BAR_H + 2.5
        strokes(axes, [(x, *ends) for x in ticks], edgecolor=INK, linewidth=0.6)
    if spread and spread.ci95:
        low, high = (min(end, right) for end in spread.ci95)
        axes.hlines(middle, low, high, color=INK, linewidth=1.6, zorder=4)
        # An end beyond the chart has no bar.
        inside = [end for end in spread.ci95 if end <= right]
        axes.vlines(inside, middle - 3, middle + 3, color=INK, linewidth=1.6, zorder=4)
    for number, x in enumerate(_distinct(bar.points.rounds, right)):
        axes.plot(
            [x], [middle + (0, -2.5, 2.5)[number % 3] if len(bar.points.rounds) > 1 else middle],
            color=INK, linestyle="none", marker="o", markersize=4,
            markerfacecolor=CARD, markeredgecolor=INK, markeredgewidth=1, zorder=5, clip_on=False,
        )  # fmt: skip
    note = _note(chart, bar, right)
    if note:
        canvas.say(note, y=top + _BAR_H + 12.5, colour=DIM, size=SMALL_SIZE)


def _note(chart: Chart, bar: Bar, right: float) -> str:
    """What was published, or how many samples are too far out to be drawn."""
    if bar.band:
        return f"published {in_words(bar.band)}"
    beyond = [value for value in bar.points.samples if value > right]
    if not beyond:
        return ""
    farthest = text.value(chart.metric, "", max(beyond))
    return f"{text.count(len(beyond), 'sample')} beyond, up to {farthest}"


def _right_end(chart: Chart, panel: Panel) -> float:
    """Of the axis: rounds, medians and mending must be seen whatever else there is."""
    points = [bar.points for bar in panel.bars]
    spreads = [each.spread for each in points if each.spread]
    mended = [bar.mended for bar in panel.bars if bar.mended is not None]
    rounds = chain.from_iterable(each.rounds for each in points)
    largest = max(chain(rounds, (spread.median for spread in spreads), mended), default=0.0)
    further = chain(*(each.samples for each in points), *(each.ci95 or () for each in spreads))
    seen = [value for value in further if value <= largest * _FARTHEST]
    bands = [bar.band[1] for bar in panel.bars if bar.band]
    return max(largest, *seen, *bands, chart.mark or 0.0) * 1.04 or 1.0


def _ticks(axes: Axes, chart: Chart, right: float) -> None:
    marks = even_marks(0, right)
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
