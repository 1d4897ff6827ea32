"""A lab: hosts, the gateway and the switches between them, as running namespaces.

Lab(underlay, …)   builds what a person finds when the machines have just been racked and wired:
                   every host has an eth0, none has an address
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TypeVar

from xlab.errors import XlabError
from xlab.kernel import foreign
from xlab.lab import commands, machine_root, weave
from xlab.lab.conditions import LinkConditions
from xlab.lab.docker import Container, Docker
from xlab.lab.imposers.joint import Imposed, Imposer
from xlab.lab.node import Node
from xlab.lab.ovs import Datapath, OpenVSwitch
from xlab.lab.underlay import GATEWAY, Link, Underlay
from xlab.lab.weave import Weave
from xlab.sandbox import sandbox

#: "The internet": an address off every lab subnet, answered by the gateway (TEST-NET-2, RFC 5737).
OUTSIDE = IPv4Address("198.51.100.1")

#: Addresses of the plain hosts that a method is measured beside (benchmarking range, RFC 2544).
YARDSTICK = IPv4Network("198.18.0.0/24")

_HOSTS = Path("/etc/hosts")

#: From so many hosts on those of a mesh are told each other's MACs.
_MANY_HOSTS = 16

#: The userspace datapath's uplink, as the host knows it.
_UPLINK = "p1"
#: What an interface has where nothing is said.
_ETHERNETS_MTU = 1500

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Machine(Node):
    """A node that may have an /etc and the like of its own, see `machine_root`.

    By itself one that forwards packets and does nothing else: the gateway, the switches.
    """

    #: Whether the commands that are emulated are among its files.
    _has_commands = False

    def __init__(self, name: str, *, own_disk: bool, guarded: bool = False) -> None:
        super().__init__(name)
        self._own_disk = own_disk
        self._guarded = guarded
        #: Addresses of all hosts and the gateway; one mapping for all.
        self._known: Mapping[str, IPv4Address] = {}

    def _furnish(self) -> None:
        if self._own_disk:
            with self.entered():
                machine_root.mount(
                    self.name,
                    hostname=self.hostname,
                    hosts=f"127.0.0.1\tlocalhost\n127.0.1.1\t{self.hostname}\n{self._others()}",
                    rootless=sandbox.kind() == "rootless",
                    commands=self._has_commands,
                    guarded=self._guarded,
                )
        super()._furnish()

    def learn_names(self, addresses: Mapping[str, IPv4Address]) -> None:
        """Addresses of hosts and the gateway, for /etc/hosts, if it has its own.

        The lines are written when its disk is: for 1,000 hosts they are a million.
        """
        with self._lock:
            self._known = addresses
            if self._own_disk and self._furnished:
                with self.entered():
                    foreign.put(_HOSTS, foreign.read(_HOSTS) + self._others().encode())

    def changed_files(self) -> dict[str, str]:
        """What is on its disk and not on the machine's, see `machine_root.changed`."""
        return machine_root.changed(self.name) if self._own_disk else {}

    def _others(self) -> str:
        """Lines of /etc/hosts."""
        return "".join(
            f"{address}\t{name}\n" for name, address in self._known.items() if name != self.name
        )


class Host(Machine):
    """An emulated Docker host.  Its eth0 comes from the lab: a veth end or an Open vSwitch port."""

    _has_commands = True

    def __init__(
        self,
        name: str,
        number: int,
        *,
        ovs: Datapath | None,
        mtu: int,
        own_disk: bool = False,
        guarded: bool = False,
        furnished: Callable[[Host], None] = lambda _: None,
    ) -> None:
        """`furnished` is called when it has its disk and an empty /run: before any program."""
        super().__init__(name, own_disk=own_disk, guarded=guarded)
        #: 1 for the first host.
        self.number = number
        self._furnished_with = furnished
        self.docker = Docker(self, own_disks=own_disk)
        self.weave = Weave(self, self.docker, number=number, mtu=mtu)
        self._ovs = OpenVSwitch(self, ovs) if ovs else None
        #: What has daemons here.
        self._services = [each for each in (self._ovs, self.weave) if each]

    @property
    def ovs(self) -> OpenVSwitch:
        """The host's Open vSwitch; XlabError on a lab that was built without."""
        if self._ovs is None:
            raise XlabError(f"{self.name} runs no Open vSwitch")
        return self._ovs

    @property
    def runs_ovs(self) -> bool:
        return self._ovs is not None

    @property
    def containers(self) -> list[Container]:
        return self.docker.containers

    def daemons(self) -> dict[str, bool]:
        """What can be killed here, and whether it runs: Open vSwitch's two, the weave router."""
        return {name: runs for each in self._services for name, runs in each.alive().items()}

    def crash(self) -> None:
        """The power fails: every process of the host and of its containers dies, all interfaces go.

        What is on disk stays: Docker's containers, conf.db, the router's peers.
        """
        self.crashes += 1
        self.kill_all()
        for container in self.containers:
            container.kill_all()
        self.docker.crash()
        for each in self._services:
            each.crash()
        self.close()

    def _furnish(self) -> None:
        super()._furnish()
        self._furnished_with(self)

    def daemon_pids(self) -> list[int]:
        """Process numbers of what moves packets for this host in user space."""
        return [pid for each in self._services for pid in each.pids()]

    def tunnels(self) -> int:
        """Ends of tunnels here: Open vSwitch's tunnel ports, connections of the weave router."""
        found = self._ovs.tunnels() if self._ovs else 0
        return found + (len(self.weave.connections()) if self.weave.pids() else 0)

    def require_daemons(self) -> None:
        """DaemonError, with the tail of its log, if a daemon of this host has died."""
        for each in self._services:
            each.require_alive()


@dataclass(frozen=True, slots=True)
class Conditioned:
    """What a link does to packets, and what makes it do so here."""

    conditions: LinkConditions
    imposer: Imposer


class Lab:
    """A running lab; ends with the sandbox."""

    def __init__(
        self,
        underlay: Underlay,
        *,
        ovs: Datapath | None = None,
        mtu: int = 1500,
        conditions: Mapping[str, Conditioned] | None = None,
        own_disks: bool = False,
        guarded: bool = False,
        furnished: Callable[[Host], None] = lambda _: None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Build switches, hosts and links.

        `ovs` is the datapath each host's Open vSwitch uses; `conditions` are those of links, by the
        switch's interface; `own_disks` is about /etc and the like, and `guarded` about
        people's files there, see `machine_root`; `furnished` is told of each host that has them,
        before its first program starts.
        """
        self.underlay = underlay
        self._conditions = conditions or {}
        #: Links that have their conditions, by the switch's interface.
        self._imposed: dict[str, Imposed] = {}
        #: The plan of addresses: eth0 of each host, and of the gateway.
        self._plan: dict[str, IPv4Interface] = {}
        #: Whether hosts are told each other's MACs.
        self._mesh = False
        #: What a host needs beyond that when it has been switched on again: `Flow.after_boot`.
        self.after_boot: Callable[[Host], None] = lambda _: None
        #: Links whose cable is pulled, by the switch's interface.
        self._unplugged: set[str] = set()
        #: Hosts that a partition has taken to a switch of their own, and that switch.
        self._apart: dict[str, str] = {}
        self.mtu = mtu
        self.ovs_datapath = ovs
        self._disks = {"own_disk": own_disks, "guarded": guarded}
        self.wire = Machine("wire", **self._disks)
        self.gateway = Machine(GATEWAY, **self._disks)
        self.hosts = [
            Host(name, i, ovs=ovs, mtu=mtu, furnished=furnished, **self._disks)
            for i, name in enumerate(underlay.hosts, 1)
        ]
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
            if link.a.interface in self._conditions and link.a.interface not in self._imposed
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

    def host_of(self, node: Node | str) -> Host:
        """The host that it is, or on which it runs; XlabError if it is the gateway."""
        host = self[str(node).partition("/")[0]]
        if not isinstance(host, Host):
            raise XlabError(f"{node} is not a host")
        return host

    @property
    def containers(self) -> list[Container]:
        """The running containers of all hosts, host by host."""
        return [container for host in self.hosts for container in host.containers]

    @property
    def nodes(self) -> list[Node]:
        """Each host and its running containers, then the gateway."""
        return [node for host in self.hosts for node in (host, *host.containers)] + [self.gateway]

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
        return self._port_at(self.physical_link(host))

    def _port_at(self, uplink: str) -> str:
        return self._imposed[uplink].port if uplink in self._imposed else uplink

    def conditioned(self) -> dict[str, tuple[LinkConditions, str]]:
        """Conditions that links have now, and the switch's port, by the switch's interface."""
        return {
            uplink: (self._conditions[uplink].conditions, imposed.port)
            for uplink, imposed in self._imposed.items()
        }

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
    def tells_neighbours(self) -> bool:
        """Whether hosts have been told each other's MACs, as entries made by hand."""
        return self._mesh

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

    @contextmanager
    def blaming_daemons(self) -> Iterator[None]:
        """DaemonError instead of what is raised meanwhile, if one has died: it explains that."""
        try:
            yield
        except Exception:
            self.require_daemons()
            raise

    # -- the plan of addresses ---------------------------------------------------------------------

    def give_addresses(
        self, subnet: IPv4Network, *, first: int, gateway: int, mesh: bool = False
    ) -> None:
        """Each host's eth0 gets an address of `subnet`, counting from `first`, and a default route.

        `first` and `gateway` count from the subnet's own address: 10.211.55.0/24, 3 is 10.211.55.3.
        In a `mesh` every host will talk to every other: many hosts then get permanent ARP entries,
        or 33 of them would fill the table that all labs of a machine share.
        """
        self._plan = {host.name: _interface(subnet, first + host.number - 1) for host in self.hosts}
        self._plan[GATEWAY] = _interface(subnet, gateway)
        self._mesh = mesh and len(self.hosts) >= _MANY_HOSTS
        self.gateway.add_address("eth0", self._plan[GATEWAY])
        self.gateway.prefer_address(self._plan[GATEWAY].ip)
        for host in self.hosts:
            self._give_address(host)
        names = {name: own.ip for name, own in self._plan.items()}
        for machine in (*self.hosts, self.gateway):
            machine.learn_names(names)

    def _give_address(self, host: Host) -> None:
        """What /etc/network/interfaces says of eth0."""
        if self._plan:
            own, gateway = self._plan[host.name], self._plan[GATEWAY].ip
            there = f"# eth0 has the address {own}, and the default route is via {gateway}"
            with commands.step(host.name, there):
                host.add_address("eth0", own, gateway=gateway)
            if self._mesh:
                self._introduce(host)

    def _introduce(self, host: Host) -> None:
        """The host is told the MACs of all others; they are the same in every run."""
        others = {
            self._plan[other.name].ip: _underlay_mac(other.number)
            for other in self.hosts
            if other is not host
        }
        with commands.step(host.name, note="one ARP table serves the whole machine"):
            with host.rtnl.batch() as batch:
                for address, mac in others.items():
                    batch.add_neighbour("eth0", address, mac)
            if self.ovs_datapath == "userspace":
                host.ovs.know_neighbours("eth0", others)

    def add_yardstick(self) -> tuple[Node, Node]:
        """Two plain hosts, veth and nothing else, on the switches of the first host and the last.

        What a method costs is its ratio to these, measured over the same links in the same rounds.
        """
        pair = []
        for number, host in enumerate((self.hosts[0], self.hosts[-1]), 1):
            node = Machine(f"plain{number}", **self._disks)
            switch = self.switch_of(host)
            uplink = f"{switch}-plain{number}"
            self.wire.rtnl.now.add_veth(
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

    # -- what can break ----------------------------------------------------------------------------

    def link(self, name: str) -> Link:
        """By the name of what is at its far end, "h1" or "gw", or of both switches, "s1-s2".

        KeyError if there is none.
        """
        for link in self.underlay.uplinks:
            if link.b.node == name:
                return link
        for link in self.underlay.trunks:
            if name in (f"{link.a.node}-{link.b.node}", f"{link.b.node}-{link.a.node}"):
                return link
        raise KeyError(name)

    def unplug(self, link: Link) -> None:
        """Pull the cable: where both ends are veths, both lose their carrier."""
        self._unplugged.add(link.a.interface)
        self.wire.set_down(link.a.interface)

    def plug_in(self, link: Link) -> None:
        """Undo `unplug`."""
        self._unplugged.discard(link.a.interface)
        self.wire.set_up(link.a.interface)

    def split(self, sides: Sequence[Sequence[str]]) -> None:
        """Break the physical network into pieces that hear nothing of each other.

        `sides` name hosts, and the gateway.  The first keeps the switches; each of the others gets
        one of its own, so that trunks between its hosts, and their conditions, are out of its way.
        """
        with self.wire.rtnl.batch() as batch:
            for number, side in enumerate(sides[1:], 1):
                switch = f"apart{number}"
                batch.add_bridge(switch)
                for name in side:
                    self._apart[name] = switch
                    batch.set_master(self._port_at(self.link(name).a.interface), switch)

    def rejoin(self) -> None:
        """Undo `split`."""
        with self.wire.rtnl.batch() as batch:
            for name in self._apart:
                uplink = self.link(name).a
                batch.set_master(self._port_at(uplink.interface), uplink.node)
        for switch in sorted(set(self._apart.values())):
            self.wire.rtnl.remove_link(switch)
        self._apart.clear()

    def crash(self, host: Host) -> None:
        """The host's power fails.  The switch sees its port lose the carrier; XlabError if down."""
        if not host.is_on:
            raise XlabError(f"{host} is down already")
        if self.ovs_datapath != "userspace":
            uplink = self.physical_link(host)
            if host.rtnl.has("eth0") and self.wire.rtnl.has(uplink):
                # Or the far end of the cable would go with the host, and its conditions with that.
                with host.rtnl.batch() as batch:
                    batch.set_down("eth0")
                    batch.move("eth0", self.wire.namespaces.net, new_name=_loose_end(host))
            else:
                self._throw_away_cable(uplink)
        host.crash()

    def boot(self, host: Host) -> None:
        """Switch the host on again: its eth0 is there, with its address, and Open vSwitch runs.

        The rest is up to whoever configured it: `after_boot`.
        """
        if host.is_on:
            raise XlabError(f"{host} is running")
        host.boot()
        if self.ovs_datapath == "userspace":
            self._take_uplink_home(host)
            host.ovs.boot()
            if not host.rtnl.has("eth0"):  # somebody has done away with it, or with the database
                self._add_uplink(host)
            self._bring_uplink_out(host)
            host.set_up("eth0")
        else:
            if self.wire.rtnl.has(_loose_end(host)):
                self.wire.rtnl.now.move(_loose_end(host), host.namespaces.net, new_name="eth0")
            else:
                self._plug_in_anew(host)
            if self.ovs_datapath:
                host.ovs.boot()
        self._give_address(host)
        self.after_boot(host)

    def kill_daemon(self, host: Host, name: str) -> None:
        """SIGKILL to one of `host.daemons()`."""
        if name == weave.ROUTER:
            host.weave.kill()
        else:
            host.ovs.kill(name)

    def restart_daemon(self, host: Host, name: str) -> None:
        """Start it again, as its supervisor would; returns when it has done what it is told."""
        if name == weave.ROUTER:
            host.weave.resume()
        elif name == "ovs-vswitchd" and self.ovs_datapath == "userspace":
            # It opens the TAP devices of its ports by name, in its own namespace.
            self._take_uplink_home(host)
            host.ovs.restart(name)
            self._bring_uplink_out(host)
        else:
            host.ovs.restart(name)

    def _throw_away_cable(self, uplink: str) -> None:
        """What is left of one whose other end somebody in the host has deleted or renamed."""
        if uplink in self._imposed:
            self._imposed.pop(uplink).lift()
        self.wire.rtnl.remove_link(uplink)

    def _plug_in_anew(self, host: Host) -> None:
        """A new cable from the host to its switch, with the link's conditions."""
        link = self.underlay.uplink_of(host.name)
        uplink, switch = link.a, self._apart.get(host.name, link.a.node)
        self._plug_in([link])
        self.wire.rtnl.now.set_master(uplink.interface, switch)
        self._condition_anew(uplink.interface, switch, host)

    def _take_uplink_home(self, host: Host) -> None:
        """Move the userspace datapath's uplink from the switch into the host."""
        uplink = self.physical_link(host)
        if uplink in self._imposed:
            self._imposed.pop(uplink).lift()
        if not self.wire.rtnl.has(uplink):
            return  # a start that failed has left it there
        self.wire.rtnl.now.move(uplink, host.namespaces.net, new_name=_UPLINK)

    def _bring_uplink_out(self, host: Host) -> None:
        """Move it to the switch, and put the link's conditions on it."""
        uplink = self.underlay.uplink_of(host.name).a
        switch = self._apart.get(host.name, uplink.node)
        host.rtnl.now.move(_UPLINK, self.wire.namespaces.net, new_name=uplink.interface)
        with self.wire.rtnl.batch() as batch:
            batch.set_mtu(uplink.interface, self.mtu)
            batch.set_master(uplink.interface, switch)
            batch.set_up(uplink.interface)
        self._condition_anew(uplink.interface, switch, host)

    def _condition_anew(self, uplink: str, switch: str, host: Host) -> None:
        own = self._conditions.get(uplink)
        if own:
            self._condition(uplink, switch, own, host)
        if uplink in self._unplugged:
            self.wire.set_down(uplink)

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
        note = f"the link at {uplink} has, in each direction, {own.conditions}"
        with commands.step(self.wire.name, note=note):
            imposed = own.imposer.impose(self.wire, uplink, own.conditions, mtu=self.mtu)
            self.wire.rtnl.now.set_master(imposed.port, switch)
            if far:
                imposed.switch_off(far, "eth0")
        self._imposed[uplink] = imposed

    def _start_ovs(self, host: Host, progress: Callable[[str], None]) -> None:
        """Daemons, and on the userspace datapath the bridge eth0 with its uplink to the switch."""
        host.ovs.start()
        if host.ovs.datapath == "userspace":
            with commands.step(host.name, note=f"eth0 of {host}: tunnels of the userspace "
                                 "datapath find their peers over a bridge of its own"):  # fmt: skip
                self._add_uplink(host)
                self._bring_uplink_out(host)
                host.set_up("eth0")
        progress(host.name)

    def _add_uplink(self, host: Host) -> None:
        mac = _underlay_mac(host.number)
        # Known before the uplink is moved away, or ovs-vswitchd would let larger packets out.
        mtu = self.mtu if self.mtu != _ETHERNETS_MTU else None
        host.ovs.add_bridge("eth0", internal_ports=[_UPLINK], mac=mac, mtu=mtu)


def concurrently(function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """`function` of every item, several at a time, in order; the first error is raised.

    More threads than cores: starting a daemon is mostly waiting for it.  One after the other while
    a log of commands is kept, which shall read as one person's work.
    """
    if commands.is_kept():
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=2 + 2 * (os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def _interface(subnet: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((subnet[number], subnet.prefixlen))


def _loose_end(host: Host) -> str:
    """The host's end of its cable while there is no host."""
    return f"loose{host.number}"


def _underlay_mac(number: int) -> str:
    """Locally administered, the same in every run, so that records compare."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
