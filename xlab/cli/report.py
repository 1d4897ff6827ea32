"""`xlab report`: tables, charts and pages from records alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from xlab.cli._app import command
from xlab.cli._options import form_of
from xlab.cli._streams import json_text, print_error, write, write_text
from xlab.errors import RecordError, UsageError

if TYPE_CHECKING:
    from xlab.record.comparisons import Comparison
    from xlab.record.record import RunRecord
    from xlab.report.content import Content


@command()
def report(
    *,
    result: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="Folders of records, folders of those, run.json files; one comparison; a sweep.",
        ),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write there instead of to stdout: FILE.html is a page with charts, FILE.md "
            "Markdown, FILE.json JSON, FILE.csv all measurements, FILE.xml JUnit's claims, "
            "FILE.flent.gz courses over time for flent, FILE.txt or FILE tables.",
        ),
    ] = None,
    charts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each chart there, as SVG and as PNG."),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="No links to the records: a page to be handed on by itself."),
    ] = False,
) -> int:
    """Redo tables, charts and the page from records, and compare several."""
    form = _report_form(markdown=markdown, as_json=as_json, output=output)
    return _report(result, form=form, output=output, charts=charts, alone=alone)


_FORMS = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".json": "json",
    ".csv": "csv",
    ".xml": "junit",
    ".flent": "flent",
    ".flent.gz": "flent",
}


def _report_form(*, markdown: bool, as_json: bool, output: Path | None) -> str:
    """What a report is written as: what an option says, or the name of its file."""
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    asked = "markdown" if markdown else "json" if as_json else None
    return form_of(output, _FORMS, f"--{asked}", asked)


def _report(
    results: Sequence[Path], *, form: str, output: Path | None, charts: Path | None, alone: bool
) -> int:
    import dataclasses

    from xlab.record import comparisons, result_files
    from xlab.report import content, gallery
    from xlab.report.forms import json

    results, passed_over = result_files.results_among(results)
    for path in passed_over:
        print_error(f"xlab: {path}: no result, passed over")
    if len(results) == 1 and (results[0] / "sweep.json").is_file():
        from xlab.cli.sweep import report_on

        return report_on(results[0], form=form, output=output, charts=charts, alone=alone)
    folder = result_files.comparison_in(results)
    data: object
    if folder is not None:
        comparison = comparisons.load(folder)
        told, errors = content.of_comparison(comparison, folder)
        data = comparison.to_dict()
        show = partial(_show_comparison, comparison)
    else:
        records, errors = result_files.load(result_files.find(results))
        if not records:
            return _complain(errors)
        told = content.of_records(records)
        several = [json.to_data(file, record) for file, record in records.items()]
        data = several if len(several) > 1 else several[0]
        show = partial(_show_records, list(records.values()))
    told = dataclasses.replace(told, linked=not alone)
    _complain(errors)
    if charts is not None:
        written = list(gallery.save(told.subjects, charts))
        if output is None:
            sys.stdout.writelines(f"{file}\n" for file in written)
            return errors[0].exit_status if errors else 0
    if form == "text":
        write_text(show, output)
    else:
        write(_formed(told, form, data, output), output)
    return errors[0].exit_status if errors else 0


def _complain(errors: Sequence[RecordError]) -> int:
    for error in errors:
        print_error(f"xlab: {error}")
    return errors[0].exit_status if errors else 0


def _formed(told: Content, form: str, data: object, output: Path | None) -> str | bytes:
    from xlab.report.forms import csv, flent, html, junit, markdown

    base = output.parent if output else Path()
    match form:
        case "html":
            return html.compose(told, base=base)
        case "markdown":
            return markdown.compose(told, base=base)
        case "csv":
            return csv.render(told)
        case "junit":
            return junit.of_content(told)
        case "flent":
            return flent.render(told)
    return json_text(data)


def _show_records(records: Sequence[RunRecord], stream: TextIO) -> None:
    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen

    RunScreen(Screen(stream)).report(records)


def _show_comparison(comparison: Comparison, stream: TextIO) -> None:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.cli.screens.screen import Screen

    CompareScreen(Screen(stream)).outcome(comparison)
