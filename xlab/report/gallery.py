"""All charts that records make, in the order in which they are shown; and what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlab.kernel import disk
from xlab.report import charts, drawing, lines
from xlab.report.charts import Subject
from xlab.report.drawing import Drawing


@dataclass(frozen=True, slots=True)
class Exhibit:
    #: Of its files, and of its ids in a page.
    name: str
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    make: Callable[[Sequence[Subject]], Drawing | None]
    #: What the chart shows, and the probe that measures it; of those that must be asked for.
    subject: str = ""
    probe: str = ""


def _rtt_distribution(subjects: Sequence[Subject]) -> Drawing | None:
    return lines.distribution(subjects, "icmp_rtt_ms", "Round trips, all of them")


def _loaded_distribution(subjects: Sequence[Subject]) -> Drawing | None:
    return lines.distribution(subjects, "loaded_rtt_ms", "Round trips under load, all of them")


_PLANS = (
    _Plan("throughput-ratio", charts.throughput),
    _Plan("rtt-ratio", charts.delay),
    _Plan("rtt", charts.latency),
    _Plan("rtt-distribution", _rtt_distribution),
    _Plan("rtt-over-time", lines.course, "RTT over time, idle and loaded", "loaded-rtt"),
    _Plan("loaded-rtt-distribution", _loaded_distribution),
    _Plan(
        "message-sizes",
        lines.against_message_size,
        "throughput against message size",
        "message-sizes",
    ),
    _Plan("streams", lines.against_flows, "throughput against streams", "flows"),
    _Plan("cpu", charts.cpu_cost),
    _Plan("recovery", charts.recovery, "recovery from faults", "recovery"),
)


def exhibits(subjects: Sequence[Subject]) -> list[Exhibit]:
    """Those charts for which there is something to show."""
    made = ((plan.name, plan.make(subjects)) for plan in _PLANS)
    return [Exhibit(name, found) for name, found in made if found]


def missing(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """(what, the probe that measures it) of what was not asked for; nothing if nothing was."""
    probes = {m.probe for _, record in subjects for m in record.measurements}
    return [
        (plan.subject, plan.probe)
        for plan in _PLANS
        if probes and plan.probe and plan.probe not in probes and plan.make(subjects) is None
    ]


def save(subjects: Sequence[Subject], folder: Path) -> Iterator[Path]:
    """Write each chart as SVG and PNG; yields the files.  Raises OSError."""
    disk.make_folder(folder)
    for exhibit in exhibits(subjects):
        yield from drawing.saved(exhibit.drawing, exhibit.name, folder)
