"""FILE.html, FILE.htm: a page with charts.

One file that needs nothing else: no network, no script, no font of its own.

The verdict comes first, then the figures of all, then each method with its picture, its claims and
the proof of its path; last, what a doubting reader wants to know.  Charts and pictures are SVG in
the page, coloured by page.css, so that they follow the reader's light or dark scheme.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from xlab.record.record import Claim, RunRecord
from xlab.report import (
    clocks,
    drawing,
    gallery,
    links,
    parts,
    picture,
    prose,
    sweeps,
    tables,
    text,
    virtual,
)
from xlab.report.conclusion import Answer
from xlab.report.content import Content, Part
from xlab.report.drawing import Drawing
from xlab.report.markup import Child, Html, join, tag
from xlab.report.prose import Verdict
from xlab.report.sweeps import Swept
from xlab.report.tables import Table
from xlab.report.topology import network, proved, way

_APART = (
    "Kernel and userspace datapaths each have a scale of their own: they are not ranked against "
    "each other."
)


def of_results(told: Content, base: Path) -> str:
    """The page, for a file in the folder `base`: links to records are relative to it."""
    named = [(part, f"run-{number}") for number, part in enumerate(told.parts, 1)]
    shown = gallery.exhibits(told.subjects)
    return parts.document(
        f"{told.verdict.mark} {told.verdict.headline} · xlab",
        _header(
            told.started_at,
            told.verdict,
            _guide(base, linked=told.linked),
            _navigation(named, charts=bool(shown)),
            [f"#{anchor}" for part, anchor in named if part.record.status != "passed"],
        ),
        _summary(told, {part.name: f"#{anchor}" for part, anchor in named}),
        _charts(told, shown),
        _both_clocks(told),
        _instructions(told),
        _crossing(told),
        [_part(part, anchor, base if told.linked else None) for part, anchor in named],
        _more(told),
        _environment(told),
        _how(told),
        _data(told, base),
    )


# ------------------------------------------------------------------------------------- the whole


def _navigation(named: Sequence[tuple[Part, str]], *, charts: bool) -> Html:
    targets = [("#summary", "Summary")]
    if charts:
        targets.append(("#figures", "Charts"))
    targets += [(f"#{anchor}", part.name) for part, anchor in named]
    targets += [("#environment", "Environment"), ("#data", "Raw data")]
    return tag(
        "nav",
        parts.listed(tag("a", said, href=target) for target, said in targets),
        aria_label="Sections",
    )


def _header(
    starts: Sequence[str],
    found: Verdict,
    guide: Html,
    navigation: Html | None = None,
    failed: Sequence[str] = (),
) -> Html:
    """What a page begins with: when it was, what came of it, and what must be known of that.

    `failed` are the places of what did not pass, of which the first findings are.
    """
    findings: list[Child] = [
        join(parts.prose(said), " ", tag("a", "What shows it", href=failed[number]))
        if number < len(failed)
        else parts.prose(said)
        for number, said in enumerate(found.findings)
    ]
    return tag(
        "header",
        tag("p", f"Cross-host container networking · {_when(starts)}", class_="kicker"),
        tag(
            "div",
            tag("span", found.mark, class_="mark", aria_hidden="true"),
            tag("h1", tag("span", f"{found.headline}.".replace("….", "…"))),
            class_=f"verdict {found.status}",
        ),
        _answers(found.answers),
        parts.listed(findings, "findings") if findings else None,
        guide,
        navigation,
    )


def _answers(found: Sequence[Answer]) -> Html | None:
    if not found:
        return None
    return tag(
        "dl",
        [
            tag(
                "div",
                tag("dt", each.question),
                tag("dd", [tag("p", parts.prose(said)) for said in each.said]),
            )
            for each in found
        ],
        class_="answers",
    )


def _guide(base: Path, *, linked: bool) -> Html:
    address = links.guide(base, linked=linked)
    name: Child = tag("a", links.GUIDE, href=address) if address else links.GUIDE
    return tag("p", prose.GUIDE, " ", name, class_="small")


def _summary(told: Content, targets: Mapping[str, str]) -> Html:
    return parts.section(
        "Summary",
        "summary",
        [parts.table(each, targets=targets, brief=True) for each in told.summary],
        parts.small(told.legend) if told.legend else None,
    )


def _charts(told: Content, shown: Mapping[str, Drawing]) -> Html | None:
    absent = [f"{what} (`{told.command(probe)}`)" for what, probe in gallery.missing(told.subjects)]
    if not shown and not absent:
        return None
    several = len(tables.groups(told.records)) > 1
    return parts.section(
        "Charts",
        "figures",
        parts.small(_APART) if several else None,
        _drawn(shown),
        parts.notes(prose.published_beside(told.records)),
        parts.small(parts.prose(f"Not measured: {'; '.join(absent)}.")) if absent else None,
    )


def _drawn(shown: Mapping[str, Drawing]) -> Html:
    return tag("div", [_figure(each, name) for name, each in shown.items()], class_="columns even")


def _figure(shown: Drawing, name: str) -> Html:
    """A chart with its title, and what its signs mean; `name` is unique in its page."""
    entries = [
        tag("li", tag("i", class_=f"k-{kind}", aria_hidden="true"), said)
        for kind, said in shown.key()
    ]
    return tag(
        "figure",
        tag("h3", shown.title),
        drawing.embedded(shown, name),
        tag("figcaption", tag("ul", entries, class_="key") if entries else None),
    )


def _instructions(told: Content) -> Html | None:
    """What the virtual clock counts."""
    table = virtual.instructions(told.subjects)
    if table is None:
        return None
    return parts.section(
        "Instructions", "instructions", parts.table(table), parts.small(virtual.COUNTED)
    )


def _both_clocks(told: Content) -> Html | None:
    if told.comparison is None or told.beside is None:
        return None
    return parts.section(
        "Both clocks",
        "clocks",
        parts.small(clocks.MEANING),
        parts.notes(clocks.disagreements(told.comparison, told.beside)),
        _drawn(clocks.side_by_side(told.comparison, told.beside)),
    )


def _crossing(told: Content) -> Html | None:
    table = tables.crossing(told.subjects)
    return parts.section("Overhead and MTU", "overhead", parts.table(table)) if table.rows else None


def _more(told: Content) -> Html | None:
    if not told.more:
        return None
    number = text.count(len(told.more), "table")
    return parts.section(
        "All figures", "all-figures", parts.details(number, map(parts.table, told.more))
    )


# ---------------------------------------------------------------------------------------- one run


def _part(part: Part, anchor: str, base: Path | None) -> Html:
    """A method; without links to its files if there is no `base`."""
    record = part.record
    facts = [
        "" if record.status == "skipped" else record.environment.datapath,
        *(f"{name}={value}" for name, value in tables.settings_of(record).items()),
        f"{text.seconds(record.timings_s.total)} in all" if part.files else "",
    ]
    reason = record.reason if record.status != "passed" else ""
    return tag(
        "section",
        tag(
            "div",
            tag("h2", part.name if part.builds else record.scenario, id=f"{anchor}-title"),
            tag("span", record.status, class_=f"badge {record.status}"),
            tag("span", " · ".join(fact for fact in facts if fact), class_="facts"),
            class_="head",
        ),
        tag("p", parts.prose(reason), class_=f"reason {record.status}") if reason else None,
        tag("p", f"{part.builds}.") if part.builds else None,
        None
        if record.status == "skipped"
        else [
            tag(
                "div",
                _network(record, anchor),
                tag(
                    "div",
                    *(
                        [_claims(record, anchor), _path(part, anchor, base)]
                        if part.files
                        else [_figures(part)]
                    ),
                ),
                class_="columns",
            ),
            _figures(part) if part.files else None,
        ],
        _notes(record),
        class_="card",
        id=anchor,
        aria_labelledby=f"{anchor}-title",
    )


def _network(record: RunRecord, anchor: str) -> Html:
    mark = "Proved" if proved(record) else "NOT proved"
    return tag(
        "div",
        tag("h3", "The network"),
        tag(
            "figure",
            picture.draw(network(record), anchor, width=340),
            tag("figcaption", f"{mark}: {way(record)}"),
        ),
    )


def _claims(record: RunRecord, anchor: str) -> Html:
    held = sum(claim.holds for claim in record.claims)
    said = f"Claims: {held} of {len(record.claims)} hold"
    title = tag("h3", said, id=f"{anchor}-claims")
    stages = [
        [tag("h4", stage), tag("ul", map(_claim, claims), class_="claims")]
        for stage, claims in groupby(record.claims, key=lambda claim: claim.stage)
    ]
    return join(title, stages or tag("p", "None was checked."))


def _claim(claim: Claim) -> Html:
    """The statement; it opens to what was expected, what was seen, and what shows it."""
    mark, kind, spoken = ("✓", "holds", "holds: ") if claim.holds else ("✗", "broken", "FAILED: ")
    return tag(
        "li",
        tag(
            "details",
            tag(
                "summary",
                tag("span", mark, class_="mark", aria_hidden="true"),
                tag("span", spoken, class_="spoken"),
                tag("span", parts.prose(text.claim(claim)), class_="said"),
            ),
            parts.pairs(
                [
                    ("expected", parts.prose(claim.expected)),
                    ("observed", parts.prose(claim.observed)),
                ]
            ),
            tag("pre", claim.evidence, tabindex="0") if claim.evidence else None,
            open=not claim.holds,
        ),
        class_=kind,
    )


def _path(part: Part, anchor: str, base: Path | None) -> Html:
    file, record = next(iter(part.files)), part.record
    proof = record.path
    if proof is None:
        return join(
            tag("h3", "The path", id=f"{anchor}-path"), tag("p", "Nothing was proved of it.")
        )
    pairs: list[tuple[str, Child]] = []
    for name, said, good in prose.path_facts(record):
        mark = None
        if good is not None:
            mark = tag("b", "✓ " if good else "✗ ", class_="good" if good else "bad")
        pairs.append((name, join(mark, said)))
    capture = links.capture(record)
    if capture and base is not None:
        link = tag("a", capture, href=links.relative(file.parent / capture, base))
        pairs.append(("capture", join(link, proof.evidence.removeprefix(capture))))
    elif proof.evidence:
        pairs.append(("evidence", proof.evidence))
    title = "proved" if proof.proved and proof.negative_control else "NOT proved"
    return join(tag("h3", f"The path is {title}", id=f"{anchor}-path"), parts.pairs(pairs))


def _figures(part: Part) -> Html:
    content = tables.route_figures(part.record, routes_first=True)
    if not content.rows:
        return parts.small("Nothing was measured.")
    shown = parts.table(Table(content.columns, content.rows, "", content.notes))
    if part.builds:  # a comparison has said what matters of it above
        shown = parts.details(text.count(len(content.rows), "figure"), shown)
    return join(tag("h3", "Figures"), shown)


def _notes(record: RunRecord) -> Html | None:
    said = parts.listed(map(parts.prose, prose.notes(record)), "plain")
    return join(tag("h3", "Notes and fallbacks"), said) if record.events else None


# ---------------------------------------------------------------------------------------- a sweep


def of_sweep(told: Swept, base: Path) -> str:
    """A table a class of datapaths, a chart an axis, and what came of each point."""
    sweep = told.sweep
    charts = {f"along-{axis}": chart for axis, chart in sweeps.charts(sweep).items()}
    files = {name: links.relative(told.folder / name, base) for name in sweep.files()}
    return parts.document(
        f"{told.verdict.mark} {told.verdict.headline} · xlab",
        _header(
            [sweep.started_at, sweep.ended_at],
            told.verdict,
            _guide(base, linked=told.linked),
        ),
        parts.section(
            "Ratios to plain hosts",
            "summary",
            [parts.table(_headed(each)) for each in sweeps.tables(sweep)],
            parts.small(sweeps.LEGEND),
        ),
        parts.section("Charts", "figures", _drawn(charts)) if charts else None,
        parts.section("Points", "points", parts.table(sweeps.points(sweep))),
        parts.section("Raw data", "data", parts.links(files)) if told.linked else None,
    )


def _headed(table: Table) -> Table:
    """What names a row is flush left in a page, whatever it is."""
    first, *others = table.columns
    return dataclasses.replace(table, columns=(dataclasses.replace(first, right=False), *others))


# ------------------------------------------------------------------------- what a doubter asks for


def _environment(told: Content) -> Html:
    pairs: list[tuple[str, Child]] = [
        (name, values[0] if len(values) == 1 else [tag("div", value) for value in values])
        for name, values in told.environment
    ]
    return parts.section(
        "Environment",
        "environment",
        parts.pairs(pairs),
        [
            parts.details(each.title, parts.table(dataclasses.replace(each, title="")))
            for each in told.circumstances
        ],
    )


def _how(told: Content) -> Html | None:
    if not told.how:
        return None
    probes = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", tool, [tag("br"), tag("code", command)] if command else None),
        )
        for name, tool, command in prose.probes(told.records)
        if tool or command
    ]
    number = f"{text.count(len(probes), 'probe')}, and the commands they ran"
    return parts.section(
        "How it was measured",
        "how",
        parts.listed(told.how, "plain"),
        parts.details(number, tag("dl", probes, class_="probes")) if probes else None,
    )


def _data(told: Content, base: Path) -> Html:
    outcome = told.file
    files = [(file, record) for part in told.parts for file, record in part.files.items()]
    if not told.linked:
        said, files, outcome = prose.UNLINKED, [], None
    elif files:
        said = "Everything above comes from these records; beside each is what every tool printed."
    else:
        said = "All figures come from this file; the records of its runs are not beside it."
    return parts.section(
        "Raw data",
        "data",
        parts.small(said),
        tag("p", tag("a", outcome.name, href=links.relative(outcome, base))) if outcome else None,
        [_files(told.name_of(file), file, record, base) for file, record in files],
    )


def _files(name: str, file: Path, record: RunRecord, base: Path) -> Html:
    raw = {n: links.relative(file.parent / "raw" / n, base) for n in links.raw_files(record)}
    link = tag("a", name, href=links.relative(file, base))
    return join(
        tag("p", link, f" {record.scenario}, {record.started_at}"),
        parts.details(text.count(len(raw), "raw file"), parts.links(raw)) if raw else None,
    )


def _when(starts: Sequence[str]) -> str:
    """From the first to the last, by the minute."""
    minutes = sorted(start[:16].replace("T", " ") for start in starts)
    first, last = minutes[0], minutes[-1]
    until = last[11:] if last[:10] == first[:10] else last
    return f"{first} UTC" if first == last else f"{first} to {until} UTC"
