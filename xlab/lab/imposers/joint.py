"""The joint of a link with conditions, and what every imposer has in common.

A link with conditions is cut at the switch and joined again, so that every frame passes the joint:

    h1: eth0 ──── s1-eth1  [joint]  s1-eth1q ──── s1-eth1p ── bridge s1
                 (uplink)            (inner)      (port)

    netem, tbf:   a bridge that learns nothing; a queueing discipline on uplink (towards the host)
                  and on inner (towards the switch)
    delay-line:   a process that forwards between uplink and inner (xlab/lab/delay_line.py)

Queueing disciplines act on what leaves an interface.  With two interfaces to leave by neither
direction needs ifb, mirred and a classifier, of which a kernel may lack any; and it does not matter
whether the uplink is a veth or a tap of Open vSwitch.  Nothing inside the host is touched.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.processes import Process
from xlab.lab.conditions import LinkConditions
from xlab.lab.node import Node

#: Segments of which one lost would be many packets lost.
_SEGMENTATION = ("tso", "gso", "gro", "tx-udp-segmentation")
#: Ethernet header and a VLAN tag.
FRAME_OVERHEAD_BYTES = 14 + 4
#: What a link without a rate is taken to carry when room is made for packets under way.
UNLIMITED_BITS_PER_SECOND = 10e9


@dataclass(frozen=True, slots=True)
class Joint:
    """Where a link is cut, and its interfaces, named after the uplink where 15 characters allow."""

    #: The switches' namespace, and the link's end there; its other is a host's or a switch's.
    wire: Node
    uplink: str
    #: Of what comes in at the uplink, and of what leaves by it.
    inward: LinkConditions
    outward: LinkConditions
    mtu: int = 1500

    @property
    def port(self) -> str:
        return f"{self._stem}p"

    @property
    def inner(self) -> str:
        return f"{self._stem}q"

    @property
    def bridge(self) -> str:
        return f"{self._stem}j"

    @property
    def _stem(self) -> str:
        fits = len(self.uplink) <= 14
        return self.uplink if fits else f"c{zlib.crc32(self.uplink.encode()):08x}"


class Imposer(ABC):
    """One thing that imposes conditions; a module here has one as `IMPOSER`."""

    #: What the record says.
    name: ClassVar[str]
    #: Those that are better are asked first.
    place: ClassVar[int]
    #: What `xlab doctor` says of it where it stands in for a better one: "rates by tbf".
    words: ClassVar[str]
    #: Whether plain tools can do the same, from a script.
    plain: ClassVar[bool] = True
    #: Features that it cannot live with, at either side of the joint.
    offloads_off: ClassVar[tuple[str, ...]] = ()

    def can(self, wanted: LinkConditions) -> bool:  # noqa: ARG002
        """Whether it imposes all of that."""
        return True

    @abstractmethod
    def needs(self, machine: Machine) -> Capability: ...

    def is_on(self, machine: Machine) -> bool:
        """Whether this machine has it.  A module that is not loaded is not used."""
        return self.needs(machine).live

    def fallback(self, machine: Machine) -> str:  # noqa: ARG002
        """What to tell the user if it is not the best there could be; empty if there is nothing."""
        return ""

    def impose(
        self,
        wire: Node,
        uplink: str,
        conditions: LinkConditions,
        *,
        back: LinkConditions | None = None,
        mtu: int = 1500,
    ) -> Imposed:
        """Put `conditions` on the link whose end `uplink` is, in both directions.

        With `back` they are those of what comes in at `uplink`, and `back` those of what leaves by
        it.  `uplink` is in the switches' namespace `wire`, its other side a host or another switch;
        it is taken out of its bridge, if it has one.  The caller makes `Imposed.port`, which is up,
        a port of the switch in its stead, and calls `Imposed.switch_off` for the host's own
        interface.  Everything made lives as long as `wire`, or until `Imposed.lift`.  Raises
        CommandError if `ip`, `tc` or `ethtool` fails, DaemonError if a process does not start.
        """
        joint = Joint(wire, uplink, conditions, conditions if back is None else back, mtu)
        lossy = joint.inward.loss_ratio or joint.outward.loss_ratio
        offloads_off = (*(_SEGMENTATION if lossy else ()), *self.offloads_off)
        batch(wire, "ip", _cut(joint))
        line = self.join(joint)
        _switch_off(wire, joint.port, offloads_off)
        return Imposed(self, joint, line, offloads_off)

    @abstractmethod
    def join(self, joint: Joint) -> Process | None:
        """Join the link again where it was cut; a process to be stopped with the lab."""

    @abstractmethod
    def part(self, imposed: Imposed) -> None:
        """Undo `join`."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Imposed:
    """A link that has its conditions."""

    imposer: Imposer
    joint: Joint
    #: The delay line, to be stopped with the lab; None where there is no process.
    line: Process | None = None
    #: Features to switch off at the host's interface (`switch_off`), or figures are wrong.
    offloads_off: tuple[str, ...] = ()

    @property
    def port(self) -> str:
        """The interface to make a port of the switch."""
        return self.joint.port

    @property
    def bridge(self) -> str | None:
        """What joins it again where no process does."""
        return self.joint.bridge if self.line is None else None

    def require_alive(self) -> None:
        """Raises DaemonError, with what it said, if the delay line has died."""
        if self.line is not None and (status := self.line.poll()) is not None:
            raise self.line.blamed(f"the delay line of {self.port}", f"ended with status {status}")

    def lift(self) -> None:
        """Undo `impose`: no conditions, and the uplink up and in no bridge, or gone."""
        self.imposer.part(self)
        batch(self.joint.wire, "ip", [f"link del {self.port}"])

    def switch_off(self, node: Node, interface: str) -> None:
        """Switch off offloads that would spoil the conditions, at the host's end of the link."""
        _switch_off(node, interface, self.offloads_off)


class Discipline(Imposer):
    """A queueing discipline of the kernel, on either side of a bridge."""

    @abstractmethod
    def arguments(self, conditions: LinkConditions, *, mtu: int) -> str:
        """The discipline as tc takes it."""

    def join(self, joint: Joint) -> None:
        disciplines = [
            f"qdisc replace dev {name} root {self.arguments(wanted, mtu=joint.mtu)}"
            for name, wanted in ((joint.uplink, joint.outward), (joint.inner, joint.inward))
            if wanted
        ]
        batch(joint.wire, "tc", disciplines)
        batch(joint.wire, "ip", _bridge(joint))

    def part(self, imposed: Imposed) -> None:
        wire, uplink = imposed.joint.wire, imposed.joint.uplink
        if imposed.joint.outward and wire.rtnl.has(uplink):
            batch(wire, "tc", [f"qdisc del dev {uplink} root"])
        batch(wire, "ip", [f"link del {imposed.joint.bridge}"])


def _cut(joint: Joint) -> list[str]:
    mtu = joint.mtu
    return [
        f"link set dev {joint.uplink} nomaster up",
        f"link add {joint.inner} mtu {mtu} up type veth peer name {joint.port} mtu {mtu}",
        f"link set dev {joint.port} up",
    ]


def _bridge(joint: Joint) -> list[str]:
    """A bridge of two ports that forwards everything from one to the other, as a wire does.

    An ageing time of 0 keeps it from learning: what it had learnt would be wrong as soon as a
    container moves to another host.
    """
    return [
        f"link add {joint.bridge} up type bridge {_WIRE_LIKE}",
        f"link set dev {joint.uplink} master {joint.bridge}",
        f"link set dev {joint.inner} master {joint.bridge}",
    ]


_WIRE_LIKE = "forward_delay 0 stp_state 0 ageing_time 0 mcast_snooping 0"


def batch(node: Node, tool: str, lines: Sequence[str]) -> None:
    """Run lines of `ip` or `tc` in one process."""
    node.configure([tool, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines).encode())


def _switch_off(node: Node, interface: str, features: Sequence[str]) -> None:
    if features:
        off = [word for feature in features for word in (feature, "off")]
        node.configure(["ethtool", "-K", interface, *off])


def queue_bytes(conditions: LinkConditions, *, mtu: int) -> float:
    """How much may wait for the rate: a round trip's worth over two such links, at least 50 ms.

    Never under 100 packets: a queue too short for a burst makes a lossy link of a slow one.
    """
    frame_bytes = mtu + FRAME_OVERHEAD_BYTES
    if conditions.max_queue_packets:
        return float(conditions.max_queue_packets * frame_bytes)
    rate = conditions.rate_bits_per_second or UNLIMITED_BITS_PER_SECOND
    queue_s = max(0.05, 4 * (conditions.delay_ms or 0) / 1e3)
    return max(rate / 8 * queue_s, 100.0 * frame_bytes)
