"""`xlab report`: tables, charts and pages from records alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from xlab.cli._app import command
from xlab.cli._options import form_of
from xlab.cli._streams import json_text, print_error, write, write_text
from xlab.errors import RecordError, UsageError, shortened
from xlab.report import forms

if TYPE_CHECKING:
    from xlab.experiments.sweep.outcome import Sweep
    from xlab.record.comparisons import Comparison
    from xlab.record.record import RunRecord
    from xlab.report.content import Content
    from xlab.report.drawing import Drawing
    from xlab.report.sweeps import Swept


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
            help="Write there instead of to stdout: "
            + "".join(f"FILE{form.endings[0]} {form.about}, " for form in forms.known())
            + "FILE.txt or FILE tables.",
        ),
    ] = None,
    charts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each chart there, as SVG and as PNG."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="COMPARISON",
            help="To one comparison: the same by the other clock, whose ratios to show beside.",
        ),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="No links to the records: a page to be handed on by itself."),
    ] = False,
) -> int:
    """Redo tables, charts and the page from records, and compare several."""
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    asked = "markdown" if markdown else "json" if as_json else None
    named = {ending: form.name for form in forms.known() for ending in form.endings}
    form = form_of(output, named, f"--{asked}", asked)
    return _report(result, form=form, output=output, charts=charts, alone=alone, beside=beside)


def _report(
    results: Sequence[Path],
    *,
    form: str,
    output: Path | None,
    charts: Path | None,
    alone: bool,
    beside: Path | None,
) -> int:
    import dataclasses

    from xlab.record import comparisons, result_files
    from xlab.report import clocks, content, drawing, gallery, sweeps

    if len(results) == 1 and not os.path.lexists(results[0]):
        raise RecordError(
            f"{shortened(results[0])}: No such file or directory; {result_files.WHERE}"
        )
    results, passed_over = result_files.results_among(results)
    for path in passed_over:
        print_error(f"xlab: {path}: no result, passed over")
    kind: forms.Kind = "results"
    told: Content | Swept
    draw: Callable[[], Mapping[str, Drawing]]
    errors: list[RecordError] = []
    if len(results) == 1 and (results[0] / "sweep.json").is_file():
        from xlab.experiments.sweep import outcome

        sweep = outcome.load(results[0])
        kind, told = "sweep", sweeps.Swept(sweep, results[0])
        show, draw = partial(_show_sweep, sweep), partial(sweeps.charts, sweep)
    elif folder := result_files.comparison_in(results):
        comparison = comparisons.load(folder)
        told, errors = content.of_comparison(comparison, folder)
        show, draw = partial(_show_comparison, comparison), partial(gallery.exhibits, told.subjects)
        if beside is not None:
            other = comparisons.load(beside)
            both = clocks.side_by_side(comparison, other)
            told = dataclasses.replace(told, beside=other)
            draw = partial(lambda told: {**gallery.exhibits(told.subjects), **both}, told)
    else:
        records, errors = result_files.load(result_files.find(results))
        if not records:
            return _complain(errors)
        told = content.of_records(records)
        show = partial(_show_records, list(records.values()))
        draw = partial(gallery.exhibits, told.subjects)
    compose = None if form == "text" else forms.composer(form, kind)
    status = _complain(errors)
    if charts is not None:
        written = drawing.save(draw(), charts)
        if output is None:
            sys.stdout.writelines(f"{file}\n" for file in written)
            return status
    if beside is not None and not (isinstance(told, content.Content) and told.beside):
        raise UsageError("--beside goes with one comparison")
    if compose is None:
        write_text(show, output)
    else:
        base = output.parent if output else Path()
        found = compose(dataclasses.replace(told, linked=not alone), base)
        write(found if isinstance(found, str | bytes) else json_text(found, output), output)
    return status


def _complain(errors: Sequence[RecordError]) -> int:
    for error in errors:
        print_error(f"xlab: {error}")
    return errors[0].exit_status if errors else 0


def _show_records(records: Sequence[RunRecord], stream: TextIO) -> None:
    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen

    RunScreen(Screen(stream)).report(records)


def _show_comparison(comparison: Comparison, stream: TextIO) -> None:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.cli.screens.screen import Screen

    CompareScreen(Screen(stream)).outcome(comparison)


def _show_sweep(sweep: Sweep, stream: TextIO) -> None:
    from xlab.cli.screens.screen import Screen
    from xlab.cli.screens.sweep import SweepScreen

    SweepScreen(Screen(stream)).outcome(sweep)
