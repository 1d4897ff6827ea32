"""Records as Markdown (GitHub's dialect): the overview, then the figures of each record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xlab.record import Claim, RunRecord
from xlab.report import tables, text
from xlab.report.tables import Table


def render(records: Sequence[RunRecord]) -> str:
    """The whole report; every line ends with a newline."""
    blocks = [table(each) for each in tables.overview(records)]
    blocks.append(tables.LEGEND)
    blocks.append("\n".join(f"- {escape(remark)}" for remark in tables.remarks(records)))
    for record in records:
        blocks.extend(_details(record))
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(content: Table) -> str:
    """One table with its title and notes."""
    head = [column.title for column in content.columns]
    rule = ["--:" if column.right else ":--" for column in content.columns]
    lines = [_row(head), _row(rule), *(_row(map(escape, row)) for row in content.rows)]
    title = [f"### {escape(content.title)}", ""] if content.title else []
    notes = [line for note in content.notes for line in ("", escape(note))]
    return "\n".join([*title, *lines, *notes])


def escape(content: str) -> str:
    """Text that a Markdown table cell shows as it is."""
    for special in "\\`*_[]<>|#":
        content = content.replace(special, f"\\{special}")
    return " ".join(content.split())


def _details(record: RunRecord) -> list[str]:
    blocks = []
    figures = tables.route_figures(record, routes_first=True)
    if figures.rows:
        blocks.append(table(figures))
    broken = text.broken(record)
    if broken:
        blocks.append(f"#### Claims that do not hold: {escape(tables.heading(record))}")
        blocks.append("\n".join(map(_broken, broken)))
    return blocks


def _broken(claim: Claim) -> str:
    said, stage, expected, observed = (
        escape(text.plain(part))
        for part in (claim.text, claim.stage, claim.expected, claim.observed)
    )
    return f"- {said} ({stage}): expected {expected}, observed {observed}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
