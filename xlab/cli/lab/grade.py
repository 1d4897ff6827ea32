"""`xlab lab grade`: submissions done again and judged, many at a time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import complete_exercise, short
from xlab.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.exercises.grading.course import Course, Entry, Event
    from xlab.record.grade import Grade


@command(
    epilog="Exit status: 0 all are graded, whatever their points; 1 the grader broke on one; "
    "2 wrong usage."
)
def grade(
    *,
    submissions: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="With a file or folder a student, or a folder of them for each."
        ),
    ],
    exercise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXERCISE",
            help="Of which; repeatable. If left out each submission says for which it is.",
            autocompletion=complete_exercise,
        ),
    ] = None,
    secret: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The course secret of `lab export`; without it a name is a practice seed.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where grades are written.")
    ] = Path("grades"),
    jobs: Annotated[
        int | None, typer.Option(min=1, max=64, help="At a time; as many as there are processors.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.1, max=120, help="All of one submission may take.")
    ] = 10.0,
    memory: Annotated[
        int, typer.Option(min=256, metavar="MIB", help="All of one lab may take.")
    ] = 1024,
    processes: Annotated[int, typer.Option(min=100, help="All of one lab may have.")] = 400,
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Whom root becomes, before anything is read.")
    ] = "nobody",
    one: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this student's, and anew.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --one: leave the lab standing, for a look.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Grade anew what has a grade.")] = False,
    as_json: AsJson = False,
) -> int:
    """Grade what students have handed in: each in a lab of its own, of the student's own values.

    A submission is nobody's friend: it is carried out without rights, sees nothing of this machine
    or of others' work, and is ended when it takes too much.  Ended yourself, begin again: what has
    a grade is not done a second time.
    """
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import catalog
    from xlab.exercises.grading import course
    from xlab.record import record
    from xlab.sandbox.containment import Limits

    if keep and not one:
        raise UsageError("--keep leaves one lab standing: name whose with --one NAME")
    if not submissions.is_dir():
        raise UsageError(f"{submissions} is no folder of submissions")
    terms = course.Terms(
        secret=course.secret_in(secret) if secret else None,
        limits=Limits(processes=processes, memory_bytes=memory << 20),
        time_s=60 * minutes,
        user=user,
    )
    made = course.Course(terms, output)
    entries = made.found(submissions, [catalog.find(word) for word in exercise or ()])
    screen = Screen(sys.stderr if as_json else sys.stdout)
    for student, path, why in made.unknown:
        said = f": {why}" if why else ""
        screen.said("", f"{student}, {path.name}: nothing says for which exercise it is{said}",
                    good=False)  # fmt: skip
    if made.unknown:
        screen.said("", "not graded: name the exercise, --exercise 05")
    wanted = [each for each in entries if one is None or each.student.casefold() == one.casefold()]
    if not wanted:
        listed = ", ".join(dict.fromkeys(each.student for each in entries[:20])) or "nobody"
        who = f"{one} has handed in nothing" if one else f"{submissions} has no submission in it"
        raise UsageError(f"{who}; of these there is something: {listed}")
    if keep:
        return _keep(screen, made, wanted)
    progress = _Progress(screen, len(wanted), jobs or _processors())
    with screen.running():
        progress.show()
        grades = made.grade(
            wanted, jobs=progress.jobs, again=again or bool(one), tell=progress.hear
        )
    page = _summarize(made, entries, output)
    if as_json:
        print_json([record.to_document(each) for each in grades])
    else:
        _say_result(screen, grades, page, progress)
    return 1 if any(each.status == "error" for each in grades) else 0


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _summarize(made: Course, entries: Sequence[Entry], output: Path) -> Path:
    """Of all that have a grade by now: tables, and the page, whose path is returned."""
    from xlab.exercises.grading import course, exports
    from xlab.kernel import disk
    from xlab.report import grades as page

    suspected = course.suspicions(entries)
    found = {entry: each for entry in entries if (each := made.before(entry))}
    remarks = {each.place: suspected.get(str(entry.path), [])
               for entry, each in found.items()}  # fmt: skip
    files = exports.of_all(list(found.values()), remarks)
    files["index.html"] = page.of_grades(list(found.values()), remarks).encode(
        errors="backslashreplace"
    )
    disk.write(output, files)
    return output / "index.html"


class _Progress:
    """A line for each grade as it is known, and one that moves."""

    def __init__(self, screen: Screen, of: int, jobs: int) -> None:
        self.jobs = jobs
        self._screen, self._of = screen, of
        self._steps: dict[str, str] = {}
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._done = self._kept = 0

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._begun

    @property
    def kept(self) -> int:
        """Those that were there before."""
        return self._kept

    def hear(self, event: Event) -> None:
        """A step by any thread, a grade by the one whose screen it is."""
        who = f"{event.entry.student}, {event.entry.exercise.number}"
        with self._lock:
            if event.grade is None:
                self._steps[who] = event.step
                return
            self._steps.pop(who, None)
            self._done += 1
            self._kept += event.kept
        # Without the lock: before it says anything, the screen draws `_line` for the last time.
        if not event.kept:
            self._say(who, event.grade)
        self.show()

    def show(self) -> None:
        """The line that moves; steps show when it moves next."""
        self._screen.refresh(self._line)

    def _say(self, who: str, grade: Grade) -> None:
        said = "" if grade.status == "graded" else f": {grade.status}: {grade.cause}"
        points = f"{grade.points} of {grade.of}" if grade.status != "error" else "no grade"
        good = {"graded": None, "error": False}.get(grade.status, False)
        self._screen.said("", f"{who}{said}", points, good=good)

    def _line(self) -> Text:
        from rich.text import Text

        from xlab.report.text import plain

        made = self._done - self._kept
        left_s = self.took_s / made * (self._of - self._done) if made else None
        left = f"{left_s // 60:.0f}:{left_s % 60:02.0f} left" if left_s is not None else ""
        with self._lock:
            working = "; ".join(f"{who}: {step}" for who, step in self._steps.items() if step)
        line = f"{self._screen.frame()} {self._done} of {self._of}   {plain(working)}"
        return self._screen.moving(Text(line), left)


def _say_result(screen: Screen, grades: Sequence[Grade], page: Path, progress: _Progress) -> None:
    counts = Counter(grade.status for grade in grades)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    took = f"{progress.took_s // 60:.0f}:{progress.took_s % 60:02.0f} min"
    before = f", {progress.kept} of them before" if progress.kept else ""
    screen.said("result", f"{told}{before}; {took}", good=not counts["error"])
    peak = max((grade.peak.get("memory_bytes", 0) for grade in grades), default=0)
    if peak:
        slowest = max(grades, key=lambda grade: grade.took_s)
        screen.said("most", f"{slowest.took_s:.0f} s for one ({slowest.student}), "
                            f"{peak / 2**20:.0f} MiB for one lab")  # fmt: skip
    screen.said("written", short(page))
    screen.said("", f"{short(page.parent / 'grades.csv')}, checks.csv, junit.xml; one folder each")


def _keep(screen: Screen, made: Course, entries: Sequence[Entry]) -> int:
    """Do it again in a lab that stays."""
    if len(entries) > 1:
        listed = ", ".join(entry.exercise.number for entry in entries)
        raise UsageError(f"of {entries[0].student} there are {listed}: which one, --exercise?")
    (entry,) = entries
    with screen.running():
        name, grade = made.leave_standing(entry)
    for check in grade.checks:
        good = {"passed": True, "failed": False}.get(check.outcome)
        screen.said("", check.text, f"{check.points} of {check.of}", good=good)
        if good is False:
            screen.block("", check.seen)
    for part in grade.parts:
        if part.stopped or part.said.strip():
            screen.block(f"{part.host} {part.number}", f"{part.stopped} {part.said}".strip())
    if grade.cause:
        screen.said(grade.status, grade.cause, good=False)
    screen.said("result", f"{grade.points} of {grade.of} points")
    screen.said("lab", f"{COMMAND} shell h1 --name {name}; {COMMAND} down {name} ends it")
    return 0
