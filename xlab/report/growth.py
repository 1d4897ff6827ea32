"""How a scenario grows with its hosts, from the record of `xlab scale`: table, words, chart.

build                 hosts^1.03 (0.99–1.07)     a panel a metric, both axes logarithmic: a power
10 s ┤                    ·  ·                   law is a straight line
     │              ○ ─ ·                        ○ every build   ── the law fitted to them
 1 s ┤      ○ ─ ○    ┊ extrapolated,             ·· the same beyond the last size
     └──2───4───8────┊ not measured
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xlab.experiments.scale import BEARABLE_S, METRICS, Metric, Sample, ScaleRecord
from xlab.lab.limits import HOSTS
from xlab.record.power_law import PowerLaw
from xlab.report import text
from xlab.report.drawing import PALETTE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Up to so many times the largest size a law is drawn on.
BEYOND = 4
#: An exponent whose whole interval is below this is as good as linear.
LINEAR = 1.15
#: What a law says of labs larger than this is said nowhere.
FARTHEST = 1e5

_TIME = ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))
_SIZE = ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"))


def amount(unit: str, number: float) -> str:
    """A figure of a metric in the unit that suits it: "1.25 s", "17.3 MB", "1,280 packets"."""
    if unit == "s":
        return _scaled(number, _TIME)
    if unit.startswith("B"):
        return _scaled(number, _SIZE) + unit[1:]
    shown = f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"
    return f"{shown} {unit}".rstrip()


def _scaled(number: float, units: Sequence[tuple[float, str]]) -> str:
    size, name = next((u for u in reversed(units) if abs(number) >= u[0]), units[0])
    return f"{text.digits(number / size)} {name}"


# -- table -----------------------------------------------------------------------------------------

#: Heading, and what a sample has of it: a figure of the lab, or what each host has a part in.
_COLUMNS: tuple[tuple[str, str, Callable[[Sample], float], str], ...] = (
    ("build", "", lambda s: s.build_s, "s"),
    ("build", "a host", lambda s: s.build_s / s.hosts, "s"),
    ("down", "", lambda s: s.teardown_s, "s"),
    ("freed", "a host", lambda s: s.freed_s / s.hosts, "s"),
    ("memory", "a host", lambda s: s.memory_bytes / s.hosts, "B"),
    ("processes", "a host", lambda s: s.processes / s.hosts, ""),
    ("tunnels", "a host", lambda s: s.tunnels / s.hosts, ""),
    ("control", "a host", lambda s: s.build_packets / s.hosts, "pkt"),
    ("control", "a host", lambda s: s.build_bytes / s.hosts, "B"),
    ("at rest", "a host", lambda s: s.rest_bytes_per_second / s.hosts, "B/s"),
)


def table(record: ScaleRecord) -> str:
    """A line a size: the median of its builds."""
    rows = [
        ["", *(heading for heading, *_ in _COLUMNS)],
        ["hosts", *(below for _, below, *_ in _COLUMNS)],
    ]
    for hosts in sorted({sample.hosts for sample in record.samples}):
        of_size = [sample for sample in record.samples if sample.hosts == hosts]
        cells = [
            amount(unit, statistics.median(map(figure, of_size))) for *_, figure, unit in _COLUMNS
        ]
        rows.append([f"{hosts:,}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


# -- words -----------------------------------------------------------------------------------------


def words(record: ScaleRecord) -> list[str]:
    """What the figures say, a sentence or two each: how each cost grows, and what ends it."""
    laws = record.laws()
    said = [_growth(record, metric, laws[metric.name]) for metric in METRICS if metric.name in laws]
    nothing = [m.label for m in METRICS if all(m.of(s) == 0 for s in record.samples)]
    if nothing and record.samples:
        said.append(f"None at any size: {', '.join(dict.fromkeys(nothing))}.")
    limits = what_limits(record)
    if limits:
        said.append(f"Extrapolated, not measured: {limits}")
    silent = [s for s in record.samples if not s.whole]
    said += [
        f"NOT whole: with {s.hosts:,} hosts {s.answered} of {s.pairs} pairs answered."
        for s in silent
    ]
    said += [f"NOT built: {f.hosts:,} hosts: {text.plain(f.reason)}" for f in record.failures]
    return said


def _growth(record: ScaleRecord, metric: Metric, law: PowerLaw) -> str:
    unit = f" ({metric.unit})" if metric.label.startswith("control plane") else ""
    said = f"{metric.label}{unit}: {power(law)}, {_verdict(law)}."
    missing = len(record.samples) - law.points
    if missing:
        builds = text.count(missing, "build")
        said += f" {builds} left out: something else freed more than the lab took."
    return said


def power(law: PowerLaw) -> str:
    """ "hosts^1.03 (0.99–1.07)": the exponent and its 95 % interval."""
    interval = f" ({law.ci95[0]:.2f}–{law.ci95[1]:.2f})" if law.ci95 else ""
    return f"hosts^{law.exponent:.2f}{interval}"


def _verdict(law: PowerLaw) -> str:
    low, high = law.ci95 or (law.exponent, law.exponent)
    if high < LINEAR:
        return "no faster than the hosts"
    if low > LINEAR:
        return "faster than the hosts"
    return f"too uncertain to say whether it stays below hosts^{LINEAR:g}"


def what_limits(record: ScaleRecord) -> str:
    """Where memory, descriptors, patience and addresses end, the nearest first; "" if unknown."""
    laws, capacity = record.laws(), record.capacity
    plan = "xlab's own limit" if capacity.hosts == HOSTS[1] else "the plan of addresses"
    ends = [(float(capacity.hosts), f"{plan}, {capacity.hosts:,} hosts")]
    for name, most, said in (
        ("memory_bytes", capacity.memory_bytes, "this machine's memory"),
        ("descriptors", capacity.descriptors, "the controller's descriptors"),
        ("build_s", BEARABLE_S, "patience with a build"),
    ):
        at = laws[name].size_at(most) if name in laws else None
        if at is not None and at < FARTHEST:
            shown = f"{float(f'{at:.2g}'):,.0f}"
            ends.append((at, f"{said} ({_round(amount(_unit(name), most))}) at about {shown}"))
    if len(ends) == 1:
        return ""
    ends.sort()
    return f"what ends it first is {ends[0][1]}; then {', '.join(said for _, said in ends[1:])}."


def _unit(name: str) -> str:
    return next(metric.unit for metric in METRICS if metric.name == name)


# -- chart -----------------------------------------------------------------------------------------

_PANEL_WIDTH, _PANEL_HEIGHT, _MOST_COLUMNS = 330, 210, 2
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEADING = 62, 14, 42, 40, 46
_SHOWN = (
    "build_s", "freed_s", "memory_bytes", "processes", "tunnels", "build_bytes",
    "rest_bytes_per_second",
)  # fmt: skip


def draw(record: ScaleRecord) -> tuple[str, bytes] | None:
    """The chart as an SVG document and as a PNG; None without two sizes to draw a line through."""
    laws = record.laws()
    shown = [m for m in METRICS if m.name in _SHOWN and m.name in laws]
    if not shown:
        return None
    columns = min(_MOST_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = columns * _PANEL_WIDTH, rows * _PANEL_HEIGHT + _HEADING
    style: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": record.scenario,
        "axes.unicode_minus": False,
    }
    with styled(style):
        from matplotlib.figure import Figure

        # A point of matplotlib is a px of SVG.
        figure = Figure(figsize=(width / 72, height / 72), facecolor=PALETTE["card"])
        _head(figure, record, width, height)
        for number, metric in enumerate(shown):
            row, column = divmod(number, columns)
            left = column * _PANEL_WIDTH + _LEFT
            bottom = (rows - 1 - row) * _PANEL_HEIGHT + _BOTTOM
            area = (
                left / width,
                bottom / height,
                (_PANEL_WIDTH - _LEFT - _RIGHT) / width,
                (_PANEL_HEIGHT - _TOP - _BOTTOM) / height,
            )
            _panel(figure.add_axes(area), record, metric, laws[metric.name])
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": _title(record)})
        figure.savefig(png, format="png", dpi=144, metadata={"Title": _title(record)})
    return svg.getvalue(), png.getvalue()


def _title(record: ScaleRecord) -> str:
    return f"{text.plain(record.scenario)}: cost against hosts"


def _head(figure: Figure, record: ScaleRecord, width: int, height: int) -> None:
    asked, machine = record.parameters, record.environment
    settings = "".join(f", {name}={value}" for name, value in asked["settings"].items())
    conditions = (
        f"{text.count(asked['containers'], 'container')} each{settings}; {machine.datapath}; "
        f"{text.count(machine.cores, 'core')}, Linux {machine.kernel}"
    )
    for said, y, how in (
        (_title(record), 18, {"color": PALETTE["ink"], "weight": "bold", "size": 12}),
        (conditions, 33, {"color": PALETTE["dim"]}),
    ):
        room = width // 6
        figure.text(12 / width, 1 - y / height, text.cut(said, room), parse_math=False, **how)


def _panel(axes: Axes, record: ScaleRecord, metric: Metric, law: PowerLaw) -> None:
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogLocator,
        NullFormatter,
        NullLocator,
    )

    sizes = sorted({sample.hosts for sample in record.samples})
    smallest, largest = sizes[0], sizes[-1]
    end = max(largest * 1.5, min(largest * BEYOND, record.capacity.hosts))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PALETTE["rule"])
    axes.axvspan(largest, end, color=PALETTE["rule"], alpha=0.35, linewidth=0, zorder=0)
    line: dict[str, Any] = {"color": PALETTE["method"], "linewidth": 1.6, "zorder": 2}
    axes.plot([smallest, largest], [law.at(smallest), law.at(largest)], **line)
    axes.plot([largest, end], [law.at(largest), law.at(end)], linestyle=(0, (4, 3)), **line)
    axes.plot(
        [sample.hosts for sample in record.samples],
        [metric.of(sample) for sample in record.samples],
        color=PALETTE["ink"], linestyle="none", marker="o", markersize=4.5, zorder=3,
        markerfacecolor=PALETTE["card"], markeredgecolor=PALETTE["ink"], markeredgewidth=1,
    )  # fmt: skip
    axes.set_xlim(smallest / 1.15, end)
    low, high = axes.get_ylim()
    # A decade at the least, so that noise does not look like growth.
    low, high = (low, high) if high >= 10 * low else (low / 2, low * 10)
    axes.set_ylim(low, high)

    axes.xaxis.set_major_locator(FixedLocator(_apart([*sizes, end])))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    steps = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _round(amount(metric.unit, y))))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", color=PALETTE["rule"], labelcolor=PALETTE["dim"], length=3)
    axes.set_xlabel("hosts", color=PALETTE["dim"], labelpad=1)

    def say(x: float, y: float, said: str, **how: Any) -> None:
        axes.text(x, y, said, transform=axes.transAxes, parse_math=False, zorder=4, **how)

    say(0, 1.17, metric.label, color=PALETTE["ink"], weight="bold", size=10.5)
    say(0, 1.05, f"{power(law)}, {law.points} builds", color=PALETTE["dim"])
    axes.text(
        (largest * end) ** 0.5, 0.04, "extrapolated,\nnot measured",
        transform=axes.get_xaxis_transform(), color=PALETTE["dim"], size=8.5,
        horizontalalignment="center", verticalalignment="bottom", zorder=4,
    )  # fmt: skip


def _round(said: str) -> str:
    """ "10 MB" for "10.0 MB"."""
    number, space, unit = said.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _apart(sizes: Sequence[float]) -> list[float]:
    """The last, and those before it whose labels do not touch the next one's."""
    kept: list[float] = []
    nearest = (sizes[-1] / sizes[0]) ** 0.12
    for size in reversed(sizes):
        if not kept or kept[-1] / size >= nearest:
            kept.append(size)
    return kept[::-1]
