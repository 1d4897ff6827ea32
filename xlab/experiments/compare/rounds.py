"""A comparison carried out: labs are built, measured in rounds, taken down, and built again.

    ┌── build all (one after the other launched, several at a time built)
    │     round: the machine left alone, then every method once, in random order ── journal
    │     …  as many as the plan has for a build
    │     what is measured once a build, if asked for: every method in random order ── journal
    └── take all down, look whether the intervals are narrow enough

What is told as it happens goes to an `Onlooker`; what counts goes to the journal, and nothing else
decides what comes next: so it makes no difference whether a comparison was killed in between.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError, XlabError
from xlab.experiments.compare import evaluation, noise
from xlab.experiments.compare.evaluation import build_folder
from xlab.experiments.compare.journal import (
    Built,
    Disturbed,
    Ended,
    Failed,
    History,
    Journal,
    Retried,
    RoundDone,
    Session,
)
from xlab.experiments.compare.methods import BASELINE, Method
from xlab.experiments.guest_bench import GuestBench, Rounds
from xlab.experiments.recorder import Recorder
from xlab.experiments.runner import Bench
from xlab.guest import frozen
from xlab.guest.frozen import Frozen
from xlab.kernel import capabilities, disk
from xlab.kernel.capabilities import Machine
from xlab.record import record
from xlab.record.comparisons import Look
from xlab.record.record import Measurement, Route, RunRecord, Status
from xlab.scenario import blueprint


class Onlooker:
    """Is told what happens; this one does not care."""

    def getting_ready(self, doing: str) -> None:
        """Something that is made once takes its time."""

    def forking(self) -> None:
        """Sandboxes are about to be forked: there must be no thread but the main one."""

    def building(self, build: int, methods: Sequence[str]) -> None: ...

    def step(self, method: str, doing: str) -> None:
        """Something begins in a lab; on whichever thread asked the lab."""

    def retried(self, method: str, result: RunRecord) -> None:
        """It failed, and will be built once more."""

    def built(self, method: str, result: RunRecord) -> None: ...

    def all_built(self, build: int, seconds: float) -> None: ...

    def round_begins(self, number: int, order: Sequence[str]) -> None: ...

    def measuring(self, position: int, method: str) -> None: ...

    def failed(self, method: str, reason: str) -> None: ...

    def round_done(self, done: RoundDone) -> None: ...

    def disturbing(self, build: int, order: Sequence[str]) -> None:
        """`measuring` each follows."""

    def disturbed(self, done: Disturbed) -> None: ...

    def looked(self, look: Look) -> None: ...


def carry_out(journal: Journal, onlooker: Onlooker) -> None:
    """Go on from wherever the journal stands until the comparison has ended.

    Raises CapabilityError if nothing can be measured here, XlabError if the baseline failed, and
    OSError if results cannot be written; the journal then stands as it stood.
    """
    history, folder = journal.history, journal.folder
    journal.add(Session(record.now()))
    tidy(folder, history)
    machine = _machine(history, onlooker)
    while True:
        look = evaluation.look(history)
        if look:
            journal.add(look)
            onlooker.looked(look)
        ending = evaluation.ending(history)
        if ending and (ending == "alone" or history.owed <= 0):
            journal.add(Ended(record.now(), ending))
            return
        try:
            with closing(Labs(journal, machine, onlooker)) as labs:
                labs.build()
                plan = history.opening.plan
                for _ in range(plan.rounds_per_build):
                    if ending or labs.alone or len(history.rounds) >= plan.most_rounds:
                        break
                    labs.measure()
                if plan.disturbing and not labs.alone:
                    labs.disturb()
        finally:
            write_records(folder, history)


def _machine(history: History, onlooker: Onlooker) -> Machine | Frozen:
    """What labs are built on: this machine, or guests of it."""
    if history.opening.plan.clock == "virtual":
        return frozen.ready(onlooker.getting_ready)
    return capabilities.probe()


class Labs:
    """All labs of one build, alive at once; in guests two at a time, each to its end."""

    def __init__(self, journal: Journal, machine: Machine | Frozen, onlooker: Onlooker) -> None:
        self._journal, self._history = journal, journal.history
        self._machine = machine
        self._onlooker = onlooker
        self._number = self._history.last_build + 1
        self._labs: dict[str, _Contestant | _Guest] = {}
        #: By method, why its first try failed.
        self._failed_once: dict[str, str] = {}

    @property
    def _are_guests(self) -> bool:
        return isinstance(self._machine, Frozen)

    @property
    def alone(self) -> bool:
        """Nothing is left to set beside the baseline."""
        return len(self._labs) < 2

    def build(self) -> None:
        """Every method that has not failed yet; what can't be built is on record and not here.

        What fails is built once more: an echo may be lost because so many labs are built at a time.
        """
        out = self._history.out()
        wanted = [m for m in self._history.opening.methods if m.name not in out]
        begun = time.monotonic()
        self._onlooker.building(self._number, [method.name for method in wanted])
        self._build_all(wanted)
        again = [method for method in wanted if method.name in self._failed_once]
        if again:
            self._build_all(again)
        self._onlooker.all_built(self._number, time.monotonic() - begun)
        self._require_baseline()

    def measure(self) -> None:
        """One round of all methods: in the journal when it is over."""
        number = len(self._history.rounds) + 1
        order = self._shuffled(f"{number}")
        self._onlooker.round_begins(number, order)
        started_at = record.now()
        watch = noise.Watch.emulated() if self._are_guests else noise.Watch.begin()
        seconds: dict[str, float] = {}
        for name, lab in self._one_by_one(order, seconds):
            try:
                lab.measure(number, self._number, self._history.opening.plan.probes)
            except CapabilityError:
                raise  # it is no fault of the method that this machine can't measure
            except XlabError as error:
                self._drop(name, str(error))
        measured = tuple(name for name in order if name in self._labs)
        done = RoundDone(
            number=number,
            build=self._number,
            started_at=started_at,
            order=measured,
            seconds={name: seconds[name] for name in measured},
            measurements=self._taken(measured),
            load=watch.load,
            steal_share=watch.steal_share(),
            foreign_busy_cores=watch.foreign_busy_cores,
        )
        self._journal.add(done)
        self._onlooker.round_done(done)

    def disturb(self) -> None:
        """What is measured once in a build whose rounds are done: in the journal when it is over.

        A lab that does not get over being broken has spoilt nothing that is still to be measured.
        """
        number = len(self._history.rounds)
        order = self._shuffled(f"after build {self._number}")
        self._onlooker.disturbing(self._number, order)
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        for name, lab in self._one_by_one(order, seconds):
            try:
                lab.disturb(number, self._number, self._history.opening.plan.disturbing)
            except CapabilityError:
                raise
            except XlabError as error:
                errors[name] = str(error)
        done = Disturbed(self._number, number, tuple(order), seconds, self._taken(order), errors)
        self._journal.add(done)
        self._onlooker.disturbed(done)

    def _shuffled(self, which: str) -> list[str]:
        """All that are alive, in the order of the plan's seed and `which` time this is."""
        order = list(self._labs)
        random.Random(f"{self._history.opening.plan.seed} {which}").shuffle(order)
        return order

    def _one_by_one(
        self, order: Sequence[str], seconds: dict[str, float]
    ) -> Iterator[tuple[str, _Contestant | _Guest]]:
        """Each lab in its turn; puts in `seconds` how long that was, and keeps its raw output."""
        for position, name in enumerate(order, 1):
            lab = self._labs[name]
            self._onlooker.measuring(position, name)
            begun = time.monotonic()
            yield name, lab
            seconds[name] = round(time.monotonic() - begun, 4)
            self._keep_raw(lab)

    def _taken(self, order: Sequence[str]) -> dict[str, tuple[Measurement, ...]]:
        """What was measured in each lab; it is gone from there."""
        found = {name: tuple(self._labs[name].recorder.measurements) for name in order}
        for lab in self._labs.values():
            lab.recorder.measurements.clear()
        return found

    # ----------------------------------------------------------------------------------- building

    def _build_all(self, methods: Sequence[Method]) -> None:
        """Side by side; each is in the journal when it stands, or does not."""
        # The sandbox is a fork of this very process, which is sound only while it has one thread.
        self._onlooker.forking()
        for method in methods:
            self._launch(method)
        labs = [self._labs[method.name] for method in methods if method.name in self._labs]
        # Building waits more than it computes; a guest computes, for it is measured as well.
        pool = ThreadPoolExecutor((1 if self._are_guests else 2) * (os.cpu_count() or 1))
        try:
            futures = {pool.submit(lab.build): lab for lab in labs}
            for future in as_completed(futures):
                self._note_built(futures[future], future)
        except BaseException:
            # Each thread waits for a lab to answer, and ends when that hangs up, be it by Ctrl-C.
            self.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _launch(self, method: Method) -> None:
        recorder = Recorder(
            blueprint.design(method.request),
            lambda event: self._pass_on(method.name, event),
        )
        if method.name in self._failed_once:
            reason = self._failed_once[method.name]
            recorder.tell({"kind": "note", "text": f"built once more, for it failed: {reason}"})
        try:
            self._labs[method.name] = self._contestant(method, recorder)
        except XlabError as error:
            self._record(method, recorder, *recorder.broken_by(error))

    def _contestant(self, method: Method, recorder: Recorder) -> _Contestant | _Guest:
        if not isinstance(self._machine, Frozen):
            recorder.blueprint = blueprint.equip(recorder.design, self._machine)
            return _Contestant(method, recorder, Bench(recorder))
        plan, done = self._history.opening.plan, len(self._history.rounds)
        rounds = Rounds(
            self._number,
            list(range(done + 1, done + 1 + min(plan.rounds_per_build, plan.most_rounds - done))),
            _routes(method),
            plan.probes,
            plan.disturbing,
        )
        return _Guest(method, recorder, GuestBench(recorder, self._machine, rounds))

    def _pass_on(self, name: str, event: Mapping[str, Any]) -> None:
        if event["kind"] == "step":
            self._onlooker.step(name, str(event.get("text", "")))
        elif event["kind"] == "forking":
            self._onlooker.forking()

    def _note_built(self, lab: _Contestant | _Guest, future: Future[None]) -> None:
        try:
            future.result()
            status, reason = lab.recorder.verdict()
        except XlabError as error:
            status, reason = lab.recorder.broken_by(error)
        retried = status == "failed" and lab.method.name not in self._failed_once
        self._keep_raw(lab, "first-try-" if retried else "")
        self._record(lab.method, lab.recorder, status, reason)
        if status != "passed":
            self._labs.pop(lab.method.name).close()

    def _record(self, method: Method, recorder: Recorder, status: Status, reason: str) -> None:
        result = recorder.record(status, reason)
        if status == "failed" and method.name not in self._failed_once:
            self._failed_once[method.name] = reason
            self._journal.add(Retried(method.name, self._number, result))
            self._onlooker.retried(method.name, result)
        else:
            self._journal.add(Built(method.name, self._number, result))
            self._onlooker.built(method.name, result)

    # ---------------------------------------------------------------------------------- measuring

    def _drop(self, name: str, reason: str) -> None:
        self._journal.add(Failed(name, self._number, reason))
        self._onlooker.failed(name, reason)
        self._labs.pop(name).close()
        self._require_baseline()

    def _require_baseline(self) -> None:
        reason = self._history.void_builds().get(self._number)
        if reason is not None:
            name = self._history.opening.methods[0].name
            raise XlabError(f"{name} failed, and nothing can be compared without it: {reason}")

    def _keep_raw(self, lab: _Contestant | _Guest, prefix: str = "") -> None:
        """Before the round counts: what is in the journal has its raw output on the disk."""
        folder = build_folder(lab.method, self._number)
        raw = lab.recorder.raw
        files = {f"{folder}/raw/{prefix}{name}": content for name, content in raw.items()}
        disk.write(self._journal.folder, files)
        raw.clear()

    def close(self) -> None:
        for lab in self._labs.values():
            lab.close()


def _routes(method: Method) -> tuple[Route, ...]:
    """The hosts of the baseline are its own control."""
    return ("method",) if method.request.scenario == BASELINE else ("method", "control")


@dataclasses.dataclass(slots=True)
class _Contestant:
    method: Method
    recorder: Recorder
    bench: Bench

    def build(self) -> None:
        self.bench.build()

    def measure(self, number: int, build: int, probes: Sequence[str]) -> None:
        routes = list(_routes(self.method))
        self.bench.measure(round=number, build=build, probes=list(probes), routes=routes)

    def disturb(self, number: int, build: int, probes: Sequence[str]) -> None:
        self.bench.disturb(probes, round=number, build=build)

    def close(self) -> None:
        self.bench.close()


@dataclasses.dataclass(slots=True)
class _Guest:
    """A contestant in a guest: all that is asked of it has been measured once it is built."""

    method: Method
    recorder: Recorder
    bench: GuestBench
    _measured: list[Measurement] = dataclasses.field(default_factory=list)

    def build(self) -> None:
        self.bench.build()
        self.bench.measure_rounds()
        # Told when it is asked for.
        self._measured[:] = self.recorder.measurements
        self.recorder.measurements.clear()

    def measure(self, number: int, _: int, probes: Sequence[str]) -> None:
        wanted = [m for m in self._measured if m.round == number and m.probe in probes]
        self.recorder.measurements.extend(wanted)

    disturb = measure

    def close(self) -> None:
        self.bench.close()


# -- on the disk -----------------------------------------------------------------------------------


def write_records(folder: Path, history: History) -> None:
    """`run.json` of each build that has none; raises OSError."""
    methods = {method.name: method for method in history.opening.methods}
    for built in history.builds:
        file = folder / build_folder(methods[built.method], built.build) / record.FILE
        if not file.exists():
            record.write_document(file, history.record_of(built).to_dict(), below=folder)


def tidy(folder: Path, history: History) -> None:
    """After a kill: the records that were not written yet, without what no round is about."""
    write_records(folder, history)
    rounds = {(done.build, done.number) for done in history.rounds}
    rounds |= {(done.build, done.round) for done in history.disturbed}
    for method in history.opening.methods:
        for build in (folder / method.folder).glob("b*"):
            raw = build / "raw"
            for place in (build, raw):
                disk.sweep(place)
            with suppress(FileNotFoundError), disk.held(raw, strict=True) as inside:
                for file in Path("/proc/self/fd", str(inside)).glob("b*-r*-*"):
                    named = re.match(r"b([0-9]+)-r([0-9]+)-", file.name)
                    if named and (int(named[1]), int(named[2])) not in rounds:
                        file.unlink()
    disk.sweep(folder)
