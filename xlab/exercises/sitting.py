"""Somebody at work on an exercise: a lab that stays, and a folder for README.md and answers.

What the lab is an exercise of, it knows itself (`Verbs.exercise`): it is found from anywhere.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlab.errors import NoAnswerError, UsageError, XlabError, quoted, shortened
from xlab.exercises import answers, beginning, exercise, judging
from xlab.exercises.grading import typed
from xlab.exercises.judging import Outcome, Result
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant
from xlab.experiments.recorder import Recorder, Watch
from xlab.kernel import disk, foreign
from xlab.outside import running_lab, starting
from xlab.outside.running_lab import RunningLab
from xlab.sandbox import registry

#: Where folders of exercises are made, below the folder one is in.
WORK = Path("work")
#: The seed of somebody's own values, kept beside what they are in.
_SEED = ".seed"
_MOST_SEED_BYTES = 1 << 10
_ELSEWHERE = "begin it in a folder of your own"


@dataclass(slots=True)
class Sitting:
    """An exercise, and the lab in which it is done."""

    exercise: Exercise
    lab: RunningLab
    #: Where README.md and answers.yaml are.
    work: Path
    #: Whether answers.yaml was there before.
    resumed: bool = field(default=False, kw_only=True)
    #: How many hints on each check were given; which checks passed when they were last carried out.
    hinted: dict[str, int]
    passed: list[str]

    #: Why answers could not be read when they last were; the checks of the lab go on without.
    answers_error: str = field(default="", kw_only=True)

    @property
    def sheet(self) -> Path:
        return self.work / answers.NAME

    def entered(self) -> AbstractContextManager[int]:
        """A descriptor of `work`, by which alone it is read and written; UsageError, OSError."""
        return _entered(self.work, named=self.work == self.exercise.folder)

    def given(self) -> dict[str, Any]:
        """The answers so far."""
        self.answers_error = ""
        try:
            with self.entered() as place:
                return answers.read(self.sheet, place=place)
        except FileNotFoundError:
            return {}
        except UsageError as error:
            self.answers_error = str(error)
            return {}

    def check(self, *, task: int | None, tell: Callable[[Result], object]) -> list[Result]:
        """Carry out the checks that are seen, or those of a task and what they need."""
        chosen = self.exercise.shown
        if task is not None:
            chosen = tuple(check for check in chosen if check.task == task)
        results = judging.judge(self.exercise, self.lab, self.given(), checks=chosen, tell=tell)
        asked = {result.check.id for result in results}
        kept = [name for name in self.passed if name not in asked]
        self.passed = kept + [r.check.id for r in results if r.outcome is Outcome.PASSED]
        self._keep()
        return results

    def hint(self, check: str | None) -> tuple[str, int, str]:
        """The next on a check, or on the first that has not passed: its id, the level, the text.

        UsageError where there is none.
        """
        known = self.exercise.hints
        if check is None:
            check = next((c.id for c in self.exercise.shown
                          if c.id not in self.passed and c.id in known), None)  # fmt: skip
            if check is None:
                raise UsageError("all checks have passed that there are hints on")
        if check not in known:
            listed = ", ".join(each for each in known)
            raise UsageError(f"there are no hints on {quoted(check)}; there are on: {listed}")
        level = min(self.hinted.get(check, 0) + 1, len(known[check]))
        # Of what has been done no hint is one.
        if check not in self.passed:
            self.hinted[check] = level
            self._keep()
        return check, level, known[check][level - 1]

    def draft(self) -> dict[str, str]:
        """Scripts by host of what has been typed so far, see `grading.typed`."""
        said = self.lab.call("typed", {})
        lines = [line for node, text in said["lines"].items() for line in typed.parse(node, text)]
        title = f"{self.exercise.number} {self.exercise.title}"
        return typed.draft(lines, said["files"], exercise=title)

    def require_task(self, number: int) -> None:
        """UsageError if there is none of that number."""
        if number not in self.exercise.tasks:
            raise UsageError(f"{self.exercise.name} has the tasks 1 to {len(self.exercise.tasks)}")

    def solve(self, task: int | None) -> list[int]:
        """Type the solution, or of one task alone, and write down its answers; the tasks typed."""
        solution = self.exercise.solution
        if solution is None:
            raise UsageError(f"{self.exercise.name} has no solution/ here")
        wanted = [each for each in solution.tasks() if task in (None, each)]
        for each in wanted:
            beginning.solve(self.lab, solution, after=each - 1, until=each + 1)
        with self.entered() as place:
            given = answers.read(self.sheet, place=place)
            for check in self.exercise.questions:
                if task in (None, check.task):
                    given[check.id] = answers.right(solution.answers[check.id])
            said = answers.sheet(self.exercise, given)
            disk.write(self.work, {answers.NAME: said.encode()}, place=place)
        return wanted

    @property
    def cost(self) -> int:
        """Points that hints have cost: the first on a check none, each further one of them."""
        return sum(level - 1 for level in self.hinted.values())

    def _keep(self) -> None:
        self.lab.call("exercise", {"facts": {
            "folder": str(self.exercise.folder), "student": self.exercise.student,
            "work": str(self.work), "hinted": self.hinted, "passed": self.passed,
        }})  # fmt: skip


@contextmanager
def _entered(work: Path, *, named: bool, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder to work in.

    UsageError for a stranger's, unless the person has named it: there somebody else would choose
    the values, and the scripts that `submit` carries out.
    """
    with ExitStack() as held:
        try:
            place = held.enter_context(disk.held(work, make=make, strict=True))
        except (PermissionError, NotADirectoryError) as error:
            raise UsageError(f"{shortened(work)}: {error.strerror}: {_ELSEWHERE}") from error
        found = os.fstat(place)
        if not (named or disk.is_ones_own(found)):
            whose = f"somebody else's folder (uid {found.st_uid})"
            raise UsageError(f"{shortened(work)}: {whose}: {_ELSEWHERE}")
        yield place


def seed_in(work: Path, *, named: bool = False) -> str | None:
    """Whose values a work folder has; None if it is none.

    UsageError for a seed that can't be read: whoever made the folder wrote it.
    """
    try:
        with _entered(work, named=named) as place:
            return _seed(work, place)
    except FileNotFoundError:
        return None


def _seed(work: Path, place: int) -> str:
    file = work / _SEED
    try:
        found = foreign.read(file, longest_bytes=_MOST_SEED_BYTES, below=work, place=place)
        return found.decode().strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is no UTF-8; without that file values are new") from error
    except XlabError as error:
        raise UsageError(f"{error}; without that file values are new") from error


def new_seed() -> str:
    return f"{random.SystemRandom().randrange(1_000_000):06}"


def start(
    folder: Path,
    *,
    seed: str | None = None,
    watch: Watch = lambda _: None,
    task: int = 1,
) -> tuple[Recorder, Sitting]:
    """Build its lab and leave it standing as the student finds it, with a folder to work in.

    Values are those of `seed`, else of the folder as it was left, else new ones.  With a `task` the
    tasks before that are solved.  UsageError if its lab runs already.
    """
    handed = exercise.is_handed_out(folder)
    work = folder if handed else Path.cwd() / WORK / folder.name
    before = seed_in(work, named=handed)
    seed = seed or before or new_seed()
    found = exercise.load(folder, Variant(seed))
    if registry.taken(found.slug):
        raise UsageError(
            f"{found.slug} has begun: `xlab lab check` tells how far it is, `xlab lab reset` "
            f"begins it anew, `xlab down {found.slug}` ends it"
        )
    if task != 1 and found.solution is None:
        raise UsageError(f"{found.name} has no solution/ here: it begins with task 1")
    asked = beginning.asked(found)
    told = starting.up(
        asked.request, name=found.slug, until=asked.until, empty=asked.empty, watch=watch,
        guarded=True,
    )  # fmt: skip
    lab = running_lab.find(found.slug)
    try:
        beginning.prepare(found, lab)
        if found.solution:
            beginning.solve(lab, found.solution, until=task)
        with _entered(work, named=handed, make=True) as place:
            if not handed:
                files = {"README.md": found.readme.encode(), _SEED: f"{seed}\n".encode()}
                disk.write(work, files, place=place)
            if before not in (None, seed):
                _set_aside(place, before or "")
            resumed = _has_answers(work / answers.NAME, place)
            if not resumed:
                disk.write(work, {answers.NAME: answers.sheet(found).encode()}, place=place)
        sitting = Sitting(found, lab, work, {}, [], resumed=resumed)
        sitting._keep()
    except BaseException:
        with suppress(XlabError):
            lab.down()
        lab.close()
        raise
    return told, sitting


def _set_aside(place: int, seed: str) -> None:
    """Answers to other values than the ones there are now."""
    # A seed may be any text, and whoever made the folder wrote it.
    name = re.sub(r"[^\w.@+-]+", "-", seed)[:100]
    with suppress(FileNotFoundError):
        os.replace(answers.NAME, f"answers-{name}.yaml", src_dir_fd=place, dst_dir_fd=place)


def _has_answers(sheet: Path, place: int) -> bool:
    try:
        return bool(answers.read(sheet, place=place))
    except UsageError:
        return True


@contextmanager
def find(word: str | None, *, verb: str = "check") -> Iterator[Sitting]:
    """The one of that number or name, or the only one that has been started.

    UsageError if there are several: it says how to name one to the `verb` of `xlab lab`.
    """
    with _lab(word, verb) as lab:
        facts = lab.call("exercise", {})
        if facts is None:
            raise UsageError(
                f"{lab.name} is no exercise's lab: `xlab lab start EXERCISE` makes one"
            )
        yield _sitting(lab, facts)


def running() -> dict[str, Path]:
    """The folders of exercises whose labs run, by the lab's name."""
    return {lab: Path(facts["folder"]) for lab, facts in _exercises()[0]}


def lab_of(word: str) -> str:
    """The name of the lab of an exercise that runs, by its number or name; else the word itself."""
    meant = _meant(word, running())
    return meant[0] if len(meant) == 1 else word


@contextmanager
def _lab(word: str | None, verb: str) -> Iterator[RunningLab]:
    exercises, unanswered = _exercises()
    found = {lab: Path(facts["folder"]) for lab, facts in exercises}
    meant = list(found) if word is None else _meant(word, found)
    if not meant and unanswered:
        raise unanswered[0]
    if not meant and word is not None:
        listed = ", ".join(folder.name for folder in found.values()) or "none"
        raise UsageError(f"exercise {shortened(word)} has not been started; started: {listed}")
    if not meant:
        raise UsageError("no exercise has been started; `xlab lab start EXERCISE` does")
    if len(meant) > 1:
        listed = ", ".join(folder.name[:2] for folder in found.values())
        raise UsageError(f"which exercise? There are {listed}: `xlab lab {verb} {listed[:2]}`")
    with running_lab.find(meant[0]) as lab:
        yield lab


def _meant(word: str, found: Mapping[str, Path]) -> list[str]:
    wanted = word.zfill(2) if word.isdecimal() else Path(word).name
    return [lab for lab, folder in found.items()
            if wanted in (lab, folder.name, folder.name[:2])]  # fmt: skip


def _exercises() -> tuple[list[tuple[str, Mapping[str, Any]]], list[NoAnswerError]]:
    """Those that run, by the lab's name; and of labs that may be some, why nobody knows."""
    found, unanswered = [], []
    for name in registry.running():
        try:
            with running_lab.find(name) as lab:
                if facts := lab.call("exercise", {}):
                    found.append((name, facts))
        except NoAnswerError as error:
            unanswered.append(error)
        except XlabError:
            pass  # it has ended meanwhile
    return found, unanswered


def _sitting(lab: RunningLab, facts: Mapping[str, Any]) -> Sitting:
    folder = Path(facts["folder"])
    found = exercise.load(folder, Variant(str(facts["student"])))
    return Sitting(found, lab, Path(facts["work"]), dict(facts["hinted"]), list(facts["passed"]))
