"""What this machine can do, and the line to paste for what it can't: the facts of `xlab doctor`.

Looks and asks, by the rules of xlab/kernel/drivers.py: no module is loaded, nothing of the
machine is touched.  `findings` gathers, `diagnose` draws the conclusions and is pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from xlab.errors import CapabilityError
from xlab.guest import packages
from xlab.kernel import capabilities, container, limits, programs
from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.programs import TOOLS, TYPED, Tool
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.chooser import IMPOSERS, choose
from xlab.scenario import catalog


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    `ok` is True if it is as it should be; None if labs run, but with a fallback or a limit that
    `detail` names; False if what is in `needed_for` cannot run.
    """

    name: str
    ok: bool | None
    detail: str
    #: A line to paste; empty where there is none, or no need.
    remedy: str = ""
    needed_for: str = ""
    #: What the remedy gives away; empty where that is nothing to speak of.
    risk: str = ""


def findings() -> list[Finding]:
    """Everything about this machine, in some 50 ms."""
    versions = programs.tool_versions((*TOOLS, *TYPED))
    return diagnose(capabilities.probe(), versions, _needing())


def exit_status(found: Sequence[Finding]) -> int:
    """0 if every scenario is possible here, 3 if one is not."""
    return 3 if any(finding.ok is False for finding in found) else 0


def _needing() -> dict[str, str]:
    """Which scenarios declare that they need something: {"Open vSwitch": "ovs-gre"}."""
    needs = {name: catalog.declared(name).get("needs") for name in catalog.names()}
    return {
        need: ", ".join(name for name, said in needs.items() if said and need in said)
        for need in ("Open vSwitch", "masquerading")
    }


def diagnose(
    machine: Machine, versions: Mapping[str, str], needing: Mapping[str, str]
) -> list[Finding]:
    """The findings, most important first.

    `versions` are those of the tools that are installed, `needing` the scenarios that need what
    not all do.
    """
    ovs, masquerading = needing.get("Open vSwitch", ""), needing.get("masquerading", "")
    found = [
        _labs(machine),
        # What is not live the kernel loads when the first lab asks for it.
        _all_usable("links and switches", [machine.veth, machine.bridge], _EVERY_SCENARIO),
        _all_usable("masquerading", [machine.masquerading], masquerading),
        _open_vswitch(machine, versions, ovs),
        _conditions(machine),
        _overlayfs(machine),
        _open_files(machine),
    ]
    if machine.neighbours is not None:
        found.append(_neighbours(machine.neighbours))
    needed_by = {"ovs-vswitchd": ovs, "ovsdb-server": ovs, "iptables": masquerading}
    found += [_tool(each, versions, needed_by.get(each.name, _EVERY_SCENARIO)) for each in TOOLS]
    return [*found, _typed(versions), _virtual_clock()]


# -- the kernel ------------------------------------------------------------------------------------

_EVERY_SCENARIO = "every scenario"


def _labs(machine: Machine) -> Finding:
    found = machine.namespaces
    if not found.usable:
        return Finding("labs", False, found.detail, found.remedy, _EVERY_SCENARIO, found.risk)
    how = {
        "rootless": "run rootless, each in a user namespace of its own",
        "root": "run as root, in namespaces of their own",
    }[machine.sandbox]
    return Finding("labs", True, how, needed_for=_EVERY_SCENARIO)


def _all_usable(name: str, parts: Sequence[Capability], needed_for: str) -> Finding:
    missing = [part for part in parts if not part.usable]
    if missing:
        detail = "; ".join(part.detail for part in missing)
        return Finding(name, False, detail, missing[0].remedy, needed_for)
    to_load = [f"{p.detail}: the kernel loads it for the first lab" for p in parts if not p.live]
    detail = "; ".join(to_load or [part.detail for part in parts])
    return Finding(name, True, detail, needed_for=needed_for)


def _open_vswitch(machine: Machine, versions: Mapping[str, str], needed_for: str) -> Finding:
    """Which datapath a lab would get: the kernel's if it is live, else the one in user space."""
    finding = partial(Finding, "Open vSwitch", needed_for=needed_for)
    missing = [tool for tool in TOOLS if tool.name.startswith("ovs") and tool.name not in versions]
    if missing:
        absent = ", ".join(tool.name for tool in missing)
        return finding(False, f"{absent}: not installed", programs.remedy(missing[0].name))
    kernel, tun = machine.ovs_datapath, machine.tun
    if kernel.live and machine.ovs_gre.usable:
        return finding(True, f"datapath in the kernel ({kernel.detail})")
    lacking, remedy = kernel.detail, kernel.remedy
    if kernel.live:
        lacking = f"{kernel.detail}, but {machine.ovs_gre.detail}"
    if tun.usable:
        first_use = "" if tun.live else "; the kernel loads tun for the first lab"
        return finding(None, f"datapath in user space, far slower: {lacking}{first_use}", remedy)
    return finding(False, f"{lacking}, and {tun.detail}", tun.remedy or remedy)


def _conditions(machine: Machine) -> Finding:
    """Not a scenario's need: without any imposer, runs that ask for a condition are skipped."""
    name, needed_for = "link conditions", "--rate, --delay, --jitter, --loss"
    try:
        chosen = choose(LinkConditions(delay_ms=1.0), machine)
    except CapabilityError as error:
        return Finding(name, None, f"not possible: {error.missing}", error.remedy, needed_for)
    best = IMPOSERS[0].needs(machine)
    if chosen is IMPOSERS[0]:
        return Finding(name, True, f"{chosen} ({best.detail})", needed_for=needed_for)
    there = ", ".join(imposer.words for imposer in IMPOSERS if imposer.is_on(machine))
    return Finding(name, None, f"{there}: {best.detail}", best.remedy, needed_for)


def _overlayfs(machine: Machine) -> Finding:
    found = machine.overlayfs
    ok = True if found.live else None
    about = "private /etc and /var of hosts that are typed into"
    return Finding("overlay file system", ok, found.detail, found.remedy, about)


# -- limits ----------------------------------------------------------------------------------------

#: The lab that a scenario makes unless told otherwise: 2 hosts with 2 containers each.
_USUAL_LAB_NODES = 6
#: The largest lab that is to work anywhere: 1,000 hosts with two containers each.
_LARGE_LAB_NODES = 3000


def _open_files(machine: Machine) -> Finding:
    limit = machine.open_files
    nodes = limits.nodes_within(limit)
    name, remedy = "open files", limits.MORE_OPEN_FILES
    if machine.container:
        remedy = container.started_with(machine.container, "--ulimit nofile=65536:65536")
    if nodes < _USUAL_LAB_NODES:
        lab = f"the {_USUAL_LAB_NODES} hosts and containers of a lab"
        too_few = f"at most {limit:,}: too few for {lab}"
        return Finding(name, False, too_few, remedy, _EVERY_SCENARIO)
    enough = nodes >= _LARGE_LAB_NODES
    up_to = f"at most {limit:,}: labs of up to {nodes:,} hosts and containers"
    return Finding(name, True if enough else None, up_to, "" if enough else remedy, "large labs")


#: What Linux comes with (gc_thresh3 of net/ipv4/arp.c).
_DEFAULT_NEIGHBOURS = 1024


def _neighbours(limit: int) -> Finding:
    # Of n that all talk to each other, each keeps an entry for every other one.
    everyone = math.floor((1 + math.sqrt(1 + 4 * limit)) / 2)
    enough = limit >= _DEFAULT_NEIGHBOURS
    return Finding(
        "neighbour table",
        True if enough else None,
        f"{limit:,} dynamic ARP entries, shared by all labs and the machine: up to {everyone} "
        "that all talk to each other; larger labs use permanent entries, which do not count",
        "" if enough else f"sudo sysctl -w net.ipv4.neigh.default.gc_thresh3={_DEFAULT_NEIGHBOURS}",
        "large labs",
    )


# -- tools -----------------------------------------------------------------------------------------

#: What xlab gets along without, and how.
_OPTIONAL = {
    "netperf": "not installed: xlab's own meter of request/response latency is used",
    "tcpdump": "not installed: only needed to read captures by hand",
    "tc": "not installed: link conditions are not possible",
    "ethtool": "not installed: link conditions are not possible",
}


def _typed(versions: Mapping[str, str]) -> Finding:
    """Real programs that the tutorial types in a host; those that are emulated are always there."""
    name, needed_for = "what is typed", "the tutorial's commands in xlab shell"
    missing = [tool for tool in TYPED if tool.name not in versions]
    if not missing:
        return Finding(name, True, ", ".join(tool.name for tool in TYPED), needed_for=needed_for)
    programs = ", ".join(tool.name for tool in missing)
    packages = " ".join(dict.fromkeys(tool.package for tool in missing))
    remedy = f"sudo apt-get install {packages}"
    return Finding(name, None, f"{programs}: not installed", remedy, needed_for)


def _virtual_clock() -> Finding:
    """Nothing is fetched to find out: only what making the guest begins with."""
    finding = partial(Finding, "virtual clock", needed_for="--clock virtual")
    try:
        packages.require_able()
    except CapabilityError as error:
        return finding(None, error.missing, error.remedy)
    version = packages.qemu_version()
    if version != packages.locked().qemu:
        pinned = (
            f"QEMU {version}, pinned is {packages.locked().qemu}: figures of a guest of its own"
        )
        return finding(True, pinned)
    return finding(True, f"QEMU {version}; the guest is fetched when first wanted (70 MB)")


def _tool(tool: Tool, versions: Mapping[str, str], needed_for: str) -> Finding:
    if tool.name in versions:
        return Finding(tool.name, True, versions[tool.name], needed_for=tool.used_for)
    remedy = programs.remedy(tool.name)
    if tool.name in _OPTIONAL:
        return Finding(tool.name, None, _OPTIONAL[tool.name], remedy, tool.used_for)
    return Finding(tool.name, False, "not installed", remedy, needed_for)
