"""An exercise as its folder has it, with the values of one student in every text.

labs/05-share-out-a-subnet/
    README.md  lab.yaml  checks.yaml  hints.yaml     what a student gets
    solution/                                        what the teacher keeps
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlab.errors import UsageError
from xlab.exercises import document, schemas, variants
from xlab.exercises.document import Document, Problem
from xlab.exercises.variants import Value, Variant
from xlab.record import record

_NAME = re.compile(r"([0-9]{2})-([a-z0-9]+(?:-[a-z0-9]+)*)")
_TITLE = re.compile(r"^# ([0-9]{2}) (.+)$", re.MULTILINE)
_EXTENT = re.compile(
    r"^([0-9]+) minutes\. ([0-9]+) points, of which ([0-9]+) stands? at the start\.$", re.MULTILINE
)
_TASK = re.compile(r"^## Task ([0-9]+): (.+)$", re.MULTILINE)
_PART = re.compile(r"^# task ([0-9]+)\b.*$", re.MULTILINE)
#: What an exported exercise hands over without its being read by accident.
SEALED = ("machines", "typed_before", "break", "files")


@dataclass(frozen=True, slots=True)
class Check:
    id: str
    task: int
    points: int
    #: "reaches", "answer" …, and what stands beside it.
    word: str
    arguments: Any
    needs: tuple[str, ...]
    #: None for what is usual.
    wait_s: float | None
    passed: str
    failed: str
    look: str
    #: Whether students see it.
    shown: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """One that is planted in the solved lab to see what notices it."""

    text: str
    do: Mapping[str, str]
    undo: Mapping[str, str]
    order: str
    answers: Mapping[str, Value]
    fails: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """Scripts by host, each in parts by task; and the answers."""

    scripts: Mapping[str, Mapping[int, str]]
    answers: Mapping[str, Mapping[str, Value]]

    def tasks(self) -> list[int]:
        return sorted({task for parts in self.scripts.values() for task in parts})


@dataclass(frozen=True, slots=True)
class Exercise:
    folder: Path
    #: "05-share-out-a-subnet"
    name: str
    title: str
    minutes: int
    #: Whose values it has.
    student: str
    values: Mapping[str, Value] = field(repr=False)
    machines: Mapping[str, Any] = field(repr=False)
    typed_before: Mapping[str, str] = field(repr=False)
    breaks: tuple[str, ...] = field(repr=False)
    #: By "HOST:PATH" the file.
    files: Mapping[str, Path] = field(repr=False)
    readme: str = field(repr=False)
    #: By number.
    tasks: Mapping[int, str] = field(repr=False)
    start_points: int = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)
    hints: Mapping[str, tuple[str, ...]] = field(repr=False)
    #: None where the teacher has kept it.
    solution: Solution | None = field(repr=False)
    other: Solution | None = field(repr=False)
    faults: tuple[Fault, ...] = field(repr=False)

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def slug(self) -> str:
        """What its lab is called: "share-out-a-subnet"."""
        return self.name[3:]

    @property
    def shown(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.shown)

    @property
    def points(self) -> int:
        """Of the checks that students see."""
        return sum(check.points for check in self.shown)

    @property
    def questions(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.word == "answer")

    def task_text(self, number: int) -> str:
        """That part of the README."""
        found = {int(each[1]): each for each in _TASK.finditer(self.readme)}
        rest = self.readme[found[number].start() :]
        following = re.search(r"\n## ", rest)
        return rest[: following.start()] if following else rest


def load(folder: Path, variant: Variant) -> Exercise:
    """Raises UsageError, which names file and line, for the first thing that is wrong with it."""
    reader = _Reader(folder, variant)
    found = reader.read()
    for problem in reader.problems:
        raise UsageError(str(problem))
    assert found is not None
    return found


def problems(folder: Path, variant: Variant) -> list[Problem]:
    """All that is wrong with it, file by file and line by line."""
    reader = _Reader(folder, variant)
    try:
        reader.read()
    except UsageError as error:
        file, _, rest = str(error).partition(":")
        line, _, text = rest.partition(": ")
        reader.problems.append(
            Problem(Path(file), int(line) if line.isdigit() else 1, text or rest)
        )
    return sorted(reader.problems, key=lambda each: (str(each.file), each.line))


class _Reader:
    """Reads a folder, and gathers what is wrong with it."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        self._folder = folder
        self._variant = variant
        self.problems: list[Problem] = []
        self._values: dict[str, Value] = {}

    def read(self) -> Exercise | None:
        """None where what is wrong leaves nothing to go on with."""
        folder = self._folder
        named = _NAME.fullmatch(folder.name)
        if not named:
            raise UsageError(f"{folder}:1: an exercise's folder is called as 05-share-out-a-subnet")
        said = self._valid(schemas.UNDRAWN, self._open("lab.yaml"))
        if said is None:
            return None
        student = str(said.value.get("student", self._variant.student))
        try:
            wanted = said.value.get("variants", {})
            self._values = variants.drawn(wanted, self._variant.key(folder.name))
        except UsageError as error:
            place, _, text = str(error).partition(": ")
            self.problems.append(said.problem(tuple(place.split(".")), text))
            return None
        said = self._valid(schemas.LAB, self._filled(said))
        if said is None:
            return None
        lab = {**said.value, **_unsealed(said.value)}
        checks = self._checks("checks.yaml", shown=True)
        hidden = self._checks("solution/checks.yaml", shown=False)
        if checks is None or hidden is None:
            return None
        solution = self._solution("solution")
        found = Exercise(
            folder=folder,
            name=folder.name,
            title=lab["title"],
            minutes=lab["minutes"],
            student=student,
            values=self._values,
            machines=lab["machines"],
            typed_before=lab.get("typed_before", {}),
            breaks=tuple(lab.get("break", ())),
            files={place: folder / file for place, file in lab.get("files", {}).items()},
            readme=self._readme(),
            tasks={},
            start_points=0,
            checks=(*checks, *hidden),
            hints=self._hints(),
            solution=solution,
            other=self._solution("solution/other", solution),
            faults=self._faults(),
        )
        return self._agreeing(found, said)

    # -- its files ---------------------------------------------------------------------------------

    def _open(self, name: str) -> Document | None:
        """As it is; None if there is no such file, which for some is as good."""
        file = self._folder / name
        if not file.exists():
            if "/" not in name:
                self.problems.append(Problem(file, 1, "is missing"))
            return None
        return document.read(file)

    def _valid(self, schema: Mapping[str, Any], found: Document | None) -> Document | None:
        if found is None:
            return None
        wrong = list(found.problems(schema))
        self.problems += wrong
        return None if wrong else found

    def _filled(self, found: Document) -> Document:
        """With values in the place of their names, but where the values themselves are made."""
        kept = found.value.get("variants") if isinstance(found.value, dict) else None
        value = document.mapped(found.value, lambda text: variants.filled(text, self._values))
        return found.replaced({**value, "variants": kept} if kept else value)

    def _yaml(self, name: str) -> Document | None:
        found = self._open(name)
        return self._valid(schemas.BY_FILE[name], self._filled(found)) if found else None

    def _checks(self, name: str, *, shown: bool) -> list[Check] | None:
        found = self._yaml(name)
        if found is None:
            return [] if not (self._folder / name).exists() and not shown else None
        checks: list[Check] = []
        for place, said in enumerate(found.value):
            words = [word for word in schemas.WORDS if word in said]
            if any(each.id == said["id"] for each in checks):
                self.problems.append(
                    found.problem((place, "id"), f"{said['id']} stands here twice")
                )
            wait = said.get("wait")
            checks.append(
                Check(
                    id=said["id"],
                    task=said["task"],
                    points=said["points"],
                    word=words[0],
                    arguments=said[words[0]],
                    needs=tuple(said.get("needs", ())),
                    wait_s=None if wait is None else float(wait),
                    passed=said.get("pass", ""),
                    failed=said.get("fail", ""),
                    look=said.get("look", ""),
                    shown=shown,
                )
            )
        return checks

    def _hints(self) -> dict[str, tuple[str, ...]]:
        found = self._yaml("hints.yaml")
        return {name: tuple(each) for name, each in found.value.items()} if found else {}

    def _readme(self) -> str:
        return str(variants.filled(self._text("README.md"), self._values))

    def _text(self, name: str) -> str:
        file = self._folder / name
        try:
            return record.read_bytes(file).decode()
        except UnicodeDecodeError:
            self.problems.append(Problem(file, 1, "is no UTF-8"))
        except OSError as error:
            self.problems.append(Problem(file, 1, error.strerror or "can't be read"))
        return ""

    def _solution(self, name: str, usual: Solution | None = None) -> Solution | None:
        """Of the folder of that name; what it does not answer is answered as `usual`."""
        folder = self._folder / name
        scripts = {}
        for file in sorted(folder.glob("*.sh")):
            text = str(variants.filled(self._text(f"{name}/{file.name}"), self._values))
            scripts[file.stem] = _parts(text)
        answers = self._yaml(f"{name}/answers.yaml")
        if not scripts and answers is None:
            return None
        known = dict(usual.answers) if usual else {}
        return Solution(scripts, {**known, **(answers.value if answers and answers.value else {})})

    def _faults(self) -> tuple[Fault, ...]:
        found = self._yaml("solution/faults.yaml")
        return tuple(
            Fault(
                text=said["fault"],
                do=said.get("do", {}),
                undo=said.get("undo", {}),
                order=said.get("order", ""),
                answers=said.get("answers", {}),
                fails=tuple(said["fails"]),
            )
            for said in (found.value if found else ())
        )

    # -- what must agree ---------------------------------------------------------------------------

    def _agreeing(self, found: Exercise, said: Document) -> Exercise:
        import dataclasses

        readme = self._folder / "README.md"

        def wrong(text: str, at: int = 0, file: Path = readme) -> None:
            self.problems.append(Problem(file, found.readme.count("\n", 0, at) + 1, text))

        title, extent = _TITLE.search(found.readme), _EXTENT.search(found.readme)
        if not title or title.groups() != (found.number, found.title):
            wrong(f"its first heading is to be: # {found.number} {found.title}",
                  title.start() if title else 0)  # fmt: skip
        start = 0
        if not extent:
            wrong("it is to say: N minutes. P points, of which S stand at the start.")
        else:
            start = int(extent[3])
            if (int(extent[1]), int(extent[2])) != (found.minutes, found.points):
                wrong(f"lab.yaml and checks.yaml make it {found.minutes} minutes, "
                      f"{found.points} points", extent.start())  # fmt: skip
        tasks = {int(each[1]): each[2] for each in _TASK.finditer(found.readme)}
        if list(tasks) != list(range(1, len(tasks) + 1)):
            wrong("its tasks are to be numbered from 1 on: ## Task 1: …")
        for name in variants.unknown_in(self._text("README.md"), self._values):
            wrong(f"{{{name}}} is no value of lab.yaml")
        self.problems += self._disagreements(found, tasks)
        for place, file in found.files.items():
            if not file.is_file() or ":/" not in place:
                self.problems.append(said.problem(("files", place), "HOST:/PATH: FILE is wanted"))
        return dataclasses.replace(found, tasks=tasks, start_points=start)

    def _disagreements(self, found: Exercise, tasks: Mapping[int, str]) -> Iterator[Problem]:
        before: set[str] = set()
        ids = {check.id for check in found.checks}
        places = {True: "checks.yaml", False: "solution/checks.yaml"}
        documents = {shown: self._open_quietly(name) for shown, name in places.items()}
        counted = {True: 0, False: 0}
        for check in found.checks:
            source, number = documents[check.shown], counted[check.shown]
            counted[check.shown] += 1
            assert source is not None
            if check.task not in tasks:
                yield source.problem((number, "task"), f"README.md has no task {check.task}")
            for name in check.needs:
                if name not in before:
                    yield source.problem((number, "needs"), f"{name} is no check before this one")
            if check.word != "answer" and check.shown and check.id not in found.hints:
                yield source.problem((number,), f"hints.yaml has none for {check.id}")
            before.add(check.id)
        for name, where in ((each, "hints.yaml") for each in found.hints):
            if name not in ids:
                yield Problem(self._folder / where, 1, f"{name} is no check")
        if found.solution:
            for check in found.questions:
                given = found.solution.answers.get(check.id)
                kind = next(word for word in ("number", "choice", "text")
                            if word in check.arguments)  # fmt: skip
                file = self._folder / "solution/answers.yaml"
                if given is None or kind not in given:
                    yield Problem(file, 1, f"{check.id}: a {kind} is wanted")
                elif kind == "choice" and str(given[kind]) not in map(
                    str, check.arguments["choice"]
                ):
                    yield Problem(file, 1, f"{check.id}: {given[kind]} is none of its choices")
            for name in found.solution.answers:
                if name not in {check.id for check in found.questions}:
                    yield Problem(
                        self._folder / "solution/answers.yaml", 1, f"{name} is no question"
                    )
        for fault in found.faults:
            for name in {*fault.fails, *fault.answers} - ids:
                yield Problem(self._folder / "solution/faults.yaml", 1, f"{name} is no check")

    def _open_quietly(self, name: str) -> Document | None:
        file = self._folder / name
        return document.read(file) if file.exists() else None


def sealed(lab: Mapping[str, Any]) -> str:
    """What is not to be read by accident, as one word.  It is no secret: the lab is made of it."""
    hidden = {key: lab[key] for key in SEALED if key in lab}
    return base64.b85encode(zlib.compress(json.dumps(hidden).encode())).decode()


def _unsealed(lab: Mapping[str, Any]) -> dict[str, Any]:
    if "sealed" not in lab:
        return {}
    try:
        packed = zlib.decompressobj().decompress(base64.b85decode(lab["sealed"]), 1 << 20)
        found = json.loads(packed)
    except (ValueError, zlib.error) as error:
        raise UsageError(f"lab.yaml:1: what is sealed can't be read: {error}") from error
    return {key: found[key] for key in SEALED if key in found}


def _parts(script: str) -> dict[int, str]:
    """By task; what stands before the first `# task N` belongs to the first."""
    found = list(_PART.finditer(script))
    if not found:
        return {1: script}
    ends = [each.start() for each in found[1:]] + [len(script)]
    parts = {int(each[1]): script[each.end() : end] for each, end in zip(found, ends, strict=True)}
    first = int(found[0][1])
    parts[first] = script[: found[0].start()] + parts[first]
    return parts


def is_name(text: str) -> bool:
    """Whether an exercise's folder may be called so."""
    return _NAME.fullmatch(text) is not None


def is_handed_out(folder: Path) -> bool:
    """Whether it is one student's, as `export` makes it."""
    said = document.read(folder / "lab.yaml").value
    return isinstance(said, dict) and "sealed" in said
