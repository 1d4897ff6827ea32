"""Reports on disk: a page and its Markdown, whole or not at all.

    results/2026-11-24T163045Z-bridge/   report.html  report.md  run.json  raw/
    results/2026-11-24T163035Z-all/      report.html  report.md      several, side by side
    results/2026-11-24T170000Z-compare/  report.html  report.md  compare.json  bridge/  weave/

Links lead from one folder of results to another, so that the results can be moved together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from xlab.compare.result import Comparison
from xlab.record import RunRecord, unfinished
from xlab.report import content, markdown, page
from xlab.report.content import Content

PAGE, MARKDOWN = "report.html", "report.md"


def of_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write the report on a comparison into its folder; returns the page."""
    told, _ = content.of_comparison(comparison, folder)
    return _into(folder, told)


def beside(file: Path, record: RunRecord) -> Path:
    """Write the report on one record beside its `run.json`; returns the page."""
    return _into(file.parent, content.of_records({file: record}))


def together(results: Path, records: Mapping[Path, RunRecord], started_at: datetime) -> Path:
    """Write the report on several records into a folder of its own; returns the page."""
    stem = f"{started_at:%Y-%m-%dT%H%M%SZ}-all"
    folder, number = results / stem, 1
    while folder.exists():
        number += 1
        folder = results / f"{stem}-{number}"
    with _written(folder, content.of_records(records)) as partial:
        partial.rename(folder)
    return folder / PAGE


def _into(folder: Path, told: Content) -> Path:
    with _written(folder, told) as partial:
        for name in (MARKDOWN, PAGE):
            (partial / name).replace(folder / name)
    return folder / PAGE


@contextmanager
def _written(folder: Path, told: Content) -> Iterator[Path]:
    """A hidden folder beside `folder` with the files for it, until they are moved."""
    with unfinished(folder) as partial:
        partial.mkdir()
        for name, compose in ((MARKDOWN, markdown.compose), (PAGE, page.compose)):
            (partial / name).write_text(compose(told, base=folder), encoding="utf-8")
        yield partial
