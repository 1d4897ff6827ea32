"""What a scenario says of its method to whoever reads a report: its picture, what others measured.

Declared in the scenario's file and kept in the run's record, so that a report needs no scenario.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlab.kernel.packets import Encapsulation

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """A bridge or a port of a host, or what else stands for either in the picture."""

    #: With a * in it one for each other host: "gre*" is "gre0", or "gre0 … 3".
    name: str
    #: Its address, or what it is.
    note: str = ""
    #: Whether the packets of the proof pass it.
    on_path: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """What others measured: context beside a figure of ours, never a yardstick.

    Ranges are ratios to plain host networking, between real machines mostly; those of one kernel
    need not agree.
    """

    #: What was measured, where that is not quite the method.
    subject: str
    throughput: Range
    latency: Range | None
    source: str
    #: Whether it tells nothing of the same method through a datapath in user space.
    kernel_only: bool = False


@dataclass(frozen=True, slots=True)
class Portrait:
    """A method under one encapsulation: what it builds on each host, from the containers down."""

    encapsulation: Encapsulation
    #: What containers are plugged into.
    bridge: Part
    #: What stands between the bridge and eth0, side by side.
    between: tuple[Part, ...] = ()
    #: What eth0 is, where it has no address.
    eth0: str = ""
    #: What the method adds to a container.
    container_interface: str = ""
    #: Whether the proof is of containers; otherwise of the hosts themselves.
    of_containers: bool = True
    #: What leads its packets past what is built for them, where something does.
    bypass: str = ""
    published: Published | None = None
