"""A lab: hosts, the gateway and the switches between them, as running namespaces.

Lab(underlay, …)   builds what a person finds when the machines have just been racked and wired:
                   every host has an eth0, none has an address
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

from xlab.errors import XlabError
from xlab.lab.conditions import Backend, Imposed, LinkConditions, impose, switch_off
from xlab.lab.docker import Container, Docker
from xlab.lab.node import Node
from xlab.lab.ovs import Datapath, OpenVSwitch
from xlab.lab.underlay import GATEWAY, Link, Underlay
from xlab.lab.weave import Weave

#: "The internet": an address off every lab subnet, answered by the gateway (TEST-NET-2, RFC 5737).
OUTSIDE = IPv4Address("198.51.100.1")

#: Addresses of the plain hosts that a method is measured beside (benchmarking range, RFC 2544).
YARDSTICK = IPv4Network("198.18.0.0/24")

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Host(Node):
    """An emulated Docker host.  Its eth0 comes from the lab: a veth end or an Open vSwitch port."""

    def __init__(self, name: str, number: int, *, ovs: Datapath | None, mtu: int) -> None:
        super().__init__(name)
        #: 1 for the first host.
        self.number = number
        self.docker = Docker(self)
        self.weave = Weave(self, self.docker, number=number, mtu=mtu)
        self._ovs = OpenVSwitch(self, ovs) if ovs else None

    @property
    def ovs(self) -> OpenVSwitch:
        """The host's Open vSwitch; XlabError on a lab that was built without."""
        if self._ovs is None:
            raise XlabError(f"{self.name} runs no Open vSwitch")
        return self._ovs

    @property
    def containers(self) -> list[Container]:
        return self.docker.containers

    def daemon_pids(self) -> list[int]:
        """Process numbers of what moves packets for this host in user space."""
        return (self._ovs.pids() if self._ovs else []) + self.weave.pids()

    def require_daemons(self) -> None:
        """DaemonError, with the tail of its log, if a daemon of this host has died."""
        if self._ovs:
            self._ovs.require_alive()
        self.weave.require_alive()


@dataclass(frozen=True, slots=True)
class Conditioned:
    """What a link does to packets, and what makes it do so here."""

    conditions: LinkConditions
    backend: Backend


class Lab:
    """A running lab; ends with the sandbox."""

    def __init__(
        self,
        underlay: Underlay,
        *,
        ovs: Datapath | None = None,
        mtu: int = 1500,
        conditions: Mapping[str, Conditioned] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Build switches, hosts and links.

        `ovs` is the datapath each host's Open vSwitch uses; `conditions` are those of links, by the
        switch's interface.
        """
        self.underlay = underlay
        self._conditions = conditions or {}
        #: Links that have their conditions, by the switch's interface.
        self._imposed: dict[str, Imposed] = {}
        self.mtu = mtu
        self.ovs_datapath = ovs
        self.wire = Node("wire")
        self.gateway = Node(GATEWAY)
        self.hosts = [Host(name, i, ovs=ovs, mtu=mtu) for i, name in enumerate(underlay.hosts, 1)]
        self._nodes: dict[str, Node] = {host.name: host for host in self.hosts}
        self._nodes[GATEWAY] = self.gateway
        self._build_switches()
        if ovs:
            concurrently(lambda host: self._start_ovs(host, progress), self.hosts)
        self._plug_in(
            link
            for link in underlay.uplinks
            if not (ovs == "userspace" and isinstance(self._nodes[link.b.node], Host))
        )
        with self.wire.rtnl.batch() as batch:
            for switch in underlay.switches:
                batch.set_up(switch)
        conditioned = [
            link
            for link in (*underlay.uplinks, *underlay.trunks)
            if link.a.interface in self._conditions
        ]
        concurrently(self._condition_link, conditioned)
        self.gateway.add_address("lo", IPv4Interface(OUTSIDE))
        self.gateway.set_sysctl("net.ipv4.ip_forward", 1)

    # -- finding things ----------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Node:
        """A node by name: "h1", "gw", "h2/c1"; KeyError if there is none."""
        if name in self._nodes:
            return self._nodes[name]
        for container in self.containers:
            if container.name == name:
                return container
        raise KeyError(name)

    @property
    def containers(self) -> list[Container]:
        """The running containers of all hosts, host by host."""
        return [container for host in self.hosts for container in host.containers]

    @property
    def datapath(self) -> str:
        """What moves packets between hosts, for the record and the screen."""
        return f"ovs {self.ovs_datapath}" if self.ovs_datapath else "linux bridge"

    def physical_link(self, host: Host) -> str:
        """The switch port at the host's eth0, in the wire's namespace: where proofs listen."""
        return self.underlay.uplink_of(host.name).a.interface

    def switch_of(self, host: Host) -> str:
        """The switch at the host's eth0."""
        return self.underlay.uplink_of(host.name).a.node

    def switch_port(self, host: Host) -> str:
        """The bridge port at the host's eth0; not the physical link where that has conditions."""
        link = self.physical_link(host)
        return self._imposed[link].port if link in self._imposed else link

    def conditions_between(self, a: Host, b: Host) -> list[LinkConditions]:
        """The conditions of the links from `a` to `b`, those without any left out."""
        links = self.underlay.path(a.name, b.name)
        found = [self._conditions.get(link.a.interface) for link in links]
        return [conditioned.conditions for conditioned in found if conditioned]

    @property
    def round_trip_s(self) -> float:
        """What the links' delays make of the longest round trip, in seconds."""
        delays = [c.conditions.delay_ms or 0.0 for c in self._conditions.values()]
        longest = 2 + len(self.underlay.trunks)
        return 2 * sum(sorted(delays, reverse=True)[:longest]) / 1e3

    @property
    def slowest_bits_per_second(self) -> float | None:
        """The lowest rate among the links' conditions; None where no link has one."""
        rates = [c.conditions.rate_bits_per_second for c in self._conditions.values()]
        return min((rate for rate in rates if rate), default=None)

    @property
    def lossy(self) -> bool:
        """Whether links lose packets on purpose."""
        return any(c.conditions.loss_ratio for c in self._conditions.values())

    def require_daemons(self) -> None:
        """DaemonError, with the tail of its log, if a daemon of the lab has died."""
        for host in self.hosts:
            host.require_daemons()
        for imposed in self._imposed.values():
            imposed.require_alive()

    # -- the plan of addresses ---------------------------------------------------------------------

    def give_addresses(self, subnet: IPv4Network, *, first: int, gateway: int) -> None:
        """Each host's eth0 gets an address of `subnet`, counting from `first`, and a default route.

        `first` and `gateway` count from the subnet's own address: 10.211.55.0/24, 3 is 10.211.55.3.
        """
        self.gateway.add_address("eth0", _interface(subnet, gateway))
        self.gateway.prefer_address(subnet[gateway])
        for host in self.hosts:
            own = _interface(subnet, first + host.number - 1)
            host.add_address("eth0", own, gateway=subnet[gateway])

    def add_yardstick(self) -> tuple[Node, Node]:
        """Two plain hosts, veth and nothing else, on the switches of the first host and the last.

        What a method costs is its ratio to these, measured over the same links in the same rounds.
        """
        pair = []
        for number, host in enumerate((self.hosts[0], self.hosts[-1]), 1):
            node = Node(f"plain{number}")
            switch = self.switch_of(host)
            uplink = f"{switch}-plain{number}"
            with self.wire.rtnl.batch() as batch:
                batch.add_veth(
                    uplink,
                    "eth0",
                    peer_namespace=node.namespaces.net,
                    mtu=self.mtu,
                    master=switch,
                )
            own = self._conditions.get(self.physical_link(host))
            if own:
                self._condition(uplink, switch, own, node)
            node.add_address("eth0", _interface(YARDSTICK, number))
            self._nodes[node.name] = node
            pair.append(node)
        return pair[0], pair[1]

    # -- the physical switch -----------------------------------------------------------------------

    def limit_port_to_one_mac(self, host: Host) -> None:
        """Port security: the switch drops what comes from `host` under another MAC than eth0's."""
        port = self.switch_port(host)
        mac = host.mac_address("eth0")
        # A locked port admits only sources in the forwarding table, so what it learnt must go.
        for command in (
            ["bridge", "link", "set", "dev", port, "learning", "off", "locked", "on"],
            ["ip", "link", "set", "dev", port, "type", "bridge_slave", "fdb_flush"],
            ["bridge", "fdb", "replace", mac, "dev", port, "master", "static"],
        ):
            self.wire.configure(command)

    def admit_all_macs(self, host: Host) -> None:
        """Undo `limit_port_to_one_mac`."""
        port = self.switch_port(host)
        mac = host.mac_address("eth0")
        self.wire.configure(
            ["bridge", "link", "set", "dev", port, "learning", "on", "locked", "off"]
        )
        self.wire.configure(["bridge", "fdb", "del", mac, "dev", port, "master"])

    # -- building ----------------------------------------------------------------------------------

    def _build_switches(self) -> None:
        """Down as yet: for every port that joins a bridge that is up the kernel visits all others.

        (br_port_state_selection, net/bridge/br_stp.c.)
        """
        with self.wire.rtnl.batch() as batch:
            for switch in self.underlay.switches:
                batch.add_bridge(switch, up=False)
            for trunk in self.underlay.trunks:
                batch.add_veth(
                    trunk.a.interface,
                    trunk.b.interface,
                    mtu=self.mtu,
                    master=trunk.a.node,
                )
                batch.set_master(trunk.b.interface, trunk.b.node)
                batch.set_up(trunk.b.interface)

    def _plug_in(self, links: Iterable[Link]) -> None:
        with self.wire.rtnl.batch() as batch:
            for link in links:
                node = self._nodes[link.b.node]
                batch.add_veth(
                    link.a.interface,
                    link.b.interface,
                    peer_namespace=node.namespaces.net,
                    peer_mac=_underlay_mac(node.number) if isinstance(node, Host) else None,
                    mtu=self.mtu,
                    master=link.a.node,
                )

    def _condition_link(self, link: Link) -> None:
        own = self._conditions[link.a.interface]
        self._condition(link.a.interface, link.a.node, own, self._nodes.get(link.b.node))

    def _condition(self, uplink: str, switch: str, own: Conditioned, far: Node | None) -> None:
        """Put conditions on the link at `uplink` and join it to its switch again."""
        imposed = impose(self.wire, uplink, own.conditions, own.backend, mtu=self.mtu)
        with self.wire.rtnl.batch() as batch:
            batch.set_master(imposed.port, switch)
        if far:
            switch_off(far, "eth0", imposed)
        self._imposed[uplink] = imposed

    def _start_ovs(self, host: Host, progress: Callable[[str], None]) -> None:
        """Daemons, and on the userspace datapath the bridge eth0 with its uplink to the switch."""
        host.ovs.start()
        if host.ovs.datapath == "userspace":
            link = self.underlay.uplink_of(host.name)
            host.ovs.add_bridge("eth0", internal_ports=["p1"], mac=_underlay_mac(host.number))
            with host.rtnl.batch() as batch:
                batch.move("p1", self.wire.namespaces.net, new_name=link.a.interface)
            with self.wire.rtnl.batch() as batch:
                batch.set_mtu(link.a.interface, self.mtu)
                batch.set_master(link.a.interface, link.a.node)
                batch.set_up(link.a.interface)
            host.set_up("eth0")
        progress(host.name)


def concurrently(function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """`function` of every item, several at a time, in order; the first error is raised.

    More threads than cores: starting a daemon is mostly waiting for it.
    """
    with ThreadPoolExecutor(max_workers=2 + 2 * (os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def _interface(subnet: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((subnet[number], subnet.prefixlen))


def _underlay_mac(number: int) -> str:
    """Locally administered, the same in every run, so that records compare."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
