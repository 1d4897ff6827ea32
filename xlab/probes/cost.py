"""What a lab costs while it stands: memory, and packets that are nobody's data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlab.lab import counters
from xlab.probes.facts import Plan, Sampled, Trial
from xlab.probes.kinds import Kind, Site, probe
from xlab.record.record import Measurement

#: Direction of what is measured between no two ends.
WHOLE_LAB = "the whole lab"


@probe(Kind.OF_LAB, "memory", "memory a host: its processes' and the kernel's", place=1)
def probe_memory(site: Site, plan: Plan) -> list[Sampled]:
    """`memory_bytes_per_host`, and `process_bytes_per_host`: what of it the processes have.

    It is what the machine uses more than before, when nothing stood: of processes the share (PSS)
    of all in the sandbox, its first one included; of the kernel the growth of its own memory,
    whoever caused that, which is rough while other things go on.  The share of the daemons alone
    is in the detail.
    """
    trial, lab, before = Trial("memory", site.pair, plan), site.lab, site.memory_before
    now, hosts = counters.memory(), len(lab.hosts)
    processes, kernel = now.processes - before.processes, now.kernel - before.kernel
    daemons = [pid for host in lab.hosts for pid in host.daemon_pids()]
    detail = {
        "tool": "/proc/PID/smaps_rollup (PSS) and /proc/meminfo, less the same before building",
        "hosts": hosts,
        "containers": len(lab.containers),
        "daemon_bytes_per_host": sum(map(_share, daemons)) / hosts,
        "kernel_bytes_per_host": kernel / hosts,
    }
    return _sampled(
        trial,
        _per_host(trial, "memory_bytes_per_host", (processes, kernel), hosts, detail),
        _per_host(trial, "process_bytes_per_host", (processes,), hosts, detail),
    )


def _per_host(
    trial: Trial, metric: str, parts: Sequence[int], hosts: int, detail: Mapping[str, Any]
) -> Measurement:
    if min(parts) <= 0:
        reason = "memory of others was freed meanwhile, more than this lab has taken"
        return trial.failure(metric, "B", reason, **detail)
    return trial.measurement(metric, "B", [sum(parts) / hosts], detail=detail)


@probe(
    Kind.OF_LAB,
    "control-plane",
    "packets and bytes on the physical links while nobody sends anything",
    place=2,
    doing="the physical links while nobody sends",
)
def probe_control_plane(site: Site, plan: Plan) -> list[Sampled]:
    """What crosses the hosts' physical links, a host and second, while nobody sends anything.

    ARP, gossip, heartbeats: a tunnel that has none counts zero, and that is a figure.  Both ways.
    """
    trial, lab = Trial("control-plane", site.pair, plan), site.lab
    before, begun = counters.traffic(lab), time.monotonic()
    time.sleep(plan.at_rest_s)  # this is the measurement
    seconds, crossed = time.monotonic() - begun, counters.traffic(lab).since(before)
    detail = {
        "tool": "counters of the switch ports at the hosts' eth0, both ways",
        "hosts": len(lab.hosts),
        "seconds": seconds,
        "packets": crossed.packets,
        "bytes": crossed.bytes,
    }
    found = []
    for what, unit, number in (
        ("packets", "packet/s", crossed.packets),
        ("bytes", "B/s", crossed.bytes),
    ):
        metric = f"control_plane_{what}_per_host_second"
        if number < 0:
            reason = "a switch port was replaced, and its counters with it"
            found.append(trial.failure(metric, unit, reason, **detail))
        else:
            rate = number / len(lab.hosts) / seconds
            found.append(trial.measurement(metric, unit, [rate], detail=detail))
    return _sampled(trial, *found)


def _share(pid: int) -> int:
    """A process's proportional share of memory in bytes; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return counters.kibibytes(text).get("Pss", 0) * 1024


def _sampled(trial: Trial, *measurements: Measurement) -> list[Sampled]:
    found = (dataclasses.replace(m, direction=WHOLE_LAB) for m in measurements)
    return [Sampled(tuple(found), trial.raw)]
