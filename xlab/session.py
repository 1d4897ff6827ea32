"""A scenario inside the sandbox: build it, check it, prove its path, measure it.

Runs in pid 1, on one of the controller's connection threads.  Everything that happens is told as it
happens (`Emit`); the return value is what the record needs beyond that.
"""

from __future__ import annotations

import base64
import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from xlab import census
from xlab.checks import Checks
from xlab.controller import Emit, Handler
from xlab.errors import XlabError
from xlab.job import Job
from xlab.lab.conditions import measure
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.probes import PROBES, Pair, Plan, measure_round
from xlab.probes.whole import Site, measure_lab
from xlab.proof import prove
from xlab.record import ROUTES, PathProof, Route
from xlab.scenario import Flow


def handlers(job: Job) -> dict[str, Handler]:
    """What the controller of a lab answers to."""
    session = Session(job)
    return {"build": session.build, "measure": session.measure}


class Session:
    """One lab in one sandbox.  Every verb returns {"raw": files for raw/, in base64, …}."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._raw: dict[str, bytes] = {}
        self._built: Built | None = None
        #: None of it is the lab's.
        self._memory_before = census.memory()

    def build(self, _: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Build the lab, check the claims and prove the path; returns timings, too."""
        job, request = self._job, self._job.design.request
        timings: dict[str, float] = {}
        begun = time.monotonic()
        lab = Lab(
            job.design.underlay,
            ovs=job.ovs,
            mtu=request.mtu,
            conditions=job.conditions,
            progress=lambda text: _step(emit, "build", text),
        )
        checks = Checks(lab, lambda claim: _tell(emit, "claim", claim))
        try:
            flow = job.design.scenario.build(
                lab, job.design.plan, job.design.size, job.design.settings, checks
            )
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
        lab.require_daemons()
        self._built = Built(lab, flow, proved.proof)
        return {"timings": timings, "conditions": measured, "raw": self._take_raw()}

    def measure(self, arguments: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
        """Round `round` of build `build` (1): `probes` (all) over `routes` (all), interleaved."""
        if self._built is None:
            raise XlabError("the lab is not built")
        request = self._job.design.request
        number = int(arguments["round"])
        pairs = self._built.pairs(arguments.get("routes") or ROUTES)
        plan = Plan.of(
            request.duration_s,
            quick=request.quick,
            round=number,
            build=int(arguments.get("build", 1)),
            daemon_pids=self._built.daemon_pids(),
        )
        # Seeded, so that a run can be told again; the order differs from round to round.
        generator = random.Random(f"{request.scenario} {number}")
        where = f"round {number}/{request.repeat}"

        def announce(probe: str, pair: Pair) -> None:
            _step(emit, "measure", f"{where}: {probe}, {pair.route} {pair.direction}")

        _step(emit, "measure", f"{where}: the machine left alone")
        probes = arguments.get("probes") or (*PROBES, *request.probes)
        found = measure_round(pairs, plan, generator, probes, starting=announce)
        of_lab = measure_lab(
            self._built.site(self._memory_before),
            plan,
            probes,
            starting=lambda probe: _step(emit, "measure", f"{where}: {probe}"),
        )
        for sampled in chain(found, of_lab):
            self._built.lab.require_daemons()
            self._raw.update(sampled.raw)
            for measurement in sampled.measurements:
                _tell(emit, "measurement", measurement)
        self._built.lab.require_daemons()
        return {"raw": self._take_raw()}

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

    def _take_raw(self) -> dict[str, str]:
        taken, self._raw = self._raw, {}
        return {name: base64.b64encode(data).decode() for name, data in taken.items()}


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

    def site(self, memory_before: census.Memory) -> Site:
        """The lab as a whole, for what is measured of it."""
        return Site(self.lab, self.flow, self.pairs(["method"])[0], memory_before)

    def daemon_pids(self) -> list[int]:
        """What moves packets in user space."""
        return [pid for host in self.lab.hosts for pid in host.daemon_pids()]


def _tell(emit: Emit, kind: str, fact: Any) -> None:
    emit({"kind": kind, **dataclasses.asdict(fact)})


def _step(emit: Emit, phase: str, text: str) -> None:
    emit({"kind": "step", "phase": phase, "text": text})


def _phase(emit: Emit, phase: str, seconds: float) -> None:
    emit({"kind": "phase", "phase": phase, "seconds": round(seconds, 4)})
