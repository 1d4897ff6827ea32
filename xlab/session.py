"""A scenario inside the sandbox: build it, check it, prove its path, measure it.

Runs in pid 1, on one of the controller's connection threads.  Everything that happens is told as it
happens (`Emit`); the return value is what the record needs beyond that.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlab.checks import Checks
from xlab.controller import Emit, Handler
from xlab.lab.conditions import measure
from xlab.lab.lab import Conditioned, Lab
from xlab.lab.ovs import Datapath
from xlab.lab.underlay import Underlay
from xlab.probes import Pair, Plan, measure_round
from xlab.proof import prove
from xlab.request import Request
from xlab.scenario import Flow, Scenario, Size


@dataclass(frozen=True, slots=True)
class Job:
    """All that was decided before the sandbox was made."""

    scenario: Scenario
    request: Request
    size: Size
    settings: Mapping[str, str]
    plan: Any
    underlay: Underlay
    #: What Open vSwitch runs on, where the scenario has one.
    ovs: Datapath | None
    #: Link conditions and what imposes them, by the switch's interface.
    conditions: Mapping[str, Conditioned]


def handlers(job: Job) -> dict[str, Handler]:
    """What the controller of a lab answers to."""
    session = Session(job)
    return {"run": session.run}


class Session:
    """One lab in one sandbox."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._raw: dict[str, bytes] = {}

    def run(self, _: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Build, verify, prove and measure; returns raw files and timings."""
        job = self._job
        timings: dict[str, float] = {}
        begun = time.monotonic()
        lab = Lab(
            job.underlay,
            ovs=job.ovs,
            mtu=job.request.mtu,
            conditions=job.conditions,
            progress=lambda text: _step(emit, "build", text),
        )
        checks = Checks(lab, lambda claim: _tell(emit, "claim", claim))
        try:
            flow = job.scenario.build(lab, job.plan, job.size, job.settings, checks)
        except Exception:
            lab.require_daemons()  # a dead one is the better explanation
            raise
        timings["build"] = time.monotonic() - begun - checks.spent_s
        _phase(emit, "build", timings["build"])
        _phase(emit, "verify", checks.spent_s)

        begun = time.monotonic()
        measured = self._measure_conditions(lab, emit)
        proved = prove(
            flow,
            lab.wire,
            lab.physical_link(flow.watched),
            mtu=lab.mtu,
            lossy=lab.lossy,
            round_trip_s=lab.round_trip_s,
            require_daemons=lab.require_daemons,
        )
        self._raw.update(proved.raw)
        _tell(emit, "path", proved.proof)
        timings["verify"] = checks.spent_s + time.monotonic() - begun
        _phase(emit, "path", time.monotonic() - begun)

        begun = time.monotonic()
        if proved.proof.proved:
            self._measure(lab, flow, proved.proof.effective_mtu or lab.mtu, emit)
        else:
            emit({"kind": "note", "text": "not measured: the path is not proved"})
        timings["measure"] = time.monotonic() - begun
        lab.require_daemons()
        _phase(emit, "measure", timings["measure"])
        return {
            "timings": timings,
            "conditions": measured,
            "raw": {name: base64.b64encode(data).decode() for name, data in self._raw.items()},
        }

    def _measure_conditions(self, lab: Lab, emit: Emit) -> dict[str, float]:
        """What the links' conditions come to, between the first host and the last."""
        first, last = lab.hosts[0], lab.hosts[-1]
        path = lab.conditions_between(first, last)
        if not path:
            return {}
        _step(emit, "verify", "link conditions")
        measured = measure(first, last, path, mtu=lab.mtu)
        for doubt in measured.doubts:
            emit({"kind": "note", "text": f"link conditions: {doubt}"})
        self._raw.update({name: text.encode() for name, text in measured.raw.items()})
        return measured.values

    def _measure(self, lab: Lab, flow: Flow, path_mtu: int, emit: Emit) -> None:
        """Every probe between every pair, in interleaved rounds."""
        request = self._job.request
        plain = lab.add_yardstick()
        pairs = [
            Pair(flow.source, flow.target, "method", path_mtu),
            Pair(*flow.control, "control", lab.mtu),
            Pair(*plain, "baseline", lab.mtu),
        ]
        daemons = [pid for host in lab.hosts for pid in host.daemon_pids()]
        # Seeded, so that a run can be told again; the order differs from round to round.
        generator = random.Random(request.scenario)
        for number in range(1, request.repeat + 1):
            plan = Plan.of(
                request.duration_s, quick=request.quick, round=number, daemon_pids=daemons
            )

            def announce(probe: str, pair: Pair, number: int = number) -> None:
                text = f"round {number}/{request.repeat}: {probe}, {pair.route} {pair.direction}"
                _step(emit, "measure", text)

            _step(emit, "measure", f"round {number}/{request.repeat}: the machine left alone")
            for sampled in measure_round(pairs, plan, generator, starting=announce):
                lab.require_daemons()
                self._raw.update(sampled.raw)
                for measurement in sampled.measurements:
                    _tell(emit, "measurement", measurement)


def _tell(emit: Emit, kind: str, fact: Any) -> None:
    emit({"kind": kind, **dataclasses.asdict(fact)})


def _step(emit: Emit, phase: str, text: str) -> None:
    emit({"kind": "step", "phase": phase, "text": text})


def _phase(emit: Emit, phase: str, seconds: float) -> None:
    emit({"kind": "phase", "phase": phase, "seconds": round(seconds, 4)})
