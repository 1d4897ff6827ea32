"""The network a record is about, as far as the record tells: what there was, and which way it went.

    c1   c2          containers
     └─┬─┘
      br0            the bridge they are ports of
     obr0 ── gre0    what carries their packets to the other host (or is bypassed)
      eth0
       ┆             the wire: its encapsulation, MTU and conditions
      eth0 …         the last host, alike

Addresses are those of the record's nodes; in a record without nodes nobody knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from xlab.kernel.packets import Encapsulation
from xlab.record.portrait import Part
from xlab.record.record import PathProof, RunRecord
from xlab.report import text
from xlab.report.picture import Box, Cable, Network, Site
from xlab.report.portraits import portrait

CONTAINERS_SHOWN = 3


#: What is on the wire, spelt out.
_WIRE: dict[Encapsulation, str] = {
    "none": "plain IP",
    "gre": "GRE, IP protocol 47",
    "vxlan": "VXLAN over UDP",
    "geneve": "Geneve over UDP",
    "sleeve": "sleeve, UDP 6783",
}
#: Up to the inner IP packet; their sum is the record's `overhead_bytes` and the outer Ethernet.
_HEADERS: dict[Encapsulation, tuple[tuple[str, int], ...]] = {
    "none": (("Eth", 14),),
    "gre": (("Eth", 14), ("IP", 20), ("GRE", 4), ("Eth", 14)),
    "vxlan": (("Eth", 14), ("IP", 20), ("UDP", 8), ("VXLAN", 8), ("Eth", 14)),
    "geneve": (("Eth", 14), ("IP", 20), ("UDP", 8), ("Geneve", 8), ("Eth", 14)),
    # A sender, and for each frame two peers and its length.
    "sleeve": (("Eth", 14), ("IP", 20), ("UDP", 8), ("sleeve", 20), ("Eth", 14)),
}
_OUTER_ETHERNET = 14


def network(record: RunRecord) -> Network:
    """The first host and the last, which the proof's packets went between, and the wire."""
    first, last = hosts = _hosts(record)
    kind = "way" if proved(record) else "doubt"
    cables: list[Cable] = []
    for host in hosts:
        cables += _cables(record, host, kind)
        cables.append(Cable(f"{host}:eth0", "wire", kind=kind))
    return Network(
        title=f"{first} and {last}, and the wire between",
        sites=(_site(record, first),),
        switches=(_wire(record),),
        cables=tuple(cables),
        beneath=(_site(record, last),),
        words=f"{'Proved' if proved(record) else 'Not proved'}: {way(record)}. ",
    )


def way(record: RunRecord) -> str:
    """The way of a packet: "h1/c1 → br0 → eth0 → the wire (plain IP) → eth0 → br0 → h2/c1"."""
    first, last = _hosts(record)
    mtu = _number(record, "mtu")
    kind = _WIRE[_encapsulation(record)] + (f", MTU {mtu}" if mtu else "")
    there, back = _way(record, first), reversed(_way(record, last))
    return " → ".join([*there, f"the wire ({kind})", *back])


def proved(record: RunRecord) -> bool:
    return record.path is not None and record.path.proved


# --------------------------------------------------------------------------------------- the hosts


def _rows(record: RunRecord) -> list[list[Part]]:
    """What there is on each host, from its containers down to its interface."""
    containers, peers = _number(record, "containers"), _number(record, "hosts") - 1
    built = portrait(record)
    of_containers = built is None or built.of_containers
    shown = containers if containers <= CONTAINERS_SHOWN else CONTAINERS_SHOWN - 1
    inside = [Part(f"c{i}", on_path=of_containers and i == 1) for i in range(1, shown + 1)]
    if containers > shown:
        inside.append(Part("", f"+ {containers - shown:,} more", on_path=False))
    if built is None:
        return [inside, [], [], [Part("eth0")]]
    # What a host has of each peer, as all of them.
    each = "0" if peers <= 1 else f"0 … {peers - 1}"
    between = [replace(part, name=part.name.replace("*", each)) for part in built.between]
    return [inside, [built.bridge], between, [Part("eth0", built.eth0)]]


def _way(record: RunRecord, host: str) -> list[str]:
    """From the first container, or the host itself, down to the wire."""
    rows = _rows(record)
    way = [part.name for row in rows for part in row if part.on_path]
    if rows[0] and rows[0][0].on_path:
        return [f"{host}/{way[0]}", *way[1:]]
    return [host, *way]


def _site(record: RunRecord, host: str) -> Site:
    nodes = {node.name: node for node in record.nodes}
    own = nodes.get(host)
    built = portrait(record)
    boxes = []
    for row, parts in enumerate(_rows(record)):
        for part in parts:
            name, note = part.name, own.addresses.get(part.name) if own and row else None
            if row == 0 and f"{host}/{name}" in nodes:
                note = nodes[f"{host}/{name}"].address
            if row == 0 and name and built and built.container_interface:
                name = f"{name} · {built.container_interface}"
            notes = tuple(filter(None, [note or part.note]))
            boxes.append(Box(f"{host}:{part.name}", name, notes, row, on_path=part.on_path))
    return Site(host, tuple(boxes), note=own.address if own else "")


def _cables(record: RunRecord, host: str, kind: str) -> Iterator[Cable]:
    """Those of a host; where the proof's packets go they are of this kind."""
    containers, *rows = _rows(record)
    lower = [part for row in rows for part in row]
    path = [part for part in (*containers, *lower) if part.on_path]
    links = [(part, lower[0]) for part in containers if part.name]
    kinds = dict.fromkeys([*links, *pairwise(lower)], "link") | dict.fromkeys(pairwise(path), kind)
    for (a, b), found in kinds.items():
        yield Cable(f"{host}:{a.name}", f"{host}:{b.name}", kind=found)


def _hosts(record: RunRecord) -> tuple[str, str]:
    """The first host's name and the last one's: those that were measured, else Mininet's names."""
    for route in ("control", "method"):
        for m in record.measurements:
            ends = [end.partition("/")[0] for end in m.direction.split(" > ")]
            if m.route == route and len(ends) == 2 and all(ends):
                return text.plain(ends[0]), text.plain(ends[1])
    return "h1", f"h{max(_number(record, 'hosts'), 2)}"


# ---------------------------------------------------------------------------------------- the wire


def _wire(record: RunRecord) -> Box:
    mtu, more = _number(record, "mtu"), _number(record, "hosts") - 2
    topo = record.parameters.get("topo")
    switches = f"switches: {text.plain(topo)}" if isinstance(topo, str) and topo else "one switch"
    notes = (
        _packets(record.path) if record.path else "",
        switches + (f", MTU {mtu}" if mtu else ""),
        text.conditions(record.conditions),
        f"and {text.count(more, 'more host')}" if more > 0 else "",
    )
    proof = record.path
    inside = f"IP ≤ {proof.effective_mtu}" if proof and proof.effective_mtu else "IP"
    headers = [(name, f"{size}") for name, size in _headers(record)]
    return Box(
        "wire",
        _WIRE[_encapsulation(record)],
        tuple(filter(None, notes)),
        4,
        on_path=True,
        frame=(*headers, (inside, "bytes each")),
    )


def _encapsulation(record: RunRecord) -> Encapsulation:
    if record.path:
        return record.path.encapsulation
    promised = portrait(record)
    return promised.encapsulation if promised else "none"


def _headers(record: RunRecord) -> tuple[tuple[str, int], ...]:
    """The headers, where their lengths are those that were measured; else only the outermost."""
    headers = _HEADERS[_encapsulation(record)]
    overhead = record.path.overhead_bytes if record.path else None
    if overhead is None or sum(size for _, size in headers) == overhead + _OUTER_ETHERNET:
        return headers
    return headers[:1]


def _packets(proof: PathProof) -> str:
    count: int = getattr(proof.underlay_packets, proof.encapsulation)
    sent = max(count, proof.packets_sent)
    # compare.json tells whether, not of how many.
    return f"{'✓' if proof.proved else '✗'} {count} of {sent} packets of the proof" if sent else ""


def _number(record: RunRecord, name: str) -> int:
    """A parameter that counts something; 0 where it is none."""
    value = record.parameters.get(name)
    return value if isinstance(value, int) and 0 <= value < 1_000_000 else 0
