"""A sweep as a page, as Markdown, and as CSV with a line for each figure of each point.

results/2026-11-24T220000Z-sweep/   report.html  report.md  sweep.json  sweep.yaml  points/

The page is one file that needs nothing else, like that of a comparison (page.py).
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from xlab.experiments.sweep.outcome import FILE, POINTS, SPEC_FILE, PointDone, Sweep
from xlab.kernel import disk
from xlab.record import comparisons
from xlab.record.comparisons import Estimate, Figure
from xlab.report import links, parts, sweeps, text
from xlab.report.files import MARKDOWN, PAGE
from xlab.report.forms import html, markdown
from xlab.report.forms.csv import cell
from xlab.report.gallery import Exhibit
from xlab.report.prose import Verdict
from xlab.report.tables import Column, Table

_LEGEND = (
    "Every ratio is to two plain hosts in a lab of their own, under the conditions of the same "
    "point and in the same round; shown is the median over the rounds, and its 95 % interval by "
    "build. TCP is that of as many streams as the point has."
)


def save(sweep: Sweep, folder: Path) -> Path:
    """Write report.html and report.md into the sweep's folder; returns the page.

    Both whole or not at all.  Raises OSError.
    """
    composers = {MARKDOWN: as_markdown, PAGE: as_page}
    said = {name: compose(sweep, folder, base=folder) for name, compose in composers.items()}
    disk.write(folder, {name: text.encode() for name, text in said.items()})
    return folder / PAGE


def verdict(sweep: Sweep) -> Verdict:
    """How many points there are, what came of them, and what a reader must know of them."""
    methods = dict.fromkeys(m.name for point in sweep.points for m in point.methods[1:])
    done = sum(point.status == "passed" for point in sweep.points)
    total = len(sweep.points)
    many = text.count(total, "point") if done == total else f"{done} of {total} points passed"
    axes = " × ".join(axis.name for axis in sweep.axes)
    named = ", ".join(map(text.plain, methods))
    headline = f"{many}{f' ({axes})' if axes else ''}: {named or 'nothing'} beside plain hosts"
    return Verdict(sweep.status, headline, (*sweeps.out(sweep), *sweep.notes))


# -- a page ----------------------------------------------------------------------------------------


def as_page(sweep: Sweep, folder: Path, *, base: Path, linked: bool = True) -> str:
    """The page, for a file in the folder `base`; `folder` is the sweep's."""
    found = verdict(sweep)
    charts = [Exhibit(f"along-{chart.axis}", chart) for chart in sweeps.charts(sweep)]
    files = {name: links.relative(folder / name, base) for name in _files(sweep)}
    return parts.document(
        f"{found.mark} {found.headline} · xlab",
        html.header([sweep.started_at, sweep.ended_at], found),
        parts.section(
            "Ratios to plain hosts",
            "summary",
            [parts.table(_headed(each)) for each in sweeps.tables(sweep)],
            parts.small(_LEGEND),
        ),
        parts.section("Charts", "figures", html.figures(charts)) if charts else None,
        parts.section("Points", "points", parts.table(_points(sweep))),
        parts.section("Raw data", "data", parts.links(files)) if linked else None,
    )


def _headed(table: Table) -> Table:
    """What names a row is flush left in a page, whatever it is."""
    first, *others = table.columns
    return dataclasses.replace(table, columns=(dataclasses.replace(first, right=False), *others))


def _points(sweep: Sweep) -> Table:
    columns = (
        Column("point"),
        Column("result"),
        Column("lasted", right=True),
        Column("machine"),
        Column("measured on"),
    )
    rows = tuple(
        (
            sweeps.named(point),
            point.status,
            text.NOTHING if point.seconds is None else text.seconds(point.seconds),
            point.noise or text.NOTHING,
            text.plain(point.machine) or text.NOTHING,
        )
        for point in sweep.points
    )
    return Table(columns, rows)


def _files(sweep: Sweep) -> Iterator[str]:
    """All that the folder of a sweep has; a slug is a name, whatever its sweep.json says."""
    yield from (FILE, SPEC_FILE)
    for point in sweep.points:
        if point.methods and not {"/", "\0"} & {*point.slug} and point.slug not in (".", ".."):
            yield f"{POINTS}/{point.slug}/{comparisons.FILE}"


# -- Markdown --------------------------------------------------------------------------------------


def as_markdown(sweep: Sweep, folder: Path, *, base: Path, linked: bool = True) -> str:
    """The same without its charts."""
    found = verdict(sweep)
    blocks = [
        f"# {found.mark} {markdown.escape(found.headline)}",
        "\n".join(f"- {markdown.escape(said)}" for said in found.findings),
        "## Ratios to plain hosts",
        *map(markdown.table, sweeps.tables(sweep)),
        _LEGEND,
        "## Points",
        markdown.table(_points(sweep)),
    ]
    if linked:
        listed = [
            f"- [{markdown.escape(name)}]({links.relative(folder / name, base)})"
            for name in _files(sweep)
        ]
        blocks += ["## Raw data", "\n".join(listed)]
    return "\n\n".join(block for block in blocks if block) + "\n"


# -- CSV -------------------------------------------------------------------------------------------

_ABOUT = ("method", "datapath_class", "metric", "streams", "unit")
_ESTIMATES = ("value", "control", "to_baseline", "to_control")
_OF_ESTIMATE = ("", "_ci95_low", "_ci95_high")
_AFTER = (
    "verdict", "rounds", "builds", "failed_samples", "noise", "machine", "started_at", "status",
    "reason",
)  # fmt: skip


def as_csv(sweep: Sweep) -> str:
    """A header, then a line a figure; a point or method without figures has one that says why.

    An axis has two columns: what the file of the sweep says, and what that comes to.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    axes = chain.from_iterable((axis.name, f"{axis.name}_number") for axis in sweep.axes)
    estimates = [f"{name}{part}" for name in _ESTIMATES for part in _OF_ESTIMATE]
    writer.writerow(["point", *axes, *_ABOUT, *estimates, *_AFTER])
    numbers = {axis.name: dict(zip(axis.values, axis.numbers, strict=True)) for axis in sweep.axes}
    for point in sweep.points:
        begin: list[object] = [point.slug]
        for axis, known in numbers.items():
            said = point.values.get(axis)
            begin += [said, known.get(said or "")]
        for line in _lines(point):
            writer.writerow([cell(value) for value in (*begin, *line)])
    return written.getvalue()


def _lines(point: PointDone) -> Iterator[list[object]]:
    circumstances = [point.noise, point.machine, point.started_at]
    empty: list[object] = [None] * (len(_ESTIMATES) * len(_OF_ESTIMATE))
    if not point.methods:
        yield [*[None] * len(_ABOUT), *empty, *[None] * 4, *circumstances, point.status,
               point.reason]  # fmt: skip
    for method in point.methods:
        about = [method.name, method.datapath_class]
        after = [*circumstances, method.status, method.reason]
        figures = [figure for figure in point.figures if figure.method == method.name]
        for figure in figures:
            yield [*about, figure.metric, figure.streams, figure.unit, *_figure(figure), *after]
        if not figures:
            yield [*about, *[None] * 3, *empty, *[None] * 4, *after]


def _figure(figure: Figure) -> Iterator[object]:
    for name in _ESTIMATES:
        found: Estimate | None = getattr(figure, name)
        yield found.median if found else None
        yield from (found.ci95 if found and found.ci95 else (None, None))
    yield figure.to_baseline.verdict if figure.to_baseline else None
    value = figure.value
    yield from (value.rounds, value.builds) if value else (None, None)
    yield sum(figure.failed_samples.values())
