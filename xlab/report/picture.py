"""A network as a picture, whether it stands now (graph.py) or a record tells of it (topology.py).

    ┌ h1 ────────────┐ ┌ h2 ───     sites side by side, their rows level with each other
    │ c1  c2         │ │            row 0  containers
    │ br0 ────────── │ │ br0        row 1  Linux bridges
    │ obr0 ┄┄┄┄┄┄┄┄┄┄┼┄┼ obr0       row 2  what tunnels
    │ eth0           │ │ eth0       row 3  the interface
    └──┼─────────────┘ └──┼───
      s1 ─────────────────────      row 4  switches, or the wire and what is on it
    ┌──┼─────────────               sites beneath, upside down

A row is as wide as its site, so that cables go straight down; where one passes a row by, the row
leaves it a lane.  Last stands what the signs mean that occur.  Lengths are in px.  Colours and
fonts of a page's pictures are the page's (page.css, classes p-…); a picture by itself brings its
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xlab.report import text
from xlab.report.markup import Html, join, tag


@dataclass(frozen=True, slots=True)
class Box:
    """A container, a bridge, a port, an interface or a switch."""

    id: str
    name: str
    notes: tuple[str, ...]
    row: int
    up: bool = True
    #: Whether the packets of a proof pass it.
    on_path: bool = False
    #: A frame as it crosses the wire: each header and its length, and last what is inside.
    frame: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Cable:
    """What joins two boxes, each named by its id."""

    a: str
    b: str
    label: str = ""
    #: "link", "routed" or "tunnel"; "way" or "doubt" is where a proof's packets went or should.
    kind: str = "link"
    up: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A host, from its containers down to its interface."""

    name: str
    boxes: tuple[Box, ...]
    up: bool = True
    #: Its address, or what is wrong with it.
    note: str = ""

    def row(self, number: int) -> list[Box]:
        return [box for box in self.boxes if box.row == number]


@dataclass(frozen=True, slots=True)
class Network:
    title: str
    sites: tuple[Site, ...]
    switches: tuple[Box, ...]
    cables: tuple[Cable, ...] = ()
    #: Sites drawn beneath the switches.
    beneath: tuple[Site, ...] = ()
    faults: tuple[str, ...] = ()
    #: What to say of it before what is where.
    words: str = ""

    def boxes(self) -> Iterator[Box]:
        for site in (*self.sites, *self.beneath):
            yield from site.boxes
        yield from self.switches


def draw(shown: Network, name: str, *, width: float) -> Html:
    """A picture so wide, for a page; `name` is unique in it, and begins the ids in it."""
    drawing = _Drawing(shown, width)
    return tag(
        "svg",
        tag("title", shown.title, id=f"{name}-t"),
        tag("desc", describe(shown), id=f"{name}-d"),
        drawing.ink(),
        viewBox=f"0 0 {drawing.width:g} {drawing.height:g}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
        class_="picture",
    )


def document(shown: Network) -> str:
    """A picture by itself, as wide as its boxes want, its title and the faults above it."""
    drawing = _Drawing(shown, top=34 + 16 * len(shown.faults))
    picture = tag(
        "svg",
        tag("title", shown.title),
        Html(f"<style>{_STYLE}</style>"),
        tag("rect", width=drawing.width, height=drawing.height, fill="#fff"),
        _words(10, 20, shown.title, "p-name"),
        [_words(10, 38 + 16 * i, f"fault: {f}", "p-bad") for i, f in enumerate(shown.faults)],
        drawing.ink(),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {drawing.width:g} {drawing.height:g}",
        width=drawing.width,
        height=drawing.height,
        class_="picture",
    )
    return f"{picture}\n"


def describe(shown: Network) -> str:
    """What is where, for whoever does not see it."""
    sites = (*shown.sites, Site("between", shown.switches), *shown.beneath)
    return shown.words + " ".join(
        f"{site.name} {site.note}".strip()
        + f": {'; '.join(' '.join((box.name, *box.notes)).strip() for box in site.boxes)}."
        for site in sites
    )


#: Of a picture by itself, in the page's light colours.
_STYLE = """
.picture text { font: 11.5px system-ui, sans-serif; fill: #59626d }
.picture .p-name { font-weight: 600; fill: #1b1f24 } .picture .p-bad { fill: #a63a00 }
.p-host { fill: #f4f5f7; stroke: #87919c } .p-part { fill: #fff; stroke: #87919c }
.p-link, .p-routed { fill: none; stroke: #87919c; stroke-width: 1.5 }
.p-routed { stroke-dasharray: 2 4 }
.p-tunnel { fill: none; stroke: #d55e00; stroke-width: 2; stroke-dasharray: 7 4 }
.p-label { paint-order: stroke; stroke: #fff; stroke-width: 3px }
.p-down { stroke: #a63a00; stroke-dasharray: 4 }
"""

_BOX_W, _GAP, _SITE_GAP, _LINE_H, _TITLE_H, _FRAME_H = 232, 10, 20, 15, 26, 40
#: Beneath a row: usually, where tunnels bend, and where cables have names.
_ROW_H, _BEND_H, _NAMED_H = 18, 66, 34
#: What a row leaves free, on its right, for cables that pass it by.
_LANE = 60
#: From this width on a box has room for its only note beside its name.
_WIDE = 200
#: What each kind of line stands for, by its class.
LINES = {
    "p-link": "cable, bridge port",
    "p-routed": "routed by the host",
    "p-tunnel": "tunnel between hosts",
    "p-way": "way of the proof's packets",
    "p-doubt": "way that was to be proved",
}
_SIGN_W, _LEGEND_H = 22, 18
#: How wide a letter is drawn, roughly.
_EM, _SMALL_EM = 6.4, 5.9


class _Place(NamedTuple):
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


class _Drawing:
    """Where everything stands."""

    def __init__(self, shown: Network, width: float | None = None, *, top: float = 0) -> None:
        self._shown = shown
        self._boxes: dict[str, tuple[Box, _Place]] = {}
        self._frames: dict[str, _Place] = {}
        #: Cables that pass rows of a site by, and the rows that make room for them.
        self._aside: dict[Cable, Site] = {}
        self._passed: set[tuple[str, int]] = set()
        self._find_lanes()
        wanted = sum(_wanted(site) + _SITE_GAP for site in shown.sites)
        self.width = width or max(wanted, _BOX_W) - _SITE_GAP + 2
        y = self._stand(shown.sites, top + 1)
        y += _NAMED_H if any(cable.label for cable in shown.cables) else _ROW_H
        y = self._spread([(self._ordered(shown.switches), 1, self.width - 2)], y)
        y += _BEND_H if self._bends(shown.switches) else _ROW_H if shown.beneath else 1
        y = self._stand(shown.beneath, y, upside_down=True) + 1 if shown.beneath else y
        self._legend = tuple(_legend(shown, self.width, y + _LEGEND_H))
        self.height = max(at for _, _, _, at in self._legend) + 8

    def ink(self) -> list[Html]:
        sites = (*self._shown.sites, *self._shown.beneath)
        cables = [self._cable(c) for c in self._shown.cables]
        return [
            *(self._frame(site) for site in sites),
            *(line for line, _ in cables),
            *(_box(box, place) for box, place in self._boxes.values()),
            *(label for _, label in cables if label),
            *(_sign(*each) for each in self._legend),
        ]

    # -- places ------------------------------------------------------------------------------------

    def _stand(self, sites: Sequence[Site], top: float, *, upside_down: bool = False) -> float:
        """Place sites side by side; returns where they end."""
        factor = (self.width - 2 - _SITE_GAP * (len(sites) - 1)) / sum(map(_wanted, sites))
        widths = [_wanted(site) * factor for site in sites]
        lefts = [1 + sum(widths[:i]) + _SITE_GAP * i for i in range(len(sites))]
        y, between = top + (_GAP if upside_down else _TITLE_H), 0.0
        for row in sorted({b.row for site in sites for b in site.boxes}, reverse=upside_down):
            y += between
            strips = []
            for site, left, width in zip(sites, lefts, widths, strict=True):
                lane = _LANE if (site.name, row) in self._passed else 0
                strips.append((site.row(row), left + _GAP, width - 2 * _GAP - lane))
            y = self._spread(strips, y)
            between = _BEND_H if self._bends([b for s in sites for b in s.row(row)]) else _ROW_H
        y += _TITLE_H if upside_down else _GAP
        for site, left, width in zip(sites, lefts, widths, strict=True):
            self._frames[site.name] = _Place(left, top, width, y - top)
        return y

    def _spread(self, strips: Sequence[tuple[Sequence[Box], float, float]], top: float) -> float:
        """Place boxes side by side from a left edge, so wide together; returns where they end."""
        found = [
            (box, left + i * (width + _GAP) / len(boxes), (width + _GAP) / len(boxes) - _GAP)
            for boxes, left, width in strips
            for i, box in enumerate(boxes)
        ]
        height = max((_height(box, width) for box, _, width in found), default=0)
        for box, left, width in found:
            self._boxes[box.id] = box, _Place(left, top, width, height)
        return top + height

    def _ordered(self, switches: Sequence[Box]) -> list[Box]:
        """Each as near as can be to what is plugged into it."""

        def middle(switch: Box) -> float:
            above = [c.a for c in self._shown.cables if c.b == switch.id and c.a in self._boxes]
            return sum(self._boxes[id_][1].middle for id_ in above) / (len(above) or 1)

        return sorted(switches, key=middle)

    def _find_lanes(self) -> None:
        sites = (*self._shown.sites, *self._shown.beneath)
        homes = {box.id: (site, box.row) for site in sites for box in site.boxes}
        for cable in self._shown.cables:
            (site, one), (other, two) = (homes.get(id_, (None, 0)) for id_ in (cable.a, cable.b))
            if site and site is other:
                between = {row for row in range(min(one, two) + 1, max(one, two)) if site.row(row)}
                self._passed |= {(site.name, row) for row in between}
                if between:
                    self._aside[cable] = site

    def _bends(self, boxes: Sequence[Box]) -> bool:
        """Whether a cable between two of these boxes bends beneath them: a tunnel, or a trunk."""
        ids = {box.id for box in boxes}
        return any(_bent(c) and c.a in ids and c.b in ids for c in self._shown.cables)

    # -- ink ---------------------------------------------------------------------------------------

    def _frame(self, site: Site) -> Html:
        x, top, width, height = place = self._frames[site.name]
        y = top + 18 if site in self._shown.sites else place.bottom - 9
        return join(
            tag("rect", x=x, y=top, width=width, height=height, rx=8,
                class_="p-host" if site.up else "p-host p-down"),
            _words(x + _GAP, y, text.cut(site.name, 24), "p-name"),
            _words(place.right - _GAP, y, text.cut(site.note, int(width / _EM) - 26),
                   "p-note" if site.up else "p-bad", anchor="end"),
        )  # fmt: skip

    def _cable(self, cable: Cable) -> tuple[Html, Html | None]:
        """The line and its label, which stands above all boxes."""
        (one, a), (two, b) = self._boxes[cable.a], self._boxes[cable.b]
        kind = f"p-{cable.kind}" if cable.up else f"p-{cable.kind} p-down"
        left, right = sorted((a, b), key=lambda place: place.x)
        if one.row == two.row and _bent(cable):
            x1, x2, y = left.right - 24, right.x + 24, left.bottom
            dip = min(16 + (x2 - x1) / 24, _BEND_H - 24)
            middle = (x1 + x2) / 2
            path = f"M{x1:g} {y:g} Q{middle:g} {y + 2 * dip:g} {x2:g} {y:g}"
            label = _words(middle, y + dip + 13, cable.label, "p-label", anchor="middle")
            return tag("path", d=path, class_=kind), label
        if one.row == two.row:
            y = left.y + left.height / 2
            return _line((left.right, y), (right.x, y), kind), None
        upper, lower = sorted((a, b), key=lambda place: place.y)
        narrow, wide = sorted((a, b), key=lambda place: place.width)
        near, anchor = narrow.middle, None
        if cable in self._aside:
            near, anchor = self._frames[self._aside[cable].name].right - _GAP - 14, "end"
        far = min(max(near, wide.x + 14), wide.right - 14)
        x1, x2 = (near, far) if narrow is upper else (far, near)
        # Near the upper end, where cables are apart.
        x, y = 0.6 * x1 + 0.4 * x2, 0.6 * upper.bottom + 0.4 * lower.y
        label = _words(x + (-5 if anchor else 5), y + 6, cable.label, "p-label", anchor=anchor)
        return _line((x1, upper.bottom), (x2, lower.y), kind), label


def _legend(shown: Network, width: float, y: float) -> Iterator[tuple[str, str, float, float]]:
    """Each sign that occurs, what it stands for and where: from `y` on, in lines so wide."""
    x = 1.0
    for sign, said in _signs(shown):
        wide = _SIGN_W + 6 + _EM * text.columns(said) + 12
        if x > 1 and x + wide - 12 > width:
            x, y = 1.0, y + _LEGEND_H
        yield sign, said, x, y
        x += wide


def _signs(shown: Network) -> Iterator[tuple[str, str]]:
    """By its class, what each stands for; that of a box on the way is the way's."""
    boxes = list(shown.boxes())
    yield "p-host", "host" if shown.beneath else "host, gateway"
    if any(not box.on_path for box in boxes):
        switch = "" if all(box.on_path for box in shown.switches) else ", switch"
        yield "p-part", f"container, interface, bridge{switch}"
    ups = [part.up for parts in (boxes, shown.sites, shown.cables) for part in parts]
    if not all(ups):
        yield "p-part p-down", "down, be it box or line"
    if any(len(box.frame) > 1 for box in boxes):
        yield "p-cell p-outer", "header on the wire"
    drawn = {f"p-{cable.kind}" for cable in shown.cables}
    yield from ((sign, said) for sign, said in LINES.items() if sign in drawn)


def _sign(sign: str, said: str, x: float, y: float) -> Html:
    kind = f"p-sign {sign}"
    shape = (
        _line((x, y - 4), (x + _SIGN_W, y - 4), kind)
        if sign in LINES
        else tag("rect", x=x, y=y - 10, width=_SIGN_W, height=12, rx=3, class_=kind)
    )
    return tag("g", shape, _words(x + _SIGN_W + 6, y, said, "p-note"))


def _bent(cable: Cable) -> bool:
    return cable.kind == "tunnel" or bool(cable.label)


def _wanted(site: Site) -> float:
    most = max((len(site.row(row)) for row in range(4)), default=0)
    return max(most, 1) * (_BOX_W + _GAP) + _GAP


def _height(box: Box, width: float) -> float:
    lines = bool(box.name) + len(box.notes)
    return 12 + _LINE_H * (1 if _is_bar(box, width) else lines) + (_FRAME_H if box.frame else 0)


def _is_bar(box: Box, width: float) -> bool:
    """Whether its only note stands beside its name."""
    return len(box.notes) == 1 and width >= _WIDE and bool(box.name)


def _box(box: Box, place: _Place) -> Html:
    x, y, width, height = place
    kind = "p-part" + " p-used" * box.on_path + " p-down" * (not box.up)
    room = int((width - 12) / _EM)
    words = [_words(x + 8, y + 17, text.cut(box.name, room), "p-name")] if box.name else []
    for i, note in enumerate(box.notes, len(words)):
        mark = {"✓": "p-good", "✗": "p-bad"}.get(note[:1], "p-note")
        if _is_bar(box, width):
            said = text.cut(note, room - text.columns(box.name) - 2)
            words.append(_words(place.right - 8, y + 17, said, mark, anchor="end"))
        else:
            words.append(_words(x + 8, y + 17 + _LINE_H * i, text.cut(note, room), mark))
    shape = tag("rect", x=x, y=y, width=width, height=height, rx=5, class_=kind)
    return tag("g", shape, words, _cells(box.frame, x + 8, y + height - _FRAME_H))


def _cells(frame: Sequence[tuple[str, str]], x: float, y: float) -> Iterator[Html]:
    for i, (name, size) in enumerate(frame, 1):
        width = _SMALL_EM * max(text.columns(name), text.columns(size)) + 11
        kind = "p-cell p-inner" if i == len(frame) else "p-cell p-outer"
        yield tag("rect", x=x, y=y, width=width, height=20, class_=kind)
        yield _words(x + width / 2, y + 14, name, "p-small", anchor="middle")
        yield _words(x + width / 2, y + 33, size, "p-tiny", anchor="middle")
        x += width


def _line(one: tuple[float, float], two: tuple[float, float], kind: str) -> Html:
    return tag("line", x1=one[0], y1=one[1], x2=two[0], y2=two[1], class_=kind)


def _words(x: float, y: float, said: str, kind: str, *, anchor: str | None = None) -> Html:
    return tag("text", said, x=x, y=y, class_=kind, text_anchor=anchor)
