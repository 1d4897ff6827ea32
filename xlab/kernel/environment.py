"""What a reader of figures needs to know of the machine they were measured on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from xlab.kernel.drivers import shown
from xlab.kernel.programs import tool_versions


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """What a run record says about the machine, apart from what the run itself decides."""

    kernel: str
    cpu_model: str
    cores: int
    #: Averages over 1, 5 and 15 minutes.
    load: tuple[float, float, float]
    congestion_control: str
    tools: dict[str, str]
    #: What a reader needs to judge the figures: governor, virtualisation, stolen time.
    notes: tuple[str, ...]


def environment_facts() -> EnvironmentFacts:
    """The machine as it is now: some 20 ms the first time, when tools are asked their versions."""
    return EnvironmentFacts(
        kernel=os.uname().release,
        cpu_model=cpu_model(shown("/proc/cpuinfo")) or os.uname().machine,
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg(),
        congestion_control=shown("/proc/sys/net/ipv4/tcp_congestion_control").strip() or "unknown",
        tools=tool_versions(),
        notes=_environment_notes(),
    )


def cpu_model(cpuinfo: str) -> str:
    """The processor's name from /proc/cpuinfo, whose fields differ by architecture; "" if none."""
    fields = ("model name", "Model", "cpu model", "Processor", "uarch", "cpu")
    found = (re.search(rf"^{field}\s*:\s*(.+)$", cpuinfo, re.MULTILINE) for field in fields)
    return next((match[1].strip() for match in found if match), "")


def stolen_ratio(stat: str) -> float | None:
    """Share of processor time the hypervisor took since boot, from /proc/stat; None if not told."""
    try:
        total, stolen = cpu_ticks(stat)
    except ValueError:
        return None
    return stolen / total if total else None


def cpu_ticks(stat: str) -> tuple[int, int]:
    """Ticks of the clock of all processors since boot, and those stolen, from /proc/stat.

    Raises ValueError if it does not tell.
    """
    # user nice system idle iowait irq softirq steal; guest time is part of user, proc(5).
    match = re.match(r"cpu" + r" +([0-9]{1,20})" * 8 + r"\b", stat)
    if not match:
        raise ValueError(f"not the beginning of /proc/stat: {stat[:40]!r}")
    ticks = [int(field) for field in match.groups()]
    return sum(ticks), ticks[7]


def _environment_notes() -> tuple[str, ...]:
    notes = []
    governor = shown("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        notes.append(f"cpu frequency governor: {governor}")
    if re.search(r"^flags\b.*\bhypervisor\b", shown("/proc/cpuinfo"), re.MULTILINE):
        notes.append("runs on a virtual machine")
    stolen = stolen_ratio(shown("/proc/stat"))
    if stolen is not None and stolen >= 0.01:
        notes.append(f"{stolen:.0%} of processor time since boot was taken by other machines")
    return tuple(notes)
