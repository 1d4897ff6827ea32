"""How busy the nodes of a lab are: what crosses their links, what is dropped, CPU time.

sample(lab)           in pid 1: counters of the moment, a node each
rates(before, after)  anywhere: what they come to a second
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlab.errors import XlabError
from xlab.lab import counters
from xlab.lab.counters import Counters
from xlab.lab.lab import Lab
from xlab.lab.node import Node

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def sample(lab: Lab) -> dict[str, Any]:
    """{time_s, nodes: [{name, up, in_bytes, in_packets, out_bytes, out_packets, dropped, cpu_s}]}.

    `in` and `out` of a host and of the gateway are counted at the switch port of its eth0: packets
    of Open vSwitch in user space pass no other counter.  `dropped` is of all its interfaces and
    that port, both ways, and what the port's queue has dropped: a link's rate and loss.
    `cpu_s` is that of the processes in its network namespace; the kernel's work is nobody's.
    """
    used = _cpu_by_namespace()
    wire = counters.interfaces(lab.wire)
    for queue in lab.wire.listed(["tc", "-s", "-j", "qdisc", "show"]):
        # No interface's counters have what its queue drops; a root's are those of all below it.
        if queue.get("root") and queue["dev"] in wire:
            port = wire[queue["dev"]]
            dropped = port.out_dropped + queue["drops"]
            wire[queue["dev"]] = dataclasses.replace(port, out_dropped=dropped)
    ports = {link.b.node: link.a.interface for link in lab.underlay.uplinks}
    return {
        "time_s": time.monotonic(),
        "nodes": [_node(node, used, wire.get(ports.get(node.name, ""))) for node in lab.nodes],
    }


def _node(node: Node, used: Mapping[int, float], port: Counters | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": node.name, "up": node.is_on}
    try:
        own = list(counters.interfaces(node).values())
        namespace = os.fstat(node.namespaces.net).st_ino
    except (XlabError, OSError):
        return facts | {"up": False}
    counted = [port.seen_from_beyond()] if port else own
    return facts | {
        "in_bytes": sum(c.in_bytes for c in counted),
        "in_packets": sum(c.in_packets for c in counted),
        "out_bytes": sum(c.out_bytes for c in counted),
        "out_packets": sum(c.out_packets for c in counted),
        "dropped": sum(c.dropped for c in own) + (port.dropped if port else 0),
        "cpu_s": used.get(namespace, 0.0),
    }


def _cpu_by_namespace() -> dict[int, float]:
    """Seconds of CPU time of the processes that live, by their network namespace's inode."""
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                namespace = (folder / "ns/net").stat().st_ino
                # utime and stime are fields 14 and 15 of proc(5); the name may hold anything.
                fields = (folder / "stat").read_bytes().rpartition(b") ")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            seconds = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
            used[namespace] = used.get(namespace, 0.0) + seconds
    return used


def rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{name, up, in_bits_per_second, in_packets_per_second, out_…, dropped_per_second, dropped,
    cpu_percent}, a node each; of one that is down, or was not there before, only name and up.

    A counter that has begun anew counts as 0, and so does the CPU time of processes that have
    ended; 100 % is one processor.
    """
    seconds = float(after["time_s"] - before["time_s"])
    earlier = {node["name"]: node for node in before["nodes"]}
    found = []
    for node in after["nodes"]:
        facts = {"name": node["name"], "up": node["up"]}
        old = earlier.get(node["name"])
        if node["up"] and old and old["up"] and seconds > 0:

            def rate(field: str, factor: float = 1.0, old: Any = old, node: Any = node) -> float:
                risen: float = node[field] - old[field]
                return max(0.0, factor * risen / seconds)

            facts |= {
                "in_bits_per_second": rate("in_bytes", 8),
                "in_packets_per_second": rate("in_packets"),
                "out_bits_per_second": rate("out_bytes", 8),
                "out_packets_per_second": rate("out_packets"),
                "dropped_per_second": rate("dropped"),
                "dropped": node["dropped"],
                "cpu_percent": rate("cpu_s", 100),
            }
        found.append(facts)
    return found
