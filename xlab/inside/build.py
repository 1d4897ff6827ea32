"""A scenario inside the sandbox: build it, check it, prove its path, measure it.

Runs in pid 1, on one of the controller's connection threads.  Everything that happens is told as it
happens (`Emit`); the return value is what the record needs beyond that.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal

from xlab.errors import UsageError, XlabError, quoted
from xlab.kernel import processes
from xlab.kernel.processes import asking_meanwhile
from xlab.lab import counters
from xlab.lab.lab import Lab, concurrently
from xlab.lab.node import Node
from xlab.probes import link_conditions
from xlab.probes.catalog import ALL, DISTURBING, USUAL, sensible
from xlab.probes.facts import Pair, Plan, Sampled
from xlab.probes.kinds import Site
from xlab.probes.proof import Proved, prove
from xlab.probes.rounds import measure_lab, measure_round, steps_of
from xlab.record import record
from xlab.record.record import ROUTES, PathProof, Route
from xlab.sandbox.controller import Emit, Handler
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.claims import Checks, StageReached
from xlab.scenario.scenario import Flow


class Testbed:
    """One lab in one sandbox.  Its verbs return {"raw": files for raw/, in base64, …}."""

    def __init__(
        self, blueprint: Blueprint, *, machines: bool = False, guarded: bool = False
    ) -> None:
        """Where people work hosts are `machines`: each has a disk of its own.

        In a `guarded` lab people's files are read-only, see `lab.machine_root`.
        """
        self.blueprint = blueprint
        self._is_guarded = guarded
        self._are_machines = machines
        #: Each connection has a thread: who changes the lab, or measures, has it for itself.
        self.turn = threading.Lock()
        #: None until hosts are wired.
        self.lab: Lab | None = None
        self.checks: Checks | None = None
        #: Whether a build has ended, and the stage at which it was to end; "" for the last.
        self.stands = False
        self.stopped_at = ""
        self.built: Built | None = None
        #: None of it is the lab's.
        self._memory_before = counters.memory()
        self._raw: dict[str, bytes] = {}

    def verbs(self) -> dict[str, Handler]:
        return {"build": self.build, "measure": self.measure}

    def build(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Build the lab, check the claims and prove the path; returns timings, too.

        With `empty` hosts are wired, and that is all; machines have addresses, too, and what a
        machine runs by itself.  With `until` the build ends where the stage
        of that name begins.
        """
        with self.turn, self._waiting_told(emit):
            try:
                return self._build(bool(arguments.get("empty")), arguments.get("until"), emit)
            finally:
                self.stands = True

    def _build(self, empty: bool, until: str | None, emit: Emit) -> dict[str, Any]:
        blueprint = self.blueprint
        timings: dict[str, float] = {}
        begun = time.monotonic()
        machines = None
        if self._are_machines:
            # Only where people type is it paid for: some 10 ms of imports.
            from xlab.inside.machine.machines import Machines

            machines = Machines(self.turn, userspace=blueprint.ovs == "userspace")
        if empty and machines:
            # All that a scenario does before its first stage is to give hosts their addresses.
            until = next(iter(blueprint.design.scenario.stages), None)
        lab = self.lab = blueprint.wire(
            own_disks=self._are_machines,
            guarded=self._is_guarded,
            furnished=machines.furnished if machines else lambda _: None,
            progress=lambda text: _step(emit, "build", text),
        )
        if machines:
            machines.take_over(lab)
        checks = Checks(lab, lambda claim: _tell(emit, "claim", claim), until=until)
        self.checks = checks
        flow: Flow | None = None
        try:
            if until or not empty:
                flow = blueprint.build(lab, checks)
        except StageReached:
            self.stopped_at = "" if empty else str(until)
        if empty and machines:
            machines.boot_all(lab)
        timings["build"] = time.monotonic() - begun - checks.spent_s
        _phase(emit, "build", timings["build"])
        _phase(emit, "verify", checks.spent_s)
        if flow is None:
            return {"timings": timings, "conditions": {}, "nodes": [], "raw": {}}
        if until is not None:
            listed = ", ".join(dict.fromkeys(checks.stages))
            raise UsageError(f"the build has no stage {quoted(until)}; it went through: {listed}")

        begun = time.monotonic()
        measured = self._measure_conditions(lab, emit)
        proved = proof_of(flow, lab)
        self._raw.update(proved.raw)
        _tell(emit, "path", proved.proof)
        timings["verify"] = checks.spent_s + time.monotonic() - begun
        _phase(emit, "path", time.monotonic() - begun)
        lab.require_daemons()
        self.built = Built(lab, flow, proved.proof)
        lab.after_boot = flow.after_boot
        return {
            "timings": timings,
            "conditions": measured,
            "nodes": _nodes(lab),
            "raw": self._take_raw(),
        }

    def measure(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Round `round` of build `build` (1): `probes` (all) over `routes` (all), interleaved."""
        with self.turn, self._waiting_told(emit):
            return self._measure(arguments, emit)

    def _measure(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        built = self.built
        if built is None:
            raise XlabError("the lab is not built")
        request = self.blueprint.design.request
        number = int(arguments["round"])
        pairs = built.pairs(arguments.get("routes") or ROUTES)
        plan = Plan(
            request.duration_s,
            virtual=request.clock == "virtual",
            quick=request.quick,
            round=number,
            build=int(arguments.get("build", 1)),
            parallel_streams=request.streams,
            # What moves packets in user space.
            daemon_pids=[pid for host in built.lab.hosts for pid in host.daemon_pids()],
        )
        # Seeded, so that a run can be told again; the order differs from round to round.
        generator = random.Random(f"{request.scenario} {number}")
        last = number == request.repeat
        probes = arguments.get("probes") or [
            probe for probe in (*USUAL, *request.probes) if last or probe not in DISTURBING
        ]
        for name in request.probes if number == 1 else ():
            if plan.virtual and ALL[name].not_virtual:
                emit({"kind": "note", "text": f"{name} is left out: {ALL[name].not_virtual}"})
        probes = sensible(probes, virtual=plan.virtual)
        telling = _Telling(emit, number, request.repeat, steps_of(probes, len(pairs)))
        telling.next("the machine is left alone")

        def announce(probe: str, pair: Pair) -> None:
            between = _ROUTE_WORDS.get(pair.route, pair.direction)
            telling.next(f"{ALL[probe].doing}, {between}")

        found = measure_round(pairs, plan, generator, probes, starting=announce)
        of_lab = measure_lab(
            Site(built.lab, built.flow, built.pairs(["method"])[0], self._memory_before),
            plan,
            probes,
            # What was left out of the rounds before is made up for.
            disturbing=[number] if arguments.get("probes") else range(1, number + 1),
            starting=lambda probe: telling.next(ALL[probe].doing),
        )
        # A daemon that dies ends a probe at once; those of the lab kill daemons themselves.
        with asking_meanwhile(built.lab.require_daemons):
            self._take(found, built.lab, emit)
        self._take(of_lab, built.lab, emit)
        return {"raw": self._take_raw()}

    def _take(self, found: Iterable[Sampled], lab: Lab, emit: Emit) -> None:
        for sampled in found:
            lab.require_daemons()
            self._raw.update(sampled.raw)
            for measurement in sampled.measurements:
                _tell(emit, "measurement", measurement)
        lab.require_daemons()

    def _measure_conditions(self, lab: Lab, emit: Emit) -> dict[str, float]:
        """What the links' conditions come to, between the first host and the last."""
        first, last = lab.hosts[0], lab.hosts[-1]
        path = lab.conditions_between(first, last)
        if not path:
            return {}
        _step(emit, "verify", "link conditions")
        measured = link_conditions.measure(first, last, path, mtu=lab.mtu)
        for doubt in measured.doubts:
            emit({"kind": "note", "text": f"link conditions: {doubt}"})
        self._raw.update({name: text.encode() for name, text in measured.raw.items()})
        return measured.values

    def _waiting_told(self, emit: Emit) -> AbstractContextManager[None]:
        """In virtual time the clock leaps wherever a program waits: that is nobody's fault."""
        real = self.blueprint.design.request.clock == "real"
        return waiting_told(emit) if real else nullcontext()

    def _take_raw(self) -> dict[str, str]:
        taken, self._raw = self._raw, {}
        return {name: base64.b64encode(data).decode() for name, data in taken.items()}


def proof_of(flow: Flow, lab: Lab) -> Proved:
    """Prove the path of a lab's flow, under the conditions of its links."""
    return prove(
        flow,
        lab.wire,
        lab.physical_link(flow.watched),
        mtu=lab.mtu,
        lossy=lab.lossy,
        round_trip_s=lab.round_trip_s,
        require_daemons=lab.require_daemons,
    )


class Built:
    """A lab that stands, and what is measured in it."""

    def __init__(self, lab: Lab, flow: Flow, proof: PathProof) -> None:
        self.lab = lab
        self.flow = flow
        self._proof = proof
        self._yardstick: tuple[Node, Node] | None = None

    def pairs(self, routes: Sequence[Route]) -> list[Pair]:
        """The two ends of each route; the yardstick's hosts join the lab when first wanted."""
        if "baseline" in routes and self._yardstick is None:
            self._yardstick = self.lab.add_yardstick()
        mtu, proof = self.lab.mtu, self._proof
        found = {
            "method": Pair(
                self.flow.source,
                self.flow.target,
                "method",
                proof.effective_mtu or mtu,
                mtu,
                proof.overhead_bytes,
            ),
            "control": Pair(*self.flow.control, "control", mtu, mtu),
        }
        if self._yardstick:
            found["baseline"] = Pair(*self._yardstick, "baseline", mtu, mtu)
        return [found[route] for route in routes]


@contextmanager
def waiting_told(emit: Emit) -> Iterator[None]:
    """What programs did within this has been held up by the kernel: a note, from 1 s on."""
    before_s = processes.waited_s()
    try:
        yield
    finally:
        waited_s = processes.waited_s() - before_s
        if waited_s >= 1:
            text = (
                f"programs in the lab waited {waited_s:.0f} s for the kernel, as while it frees "
                "the network of a large lab"
            )
            emit({"kind": "note", "text": text})


def _nodes(lab: Lab) -> list[dict[str, Any]]:
    """What the record says of each host and container, see `record.Node`."""

    def facts(node: Node) -> dict[str, Any]:
        kind: Literal["host", "container"] = "container" if "/" in node.name else "host"
        address, addresses = "", {}
        # A scenario need not give one to each, and it may just have ended.
        with suppress(XlabError):
            address, addresses = str(node.address), node.device_addresses()
        return dataclasses.asdict(record.Node(node.name, kind, address, addresses))

    nodes = [node for host in lab.hosts for node in (host, *host.containers)]
    return concurrently(facts, nodes)


#: Between whom, where that is not the method.
_ROUTE_WORDS: Mapping[Route, str] = {"control": "host to host", "baseline": "plain hosts"}


@dataclasses.dataclass(slots=True)
class _Telling:
    """Says of each step of a round what begins, and how many there are."""

    emit: Emit
    round: int
    rounds: int
    steps: int
    begun: int = 0

    def next(self, doing: str) -> None:
        self.begun += 1
        text = f"round {self.round} of {self.rounds}: {doing}"
        counted = {"round": self.round, "step": self.begun, "steps": self.steps}
        self.emit({"kind": "step", "phase": "measure", "text": text, **counted})


def _tell(emit: Emit, kind: str, fact: Any) -> None:
    emit({"kind": kind, **dataclasses.asdict(fact)})


def _step(emit: Emit, phase: str, text: str) -> None:
    emit({"kind": "step", "phase": phase, "text": text})


def _phase(emit: Emit, phase: str, seconds: float) -> None:
    emit({"kind": "phase", "phase": phase, "seconds": round(seconds, 4)})
