"""A word of the glossary leads there where a page first uses it.

docs/glossary.md has a heading a term.  By itself a term is found by its name, singular or plural; a
comment `<!-- linked from: EXPRESSION -->` below it says otherwise, for words that also mean
something else ("control of the network"); a group in it is what becomes the link.  Code, headings
and links are left alone.
"""

from __future__ import annotations

import functools
import html
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from mkdocs.structure.pages import Page

GLOSSARY = Path(__file__).resolve().parents[1] / "glossary.md"
#: Whose words are not prose.
_NOT_IN = {"glossary.md", "CHANGELOG.md"}
_LEFT_ALONE = {"a", "code", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "th", "svg", "script", "dt"}
_TAG = re.compile(r"(<!--.*?-->|<[^>]+>)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Term:
    name: str
    anchor: str
    #: What becomes the link is its group, if it has one.
    found_by: re.Pattern[str]
    #: Its first sentence.
    told: str


@functools.cache
def terms(file: Path = GLOSSARY) -> tuple[Term, ...]:
    """All there are, longer names first: "negative control" is no control."""
    found = []
    for part in re.split(r"(?m)^## ", file.read_text(encoding="utf-8"))[1:]:
        name, _, text = part.partition("\n")
        said = re.search(r"<!-- linked from: (.*?) -->", text)
        pattern = said[1] if said else f"{re.escape(name)}s?"
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", text.partition("<!--")[0])
        sentence = re.split(r"(?<=\.)\s", " ".join(plain.split()))[0]
        found_by = re.compile(rf"\b(?:{pattern.strip()})", re.IGNORECASE)
        found.append(Term(name, name.replace(" ", "-").lower(), found_by, sentence))
    return tuple(sorted(found, key=lambda term: -len(term.name)))


def on_page_content(content: str, page: Page, **_: object) -> str:
    uri = page.file.src_uri
    if uri in _NOT_IN or page.meta.get("search") == {"exclude": True}:
        return content
    depth = posixpath.relpath("glossary.html", posixpath.dirname(page.file.dest_uri) or ".")
    return linked(content, depth)


def linked(content: str, glossary: str) -> str:
    """HTML with each term's first use as a link to `glossary`."""
    waiting = list(terms())
    open_tags: list[str] = []
    parts = _TAG.split(content)
    for number, part in enumerate(parts):
        if number % 2:
            _follow(part, open_tags)
        elif part.strip() and not _LEFT_ALONE & set(open_tags):
            parts[number] = _with_links(part, waiting, glossary)
    return "".join(parts)


def _follow(tag: str, open_tags: list[str]) -> None:
    match = re.match(r"</?([a-z0-9]+)", tag)
    if not match or match[1] in {"br", "img", "hr", "input", "wbr"} or tag.endswith("/>"):
        return
    if tag.startswith("</"):
        while open_tags and open_tags.pop() != match[1]:
            pass
    else:
        open_tags.append(match[1])


def _with_links(text: str, waiting: list[Term], glossary: str) -> str:
    made: list[str] = []
    while found := _first(text, waiting):
        start, end, term = found
        waiting.remove(term)
        made.append(
            f'{text[:start]}<a class="term" href="{glossary}#{term.anchor}" '
            f'title="{html.escape(term.told)}">{text[start:end]}</a>'
        )
        text = text[end:]
    return "".join([*made, text])


def _first(text: str, waiting: list[Term]) -> tuple[int, int, Term] | None:
    """Where the first term of a text is; of two at one place the longer."""
    found = []
    for place, term in enumerate(waiting):
        if match := term.found_by.search(text):
            start, end = match.span(match.lastindex or 0)
            # NODE is what a command takes, not a word; GRE is one.
            if not text[start:end].isupper() or term.name.isupper():
                found.append((start, place, end, term))
    if not found:
        return None
    start, _, end, term = min(found, key=lambda each: each[:2])
    return start, end, term
