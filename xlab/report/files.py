"""Reports on disk: a page and its Markdown, whole or not at all.

    results/2026-11-24T163045Z-bridge/   report.html  report.md  run.json  raw/
    results/2026-11-24T163035Z-all/      report.html  report.md      several, side by side

Links lead from one folder of results to another, so that the results can be moved together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from xlab.record import RunRecord, unfinished
from xlab.report import markdown, page

PAGE, MARKDOWN = "report.html", "report.md"


def beside(file: Path, record: RunRecord) -> Path:
    """Write the report on one record beside its `run.json`; returns the page."""
    folder = file.parent
    with _written(folder, {file: record}) as partial:
        for name in (MARKDOWN, PAGE):
            (partial / name).replace(folder / name)
    return folder / PAGE


def together(results: Path, records: Mapping[Path, RunRecord], started_at: datetime) -> Path:
    """Write the report on several records into a folder of its own; returns the page."""
    stem = f"{started_at:%Y-%m-%dT%H%M%SZ}-all"
    folder, number = results / stem, 1
    while folder.exists():
        number += 1
        folder = results / f"{stem}-{number}"
    with _written(folder, records) as partial:
        partial.rename(folder)
    return folder / PAGE


@contextmanager
def _written(folder: Path, records: Mapping[Path, RunRecord]) -> Iterator[Path]:
    """A hidden folder beside `folder` with the files for it, until they are moved."""
    with unfinished(folder) as partial:
        partial.mkdir()
        for name, render in ((MARKDOWN, markdown.render), (PAGE, page.render)):
            content = render(records, base=folder)
            (partial / name).write_text(content, encoding="utf-8")
        yield partial
