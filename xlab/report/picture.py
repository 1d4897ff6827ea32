"""A topology as a picture: SVG for a page, drawn upright so that a phone shows it at full size.

    ┌ h1 ────────────┐      the first host, containers on top
    │ c1  c2         │
    │ └ br0 ┐        │      the way of the proof's packets is one thick line
    │     eth0       │
    └───────┼────────┘
      wire  │               what is on the wire, header by header
    ┌ h2 ───┼────────┐      the last host, upside down

Colours and fonts are the page's (page.css, classes p-…); lengths are in px at a width of 340.
"""

from __future__ import annotations

from collections.abc import Sequence

from xlab.report import text
from xlab.report.markup import Html, join, tag
from xlab.report.topology import CONTAINERS_SHOWN, Part, Site, Topology, way, wire_kind

WIDTH = 340
_LEFT, _RIGHT = 14, 326
#: Below the bridge the packets' way is at this x, all along the wire.
_LANE = 268
_TITLE_H, _CONTAINER_H, _BAR_H, _PART_H, _LINK_H = 24, 40, 26, 38, 16
_HEADER_H = 20


def draw(shown: Topology, name: str) -> Html:
    """The picture; `name` is unique in its page, and begins the ids in it."""
    first_h, last_h = _site_height(shown.first), _site_height(shown.last)
    wire, wire_h = _wire(shown, y=first_h + 1)
    height = 1 + first_h + wire_h + last_h + 1
    parts = [
        _way_on_wire(shown, first_h + 1, wire_h),
        _site(shown.first, y=1, upright=True, proved=shown.proved),
        wire,
        _site(shown.last, y=1 + first_h + wire_h, upright=False, proved=shown.proved),
    ]
    return tag(
        "svg",
        tag(
            "title",
            f"{shown.first.name} and {shown.last.name}, and the wire between",
            id=f"{name}-t",
        ),
        tag("desc", describe(shown), id=f"{name}-d"),
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_="picture",
    )


def describe(shown: Topology) -> str:
    """What the picture shows, for whoever does not see it."""
    said = [f"{'Proved' if shown.proved else 'Not proved'}: {way(shown)}."]
    for site in (shown.first, shown.last):
        listed = ", ".join(f"{part.name} {part.note}".strip() for part in site.containers)
        more = f" and {site.more_containers} more" if site.more_containers else ""
        said.append(f"{site.name} {site.address}".strip() + f" has containers {listed}{more}.")
    if shown.more_hosts:
        said.append(f"{text.count(shown.more_hosts, 'more host')} are not drawn.")
    return " ".join(said)


# --------------------------------------------------------------------------------------- the hosts


def _site_height(site: Site) -> int:
    middle = _PART_H + _LINK_H if site.between else 0
    bridge = _BAR_H + _LINK_H if site.bridge else _LINK_H
    containers = _CONTAINER_H + _LINK_H if site.containers else 0
    return _TITLE_H + containers + bridge + middle + _BAR_H + 12


def _site(site: Site, *, y: int, upright: bool, proved: bool) -> Html:
    """A host with its top at `y`; its containers are at the far end from the wire."""
    height = _site_height(site)
    rows: list[Html] = []
    links: list[Html] = []
    offset = _TITLE_H if upright else 12

    def place(size: int, distance: int) -> int:
        """The top of a row that starts `distance` from the containers' end."""
        return y + offset + distance if upright else y + height - _TITLE_H - distance - size

    def link(x: float, distance: int, size: int, *, on_path: bool) -> None:
        top = place(size, distance)
        links.append(_line([(x, top), (x, top + size)], on_path=on_path, proved=proved))

    distance = 0
    if site.containers:
        top = place(_CONTAINER_H, distance)
        boxes = _containers(site)
        rows.extend(_box(part, x, top, width, _CONTAINER_H) for part, x, width in boxes)
        distance += _CONTAINER_H
        for part, x, width in boxes:
            if part.name:
                link(x + width / 2, distance, _LINK_H, on_path=part.on_path)
        distance += _LINK_H
    if site.bridge:
        rows.append(_bar(site.bridge, place(_BAR_H, distance)))
        distance += _BAR_H
    if site.between:
        top = place(_PART_H, distance + _LINK_H)
        bypassed = not site.between[0].on_path
        link(_centre(site.between, 0), distance, _LINK_H, on_path=not bypassed)
        if bypassed:
            link(_LANE, distance, _LINK_H + _PART_H, on_path=True)
        links.extend(_joints(site.between, top, proved=proved))
        rows.extend(
            _box(part, _centre(site.between, i) - _part_width(site.between) / 2, top,
                 _part_width(site.between), _PART_H)
            for i, part in enumerate(site.between)
        )  # fmt: skip
        distance += _LINK_H + _PART_H
    link(_LANE, distance, _LINK_H, on_path=_any_on_path(site))
    distance += _LINK_H
    rows.append(_bar(site.interface, place(_BAR_H, distance)))
    title_y = y + 17 if upright else y + height - 8
    return tag(
        "g",
        tag("rect", x=1, y=y, width=WIDTH - 2, height=height, rx=8, class_="p-host"),
        _words(_LEFT, title_y, text.cut(site.name, 18), "p-name"),
        _words(_RIGHT, title_y, site.address, "p-note", anchor="end"),
        links,
        rows,
    )


def _containers(site: Site) -> list[tuple[Part, float, float]]:
    """The boxes of the containers row: what is in each, its left edge and width."""
    parts = list(site.containers)
    if site.more_containers:
        parts.append(Part("", f"+ {site.more_containers:,} more", on_path=False))
    gap = 8
    columns = min(max(len(parts), 1), CONTAINERS_SHOWN)
    width = (_RIGHT - _LEFT - gap * (columns - 1)) / columns
    return [(part, _LEFT + i * (width + gap), width) for i, part in enumerate(parts)]


def _joints(parts: Sequence[Part], y: int, *, proved: bool) -> list[Html]:
    """What joins parts that stand side by side."""
    middle = y + _PART_H / 2
    return [
        _line(
            [(_centre(parts, i), middle), (_centre(parts, i + 1), middle)],
            on_path=part.on_path,
            proved=proved,
        )
        for i, part in enumerate(parts[:-1])
    ]


def _centre(parts: Sequence[Part], number: int) -> float:
    """Where a part stands: the last one on the lane, or all of them left of it if it passes by."""
    width = _part_width(parts)
    if not parts[0].on_path:
        return _LEFT + number * (width + 14) + width / 2
    return _LANE - (len(parts) - 1 - number) * (width + 26)


def _part_width(parts: Sequence[Part]) -> float:
    return 108 if len(parts) > 1 else 116


def _any_on_path(site: Site) -> bool:
    return any(part.on_path for part in (*site.containers, *site.between))


def _bar(part: Part, y: int) -> Html:
    """A bridge or an interface, as wide as its host."""
    return join(
        _shape(part, _LEFT, y, _RIGHT - _LEFT, _BAR_H),
        _words(_LEFT + 10, y + 17, part.name, "p-name"),
        _words(_RIGHT - 10, y + 17, text.cut(part.note, 34), "p-note", anchor="end"),
    )


def _box(part: Part, x: float, y: int, width: float, height: int) -> Html:
    """A container or a port: its name, and beneath it its address."""
    middle = x + width / 2
    room = int(width / 6.4)
    name = f"{part.name} · {part.interface}" if part.interface else part.name
    if not part.name:
        words = [_words(middle, y + height / 2 + 4, part.note, "p-note", anchor="middle")]
    elif not part.note:
        words = [
            _words(middle, y + height / 2 + 4, text.cut(name, room), "p-name", anchor="middle")
        ]
    else:
        words = [
            _words(middle, y + height / 2 - 3, text.cut(name, room), "p-name", anchor="middle"),
            _words(
                middle, y + height / 2 + 12, text.cut(part.note, room), "p-note", anchor="middle"
            ),
        ]
    return join(_shape(part, x, y, width, height), *words)


def _shape(part: Part, x: float, y: float, width: float, height: float) -> Html:
    kind = "p-part p-used" if part.on_path else "p-part"
    return tag("rect", x=x, y=y, width=width, height=height, rx=5, class_=kind)


# ---------------------------------------------------------------------------------------- the wire


def _wire(shown: Topology, *, y: int) -> tuple[Html, int]:
    """What is on the wire, and how much room that takes."""
    lines: list[Html | None] = []
    at = y + 24
    title = wire_kind(shown.encapsulation)
    lines.append(_words(_LEFT, at, title, "p-name"))
    at += 17
    for said, kind in _wire_facts(shown):
        lines.append(_words(_LEFT, at, text.cut(said, 40), kind))
        at += 16
    at += 2
    lines.append(_frame(shown, at))
    at += _HEADER_H + 22
    return tag("g", lines), at - y


def _wire_facts(shown: Topology) -> list[tuple[str, str]]:
    facts = []
    if shown.packets is not None:
        mark = "✓" if shown.proved else "✗"
        facts.append(
            (f"{mark} {shown.packets} of the proof", "p-good" if shown.proved else "p-bad")
        )
    mtu = f", MTU {shown.mtu}" if shown.mtu else ""
    facts.append((f"{shown.fabric}{mtu}", "p-note"))
    if shown.conditions:
        facts.append((", ".join(shown.conditions), "p-note"))
    if shown.more_hosts:
        facts.append((f"and {text.count(shown.more_hosts, 'more host')}", "p-note"))
    return facts


def _frame(shown: Topology, y: int) -> Html:
    """One frame as it crosses the wire: each header with its length, then what is inside."""
    inside = f"IP ≤ {shown.effective_mtu}" if shown.effective_mtu else "IP"
    cells = [(_SHORT.get(name, name), f"{size}", "p-outer") for name, size in shown.headers]
    cells.append((inside, "bytes each", "p-inner"))
    widths = [max(_width(name), _width(size)) + 9 for name, size, _ in cells]
    drawn: list[Html | None] = []
    x = float(_LEFT)
    for (name, size, kind), width in zip(cells, widths, strict=True):
        drawn.append(tag("rect", x=x, y=y, width=width, height=_HEADER_H, class_=f"p-cell {kind}"))
        drawn.append(_words(x + width / 2, y + 14, name, "p-small", anchor="middle"))
        drawn.append(_words(x + width / 2, y + _HEADER_H + 13, size, "p-tiny", anchor="middle"))
        x += width
    return join(drawn)


_SHORT = {"Ethernet": "Eth"}


def _way_on_wire(shown: Topology, y: int, height: int) -> Html:
    return _line([(_LANE, y - 12), (_LANE, y + height + 12)], on_path=True, proved=shown.proved)


# ------------------------------------------------------------------------------------------- ink


def _line(points: Sequence[tuple[float, float]], *, on_path: bool, proved: bool) -> Html:
    path = " ".join(f"{'L' if i else 'M'}{x:.5g} {y:.5g}" for i, (x, y) in enumerate(points))
    kind = "p-link" if not on_path else "p-way" if proved else "p-way p-doubt"
    return tag("path", d=path, class_=kind)


def _words(
    x: float, y: float, content: str, kind: str, *, anchor: str | None = None
) -> Html | None:
    if not content:
        return None
    return tag("text", content, x=x, y=y, class_=kind, text_anchor=anchor)


def _width(content: str) -> float:
    """Roughly how wide small text is drawn, in px."""
    return 5.9 * text.columns(content)
