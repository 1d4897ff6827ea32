"""Mininet's links on the lab's engine.

h1-eth0 ──── s1-eth1 (port of s1)                          a veth pair
h1-eth0 ──── s1-eth1 [joint] s1-eth1p (port of s1)         with conditions (xlab/lab/imposers)
h1-eth0 ──── w9.1a [joint] w9.1ap ── bridge w9.1 ── w9.1b ──── h2-eth0     between two hosts
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xlab.errors import UsageError
from xlab.kernel.capabilities import Machine, probe
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.chooser import choose
from xlab.lab.imposers.joint import Imposed
from xlab.lab.lab import concurrently
from xlab.mininet import machine as machines
from xlab.mininet.intf import CONDITIONS, MTU, FoundIntf, Intf, TCIntf, refuse_malformed
from xlab.mininet.original import link as original


class Link(original.Link):
    """A veth pair; with conditions, cut for the engine's joint."""

    #: Interfaces of the same group can be deleted at once; 0 is none.
    group = 0
    #: Whether both ends are there.
    complete = False
    #: Whether both ends have been deleted together with others.
    gone = False
    imposed: Imposed | None = None
    #: The end at which it is cut, if it has conditions.
    near: Any = None
    #: Between two hosts with conditions: the bridge that leads from one to the other.
    _middle: _Middle | None = None

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        given = [params, params.get("params1") or {}, params.get("params2") or {}]
        self._conditioned = any(key in options for options in given for key in CONDITIONS) or any(
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
        for name, mac in ((intfname1, addr1), (intfname2, addr2)):
            refuse_malformed(name, mac)
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
            near.node.release(near)
        if self.imposed is not None:
            self.imposed.lift()
            self.imposed = None
        if inward or outward:
            both = _either(inward, outward)
            imposer = choose(both, _this_machine())
            back = outward if outward != inward else None
            self.imposed = imposer.impose(wire, uplink, inward, back=back, mtu=MTU)
            if self.group:
                wire.rtnl.now.set_group(self.imposed.port, self.group)
                if self.imposed.bridge:
                    wire.rtnl.now.set_group(self.imposed.bridge, self.group)
            for intf in (one, other) if self._middle else (end,):
                self.imposed.switch_off(intf.node.machine, intf.device)
        if self._middle is not None:
            wire.rtnl.now.set_master(self.imposed.port if self.imposed else uplink, switch)
        else:
            self.near.node.replug(self.near)

    # -- the rest ----------------------------------------------------------------------------------

    def delete(self) -> None:
        """Take it away."""
        if self.imposed is not None and self.imposed.line is not None:
            self.imposed.line.stop()
        super().delete()
        if self.imposed is not None and self.imposed.bridge and not self.gone:
            self.imposed.joint.wire.rtnl.remove_link(self.imposed.bridge)
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
    near.rtnl.now.add_veth(
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


class FoundLink(Link):
    """A link that a lab has made, and takes away: (node, device) at either end."""

    def __init__(
        self, one: tuple[Any, str], other: tuple[Any, str], *, names: Sequence[str] = ()
    ) -> None:
        self.complete = self.gone = True
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
        self.bridge = f"w{os.getpid()}.{next(_middles)}"
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
        self.wire.rtnl.now.delete_link(self.bridge)


_middles = itertools.count(1)


def numbers_of_our_own() -> Iterator[int]:
    """Of interfaces or their groups: neither the kernel's nor another program's in the same "root".

    An interface's number has 31 bits, its group's 32.
    """
    return itertools.count((1 + os.getpid() % 20_000) * 100_000)


_indexes = numbers_of_our_own()


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
    """Whatever is asked for in any direction: what the imposer must be able to do."""
    return LinkConditions(
        rate_bits_per_second=one.rate_bits_per_second or other.rate_bits_per_second,
        delay_ms=max(one.delay_ms or 0.0, other.delay_ms or 0.0),
        loss_ratio=max(one.loss_ratio or 0.0, other.loss_ratio or 0.0),
    )


@functools.cache
def _this_machine() -> Machine:
    """What this kernel can do; asked once, when the first link wants conditions."""
    return probe(inside=True)
