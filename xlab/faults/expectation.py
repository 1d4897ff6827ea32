"""Who must reach whom while something is broken: worked out from the topology alone.

    physical   two hosts are joined if there is a way of whole cables between their switches, on
               their side of a partition, and the eth0 of each is alive
    overlay    containers of two hosts that are joined reach each other if what carries their frames
               is alive on both

Within one host nothing of this matters: its containers are joined by a bridge in its kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from xlab.lab import ovs, weave
from xlab.lab.underlay import GATEWAY, Link, Underlay

if TYPE_CHECKING:
    from xlab.lab.lab import Lab
    from xlab.scenario.scenario import Flow

#: The names of two nodes: "h1/c1" and "h2".
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Topology:
    """A lab that works, as far as expectations depend on it."""

    underlay: Underlay
    #: By host: "h1" has "h1/c1" and "h1/c2".
    containers: Mapping[str, tuple[str, ...]]
    #: By host, what can be killed there.
    daemons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: The daemons without any of which a host's eth0 carries nothing.
    eth0_needs: tuple[str, ...] = ()
    #: The daemon without which containers of two hosts do not reach each other.
    overlay_needs: str | None = None
    #: Whether containers can be told from those of another host by their addresses at all.
    containers_are_reached: bool = True
    #: Whether hosts have a way to containers, their own ones included.
    hosts_reach_containers: bool = True
    #: Hosts that have one all the same: somebody has typed `weave expose` there.
    exposed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lab: Lab, flow: Flow | None) -> Topology:
        """Of a lab in which the method works; without one nothing is said of containers."""
        known = {h.name: [c.name for c in h.containers] if flow else [] for h in lab.hosts}
        addresses = [container.address for container in lab.containers] if flow else []
        encapsulation = flow.encapsulation if flow else "none"
        return cls(
            underlay=lab.underlay,
            containers={name: tuple(containers) for name, containers in known.items()},
            daemons={host.name: tuple(host.daemons()) for host in lab.hosts},
            # Without ovsdb-server, ovs-vswitchd has lost its lock in the database: its main loop
            # then returns before it has looked at the ports.  Seen with 3.5, at full CPU load.
            eth0_needs=ovs.DAEMONS if lab.ovs_datapath == "userspace" else (),
            # The kernel's VXLAN goes on without the router that set it up.
            overlay_needs=weave.ROUTER if encapsulation == "sleeve" else None,
            containers_are_reached=len(set(addresses)) == len(addresses),
            # Weave's network is the containers' own, until somebody types `weave expose`.
            hosts_reach_containers=encapsulation not in ("sleeve", "vxlan"),
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.underlay.hosts

    @property
    def ends(self) -> tuple[str, ...]:
        """Whoever hangs at a switch by a cable."""
        return (*self.hosts, GATEWAY)

    @property
    def trunks(self) -> tuple[str, ...]:
        return tuple(map(self.trunk_name, self.underlay.trunks))

    def link_at(self, port: str) -> str | None:
        """The link at a switch's port: "h1" at "s1-eth1", "s1-s2" at either end of that."""
        for link in self.underlay.uplinks:
            if link.a.interface == port:
                return link.b.node
        for link in self.underlay.trunks:
            if port in (link.a.interface, link.b.interface):
                return self.trunk_name(link)
        return None

    def trunk_name(self, link: Link) -> str:
        """ "s1-s2", whichever end the topology names first."""
        return "-".join(sorted((link.a.node, link.b.node), key=self.underlay.switches.index))


@dataclass(slots=True)
class Broken:
    """Everything that is broken at one moment."""

    #: Cables: "h1", "gw", "s1-s2".
    links: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    #: (host, daemon)
    daemons: set[tuple[str, str]] = field(default_factory=set)
    #: Those of a partition; the first keeps the switches, each of the others has one of its own.
    sides: tuple[tuple[str, ...], ...] = ()


def expected(topology: Topology, broken: Broken) -> dict[Pair, bool]:
    """For each host and container that exists, and each target, whether it must be reached.

    Targets are all hosts and containers, whether they exist or not, and the gateway.  Left out are
    pairs of which nothing can be said: of two hosts whose containers have the same addresses.
    """
    home = {name: host for host, names in topology.containers.items() for name in names}
    nodes = [name for host in topology.hosts for name in (host, *topology.containers[host])]
    segments = _segments(topology, broken)
    cut_off = {host for host, daemon in broken.daemons if daemon == topology.overlay_needs}
    strangers = set() if topology.hosts_reach_containers else {*topology.hosts} - topology.exposed

    def reaches(source: str, target: str, near: str, far: str) -> bool:
        if source in strangers and target in home:
            return False
        if near == far:
            return True
        joined = near in segments and segments[near] == segments.get(far)
        return joined and not (target in home and {near, far} & cut_off)

    wanted = {}
    for source, target in product(nodes, [*nodes, GATEWAY]):
        near, far = home.get(source, source), home.get(target, target)
        known = near == far or target not in home or topology.containers_are_reached
        if source != target and near not in broken.hosts and known:
            wanted[source, target] = reaches(source, target, near, far)
    return wanted


def _segments(topology: Topology, broken: Broken) -> dict[str, str]:
    """The physical segment that each host and the gateway is on, by the name of one of its
    switches; who is on none is left out."""
    switch = {link.b.node: link.a.node for link in topology.underlay.uplinks}
    for number, side in enumerate(broken.sides[1:], 1):
        switch.update(dict.fromkeys(side, f"apart{number}"))
    root = {name: name for name in switch.values()} | {n: n for n in topology.underlay.switches}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for link in topology.underlay.trunks:
        if topology.trunk_name(link) not in broken.links:
            root[find(link.a.node)] = find(link.b.node)
    dead = {host for host, daemon in broken.daemons if daemon in topology.eth0_needs}
    return {
        name: find(at)
        for name, at in switch.items()
        if name not in broken.links | broken.hosts | dead
    }
