"""Parts of a page that know nothing of what it is about: the document, tables, pairs, prose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from xlab.report import tables, text
from xlab.report.markup import Child, Html, join, tag
from xlab.report.tables import Column, Table

#: Nothing in the page may fetch anything or run, whatever a record holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = Path(__file__).with_name("page.css")
#: From this place in the order in which columns are left out on.
_SPARE = 3
_CHINESE = re.compile(r"([\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]+)")


def document(title: str, header: Html, *sections: Child) -> str:
    """A whole page; `sections` are its main part."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#main", class_="skip"),
        tag("div", header, tag("main", *sections, id="main"), class_="wrap"),
    )
    return f"<!doctype html>\n{tag('html', head, chr(10), body, lang='en')}\n"


def section(title: str, name: str, *children: Child) -> Html:
    """A card of the page; `name` is what links lead to."""
    return tag("section", tag("h2", title), *children, class_="card", id=name)


def details(said: str, *children: Child) -> Html:
    """What opens when it is asked for."""
    return tag("details", tag("summary", said), *children)


def links(targets: Mapping[str, str]) -> Html:
    """Files by their names, each a link."""
    return listed([tag("a", name, href=target) for name, target in targets.items()], "files")


def listed(items: Iterable[Child], kind: str | None = None) -> Html:
    return tag("ul", [tag("li", item) for item in items], class_=kind)


def small(said: Child) -> Html:
    return tag("p", said, class_="small")


def notes(said: Sequence[str]) -> Html | None:
    """In small print, a paragraph each."""
    return tag("div", [tag("p", each) for each in said], class_="small") if said else None


def table(content: Table, *, targets: Mapping[str, str] | None = None, brief: bool = False) -> Html:
    """A table whose rows become blocks on a narrow screen; its first column names the row.

    A row's name leads to its target, and what is wrong in it to what explains it there.  A `brief`
    one is there without its most expendable columns.
    """
    labels = tables.labels(content)
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
    for cells in content.rows:
        name = cells[0]
        link = tag("a", name, href=targets[name]) if targets and name in targets else name
        data = [
            tag(
                "td",
                tag("span", _explained(cell, column, (targets or {}).get(name, ""))),
                class_=_cell_class(cell, column),
                data_label=label,
                role="cell",
            )
            for label, column, cell in zip(labels, content.columns, cells, strict=True)
        ]
        named = tag("th", link, scope="row", role="rowheader")
        rows.append(tag("tr", named, data[1:], role="row"))
    return join(
        tag(
            "table",
            tag("caption", content.title) if content.title else None,
            tag("thead", head, role="rowgroup"),
            tag("tbody", rows, role="rowgroup"),
            class_="stack brief" if brief else "stack",
            role="table",
        ),
        notes(content.notes),
    )


#: Columns whose places in a row's target have a name of their own.
_PLACES = ("claims", "path")


def _explained(cell: str, column: Column, target: str) -> Html:
    if not target or not cell.startswith("✗"):
        return prose(cell)
    place = f"-{column.title}" if column.title in _PLACES else ""
    return tag("a", prose(cell), href=f"{target}{place}")


def _cell_class(cell: str, column: Column) -> str | None:
    kinds = ["right"] if column.right else []
    if column.expendable >= _SPARE:
        kinds.append("spare")
    if cell.startswith("✓"):
        kinds.append("good")
    elif cell.startswith(("✗", "NOT")) or cell == "failed":
        kinds.append("bad")
    elif cell in ("", text.NOTHING):
        kinds.append("none")
    return " ".join(kinds) or None


def pairs(pairs: Sequence[tuple[str, Child]]) -> Html:
    return tag(
        "dl", [join(tag("dt", name), tag("dd", said)) for name, said in pairs], class_="pairs"
    )


def prose(said: str) -> Html:
    """Text with its `code` set as code, and its Chinese marked as that."""
    parts = text.plain(said).split("`")
    if len(parts) % 2 == 0:  # a backtick without its other half is one
        parts = ["`".join(parts)]
    return join(
        [tag("code", part) if number % 2 else _spoken(part) for number, part in enumerate(parts)]
    )


def _spoken(said: str) -> Html:
    """Readers aloud and fonts need to know which language it is."""
    pieces = enumerate(_CHINESE.split(said))  # every second one is what it was split at
    return join([tag("span", piece, lang="zh") if i % 2 else piece for i, piece in pieces])
