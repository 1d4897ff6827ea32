"""A lab that somebody typed, judged: what must hold of a method, whoever built it.

A scenario's `judge` states it stage by stage, with the methods of `Judge`.  None of them knows a
name or an address that the tutorial has: they go by what is there (`found`) and by packets.

    holds         ✓
    fails         ✗  what was observed, and what to look at
    not yet       ·  what is missing; the stages after that are not judged
    passed over      another way was taken, which is right, too
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import combinations, permutations
from typing import Any, Literal, get_args

from xlab.errors import DeadlineError, XlabError
from xlab.kernel.packets import Encapsulation
from xlab.kernel.processes import wait_until
from xlab.lab.capture import follow_pings
from xlab.lab.docker import Container
from xlab.lab.lab import OUTSIDE, Host, Lab, concurrently
from xlab.lab.node import Node
from xlab.lab.ovs import Bridge, Port
from xlab.lab.path_mtu import vanishes
from xlab.lab.reachability import sample_pairs, unreachable
from xlab.lab.weave import ROUTER
from xlab.record.judgement import Carried, Judgement, Stage, State
from xlab.record.record import Claim, UnderlayPackets
from xlab.scenario import found
from xlab.scenario.claims import STANDING_PATIENCE_S, silence_s
from xlab.scenario.found import Route, There
from xlab.scenario.statements import (
    AddressesAreDistinct,
    DoesNotReach,
    Reaches,
    Statement,
    Terms,
    Transfers,
)

#: Who asks, whom, at which address; None is the outside.
Pair = tuple[Node, Node | None, IPv4Address]

#: What packets went in, for a reader.
_WORDS = {kind: "plain" if kind == "none" else kind for kind in get_args(Encapsulation)}

#: How long what must come true may take where something is wrong already; and how long somebody
#: is asked once more, only to hear why it did not answer.
_HURRIED_S, _REASON_S = 1.2, 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen where something was looked for."""

    state: Literal["holds", "fails", "not yet"]
    observed: str
    #: What to look at next: a command, a section of the tutorial.
    look: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """How the mechanism that carries the traffic is taken away, and put back as it was."""

    text: str
    cut: Callable[[], None]
    heal: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Proved:
    """A flow that was seen to take its way, and what would stop it."""

    source: Node
    target: Node
    encapsulation: Encapsulation
    cut: Cut
    cut_stops_traffic: bool


class Judge:
    """What a scenario's `judge` states; each statement is checked where it stands."""

    def __init__(self, lab: Lab, tell: Callable[[Mapping[str, Any]], None]) -> None:
        """Events are `claim`, with what to look at if it fails (`look`), and `not yet`."""
        self._lab = lab
        self._tell = tell
        self._there = dict(
            zip(lab.hosts, concurrently(lambda host: found.look(lab, host), lab.hosts), strict=True)
        )
        self._owners = {a: t for t in self._there.values() for a in t.addresses}
        for host, there in self._there.items():
            if there.address and there.address != _address(host):
                host.prefer_address(there.address)  # the one it came with is gone
        self._gateway = _address(lab.gateway)
        #: Hosts whose Docker is where the method wants it; and the containers that count.
        self._placed: list[There] = []
        self._containers: dict[Host, list[Container]] = {}
        self._interface = "eth0"
        #: Pairs of containers that do not reach each other.
        self._silent: set[tuple[Node, Node]] = set()
        self._stage: str | None = None
        #: Why this stage is not judged.
        self._unless: tuple[State, str] | None = None
        self._broken: list[str] = []
        self._missing: list[str] = []
        #: Whether a stage before has parts that nobody has begun.
        self._incomplete = False
        self._stages: list[Stage] = []
        self._carries: Carried | None = None
        self._seen_taking: tuple[Node, Node, Encapsulation] | None = None
        self._next = ""
        #: Of the flow that was seen to take its way; None before it can be proved.
        self.proved: Proved | None = None

    # -- stages ------------------------------------------------------------------------------------

    def stage(self, name: str) -> None:
        """What follows is about this one of the scenario's stages."""
        self._end_stage()
        self._stage = name
        self._broken, self._missing = [], []
        self._unless = ("after that", "") if self._incomplete else None

    def passes_over(self, why: str) -> None:
        """This stage is not what is there, which is right all the same."""
        self._unless = self._unless or ("passed over", why)

    def judgement(self) -> Judgement:
        """Once all has been stated."""
        self._end_stage()
        self._stage = None
        return Judgement(tuple(self._stages), self._carries, self._next)

    def _end_stage(self) -> None:
        if self._stage is None:
            return
        state: State = "fails" if self._broken else "not yet" if self._missing else "holds"
        said = (*self._broken, *self._missing)
        if self._unless:
            state, why = self._unless
            said = (why,) if why else ()
        self._incomplete = self._incomplete or bool(self._missing)
        self._stages.append(Stage(self._stage, state, said))

    # -- hosts -------------------------------------------------------------------------------------

    def hosts_reach_each_other(self) -> None:
        theirs = list(self._there.values())

        def seen() -> Seen:
            if troubles := [there.trouble for there in theirs if there.trouble]:
                return _wrong("; ".join(troubles), "`xlab ps`; `xlab fault reboot HOST`")
            bare = [str(there) for there in theirs if there.address is None]
            if len(bare) == len(theirs):
                return _missing("no host has an address", "`ip -br address`")
            if bare:
                return _wrong(f"{_listed(bare)}: no address", f"`ip -br address` on {bare[0]}")
            sample = sample_pairs(self._lab.hosts)
            pairs = [(a, b, self._address(self._lab.host_of(b))) for a, b in sample]
            return self._answers(pairs, lambda a, b: f"`ip route` on {a}; {_traced(a, b)}")

        self._see("hosts-reach-each-other", "hosts reach each other", "an answer to each", seen)

    def hosts_reach_outside(self, *, see: str) -> None:
        """By a default route, on whatever device."""
        pairs: list[Pair] = [
            (host, None, OUTSIDE) for host, there in self._there.items() if there.address
        ]
        self._see(
            "hosts-reach-outside", "each host reaches the outside", "an answer to each",
            lambda: self._answers(pairs, lambda a, _: f"`ip route` on {a}; {_tutorial(see)}"),
        )  # fmt: skip

    def nic_is_bridged(self, host: Host, *, see: str) -> None:
        """eth0 is a port of a Linux bridge; the host's address is there, and eth0 has none."""

        def seen(there: There) -> Seen:
            nic = there.nic
            if nic not in there.devices:
                return _wrong(f"{host} has no {nic}", f"`ip -br link` on {host}")
            bridge, its = there.bridge_of(nic), there.addresses_of(nic)
            if not bridge:
                holder = there.addresses.get(there.address) if there.address else None
                if holder in (None, nic):
                    return _missing(f"{host}: {nic} is a port of no bridge", _tutorial(see))
                lost = f"{holder} has {there.address}, but {nic} is a port of no bridge"
                return _wrong(f"{host}: {lost}", f"`brctl show` on {host}; {_tutorial(see)}")
            if its:
                return _wrong(
                    f"{host}: {nic}, a port of {bridge}, still has {its[0]}",
                    f"`ip -br address` on {host}; docs/tutorial.md C2",
                )
            if not there.addresses_of(bridge):
                return _wrong(f"{host}: {bridge} has no address", f"`ip -br address` on {host}")
            return _up(there, nic, bridge) or _right(
                f"{nic} is a port of {bridge}, {there.addresses_of(bridge)[0]}"
            )

        text = f"on {host} a bridge has taken over {self._there[host].nic}, and its address"
        self._see_on(host, "nic-is-bridged", text, "eth0 a port, the address on its bridge", seen)

    # -- Docker ------------------------------------------------------------------------------------

    def docker_is_on_the_bridge_of_the_nic(self, host: Host, *, see: str) -> None:
        def seen(there: There) -> Seen:
            bridge, wanted = there.docker_bridge, there.bridge_of(there.nic)
            if wanted and bridge != wanted and there.docker_is_as_it_came:
                return _missing(f"{host}: Docker is not on {wanted}", _tutorial(see))
            if stopped := _stopped(there):
                return stopped
            if bridge != wanted:
                where = f"{there.nic} is a port of {wanted or 'no bridge'}"
                return _wrong(f"{host}: Docker uses {bridge}; {where}", _of_docker(host))
            return _unplugged(there) or _right(f"Docker uses {bridge}")

        text = f"Docker of {host} is on the bridge that {self._there[host].nic} is a port of"
        if self._see_on(host, "docker-is-on-the-bridge", text, "the same bridge", seen):
            self._placed.append(self._there[host])

    def docker_leads_into_the_tunnel(self, host: Host, kind: str, *, see: str) -> None:
        """Open vSwitch's bridge and Docker's are joined; or it has an address to route over.

        Asked only where there is a tunnel.
        """

        def seen(there: There) -> Seen:
            bridge = there.docker_bridge
            ends = {switch.name: switch for switch, _ in there.tunnels(kind)}
            switches, name = list(ends), next(iter(ends))
            joints = {k: v for each in ends.values() for k, v in there.joints(each).items()}
            if bridge not in joints and there.docker_is_as_it_came:
                short = f"Docker is not on {_listed(joints)}"
                if not joints:
                    short = f"{name} is a port of no bridge"
                return _missing(f"{host}: {short}", _tutorial(see))
            if stopped := _stopped(there):
                return stopped
            if bridge in joints:
                of = f"{joints[bridge][0]} is a port of {bridge}, which Docker uses"
                return _up(there, *joints[bridge], bridge) or _unplugged(there) or _right(of)
            routed = [each for each in switches if there.addresses_of(each)]
            if routed:
                of = f"packets are routed over {routed[0]}, {there.addresses_of(routed[0])[0]}"
                return _up(there, routed[0]) or _unplugged(there) or _right(of)
            return _wrong(
                f"{host}: {name} is a port of {_listed(joints) or 'no bridge'}, and has no "
                f"address; Docker uses {bridge}",
                f"`brctl show` on {host}; {_tutorial(see)}",
            )

        if self._there[host].tunnels(kind):
            text = f"what containers of {host} send can get into the tunnel"
            expected = "Docker's bridge and Open vSwitch's joined, and up"
            if self._see_on(host, "docker-leads-into-the-tunnel", text, expected, seen):
                self._placed.append(self._there[host])

    def containers_run(self, host: Host, *, see: str, interface: str = "eth0") -> None:
        """One at least, with an address on that interface; these are what is asked from here on."""

        def seen(there: There) -> Seen:
            running = there.containers(interface)
            if not running:
                others = [f"{c.short_name} {_state(c)}" for c in host.docker.all_containers]
                which = f" with an {interface}" if interface != "eth0" else ""
                had = f" ({_listed(others)})" if others else ""
                look = f"`docker ps -a` on {host}; " if others else ""
                return _missing(f"{host}: no container runs{which}{had}", look + _tutorial(see))
            for container, own in running.items():
                container.prefer_address(own.ip)
            self._containers[host], self._interface = list(running), interface
            return _right(_listed([f"{c.short_name} {own}" for c, own in running.items()]))

        text = f"{host} runs a container" + (f" with an {interface}" if interface != "eth0" else "")
        self._see_on(host, "containers-run", text, "one or more", seen)

    def ranges_are_apart(self) -> None:
        """No two Dockers hand out the same addresses, nor those of hosts and of the gateway."""
        wrong: list[str] = []

        def seen() -> Seen:
            for a, b in combinations(self._placed, 2):
                wrong.extend(self._overlap(a, b))
            for there in self._placed:
                wrong.extend(self._intrusions(there))
            if wrong:
                last = self._placed[-1].host
                return _wrong("; ".join(wrong[:3]), _of_docker(last))
            return _right(_listed([f"{t} {t.host.docker.range}" for t in self._placed]))

        if self._placed:
            text = "each host has a range of its own for its containers"
            self._see("ranges-are-apart", text, "ranges that do not overlap", seen)

    def _overlap(self, a: There, b: There) -> Iterable[str]:
        one, other = a.host.docker.range, b.host.docker.range
        if not one.overlaps(other):
            return
        for there, range_, of in (b, one, a), (a, other, b):
            for container in self._containers.get(there.host, ()):
                if container.address in range_:
                    yield (
                        f"{there}'s containers get addresses from {of}'s range: "
                        f"{container.address} lies in {range_}"
                    )
                    return
        yield f"{b} hands out addresses from {a}'s range: {other} and {one} overlap"

    def _intrusions(self, there: There) -> Iterable[str]:
        docker = there.host.docker
        names = {address: str(of) for address, of in self._owners.items() if of is not there}
        if self._gateway:
            names[self._gateway] = self._lab.gateway.name
        for address, name in names.items():
            shared = address == docker.host.device_address(there.docker_bridge)
            if address in docker.range and str(address) != docker.gateway and not shared:
                yield f"{there} may hand out {name}'s address: {address} lies in {docker.range}"

    def addresses_are_distinct(self) -> None:
        """Of containers, hosts and the gateway."""
        nodes = [*self._all_containers, *self._lab.hosts, self._lab.gateway]
        nodes = [node for node in nodes if _address(node)]
        if self._all_containers:
            self._hold(
                AddressesAreDistinct(nodes, "containers, hosts and gateway"),
                look="`docker network inspect bridge` on each host",
            )

    # -- tunnels -----------------------------------------------------------------------------------

    def has_tunnel(self, host: Host, kind: str, *, see: str, bridge_see: str) -> None:
        """A bridge of Open vSwitch has a port of that kind to another host."""
        peers = {address: there for address, there in self._owners.items() if there.host != host}

        def seen(there: There) -> Seen:
            if not there.switches:
                return _missing(f"{host}: Open vSwitch has no bridge", _tutorial(bridge_see))
            said = []
            for switch, port in there.tunnels(kind):
                remote = port.options.get("remote_ip", "")
                peer = {str(address): of for address, of in peers.items()}.get(remote)
                if fault := self._fault_of(there, port, peer):
                    return _wrong(f"{host}: {fault}", f"`ovs-vsctl show` on {host}")
                said.append(f"{port.name} of {switch.name} leads to {remote}, {peer}")
            if said:
                return _right("; ".join(said))
            return self._no_tunnel(there, kind, see)

        others = [other.name for other in self._lab.hosts if other is not host]
        whither = others[0] if len(others) == 1 else "another host"
        text = f"{host} has a {kind.upper()} port to {whither}, on a bridge of Open vSwitch"
        self._see_on(host, f"has-{kind}-tunnel", text, f"type={kind}, its remote_ip", seen)

    def _fault_of(self, there: There, port: Port, peer: There | None) -> str:
        """What is wrong with a tunnel's port; "" if nothing is."""
        remote = port.options.get("remote_ip", "")
        if port.error:
            return f"{port.name}: {port.error}"
        if not remote:
            return f"{port.name} has no remote_ip"
        if remote in map(str, there.addresses):
            return f"{port.name} leads to {remote}, which is {there}'s own"
        if peer is None:
            return f"{port.name} leads to {remote}, which no other host has"
        for _, back in peer.tunnels(port.type):
            if back.options.get("remote_ip", "") in map(str, there.addresses):
                keys = port.options.get("key", "0"), back.options.get("key", "0")
                if keys[0] != keys[1]:
                    return f"{port.name} has key {keys[0]}, {back.name} of {peer} key {keys[1]}"
        return ""

    def _no_tunnel(self, there: There, kind: str, see: str) -> Seen:
        others = [
            (switch, port) for switch in there.switches for port in switch.ports
            if port.options.get("remote_ip")
        ]  # fmt: skip
        if others:
            _, port = others[0]
            return _wrong(
                f"{there}: {port.name} is of type {port.type}, not {kind}",
                f"`ovs-vsctl show` on {there}",
            )
        untyped = [p.name for s in there.switches for p in s.ports if p.error]
        more = f" ({untyped[0]} has no type yet)" if untyped else ""
        names = _listed([switch.name for switch in there.switches])
        return _missing(f"{there}: {names} has no {kind.upper()} port{more}", _tutorial(see))

    def tunnels_join_all_hosts(self, kind: str, *, see: str) -> None:
        """And make no loop, unless something opens it.  Of two hosts that goes without saying."""
        ends = {t.host: t.tunnels(kind) for t in self._there.values()}
        if len(ends) < 3 or not all(ends.values()):
            return

        def seen() -> Seen:
            links: set[frozenset[Node]] = set()
            for host, tunnels in ends.items():
                for _, port in tunnels:
                    for address, peer in self._owners.items():
                        if str(address) == port.options.get("remote_ip"):
                            links.add(frozenset((host, peer.host)))
            joined = _reached(self._lab.hosts[0], links)
            lost = [str(host) for host in ends if host not in joined]
            if lost:
                return _wrong(f"no tunnel leads to {_listed(lost)}", "`ovs-vsctl show`")
            if has_loop(links, {host for host, tunnels in ends.items() if _forwards(tunnels)}):
                return _wrong(
                    f"{len(links)} tunnels between {len(ends)} hosts make a loop",
                    f"`ovs-vsctl set port NAME protected=true`; {_tutorial(see)}",
                )
            return _right(f"{len(links)} tunnels")

        text = f"{kind.upper()} ports join all hosts, without a loop"
        self._see("tunnels-join-all-hosts", text, "a tree, or split horizon", seen)

    # -- routes ------------------------------------------------------------------------------------

    def way_between_containers(self) -> Literal["", "past the tunnel", "through the tunnel"]:
        """Where the hosts' routes to each other's containers lead; "" if there is none."""
        leads = [
            route.device not in (there.nic, there.bridge_of(there.nic))
            for there in self._there.values()
            for other, container in self._firsts.items()
            if other is not there.host and (route := self._route(there, container.address))
        ]
        if not leads:
            return ""
        return "through the tunnel" if any(leads) else "past the tunnel"

    def has_routes(self, host: Host, *, see: str) -> None:
        """To the containers of every other host, by whichever device."""
        others = {of: c.address for of, c in self._firsts.items() if of is not host}

        def seen(there: There) -> Seen:
            said = []
            for other, address in others.items():
                route = self._route(there, address)
                if route is None:
                    subnet = other.docker.subnet if other.docker.is_running else address
                    what = f"{host} has no route to {other}'s containers, {subnet}"
                    return _missing(what, f"`ip route` on {host}; {_tutorial(see)}")
                if not route.device:
                    return _wrong(f"{host}: {route.text}", f"`ip route` on {host}")
                if route.via and not self._is_elsewhere(route.via, there):
                    whose = "its own" if route.via in there.addresses else "nobody's"
                    what = f"{host}: {route.text}: that address is {whose}"
                    return _wrong(what, f"`ip route` on {host}; docs/tutorial.md C13")
                said.append(route.text)
            return _right("; ".join(dict.fromkeys(said)))

        if others:
            text = f"{host} has a route to the other hosts' containers"
            self._see_on(host, "has-routes", text, "a route to each", seen)

    def _route(self, there: There, address: IPv4Address) -> Route | None:
        """A route that somebody made; the gateway may have it in the host's place."""
        route = there.route_to(address)
        if route is None or not route.is_default:
            return route
        if route.via and route.via == self._gateway:
            beyond = found.routes(self._lab.gateway)
            if any(address in each.destination and not each.is_default for each in beyond):
                return route
        return None

    def _is_elsewhere(self, address: IPv4Address, here: There) -> bool:
        """Whether another host has it, or the gateway."""
        owner = self._owners.get(address)
        return owner is not here if owner else address == self._gateway

    # -- weave -------------------------------------------------------------------------------------

    def router_runs(self, host: Host, *, see: str) -> None:
        def seen(_: There) -> Seen:
            alive = host.weave.alive().get(ROUTER)
            if alive is None:
                return _missing(f"{host}: no weave router", _tutorial(see))
            if not alive:
                return _wrong(f"{host}: the router has ended", f"`weave launch` on {host}")
            return _right(f"{host.weave.name}, in a container named {ROUTER}")

        self._see_on(host, "router-runs", f"{host} runs a weave router", "a router", seen)

    def routers_are_connected(self, *, see: str) -> None:
        """Every one with every other, each of which may have been told of one alone."""
        hosts = [host for host in self._lab.hosts if host.weave.alive().get(ROUTER)]
        others = len(hosts) - 1

        def counted() -> dict[str, int]:
            return {host.name: len(host.weave.connections()) for host in hosts}

        def seen() -> Seen:
            try:
                wait_until(
                    lambda: all(number >= others for number in counted().values()),
                    timeout_s=self._patience_s, awaited="connections",
                )  # fmt: skip
            except DeadlineError:
                few = {name: number for name, number in counted().items() if number < others}
                if few:
                    name = next(iter(few))
                    return _wrong(
                        "; ".join(f"{n} has {k} of {others} connections" for n, k in few.items()),
                        f"`weave status connections` on {name}; {_tutorial(see)}",
                    )
            return _right(f"{len(hosts) * others} connections")

        if others > 0:
            text = "every router is connected with every other"
            self._see("routers-are-connected", text, "established connections", seen)

    def containers_share_a_subnet(self, *, interface: str, see: str) -> None:
        """Weave joins them into one segment: what is beyond it nobody routes."""

        def seen() -> Seen:
            owns = {
                container: own
                for there in self._there.values()
                for container, own in there.containers(interface).items()
            }
            networks = {own.network: container for container, own in owns.items()}
            if len(networks) > 1:
                (first, one), (second, other) = list(networks.items())[:2]
                return _wrong(
                    f"{one} is in {first}, {other} in {second}",
                    f"`ip address show {interface}` in {other}; {_tutorial(see)}",
                )
            return _right(str(next(iter(networks))))

        if len(self._containers) > 1:
            text = "containers are in one subnet"
            self._see("containers-share-a-subnet", text, "the same network", seen)

    # -- what packets do ---------------------------------------------------------------------------

    def containers_reach_outside(self) -> None:
        pairs: list[Pair] = [(container, None, OUTSIDE) for container in self._firsts.values()]
        self._reach("containers-reach-outside", "the outside", pairs)

    def containers_reach_other_hosts(self) -> None:
        pairs = [
            (container, other, self._address(other))
            for host, container in self._firsts.items()
            for other in self._lab.hosts
            if other is not host
        ]
        what = "the other host" if len(self._lab.hosts) == 2 else "the other hosts"
        self._reach("containers-reach-hosts", what, pairs)

    def containers_reach_each_other(self) -> None:
        """The first container of every host, both ways; once all of this stage is there."""
        if self._missing:
            return
        pairs = [(a, b, b.address) for a, b in permutations(self._firsts.values(), 2)]
        self._reach("containers-reach-each-other", "those of other hosts", pairs)

    def containers_do_not_reach_each_other(self, why: str) -> None:
        if len(self._firsts) > 1:
            source, target = self._ends
            text = f"{source} does NOT reach {target}: {why}"
            self._hold(DoesNotReach(source, target, text), look=_traced(source, target))

    def transfers(self, *, see: str) -> None:
        """Full-size segments arrive, both ways: what a ping does not show."""
        if self._missing:
            return
        nodes = list(self._firsts.values())
        ring = list(zip(nodes, nodes[1:] + nodes[:1], strict=True))
        for source, target in dict.fromkeys([*ring, *((b, a) for a, b in ring)]):
            if source is not target and (source, target) not in self._silent:
                self._large_packets_are_not_lost(source, target, see=see)
                look = f"`ip -br link`, which MTU? {_tutorial(see)}"
                self._hold(Transfers(source, target), look=look)

    def _large_packets_are_not_lost(self, source: Node, target: Node, *, see: str) -> None:
        """Somebody says so if they are too large, and TCP can go by that."""

        def seen() -> Seen:
            size = source.mtu(self._interface)
            if vanishes(
                source, target, size=size, round_trip_s=self._lab.round_trip_s,
                timeout_s=self._patience_s,
            ):  # fmt: skip
                what = f"packets of {size} bytes from {source} to {target} vanish"
                host = self._lab.host_of(source)
                look = f"`ip -br link` on {host}, which MTU? {_tutorial(see)}, C12"
                return _wrong(f"{what}, and nobody says that they are too large", look)
            return _right(f"{size} bytes arrive, or {source} is told that they are too many")

        name = f"{source}-large-packets-to-{target}"
        text = f"large packets from {source} to {target} are not lost silently"
        self._see(name, text, "a reply, or a word", seen)

    def takes(self, encapsulation: Encapsulation, text: str, *, to_host: bool = False) -> None:
        """Marked pings from the first host's container to the last's, or to that host itself."""
        if self._unless or self._missing or not self._firsts:
            return
        source, target = self._ends
        if to_host:
            target = self._lab.hosts[-1]
        if source is target or (source, target) in self._silent:
            return

        def seen() -> Seen:
            link = self._lab.physical_link(self._lab.host_of(source))
            seen = follow_pings(source, target, wire=self._lab.wire, interface=link)
            counts = {kind: seen.count(kind) for kind in get_args(Encapsulation)}
            if seen.seen:
                packets = UnderlayPackets(**counts, stray=seen.stray)
                self._carries = Carried(source.name, target.name, packets)
            said = ", ".join(
                f"{number} {_WORDS[kind]}" for kind, number in counts.items() if number
            )
            if not seen.all_took(encapsulation, lossy=self._lab.lossy):
                said = said or "no packet on the physical link"
                look = f"`ip route` on each host; {_traced(source, target)}"
                return _wrong(f"{source} to {target} and back: {said}", look)
            self._seen_taking = source, target, encapsulation
            return _right(said)

        name = f"{source}-to-{target}-takes-{encapsulation}"
        expected = f"{_WORDS[encapsulation]} both ways"
        self._see(name, f"{source} to {target} goes {text}", expected, seen)

    # -- the proof ---------------------------------------------------------------------------------

    def stops_when(self, cut: Cut, *, stops: bool = True) -> None:
        """`--prove` takes this away.  Not `stops` of what the traffic never used."""
        if self._seen_taking:
            self.proved = Proved(*self._seen_taking, cut, stops)

    def nic_leaves_its_bridge(self, host: Host) -> Cut:
        there = self._there[host]
        nic, bridge = there.nic, there.bridge_of(there.nic)
        return _undoing(
            f"{nic} of {host} detached from {bridge}", lambda: host.take_out_of_bridge(nic)
        )

    def tunnels_are_deleted(self, host: Host, kind: str) -> Cut:
        """They come back as they were, whatever somebody had set."""
        ports = [port.name for _, port in self._there[host].tunnels(kind)]
        return _undoing(f"{kind.upper()} ports of {host} deleted", lambda: host.ovs.take_out(ports))

    # -- plumbing ----------------------------------------------------------------------------------

    @property
    def _firsts(self) -> dict[Host, Container]:
        """The first container of each host that has one."""
        with_one = [host for host in self._lab.hosts if host in self._containers]
        return {host: self._containers[host][0] for host in with_one}

    @property
    def _all_containers(self) -> list[Container]:
        return [each for host in self._lab.hosts for each in self._containers.get(host, ())]

    @property
    def _ends(self) -> tuple[Node, Node]:
        nodes = list(self._firsts.values())
        return nodes[0], nodes[-1]

    def _address(self, host: Host) -> IPv4Address:
        return self._there[host].address or host.address

    @property
    def _patience_s(self) -> float:
        usual_s = _HURRIED_S if self._broken else STANDING_PATIENCE_S
        return usual_s + 5 * self._lab.round_trip_s

    def _terms(self, patience_s: float | None = None) -> Terms:
        patience_s = patience_s or self._patience_s
        return Terms(self._lab, self._stage or "", patience_s, silence_s(self._lab))

    def _reach(self, name: str, what: str, pairs: Sequence[Pair]) -> None:
        if pairs:
            sources = dict.fromkeys(source for source, _, _ in pairs)
            verb = "reach" if len(sources) > 1 else "reaches"
            text = f"{_listed(map(str, sources))} {verb} {what}"
            self._see(name, text, "an answer to each", lambda: self._answers(pairs, _traced))

    def _answers(self, pairs: Sequence[Pair], look: Callable[[Node, str], str]) -> Seen:
        """Whether each target answers; of the first that does not, why, if somebody says."""
        targets: dict[tuple[Node, Node | IPv4Address], Node | None] = {
            (source, address): target for source, target, address in pairs
        }
        silent = unreachable(
            list(targets), timeout_s=self._patience_s, round_trip_s=self._lab.round_trip_s
        )
        if not silent:
            return _right(f"{len(pairs)} of {len(pairs)} answer")
        for source, address in silent:
            if target := targets[source, address]:
                self._silent.add((source, target))
        source, address = silent[0]
        target = targets[source, address]
        said = f"{source} gets no reply from {target or 'the outside'}, {address}"
        if source.address == address:
            said = f"{source} and {target} have one address, {address}"
        elif isinstance(source, Container):  # of whose programs none is the student's
            why = Reaches(source, address).check(self._terms(_REASON_S)).observed
            said += why.removeprefix("no reply") if why.startswith("no reply") else ""
        more = f"; of {len(pairs)} pairs {len(silent)} are silent" if silent[1:] else ""
        return _wrong(said + more, look(source, str(target or address)))

    def _hold(self, statement: Statement, *, look: str) -> None:
        """A statement of those that builds make, with what to look at if it fails."""
        if self._unless:
            return
        try:
            claim = statement.check(self._terms())
        except (XlabError, OSError) as error:
            kind = type(statement).__name__
            claim = self._terms().claim(
                kind.lower(), f"{kind} can be asked", expected="an answer", observed=str(error),
                holds=False, evidence="",
            )  # fmt: skip
        self._told(claim, look, f"{claim.text}: {claim.observed}")

    def _see_on(
        self, host: Host, name: str, text: str, expected: str, look_at: Callable[[There], Seen]
    ) -> bool:
        there = self._there[host]

        def seen() -> Seen:
            return _missing(there.trouble, "`xlab ps`") if there.trouble else look_at(there)

        return self._see(f"{host}-{name}", text, expected, seen)

    def _see(self, name: str, text: str, expected: str, look_at: Callable[[], Seen]) -> bool:
        """Whether it holds; where this stage is not judged nothing is looked at."""
        if self._unless:
            return False
        try:
            seen = look_at()
        except (XlabError, OSError) as error:  # a container has just been stopped, say
            seen = _wrong(str(error), "")
        if seen.state == "not yet" and seen.observed in self._missing:
            return False
        if seen.state == "not yet":
            self._missing.append(seen.observed)
            self._what_next(seen)
            self._tell({"kind": "not yet", "stage": self._stage, "text": seen.observed,
                        "look": seen.look})  # fmt: skip
            return False
        claim = self._terms().claim(
            name, text, expected=expected, observed=seen.observed, holds=seen.state == "holds",
            evidence="",
        )  # fmt: skip
        self._told(claim, seen.look, seen.observed)
        return claim.holds

    def _told(self, claim: Claim, look: str, said: str) -> None:
        event = {"kind": "claim", **dataclasses.asdict(claim)}
        if not claim.holds:
            self._broken.append(said)
            self._what_next(_wrong(said, look))
            event["look"] = look
        self._tell(event)

    def _what_next(self, seen: Seen) -> None:
        self._next = self._next or ": ".join(filter(None, (seen.observed, seen.look)))


# -- words -----------------------------------------------------------------------------------------


def _right(observed: str) -> Seen:
    return Seen("holds", observed)


def _wrong(observed: str, look: str) -> Seen:
    return Seen("fails", observed, look)


def _missing(what: str, look: str) -> Seen:
    return Seen("not yet", what, look)


def _tutorial(section: str) -> str:
    return f"docs/tutorial.md {section}"


def _traced(source: Node, target: Node | str) -> str:
    return f"`xlab trace {source} {target}`"


def _of_docker(host: Host) -> str:
    return f"`systemctl cat docker` on {host}"


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _state(container: Container) -> str:
    if container.state == "exited":
        return f"has exited ({container.exit_code})"
    return f"is {container.state}"


def _undoing(text: str, cut: Callable[[], Callable[[], None]]) -> Cut:
    """Of a cut that says how it is healed."""
    heal: list[Callable[[], None]] = []
    return Cut(text, lambda: heal.append(cut()), lambda: heal.pop()())  # noqa: PLW0108


# -- what several look at --------------------------------------------------------------------------


def _up(there: There, *devices: str) -> Seen | None:
    """The first of these that is down, if one is."""
    for device in devices:
        if not there.is_up(device):
            return _wrong(f"{there}: {device} is down", f"`ip link show {device}` on {there}")
    return None


def _stopped(there: There) -> Seen | None:
    if there.host.docker.is_running:
        return None
    return _wrong(f"{there}: Docker does not run", f"`journalctl -u docker` on {there}")


def _unplugged(there: There) -> Seen | None:
    """A container whose end on the host is no port of Docker's bridge any more."""
    for container in there.host.containers:
        port, bridge = container.host_interface, there.bridge_of(container.host_interface)
        if port in there.devices and bridge != there.docker_bridge:
            where = f"{port} is a port of {bridge or 'no bridge'}, not of {there.docker_bridge}"
            return _wrong(f"{container}: {where}", f"`brctl show` on {there}")
    return None


def _address(node: Node) -> IPv4Address | None:
    """What it is known by, if it has an address."""
    try:
        return node.address
    except XlabError:
        return None


def _forwards(tunnels: Sequence[tuple[Bridge, Port]]) -> bool:
    """Whether what comes by one tunnel leaves by another, and loops are not found by themselves.

    Two protected ports do not forward to each other.
    """
    return any(not bridge.opens_loops and not port.protected for bridge, port in tunnels)


def has_loop(links: Iterable[frozenset[Node]], forwarding: Set[Node]) -> bool:
    """Whether a frame could go round in a circle, each of whose hosts forwards it."""
    circle = [link for link in links if link <= forwarding]
    while circle:
        ends = Counter(host for link in circle for host in link)
        left = [link for link in circle if all(ends[host] > 1 for host in link)]
        if left == circle:
            return True
        circle = left
    return False


def _reached(start: Node, links: Iterable[frozenset[Node]]) -> set[Node]:
    reached, links = {start}, list(links)
    for _ in links:
        for link in links:
            if link & reached:
                reached |= link
    return reached
