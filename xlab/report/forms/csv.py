"""FILE.csv: all measurements.

One a line, for spreadsheets, R and pandas; of a sweep, a figure of a point a line.

scenario,name,build,round,route,probe,metric,streams,unit,median,ci95_low,ci95_high,samples,…
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from xlab.record import spreadsheet
from xlab.record.comparisons import Estimate, Figure
from xlab.record.record import Measurement
from xlab.report.content import Content, Part
from xlab.report.sweeps import Swept
from xlab.report.text import plain

if TYPE_CHECKING:
    from xlab.experiments.sweep.outcome import PointDone

COLUMNS = (
    "scenario", "name", "datapath", "build", "round", "route", "direction", "probe", "metric",
    "streams", "unit", "median", "ci95_low", "ci95_high", "samples", "failed_samples",
    "started_at", "error",
)  # fmt: skip


def of_results(told: Content, _base: Path) -> str:
    """A header, then a line a measurement; `median` is empty where all samples failed.

    The baseline of a comparison is a method of its own, and stands here once.
    """
    rows = (
        _values(part, m)
        for part in told.parts
        for m in part.record.measurements
        if not (told.comparison and m.route == "baseline")
    )
    return _written(COLUMNS, rows)


def _values(part: Part, m: Measurement) -> list[object]:
    record = part.record
    low, high = m.ci95 or (None, None)
    return [
        record.scenario, part.name, record.environment.datapath, m.build, m.round, m.route,
        m.direction, m.probe, m.metric, m.streams, m.unit, m.median, low, high, len(m.samples),
        m.failed_samples, m.started_at, m.detail.get("error", ""),
    ]  # fmt: skip


# -- a sweep ---------------------------------------------------------------------------------------

_ABOUT = ("method", "datapath_class", "metric", "streams", "unit")
_ESTIMATES = ("value", "control", "to_baseline", "to_control")
_OF_ESTIMATE = ("", "_ci95_low", "_ci95_high")
_AFTER = (
    "verdict", "rounds", "builds", "failed_samples", "noise", "machine", "started_at", "status",
    "reason",
)  # fmt: skip


def of_sweep(told: Swept, _base: Path) -> str:
    """A header, then a line a figure; a point or method without figures has one that says why.

    An axis has two columns: what the file of the sweep says, and what that comes to.
    """
    sweep = told.sweep
    axes = chain.from_iterable((axis.name, f"{axis.name}_number") for axis in sweep.axes)
    estimates = [f"{name}{part}" for name in _ESTIMATES for part in _OF_ESTIMATE]
    numbers = {axis.name: dict(zip(axis.values, axis.numbers, strict=True)) for axis in sweep.axes}
    rows: list[list[object]] = []
    for point in sweep.points:
        begin: list[object] = [point.slug]
        for axis, known in numbers.items():
            said = point.values.get(axis)
            begin += [said, known.get(said or "")]
        rows += [[*begin, *line] for line in _lines(point)]
    return _written(["point", *axes, *_ABOUT, *estimates, *_AFTER], rows)


def _lines(point: PointDone) -> Iterator[list[object]]:
    circumstances = [point.noise, point.machine, point.started_at]
    #: Of estimates, and of what is said of them.
    empty: list[object] = [None] * (len(_ESTIMATES) * len(_OF_ESTIMATE) + 4)
    if not point.methods:
        about = [None] * len(_ABOUT)
        yield [*about, *empty, *circumstances, point.status, point.reason]
    for method in point.methods:
        named = [method.name, method.datapath_class]
        after = [*circumstances, method.status, method.reason]
        figures = [figure for figure in point.figures if figure.method == method.name]
        for figure in figures:
            yield [*named, figure.metric, figure.streams, figure.unit, *_figure(figure), *after]
        if not figures:
            yield [*named, *[None] * 3, *empty, *after]


def _figure(figure: Figure) -> Iterator[object]:
    for name in _ESTIMATES:
        found: Estimate | None = getattr(figure, name)
        yield found.median if found else None
        yield from (found.ci95 if found and found.ci95 else (None, None))
    yield figure.to_baseline.verdict if figure.to_baseline else None
    value = figure.value
    yield from (value.rounds, value.builds) if value else (None, None)
    yield sum(figure.failed_samples.values())


def _written(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in chain([header], rows))
    return written.getvalue()


def _cell(value: object) -> object:
    """Nothing out of a record becomes a spreadsheet's formula, or a line of its own."""
    if isinstance(value, str):
        value = " ".join(plain(value).split())
    return spreadsheet.harmless(value)
