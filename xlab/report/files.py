"""Reports on disk: a page and its Markdown, whole or not at all.

    results/2026-11-24T163045Z-bridge/   report.html  report.md  run.json  raw/
    results/2026-11-24T163035Z-all/      report.html  report.md      several, side by side
    results/2026-11-24T170000Z-compare/  report.html  report.md  compare.json  bridge/  weave/

Links lead from one folder of results to another, so that the results can be moved together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xlab.kernel import disk
from xlab.record.comparisons import Comparison
from xlab.record.record import RunRecord, under_free_name
from xlab.report import content
from xlab.report.content import Content
from xlab.report.forms import html, markdown
from xlab.report.sweeps import Swept

if TYPE_CHECKING:
    from xlab.experiments.sweep.outcome import Sweep

PAGE, MARKDOWN = "report.html", "report.md"


def of_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write the report on a comparison into its folder; returns the page."""
    told, _ = content.of_comparison(comparison, folder)
    return _into(folder, told)


def of_sweep(folder: Path, sweep: Sweep) -> Path:
    """Write the report on a sweep into its folder; returns the page."""
    told = Swept(sweep, folder)
    said = {MARKDOWN: markdown.of_sweep(told, folder), PAGE: html.of_sweep(told, folder)}
    disk.write(folder, {name: text.encode() for name, text in said.items()})
    return folder / PAGE


def beside(file: Path, record: RunRecord) -> Path:
    """Write the report on one record beside its `run.json`; returns the page."""
    return _into(file.parent, content.of_records({file: record}))


def together(results: Path, records: Mapping[Path, RunRecord], started_at: datetime) -> Path:
    """Write the report on several records into a folder of its own; returns the page."""
    told = content.of_records(records)

    def make(folder: Path) -> None:
        disk.new_folder(folder, _composed(told, base=folder))

    return under_free_name(results, started_at, "all", make) / PAGE


def _into(folder: Path, told: Content) -> Path:
    disk.write(folder, _composed(told, base=folder))
    return folder / PAGE


def _composed(told: Content, *, base: Path) -> dict[str, bytes]:
    """The files of a report; links in them begin at `base`."""
    said = {MARKDOWN: markdown.of_results(told, base), PAGE: html.of_results(told, base)}
    return {name: text.encode() for name, text in said.items()}
