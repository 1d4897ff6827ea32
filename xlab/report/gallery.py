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
class _Recipe:
    name: str
    make: Callable[[Sequence[Subject]], Drawing | None]
    #: What the chart shows, and the probe that measures it; of those that must be asked for.
    subject: str = ""
    probe: str = ""


def _rtt_distribution(subjects: Sequence[Subject]) -> Drawing | None:
    return lines.distribution(subjects, "icmp_rtt_ms", "Round trips, all of them")


def _loaded_distribution(subjects: Sequence[Subject]) -> Drawing | None:
    return lines.distribution(subjects, "loaded_rtt_ms", "Round trips under load, all of them")


_RECIPES = (
    _Recipe("throughput-ratio", charts.throughput),
    _Recipe("rtt-ratio", charts.delay),
    _Recipe("rtt", charts.latency),
    _Recipe("rtt-distribution", _rtt_distribution),
    _Recipe("rtt-over-time", lines.course, "RTT over time, idle and loaded", "loaded-rtt"),
    _Recipe("loaded-rtt-distribution", _loaded_distribution),
    _Recipe(
        "message-sizes",
        lines.against_message_size,
        "throughput against message size",
        "message-sizes",
    ),
    _Recipe("streams", lines.against_flows, "throughput against streams", "flows"),
    _Recipe("cpu", charts.cpu_cost),
    _Recipe("recovery", charts.recovery, "recovery from faults", "recovery"),
)


def exhibits(subjects: Sequence[Subject]) -> list[Exhibit]:
    """Those charts for which there is something to show."""
    made = ((recipe.name, recipe.make(subjects)) for recipe in _RECIPES)
    return [Exhibit(name, found) for name, found in made if found]


def missing(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """(what, the probe that measures it) of what was not asked for; nothing if nothing was."""
    probes = {m.probe for _, record in subjects for m in record.measurements}
    return [
        (recipe.subject, recipe.probe)
        for recipe in _RECIPES
        if probes and recipe.probe and recipe.probe not in probes and recipe.make(subjects) is None
    ]


def save(subjects: Sequence[Subject], folder: Path) -> Iterator[Path]:
    """Write each chart as SVG and PNG; yields the files.  Raises OSError."""
    disk.make_folder(folder)
    for exhibit in exhibits(subjects):
        yield from drawing.saved(exhibit.drawing, exhibit.name, folder)
