"""What has happened in a comparison so far: one JSON object a line, only ever appended to.

    {"kind": "opening", "plan": …, "methods": [{"name", "folder", "request"}, …], …}
    {"kind": "session", "at": …}                            it was started, or went on
    {"kind": "built", "method": …, "build": 1, "record": …}    a run record without measurements
    {"kind": "retried", "method": …, "build": 1, "record": …}  it failed, and is built once more
    {"kind": "round", "number": 1, "build": 1, "order": […], "measurements": {METHOD: […]}, …}
    {"kind": "disturbed", "build": 1, "measurements": {METHOD: […]}, …}  after its rounds, if asked
    {"kind": "failed", "method": …, "build": 1, "reason": …}   broke while it was measured
    {"kind": "look", "rounds": 6, "widest": 0.12, …}        the intervals after a set of builds
    {"kind": "ended", "at": …, "ending": …}

Everything else in the folder follows from these lines (raw output of tools aside).  A line counts
once it is whole, and is on the disk before the next thing is done: a comparison may be killed at
any moment, and goes on behind the last whole line.  A round is one line, so it is in with all its
methods or not at all.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from xlab.errors import RecordError, UsageError, quoted, shortened
from xlab.experiments.compare.methods import Method
from xlab.kernel import disk
from xlab.record import record
from xlab.record.comparisons import SCHEMA_VERSION, ComparisonPlan, Ending, Look
from xlab.record.record import Measurement, RunRecord

FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Opening:
    started_at: str
    plan: ComparisonPlan
    #: The baseline first.
    methods: tuple[Method, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Session:
    at: str


@dataclass(frozen=True, slots=True)
class Built:
    """A method was built, or could not be: the record, still without measurements, says which."""

    method: str
    build: int
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Retried:
    """A method failed to be built, for the first time in this build; the record says why."""

    method: str
    build: int
    record: RunRecord


@dataclass(frozen=True, slots=True)
class RoundDone:
    number: int
    build: int
    started_at: str
    #: The names of the methods, in the order in which they were measured.
    order: tuple[str, ...]
    #: By method.
    seconds: Mapping[str, float]
    measurements: Mapping[str, tuple[Measurement, ...]]
    #: As in `comparisons.Round`.
    load: float
    steal_share: float
    foreign_busy_cores: float


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What is measured once a build (`plan.disturbing`), when its rounds were done, or had been."""

    build: int
    #: The last round before, of whichever build.
    round: int
    #: As in `RoundDone`.
    order: tuple[str, ...]
    seconds: Mapping[str, float]
    measurements: Mapping[str, tuple[Measurement, ...]]
    #: By method, why there is no more of it.
    errors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Failed:
    method: str
    build: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    at: str
    ending: Ending


Entry = Opening | Session | Built | Retried | RoundDone | Disturbed | Failed | Look | Ended
_KINDS: Mapping[str, type[Entry]] = {
    "opening": Opening,
    "session": Session,
    "built": Built,
    "retried": Retried,
    "round": RoundDone,
    "disturbed": Disturbed,
    "failed": Failed,
    "look": Look,
    "ended": Ended,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(slots=True)
class History:
    """All entries so far, by kind."""

    opening: Opening
    sessions: list[Session] = field(default_factory=list)
    builds: list[Built] = field(default_factory=list)
    retries: list[Retried] = field(default_factory=list)
    rounds: list[RoundDone] = field(default_factory=list)
    disturbed: list[Disturbed] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    ended: Ended | None = None

    @property
    def last_build(self) -> int:
        """0 if nothing was built."""
        built = [each.build for each in self.builds]
        return max([*built, *(each.build for each in self.retries)], default=0)

    @property
    def owed(self) -> int:
        """Builds to be disturbed yet: as many as had rounds; a kill may have come between."""
        if not self.opening.plan.disturbing:
            return 0
        return len({done.build for done in self.rounds}) - len(self.disturbed)

    def void_builds(self) -> dict[int, str]:
        """Builds in which the baseline did not pass, and why: it was not for the other methods.

        Plain hosts that do not reach each other say that the machine can't go on, not that a method
        is at fault.
        """
        baseline = self.opening.methods[0].name
        return {
            build: reason
            for method, build, status, reason in self._outcomes()
            if method == baseline and status != "passed"
        }

    def out(self) -> dict[str, tuple[record.Status, str]]:
        """The methods that are no longer measured: "failed" or "skipped", and why."""
        void = self.void_builds()
        return {
            method: (status, reason)
            for method, build, status, reason in self._outcomes()
            if status != "passed" and build not in void
        }

    def _outcomes(self) -> Iterator[tuple[str, int, record.Status, str]]:
        for built in self.builds:
            yield built.method, built.build, built.record.status, built.record.reason
        for failed in self.failures:
            yield failed.method, failed.build, "failed", failed.reason

    def record_of(self, built: Built) -> RunRecord:
        """The run record of a build, with what was measured in it so far."""
        told: list[RoundDone | Disturbed] = [*self.rounds, *self.disturbed]
        rounds = [done for done in told if done.build == built.build]
        measured = tuple(m for done in rounds for m in done.measurements.get(built.method, ()))
        seconds = sum(done.seconds.get(built.method, 0.0) for done in rounds)
        status, reason = built.record.status, built.record.reason
        for failed in self.failures:
            if (failed.method, failed.build) == (built.method, built.build):
                status, reason = "failed", failed.reason
        timings = built.record.timings_s
        total = timings.sandbox + timings.build + timings.verify + seconds
        return dataclasses.replace(
            built.record,
            status=status,
            reason=reason,
            measurements=measured,
            timings_s=dataclasses.replace(
                timings, measure=round(seconds, 4), total=round(total, 4)
            ),
        )

    def add(self, entry: Entry) -> None:
        """Raises RecordError for an entry that cannot follow upon those before."""
        names = [method.name for method in self.opening.methods]
        match entry:
            case Opening():
                raise RecordError("a second opening")
            case Session():
                self.sessions.append(entry)
            case Built():
                _require_known(names, [entry.method])
                if any((b.method, b.build) == (entry.method, entry.build) for b in self.builds):
                    raise RecordError(f"build {entry.build} of {entry.method} stands here twice")
                self.builds.append(entry)
            case Retried():
                _require_known(names, [entry.method])
                self.retries.append(entry)
            case RoundDone():
                _require_known(names, [*entry.order, *entry.measurements, *entry.seconds])
                if entry.number != len(self.rounds) + 1:
                    raise RecordError(f"round {entry.number} after round {len(self.rounds)}")
                self.rounds.append(entry)
            case Disturbed():
                _require_known(names, [*entry.order, *entry.measurements, *entry.errors])
                if any(each.build == entry.build for each in self.disturbed):
                    raise RecordError(f"build {entry.build} was disturbed twice")
                self.disturbed.append(entry)
            case Failed():
                _require_known(names, [entry.method])
                self.failures.append(entry)
            case Look():
                self.looks.append(entry)
            case Ended():
                self.ended = entry


def _require_known(known: list[str], names: list[str]) -> None:
    for name in names:
        if name not in known:
            raise RecordError(f"{quoted(name)} is no method of this comparison")


class Journal:
    """A comparison that is being written, by one process at a time."""

    def __init__(self, folder: Path, history: History, descriptor: int, lock: disk.Lock) -> None:
        self.folder = folder
        self.history = history
        self._descriptor = descriptor
        self._lock = lock

    @classmethod
    def begin(cls, results: Path, opening: Opening) -> Self:
        """A new folder in `results`, with its opening, whole or not at all.  Raises OSError."""
        make = partial(disk.new_folder, files={FILE: _line(opening)}, durable=[FILE])
        started_at = datetime.fromisoformat(opening.started_at)
        return cls.go_on(record.under_free_name(results, started_at, "compare", make))

    @classmethod
    def go_on(cls, folder: Path) -> Self:
        """A comparison that was killed: what was half-written at its end is cut off.

        Raises RecordError for a journal that is missing or corrupt, UsageError while another
        process is at it, and for a stranger's: it may name a scenario of theirs, a program.
        """
        file = folder / FILE
        descriptor = _opened(file, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        try:
            if not disk.is_trusted(found := os.fstat(descriptor)):
                raise UsageError(f"{folder}: somebody else's comparison (uid {found.st_uid})")
            lock = disk.Lock(folder, f"{folder}: this comparison is being measured right now")
        except BaseException:
            os.close(descriptor)
            raise
        try:
            # Of this very file, whatever has its name by now: it is what may be cut.
            history, content, whole_bytes = _read(file, os.dup(descriptor))
            if whole_bytes < len(content):
                os.ftruncate(descriptor, whole_bytes)
            elif not content.endswith(b"\n"):
                os.write(descriptor, b"\n")
        except BaseException:
            lock.close()
            os.close(descriptor)
            raise
        return cls(folder, history, descriptor, lock)

    def add(self, entry: Entry) -> None:
        """Once this has returned, the entry outlives us.  Raises OSError."""
        self.history.add(entry)
        try:
            record.append_whole(self._descriptor, _line(entry))
            os.fsync(self._descriptor)
        except OSError as error:
            error.filename = str(self.folder / FILE)
            raise

    def close(self) -> None:
        os.close(self._descriptor)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(folder: Path) -> History:
    """What has happened so far, as anyone may see it; raises RecordError."""
    file = folder / FILE
    return _read(file, _opened(file, os.O_RDONLY | os.O_NONBLOCK))[0]


def _opened(file: Path, flags: int) -> int:
    try:
        return os.open(file, flags | os.O_CLOEXEC)
    except OSError as error:
        raise RecordError(f"{shortened(file)}: {error.strerror}") from error


def _line(entry: Entry) -> bytes:
    fields = {"kind": _NAMES[type(entry)], **dataclasses.asdict(entry)}
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def _read(file: Path, descriptor: int) -> tuple[History, bytes, int]:
    """An open journal, which is then closed: what it tells, its content, and how many bytes of that
    are whole lines; raises RecordError, naming it `file`."""
    try:
        content = record.read_descriptor(descriptor)
    except OSError as error:
        raise RecordError(f"{shortened(file)}: {error.strerror}") from error
    history: History | None = None
    whole_bytes = 0
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            entry = _decoded(line.removesuffix(b"\n"))
            if history is None:
                if not isinstance(entry, Opening):
                    raise RecordError("a journal begins with its opening")
                history = History(entry)
            else:
                history.add(entry)
        except (ValueError, RecursionError, RecordError) as error:
            # Only the last line can be half-written, and what is cut off is no JSON.
            if isinstance(error, ValueError) and not line.endswith(b"\n"):
                break
            raise RecordError(f"{file}:{number}: {error}") from error
        whole_bytes += len(line)
    if history is None:
        raise RecordError(f"{file}: it was killed before anything was decided; start it anew")
    return history, content, whole_bytes


def _decoded(line: bytes) -> Entry:
    """Raises ValueError for what is no JSON (UnicodeDecodeError is one), RecordError otherwise."""
    data = record.parse_json(line.decode())
    if not isinstance(data, dict):
        raise RecordError("not an object")
    name = data.get("kind")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RecordError(f"kind: expected one of {', '.join(_KINDS)}, found {quoted(str(name))}")
    version = data.get("schema_version", SCHEMA_VERSION)
    if kind is Opening and version != SCHEMA_VERSION:
        raise RecordError(f"schema_version: expected {SCHEMA_VERSION}, found {str(version)[:80]}")
    try:
        entry: Entry = record.decode(kind, data, "")
    except UsageError as error:
        raise RecordError(f"methods: a request out of range: {error}") from error
    if isinstance(entry, Opening) and not entry.methods:
        raise RecordError("methods: the baseline is missing")
    return entry
