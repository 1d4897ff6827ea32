"""A lab in a guest whose clock counts instructions, seen from outside (`virtual` is its inside).

It is asked for everything at once: what came later would come at another virtual moment each time.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from xlab.errors import CapabilityError, UsageError, XlabError, at
from xlab.experiments.recorder import Recorder
from xlab.guest import frozen
from xlab.guest.frozen import Frozen
from xlab.record import record
from xlab.record.record import RunRecord, VirtualMachine
from xlab.scenario import catalog

#: Of the real clock, for each round: the slowest method takes 40 s on a quiet processor.
_LIMIT_S = 1200.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """What a comparison wants of one build."""

    build: int
    numbers: Sequence[int]
    routes: Sequence[str]
    probes: Sequence[str]
    disturbing: Sequence[str] = ()


@dataclass(slots=True)
class GuestBench:
    """Has the verbs of a `runner.Bench`: `build` first, then what is measured."""

    recorder: Recorder
    machine: Frozen
    #: None: a run's own, all that its request says.
    rounds: Rounds | None = None
    _events: Iterator[frozen.Event] = field(init=False)

    def __post_init__(self) -> None:
        request = self.recorder.design.request
        files = _files_of(request.scenario, request.topo)
        job = {
            # What a number stands for is chance alone: a build has its own.
            "seed": self.rounds.build if self.rounds else 1,
            "request": dataclasses.asdict(request),
            "rounds": self.rounds and dataclasses.asdict(self.rounds),
            # Whatever differs in a job may differ in the digits: only what is needed is in it.
            "folder": str(Path.cwd()) if files else "/",
            "files": files,
        }
        repeat = len(self.rounds.numbers) if self.rounds else request.repeat
        self._events = frozen.work(self.machine, job, limit_s=_LIMIT_S * repeat)

    def build(self) -> None:
        """Build the lab, check the claims and prove the path; raises what that raised."""
        self._go_on(until="built")

    def measure_rounds(self) -> None:
        """All that remains to be done; raises what that raised."""
        self._go_on()

    def _go_on(self, *, until: str = "") -> None:
        for event in self._events:
            if event["kind"] == "refused":
                raise (UsageError if event["usage"] else XlabError)(event["text"])
            if event["kind"] == "finished":
                self._finish(event)
            elif event["kind"] not in ("thawed", "built", "forking"):
                self.recorder.tell(event)
            if event["kind"] == until:
                return

    def _finish(self, event: Mapping[str, Any]) -> None:
        told = record.from_dict(event["record"])
        raw = {name: base64.b64decode(data) for name, data in event["raw"].items()}
        self.recorder.raw.update(raw)
        self.recorder.of_guest = dataclasses.replace(
            told,
            environment=dataclasses.replace(
                told.environment, clock="virtual", virtual=virtual_machine(self.machine)
            ),
        )
        for error in _broken(told, raw):
            raise error

    def close(self) -> None:
        self._events.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def virtual_machine(machine: Frozen) -> VirtualMachine:
    parts = machine.parts
    return VirtualMachine(
        identity=parts.identity,
        processor=parts.processor,
        qemu=parts.qemu,
        packages={package.name: package.version for package in parts.packages},
        python_packages=dict(parts.python_packages),
        differences=machine.differences,
    )


def _broken(told: RunRecord, raw: Mapping[str, bytes]) -> Iterator[XlabError]:
    if told.status == "skipped":
        yield CapabilityError(told.reason)
    elif "error.txt" in raw:
        yield XlabError(told.reason)


def _files_of(scenario: str, topo: str | None) -> dict[str, str]:
    """What the guest has not: a scenario file, a topology's, by absolute path."""
    named = catalog.find(scenario)
    found = [] if named.parent == catalog.folders()[0] else [named]
    file = (topo or "").rpartition(":")[0]
    found += [Path(file)] if file.endswith(".py") else []
    with at("--clock virtual"):
        try:
            return {str(path.absolute()): path.read_text() for path in found}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(str(error)) from error
