"""A lab that stays, drawn: as text, as Mermaid, as SVG, from what `network.look` found.

facts ──> Graph: sites (hosts, the wire) with boxes, lines between boxes ──> text, mermaid, svg

row 0  containers          c1   c2
row 1  Linux bridges         br0
row 2  what tunnels         obr0 ┄┄┄┄ the other host's
row 3  the interface        eth0
row 4  switches              s1
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xlab.report import text
from xlab.report.markup import Html, join, tag

Facts = Mapping[str, Any]

_ROWS = range(4)


@dataclass(frozen=True, slots=True)
class Box:
    id: str
    name: str
    notes: tuple[str, ...]
    row: int
    up: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    a: str
    b: str
    label: str = ""
    #: "link", "routed" or "tunnel".
    kind: str = "link"
    up: bool = True


@dataclass(slots=True)
class Site:
    name: str
    up: bool = True
    #: What is wrong with it, if anything is.
    trouble: str = ""
    boxes: list[Box] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    title: str
    faults: tuple[str, ...]
    sites: list[Site] = field(default_factory=list)
    switches: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def boxes(self) -> Iterator[Box]:
        for site in self.sites:
            yield from site.boxes
        yield from self.switches

    def connect(
        self, a: str, b: str, label: str = "", kind: str = "link", *, up: bool = True
    ) -> None:
        known = {box.id for box in self.boxes()}
        if a in known and b in known:
            self.lines.append(Line(a, b, label, kind, up))


def graph(name: str, scenario: str, nodes: Sequence[Facts], faults: Sequence[str] = ()) -> Graph:
    """What there is, and what is connected to what."""
    made = Graph(name if name == scenario else f"{name} ({scenario})", tuple(faults))
    by_name = {node["name"]: node for node in nodes}
    wire = by_name["wire"]
    for node in nodes:
        if node["kind"] in ("host", "gateway"):
            inside = [n for n in nodes if n["host"] == node["name"]]
            made.sites.append(_site(node, inside))
    made.switches = [_box(wire, d, 4) for d in wire["devices"] if d["kind"] == "bridge"]
    owners = {
        address.partition("/")[0]: node["name"]
        for node in nodes
        for device in node["devices"]
        for address in device["addresses"]
    }
    for node in nodes:
        _connect(made, node, by_name, owners)
    return made


def _site(node: Facts, containers: Sequence[Facts]) -> Site:
    site = Site(node["name"], node["up"], node.get("trouble") or ("" if node["up"] else "down"))
    for inner in containers:
        notes = [f"{d['name']} {_described(d)}" for d in inner["devices"]]
        if not inner["up"]:
            notes.append("down")
        site.boxes.append(
            Box(inner["name"], inner["name"].partition("/")[2], tuple(notes), 0, inner["up"])
        )
    switches = {switch["name"]: switch for switch in node["switches"]}
    for device in node["devices"]:
        if device["kind"] == "bridge":
            site.boxes.append(_box(node, device, 1, "bridge"))
        elif device["name"] in switches and not _is_uplink(device):
            ports = [
                f"{p['name']} {p['type']} to {p['remote']}"
                for p in _tunnels(switches[device["name"]])
            ]
            site.boxes.append(_box(node, device, 2, "Open vSwitch", *ports))
        elif device["kind"] == "vxlan":
            port = f"VXLAN, UDP {device['port']}"
            site.boxes.append(_box(node, device, 2, port))
        elif _is_uplink(device):
            over = "port of Open vSwitch" if device["name"] in switches else ""
            site.boxes.append(_box(node, device, 3, over))
    if node["router"]:
        router = node["router"]
        notes = [
            f"{router['datapath']}, peer {router['name']}",
            *([] if router["up"] else ["dead"]),
        ]
        site.boxes.append(
            Box(f"{node['name']}:weave router", "weave router", tuple(notes), 2, router["up"])
        )
    site.boxes.sort(key=lambda box: box.row)
    return site


def _box(node: Facts, device: Facts, row: int, *notes: str) -> Box:
    said = [note for note in notes if note]
    said[:0] = [_described(device)]
    return Box(f"{node['name']}:{device['name']}", device["name"], tuple(said), row, device["up"])


def _described(device: Facts) -> str:
    down = [] if device["up"] else ["DOWN"]
    return "  ".join([*device["addresses"], f"MTU {device['mtu']}", *down])


def _is_uplink(device: Facts) -> bool:
    """Whether it is a host's end of a cable; what stands on the wire is in nobody's host."""
    return str(device["peer"] or "").startswith("wire:")


def _tunnels(switch: Facts) -> list[Facts]:
    return [port for port in switch["ports"] if port["remote"]]


def _connect(
    made: Graph, node: Facts, nodes: Mapping[str, Facts], owners: Mapping[str, str]
) -> None:
    name = node["name"]
    devices = {device["name"]: device for device in node["devices"]}
    uplink = next((d for d in node["devices"] if _is_uplink(d)), None)
    for device in node["devices"]:
        other, _, port = str(device["peer"] or "").partition(":")
        bridge = device["bridge"]
        if device["peer"] is None:
            if bridge:
                router = node["router"] and device["kind"] == "tun" and bridge == "weave"
                inner = "weave router" if router else device["name"]
                made.connect(f"{name}:{bridge}", f"{name}:{inner}")
        elif other == "wire" and name != "wire":
            far, home = _switch_end(nodes["wire"], port)
            up = device["up"] and far["up"]
            label = _labelled(port, far)
            made.connect(f"{name}:{device['name']}", f"wire:{home}", label, up=up)
            if bridge:
                made.connect(f"{name}:{bridge}", f"{name}:{device['name']}")
        elif nodes[other]["host"] == name and bridge:
            label = port if port != "eth0" else ""
            made.connect(other, f"{name}:{bridge}", label, up=device["up"])
        elif name == other == "wire" and device["name"] < port:
            near, home = _switch_end(node, device["name"])
            far, beyond = _switch_end(node, port)
            if home != beyond:  # not what stands between a switch and its cable
                label = _labelled(f"{device['name']} – {port}", near, far)
                made.connect(f"wire:{home}", f"wire:{beyond}", label, up=near["up"] and far["up"])
    if uplink and node["forwards"] and name in {site.name for site in made.sites}:
        for device in devices.values():
            if device["kind"] == "bridge" and device["addresses"] and uplink["bridge"] is None:
                made.connect(
                    f"{name}:{device['name']}", f"{name}:{uplink['name']}", "routed", "routed"
                )
    for end, label, remote in _ends(node):
        peer = owners.get(remote)
        # Each tunnel has two ends, and one line.
        if peer and (name < peer or not any(r in _own(node) for _, _, r in _ends(nodes[peer]))):
            other_end = next((e for e, _, r in _ends(nodes[peer]) if r in _own(node)), "")
            made.connect(end, other_end, f"{label} to {remote}", "tunnel")
    if uplink:
        for end in sorted({end for end, _, _ in _ends(node)}):
            made.connect(end, f"{name}:{uplink['name']}")


def _switch_end(wire: Facts, interface: str) -> tuple[Facts, str | None]:
    """A switch's end of a cable, and which switch that is."""
    devices = {device["name"]: device for device in wire["devices"]}
    end = devices[interface]
    return end, devices[end.get("port") or interface]["bridge"]


def _labelled(name: str, *ends: Facts) -> str:
    """A cable's name, and what it does to packets."""
    return ", ".join([name, *(end["conditions"] for end in ends if end.get("conditions"))])


def _own(node: Facts) -> set[str]:
    return {a.partition("/")[0] for device in node["devices"] for a in device["addresses"]}


def _ends(node: Facts) -> list[tuple[str, str, str]]:
    """The node's ends of tunnels: the box, what it is, and where the other end is."""
    name = node["name"]
    found = [
        (f"{name}:{switch['name']}", f"{port['name']} {port['type']}", port["remote"])
        for switch in node["switches"]
        for port in _tunnels(switch)
    ]
    for device in node["devices"]:
        found += [(f"{name}:{device['name']}", "vxlan", remote) for remote in device["remotes"]]
    router = node["router"]
    if router and router["datapath"] == "sleeve":
        found += [(f"{name}:weave router", "sleeve", remote) for remote in router["remotes"]]
    return found


# ------------------------------------------------------------------------------------------- text


def as_text(shown: Graph) -> str:
    """A tree a host, what each part is connected to behind it."""
    lines = [shown.title, *(f"  fault: {fault}" for fault in shown.faults)]
    for site in [*shown.sites, Site("wire", boxes=shown.switches)]:
        lines += ["", f"{site.name}  {site.trouble}".rstrip()]
        width = max((len(box.name) for box in site.boxes), default=0)
        for i, box in enumerate(site.boxes):
            stem = "└" if i == len(site.boxes) - 1 else "├"
            lines.append(f"{stem} {box.name:<{width}}  {'; '.join(box.notes)}")
            below = "│" if i < len(site.boxes) - 1 else " "
            for line in shown.lines:
                if line.a == box.id:
                    lines.append(f"{below} {'':<{width}}    {_in_words(line, site.name)}")
    return "\n".join(text.plain(line) for line in lines) + "\n"


def _in_words(line: Line, site: str) -> str:
    sign = {"link": "──", "routed": "╌╌", "tunnel": "══"}[line.kind]
    target = line.b.removeprefix(f"{site}:")
    label = f"  {line.label}" if line.label and line.label != "routed" else ""
    return f"{sign} {target}{label}{'' if line.up else '  DOWN'}"


# ---------------------------------------------------------------------------------------- Mermaid


def as_mermaid(shown: Graph) -> str:
    """A flowchart of Mermaid, a subgraph a host."""
    lines = ["---", f"title: {_mermaid(shown.title)}", "---", "flowchart TB"]
    lines += [f"  %% fault: {_mermaid(fault)}" for fault in shown.faults]
    for site in shown.sites:
        title = f"{site.name} {site.trouble}".strip()
        lines.append(f'  subgraph {_identifier(site.name)}["{_mermaid(title)}"]')
        lines += [f"    {_mermaid_box(box)}" for box in site.boxes]
        lines.append("  end")
    lines += [f"  {_mermaid_box(box)}" for box in shown.switches]
    for line in shown.lines:
        arrow = {"link": "---", "routed": "-.-", "tunnel": "===" if line.up else "-.-"}[line.kind]
        label = f'|"{_mermaid(line.label + ("" if line.up else " DOWN"))}"|'
        said = label if line.label or not line.up else ""
        lines.append(f"  {_identifier(line.a)} {arrow}{said} {_identifier(line.b)}")
    down = [_identifier(box.id) for box in shown.boxes() if not box.up]
    if down:
        lines += ["  classDef down stroke-dasharray: 4", f"  class {','.join(down)} down"]
    return "\n".join(lines) + "\n"


def _mermaid_box(box: Box) -> str:
    said = "<br>".join(_mermaid(part) for part in (box.name, *box.notes))
    return f'{_identifier(box.id)}["{said}"]'


def _identifier(name: str) -> str:
    """Letters and digits are left, so that no name is one of Mermaid's words ("end")."""
    return "n_" + re.sub(r"\W", lambda m: f"_{ord(m[0]):x}_", name, flags=re.ASCII)


def _mermaid(said: str) -> str:
    """In quotes all is text, but quotes, and what begins an entity or a tag."""
    escapes = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
    return "".join(escapes.get(char, char) for char in text.plain(said))


# -------------------------------------------------------------------------------------------- SVG

_BOX_W, _GAP, _LINE_H, _ROW_GAP, _TITLE_H = 210, 12, 15, 44, 26
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 } .n { font-weight: 600 }
.site { fill: #f5f6f8; stroke: #b8bec8 } .box { fill: #fff; stroke: #5a6472 }
.link { stroke: #5a6472; stroke-width: 1.5 } .routed { stroke: #5a6472; stroke-dasharray: 2 4 }
.tunnel { stroke: #b3541e; stroke-width: 2; stroke-dasharray: 7 4; fill: none }
.t { fill: #8a3f14 } .down { stroke: #c00; stroke-dasharray: 4 } .f { fill: #c00 }
"""


def as_svg(shown: Graph) -> str:
    """A picture by itself, hosts side by side, the switches below."""
    heights: list[float] = [
        _row_height([b for s in shown.sites for b in s.boxes if b.row == r]) for r in _ROWS
    ]
    top = 34 + 16 * len(shown.faults)
    tops = [top + _TITLE_H + sum(heights[:r]) + _ROW_GAP * r for r in _ROWS]
    bottom = tops[-1] + heights[-1] + _GAP
    places: dict[str, tuple[float, float, float, float]] = {}
    frames: list[Html] = []
    left = 10.0
    for site in shown.sites:
        rows = [[box for box in site.boxes if box.row == row] for row in _ROWS]
        width = max(1, *map(len, rows)) * (_BOX_W + _GAP) + _GAP
        frames.append(tag("rect", x=left, y=top, width=width, height=bottom - top, rx=8,
                          class_="site" if site.up else "site down"))  # fmt: skip
        title = f"{site.name} {site.trouble}".strip()
        frames.append(tag("text", title, x=left + _GAP, y=top + 18, class_="n"))
        for row, boxes in enumerate(rows):
            _spread(boxes, left, width, tops[row], places)
        left += width + 24
    across = left - 14
    _spread(shown.switches, 0, across, bottom + _ROW_GAP, places)
    height = bottom + _ROW_GAP + _row_height(shown.switches) + 30
    said = [tag("text", shown.title, x=10, y=20, class_="n")]
    said += [
        tag("text", f"fault: {fault}", x=10, y=38 + 16 * i, class_="f")
        for i, fault in enumerate(shown.faults)
    ]
    picture = tag(
        "svg",
        tag("title", shown.title),
        Html(f"<style>{_STYLE}</style>"),
        tag("rect", width=across, height=height, fill="#fff"),
        said,
        frames,
        [_svg_line(line, places) for line in shown.lines if line.kind != "tunnel"],
        [_svg_box(box, *places[box.id]) for box in shown.boxes()],
        [_svg_line(line, places) for line in shown.lines if line.kind == "tunnel"],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {across:g} {height:g}",
        width=across,
        height=height,
    )
    return f"{picture}\n"


def _row_height(boxes: Sequence[Box]) -> float:
    return max((_LINE_H * (1 + len(box.notes)) + 12 for box in boxes), default=0)


def _spread(
    boxes: Sequence[Box],
    left: float,
    width: float,
    top: float,
    places: dict[str, tuple[float, float, float, float]],
) -> None:
    start = left + (width - len(boxes) * (_BOX_W + _GAP) + _GAP) / 2
    for i, box in enumerate(boxes):
        places[box.id] = (start + i * (_BOX_W + _GAP), top, _BOX_W, _row_height([box]))


def _svg_box(box: Box, x: float, y: float, width: float, height: float) -> Html:
    lines = [tag("text", box.name, x=x + 8, y=y + 17, class_="n")]
    for i, note in enumerate(box.notes, 1):
        lines.append(tag("text", text.cut(note, 36), x=x + 8, y=y + 17 + _LINE_H * i))
    frame = tag("rect", x=x, y=y, width=width, height=height, rx=4,
                class_="box" if box.up else "box down")  # fmt: skip
    return join(frame, lines)


def _svg_line(line: Line, places: Mapping[str, tuple[float, float, float, float]]) -> Html:
    (ax, ay, aw, ah), (bx, by, bw, bh) = places[line.a], places[line.b]
    kind = line.kind if line.up else f"{line.kind} down"
    if line.kind == "tunnel":
        # From side to side, bent below the boxes.
        x1, x2 = (ax + aw, bx) if ax < bx else (ax, bx + bw)
        y1, y2 = ay + ah / 2, by + bh / 2
        middle = (x1 + x2) / 2
        bend = max(ay + ah, by + bh) + 26
        path = f"M{x1:g} {y1:g} Q{middle:g} {bend:g} {x2:g} {y2:g}"
        lowest = (y1 + y2) / 4 + bend / 2
        label = tag("text", line.label, x=middle, y=lowest + 16, text_anchor="middle", class_="t")
        return join(tag("path", d=path, class_=kind), label)
    (ux, uy, uw, uh), (lx, ly, lw, _) = sorted(
        ((ax, ay, aw, ah), (bx, by, bw, bh)), key=lambda place: place[1]
    )
    x1, y1, x2, y2 = ux + uw / 2, uy + uh, lx + lw / 2, ly
    label = tag("text", line.label, x=(x1 + x2) / 2 + 5, y=(y1 + y2) / 2 + 4)
    return join(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind), label if line.label else "")
