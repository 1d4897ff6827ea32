"""Records as one HTML page that needs nothing else: no network, no script, no font of its own.

The verdict comes first, then the figures of all, then each method with its picture, its claims and
the proof of its path; last, what a doubting reader wants to know.  Charts and pictures are SVG in
the page, coloured by page.css, so that they follow the reader's light or dark scheme.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from xlab.record import Claim, RunRecord
from xlab.report import charts, links, picture, prose, tables, text
from xlab.report.charts import Chart
from xlab.report.markup import Child, Html, join, tag
from xlab.report.published import in_words, published
from xlab.report.tables import Table
from xlab.report.topology import topology, way

#: Nothing in the page may fetch anything or run, whatever a record holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_APART = (
    "Kernel and userspace datapaths each have a scale of their own: they are not ranked against "
    "each other."
)
_STYLE = Path(__file__).with_name("page.css")
_CHINESE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]+")


def render(records: Mapping[Path, RunRecord], *, base: Path) -> str:
    """The page, for a file in the folder `base`: links to records are relative to it."""
    shown = list(records.values())
    found = prose.verdict(shown)
    anchors = {id(record): f"run-{number}" for number, record in enumerate(shown, 1)}
    body = [
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag(
            "div",
            _header(shown, found),
            tag(
                "main",
                _summary(shown, anchors),
                _charts(shown),
                [_run(file, record, anchors[id(record)], base) for file, record in records.items()],
                _environment(shown),
                _how(shown),
                _data(records, base),
                id="main",
            ),
            class_="wrap",
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{found.mark} {found.headline} · xlab"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    page = tag("html", head, "\n", tag("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


# ------------------------------------------------------------------------------------- the whole


def _header(records: Sequence[RunRecord], found: prose.Verdict) -> Html:
    targets = [("#summary", "Summary")]
    if _drawn(records):
        targets.append(("#figures", "Charts"))
    targets += [(f"#run-{n}", name) for n, name in enumerate(tables.names(records), 1)]
    targets += [("#environment", "Environment"), ("#data", "Raw data")]
    return tag(
        "header",
        tag("p", f"Cross-host container networking · {_when(records)}", class_="kicker"),
        tag(
            "div",
            tag("span", found.mark, class_="mark", aria_hidden="true"),
            tag("h1", tag("span", f"{found.headline}.")),
            class_=f"verdict {found.status}",
        ),
        tag("ul", [tag("li", _prose(said)) for said in found.findings], class_="findings")
        if found.findings
        else None,
        tag(
            "nav",
            tag("ul", [tag("li", tag("a", said, href=target)) for target, said in targets]),
            aria_label="Sections",
        ),
    )


def _summary(records: Sequence[RunRecord], anchors: Mapping[int, str]) -> Html:
    parts: list[Child] = [tag("h2", "Summary")]
    members = [members for _, members in tables.groups(records)]
    for content, rows in zip(tables.glance(records), members, strict=True):
        parts.append(_table(content, targets=[f"#{anchors[id(record)]}" for record in rows]))
    if any(record.measurements for record in records):
        parts.append(tag("p", tables.LEGEND, class_="small"))
    return tag("section", *parts, class_="card", id="summary")


def _charts(records: Sequence[RunRecord]) -> Html | None:
    drawn = _drawn(records)
    if not drawn:
        return None
    several = max(len(chart.panels) for _, chart in drawn) > 1
    return tag(
        "section",
        tag("h2", "Throughput and latency"),
        tag("p", _APART, class_="small") if several else None,
        tag(
            "div",
            [
                tag(
                    "figure",
                    tag("h3", chart.title),
                    charts.draw(chart, name),
                    tag("figcaption", _key(chart)),
                )
                for name, chart in drawn
            ],
            class_="columns even",
        ),
        _sources(records),
        class_="card",
        id="figures",
    )


def _drawn(records: Sequence[RunRecord]) -> list[tuple[str, Chart]]:
    found = [("ratio", charts.throughput(records)), ("rtt", charts.latency(records))]
    return [(name, chart) for name, chart in found if chart]


def _key(chart: Chart) -> Html:
    """What the signs in a chart mean; only those that are there."""
    bars = [bar for panel in chart.panels for group in panel.groups for bar in group.bars]
    entries = [
        ("method", "method"),
        ("control", "control: the same two hosts, without the method"),
        ("round", "a round"),
    ]
    if any(bar.points.samples for bar in bars):
        entries.append(("sample", "a sample"))
    if any(bar.points.spread and bar.points.spread.ci95 for bar in bars):
        entries.append(("interval", "95 % interval"))
    if any(bar.band for bar in bars):
        entries.append(("published", "published by others, as context"))
    return tag(
        "ul",
        [
            tag("li", tag("i", class_=f"k-{kind}", aria_hidden="true"), said)
            for kind, said in entries
        ],
        class_="key",
    )


def _sources(records: Sequence[RunRecord]) -> Html | None:
    said = []
    for record in records:
        context = published(record)
        if context:
            latency = f", {in_words(context.latency)} × the latency" if context.latency else ""
            said.append(
                f"{record.scenario}: {in_words(context.throughput)} × the throughput{latency} of "
                f"plain hosts was published for {context.subject} ({context.source})."
            )
    if not said:
        return None
    return tag(
        "div",
        [tag("p", each) for each in dict.fromkeys(said)],
        tag("p", "Figures from real machines need not carry over to one kernel."),
        class_="small",
    )


# ---------------------------------------------------------------------------------------- one run


def _run(file: Path, record: RunRecord, anchor: str, base: Path) -> Html:
    facts = [
        "" if record.status == "skipped" else record.environment.datapath,
        *(f"{name}={value}" for name, value in tables.settings_of(record).items()),
        f"{text.seconds(record.timings_s.total)} in all",
    ]
    reason = record.reason if record.status != "passed" else ""
    return tag(
        "section",
        tag(
            "div",
            tag("h2", record.scenario, id=f"{anchor}-title"),
            tag("span", record.status, class_=f"badge {record.status}"),
            tag("span", " · ".join(fact for fact in facts if fact), class_="facts"),
            class_="head",
        ),
        tag("p", _prose(reason), class_=f"reason {record.status}") if reason else None,
        None
        if record.status == "skipped"
        else [
            tag(
                "div",
                _network(record, anchor),
                tag("div", _claims(record), _path(file, record, base)),
                class_="columns",
            ),
            _figures(record),
        ],
        _notes(record),
        class_="card",
        id=anchor,
        aria_labelledby=f"{anchor}-title",
    )


def _network(record: RunRecord, anchor: str) -> Html:
    shown = topology(record)
    return tag(
        "div",
        tag("h3", "The network"),
        tag(
            "figure",
            picture.draw(shown, anchor),
            tag("figcaption", f"{'Proved' if shown.proved else 'NOT proved'}: {way(shown)}"),
        ),
    )


def _claims(record: RunRecord) -> Html:
    held = sum(claim.holds for claim in record.claims)
    parts: list[Child] = [tag("h3", f"Claims: {held} of {len(record.claims)} hold")]
    for stage, claims in groupby(record.claims, key=lambda claim: claim.stage):
        parts.append(tag("h4", stage))
        parts.append(tag("ul", [_claim(claim) for claim in claims], class_="claims"))
    if not record.claims:
        parts.append(tag("p", "None was checked."))
    return join(*parts)


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
                tag("span", _prose(text.claim(claim)), class_="said"),
            ),
            _pairs([("expected", _prose(claim.expected)), ("observed", _prose(claim.observed))]),
            tag("pre", claim.evidence, tabindex="0") if claim.evidence else None,
            open=not claim.holds,
        ),
        class_=kind,
    )


def _path(file: Path, record: RunRecord, base: Path) -> Html:
    proof = record.path
    if proof is None:
        return join(tag("h3", "The path"), tag("p", "Nothing was proved of it."))
    pairs: list[tuple[str, Child]] = []
    for name, said, good in prose.path_facts(record):
        mark = None if good is None else tag("b", "✓ " if good else "✗ ", class_=_quality(good))
        pairs.append((name, join(mark, said)))
    capture = links.capture(record)
    if capture:
        link = tag("a", capture, href=links.relative(file.parent / capture, base))
        pairs.append(("capture", join(link, proof.evidence.removeprefix(capture))))
    elif proof.evidence:
        pairs.append(("evidence", proof.evidence))
    title = "proved" if proof.proved and proof.negative_control else "NOT proved"
    return join(tag("h3", f"The path is {title}"), _pairs(pairs))


def _figures(record: RunRecord) -> Html:
    content = tables.route_figures(record, routes_first=True)
    if not content.rows:
        return tag("p", "Nothing was measured.", class_="small")
    untitled = Table(content.columns, content.rows, "", content.notes)
    return join(tag("h3", "Figures"), _table(untitled))


def _notes(record: RunRecord) -> Html | None:
    said = prose.notes(record)
    if not said:
        return None
    return join(
        tag("h3", "Notes and fallbacks"),
        tag("ul", [tag("li", _prose(each)) for each in said], class_="plain"),
    )


# ------------------------------------------------------------------------- what a doubter asks for


def _environment(records: Sequence[RunRecord]) -> Html:
    pairs: list[tuple[str, Child]] = [
        (
            fact.name,
            fact.values[0]
            if len(fact.values) == 1
            else [tag("div", value) for value in fact.values],
        )
        for fact in prose.environment(records)
    ]
    return tag("section", tag("h2", "Environment"), _pairs(pairs), class_="card", id="environment")


def _how(records: Sequence[RunRecord]) -> Html | None:
    said = prose.measured(records)
    if not said:
        return None
    probes = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", tool, [tag("br"), tag("code", command)] if command else None),
        )
        for name, tool, command in prose.probes(records)
    ]
    return tag(
        "section",
        tag("h2", "How it was measured"),
        tag("ul", [tag("li", each) for each in said], class_="plain"),
        tag("h3", "Probes"),
        tag("dl", probes, class_="probes"),
        class_="card",
        id="how",
    )


def _data(records: Mapping[Path, RunRecord], base: Path) -> Html:
    return tag(
        "section",
        tag("h2", "Raw data"),
        tag(
            "p",
            "Everything above comes from these records; beside each is what every tool printed.",
            class_="small",
        ),
        [_files(file, record, base) for file, record in records.items()],
        class_="card",
        id="data",
    )


def _files(file: Path, record: RunRecord, base: Path) -> Html:
    names = links.raw_files(record)
    return join(
        tag(
            "p",
            tag("a", f"{file.parent.name}/{file.name}", href=links.relative(file, base)),
            f" {record.scenario}, {record.started_at}",
        ),
        tag(
            "details",
            tag("summary", text.count(len(names), "raw file")),
            tag(
                "ul",
                [
                    tag("li", tag("a", name, href=links.relative(file.parent / "raw" / name, base)))
                    for name in names
                ],
                class_="files",
            ),
        )
        if names
        else None,
    )


# ------------------------------------------------------------------------------------------ parts


def _table(content: Table, *, targets: Sequence[str] = ()) -> Html:
    """A table whose rows become blocks on a narrow screen; its first column names the row."""
    labels = _labels(content)
    head = tag(
        "tr",
        [
            tag(
                "th",
                column.title,
                scope="col",
                role="columnheader",
                class_="right" if column.right else None,
                aria_label=label if label != column.title else None,
            )
            for column, label in zip(content.columns, labels, strict=True)
        ],
        role="row",
    )
    rows = []
    for number, cells in enumerate(content.rows):
        name: Child = tag("a", cells[0], href=targets[number]) if targets else cells[0]
        data = [
            tag(
                "td",
                tag("span", _prose(cell)),
                class_=_cell_class(cell, right=column.right),
                data_label=label,
                role="cell",
            )
            for label, column, cell in zip(labels, content.columns, cells, strict=True)
        ]
        named = tag("th", name, scope="row", role="rowheader")
        rows.append(tag("tr", named, data[1:], role="row"))
    return join(
        tag(
            "table",
            tag("caption", content.title) if content.title else None,
            tag("thead", head, role="rowgroup"),
            tag("tbody", rows, role="rowgroup"),
            class_="stack",
            role="table",
        ),
        tag("div", [tag("p", note) for note in content.notes], class_="small")
        if content.notes
        else None,
    )


def _labels(content: Table) -> list[str]:
    """Titles that can be told apart when the columns are not beside each other any more."""
    labels: list[str] = []
    subject = ratio = ""
    titles = [column.title for column in content.columns]
    for title in titles:
        if title.startswith("× "):
            ratio = f"{subject} {title}" if titles.count(title) > 1 else title
            labels.append(ratio)
        elif title == "interval":
            labels.append(f"{ratio}, interval")
        else:
            subject = title
            labels.append(title)
    return labels


def _cell_class(cell: str, *, right: bool) -> str | None:
    kinds = ["right"] if right else []
    if cell.startswith("✓"):
        kinds.append("good")
    elif cell.startswith(("✗", "NOT")) or cell == "failed":
        kinds.append("bad")
    elif cell in ("", text.NOTHING):
        kinds.append("none")
    return " ".join(kinds) or None


def _quality(good: bool) -> str:
    return "good" if good else "bad"


def _pairs(pairs: Sequence[tuple[str, Child]]) -> Html:
    return tag(
        "dl", [join(tag("dt", name), tag("dd", said)) for name, said in pairs], class_="pairs"
    )


def _prose(said: str) -> Html:
    """Text with its `code` set as code, and its Chinese marked as that."""
    parts = text.plain(said).split("`")
    if len(parts) % 2 == 0:  # a backtick without its other half is one
        parts = ["`".join(parts)]
    return join(
        [tag("code", part) if number % 2 else _spoken(part) for number, part in enumerate(parts)]
    )


def _spoken(said: str) -> Html:
    """Readers aloud and fonts need to know which language it is."""
    pieces: list[Child] = []
    end = 0
    for match in _CHINESE.finditer(said):
        pieces += [said[end : match.start()], tag("span", match[0], lang="zh")]
        end = match.end()
    return join(*pieces, said[end:])


def _when(records: Sequence[RunRecord]) -> str:
    """From the first start to the last, by the minute."""
    starts = sorted(record.started_at[:16].replace("T", " ") for record in records)
    first, last = starts[0], starts[-1]
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC"
