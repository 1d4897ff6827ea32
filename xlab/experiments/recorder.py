"""What became of a lab, collected as it is told, and the record it makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from xlab.errors import CapabilityError, XlabError
from xlab.kernel import limits
from xlab.kernel.environment import environment_facts
from xlab.record import record, stats
from xlab.record.cause import cause
from xlab.record.record import (
    Claim,
    Conditions,
    Environment,
    Event,
    Measurement,
    Node,
    PathProof,
    RunRecord,
    Status,
    Timings,
)
from xlab.record.version import __version__
from xlab.sandbox import sandbox
from xlab.scenario.blueprint import Blueprint, Design

Watch = Callable[[Mapping[str, Any]], None]


class Recorder:
    """Passes events on and keeps what belongs into the record, so that a run that breaks has it."""

    def __init__(
        self, design: Design, watch: Watch = lambda _: None, *, intervals: bool = True
    ) -> None:
        """Without `intervals` whoever records what is recorded here adds them."""
        self.design = design
        #: None until it is known that this machine can.
        self.blueprint: Blueprint | None = None
        self.started_at = datetime.now(UTC)
        self.claims: list[Claim] = []
        self.measurements: list[Measurement] = []
        self.events: list[Event] = []
        self.path: PathProof | None = None
        #: Seconds, by the names of `record.Timings`.
        self.timings: dict[str, float] = {}
        #: What the links' conditions came to.
        self.measured: dict[str, float] = {}
        self.nodes: tuple[Node, ...] = ()
        #: Of a run in a guest: what was recorded there.
        self.of_guest: RunRecord | None = None
        #: Files for raw/, by name.
        self.raw: dict[str, bytes] = {}
        self._watch = watch
        self._intervals = intervals
        self._overflows = limits.neighbour_overflows()

    def tell(self, event: Mapping[str, Any]) -> None:
        """One event, the controller's or of what was done from outside."""
        fields = {name: value for name, value in event.items() if name != "kind"}
        kind = event["kind"]
        if kind == "claim":
            self.claims.append(record.decode(Claim, fields, "claim"))
        elif kind == "path":
            self.path = record.decode(PathProof, fields, "path")
        elif kind == "measurement":
            found = record.decode(Measurement, fields, "measurement")
            if self._intervals:
                found = dataclasses.replace(found, ci95=stats.median_interval(found.samples))
            self.measurements.append(found)
        elif kind == "note":
            self.events.append(Event(record.now(), "note", event["text"]))
        self._watch(event)

    def phase_ended(self, phase: str, seconds: float) -> None:
        self.tell({"kind": "phase", "phase": phase, "seconds": round(seconds, 4)})

    def broken_by(self, error: XlabError) -> tuple[Status, str]:
        """Status and reason; where it arose, as the controller told it, is kept for raw/."""
        if isinstance(error, CapabilityError):
            return "skipped", str(error)
        notes = getattr(error, "__notes__", [])
        self.raw["error.txt"] = "\n".join([str(error), *notes]).encode()
        return "failed", str(error)

    def verdict(self, *, whole: bool = True) -> tuple[Status, str]:
        """Whether all that was told so far holds: the status, and the reason where it does not.

        The path of a lab that is not built to its end (not `whole`) is not proved.
        """
        reason = cause(self.claims, self.path, whole=whole)
        return ("failed", reason) if reason else ("passed", "")

    def record(self, status: Status, reason: str) -> RunRecord:
        """The record of it all."""
        if self.of_guest:
            total = round(self.timings.get("total", 0.0), 4)
            return dataclasses.replace(
                self.of_guest,
                status=status,
                reason=reason,
                started_at=self.started_at.isoformat(timespec="milliseconds"),
                timings_s=dataclasses.replace(self.of_guest.timings_s, total=total),
                measurements=tuple(self.measurements),
            )
        overflows = limits.neighbour_overflows() - self._overflows
        if overflows:
            self.tell({"kind": "note", "text": _OVERFLOWED.format(times=overflows)})
        blueprint, request = self.blueprint, self.design.request
        conditions = blueprint.conditions.values() if blueprint else ()
        backends = sorted({each.imposer.name for each in conditions})
        return RunRecord(
            scenario=self.design.scenario.name,
            status=status,
            reason=reason,
            started_at=self.started_at.isoformat(timespec="milliseconds"),
            parameters=self.design.parameters(),
            environment=environment(blueprint.datapath if blueprint else "none"),
            conditions=Conditions(
                rate_bits_per_second=request.rate_bits_per_second,
                delay_ms=request.delay_ms,
                jitter_ms=request.jitter_ms,
                loss_ratio=request.loss_ratio,
                backend="+".join(backends) or "none",
                measured=self.measured,
            ),
            timings_s=Timings(**{name: round(value, 4) for name, value in self.timings.items()}),
            claims=tuple(self.claims),
            path=self.path,
            measurements=tuple(self.measurements),
            events=tuple(self.events),
            nodes=self.nodes,
            portrait=self.design.scenario.portrait(self.path.encapsulation if self.path else None),
        )


#: Claims and pings may have failed for it, be it that another lab filled the table.
_OVERFLOWED = (
    "the machine's table of neighbours (ARP), which all labs share, was full {times:,} times "
    "meanwhile; to enlarge it: sudo sysctl -w net.ipv4.neigh.default.gc_thresh3=16384"
)


def environment(datapath: str) -> Environment:
    """The machine as it is now; `datapath` is what moves packets between hosts (`Blueprint`)."""
    facts = environment_facts()
    version = facts.tools.get("ovs-vswitchd")
    if datapath.startswith("ovs ") and version:
        kind = datapath.removeprefix("ovs ")
        datapath = f"ovs {version} {kind}" + (" (netdev)" if kind == "userspace" else "")
    return Environment(
        **dataclasses.asdict(facts),
        xlab=__version__,
        datapath=datapath,
        container_runtime="emulated (namespaces; Docker's addresses, MACs, routes and rules)",
        sandbox=sandbox.kind(),
    )
