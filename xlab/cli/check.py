"""`xlab check`: the regression gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._streams import print_error, print_json, write

if TYPE_CHECKING:
    from xlab.experiments.gate import Change, Summary


@command(epilog=STATUSES)
def check(
    *,
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            help="The folder of a comparison, or of run records that belong together.",
        ),
    ],
    baseline: Annotated[
        Path, typer.Option("--baseline", metavar="FILE", help="What the result is held against.")
    ],
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Make the result the baseline; tolerances in the file are kept."
        ),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the lines as JUnit XML, too.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Hold a result against a baseline: has a method become slower than it was?"""
    from xlab.experiments import gate

    if update:
        return _update(result, baseline)
    before, now = gate.load(baseline), gate.summarise(result)
    lines = gate.check(now, before)
    differences = gate.differences(now, before)
    if junit:
        from xlab.report.forms import junit as xml

        write(xml.of_lines(lines, f"xlab check {result.name}"), junit)
    failed = sum(line.failed for line in lines)
    if as_json:
        print_json({"lines": [asdict(line) for line in lines], "differences": differences})
    else:
        _print(lines)
        for difference in differences:
            print(f"- {difference}")
        if failed:
            print(f"{failed} of {len(lines)} lines failed")
    return 1 if failed else 0


def _update(result: Path, baseline: Path) -> int:
    from xlab.experiments import gate

    summary = gate.summarise(result)
    gate.update(baseline, summary)
    rounds = summary.provenance.rounds
    print(f"{baseline}: {len(summary.ratios)} ratios of {rounds} rounds, from {result}")
    _print_detectable(summary)
    for reason in summary.provenance.noise:
        print_error(f"xlab: the machine was noisy: {reason}")
    return 0


def _print_detectable(baseline: Summary) -> None:
    """How much worse each ratio must become for a later run to show it."""
    from xlab.experiments import gate
    from xlab.report import text

    changes = gate.detectable_changes(baseline)
    if not changes:
        print("too few builds to say what a later run can tell from them")
        return
    runs = f"99 of 100 runs of {gate.RUN_BUILDS} builds"
    print(f"what {runs} will show, if this machine stays as it was:")
    labels = {text.label(*key): by_method for key, by_method in changes.items()}
    width = max(map(len, labels))
    for label, by_method in labels.items():
        parts = ", ".join(f"{method} {part:.0%}" for method, part in by_method.items())
        print(text.plain(f"  {label:{width}}  worse by: {parts}"))


def _print(lines: Sequence[Change]) -> None:
    from xlab.report import text

    rows = [_row(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, line in zip(rows, lines, strict=True):
        shown = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"{text.plain(shown).rstrip()}{f'   {line.remark}' if line.remark else ''}")


_SIGNS = {"ok": "✓", "improved": "✓", "unclear": "?", "regressed": "✗", "missing": "✗"}


def _row(line: Change) -> list[str]:
    from xlab.report import text

    return [
        f"{_SIGNS[line.verdict]} {line.verdict}",
        line.method,
        text.label(line.subject, line.streams),
        f"{line.before} → {line.now}",
        "" if line.change is None else f"{line.change:+.1%}",
        "" if line.ci90 is None else f"{line.ci90[0]:+.1%} to {line.ci90[1]:+.1%}",
        "" if line.tolerance is None else f"± {line.tolerance:.0%}",
    ]
