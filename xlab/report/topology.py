"""The network a record is about, as far as the record tells: what there was, and which way it went.

    c1   c2          containers
     └─┬─┘
      br0            the bridge they are ports of
     obr0 ── gre0    what carries their packets to the other host (or is bypassed)
      eth0
       ┆             the wire: its encapsulation, MTU and conditions
      eth0 …         the last host, alike

A record has no list of nodes.  Names and addresses are read from what its probes and claims say
they did ("h1/c1$ ping … 192.168.2.2"); what none of them shows is left out, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from xlab.kernel.packets import Encapsulation
from xlab.record.record import Claim, Measurement, RunRecord
from xlab.report import text

CONTAINERS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A container, a bridge, a port or an interface."""

    name: str
    #: Its address, or what it is.
    note: str = ""
    #: Whether the packets of the proof pass it.
    on_path: bool = True
    #: A container's interface, where it is not the one every container has.
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """A host, from its containers down to its interface."""

    name: str
    address: str
    containers: tuple[Part, ...]
    #: Containers that are not shown.
    more_containers: int
    #: What the containers are plugged into; None where the record does not tell.
    bridge: Part | None
    #: What stands between the bridge and the interface, side by side.
    between: tuple[Part, ...]
    interface: Part


@dataclass(frozen=True, slots=True)
class Topology:
    """The first host and the last, which the proof's packets went between, and the wire."""

    first: Site
    last: Site
    more_hosts: int
    #: What the physical network is made of: "one switch", or Mininet's spec.
    fabric: str
    encapsulation: Encapsulation
    #: What each packet on the wire begins with, outermost first, and how long that is in bytes.
    headers: tuple[tuple[str, int], ...]
    mtu: int | None
    effective_mtu: int | None
    overhead_bytes: int | None
    #: "20 of 20 packets"; None where nothing was proved or disproved.
    packets: str | None
    proved: bool
    #: Rate, delay, jitter and loss that the links were given, in words.
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Method:
    """What a scenario builds on each host."""

    bridge: Part
    between: tuple[Part, ...]
    eth0: str = ""
    #: What the method adds to a container.
    container_interface: str = ""
    #: Whether the proof is of containers; otherwise of the hosts themselves.
    of_containers: bool = True


_METHODS: dict[tuple[str, Encapsulation], _Method] = {
    ("baseline", "none"): _Method(
        Part("docker0", "masquerades", on_path=False), (), of_containers=False
    ),
    ("bridge", "none"): _Method(Part("br0"), (), "a port of br0"),
    ("ovs-gre", "gre"): _Method(Part("br0"), (Part("obr0", "OVS"), Part("gre", "GRE port"))),
    ("ovs-gre", "none"): _Method(
        Part("br0"), (Part("obr0", "OVS", on_path=False), Part("gre", "bypassed", on_path=False))
    ),
    ("weave", "sleeve"): _Method(
        Part("weave", "bridge"),
        (Part("weave router", "UDP port 6783"),),
        container_interface="ethwe",
    ),
    ("weave", "vxlan"): _Method(
        Part("weave", "bridge"),
        (Part("vxlan-6784", "UDP port 6784"),),
        container_interface="ethwe",
    ),
}

#: Up to the inner IP packet; their sum is the record's `overhead_bytes` and the outer Ethernet.
_HEADERS: dict[Encapsulation, tuple[tuple[str, int], ...]] = {
    "none": (("Ethernet", 14),),
    "gre": (("Ethernet", 14), ("IP", 20), ("GRE", 4), ("Ethernet", 14)),
    "vxlan": (("Ethernet", 14), ("IP", 20), ("UDP", 8), ("VXLAN", 8), ("Ethernet", 14)),
    "geneve": (("Ethernet", 14), ("IP", 20), ("UDP", 8), ("Geneve", 8), ("Ethernet", 14)),
    # A sender, and for each frame two peers and its length.
    "sleeve": (("Ethernet", 14), ("IP", 20), ("UDP", 8), ("sleeve", 20), ("Ethernet", 14)),
}
_OUTER_ETHERNET = 14


def topology(record: RunRecord) -> Topology:
    """What a record tells of its network; parts of a method that nobody here knows stay blank."""
    hosts, containers = (_number(record, name) for name in ("hosts", "containers"))
    encapsulation = _encapsulation(record)
    method = _METHODS.get((record.scenario, encapsulation))
    known = addresses(record)
    first, last = _hosts(record, hosts)
    proof = record.path
    sites = [_site(name, containers, method, known, peers=hosts - 1) for name in (first, last)]
    return Topology(
        first=sites[0],
        last=sites[1],
        more_hosts=max(hosts - 2, 0),
        fabric=_fabric(record),
        encapsulation=encapsulation,
        headers=_headers(encapsulation, proof.overhead_bytes if proof else None),
        mtu=_number(record, "mtu") or None,
        effective_mtu=proof.effective_mtu if proof else None,
        overhead_bytes=proof.overhead_bytes if proof else None,
        packets=_packets(record),
        proved=proof is not None and proof.proved,
        conditions=tuple(conditions(record)),
    )


def way(shown: Topology) -> str:
    """The way of a packet: "h1/c1 → br0 → eth0 ═ plain IP ═ eth0 → br0 → h2/c1"."""
    there = [*_way(shown.first), _wire_in_words(shown), *reversed(_way(shown.last))]
    return " → ".join(there)


def wire_kind(encapsulation: Encapsulation) -> str:
    """What is on the wire, spelt out."""
    return {
        "none": "plain IP",
        "gre": "GRE, IP protocol 47",
        "vxlan": "VXLAN over UDP",
        "geneve": "Geneve over UDP",
        "sleeve": "sleeve, UDP 6783",
    }[encapsulation]


def conditions(record: RunRecord) -> Iterator[str]:
    """What the links were told to do to packets: "rate 100 Mbit/s", "delay 10.0 ms"."""
    return text.conditions(record.conditions)


# --------------------------------------------------------------------------------------- the hosts


def _site(
    name: str, containers: int, method: _Method | None, known: dict[str, str], *, peers: int
) -> Site:
    shown = containers if containers <= CONTAINERS_SHOWN else CONTAINERS_SHOWN - 1
    of_containers = method is None or method.of_containers
    parts = tuple(
        Part(
            f"c{i}",
            known.get(f"{name}/c{i}", ""),
            on_path=of_containers and i == 1,
            interface=method.container_interface if method else "",
        )
        for i in range(1, shown + 1)
    )
    bridge = None
    between: tuple[Part, ...] = ()
    note = ""
    if method:
        address = known.get(f"{name} {method.bridge.name}", "")
        bridge = Part(method.bridge.name, address or method.bridge.note, method.bridge.on_path)
        between = tuple(_numbered(part, peers) for part in method.between)
        note = method.eth0
    own = known.get(f"{name} eth0", "")
    return Site(
        name=name,
        address=known.get(name, ""),
        containers=parts,
        more_containers=containers - shown,
        bridge=bridge,
        between=between,
        interface=Part("eth0", own or note),
    )


def _numbered(part: Part, peers: int) -> Part:
    """A host has a GRE port for each peer."""
    if part.name != "gre":
        return part
    return Part("gre0" if peers <= 1 else f"gre0 … {peers - 1}", part.note, part.on_path)


def _hosts(record: RunRecord, hosts: int) -> tuple[str, str]:
    """The first host's name and the last one's: those that were measured, else Mininet's names."""
    for route in ("control", "method"):
        for m in record.measurements:
            ends = [end.partition("/")[0] for end in m.direction.split(" > ")]
            if m.route == route and len(ends) == 2 and all(ends):
                return text.plain(ends[0]), text.plain(ends[1])
    return "h1", f"h{max(hosts, 2)}"


def _way(site: Site) -> list[str]:
    """From the first container, or the host itself, down to the wire."""
    parts = [*site.containers, *([site.bridge] if site.bridge else []), *site.between]
    way = [part.name for part in parts if part.on_path]
    if way and site.containers and site.containers[0].on_path:
        way[0] = f"{site.name}/{way[0]}"
        return [*way, site.interface.name]
    return [site.name, *way, site.interface.name]


# ---------------------------------------------------------------------------------------- the wire


def _encapsulation(record: RunRecord) -> Encapsulation:
    if record.path:
        return record.path.encapsulation
    promised = [kind for name, kind in _METHODS if name == record.scenario]
    return promised[0] if promised else "none"


def _headers(
    encapsulation: Encapsulation, overhead_bytes: int | None
) -> tuple[tuple[str, int], ...]:
    """The headers, where their lengths are those that were measured; else only the outermost."""
    headers = _HEADERS[encapsulation]
    if overhead_bytes is None or sum(size for _, size in headers) == (
        overhead_bytes + _OUTER_ETHERNET
    ):
        return headers
    return headers[:1]


def _packets(record: RunRecord) -> str | None:
    proof = record.path
    if proof is None:
        return None
    count: int = getattr(proof.underlay_packets, proof.encapsulation)
    sent = max(count, proof.packets_sent)
    # compare.json tells whether, not of how many.
    return f"{count} of {sent} packets" if sent else None


def _wire_in_words(shown: Topology) -> str:
    mtu = f", MTU {shown.mtu}" if shown.mtu else ""
    return f"the wire ({wire_kind(shown.encapsulation)}{mtu})"


def _fabric(record: RunRecord) -> str:
    topo = record.parameters.get("topo")
    return f"switches: {text.plain(topo)}" if isinstance(topo, str) and topo else "one switch"


def _number(record: RunRecord, name: str) -> int:
    """A parameter that counts something; 0 where it is none."""
    value = record.parameters.get(name)
    return value if isinstance(value, int) and 0 <= value < 1_000_000 else 0


# --------------------------------------------------------------------------------------- addresses

_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}"
_COMMAND_TARGET = re.compile(rf"(?: -c | -H | )({_ADDRESS})(?= |$)")
_TRANSCRIPT = re.compile(r"(?:^|; )(\S+)\$ (.+)\n")
_INTERFACE = re.compile(rf"^(\S+?)(?:@\S+)?\s+[A-Z]+\s+({_ADDRESS}/\d+)", re.MULTILINE)
_ABOUT_TARGET = re.compile(r"(?:reaches|does-not-reach|transfers-to)-(h\d+)(?:-(c\d+))?$")
_FROM_RANGE = re.compile(r"^(h\d+)-addresses-from-fixed-cidr$")
_SHARED = re.compile(rf"({_ADDRESS}): ([^;:]+)")
_SAME = re.compile(r"^(\S+) has the same address as (\S+):")
_RUN = re.compile(rf"({_ADDRESS})(?:-({_ADDRESS}))?")


def addresses(record: RunRecord) -> dict[str, str]:
    """Addresses that the record shows: of "h2", of "h2/c1", and of "h1 br0", an interface."""
    found: dict[str, str] = {}
    for claim in record.claims:
        for name, address in _in_claim(claim):
            found.setdefault(name, address)
    for measurement in record.measurements:
        for name, address in _in_measurement(measurement):
            found.setdefault(name, address)
    if record.scenario == "ovs-gre":
        for name, address in _in_order(record):
            found.setdefault(name, address)
    return {name: address for name, address in found.items() if _is_address(address)}


def _in_claim(claim: Claim) -> Iterator[tuple[str, str]]:
    listed = _FROM_RANGE.match(claim.id)
    if listed:
        for number, address in enumerate(re.findall(_ADDRESS, claim.observed), 1):
            yield f"{listed[1]}/c{number}", address
    same = _SAME.match(claim.text)
    if same and claim.holds:
        yield same[1], claim.observed
        yield same[2], claim.observed
    if claim.id == "addresses-never-collide":
        for address, owners in _SHARED.findall(claim.observed):
            for owner in owners.split(","):
                yield owner.strip(), address
    transcript = _TRANSCRIPT.search(f"{claim.evidence}\n")
    if transcript and " address" in transcript[2]:
        for interface, address in _INTERFACE.findall(claim.evidence[transcript.end() :]):
            if interface != "lo":
                yield f"{transcript[1]} {interface}", address
                yield transcript[1], address.partition("/")[0]
    about = _ABOUT_TARGET.search(claim.id)
    if about:
        command = transcript[2] if transcript else claim.evidence
        target = _COMMAND_TARGET.findall(command)
        if target:
            yield "/".join(part for part in about.groups() if part), target[-1]


def _in_measurement(measurement: Measurement) -> Iterator[tuple[str, str]]:
    command = measurement.detail.get("command")
    if measurement.route != "baseline" and isinstance(command, str):
        target = _COMMAND_TARGET.findall(command)
        if target:
            yield measurement.direction.rpartition(" > ")[2], target[-1]


def _in_order(record: RunRecord) -> Iterator[tuple[str, str]]:
    """With a subnet a host, numbered like the hosts, the sorted addresses are in their order."""
    hosts, containers = (_number(record, name) for name in ("hosts", "containers"))
    for claim in record.claims:
        if claim.id != "addresses-never-collide" or not claim.holds:
            continue
        for number, (low, high) in enumerate(_RUN.findall(claim.evidence), 1):
            if not _is_address(low) or not _is_address(high or low):
                return
            size = int(IPv4Address(high or low)) - int(IPv4Address(low)) + 1
            if size != containers or number > hosts:
                return
            for i in range(size):
                yield f"h{number}/c{i + 1}", str(IPv4Address(low) + i)


def _is_address(written: str) -> bool:
    try:
        IPv4Address(written.partition("/")[0])
    except ValueError:
        return False
    return True
