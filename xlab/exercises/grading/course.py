"""Many submissions at a time: found, shared out among processes, limited, and gone on with.

    GRADES/ANNA/05-share-out-a-subnet/grade.json     as soon as it is known, whole or not at all

A grade that is there is not made again, as long as nothing has changed that it depends on.  Where
a machine runs short of memory or ARP entries, or a lab is lost, those at work are graded once more,
each alone: then it is clear whose doing it was.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xlab.errors import RecordError, UsageError, XlabError, quoted, shortened
from xlab.exercises import beginning, catalog, exercise
from xlab.exercises.grading import outcome, submission, worker
from xlab.exercises.grading.replay import SCRIPT_S, done_in, without_lab
from xlab.exercises.grading.submission import Submission
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant
from xlab.kernel import disk, limits
from xlab.kernel.patience import Patience
from xlab.record import grade, record
from xlab.record.grade import Grade, Status
from xlab.sandbox import containment
from xlab.sandbox.containment import Limits

_LOOK_S = 0.2
#: With less than that much of the machine's memory left, all that are at work are ended.
_SCARCE_BYTES, _SCARCE_PART = 300 << 20, 0.05
_CROWDED = "the machine's table of neighbours (ARP), which all labs share, was full meanwhile"
#: Of one line of a worker's.
_LONGEST_LINE = 8 << 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What all are graded by."""

    secret: bytes | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    #: For all of a submission, and for each part of a script, as `kernel.patience` counts: what a
    #: busy machine takes from them is not theirs.
    time_s: float = 600.0
    script_s: float = SCRIPT_S
    user: str = "nobody"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A submission that was found."""

    student: str
    path: Path
    exercise: Exercise
    given: Submission | None
    #: Why it is not to be carried out; "" if it is.
    refused: str
    key: str


@dataclass(frozen=True, slots=True)
class Event:
    """What `Course.grade` tells: a step of one at work, or its grade."""

    entry: Entry
    step: str = ""
    grade: Grade | None = None
    #: Whether it was there before.
    kept: bool = False


class _LostError(Exception):
    """A submission whose grading was ended from outside, or ended by itself."""


class Course:
    def __init__(self, terms: Terms, output: Path) -> None:
        self._terms = terms
        self._output = output
        #: Whose and what nobody knows the exercise of; and why it can't be read, if it can't.
        self.unknown: list[tuple[str, Path, str]] = []
        self._working: dict[subprocess.Popen[bytes], Entry] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._scarce = False

    # -- what there is -----------------------------------------------------------------------------

    def found(self, folder: Path, wanted: Sequence[Path] = ()) -> list[Entry]:
        """All in `folder`, of exercises `wanted` or of any.

        What one student has made of theirs keeps nobody else's from being graded: it is refused,
        or, where nothing says for which exercise it is, one of `unknown`.
        """
        for seen in (folder, self._output):
            _require_unseen(seen, "what is handed in, or the grades,")
        entries: dict[tuple[str, str], Entry] = {}
        for student, path in submission.names(folder):
            entry = self._entry(student, path, folder, wanted)
            if entry is None:
                continue
            place = (student.casefold(), entry.exercise.name)
            before = entries.get(place)
            if before:
                both = f"handed in twice: {before.path.name} and {path.name}"
                entry = replace(before, given=None, refused=both, key=f"{before.key} {entry.key}")
            entries[place] = entry
        _require_folders(entries.values())
        return list(entries.values())

    def _entry(
        self, student: str, path: Path, collected: Path, wanted: Sequence[Path]
    ) -> Entry | None:
        given, refused = None, ""
        try:
            given = submission.read(path, collected=collected)
        except UsageError as error:
            refused = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are graded
            refused = f"it can't be read: {type(error).__name__}: {quoted(str(error))}"
        named = _named(path, given)
        if len(wanted) == 1:
            folder = wanted[0]
            if named and named != folder.name and not refused:
                refused = f"it is for {named}, not for {folder.name}"
        else:
            try:
                folder = catalog.find(named)
            except UsageError:
                self.unknown.append((student, path, refused))
                return None
            if wanted and folder not in wanted:
                return None
        found = self._load(student, folder)
        terms = self._terms
        key = outcome.key_of(
            found,
            given or Submission({}, refused),
            limits=(asdict(terms.limits), terms.time_s, terms.script_s),
            secret=terms.secret,
        )
        return Entry(student, path, found, given, refused, key)

    def _load(self, student: str, folder: Path) -> Exercise:
        _require_unseen(folder, "its solution")
        secret = {"secret": self._terms.secret} if self._terms.secret else {}
        found = exercise.load(folder, Variant(student, **secret))
        if found.solution is None:
            raise UsageError(f"{folder} has no solution/: it can't be graded here")
        return found

    # -- grading -----------------------------------------------------------------------------------

    def grade(
        self,
        entries: Iterable[Entry],
        *,
        jobs: int,
        again: bool = False,
        tell: Callable[[Event], object] = lambda _: None,
    ) -> list[Grade]:
        """A grade for each, in their order; `jobs` at a time.  `tell` hears of all that happens.

        With `again` those that are there are made anew.
        """
        entries = list(entries)
        self._ended = False
        disk.make_folder(self._output)
        grades: dict[str, Grade] = {}

        def done(entry: Entry, made: Grade, *, kept: bool = False) -> None:
            if not kept:
                self._keep(entry, made)
            grades[_id(entry)] = made
            tell(Event(entry, grade=made, kept=kept))

        left = []
        for entry in entries:
            before = None if again else self.before(entry)
            if before:
                done(entry, before, kept=True)
            elif entry.refused:
                done(entry, self._without(entry, "refused", entry.refused))
            else:
                left.append(entry)
        lost: list[Entry] = []
        watcher = threading.Thread(target=self._watch_memory, daemon=True)
        watcher.start()
        try:
            for entry, made in self._all(left, jobs, tell):
                if made is None:
                    lost.append(entry)
                else:
                    done(entry, made)
            for entry in lost:
                self._scarce = False
                made = self._tried(entry, tell, alone=True)
                assert made is not None
                done(entry, made)
        finally:
            self._end()
            watcher.join()
        return [grades[_id(entry)] for entry in entries]

    def _all(
        self, entries: Sequence[Entry], jobs: int, tell: Callable[[Event], object]
    ) -> Iterable[tuple[Entry, Grade | None]]:
        """As they are done; None for one that was lost."""
        waiting = list(reversed(entries))
        with ThreadPoolExecutor(jobs) as pool:
            working: dict[Future[Grade | None], Entry] = {}
            try:
                while waiting or working:
                    while waiting and len(working) < jobs:
                        entry = waiting.pop()
                        working[pool.submit(self._tried, entry, tell)] = entry
                    # Not for ever: a Ctrl-C is seen between two.
                    for ready in wait(working, _LOOK_S, FIRST_COMPLETED).done:
                        yield working.pop(ready), ready.result()
            except BaseException:
                self._end()
                raise

    def _tried(
        self, entry: Entry, tell: Callable[[Event], object], *, alone: bool = False
    ) -> Grade | None:
        """None for one that others may have spoilt; lost when `alone` it is stopped by that.

        Whatever else goes wrong with it is the grader's error with this one, and ends no other.
        """
        refused = limits.neighbour_overflows()
        try:
            try:
                made = self._one(entry, tell)
                # One table for all namespaces, that any of them may fill: what was refused an entry
                # had no answer.
                if made.points == made.of or limits.neighbour_overflows() == refused:
                    return made
                return replace(made, notes=(*made.notes, _CROWDED)) if alone else None
            except _LostError as error:
                return self._stopped(entry, str(error)) if alone else None
        except XlabError as error:
            return self._without(entry, "error", str(error))
        except Exception as error:  # noqa: BLE001 - the others are graded
            return self._without(entry, "error", f"{type(error).__name__}: {quoted(str(error))}")

    def _one(self, entry: Entry, tell: Callable[[Event], object]) -> Grade:
        """_LostError if it was ended for another reason than its own time."""
        given, terms = entry.given, self._terms
        assert given is not None
        job = worker.Job(
            folder=str(entry.exercise.folder),
            student=entry.student,
            secret=terms.secret.hex() if terms.secret else None,
            scripts=given.scripts,
            answers=given.answers,
            says=(given.student, given.exercise),
            file=entry.path.name,
            key=entry.key,
            limits=asdict(terms.limits),
            script_s=terms.script_s,
            user=terms.user,
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", worker.__name__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            cwd="/",
            env=_environment(),
        )
        late, over = threading.Event(), threading.Event()

        def watch() -> None:
            patience = Patience(process.pid, terms.time_s)
            while not over.wait(patience.turn_s()):
                if patience.passed():
                    late.set()
                    process.kill()
                    return

        watching = threading.Thread(target=watch, daemon=True)
        with self._lock:
            if self._ended:
                process.kill()
            self._working[process] = entry
        try:
            watching.start()
            made = self._heard(entry, process, worker.as_json(job), tell)
        finally:
            over.set()
            if watching.ident is not None:
                watching.join()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
            with self._lock:
                del self._working[process]
        if made is not None:
            return made
        if late.is_set():
            return self._stopped(entry, f"it took longer than {terms.time_s:g} s")
        if self._scarce:
            raise _LostError("the machine ran short of memory while it was done")
        raise _LostError("its lab came to an end while it was done")

    def _heard(
        self,
        entry: Entry,
        process: subprocess.Popen[bytes],
        job: str,
        tell: Callable[[Event], object],
    ) -> Grade | None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with suppress(BrokenPipeError), process.stdin as asked:
            asked.write(job.encode())
        error = ""
        while line := process.stdout.readline(_LONGEST_LINE):
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                break  # it was ended in the middle of it
            try:
                said = record.decode(Mapping[str, Any], json.loads(line), "what it says")
                if "grade" in said:
                    return record.from_document(Grade, said["grade"])
            except (ValueError, RecursionError, RecordError) as reason:
                why = shortened(str(reason))
                return self._without(entry, "error", f"its worker can't be understood: {why}")
            if "error" in said:
                error = str(said["error"])
            if "lost" in said:
                return None
            tell(Event(entry, step=str(said.get("step", ""))))
        if not error and process.wait() > 0:
            # It says little, and that at its end: what a pipe holds is room enough.
            error = process.stderr.read().decode(errors="replace").strip()[-800:] or "it ended"
        if error:
            return self._without(entry, "error", error)
        return None

    def leave_standing(self, entry: Entry) -> tuple[str, Grade]:
        """Do it again in a lab that stays, which is not ended when its time is over; its name."""
        from xlab.outside import running_lab, starting

        if entry.given is None:
            raise UsageError(f"there is nothing to look at: {entry.refused}")
        if os.geteuid() == 0:
            raise UsageError("--keep: root's labs can't be contained; do it as an ordinary user")
        name = re.sub(r"[^a-z0-9]+", "-", f"{entry.student}-{entry.exercise.number}".lower())
        name = name.strip("-")
        asked = beginning.asked(entry.exercise)
        starting.up(
            asked.request, name=name, until=asked.until, empty=asked.empty,
            guarded=True, limits=self._terms.limits,
        )  # fmt: skip
        begun = time.monotonic()
        with running_lab.find(name) as lab:
            try:
                beginning.prepare(entry.exercise, lab)
            except BaseException:
                lab.down()
                raise
            replayed = done_in(lab, entry.exercise, entry.given, script_s=self._terms.script_s)
        return name, outcome.of_replayed(
            entry.exercise, entry.given, replayed, file=entry.path.name, key=entry.key,
            took_s=time.monotonic() - begun,
        )  # fmt: skip

    # -- what is there already ---------------------------------------------------------------------

    def before(self, entry: Entry) -> Grade | None:
        """The grade that it has; None if nothing is there that still holds."""
        found = grade.read(self._output / _folder(entry) / grade.NAME)
        return found if found and found.key == entry.key and found.status != "error" else None

    def _keep(self, entry: Entry, made: Grade) -> None:
        from xlab.exercises.grading import exports

        files = {
            str(_folder(entry) / name): content for name, content in exports.beside(made).items()
        }
        files[str(_folder(entry) / grade.NAME)] = record.as_bytes(record.to_document(made))
        disk.write(self._output, files, durable=True)

    def _without(self, entry: Entry, status: Status, cause: str) -> Grade:
        return outcome.without(
            entry.exercise, status, cause, file=entry.path.name, key=entry.key, given=entry.given
        )

    def _stopped(self, entry: Entry, cause: str) -> Grade:
        assert entry.given is not None
        return outcome.of_replayed(
            entry.exercise, entry.given, without_lab(entry.exercise, entry.given, cause),
            file=entry.path.name, key=entry.key, took_s=0.0,
        )  # fmt: skip

    # -- ending ------------------------------------------------------------------------------------

    def _watch_memory(self) -> None:
        """No lab can have all of the machine, however it hides what it takes."""
        while not self._ended:
            left, whole = _memory()
            if left < max(_SCARCE_BYTES, whole * _SCARCE_PART):
                with self._lock:
                    if self._working:
                        self._scarce = True
                    for process in self._working:
                        process.kill()
            time.sleep(_LOOK_S)

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            for process in self._working:
                process.send_signal(signal.SIGKILL)


# -- what one sees only in all of them -------------------------------------------------------------


def suspicions(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What a teacher may want to look at, by the path of the submission.

    Two that are the same, letter by letter; and addresses of somebody else's variant.
    """
    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.given is None or not entry.given.scripts:
            continue
        others = [other for other in entries if other.exercise.name == entry.exercise.name
                  and other is not entry and other.given is not None]  # fmt: skip
        script = "\n".join(entry.given.scripts.values())
        own = _telling(entry.exercise)
        # Where nothing hangs on values, a short answer is everybody's.
        telling = any(_stands_in(value, script) for value in own | _of_all(others))
        same = [other.student for other in others
                if other.given and other.given.scripts == entry.given.scripts]  # fmt: skip
        said = [f"the same scripts as {', '.join(same)}"] if same and telling else []
        for other in others:
            theirs = {
                value for value in _telling(other.exercise) - own if _stands_in(value, script)
            }
            if theirs:
                said.append(f"{', '.join(sorted(theirs)[:3])}: values of {other.student}")
        if whose := entry.given.student:
            if whose.casefold() != entry.student.casefold():
                said.append(f"it says that it is {whose}'s")
        if said:
            found[str(entry.path)] = said
    return found


def _telling(found: Exercise) -> set[str]:
    """Values that nobody has by chance: addresses and networks."""
    return {str(value) for value in found.values.values()
            if re.fullmatch(r"\d+\.\d+\.\d+\.\d+(/\d+)?", str(value))
            and not str(value).startswith("255.")}  # fmt: skip


def _of_all(entries: Iterable[Entry]) -> set[str]:
    return {value for entry in entries for value in _telling(entry.exercise)}


def _stands_in(value: str, text: str) -> bool:
    return re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.])", text) is not None


def _named(path: Path, given: Submission | None) -> str:
    """Which exercise a submission is for: what it says, or what its name says."""
    if given and given.exercise:
        return given.exercise
    said = re.search(r"(?:^|[-_.])([0-9]{2}-[a-z0-9-]+)$", submission.stem(path))
    return said[1] if said else ""


def _require_unseen(folder: Path, what: str) -> None:
    if containment.is_seen(folder):
        raise UsageError(
            f"{folder} lies among programs, which every lab sees, and {what} with it: copy it to "
            "somewhere else"
        )


def _require_folders(entries: Iterable[Entry]) -> None:
    """UsageError for two students whose grades would lie in one folder."""
    owners: dict[Path, str] = {}
    for entry in entries:
        other = owners.setdefault(_folder(entry), entry.student)
        if other != entry.student:
            raise UsageError(f"{other!r} and {entry.student!r} would have one folder: rename one")


def _id(entry: Entry) -> str:
    return f"{entry.student}\0{entry.exercise.name}"


def _folder(entry: Entry) -> Path:
    from xlab.exercises.export import folder_name

    return Path(folder_name(entry.student)) / entry.exercise.name


def _environment() -> dict[str, str]:
    """All that a worker is told, and with it whatever a submission starts: where programs are."""
    where_we_are = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    return {**containment.environment(), "PYTHONPATH": where_we_are}


def _memory() -> tuple[int, int]:
    """What is available, and all there is, in bytes, proc_meminfo(5)."""
    found: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) << 10
    return found["MemAvailable"], found["MemTotal"]


def secret_in(file: Path) -> bytes:
    """The course secret, which must be there: a new one would be the wrong one."""
    from xlab.exercises import export

    if not file.exists():
        raise UsageError(f"{file}: there is no such course secret")
    return export.secret_in(file)
