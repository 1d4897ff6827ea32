"""Diagrams in Mermaid's flowchart notation, drawn as SVG when the site is built.

GitHub draws them in the reader's browser; here that would take a program of some megabytes from
another host.  Of the notation there is what our documents use: `flowchart TD`, `a --> b & c`,
`a -->|words| b`, `a[words]`, `a{words}`.  Anything else stays as it is written.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r"\s*(\w+)\s*(?:[\[({]+\"?(.*?)\"?[\])}]+)?\s*")
_AND = re.compile(r"&(?![^\[{(]*[\]})])")
_ARROW = re.compile(r"-->(?:\|\"?(.*?)\"?\|)?")

_CHARACTER, _HEIGHT, _GAP, _FLOOR, _SIDE = 8.6, 30, 26, 64, 80


@dataclass(frozen=True, slots=True)
class Arrow:
    start: str
    end: str
    words: str


def on_page_markdown(markdown: str, **_: object) -> str:
    return _BLOCK.sub(lambda match: drawn(match[1]) or match[0], markdown)


def drawn(notation: str) -> str:
    """The SVG of a flowchart; empty if it is more than can be drawn here."""
    first, *rest = [line.strip() for line in notation.splitlines() if line.strip()]
    if not re.fullmatch(r"(flowchart|graph) (TD|TB)", first):
        return ""
    labels: dict[str, str] = {}
    arrows: list[Arrow] = []
    for line in rest:
        parts = _ARROW.split(line)
        sides = [[_NODE.fullmatch(one) for one in _AND.split(part)] for part in parts[::2]]
        if not all(all(side) for side in sides):
            return ""
        named = [[match for match in side if match] for side in sides]
        for match in (one for side in named for one in side):
            if match[2] or match[1] not in labels:
                labels[match[1]] = match[2] or match[1]
        for start, end, words in zip(named, named[1:], parts[1::2], strict=False):
            arrows += [Arrow(a[1], b[1], words or "") for a in start for b in end]
    return _svg(labels, arrows)


def _svg(labels: dict[str, str], arrows: list[Arrow]) -> str:
    floors = _floors(labels, arrows)
    rows: dict[int, list[str]] = {}
    for name in labels:
        rows.setdefault(floors[name], []).append(name)
    wide = {name: len(text) * _CHARACTER + 24 for name, text in labels.items()}
    spans = {f: sum(wide[n] for n in row) + _GAP * (len(row) - 1) for f, row in rows.items()}
    # Long arrows pass boxes at the side.
    width = max(spans.values()) + 2 * _SIDE
    at: dict[str, tuple[float, float]] = {}
    for floor, row in rows.items():
        x = (width - spans[floor]) / 2
        for name in row:
            at[name] = (x + wide[name] / 2, 8 + floor * _FLOOR)
            x += wide[name] + _GAP
    height = 16 + max(floors.values()) * _FLOOR + _HEIGHT
    said = html.escape("; ".join(f"{labels[a.start]} to {labels[a.end]}" for a in arrows))
    parts = [
        f'<div class="diagram"><svg viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" ',
        f'role="img" aria-label="{said}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" ',
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    side = 1
    for arrow in arrows:
        (x1, top), (x2, y2) = at[arrow.start], at[arrow.end]
        y1, middle, reach = top + _HEIGHT, None, 22
        if floors[arrow.end] - floors[arrow.start] > 1:
            middle, reach, side = width / 2 + side * (width / 2 - 20), 40, -side
        bend1, bend2 = (x1, x2) if middle is None else (middle, middle)
        parts.append(
            f'<path class="arrow" marker-end="url(#tip)" d="M{x1:.0f} {y1:.0f}C{bend1:.0f} '
            f'{y1 + reach:.0f} {bend2:.0f} {y2 - reach:.0f} {x2:.0f} {y2:.0f}"/>'
        )
        if arrow.words:
            x, y = (x1 + x2) / 2, (y1 + y2) / 2 + 4
            words = html.escape(arrow.words)
            parts.append(f'<text class="words" x="{x:.0f}" y="{y:.0f}">{words}</text>')
    for name, (x, y) in at.items():
        parts.append(
            f'<rect x="{x - wide[name] / 2:.0f}" y="{y:.0f}" width="{wide[name]:.0f}" '
            f'height="{_HEIGHT}" rx="4"/>'
            f'<text x="{x:.0f}" y="{y + 20:.0f}">{html.escape(labels[name])}</text>'
        )
    return "".join([*parts, "</svg></div>\n"])


def _floors(labels: dict[str, str], arrows: list[Arrow]) -> dict[str, int]:
    """Each below all that lead to it."""
    floors = dict.fromkeys(labels, 0)
    for _ in labels:
        for arrow in arrows:
            floors[arrow.end] = max(floors[arrow.end], floors[arrow.start] + 1)
    return floors
