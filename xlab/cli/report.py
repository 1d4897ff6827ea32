"""`xlab report`: tables, charts and pages from records alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli.app import Debug, Job, app
from xlab.cli.streams import json_text, print_error, write
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.record import RunRecord


@app.command()
def report(
    result: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", help="Folders of records, folders of those, or run.json files."
        ),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write there instead of to stdout: FILE.html is a page with charts, FILE.md "
            "Markdown, FILE.json JSON, anything else tables.",
        ),
    ] = None,
    _debug: Debug = False,
) -> Job:
    """Redo tables, charts and the page from records, and compare several."""
    form = _report_form(markdown=markdown, as_json=as_json, output=output)
    return partial(_report, result, form=form, output=output)


_FORMS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}


def _report_form(*, markdown: bool, as_json: bool, output: Path | None) -> str:
    """What a report is written as: what an option says, or the name of its file."""
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    named = _FORMS.get(output.suffix.lower()) if output else None
    asked = "markdown" if markdown else "json" if as_json else None
    if asked and named and asked != named:
        raise UsageError(f"--{asked} does not go with {output}: the name says {named}")
    return asked or named or "text"


def _report(results: Sequence[Path], *, form: str, output: Path | None) -> int:
    from xlab import report

    records, errors = report.load(report.find(results))
    for error in errors:
        print_error(f"xlab: {error}")
    if records:
        shown = list(records.values())
        if form == "json":
            data = [report.to_data(file, record) for file, record in records.items()]
            write(json_text(data if len(data) > 1 else data[0]), output)
        elif form in ("markdown", "html"):
            from xlab.report import markdown, page

            render = markdown.render if form == "markdown" else page.render
            write(render(records, base=output.parent if output else Path()), output)
        else:
            _write_tables(shown, output)
    return errors[0].exit_status if errors else 0


def _write_tables(records: Sequence[RunRecord], output: Path | None) -> None:
    import io

    from xlab.screen import Screen

    if output is None:
        Screen(sys.stdout).report(records)
        return
    text = io.StringIO()
    Screen(text).report(records)
    write(text.getvalue(), output)
