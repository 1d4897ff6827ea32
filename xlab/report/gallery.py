"""All charts that records make, in the order in which they are shown; and what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xlab.kernel import disk
from xlab.record import metrics
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
    """A chart that shows more than one metric, or one in a way of its own."""

    name: str
    place: int
    make: Callable[[Sequence[Subject]], Drawing | None]
    #: What the chart shows, and the probe that measures it; of those that must be asked for.
    subject: str = ""
    probe: str = ""


_RECIPES = (
    _Recipe("rtt-over-time", 5, lines.course, "RTT over time, idle and loaded", "loaded-rtt"),
    _Recipe(
        "message-sizes",
        7,
        lines.against_message_size,
        "throughput against message size",
        "message-sizes",
    ),
    _Recipe("streams", 8, lines.against_flows, "throughput against streams", "flows"),
    _Recipe("recovery", 10, charts.recovery, "recovery from faults", "recovery"),
)
_KINDS = {"ratios": charts.ratios, "values": charts.values, "distribution": lines.distribution}


def exhibits(subjects: Sequence[Subject]) -> list[Exhibit]:
    """Those charts for which there is something to show."""
    of_one = (
        _Recipe(chart.name, chart.place, partial(_KINDS[chart.kind], metric=row.name, shown=chart))
        for row in metrics.TABLE
        for chart in row.charts
    )
    recipes = sorted([*_RECIPES, *of_one], key=lambda recipe: recipe.place)
    made = ((recipe.name, recipe.make(subjects)) for recipe in recipes)
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
