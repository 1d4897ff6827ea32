"""How a scenario grows with its hosts, from the record of `xlab scale`: table, words, chart.

build                                a plot a metric, both axes logarithmic: a power law is straight
── hosts^1.03 (0.99–1.07)  12 builds
╌╌ extrapolated, not measured
10 s ┤                   ╌ ╌         ○ every build   ── the law fitted to them
     │             ○ ─ ╌             ╌╌ the same beyond the last size
 1 s ┤     ○ ─ ○
     └──2───4───8───────32──
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

from xlab.experiments.scale import BEARABLE_S, METRICS, Metric, Sample, ScaleRecord
from xlab.lab.limits import HOSTS
from xlab.record.power_law import PowerLaw
from xlab.report import text
from xlab.report.line_chart import LineChart, Plot, Series
from xlab.report.tables import Column, Table

#: Up to so many times the largest size a law is drawn on.
BEYOND = 4
#: An exponent whose whole interval is below this is as good as linear.
LINEAR = 1.15
#: What a law says of labs larger than this is said nowhere.
FARTHEST = 1e5

#: By unit: a metric that is shown in it.
_METRICS = {"s": "x_s", "B": "x_bytes_per_host", "B/s": "x_bytes_per_second"}


def amount(unit: str, number: float) -> str:
    """A figure of a metric in the unit that suits it: "1.25 s", "17.3 MB", "1,280 packets"."""
    if unit in _METRICS:
        return text.value(_METRICS[unit], "", number)
    shown = f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"
    return f"{shown} {unit}".rstrip()


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
        *_rows(record),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def narrow_table(record: ScaleRecord) -> Table:
    """The same, to be told in words where the width does not suffice for it."""
    titles = (f"{heading} {below}".rstrip() for heading, below, *_ in _COLUMNS)
    columns = (Column("hosts", right=True), *(Column(title, right=True) for title in titles))
    return Table(columns, tuple(map(tuple, _rows(record))))


def _rows(record: ScaleRecord) -> Iterator[list[str]]:
    for hosts in sorted({sample.hosts for sample in record.samples}):
        of_size = [sample for sample in record.samples if sample.hosts == hosts]
        cells = [
            amount(unit, statistics.median(map(figure, of_size))) for *_, figure, unit in _COLUMNS
        ]
        yield [f"{hosts:,}", *cells]


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
    said += [
        f"NOT whole: with {s.hosts:,} hosts {s.answered} of {s.pairs} pairs answered."
        for s in record.samples
        if not s.whole
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


def _round(said: str) -> str:
    """ "10 MB" for "10.0 MB"."""
    number, space, unit = said.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


# -- chart -----------------------------------------------------------------------------------------

_SHOWN = (
    "build_s", "freed_s", "memory_bytes", "processes", "tunnels", "build_bytes",
    "rest_bytes_per_second",
)  # fmt: skip


def chart(record: ScaleRecord) -> LineChart | None:
    """A plot a metric; None without two sizes to draw a line through."""
    laws = record.laws()
    shown = [m for m in METRICS if m.name in _SHOWN and m.name in laws]
    if not shown:
        return None
    sizes = sorted({sample.hosts for sample in record.samples})
    end = max(sizes[-1] * 1.5, min(sizes[-1] * BEYOND, record.capacity.hosts))
    asked, machine = record.parameters, record.environment
    settings = "".join(f", {name}={value}" for name, value in asked["settings"].items())
    return LineChart(
        f"{text.plain(record.scenario)}: cost against hosts",
        "hosts",
        tuple(
            _plot(record, metric, laws[metric.name], (sizes[0], sizes[-1], end)) for metric in shown
        ),
        x_metric="",
        y_metric="",
        x_log=True,
        y_log=True,
        x_ticks=(*sizes, end),
        note=text.plain(
            f"{text.count(asked['containers'], 'container')} each{settings}; {machine.datapath}; "
            f"{text.count(machine.cores, 'core')}, Linux {machine.kernel}"
        ),
        dot="a build",
    )


def _plot(
    record: ScaleRecord, metric: Metric, law: PowerLaw, sizes: tuple[float, float, float]
) -> Plot:
    """The law through what was measured, and how it would go on, up to the last of `sizes`."""
    first, last, end = sizes
    dots = tuple((float(sample.hosts), metric.of(sample)) for sample in record.samples)
    middle = law.at(math.sqrt(first * end))
    return Plot(
        metric.label,
        (
            Series(
                power(law), 1, (first, last), (law.at(first), law.at(last)), f"{law.points} builds",
                tuple((x, y) for x, y in dots if y > 0),
            ),
            Series("extrapolated, not measured", 2, (last, end), (law.at(last), law.at(end))),
        ),
        y_metric=_METRICS.get(metric.unit, ""),
        # A decade at the least, so that noise does not look like growth.
        reach=(middle / math.sqrt(10), middle * math.sqrt(10)),
    )  # fmt: skip
