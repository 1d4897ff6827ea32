"""FILE.md: Markdown.

GitHub's dialect: what the page says, without its charts and pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from xlab.record.record import Claim, RunRecord
from xlab.report import links, prose, sweeps, tables, text
from xlab.report.content import Content, Part
from xlab.report.prose import Verdict
from xlab.report.sweeps import Swept
from xlab.report.tables import Table
from xlab.report.topology import proved, way


def of_results(told: Content, base: Path) -> str:
    """The whole report, for a file in the folder `base`; every line ends with a newline."""
    crossing = tables.crossing(told.subjects)
    blocks = [
        *_header(told.verdict, _guide(base, linked=told.linked)),
        "## Summary",
        *map(_table, told.summary),
        told.legend,
        *(["## Overhead and MTU", _table(crossing)] if crossing.rows else []),
    ]
    for part in told.parts:
        blocks.extend(_part(part, base if told.linked else None))
    if told.more:
        blocks += ["## All figures", *map(_table, told.more)]
    blocks += [*_environment(told), *_how(told), *_data(told, base)]
    return _joined(blocks)


def of_sweep(told: Swept, base: Path) -> str:
    blocks = [
        *_header(told.verdict, _guide(base, linked=told.linked)),
        "## Ratios to plain hosts",
        *map(_table, sweeps.tables(told.sweep)),
        sweeps.LEGEND,
        "## Points",
        _table(sweeps.points(told.sweep)),
    ]
    if told.linked:
        blocks += [
            "## Raw data",
            _list(_link(name, told.folder / name, base) for name in told.sweep.files()),
        ]
    return _joined(blocks)


def of_lines(head: str, lines: Table, differences: Iterable[str]) -> str:
    """What `xlab check` says, as a section: for a pull request, or the summary of a CI's job."""
    return _joined([f"## {_escape(head)}", _table(lines), _list(map(_escape, differences))])


def _header(found: Verdict, guide: str) -> list[str]:
    answers = [
        f"**{_escape(each.question)}** {' '.join(map(_escape, each.said))}"
        for each in found.answers
    ]
    findings = _list(map(_escape, found.findings))
    return [f"# {found.mark} {_escape(found.headline)}", *answers, findings, guide]


def _guide(base: Path, *, linked: bool) -> str:
    address = links.guide(base, linked=linked)
    name = f"[{links.GUIDE}]({address})" if address else f"`{links.GUIDE}`"
    return f"{prose.GUIDE} {name}"


def _joined(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(shown: Table) -> str:
    """One table with its title and notes."""
    head = [column.title for column in shown.columns]
    rule = ["--:" if column.right else ":--" for column in shown.columns]
    lines = [_row(head), _row(rule), *(_row(map(_escape, row)) for row in shown.rows)]
    title = [f"### {_escape(shown.title)}", ""] if shown.title else []
    notes = [line for note in shown.notes for line in ("", _escape(note))]
    return "\n".join([*title, *lines, *notes])


def _escape(said: str) -> str:
    """Text out of a record that a Markdown table cell shows as it is."""
    said = text.plain(said)
    for special in "\\`*_[]<>|#&~":
        said = said.replace(special, f"\\{special}")
    return " ".join(said.split())


# ---------------------------------------------------------------------------------------- one run


def _part(part: Part, base: Path | None) -> Iterator[str]:
    record = part.record
    yield f"## {_escape(part.name)}: {record.status}"
    if record.status != "passed" and record.reason:
        yield _escape(record.reason)
    yield f"{_escape(part.builds)}." if part.builds else ""
    if record.status != "skipped":
        if part.files:
            yield from _proof(part, base)
        figures = tables.route_figures(record, routes_first=True)
        yield _table(figures) if figures.rows else "Nothing was measured."
    said = prose.notes(record)
    if said:
        yield "### Notes and fallbacks"
        yield _list(map(_escape, said))


def _proof(part: Part, base: Path | None) -> Iterator[str]:
    record = part.record
    yield f"### The path is {'proved' if proved(record) else 'NOT proved'}"
    yield _escape(way(record))
    yield _list(_path(next(iter(part.files)), record, base))
    held = sum(claim.holds for claim in record.claims)
    yield f"### Claims: {held} of {len(record.claims)} hold"
    yield _list(map(_claim, record.claims))


def _claim(claim: Claim) -> str:
    said, stage = _escape(text.claim(claim)), _escape(claim.stage)
    if claim.holds:
        return f"✓ {said} ({stage})"
    expected, observed = map(_escape, (claim.expected, claim.observed))
    return f"✗ **{said}** ({stage}): expected {expected}, observed {observed}"


def _path(file: Path, record: RunRecord, base: Path | None) -> Iterator[str]:
    for name, said, good in prose.path_facts(record):
        mark = "" if good is None else "✓ " if good else "✗ "
        yield f"{name}: {mark}{_escape(said)}"
    capture = links.capture(record)
    if capture and base is not None:
        yield f"capture: [{capture}]({links.relative(file.parent / capture, base)})"


# ------------------------------------------------------------------------- what a doubter asks for


def _environment(told: Content) -> list[str]:
    facts = (f"{name}: {_escape('; '.join(values))}" for name, values in told.environment)
    return ["## Environment", _list(facts), *map(_table, told.circumstances)]


def _how(told: Content) -> list[str]:
    if not told.how:
        return []
    probes = _list(
        f"{_escape(name)}: {_escape(tool)}" for name, tool, _ in prose.probes(told.records)
    )
    return ["## How it was measured", _list(map(_escape, told.how)), "### Probes", probes]


def _data(told: Content, base: Path) -> list[str]:
    if not told.linked:
        return ["## Raw data", prose.UNLINKED]
    files = [file for part in told.parts for file in part.files]
    if told.file:
        files.insert(0, told.file)
    return ["## Raw data", _list(_link(told.name_of(file), file, base) for file in files)]


def _link(name: str, file: Path, base: Path) -> str:
    return f"[{_escape(name)}]({links.relative(file, base)})"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
