"""A run, seen from outside the sandbox: decide, launch, listen, write the record.

request ── plan (refuses before anything is built) ── sandbox ── events ── record
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import xlab
from xlab import capabilities, catalog, controller, record, sandbox, session
from xlab.capabilities import Machine
from xlab.errors import CapabilityError, UsageError, XlabError
from xlab.lab import underlay
from xlab.lab.conditions import LinkConditions, choose_backend, fallback, from_mininet
from xlab.lab.lab import Conditioned
from xlab.lab.ovs import Datapath
from xlab.lab.underlay import Underlay
from xlab.record import (
    Claim,
    Conditions,
    Environment,
    Event,
    Measurement,
    PathProof,
    RunRecord,
    Status,
    Timings,
)
from xlab.request import Request
from xlab.scenario import Size, load

Watch = Callable[[Mapping[str, Any]], None]


def run(request: Request, *, results: Path, watch: Watch) -> tuple[RunRecord, Path]:
    """Run one scenario; returns its record and the folder it was written to.

    A scenario this machine can't do gives a record with the status "skipped"; one that broke, a
    record with the status "failed" and the reason.  Raises UsageError for what makes no sense, and
    OSError where the results cannot be written (nothing half-written stays).
    """
    begun = time.monotonic()
    started_at = datetime.now(UTC)
    scenario = load(catalog.find(request.scenario))
    settings = scenario.settings(request.settings)
    described = underlay.describe(request.topo, hosts=request.hosts)
    size = Size(hosts=len(described.hosts), containers=request.containers)
    plan = scenario.plan(size, settings)
    results.mkdir(parents=True, exist_ok=True)
    record.sweep(results)

    machine = capabilities.probe()
    seen = _Seen(watch)
    timings: dict[str, float] = {}
    raw: dict[str, bytes] = {}
    status: Status = "failed"
    reason = ""
    datapath = "none"
    conditions: dict[str, Conditioned] = {}
    measured: dict[str, float] = {}
    try:
        _require_namespaces(machine)
        ovs = _ovs_datapath(machine) if scenario.open_vswitch else None
        datapath = f"ovs {ovs}" if ovs else scenario.datapath(settings)
        conditions = _conditions(request, described, machine)
        job = session.Job(scenario, request, size, settings, plan, described, ovs, conditions)

        def serve(channel: Any, listener: Any) -> NoReturn:
            controller.serve(session.handlers(job), channel, listener)

        with sandbox.launch(serve) as lab:
            timings["sandbox"] = lab.started_s
            assert lab.channel is not None
            watch(
                {
                    "kind": "started",
                    "scenario": scenario.name,
                    "hosts": size.hosts,
                    "containers": size.containers,
                    "datapath": datapath,
                    "sandbox": sandbox.kind(),
                    "settings": settings,
                }
            )
            for note in _notes(machine, ovs, conditions):
                seen({"kind": "note", "text": note})
            outcome = controller.Client(lab.channel).call("run", {}, seen)
            timings.update(outcome["timings"])
            measured = outcome["conditions"]
            raw = {name: base64.b64decode(data) for name, data in outcome["raw"].items()}
            timings["teardown"] = lab.close()
        watch({"kind": "phase", "phase": "teardown", "seconds": timings["teardown"]})
        status, reason = _verdict(seen)
    except CapabilityError as error:
        status, reason = "skipped", str(error)
    except UsageError:
        raise
    except XlabError as error:
        reason = str(error)
        # Where it arose, as the controller told it.
        raw["error.txt"] = "\n".join([reason, *getattr(error, "__notes__", [])]).encode()
    timings["total"] = time.monotonic() - begun
    finished = RunRecord(
        scenario=scenario.name,
        status=status,
        reason=reason,
        started_at=started_at.isoformat(timespec="milliseconds"),
        parameters=_parameters(request, size, settings),
        environment=_environment(datapath),
        conditions=_conditions_record(request, conditions, measured),
        timings_s=Timings(**{name: round(value, 4) for name, value in timings.items()}),
        claims=tuple(seen.claims),
        path=seen.path,
        measurements=tuple(seen.measurements),
        events=tuple(seen.events),
    )
    folder = _save(finished, raw, results, started_at)
    return finished, folder


class _Seen:
    """Passes events on and keeps what belongs into the record, so that a run that breaks has it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.claims: list[Claim] = []
        self.measurements: list[Measurement] = []
        self.events: list[Event] = []
        self.path: PathProof | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        fields = {name: value for name, value in event.items() if name != "kind"}
        kind = event["kind"]
        if kind == "claim":
            self.claims.append(record.decode(Claim, fields, "claim"))
        elif kind == "path":
            self.path = record.decode(PathProof, fields, "path")
        elif kind == "measurement":
            self.measurements.append(record.decode(Measurement, fields, "measurement"))
        elif kind == "note":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.events.append(Event(now, "note", event["text"]))
        self._watch(event)


def _verdict(seen: _Seen) -> tuple[Status, str]:
    broken = [claim.id for claim in seen.claims if not claim.holds]
    reasons = []
    if broken:
        reasons.append(f"{len(broken)} of {len(seen.claims)} claims do not hold: {broken[0]} …")
    if seen.path is None or not seen.path.proved:
        reasons.append("the path is not proved")
    elif not seen.path.negative_control:
        reasons.append(f"the negative control failed ({seen.path.control_detail})")
    return ("failed", "; ".join(reasons)) if reasons else ("passed", "")


def _require_namespaces(machine: Machine) -> None:
    for needed in (machine.namespaces, machine.veth, machine.bridge):
        if not needed.usable:
            raise CapabilityError(f"{needed.name}: {needed.detail}", needed.remedy)


def _ovs_datapath(machine: Machine) -> Datapath:
    """The kernel's datapath where it is live; else userspace; CapabilityError if neither can be.

    A module that is there but not loaded is not used: loading it would change the machine.
    """
    for tool in ("ovs-vswitchd", "ovsdb-server"):
        if capabilities.locate(tool) is None:
            raise CapabilityError(
                f"`{tool}` is not installed", "apt-get install openvswitch-switch"
            )
    if machine.ovs_datapath.live and machine.ovs_gre.usable:
        return "kernel"
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
            found[link.a.interface] = Conditioned(own, choose_backend(own, machine))
    return found


def _conditions_record(
    request: Request, conditions: Mapping[str, Conditioned], measured: dict[str, float]
) -> Conditions:
    backends = sorted({str(c.backend) for c in conditions.values()})
    return Conditions(
        rate_bits_per_second=request.rate_bits_per_second,
        delay_ms=request.delay_ms,
        jitter_ms=request.jitter_ms,
        loss_ratio=request.loss_ratio,
        backend="+".join(backends) or "none",
        measured=measured,
    )


def _notes(
    machine: Machine, ovs: Datapath | None, conditions: Mapping[str, Conditioned]
) -> list[str]:
    """Fallbacks that whoever reads the figures must know of."""
    notes = []
    if ovs == "userspace":
        notes.append(f"Open vSwitch runs in user space: {machine.ovs_datapath.detail}")
    for backend in {c.backend for c in conditions.values()}:
        text = fallback(backend, machine)
        if text:
            notes.append(text)
    return notes


def _parameters(request: Request, size: Size, settings: Mapping[str, str]) -> dict[str, Any]:
    asked = dataclasses.asdict(request)
    return {**asked, "hosts": size.hosts, "settings": dict(settings)}


def _environment(datapath: str) -> Environment:
    facts = capabilities.environment_facts()
    version = facts.tools.get("ovs-vswitchd")
    if datapath.startswith("ovs ") and version:
        kind = datapath.removeprefix("ovs ")
        datapath = f"ovs {version} {kind}" + (" (netdev)" if kind == "userspace" else "")
    return Environment(
        kernel=facts.kernel,
        cpu_model=facts.cpu_model,
        cores=facts.cores,
        load=facts.load,
        xlab=xlab.__version__,
        tools=facts.tools,
        datapath=datapath,
        container_runtime="emulated (namespaces; Docker's addresses, MACs, routes and rules)",
        sandbox=sandbox.kind(),
        congestion_control=facts.congestion_control,
        notes=facts.notes,
    )


def _save(
    finished: RunRecord, raw: Mapping[str, bytes], results: Path, started_at: datetime
) -> Path:
    """Write the record under a free name; another run may take it between look and write."""
    while True:
        folder = _folder(results, started_at, finished.scenario)
        try:
            record.save(finished, folder, dict(raw))
        except FileExistsError:
            continue
        return folder


def _folder(results: Path, started_at: datetime, scenario: str) -> Path:
    """`results`/2026-11-24T151617Z-ovs-gre, with a number behind it if that is taken."""
    stem = f"{started_at:%Y-%m-%dT%H%M%SZ}-{scenario}"
    folder, number = results / stem, 1
    while folder.exists():
        number += 1
        folder = results / f"{stem}-{number}"
    return folder
