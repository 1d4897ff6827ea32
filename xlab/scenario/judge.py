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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import combinations, permutations
from typing import Any, Literal, get_args

from xlab.errors import DeadlineError, XlabError
from xlab.kernel.packets import Encapsulation
from xlab.kernel.processes import wait_until
from xlab.lab.capture import follow_echoes
from xlab.lab.docker import Container
from xlab.lab.lab import OUTSIDE, Host, Lab, concurrently
from xlab.lab.node import Node
from xlab.lab.path_mtu import vanishes
from xlab.lab.reachability import sample_pairs, unreachable
from xlab.lab.weave import ROUTER
from xlab.record.judgement import Carried, Judgement, Stage, State
from xlab.record.record import Claim, UnderlayPackets
from xlab.scenario import found, looks
from xlab.scenario.claims import STANDING_PATIENCE_S, silence_s
from xlab.scenario.found import Route, There
from xlab.scenario.looks import Seen, listed, missing, of_docker, right, tutorial, wrong
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
        #: Pairs of hosts, and of containers, that do not reach each other.
        self._silent: set[tuple[Node, Node]] = set()
        self._stage: str | None = None
        #: Why this stage is not judged.
        self._unless: tuple[State, str] | None = None
        self._broken: list[str] = []
        self._missing: list[str] = []
        #: Whether a stage before has parts that nobody has begun; whether any claim has failed.
        self._incomplete = self._is_wrong = False
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
                down = {there.host for there in theirs if there.trouble}
                pairs = permutations(self._lab.hosts, 2)
                self._silent.update(pair for pair in pairs if down & set(pair))
                return wrong("; ".join(troubles), "`xlab ps`; `xlab fault reboot HOST`")
            bare = [str(there) for there in theirs if there.address is None]
            if len(bare) == len(theirs):
                return missing("no host has an address", "`ip -br address`")
            if bare:
                return wrong(f"{listed(bare)}: no address", f"`ip -br address` on {bare[0]}")
            sample = sample_pairs(self._lab.hosts)
            asked = [(a, b, self._address(self._lab.host_of(b))) for a, b in sample]
            return self._answers(asked, lambda a, b: f"`ip route` on {a}; {_traced(a, b)}")

        self._see("hosts-reach-each-other", "hosts reach each other", "an answer to each", seen)

    def hosts_reach_outside(self, *, see: str) -> None:
        """By a default route, on whatever device."""
        pairs: list[Pair] = [
            (host, None, OUTSIDE) for host, there in self._there.items() if there.address
        ]
        self._see(
            "hosts-reach-outside", "each host reaches the outside", "an answer to each",
            lambda: self._answers(pairs, lambda a, _: f"`ip route` on {a}; {tutorial(see)}"),
        )  # fmt: skip

    def nic_is_bridged(self, host: Host, *, see: str) -> None:
        """eth0 is a port of a Linux bridge; the host's address is there, and eth0 has none."""

        text = f"on {host} a bridge has taken over {self._there[host].nic}, and its address"
        self._see_on(host, "nic-is-bridged", text, "eth0 a port, the address on its bridge",
                     lambda there: looks.bridged_nic(there, see))  # fmt: skip

    # -- Docker ------------------------------------------------------------------------------------

    def docker_is_on_the_bridge_of_the_nic(self, host: Host, *, see: str) -> None:
        text = f"Docker of {host} is on the bridge that {self._there[host].nic} is a port of"
        if self._see_on(
            host, "docker-is-on-the-bridge", text, "the same bridge",
            lambda there: looks.docker_on_the_bridge_of_the_nic(there, see),
        ):  # fmt: skip
            self._placed.append(self._there[host])

    def docker_leads_into_the_tunnel(self, host: Host, kind: str, *, see: str) -> None:
        """Open vSwitch's bridge and Docker's are joined; or it has an address to route over.

        Asked only where there is a tunnel.
        """

        if self._there[host].tunnels(kind):
            text = f"what containers of {host} send can get into the tunnel"
            expected = "Docker's bridge and Open vSwitch's joined, and up"
            if self._see_on(
                host, "docker-leads-into-the-tunnel", text, expected,
                lambda there: looks.docker_at_the_tunnel(there, kind, see),
            ):  # fmt: skip
                self._placed.append(self._there[host])

    def containers_run(self, host: Host, *, see: str, interface: str = "eth0") -> None:
        """One at least, with an address on that interface; these are what is asked from here on."""
        there = self._there[host]
        if not self._unless and (running := there.containers(interface)):
            for container, own in running.items():
                container.prefer_address(own.ip)
            self._containers[host], self._interface = list(running), interface
        self._see_on(
            host, "containers-run",
            f"{host} runs a container" + (f" with an {interface}" if interface != "eth0" else ""),
            "one or more", lambda there: looks.running_containers(there, interface, see),
        )  # fmt: skip

    def ranges_are_apart(self) -> None:
        """No two Dockers hand out the same addresses, nor those of hosts and of the gateway."""
        faults: list[str] = []

        def seen() -> Seen:
            for a, b in combinations(self._placed, 2):
                faults.extend(self._overlap(a, b))
            for there in self._placed:
                faults.extend(self._intrusions(there))
            if faults:
                last = self._placed[-1].host
                return wrong("; ".join(faults[:3]), of_docker(last))
            return right(listed([f"{t} {t.host.docker.range}" for t in self._placed]))

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
        others = [other.name for other in self._lab.hosts if other is not host]
        whither = others[0] if len(others) == 1 else "another host"
        text = f"{host} has a {kind.upper()} port to {whither}, on a bridge of Open vSwitch"
        self._see_on(
            host, f"has-{kind}-tunnel", text, f"type={kind}, its remote_ip",
            lambda there: looks.tunnel(there, kind, peers, see=see, bridge_see=bridge_see),
        )  # fmt: skip

    def tunnels_join_all_hosts(self, kind: str, *, see: str) -> None:
        """And make no loop, unless something opens it.  Of two hosts that goes without saying."""
        ends = {there.host: there.tunnels(kind) for there in self._there.values()}
        if len(ends) > 2 and all(ends.values()):
            text = f"{kind.upper()} ports join all hosts, without a loop"
            self._see(
                "tunnels-join-all-hosts", text, "a tree, or split horizon",
                lambda: looks.joined(ends, self._owners, see),
            )  # fmt: skip

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
                    return missing(what, f"`ip route` on {host}; {tutorial(see)}")
                if not route.device:
                    return wrong(f"{host}: {route.text}", f"`ip route` on {host}")
                if route.via and not self._is_elsewhere(route.via, there):
                    whose = "its own" if route.via in there.addresses else "nobody's"
                    what = f"{host}: {route.text}: that address is {whose}"
                    return wrong(what, f"`ip route` on {host}; docs/tutorial.md C13")
                said.append(route.text)
            return right("; ".join(dict.fromkeys(said)))

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
                return missing(f"{host}: no weave router", tutorial(see))
            if not alive:
                return wrong(f"{host}: the router has ended", f"`weave launch` on {host}")
            return right(f"{host.weave.name}, in a container named {ROUTER}")

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
                    return wrong(
                        "; ".join(f"{n} has {k} of {others} connections" for n, k in few.items()),
                        f"`weave status connections` on {name}; {tutorial(see)}",
                    )
            return right(f"{len(hosts) * others} connections")

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
                return wrong(
                    f"{one} is in {first}, {other} in {second}",
                    f"`ip address show {interface}` in {other}; {tutorial(see)}",
                )
            return right(str(next(iter(networks))))

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
            if source is not target and not self._is_silent(source, target):
                self._large_packets_are_not_lost(source, target, see=see)
                look = f"`ip -br link`, which MTU? {tutorial(see)}"
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
                look = f"`ip -br link` on {host}, which MTU? {tutorial(see)}, C12"
                return wrong(f"{what}, and nobody says that they are too large", look)
            return right(f"{size} bytes arrive, or {source} is told that they are too many")

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
        if source is target or self._is_silent(source, target):
            return

        def seen() -> Seen:
            link = self._lab.physical_link(self._lab.host_of(source))
            seen = follow_echoes(source, target, wire=self._lab.wire, interface=link)
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
                lost = f"; {seen.lacking()}" if seen.dropped else ""
                return wrong(f"{source} to {target} and back: {said}{lost}", look)
            self._seen_taking = source, target, encapsulation
            return right(said)

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
        usual_s = _HURRIED_S if self._is_wrong else STANDING_PATIENCE_S
        return usual_s + 5 * self._lab.round_trip_s

    def _terms(self, patience_s: float | None = None) -> Terms:
        patience_s = patience_s or self._patience_s
        return Terms(self._lab, self._stage or "", patience_s, silence_s(self._lab))

    def _is_silent(self, source: Node, target: Node) -> bool:
        """Whether it is known not to answer, or its host not to answer the source's."""
        homes = self._lab.host_of(source), self._lab.host_of(target)
        return (source, target) in self._silent or homes in self._silent

    def _reach(self, name: str, what: str, pairs: Sequence[Pair]) -> None:
        pairs = [each for each in pairs if each[1] is None or not self._is_silent(each[0], each[1])]
        if pairs:
            sources = dict.fromkeys(source for source, _, _ in pairs)
            verb = "reach" if len(sources) > 1 else "reaches"
            text = f"{listed(map(str, sources))} {verb} {what}"
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
            return right(f"{len(pairs)} of {len(pairs)} answer")
        for source, address in silent:
            if target := targets[source, address]:
                self._silent.add((source, target))
        source, address = silent[0]
        target = targets[source, address]
        said = f"{source} gets no reply from {target or 'the outside'}, {address}"
        if source.address == address:
            said = f"{source} and {target} have one address, {address}"
        elif isinstance(source, Container) and not self._is_wrong:  # it has the machine's ping
            why = Reaches(source, address).check(self._terms(_REASON_S)).observed
            said += why.removeprefix("no reply") if why.startswith("no reply") else ""
        more = f"; of {len(pairs)} pairs {len(silent)} are silent" if silent[1:] else ""
        return wrong(said + more, look(source, str(target or address)))

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
            return missing(there.trouble, "`xlab ps`") if there.trouble else look_at(there)

        return self._see(f"{host}-{name}", text, expected, seen)

    def _see(self, name: str, text: str, expected: str, look_at: Callable[[], Seen]) -> bool:
        """Whether it holds; where this stage is not judged nothing is looked at."""
        if self._unless:
            return False
        try:
            seen = look_at()
        except (XlabError, OSError) as error:  # a container has just been stopped, say
            seen = wrong(str(error), "")
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
            self._is_wrong = True
            self._broken.append(said)
            self._what_next(wrong(said, look))
            event["look"] = look
        self._tell(event)

    def _what_next(self, seen: Seen) -> None:
        self._next = self._next or ": ".join(filter(None, (seen.observed, seen.look)))


# -- words -----------------------------------------------------------------------------------------


def _traced(source: Node, target: Node | str) -> str:
    return f"`xlab trace {source} {target}`"


def _undoing(text: str, cut: Callable[[], Callable[[], None]]) -> Cut:
    """Of a cut that says how it is healed."""
    heal: list[Callable[[], None]] = []
    return Cut(text, lambda: heal.append(cut()), lambda: heal.pop()())  # noqa: PLW0108


def _address(node: Node) -> IPv4Address | None:
    """What it is known by, if it has an address."""
    try:
        return node.address
    except XlabError:
        return None
