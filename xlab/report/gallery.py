"""All charts that records make, in the order in which they are shown; and what was not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from xlab.record import metrics
from xlab.report import charts, costs, lines
from xlab.report.charts import Subject
from xlab.report.drawing import Drawing


@dataclass(frozen=True, slots=True)
class _Recipe:
    """A chart that shows more than one metric, or one in a way of its own."""

    #: Of its files, and of its ids in a page.
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
    # Of the virtual clock alone, and without a probe of its own.
    _Recipe("parts-of-a-packet", 11, costs.parts_of_a_packet),
)
_KINDS = {"ratios": charts.ratios, "values": charts.values, "distribution": lines.distribution}


def exhibits(subjects: Sequence[Subject]) -> dict[str, Drawing]:
    """Those charts for which there is something to show, by their names."""
    of_one = (
        _Recipe(chart.name, chart.place, partial(_KINDS[chart.kind], metric=row.name, shown=chart))
        for row in metrics.TABLE
        for chart in row.charts
    )
    recipes = sorted([*_RECIPES, *of_one], key=lambda recipe: recipe.place)
    return {recipe.name: made for recipe in recipes if (made := recipe.make(subjects))}


def missing(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """(what, the probe that measures it) of what was not asked for; nothing if nothing was."""
    probes = {m.probe for _, record in subjects for m in record.measurements}
    return [
        (recipe.subject, recipe.probe)
        for recipe in _RECIPES
        if probes and recipe.probe and recipe.probe not in probes and recipe.make(subjects) is None
    ]
