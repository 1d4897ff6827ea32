"""Mininet's interfaces and links on the lab's engine: Intf, TCIntf, Link and their kin.

    h1-eth0 ──── s1-eth1 (port of s1)                          a veth pair
    h1-eth0 ──── s1-eth1 [joint] s1-eth1p (port of s1)         with conditions (xlab/lab/conditions)
    h1-eth0 ──── w1a [joint] w1ap ─ bridge w1 ─ w1b ──── h2-eth0     between two hosts

Options of a Topo's link (bw, delay, jitter, loss, max_queue_size) hold whatever its class is;
Mininet itself looks at them in a TCLink alone.  As there, those of an interface are about what
leaves by it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Interface
from typing import Any

from xlab.capabilities import Machine, probe
from xlab.errors import CapabilityError, UsageError
from xlab.lab.conditions import (
    Imposed,
    LinkConditions,
    choose_backend,
    from_mininet,
    impose,
    lift,
    switch_off,
)
from xlab.lab.lab import concurrently
from xlab.mininet import machine as machines
from xlab.mininet.original import link as original

#: What a condition is called in Mininet.  Its use_hfsc, use_tbf and the like choose the means, and
#: that is the engine's choice here.
_CONDITIONS = ("bw", "delay", "jitter", "loss", "max_queue_size")
#: What a queue does with packets, which no other means does.
_QUEUE_DISCIPLINES = ("enable_ecn", "enable_red")

_MTU = 1500


class Intf(original.Intf):
    """An interface; what is set goes to the kernel by netlink."""

    #: Of the attributes that Mininet's __init__ sets.
    name: str
    node: Any
    link: Any
    ip: str | None
    prefixLen: int | None
    mac: str | None

    def __init__(self, name: str, node: Any = None, port: int | None = None, **params: Any) -> None:
        self.conditions = LinkConditions()
        super().__init__(name, node=node, port=port, **params)

    @property
    def device(self) -> str:
        """What the kernel knows it by."""
        return self.name

    @property
    def port_name(self) -> str:
        """What is made a port of a switch: not the interface itself where its link has a joint."""
        imposed = self.link.imposed if self.link is not None else None
        return imposed.port if imposed and self.link.near is self else self.device

    # -- setting -----------------------------------------------------------------------------------

    def setIP(self, ipstr: str, prefixLen: int | None = None) -> str:
        """Give it this address instead of the one it has, and switch it on."""
        address, _, length = ipstr.partition("/")
        if not length and prefixLen is None:
            raise UsageError(f"{self.name}: no prefix length is set for the address {ipstr}")
        try:
            wanted = IPv4Interface(f"{address}/{length or prefixLen}")
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from error
        node = self.node.machine
        before = machines.address_of(node, self.device)
        with node.rtnl.batch() as batch:
            if before != wanted:
                if before is not None:
                    batch.delete_address(self.device, before)
                batch.add_address(self.device, wanted)
            batch.set_up(self.device)
        if not self.node.forwards and node is not machines.root():
            node.prefer_address(wanted.ip)
        self.ip, self.prefixLen = str(wanted.ip), wanted.network.prefixlen
        return ""

    def setMAC(self, macstr: str) -> str:
        with self.node.machine.rtnl.batch() as batch:
            batch.set_mac(self.device, macstr)
        self.mac = macstr
        return ""

    def isUp(self, setUp: bool = False) -> bool:
        """Whether it is switched on; with `setUp`, switch it on."""
        if setUp:
            self.node.machine.set_up(self.device)
            return True
        return machines.is_up(self.node.machine, self.device)

    def rename(self, newname: str) -> str:
        """Give it another name, which the node knows it by from now on."""
        node = self.node.machine
        with node.rtnl.batch() as batch:
            batch.set_down(self.device)
            batch.rename(self.device, newname)
            batch.set_up(newname)
        if self.node.nameToIntf.pop(self.name, None) is not None:
            self.node.nameToIntf[newname] = self
        self.name = newname
        return ""

    def ifconfig(self, *args: Any) -> str:
        """`ifconfig NAME …`; what it prints.  "up" and "down" need no such program."""
        words = " ".join(str(word) for word in args).split()
        if words == ["up"]:
            self.node.machine.set_up(self.device)
        elif words == ["down"]:
            self.node.machine.set_down(self.device)
        else:
            out, errors, _ = self.node.pexec(["ifconfig", self.device, *words])
            return str(out + errors)
        return ""

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ifconfig: str | None = None,
        up: bool | None = True,
        **params: Any,
    ) -> dict[str, Any]:
        """Set what is given; conditions among it replace those it has."""
        wanted = {key: params[key] for key in _CONDITIONS if params.get(key) is not None}
        for discipline in _QUEUE_DISCIPLINES:
            if params.get(discipline):
                raise CapabilityError(f"{self.name}: {discipline}: no such queue is made here")
        results: dict[str, Any] = {}
        self.setParam(results, "setMAC", mac=mac)
        self.setParam(results, "setIP", ip=ip)
        # A link is made with both ends up.
        if up and self.device != "lo" and (self.link is None or self.link.complete):
            self.setParam(results, "isUp", up=True)
        elif up is False:
            self.node.machine.set_down(self.device)
        self.setParam(results, "ifconfig", ifconfig=ifconfig)
        if wanted:
            self.conditions = from_mininet(wanted, str(self.name))
            if self.link is not None and self.link.complete:
                self.link.impose()
        return results

    def delete(self) -> None:
        """Take it away, and the other end of its link with it."""
        self.node.delIntf(self)
        if self.link is not None and self.link.gone:
            return
        rtnl = self.node.machine.rtnl
        if self.node.alive and rtnl.has(self.device):
            with rtnl.batch() as batch:
                batch.delete_link(self.device)

    # -- asking ------------------------------------------------------------------------------------

    def updateIP(self) -> str | None:
        """The address the kernel has."""
        found = machines.address_of(self.node.machine, self.device)
        self.ip = str(found.ip) if found else None
        return self.ip

    def updateMAC(self) -> str | None:
        self.mac = machines.mac_of(self.node.machine, self.device)
        return self.mac

    def updateAddr(self) -> tuple[str | None, str | None]:
        return self.updateIP(), self.updateMAC()

    def status(self) -> str:
        """ "OK" if the kernel has it, else "MISSING"."""
        return "OK" if self.node.machine.rtnl.has(self.device) else "MISSING"


class TCIntf(Intf):
    """Mininet's interface with conditions; every interface takes them here."""


class OVSIntf(Intf):
    """An end of a patch between two switches; a veth here as all others."""


class Link(original.Link):
    """A veth pair; with conditions, cut for the engine's joint."""

    #: Interfaces of the same group can be deleted at once; 0 is none.
    group = 0

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        #: Whether both ends are there.
        self.complete = False
        #: Whether both ends have been deleted together with others.
        self.gone = False
        self.imposed: Imposed | None = None
        #: The end at which it is cut, if it has conditions.
        self.near: Any = None
        #: Between two hosts with conditions: the bridge that leads from one to the other.
        self._middle: _Middle | None = None
        given = [params, params.get("params1") or {}, params.get("params2") or {}]
        self._conditioned = any(key in options for options in given for key in _CONDITIONS) or any(
            params.get(key) not in (None, Intf) for key in ("intf", "cls1", "cls2")
        )
        self.group = _groups[-1]
        params.setdefault("intf", Intf)
        super().__init__(node1, node2, **params)
        self.complete = True
        if _postponed is not None:
            _postponed.append(self)
        else:
            self.impose()

    def makeIntfPair(
        self,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = True,  # noqa: ARG002
    ) -> None:
        """Make the two interfaces, each in its node, or in the "root" without one; both up."""
        between_hosts = not any(node is None or node.forwards for node in (node1, node2))
        if between_hosts and self._conditioned:
            self._middle = _Middle(
                (node1.machine, intfname1, addr1), (node2.machine, intfname2, addr2), self.group
            )
        else:
            make_pair(intfname1, intfname2, addr1, addr2, node1, node2, group=self.group)

    # -- conditions --------------------------------------------------------------------------------

    def impose(self) -> None:
        """Make the link behave as its interfaces have it now.

        Raises UsageError for conditions out of range, CapabilityError for what nothing here can
        impose.
        """
        one, other = self.intf1, self.intf2
        if self._middle is not None:
            wire, uplink, switch = self._middle.wire, self._middle.uplink, self._middle.bridge
            inward, outward = one.conditions, other.conditions
            end = one
        else:
            if not (self.imposed or one.conditions or other.conditions):
                return
            near, end = (one, other) if one.node.forwards else (other, one)
            if not near.node.forwards:
                raise UsageError(
                    f"{self}: a link between hosts gets its conditions when it is made, "
                    "with cls=TCLink"
                )
            self.near = near
            wire, uplink, switch = near.node.machine, near.device, ""
            inward, outward = end.conditions, near.conditions
        if self.imposed is not None:
            lift(wire, uplink, self.imposed)
            self.imposed = None
        if inward or outward:
            both = _either(inward, outward)
            backend = choose_backend(both, _this_machine())
            back = outward if outward != inward else None
            self.imposed = impose(wire, uplink, inward, backend, back=back, mtu=_MTU)
            self._enter_group(wire)
            for intf in (one, other) if self._middle else (end,):
                switch_off(intf.node.machine, intf.device, self.imposed)
        if self._middle is not None:
            with wire.rtnl.batch() as batch:
                batch.set_master(self.imposed.port if self.imposed else uplink, switch)
        else:
            self.near.node.replug(self.near)

    def _enter_group(self, wire: Any) -> None:
        if self.group and self.imposed is not None:
            with wire.rtnl.batch() as batch:
                batch.set_group(self.imposed.port, self.group)

    # -- the rest ----------------------------------------------------------------------------------

    def delete(self) -> None:
        """Take it away."""
        if self.imposed is not None and self.imposed.line is not None:
            self.imposed.line.stop()
        super().delete()
        if self._middle is not None and not self.gone:
            self._middle.delete()


def make_pair(
    intf1: str,
    intf2: str,
    addr1: str | None = None,
    addr2: str | None = None,
    node1: Any = None,
    node2: Any = None,
    deleteIntfs: bool = True,  # noqa: ARG001
    runCmd: Any = None,  # noqa: ARG001
    *,
    group: int = 0,
) -> None:
    """Mininet's makeIntfPair: a veth pair, each end in its node or in the "root"; both up."""
    root = machines.root()
    ends = [
        (node.machine if node is not None else root, name, mac)
        for node, name, mac in ((node1, intf1, addr1), (node2, intf2, addr2))
    ]
    # Made from the "root", where the group counts.
    (near, name, mac), (far, peer, peer_mac) = sorted(ends, key=lambda end: end[0] is not root)
    with near.rtnl.batch() as batch:
        batch.add_veth(
            name,
            peer,
            peer_namespace=far.namespaces.net,
            mac=mac,
            peer_mac=peer_mac,
            group=group,
            index=next(_indexes),
        )
    far.set_up(peer)


class TCLink(Link):
    """Mininet's link with conditions; every link takes them here."""

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        params.setdefault("cls1", TCIntf)
        params.setdefault("cls2", TCIntf)
        super().__init__(node1, node2, **params)


class TCULink(TCLink):
    """As TCLink: bridges need no offload switched off."""


class OVSLink(Link):
    """A patch between switches in Mininet; a veth pair here."""


class FoundIntf(Intf):
    """An interface that a lab has made, and takes away.

    `name` is Mininet's; the kernel's may be another.
    """

    def __init__(self, name: str, node: Any, *, device: str, link: Any = None) -> None:
        self._device = device
        super().__init__(name, node=node, link=link, moveIntfFn=lambda *_: None)

    @property
    def device(self) -> str:
        return self._device

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ifconfig: str | None = None,
        up: bool | None = None,
        **params: Any,
    ) -> dict[str, Any]:
        """Addresses may be set; conditions are the lab's."""
        if any(params.get(key) is not None for key in _CONDITIONS):
            raise UsageError(f"{self.name}: the conditions of this link belong to the lab")
        return super().config(mac, ip, ifconfig, up, **params)

    def IP(self) -> str | None:
        return self.updateIP()

    def MAC(self) -> str | None:
        return self.updateMAC()

    def updateIP(self) -> str | None:
        """The kernel's; of a host's first interface what the host is reached by.

        Docker on a bridge moves the host's address there, weave gives containers a second one.
        """
        reached: str | None = None if self.node.forwards else self.node.machine_address()
        if reached is not None and self.node.defaultIntf() is self:
            self.ip = reached
            return reached
        return super().updateIP()

    def delete(self) -> None:
        self.node.delIntf(self)


class FoundLink(Link):
    """A link that a lab has made, and takes away: (node, device) at either end."""

    def __init__(
        self, one: tuple[Any, str], other: tuple[Any, str], *, names: Sequence[str] = ()
    ) -> None:
        self.complete = self.gone = True
        self.imposed, self.near, self._middle = None, None, None
        self.intf1, self.intf2 = (
            FoundIntf(name, node, device=device, link=self)
            for (node, device), name in zip((one, other), names or (one[1], other[1]), strict=True)
        )

    def impose(self) -> None:
        """The lab has done so."""


class _Middle:
    """Between two hosts: a bridge in the "root" with a veth pair to either."""

    def __init__(
        self,
        one: tuple[Any, str, str | None],
        other: tuple[Any, str, str | None],
        group: int,
    ) -> None:
        self.wire = machines.root()
        self.bridge = f"w{next(_middles)}"
        self.uplink = f"{self.bridge}a"
        with self.wire.rtnl.batch() as batch:
            batch.add_bridge(self.bridge, group=group)
            for letter, (node, name, mac) in (("a", one), ("b", other)):
                batch.add_veth(
                    f"{self.bridge}{letter}",
                    name,
                    peer_namespace=node.namespaces.net,
                    peer_mac=mac,
                    master=self.bridge,
                    group=group,
                    index=next(_indexes),
                )
        for node, name, _ in (one, other):
            node.set_up(name)

    def delete(self) -> None:
        """The pairs have gone with the hosts' ends."""
        with self.wire.rtnl.batch() as batch:
            batch.delete_link(self.bridge)


_middles = itertools.count(1)

#: Numbers of interfaces, beyond those the kernel gives.
_indexes = itertools.count(100_001)


# -- many links ------------------------------------------------------------------------------------

_postponed: list[Link] | None = None
_groups = [0]


@contextmanager
def together(group: int) -> Iterator[None]:
    """Links made meanwhile are of a group, and get their conditions at the end, side by side."""
    global _postponed
    if _postponed is not None:
        yield
        return
    _groups.append(group)
    links = _postponed = []
    try:
        yield
    finally:
        _groups.pop()
        _postponed = None
    conditioned = [link for link in links if link.intf1.conditions or link.intf2.conditions]
    if conditioned:
        concurrently(Link.impose, conditioned)


def _either(one: LinkConditions, other: LinkConditions) -> LinkConditions:
    """Whatever is asked for in any direction: what the backend must be able to do."""
    return LinkConditions(
        rate_bits_per_second=one.rate_bits_per_second or other.rate_bits_per_second,
        delay_ms=max(one.delay_ms or 0.0, other.delay_ms or 0.0),
        loss_ratio=max(one.loss_ratio or 0.0, other.loss_ratio or 0.0),
    )


@functools.cache
def _this_machine() -> Machine:
    """What this kernel can do; asked once, when the first link wants conditions."""
    return probe(inside=True)
