"""A run, seen from outside the sandbox: decide, launch, listen, write the record.

request ── design, blueprint (refused before anything is built) ── sandbox ── recorder ── record
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from xlab.errors import UsageError, XlabError
from xlab.experiments.guest_bench import GuestBench
from xlab.experiments.recorder import Recorder, Watch
from xlab.guest import frozen
from xlab.inside.verbs import launch_lab
from xlab.kernel import capabilities, disk
from xlab.probes.catalog import DISTURBING, OF_ANOTHER_LAB
from xlab.record import record
from xlab.record.record import Node, RunRecord
from xlab.sandbox import controller, sandbox
from xlab.sandbox.containment import Limits
from xlab.scenario import blueprint
from xlab.scenario.request import Request


class UnwrittenError(OSError):
    """The disk refused a run's record: which is here, so that what was measured can be told."""

    def __init__(self, finished: RunRecord, reason: OSError) -> None:
        super().__init__(reason.errno, reason.strerror, reason.filename)
        self.finished = finished


def run(request: Request, *, results: Path, watch: Watch) -> tuple[RunRecord, Path]:
    """Run one scenario; returns its record and the folder it was written to.

    A scenario this machine can't do gives a record with the status "skipped"; one that broke, a
    record with the status "failed" and the reason.  Raises UsageError for what makes no sense, and
    OSError where the results cannot be written (nothing half-written stays): UnwrittenError when
    they are known.
    """
    begun = time.monotonic()
    recorder = Recorder(blueprint.design(request), watch)
    disk.make_folder(results)
    disk.sweep(results)

    try:
        with bench_of(recorder) as bench:
            bench.build()
            bench.measure_rounds()
        status, reason = recorder.verdict()
    except UsageError:
        raise
    except XlabError as error:
        status, reason = recorder.broken_by(error)
    recorder.timings["total"] = time.monotonic() - begun
    finished = recorder.record(status, reason)
    try:
        make = partial(record.save, finished, raw=recorder.raw)
        return finished, record.under_free_name(
            results, recorder.started_at, finished.scenario, make
        )
    except OSError as error:
        raise UnwrittenError(finished, error) from error


def bench_of(recorder: Recorder) -> Bench | GuestBench:
    """Where what is asked for is built: here, or in a guest where its clock is the virtual one."""
    if recorder.design.request.clock == "virtual":
        machine = frozen.ready(lambda text: recorder.tell(_getting_ready(text)))
        return GuestBench(recorder, machine)
    recorder.blueprint = blueprint.equip(recorder.design, capabilities.probe())
    return Bench(recorder)


def _getting_ready(text: str) -> dict[str, str]:
    return {"kind": "step", "phase": "guest", "text": text}


class Bench:
    """A lab in a sandbox of its own, attached: it ends with us.  All it tells is recorded."""

    def __init__(
        self,
        recorder: Recorder,
        *,
        name: str | None = None,
        guarded: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """Launch the sandbox; the blueprint must be known.  CapabilityError, SandboxError.

        With a name it may be left standing (`stay`); UsageError if that is taken.  `guarded` and
        `limits` as `launch_lab` has them.
        """
        equipped = recorder.blueprint
        assert equipped is not None
        self._recorder = recorder
        self._lab = launch_lab(equipped, name=name, guarded=guarded, limits=limits)
        self._stays = False
        self._client = controller.Client(self._lab.channel)
        recorder.timings["sandbox"] = self._lab.started_s
        recorder.tell(
            {
                "kind": "started",
                "scenario": recorder.design.scenario.name,
                "hosts": recorder.design.size.hosts,
                "containers": recorder.design.size.containers,
                "datapath": equipped.datapath,
                "sandbox": sandbox.kind(),
                "clock": recorder.design.request.clock,
                "settings": recorder.design.settings,
            }
        )
        for note in equipped.notes:
            recorder.tell({"kind": "note", "text": note})

    def build(self, *, until: str | None = None, empty: bool = False) -> None:
        """Build the lab, check the claims and prove the path.

        With `until` it ends where that stage begins; with `empty` hosts are wired, and that is all.
        """
        built = self._call("build", {"until": until, "empty": empty})
        self._recorder.timings.update(built["timings"])
        self._recorder.measured = built["conditions"]
        self._recorder.nodes = record.decode(tuple[Node, ...], built["nodes"], "nodes")

    def measure_rounds(self) -> None:
        """As many rounds as the request wants, if the path is proved."""
        recorder = self._recorder
        if not (recorder.path and recorder.path.proved):
            recorder.tell({"kind": "note", "text": "not measured: the path is not proved"})
            return
        begun = time.monotonic()
        for number in range(1, recorder.design.request.repeat + 1):
            self.measure_others(recorder.design.request.probes, round=number)
            self.measure(round=number)
        recorder.timings["measure"] = time.monotonic() - begun
        recorder.phase_ended("measure", recorder.timings["measure"])

    def measure_others(self, probes: Collection[str], *, round: int, build: int = 1) -> None:  # noqa: A002
        """Those of `probes` that build a lab like this one, while this one rests."""
        for probe in OF_ANOTHER_LAB.values():
            if probe.name not in probes:
                continue
            equipped, text = self._recorder.blueprint, f"round {round}: {probe.doing}"
            assert equipped is not None
            self._recorder.tell({"kind": "step", "phase": "measure", "text": text})
            self._recorder.tell({"kind": "forking"})
            measured = probe.measure(equipped, round, build)
            self._recorder.tell({"kind": "measurement", **dataclasses.asdict(measured)})

    def measure(self, **which: Any) -> None:
        """One round; `which` are arguments of `inside.build.Testbed.measure`."""
        self._call("measure", which)

    def disturb(self, probes: Collection[str], *, round: int, build: int) -> None:  # noqa: A002
        """Those of `probes` that are measured once a build, when its rounds are done."""
        self.measure_others(probes, round=round, build=build)
        breaking = [probe for probe in probes if probe in DISTURBING]
        if breaking:
            self.measure(round=round, build=build, probes=breaking, routes=["method"])

    def stay(self) -> None:
        """Leave the lab standing: it no longer ends with us, and is found by its name."""
        self._client.call("stay", {"pid": self._lab.pid})
        self._stays = True

    def close(self) -> float:
        """Take the lab down, unless it stays; returns seconds."""
        return self._lab.leave() if self._stays else self._lab.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = self.close()
        if kind is None and not self._stays:
            self._recorder.timings["teardown"] = seconds
            self._recorder.phase_ended("teardown", seconds)

    def _call(self, verb: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        outcome: dict[str, Any] = self._client.call(verb, arguments, self._recorder.tell)
        raw = {name: base64.b64decode(data) for name, data in outcome["raw"].items()}
        self._recorder.raw.update(raw)
        return outcome
