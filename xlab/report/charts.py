"""Two charts, drawn by matplotlib as SVG that a page takes in: throughput ratio, and RTT.

    kernel datapath                          a panel a class of datapath, each with a scale of its
      bridge                                 own: methods are not ranked across classes
      linux bridge                 0.95
      ████████████████████─•─                the method: its median, interval, and every round
      control, host to host        0.98
      ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒─•─               the control, measured in the same rounds

Drawn 312 px wide with text above the bars, so that a phone shows it at full size.  Colours become
the page's variables (page.css), so a chart follows its light or dark scheme; text stays text.

matplotlib is imported where it draws: it costs a quarter of a second.
"""

from __future__ import annotations

import io
import logging
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xlab.record import DatapathClass, Route, RunRecord
from xlab.report import tables, text
from xlab.report.figures import Points, Spread, ratio_points, value_points
from xlab.report.markup import Html
from xlab.report.published import Range, in_words, published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 312
#: By the colour that matplotlib is given: the page's variable that takes its place.
_COLOURS = {
    "#1b1f24": "--ink",
    "#59626d": "--dim",
    "#d5dae0": "--rule",
    "#ffffff": "--card",
    "#0072b2": "--method",
    "#aab3bd": "--control",
    "#6d7781": "--control-edge",
    "#e7bfd5": "--published",
    "#a84f80": "--published-edge",
}
_INK, _DIM, _RULE, _CARD, _METHOD, _CONTROL, _CONTROL_EDGE, _PUBLISHED, _PUBLISHED_EDGE = _COLOURS

#: For charts that stand alone: a colour by the name of its variable, "ink", "method".
PALETTE = {variable.removeprefix("--"): colour for colour, variable in _COLOURS.items()}

_FONT = "DejaVu Sans"
_SIDE = 4
_TITLE_H, _HEADING_H, _LABEL_H, _BAR_H, _NOTE_H, _GAP_H, _AXIS_H = 22, 19, 16, 14, 14, 8, 40
_SIZE, _HEADING_SIZE, _SMALL_SIZE = 10.5, 12, 9.5
#: Beyond so many times the largest bar a sample is counted, not drawn: else no bar could be read.
_FARTHEST = 4.0
#: From this part of the axis on a label in the middle of its mark would leave the chart.
_NEAR_END = 0.95
#: So many columns of text of the usual size fill the chart.
_COLUMNS = 50


@dataclass(frozen=True, slots=True)
class Bar:
    """One route of one record."""

    label: str
    route: Route
    points: Points
    #: What is said in place of a figure where there is none.
    missing: str = "not measured"
    band: Range | None = None


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
    #: A figure and its interval in words.
    say: Callable[[Spread], str]
    #: Where a line is drawn through all bars, and what that is.
    mark: float | None = None

    def in_words(self) -> str:
        """What the chart shows, for whoever does not see it."""
        said = []
        for panel in self.panels:
            groups = [
                f"{group.heading}: "
                + ", ".join(f"{bar.label} {_figure(self, bar)}" for bar in group.bars)
                for group in panel.groups
            ]
            said.append(f"{panel.title}: {'; '.join(groups)}." if groups else "")
        return f"{self.title}. {' '.join(said)}".strip()


def throughput(records: Sequence[RunRecord]) -> Chart | None:
    """TCP throughput of one stream against plain hosts; None where nothing was measured."""

    def bar(record: RunRecord, route: Route) -> Bar:
        context = published(record) if route == "method" else None
        points = ratio_points(record, "tcp_bits_per_second", route)
        return _bar(record, route, points, context.throughput if context else None)

    return _chart(
        records,
        Chart(
            "TCP throughput", "× the throughput of plain hosts, one stream", (), _ratio, mark=1.0
        ),
        bar,
    )


def latency(records: Sequence[RunRecord]) -> Chart | None:
    """Round-trip times of ICMP echo; None where nothing was measured."""

    def bar(record: RunRecord, route: Route) -> Bar:
        return _bar(record, route, value_points(record, "icmp_rtt_ms", route), None)

    return _chart(records, Chart("Round-trip time", "RTT", (), _duration), bar)


def draw(chart: Chart, name: str) -> Html:
    """The chart as an SVG element; `name` is unique in its page, and begins the ids in it."""
    # Without a cache folder of its own matplotlib says so, to somebody who has not heard of it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    heights = [_panel_height(chart, panel) for panel in chart.panels]
    total = sum(heights)
    style: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": [_FONT],
        "font.size": _SIZE,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.color": _INK,
        "axes.labelcolor": _DIM,
        "xtick.color": _DIM,
        "axes.unicode_minus": False,
        "path.simplify": False,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # A glyph that this machine's fonts lack is the reader's browser's to find.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A point of matplotlib is a px of SVG.
        figure = Figure(figsize=(WIDTH / 72, total / 72), facecolor="none")
        FigureCanvasSVG(figure)
        top = 0.0
        for panel, height in zip(chart.panels, heights, strict=True):
            body = height - _AXIS_H
            area = (_SIDE / WIDTH, 1 - (top + body) / total, 1 - 2 * _SIDE / WIDTH, body / total)
            _draw_panel(figure.add_axes(area), chart, panel, body)
            top += height
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return _embedded(written.getvalue(), name, chart.in_words())


_METADATA = ("Creator", "Date", "Format", "Type")


# ------------------------------------------------------------------------------- what is in a chart


def _chart(
    records: Sequence[RunRecord], blank: Chart, bar: Callable[[RunRecord, Route], Bar]
) -> Chart | None:
    panels = []
    named = dict(zip(map(id, records), tables.names(records), strict=True))
    for kind, members in tables.groups(records):
        ran = [record for record in members if record.status != "skipped"]
        bars = [
            Group(named[id(record)], (bar(record, "method"), bar(record, "control")))
            for record in ran
        ]
        if any(each.points.spread for group in bars for each in group.bars):
            panels.append(Panel(_panel_title(kind), tuple(bars)))
    if not panels:
        return None
    return Chart(blank.title, blank.axis, tuple(panels), blank.say, blank.mark)


def _panel_title(kind: DatapathClass) -> str:
    return f"{kind} datapath"


def _bar(record: RunRecord, route: Route, points: Points, band: Range | None) -> Bar:
    label = (
        text.plain(record.environment.datapath) if route == "method" else "control, host to host"
    )
    return Bar(label, route, _drawable(points), _missing(record), band)


def _drawable(points: Points) -> Points:
    """Without what no axis has room for: a record may hold any finite number, and their ratios."""

    def fits(value: float) -> bool:
        return value == 0 or 1e-12 < value < 1e15

    spread = points.spread
    if spread and not all(map(fits, (spread.median, *(spread.ci95 or ())))):
        spread = None
    return Points(
        spread,
        tuple(value for value in points.rounds if fits(value)),
        tuple(value for value in points.samples if fits(value)),
    )


def _missing(record: RunRecord) -> str:
    if record.path and not record.path.proved:
        return "not measured: the path is not proved"
    return "not measured" if not record.measurements else "no figure"


def _figure(chart: Chart, bar: Bar) -> str:
    return chart.say(bar.points.spread) if bar.points.spread else bar.missing


def _ratio(spread: Spread) -> str:
    said = text.ratio(spread)
    return f"{said} ({text.ratio_interval(spread)})" if spread.ci95 else said


def _duration(spread: Spread) -> str:
    said = text.median("x_ms", "", spread)
    return f"{said} ({text.interval('x_ms', '', spread)})" if spread.ci95 else said


# ---------------------------------------------------------------------------------------- drawing


def _bar_height(bar: Bar, right: float) -> int:
    return _LABEL_H + _BAR_H + _GAP_H + (_NOTE_H if _note(bar, right) else 0)


def _panel_height(chart: Chart, panel: Panel) -> int:
    bars = [bar for group in panel.groups for bar in group.bars]
    right = _right_end(chart, bars)
    heights = sum(_bar_height(bar, right) for bar in bars)
    return _TITLE_H + _HEADING_H * len(panel.groups) + heights + _AXIS_H


def _draw_panel(axes: Axes, chart: Chart, panel: Panel, height: float) -> None:
    """Draw downwards; y counts px from the panel's top."""
    bars = [bar for group in panel.groups for bar in group.bars]
    right = _right_end(chart, bars)
    axes.set_xlim(0, right)
    axes.set_ylim(height, 0)
    axes.set_facecolor("none")
    axes.yaxis.set_visible(False)
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    _ticks(axes, chart, right)
    _say(axes, panel.title, y=_TITLE_H - 7, colour=_DIM, weight="bold")
    y = float(_TITLE_H)
    for group in panel.groups:
        _say(axes, group.heading, y=y + 13.5, weight="bold", size=_HEADING_SIZE)
        y += _HEADING_H
        for bar in group.bars:
            _draw_bar(axes, chart, bar, y, right)
            y += _bar_height(bar, right)


def _draw_bar(axes: Axes, chart: Chart, bar: Bar, y: float, right: float) -> None:
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    figure = _figure(chart, bar)
    _say(axes, bar.label, y=y + 11.5, colour=_DIM, room=_COLUMNS - len(figure) - 2)
    _say(axes, figure, y=y + 11.5, at_right=True)
    top = y + _LABEL_H
    # Behind the bars alone, so that no line goes through a figure.
    axes.vlines(axes.get_xticks(), top, top + _BAR_H + 3, color=_RULE, linewidth=1, zorder=0)
    if chart.mark is not None:
        axes.vlines(
            chart.mark, top - 1, top + _BAR_H + 3, color=_INK, linewidth=1.2, linestyle=(0, (3, 2)),
            zorder=2,
        )  # fmt: skip
    middle = top + _BAR_H / 2
    spread = bar.points.spread
    if spread:
        face, edge = (_METHOD, _METHOD) if bar.route == "method" else (_CONTROL, _CONTROL_EDGE)
        axes.add_patch(
            Rectangle(
                (0, top), spread.median, _BAR_H, facecolor=face, edgecolor=edge, linewidth=0.8
            )
        )
    if bar.band:
        low, high = bar.band
        # Over the bar but open, so that it hides nothing.
        axes.add_patch(
            Rectangle(
                (low, top - 2), max(high - low, right / 200), _BAR_H + 4, zorder=0.5,
                facecolor=_PUBLISHED, edgecolor="none",
            )
        )  # fmt: skip
        axes.add_patch(
            Rectangle(
                (low, top - 2), max(high - low, right / 200), _BAR_H + 4, zorder=2.5, fill=False,
                edgecolor=_PUBLISHED_EDGE, linewidth=1, linestyle=(0, (2, 2)),
            )
        )  # fmt: skip
    ticks = _distinct(bar.points.samples, right)
    if ticks:
        vertices = [(x, end) for x in ticks for end in (top + _BAR_H - 3.5, top + _BAR_H + 2.5)]
        path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(ticks))
        axes.add_patch(PathPatch(path, edgecolor=_INK, fill=False, linewidth=0.6, zorder=3))
    if spread and spread.ci95:
        _whiskers(axes, spread.ci95, middle)
    for number, x in enumerate(_distinct(bar.points.rounds, right)):
        axes.plot(
            [x], [middle + (0, -2.5, 2.5)[number % 3] if len(bar.points.rounds) > 1 else middle],
            color=_INK, linestyle="none", marker="o", markersize=4,
            markerfacecolor=_CARD, markeredgecolor=_INK, markeredgewidth=1, zorder=5, clip_on=False,
        )  # fmt: skip
    note = _note(bar, right)
    if note:
        _say(axes, note, y=top + _BAR_H + 12.5, colour=_DIM, size=_SMALL_SIZE)


def _whiskers(axes: Axes, interval: Range, y: float) -> None:
    low, high = interval
    axes.hlines(y, low, high, color=_INK, linewidth=1.6, zorder=4)
    axes.vlines([low, high], y - 3, y + 3, color=_INK, linewidth=1.6, zorder=4)


def _note(bar: Bar, right: float) -> str:
    """What was published, or how many samples are too far out to be drawn."""
    if bar.band:
        return f"published {in_words(bar.band)}"
    beyond = [value for value in bar.points.samples if value > right]
    if not beyond:
        return ""
    farthest = text.value("x_ms", "", max(beyond))
    return f"{text.count(len(beyond), 'sample')} beyond, up to {farthest}"


def _reach(bar: Bar) -> Iterable[float]:
    """What of a bar must be seen whatever else there is."""
    yield from bar.points.rounds
    if bar.points.spread:
        yield bar.points.spread.median
        yield from bar.points.spread.ci95 or ()


def _right_end(chart: Chart, bars: Sequence[Bar]) -> float:
    largest = max((value for bar in bars for value in _reach(bar)), default=0.0)
    samples = [
        value for bar in bars for value in bar.points.samples if value <= largest * _FARTHEST
    ]
    bands = [bar.band[1] for bar in bars if bar.band]
    ends = [largest, *samples, *bands, *([chart.mark] if chart.mark else [])]
    return max(ends) * 1.04 or 1.0


def _ticks(axes: Axes, chart: Chart, right: float) -> None:
    from matplotlib.ticker import MaxNLocator

    marks = [x for x in MaxNLocator(nbins=5).tick_values(0, right) if 0 <= x <= right]
    # All in one unit: that of the largest.
    scale, unit = (1.0, "") if chart.mark is not None else text.scale("x_ms", "", marks[-1])
    axes.set_xticks(marks, [f"{x / scale:g}" for x in marks], fontsize=_SIZE)
    axes.tick_params(length=3, color=_RULE, pad=3)
    axes.set_xlabel(f"{chart.axis}, {unit}" if unit else chart.axis, fontsize=_SIZE, labelpad=2)
    # A label at either end stays inside.
    for mark, label in zip(marks, axes.get_xticklabels(), strict=True):
        if mark == 0 or mark > _NEAR_END * right:
            label.set_horizontalalignment("left" if mark == 0 else "right")


def _distinct(values: Iterable[float], right: float) -> list[float]:
    """Values that an axis of this length shows apart: a quarter of a px each, in order."""
    step = right / WIDTH / 4
    return [key * step for key in sorted({round(v / step) for v in values if v <= right})]


def _say(
    axes: Axes,
    said: str,
    *,
    y: float,
    at_right: bool = False,
    colour: str = _INK,
    size: float = _SIZE,
    weight: str = "normal",
    room: int = _COLUMNS,
) -> None:
    """A line of text, from the left or up to the right edge, with its base line at `y`."""
    axes.text(
        1.0 if at_right else 0.0,
        y,
        text.cut(said, room),
        transform=axes.get_yaxis_transform(),
        horizontalalignment="right" if at_right else "left",
        verticalalignment="baseline",
        color=colour,
        fontsize=size,
        fontweight=weight,
        # A dollar sign begins no formula.
        parse_math=False,
        zorder=6,
    )


# ------------------------------------------------------------------------------- into a page


def _embedded(document: str, name: str, words: str) -> Html:
    """matplotlib's document as an element among others: no ids but those in use, no colours."""
    root = ET.fromstring(document)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = _references(root)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        for key, value in list(attributes.items()):
            if key == "id":
                attributes.pop(key)
                if value in used:
                    attributes[key] = f"{name}-{value}"
            elif key == "href":
                attributes[key] = f"#{name}-{value.removeprefix('#')}"
            elif "url(#" in value:
                attributes[key] = value.replace("url(#", f"url(#{name}-")
            elif key == "style":
                attributes[key] = _themed(value)
        element.attrib = attributes
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "chart",
        "role": "img",
        "aria-label": words,
        # What its style sheet said of every element of the page.
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    return Html(ET.tostring(root, encoding="unicode"))


def _references(root: Any) -> set[str]:
    values = [value for element in root.iter() for value in element.attrib.values()]
    found = {value[1:] for value in values if value.startswith("#")}
    return found | {part.partition(")")[0] for value in values for part in value.split("url(#")[1:]}


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _themed(style: str) -> str:
    """Colours by the page's names for them, fonts as around the chart."""
    kept = [part for part in style.split(";") if not part.strip().startswith("font-family")]
    style = ";".join(kept).replace(f"'{_FONT}', sans-serif", "sans-serif")
    for colour, variable in _COLOURS.items():
        style = style.replace(colour, f"var({variable},{colour})")
    return style.strip()
