"""A lab that stays, drawn: as text, as Mermaid, as SVG, from what `network.look` found.

facts ──> Network: sites (hosts, the gateway), boxes in them, cables ──> text, Mermaid, picture.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlab.report import text
from xlab.report.picture import LINES, Box, Cable, Network, Site

Facts = Mapping[str, Any]


def network(
    name: str, scenario: str, nodes: Sequence[Facts], faults: Sequence[str] = ()
) -> Network:
    """What there is, and what is connected to what."""
    by_name = {node["name"]: node for node in nodes}
    wire = by_name["wire"]
    sites = [
        _site(node, [inner for inner in nodes if inner["host"] == node["name"]])
        for node in nodes
        if node["kind"] in ("host", "gateway")
    ]
    switches = [_box(wire, d, 4) for d in wire["devices"] if d["kind"] == "bridge"]
    owners = {a: node["name"] for node in nodes for a in _own(node)}
    title = name if name == scenario else f"{name} ({scenario})"
    drawn = {box.id for boxes in (switches, *(site.boxes for site in sites)) for box in boxes}
    cables = [cable for node in nodes for cable in _cables(node, by_name, owners)]
    shown = tuple(cable for cable in cables if {cable.a, cable.b} <= drawn)
    return Network(title, tuple(sites), tuple(switches), shown, faults=tuple(faults))


def _site(node: Facts, containers: Sequence[Facts]) -> Site:
    boxes = []
    for inner in containers:
        name, up = inner["name"], inner["up"]
        notes = [f"{d['name']} {_described(d)}" for d in inner["devices"]]
        notes += [] if up else ["down"]
        boxes.append(Box(name, name.partition("/")[2], tuple(notes), 0, up))
    switches = {switch["name"]: switch for switch in node["switches"]}
    for device in node["devices"]:
        if device["kind"] == "bridge":
            boxes.append(_box(node, device, 1, "bridge"))
        elif _is_uplink(device):
            over = ["port of Open vSwitch"] if device["name"] in switches else []
            boxes.append(_box(node, device, 3, *over))
        elif device["name"] in switches:
            ports = (
                f"{p['name']} {p['type']} to {p['remote']}"
                for p in _tunnels(switches[device["name"]])
            )
            boxes.append(_box(node, device, 2, "Open vSwitch", *ports))
        elif device["kind"] == "vxlan":
            boxes.append(_box(node, device, 2, f"VXLAN, UDP {device['port']}"))
    router = node["router"]
    if router:
        up, said = router["up"], f"{router['datapath']}, peer {router['name']}"
        notes = [said] if up else [said, "dead"]
        boxes.append(Box(f"{node['name']}:weave router", "weave router", tuple(notes), 2, up))
    boxes.sort(key=lambda box: box.row)
    trouble = node.get("trouble") or ("" if node["up"] else "down")
    return Site(node["name"], tuple(boxes), node["up"], trouble)


def _box(node: Facts, device: Facts, row: int, *notes: str) -> Box:
    id_, said = f"{node['name']}:{device['name']}", (_described(device), *notes)
    return Box(id_, device["name"], said, row, device["up"])


def _described(device: Facts) -> str:
    down = [] if device["up"] else ["DOWN"]
    return "  ".join([*device["addresses"], f"MTU {device['mtu']}", *down])


def _is_uplink(device: Facts) -> bool:
    """Whether it is a host's end of a cable; what stands on the wire is in nobody's host."""
    return str(device["peer"] or "").startswith("wire:")


def _tunnels(switch: Facts) -> list[Facts]:
    return [port for port in switch["ports"] if port["remote"]]


def _cables(node: Facts, nodes: Mapping[str, Facts], owners: Mapping[str, str]) -> Iterator[Cable]:
    """Those that begin at a node; an end may be of something that is not drawn."""
    name = node["name"]
    uplink = next((d for d in node["devices"] if _is_uplink(d)), None)
    for device in node["devices"]:
        own, bridge = f"{name}:{device['name']}", device["bridge"]
        other, _, port = str(device["peer"] or "").partition(":")
        if device["peer"] is None:
            if bridge:
                router = node["router"] and device["kind"] == "tun" and bridge == "weave"
                yield Cable(f"{name}:{bridge}", f"{name}:weave router" if router else own)
        elif other == "wire" and name != "wire":
            far, home = _switch_end(nodes["wire"], port)
            yield Cable(own, f"wire:{home}", _labelled(port, far), up=device["up"] and far["up"])
            if bridge:
                yield Cable(f"{name}:{bridge}", own)
        elif nodes[other]["host"] == name and bridge:
            label = port if port != "eth0" else ""
            yield Cable(other, f"{name}:{bridge}", label, up=device["up"])
        elif name == other == "wire" and device["name"] < port:
            near, home = _switch_end(node, device["name"])
            far, beyond = _switch_end(node, port)
            if home != beyond:  # not what stands between a switch and its cable
                label = _labelled(f"{device['name']} – {port}", near, far)
                yield Cable(f"wire:{home}", f"wire:{beyond}", label, up=near["up"] and far["up"])
    if uplink and node["forwards"] and uplink["bridge"] is None:
        for device in node["devices"]:
            if device["kind"] == "bridge" and device["addresses"]:
                yield Cable(
                    f"{name}:{device['name']}", f"{name}:{uplink['name']}", "routed", "routed"
                )
    for end, label, remote in _ends(node):
        peer = owners.get(remote)
        back = [e for e, _, r in _ends(nodes[peer]) if r in _own(node)] if peer else []
        # Each tunnel has two ends, and one cable.
        if back and name < str(peer):
            yield Cable(end, back[0], f"{label} to {remote}", "tunnel")
    if uplink:
        for end in sorted({end for end, _, _ in _ends(node)}):
            yield Cable(end, f"{name}:{uplink['name']}")


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


def as_text(shown: Network) -> str:
    """A tree a host, what each part is connected to behind it."""
    lines = [shown.title, *(f"  fault: {fault}" for fault in shown.faults)]
    for site in (*shown.sites, Site("wire", shown.switches)):
        lines += ["", f"{site.name}  {site.note}".rstrip()]
        width = max((len(box.name) for box in site.boxes), default=0)
        for i, box in enumerate(site.boxes):
            stem, below = "├│" if i < len(site.boxes) - 1 else "└ "
            lines.append(f"{stem} {box.name:<{width}}  {'; '.join(box.notes)}")
            lines += [
                f"{below} {'':<{width}}    {_in_words(cable, site.name)}"
                for cable in shown.cables
                if cable.a == box.id
            ]
    kinds = {cable.kind for cable in shown.cables}
    signs = [f"{sign} {said}" for kind, (sign, said) in _SIGNS.items() if kind in kinds]
    lines += ["", *signs] if signs else []
    return "\n".join(text.plain(line) for line in lines) + "\n"


#: What each kind of cable is drawn as, and stands for; a picture says the same of its lines.
_SIGNS = {
    kind: (sign, LINES[f"p-{kind}"])
    for kind, sign in {"link": "──", "routed": "╌╌", "tunnel": "══"}.items()
}


def _in_words(cable: Cable, site: str) -> str:
    sign, _ = _SIGNS[cable.kind]
    target = cable.b.removeprefix(f"{site}:")
    label = f"  {cable.label}" if cable.label and cable.label != "routed" else ""
    return f"{sign} {target}{label}{'' if cable.up else '  DOWN'}"


# ---------------------------------------------------------------------------------------- Mermaid


def as_mermaid(shown: Network) -> str:
    """A flowchart of Mermaid, a subgraph a host."""
    lines = ["---", f"title: {_mermaid(shown.title)}", "---", "flowchart TB"]
    lines += [f"  %% fault: {_mermaid(fault)}" for fault in shown.faults]
    for site in shown.sites:
        title = f"{site.name} {site.note}".strip()
        lines.append(f'  subgraph {_identifier(site.name)}["{_mermaid(title)}"]')
        lines += [f"    {_mermaid_box(box)}" for box in site.boxes]
        lines.append("  end")
    lines += [f"  {_mermaid_box(box)}" for box in shown.switches]
    for cable in shown.cables:
        arrow = {"link": "---", "routed": "-.-", "tunnel": "===" if cable.up else "-.-"}[cable.kind]
        said = cable.label + ("" if cable.up else " DOWN")
        label = f'|"{_mermaid(said)}"|' if said else ""
        lines.append(f"  {_identifier(cable.a)} {arrow}{label} {_identifier(cable.b)}")
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
