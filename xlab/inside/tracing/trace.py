"""One ping's way, hop by hop.

    ping, marked  ──>  frames seen on every interface of the nodes it may pass, in time's order
                  ──>  for each: its encapsulation, and the table entry that decides what is next
    not arrived   ──>  why, from tables and counters where it was seen last; if ARP went unanswered
                       there, the ARP request is followed on from there

Where a packet goes is nowhere taken from what the method is meant to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

from xlab.errors import UsageError, XlabError
from xlab.inside.tracing import tables
from xlab.inside.tracing.tables import Facts
from xlab.inside.tracing.watch import Frame, Watch
from xlab.kernel.packets import (
    ECHO_REPLY,
    ECHO_REQUEST,
    Decoded,
    Packet,
    decode,
    find_arp_requests,
    find_echoes,
)
from xlab.lab import network
from xlab.lab.lab import Host, Lab, concurrently
from xlab.lab.node import Node

#: A frame that was seen, and the packet in it that is followed.
Seen = tuple[Frame, Decoded, Packet]

#: The first one may have to wait for ARP.
_PINGS = 2
_ANSWER_S = 0.4

_NO_FORWARDING = "it does not forward (net.ipv4.ip_forward=0)"

#: What `ip` calls the master of ports of Open vSwitch in the kernel.
_OVS = "ovs-system"


@dataclass(frozen=True, slots=True)
class Hop:
    node: str
    device: str
    outgoing: bool
    #: Since the first one, in microseconds.
    time_us: float
    encapsulation: str
    #: Outer source and destination where there is an encapsulation.
    outer: tuple[str, str] | None
    #: The hosts whose routers sleeve carries it between, or these routers' names.
    peers: tuple[str, str] | None
    #: Source and destination of the packet itself; of an ARP request None.
    inner: tuple[str, str] | None
    #: Length of the frame in bytes, and who has sent it.
    size: int
    source_mac: str
    #: The table entry that says where it goes from here.
    decision: str = ""


def trace(lab: Lab, source: Node, target: Node | IPv4Address, *, gone: str = "") -> dict[str, Any]:
    """Follow a ping there and its answer back; `gone` had the address before its host went down.

    {source, target, address, arrived, answered, there, back, arp, stopped, reasons}; `there`,
    `back` and `arp` are lists of `Hop` as objects.  UsageError if the two are one node.
    """
    owner = target if isinstance(target, Node) else _owner(lab, target)
    address = target.address if isinstance(target, Node) else target
    if source is owner:
        raise UsageError(f"{source} to itself passes no interface: name two nodes")
    return _Tracer(lab, source, owner, address, gone).run()


def _owner(lab: Lab, address: IPv4Address) -> Node | None:
    """Whose address it is, if one node's alone: by what it is reached, or on any interface."""
    nodes = [node for node in (*lab.hosts, *lab.containers, lab.gateway) if node.is_on]
    found = []
    for node in nodes:
        with suppress(XlabError):  # it has none
            found += [node] if node.address == address else []
    if not found:
        has = concurrently(lambda node: _has(node, address), nodes)
        found = [node for node, has_it in zip(nodes, has, strict=True) if has_it]
    return found[0] if len(found) == 1 else None


def _has(node: Node, address: IPv4Address) -> bool:
    """On lo, too, where a host keeps an address that belongs to no link."""
    shown = node.listed(["ip", "-j", "-4", "address", "show", "to", str(address)])
    return any(each.get("addr_info") for each in shown)


class _Tracer:
    def __init__(
        self, lab: Lab, source: Node, target: Node | None, address: IPv4Address, gone: str
    ) -> None:
        self._lab = lab
        self._source = source
        #: Whose address it is, if that is known.
        self._target = target
        self._address = address
        self._target_name = self._target.name if self._target else gone
        self._facts: dict[str, Facts] = {facts["name"]: facts for facts in network.look(lab)}
        self._nodes = {node.name: node for node in self._on_the_way()}
        self._devices: dict[tuple[str, str], Facts] = {
            (name, device["name"]): device
            for name, facts in self._facts.items()
            for device in facts["devices"]
        }
        self._routers = {
            facts["router"]["name"]: host for host, facts in self._facts.items() if facts["router"]
        }

    def _on_the_way(self) -> Iterable[Node]:
        ends = [self._source.name, self._target_name or self._lab.gateway.name]
        homes = [self._lab[end.partition("/")[0]] for end in ends]
        found = [self._source, *([self._target] if self._target else []), *homes]
        if homes[0] is not homes[1]:
            found += [*self._relays(*(home.name for home in homes)), self._lab.wire]
        return dict.fromkeys(node for node in found if node.is_on)

    def _relays(self, source: str, target: str) -> Iterable[Node]:
        """Hosts whose weave routers may pass it on: those on the shortest ways between the two."""
        routers = {name: facts["router"] for name, facts in self._facts.items() if facts["router"]}
        owners = {
            own.partition("/")[0]: name
            for name in routers
            for device in self._facts[name]["devices"]
            for own in device["addresses"]
        }

        def distances(start: str) -> dict[str, int]:
            found = {start: 0}
            waiting = [start]
            for here in waiting:
                for remote in routers.get(here, {"remotes": ()})["remotes"]:
                    other = owners.get(remote, here)
                    if other not in found:
                        found[other] = found[here] + 1
                        waiting.append(other)
            return found

        there, back = distances(source), distances(target)
        return [
            self._lab[name]
            for name in there
            if name not in (source, target)
            and there[name] + back.get(name, len(there)) == there.get(target)
        ]

    def run(self) -> dict[str, Any]:
        token = os.urandom(16)
        wait_s = _ANSWER_S + 2 * self._lab.round_trip_s
        before = self._dropped()
        with Watch(self._nodes.values()) as watch:
            done = self._source.run(
                ["ping", "-n", f"-c{_PINGS}", "-i0.2", f"-W{wait_s:g}", "-p", token.hex(),
                 str(self._address)],
                check=False, timeout_s=30,
            )  # fmt: skip
        after = self._dropped()
        seen = [
            (frame, decoded, packet)
            for frame in self._in_order(watch.frames)
            for decoded in [decode(frame.content)]
            for packet in find_echoes(decoded, token)
        ]
        number = _farthest(seen)
        there = self._hops(seen, ECHO_REQUEST, number)
        back = self._hops(seen, ECHO_REPLY, number)
        answered = any(hop.node == self._source.name and not hop.outgoing for hop in back)
        arrived = bool(back) or (
            self._target is not None
            and any(hop.node == self._target.name and not hop.outgoing for hop in there)
        )
        arp: list[Hop] = []
        reasons: list[str] = []
        last = (back or there)[-1] if back or there else None
        if not answered:
            counted = {
                f"{name}: {what}"
                for name in after
                for what, packets in after[name].items()
                if packets > before[name].get(what, 0)
            }
            reasons += sorted(counted)
            goal = self._source.address if back else self._address
            origin = self._target_name if back else self._source.name
            arp = self._arp(watch.frames, last, goal, origin, reasons)
            last = arp[-1] if arp else last
            reasons += self._cut(last, done.stdout + done.stderr)
            reasons += self._to_nobody(seen, last)
            if watch.dropped:
                reasons.append(
                    f"{watch.dropped:,} frames more passed than are kept: it may be there"
                )
            if self._lab.lossy:
                reasons.append("links of this lab lose packets on purpose: it may have been that")
        return {
            "source": self._source.name,
            "target": self._target_name or str(self._address),
            "address": str(self._address),
            "arrived": arrived,
            "answered": answered,
            "there": [asdict(hop) for hop in there],
            "back": [asdict(hop) for hop in back],
            "arp": [asdict(hop) for hop in arp],
            "stopped": None if answered else _place(last, self._source),
            "reasons": reasons,
        }

    # -- what was seen -----------------------------------------------------------------------------

    def _in_order(self, frames: Sequence[Frame]) -> list[Frame]:
        """In time's order.  A bridge gets a frame with the timestamp of the port it came in by."""
        return sorted(frames, key=lambda f: (f.time_ns, self._device(f).get("kind") == "bridge"))

    def _hops(self, seen: Sequence[Seen], kind: int, number: int | None) -> list[Hop]:
        target = self._target.name if self._target else ""
        origin = self._source.name if kind == ECHO_REQUEST else target
        wanted = [
            (frame, decoded, packet)
            for frame, decoded, packet in seen
            if (packet.icmp_type, packet.icmp_sequence) == (kind, number)
            and self._leads_on(frame, origin)
        ]
        hops: list[Hop] = []
        for each, follower in zip(wanted, [*wanted[1:], None], strict=False):
            decision = self._decision(each, follower, first=not hops)
            hops.append(self._hop(*each, wanted[0][0].time_ns, decision))
        return hops

    def _hop(
        self, frame: Frame, decoded: Decoded, packet: Packet, begun_ns: int, decision: str
    ) -> Hop:
        outer = decoded.outer if decoded.encapsulation != "none" else None
        return Hop(
            frame.node,
            frame.device,
            frame.outgoing,
            (frame.time_ns - begun_ns) / 1e3,
            decoded.encapsulation,
            (str(outer.source), str(outer.destination)) if outer else None,
            self._between(packet),
            (str(packet.source), str(packet.destination)) if packet.source else None,
            len(frame.content),
            frame.content[6:12].hex(":"),
            decision,
        )

    def _leads_on(self, frame: Frame, origin: str) -> bool:
        """Not a copy that a bridge has flooded to whoever it is not for, `origin` among them."""
        device = self._device(frame)
        peer = str(device.get("peer") or "").partition(":")[0]
        if peer and peer not in self._nodes:
            return False
        # The wire passes on whatever comes, as with a delay line between two of its interfaces.
        ends_here = device.get("kind") == "veth" and not device["bridge"] and frame.node != "wire"
        if not frame.outgoing and ends_here:
            mac = frame.content[:6]
            # The lowest bit of the first byte: to a group, or to all (IEEE 802).
            if not mac[0] & 1 and mac.hex(":") != device["mac"]:
                return False
        return origin != (peer if frame.outgoing else frame.node)

    def _device(self, seen: Frame | Hop) -> Facts:
        return self._devices.get((seen.node, seen.device), {})

    # -- what decided ------------------------------------------------------------------------------

    def _decision(self, seen: Seen, follower: Seen | None, *, first: bool) -> str:
        frame, decoded, _ = seen
        node, device = self._nodes[frame.node], self._device(frame)
        outermost = decoded.outer
        assert outermost is not None
        mac = (outermost.destination_mac or b"").hex(":")
        source, target = outermost.source, outermost.destination
        if first and frame.outgoing and target is not None:
            return f"route: {tables.route(node, target)}"
        if frame.outgoing:
            between = self._between(follower[2]) if follower else None
            if device.get("kind") == "tun" and between:
                return f"weave router: to {between[1]}, by sleeve"
            return self._beyond(frame, outermost)
        if device.get("conditions"):
            return str(device["conditions"])
        if device.get("bridge") == _OVS:
            return "Open vSwitch's datapath takes it"
        if device.get("bridge"):
            return tables.bridge_entry(node, device["bridge"], mac)
        if frame.node == "wire":
            return ""
        if target is not None and self._is_of(frame.node, target):
            if decoded.encapsulation != "none":
                onward = follower if follower and follower[0].node == frame.node else None
                if onward and onward[1].encapsulation == "sleeve":
                    return "its own address: the weave router passes it on, by sleeve"
                return "its own address: the encapsulation ends here"
            on = follower is not None and follower[0].node == frame.node
            return "its own address: NAT, and on" if on else "arrived"
        if source is None or target is None:
            return ""
        routed = self._forwarded(node, target, str(source), frame.device)
        return routed if routed == _NO_FORWARDING else f"route: {routed}"

    def _forwarded(self, node: Node, target: IPv4Address, source: str, arrived: str) -> str:
        """The route of what has arrived; where nothing is forwarded `ip` says there is none."""
        routed = tables.route(node, target, source=source, arrived=arrived)
        found = "dev" in routed.split() or self._facts[node.name]["forwards"]
        return routed if found else _NO_FORWARDING

    def _between(self, packet: Packet) -> tuple[str, str] | None:
        """The hosts whose routers carry it, if sleeve does."""
        if packet.peers is None:
            return None
        source, target = (name.hex(":") for name in packet.peers)
        return self._routers.get(source, source), self._routers.get(target, target)

    def _beyond(self, frame: Frame, packet: Packet) -> str:
        """Where what leaves by a device goes."""
        node, device, facts = self._nodes[frame.node], self._device(frame), self._facts[frame.node]
        mac = (packet.destination_mac or b"").hex(":")
        switch = next((s for s in facts["switches"] if s["name"] == device.get("name")), None)
        if device.get("peer"):
            return f"link to {device['peer']}"
        if switch:
            return tables.switch_entry(node, switch, packet)
        if device.get("kind") == "bridge":
            return tables.bridge_entry(node, device["name"], mac)
        if device.get("bridge") == _OVS:
            return "Open vSwitch's tunnel device encapsulates it"
        if device.get("kind") == "vxlan":
            return tables.vxlan_entry(node, device["name"], mac)
        router = facts["router"]
        if router and device.get("kind") == "tun":
            return f"weave router, connected with {', '.join(router['remotes']) or 'nobody'}"
        return ""

    def _is_of(self, name: str, address: IPv4Address) -> bool:
        """Whether an address is one of the node's own."""
        return any(
            own.partition("/")[0] == str(address)
            for device in self._facts[name]["devices"]
            for own in device["addresses"]
        )

    # -- why it went no further --------------------------------------------------------------------

    def _dropped(self) -> dict[str, dict[str, int]]:
        return {name: tables.dropped(node) for name, node in self._nodes.items() if name != "wire"}

    def _arp(
        self,
        frames: Sequence[Frame],
        last: Hop | None,
        goal: IPv4Address,
        origin: str,
        reasons: list[str],
    ) -> list[Hop]:
        """Where the node that had it last asks for the next one's MAC in vain: that request."""
        node = self._nodes[last.node if last else self._source.name]
        arrived = last is not None and not last.outgoing
        if node.name == "wire" or (last and self._device(last).get("bridge")):
            return []  # no route was asked for what a bridge passes on
        if arrived and last is not None and last.inner and not self._is_of(node.name, goal):
            routed = self._forwarded(node, goal, last.inner[0], last.device)
        elif last is None or arrived:
            routed = tables.route(node, goal)
        else:
            return []
        following = tables.next_hop(routed, goal)
        if following is None:
            if not self._is_of(node.name, goal):
                what = routed if routed == _NO_FORWARDING else f"route to {goal}: {routed}"
                reasons.append(f"{node}: {what}")
            return []
        address, device = following
        if not tables.unanswered(node, address, device):
            return []
        reasons.append(f"{node}: nobody answers ARP for {address} on {device}")
        # Others may ask for it just then, too: a container behind that router, say.
        mac = str(self._devices.get((node.name, device), {}).get("mac"))
        asked = [
            (frame, decoded, request)
            for frame in self._in_order(frames)
            for decoded in [decode(frame.content)]
            for request in find_arp_requests(decoded, mac, address)
            if self._leads_on(frame, node.name) and (not origin or self._leads_on(frame, origin))
        ]
        start = next((i for i, (f, *_) in enumerate(asked) if f.node == node.name), len(asked))
        passed: dict[tuple[str, str, bool], Seen] = {}
        for seen in asked[start:]:
            passed.setdefault((seen[0].node, seen[0].device, seen[0].outgoing), seen)
        hops = []
        for frame, decoded, request in passed.values():
            leaving = decoded.outer if frame.outgoing else None
            decision = self._beyond(frame, leaving) if leaving else ""
            hops.append(self._hop(frame, decoded, request, asked[start][0].time_ns, decision))
        return hops

    def _cut(self, last: Hop | None, said: str) -> list[str]:
        """What is down where it was seen last, and what ping itself was told."""
        found = re.findall(r"(?m)^(?:From \S+ .*|.*Network is unreachable.*)$", said)[:1]
        for name in dict.fromkeys([*([last.node] if last else []), *self._ends()]):
            if self._facts[name].get("trouble"):
                found.append(f"{name}: {self._facts[name]['trouble']}")
        found += [f"{end}: down" for end in self._ends() if not self._facts[end]["up"]]
        if last is None:
            return list(dict.fromkeys(found))
        facts = self._facts[last.node]
        device = self._device(last)
        other, _, port = str(device.get("peer") or "").partition(":")
        for name, own in ((last.node, device), (other, self._devices.get((other, port), {}))):
            if own and not own["up"]:
                found.append(f"{name}: {own['name']} is down")
        bridge = last.device if device.get("kind") == "bridge" else device.get("bridge")
        found += [
            f"{last.node}: {each['name']}, port of {bridge}, is down"
            for each in facts["devices"]
            if each["bridge"] == bridge
            and not each["up"]
            and (not each["peer"] or each["peer"].partition(":")[0] in self._nodes)
        ]
        found += self._turned_away(last)
        if last.node == "wire" and bridge:
            reached = self._cabled(bridge)
            found += [
                f"wire: no cable leads from {bridge} to {end}"
                for end in self._ends()
                if self._facts[end]["host"] is None and end not in reached
            ]
        node = self._nodes[last.node]
        daemons = node.daemons() if isinstance(node, Host) else {}
        found += [f"{last.node}: {name} is dead" for name, alive in daemons.items() if not alive]
        if last.decision.endswith("drop"):
            found.append(f"{last.node}: {last.decision}")
        switch = next((s for s in facts["switches"] if s["name"] == last.device), None)
        # The bridge eth0 is the host's way out, which needs none.
        if switch and last.device != "eth0" and not any(p["remote"] for p in switch["ports"]):
            found.append(f"{last.node}: {switch['name']} has no tunnel port")
        found += self._not_taken_out(last)
        return list(dict.fromkeys([*found, *self._unplugged(found)]))

    def _not_taken_out(self, last: Hop) -> list[str]:
        """Of what has come encapsulated for Open vSwitch, if no tunnel port is for its sender."""
        facts = self._facts[last.node]
        bridges = [switch for switch in facts["switches"] if switch["name"] != "eth0"]
        if last.outgoing or not last.outer or facts["router"] or not bridges:
            return []
        source, target = last.outer
        remotes = {port["remote"] for switch in bridges for port in switch["ports"]}
        # "flow" is from whomever the flows name (ovs-vswitchd.conf.db(5), remote_ip).
        if not self._is_of(last.node, IPv4Address(target)) or {source, "flow"} & remotes:
            return []
        return [f"{last.node}: no tunnel port is for {source}"]

    def _turned_away(self, last: Hop) -> list[str]:
        bridge = self._device(last).get("bridge")
        if last.outgoing or not bridge or bridge == _OVS:
            return []
        if not tables.turned_away(self._nodes[last.node], bridge, last.device, last.source_mac):
            return []
        port = f"{last.node}: {last.device}, port of {bridge}"
        return [f"{port}, is locked, and {bridge} has no entry for {last.source_mac} there"]

    def _to_nobody(self, seen: Sequence[Seen], last: Hop | None) -> list[str]:
        """The MAC address it was sent to where it was seen last, if no interface here has it."""
        macs = {device["mac"] for device in self._devices.values()}
        wanted = [
            packet.destination_mac
            for frame, _, packet in seen
            if last and (frame.node, frame.device) == (last.node, last.device)
        ]
        mac = wanted[-1] if wanted else None
        if not mac or mac[0] & 1 or mac.hex(":") in macs:
            return []
        return [f"no interface has the MAC address {mac.hex(':')}, to which it is sent"]

    def _unplugged(self, told: Sequence[str]) -> list[str]:
        """Cables of both ends that are not plugged in, but for those of which it has been told.

        What is encapsulated may have left its host's bridge and never come to the cable.
        """
        hosts = [node for end in self._ends() if isinstance(node := self._lab[end], Host)]
        cables = {self._lab.physical_link(host): host for host in hosts}
        return [
            f"wire: {cable}, the cable of {host}, is down"
            for cable, host in cables.items()
            if not self._devices.get(("wire", cable), {}).get("up", True)
            and not any(cable in reason for reason in told)
        ]

    def _cabled(self, switch: str) -> set[str]:
        """The nodes to which cables lead from a switch, over others too."""
        devices = {device["name"]: device for device in self._facts["wire"]["devices"]}

        def home(device: Facts) -> str | None:
            found: str | None = devices[device.get("port") or device["name"]]["bridge"]
            return found

        reached: set[str] = set()
        switches, waiting = {switch}, [switch]
        while waiting:
            here = waiting.pop()
            for device in devices.values():
                other, _, port = str(device["peer"] or "").partition(":")
                if home(device) != here or not other:
                    continue
                if other != "wire":
                    reached.add(other)
                elif (beyond := home(devices[port])) and beyond not in switches:
                    switches.add(beyond)
                    waiting.append(beyond)
        return reached

    def _ends(self) -> list[str]:
        """Both ends, as far as they are there, and the hosts they are on."""
        both = (self._source.name, self._target_name)
        return [
            end for name in both for end in (name, name.partition("/")[0]) if end in self._facts
        ]


def _farthest(seen: Sequence[Seen]) -> int | None:
    """The ping that was seen most often; of several the last."""
    numbers = [packet.icmp_sequence for _, _, packet in seen if packet.icmp_sequence is not None]
    return max(numbers, key=lambda number: (numbers.count(number), number), default=None)


def _place(last: Hop | None, source: Node) -> str:
    if last is None:
        return f"{source}: it never left"
    return f"{last.node}:{last.device}, {'leaving' if last.outgoing else 'coming in'}"
