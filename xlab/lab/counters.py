"""What a lab consists of and what crosses its links, counted by its first process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xlab.kernel.drivers import shown
from xlab.lab.lab import Lab
from xlab.lab.node import Node

#: What namespaces, interfaces, routes and rules are made of (/proc/meminfo).
_KERNEL_FIELDS = ("Slab", "Percpu", "VmallocUsed", "KernelStack", "PageTables")


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes."""

    #: The kernel's on this machine, not the lab's alone: only differences mean anything, and
    #: whatever else happens meanwhile shows in them.  A lab has no control group of its own, which
    #: could be asked: those of the machine are not ours to add to.
    kernel: int
    #: The sandbox's processes' (PSS: pages that several share are divided among them).
    processes: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What crossed the hosts' physical links, both ways, since they are there."""

    packets: int
    bytes: int

    def since(self, before: Traffic) -> Traffic:
        return Traffic(self.packets - before.packets, self.bytes - before.bytes)


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one interface, since it is there."""

    in_bytes: int
    in_packets: int
    in_dropped: int
    out_bytes: int
    out_packets: int
    out_dropped: int

    @property
    def dropped(self) -> int:
        return self.in_dropped + self.out_dropped

    def seen_from_beyond(self) -> Counters:
        """What it receives, the other end of its link has sent."""
        return Counters(
            self.out_bytes, self.out_packets, self.out_dropped,
            self.in_bytes, self.in_packets, self.in_dropped,
        )  # fmt: skip


def memory() -> Memory:
    machine = kibibytes(Path("/proc/meminfo").read_text())
    kernel = sum(machine.get(name, 0) for name in _KERNEL_FIELDS)
    # What has ended meanwhile shows nothing.
    shares = (kibibytes(shown(folder / "smaps_rollup")).get("Pss", 0) for folder in _processes())
    return Memory(kernel * 1024, sum(shares) * 1024)


def processes() -> int:
    """How many there are in the sandbox, this one among them."""
    return len(_processes())


def descriptors() -> int:
    """How many this process has open: of namespaces, sockets and folders of settings."""
    return len(list(Path("/proc/self/fd").iterdir()))


def tunnels(lab: Lab) -> int:
    """Ends of tunnels at all hosts; two hosts with one between them have two."""
    return sum(host.tunnels() for host in lab.hosts)


def traffic(lab: Lab) -> Traffic:
    """By the counters of the switch ports at the hosts' eth0; the gateway's is left out."""
    counted = interfaces(lab.wire)
    links = [counted[lab.physical_link(host)] for host in lab.hosts]
    return Traffic(
        sum(link.in_packets + link.out_packets for link in links),
        sum(link.in_bytes + link.out_bytes for link in links),
    )


def interfaces(node: Node) -> dict[str, Counters]:
    """By name, all of a node's but lo."""
    # Opened before: a node's own /proc does not know a thread that has come from outside.
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    below = partial(os.open, dir_fd=proc)
    try:
        with node.entered(), open("thread-self/net/dev", "rb", opener=below) as file:
            return counters(os.fsdecode(file.read()))
    finally:
        os.close(proc)


def counters(text: str) -> dict[str, Counters]:
    """/proc/net/dev, by interface, without lo."""
    found = {}
    # A name may hold what Python takes for the end of a line.
    for line in filter(None, text.split("\n")[2:]):
        name, _, rest = line.partition(":")
        # bytes, packets, errs, drop and four more received, then the same sent.
        fields = [int(field) for field in rest.split()]
        into, out = fields[:8], fields[8:]
        name = name.lstrip(" ")
        if name != "lo":
            found[name] = Counters(into[0], into[1], into[3], out[0], out[1], out[3])
    return found


def kibibytes(text: str) -> dict[str, int]:
    """The `Name:   123 kB` lines of a file in /proc."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name: int(rest.split()[0]) for name, _, rest in lines if rest.endswith(" kB")}


def _processes() -> list[Path]:
    return [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
