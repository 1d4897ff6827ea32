"""`xlab check`: the regression gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._streams import print_error, print_json, write
from xlab.errors import UsageError, at

if TYPE_CHECKING:
    from xlab.experiments.gate import Change, Summary, Verdict
    from xlab.report.tables import Table


@command(
    epilog="Exit status: 0 no line has regressed or is missing, nor with --strict is unclear; 1 "
    "one is; 2 wrong usage, or a result of another experiment than the baseline's.",
)
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
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="What is unclear fails, too: status 1 unless every line is ok."
        ),
    ] = False,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="By how much any ratio may become worse, in place of what the baseline says: 5%.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the lines as JUnit XML, too.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the lines as Markdown, too.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Hold a result against a baseline: has a method become slower than it was?

    A line for each ratio to the plain hosts, and for each fact. regressed: worse by more than its
    tolerance, and the interval of the change excludes "no change". unclear: beyond the tolerance,
    but it may be noise; more rounds tell. missing: the baseline has it, the result has not.
    """
    from xlab.experiments import gate
    from xlab.experiments.compare import plan

    with at("--tolerance"):
        share = None if tolerance is None else plan.share(tolerance)
    if update:
        return _update(result, baseline, share)
    if not baseline.exists():
        raise UsageError(f"--baseline {baseline}: no such file; --update makes it of {result}")
    before, now = gate.tolerating(gate.load(baseline), share), gate.summarise(result)
    lines = gate.check(now, before)
    differences = gate.differences(now, before)
    if junit:
        from xlab.report.forms import junit as xml

        write(xml.of_lines(lines, f"xlab check {result.name}", strict=strict), junit)
    failed = any(line.fails(strict=strict) for line in lines)
    if markdown:
        from xlab.report import text
        from xlab.report.forms import markdown as form

        head = f"{'✗' if failed else '✓'} {result.name}: {_said(lines, strict=strict)}"
        write(form.of_lines(head, _table(lines), map(text.with_labels, differences)), markdown)
    if as_json:
        print_json(
            {
                "status": "failed" if failed else "passed",
                "strict": strict,
                "lines": [asdict(line) for line in lines],
                "differences": differences,
            }
        )
    else:
        _show(lines, differences, strict=strict)
    return 1 if failed else 0


def _update(result: Path, baseline: Path, tolerance: float | None) -> int:
    from xlab.experiments import gate
    from xlab.report import text

    summary = gate.summarise(result)
    gate.update(baseline, summary, tolerance)
    rounds = summary.provenance.rounds
    print(f"{baseline}: {len(summary.ratios)} ratios of {rounds} rounds, from {result}")
    _print_detectable(summary)
    for reason in summary.provenance.noise:
        print_error(f"xlab: the machine was noisy: {text.with_labels(reason)}")
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


def _show(lines: Sequence[Change], differences: Sequence[str], *, strict: bool) -> None:
    from rich.text import Text

    from xlab.cli.screens.screen import Screen, verdict_style
    from xlab.report import text

    screen = Screen(sys.stdout)
    screen.table(_table(lines))
    screen.remarks((), [text.with_labels(each) for each in differences])
    status = "failed" if any(line.fails(strict=strict) for line in lines) else "passed"
    said = _said(lines, strict=strict)
    screen.block("result", Text.assemble((status, verdict_style(status)), f"   {said}"))


def _said(lines: Sequence[Change], *, strict: bool) -> str:
    """How many fail, and how many there are of each verdict."""
    from collections import Counter

    from xlab.report import text

    failed = sum(line.fails(strict=strict) for line in lines)
    counts = Counter(line.verdict for line in lines)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _SIGNS if counts[verdict])
    said = f"{failed} of {len(lines)} lines fail: {told}"
    if not failed:
        said = f"none of {text.count(len(lines), 'line')} fails: {told}"
    if counts["unclear"] and not strict:
        said += "; unclear is no failure without --strict"
    return said


#: In the order in which they are counted.
_SIGNS: dict[Verdict, str] = {
    "ok": "✓",
    "improved": "✓",
    "unclear": "?",
    "regressed": "✗",
    "missing": "✗",
}
#: Of what is counted and not measured.
_FACTS = {
    "encapsulation": "on the wire",
    "effective_mtu": "effective MTU",
    "overhead_bytes": "bytes added",
}


def _table(lines: Sequence[Change]) -> Table:
    from xlab.report import text
    from xlab.report.tables import Column, Table

    columns = (
        Column("method"),
        Column("what"),
        Column("verdict"),
        Column("baseline → now"),
        Column("change", right=True),
        Column("90 % interval", below=True, expendable=1),
        Column("tolerance", below=True, expendable=2),
        Column("", below=True, expendable=3),
    )
    rows = tuple(
        (
            line.method,
            _FACTS.get(line.subject) or text.label(line.subject, line.streams),
            f"{_SIGNS[line.verdict]} {line.verdict}",
            f"{line.before} → {line.now}",
            "" if line.change is None else f"{line.change:+.1%}",
            "" if line.ci90 is None else f"{line.ci90[0]:+.1%} to {line.ci90[1]:+.1%}",
            "" if line.tolerance is None else f"± {line.tolerance:.0%} allowed",
            line.remark,
        )
        for line in lines
    )
    return Table(columns, rows)
