"""Records as Markdown (GitHub's dialect): what the page says, without its charts and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from xlab.record import Claim, RunRecord
from xlab.report import links, prose, tables, text
from xlab.report.tables import Table
from xlab.report.topology import topology, way


def render(records: Mapping[Path, RunRecord], *, base: Path) -> str:
    """The whole report, for a file in the folder `base`; every line ends with a newline."""
    shown = list(records.values())
    found = prose.verdict(shown)
    blocks = [
        f"# {found.mark} {escape(found.headline)}",
        _list(map(escape, found.findings)),
        "## Summary",
        *(table(each) for each in tables.glance(shown)),
        tables.LEGEND if any(record.measurements for record in shown) else "",
    ]
    for (file, record), name in zip(records.items(), tables.names(shown), strict=True):
        blocks.extend(_run(file, record, name, base))
    blocks += [*_environment(shown), *_how(shown), *_data(records, base)]
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
    """Text out of a record that a Markdown table cell shows as it is."""
    content = text.plain(content)
    for special in "\\`*_[]<>|#&~":
        content = content.replace(special, f"\\{special}")
    return " ".join(content.split())


# ---------------------------------------------------------------------------------------- one run


def _run(file: Path, record: RunRecord, name: str, base: Path) -> Iterator[str]:
    yield f"## {escape(name)}: {record.status}"
    if record.status != "passed" and record.reason:
        yield escape(record.reason)
    if record.status != "skipped":
        shown = topology(record)
        yield f"### The path is {'proved' if shown.proved else 'NOT proved'}"
        yield escape(way(shown))
        yield _list(_path(file, record, base))
        held = sum(claim.holds for claim in record.claims)
        yield f"### Claims: {held} of {len(record.claims)} hold"
        yield _list(map(_claim, record.claims))
        figures = tables.route_figures(record, routes_first=True)
        yield table(figures) if figures.rows else "Nothing was measured."
    said = prose.notes(record)
    if said:
        yield "### Notes and fallbacks"
        yield _list(map(escape, said))


def _claim(claim: Claim) -> str:
    said, stage = escape(text.claim(claim)), escape(claim.stage)
    if claim.holds:
        return f"✓ {said} ({stage})"
    expected, observed = (escape(part) for part in (claim.expected, claim.observed))
    return f"✗ **{said}** ({stage}): expected {expected}, observed {observed}"


def _path(file: Path, record: RunRecord, base: Path) -> Iterator[str]:
    for name, said, good in prose.path_facts(record):
        mark = "" if good is None else "✓ " if good else "✗ "
        yield f"{name}: {mark}{escape(said)}"
    capture = links.capture(record)
    if capture:
        yield f"capture: [{capture}]({links.relative(file.parent / capture, base)})"


# ------------------------------------------------------------------------- what a doubter asks for


def _environment(records: Sequence[RunRecord]) -> list[str]:
    facts = prose.environment(records)
    return [
        "## Environment",
        _list(f"{fact.name}: {escape('; '.join(fact.values))}" for fact in facts),
    ]


def _how(records: Sequence[RunRecord]) -> list[str]:
    said = prose.measured(records)
    if not said:
        return []
    probes = _list(f"{escape(name)}: {escape(tool)}" for name, tool, _ in prose.probes(records))
    return ["## How it was measured", _list(map(escape, said)), "### Probes", probes]


def _data(records: Mapping[Path, RunRecord], base: Path) -> list[str]:
    listed = (
        f"[{escape(f'{file.parent.name}/{file.name}')}]({links.relative(file, base)})"
        for file in records
    )
    return ["## Raw data", _list(listed)]


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
