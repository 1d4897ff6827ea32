"""All that is decided before a sandbox is made.

request ── design (what is asked for makes sense) ── equip (this machine can) ── blueprint
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError, XlabError, line_of
from xlab.kernel import limits, programs
from xlab.kernel.capabilities import Capability, Machine
from xlab.lab import underlay
from xlab.lab.conditions import LinkConditions, from_mininet
from xlab.lab.imposers.chooser import choose
from xlab.lab.lab import Conditioned, Lab
from xlab.lab.ovs import Datapath
from xlab.lab.underlay import Underlay
from xlab.scenario import catalog, scenario
from xlab.scenario.claims import Checks
from xlab.scenario.request import Request
from xlab.scenario.scenario import Flow, Scenario, Size


@dataclass(frozen=True, slots=True)
class Design:
    """A request understood: every name found, every default filled in, addresses planned."""

    request: Request
    scenario: Scenario
    #: Whence it was loaded.
    file: Path
    #: Every option of the scenario.
    settings: Mapping[str, str]
    underlay: Underlay
    size: Size
    #: What the scenario's own `plan` made of it.
    plan: Any

    def parameters(self) -> dict[str, Any]:
        """What the run record says was asked for."""
        return {
            **dataclasses.asdict(self.request),
            "hosts": self.size.hosts,
            "settings": dict(self.settings),
            "probes": list(self.request.probes),
        }


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A design and what carries it out on this machine."""

    design: Design
    #: What Open vSwitch runs on, where the scenario has one.
    ovs: Datapath | None
    #: Link conditions and what imposes them, by the switch's interface.
    conditions: Mapping[str, Conditioned]
    #: Fallbacks that whoever reads the figures must know of.
    notes: tuple[str, ...] = ()

    @property
    def datapath(self) -> str:
        """What moves packets between hosts: "linux bridge", "ovs userspace" …"""
        asked = self.design
        return f"ovs {self.ovs}" if self.ovs else asked.scenario.datapath(asked.settings)

    def wire(self, **furnishing: Any) -> Lab:
        """Its hosts and links; in pid 1 of a sandbox, as what is built on them.

        `furnishing` are further arguments of `Lab`.
        """
        mtu = self.design.request.mtu
        return Lab(
            self.design.underlay, ovs=self.ovs, mtu=mtu, conditions=self.conditions, **furnishing
        )

    def build(self, lab: Lab, checks: Checks) -> Flow:
        """Build the scenario; what it raises is a dead daemon's DaemonError if there is one.

        Else an error that breaks the build says where in the scenario's file.
        """
        asked = self.design
        with lab.blaming_daemons():
            try:
                return asked.scenario.build(lab, asked.plan, asked.size, asked.settings, checks)
            except Exception as error:
                place = f"{asked.file.name}:{line_of(asked.file, error)}"
                stage = f", after “{checks.stages[-1]}”" if checks.stages else ""
                stopped = f"the build stopped at {place}{stage}"
                if isinstance(error, XlabError):
                    if error.exit_status == XlabError.exit_status:
                        error.args = (f"{stopped}: {error}",)
                    raise
                if isinstance(error, OSError) and error.errno == errno.EMFILE:
                    raise  # a limit of this machine; the build is sound
                said = ": ".join(filter(None, (type(error).__name__, str(error))))
                raise XlabError(f"{stopped}: {said}") from error


def design(request: Request) -> Design:
    """Raises UsageError for what makes no sense, whatever the machine."""
    file = catalog.find(request.scenario).absolute()
    wanted = scenario.load(file)
    settings = wanted.settings(request.settings)
    described = underlay.describe(
        request.topo,
        hosts=request.hosts,
        containers=request.containers,
        fewest=wanted.fewest_hosts,
    )
    size = Size(hosts=len(described.hosts), containers=request.containers)
    return Design(request, wanted, file, settings, described, size, wanted.plan(size, settings))


def equip(asked: Design, machine: Machine) -> Blueprint:
    """Raises CapabilityError, with the remedy, for what this machine can't."""
    for needed in (machine.namespaces, machine.veth, machine.bridge):
        if not needed.usable:
            raise CapabilityError(f"{needed.name}: {needed.detail}", _remedy(needed))
    limits.require_open_files(machine.open_files, asked.size.hosts * (1 + asked.size.containers))
    wanted = asked.settings.get("datapath", "auto")
    ovs = ovs_datapath(machine, wanted) if "Open vSwitch" in asked.scenario.needs else None
    conditions = _conditions(asked.request, asked.underlay, machine)
    return Blueprint(asked, ovs, conditions, tuple(_notes(asked, machine, ovs, conditions)))


def _remedy(lacking: Capability) -> str:
    """What gives something away is not pasted out of an error: doctor says what."""
    if not lacking.risk:
        return lacking.remedy
    as_root = "run it as root (sudo), or " if "sudo" in lacking.remedy else ""
    return f"{as_root}see `xlab doctor` for what allows it, and its risk"


def ovs_datapath(machine: Machine, wanted: str) -> Datapath:
    """ "kernel" or "userspace" as `wanted`, with "auto" the kernel's where it is live.

    A module that is there but not loaded is not used: loading it would change the machine.  Raises
    CapabilityError for a datapath that can't be.
    """
    for tool in ("ovs-vswitchd", "ovsdb-server"):
        if programs.locate(tool) is None:
            raise CapabilityError(f"`{tool}` is not installed", programs.remedy(tool))
    if wanted != "userspace" and machine.ovs_datapath.live and machine.ovs_gre.usable:
        return "kernel"
    if wanted == "kernel":
        lacking = machine.ovs_gre if machine.ovs_datapath.live else machine.ovs_datapath
        raise CapabilityError(
            f"no kernel datapath for Open vSwitch: {lacking.detail}", lacking.remedy
        )
    if machine.tun.usable:
        return "userspace"
    raise CapabilityError(
        f"no datapath for Open vSwitch: {machine.ovs_datapath.detail}, and {machine.tun.detail}",
        machine.tun.remedy or machine.ovs_datapath.remedy,
    )


def _conditions(request: Request, described: Underlay, machine: Machine) -> dict[str, Conditioned]:
    """Conditions of every link that has any, by the switch's interface.

    The command line's hold for every link of the topology, over the topology's own; the gateway's
    link keeps what the topology says.  Raises CapabilityError for what nothing here can impose.
    """
    asked = LinkConditions(
        rate_bits_per_second=request.rate_bits_per_second,
        delay_ms=request.delay_ms,
        jitter_ms=request.jitter_ms,
        loss_ratio=request.loss_ratio,
    )
    found = {}
    for link in (*described.uplinks, *described.trunks):
        own = from_mininet(link.options, f"{link.a.node} - {link.b.node}")
        if link.b.node != underlay.GATEWAY:
            own = own.overridden_by(asked)
        if own:
            found[link.a.interface] = Conditioned(own, choose(own, machine))
    return found


def _notes(
    asked: Design, machine: Machine, ovs: Datapath | None, conditions: Mapping[str, Conditioned]
) -> Iterator[str]:
    yield from asked.underlay.notes
    switches, most = len(asked.underlay.switches), underlay.QUEUE_PACKETS
    copies = asked.underlay.copies_at_once(asked.size.containers)
    if copies > most:
        yield (
            f"{copies:,} copies of a broadcast wait for delivery at once, where Linux queues "
            f"{most:,} by default: some get lost; fewer wait where switches are in a row "
            "(--topo linear,SWITCHES,HOSTS, or no --topo)"
        )
    elif asked.request.topo is None and switches > 1:
        yield (
            f"{switches} switches in a row: one would make more copies of a broadcast at once than "
            f"Linux queues by default ({most:,})"
        )
    if machine.waited_s:
        yield (
            f"waited {machine.waited_s:.0f} s for the kernel before anything was built, as while "
            "it frees the network of a large lab"
        )
    if ovs == "userspace" and asked.settings.get("datapath") != "userspace":
        yield f"Open vSwitch runs in user space: {machine.ovs_datapath.detail}"
    yield from sorted({c.imposer.fallback(machine) for c in conditions.values()} - {""})
