"""Records as Markdown (GitHub's dialect): what the page says, without its charts and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from xlab.record.record import Claim, RunRecord
from xlab.report import content, links, prose, tables, text
from xlab.report.content import Content, Part
from xlab.report.tables import Table
from xlab.report.topology import proved, way


def render(records: Mapping[Path, RunRecord], *, base: Path) -> str:
    """Markdown on run records; see `compose`."""
    return compose(content.of_records(records), base=base)


def compose(told: Content, *, base: Path) -> str:
    """The whole report, for a file in the folder `base`; every line ends with a newline."""
    found = told.verdict
    crossing = tables.crossing(told.subjects)
    blocks = [
        f"# {found.mark} {escape(found.headline)}",
        _list(map(escape, found.findings)),
        "## Summary",
        *map(table, told.summary),
        told.legend,
        *(["## Overhead and MTU", table(crossing)] if crossing.rows else []),
    ]
    for part in told.parts:
        blocks.extend(_part(part, base if told.linked else None))
    if told.more:
        blocks += ["## All figures", *map(table, told.more)]
    blocks += [*_environment(told), *_how(told), *_data(told, base)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(shown: Table) -> str:
    """One table with its title and notes."""
    head = [column.title for column in shown.columns]
    rule = ["--:" if column.right else ":--" for column in shown.columns]
    lines = [_row(head), _row(rule), *(_row(map(escape, row)) for row in shown.rows)]
    title = [f"### {escape(shown.title)}", ""] if shown.title else []
    notes = [line for note in shown.notes for line in ("", escape(note))]
    return "\n".join([*title, *lines, *notes])


def escape(said: str) -> str:
    """Text out of a record that a Markdown table cell shows as it is."""
    said = text.plain(said)
    for special in "\\`*_[]<>|#&~":
        said = said.replace(special, f"\\{special}")
    return " ".join(said.split())


# ---------------------------------------------------------------------------------------- one run


def _part(part: Part, base: Path | None) -> Iterator[str]:
    record = part.record
    yield f"## {escape(part.name)}: {record.status}"
    if record.status != "passed" and record.reason:
        yield escape(record.reason)
    yield f"{escape(part.builds)}." if part.builds else ""
    if record.status != "skipped":
        if part.files:
            yield from _proof(part, base)
        figures = tables.route_figures(record, routes_first=True)
        yield table(figures) if figures.rows else "Nothing was measured."
    said = prose.notes(record)
    if said:
        yield "### Notes and fallbacks"
        yield _list(map(escape, said))


def _proof(part: Part, base: Path | None) -> Iterator[str]:
    record = part.record
    yield f"### The path is {'proved' if proved(record) else 'NOT proved'}"
    yield escape(way(record))
    yield _list(_path(next(iter(part.files)), record, base))
    held = sum(claim.holds for claim in record.claims)
    yield f"### Claims: {held} of {len(record.claims)} hold"
    yield _list(map(_claim, record.claims))


def _claim(claim: Claim) -> str:
    said, stage = escape(text.claim(claim)), escape(claim.stage)
    if claim.holds:
        return f"✓ {said} ({stage})"
    expected, observed = (escape(part) for part in (claim.expected, claim.observed))
    return f"✗ **{said}** ({stage}): expected {expected}, observed {observed}"


def _path(file: Path, record: RunRecord, base: Path | None) -> Iterator[str]:
    for name, said, good in prose.path_facts(record):
        mark = "" if good is None else "✓ " if good else "✗ "
        yield f"{name}: {mark}{escape(said)}"
    capture = links.capture(record)
    if capture and base is not None:
        yield f"capture: [{capture}]({links.relative(file.parent / capture, base)})"


# ------------------------------------------------------------------------- what a doubter asks for


def _environment(told: Content) -> list[str]:
    facts = (f"{fact.name}: {escape('; '.join(fact.values))}" for fact in told.environment)
    return ["## Environment", _list(facts), *map(table, told.circumstances)]


def _how(told: Content) -> list[str]:
    if not told.how:
        return []
    probes = _list(
        f"{escape(name)}: {escape(tool)}" for name, tool, _ in prose.probes(told.records)
    )
    return ["## How it was measured", _list(map(escape, told.how)), "### Probes", probes]


def _data(told: Content, base: Path) -> list[str]:
    if not told.linked:
        return ["## Raw data", prose.UNLINKED]
    outcome = told.comparison
    files = [file for part in told.parts for file in part.files]
    above = outcome.parent if outcome else None
    listed = [outcome] if outcome else []
    return [
        "## Raw data",
        _list(
            f"[{escape(str(file.relative_to(above or file.parent.parent)))}]"
            f"({links.relative(file, base)})"
            for file in (*listed, *files)
        ),
    ]


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
