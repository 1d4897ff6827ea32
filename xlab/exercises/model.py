"""What an exercise is: checks, hints, a solution, faults, with the values of one student."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlab.exercises.variants import Value

#: In README.md, and in scripts, students' too: int() refuses numbers of thousands of digits.
TASK = re.compile(r"^## Task ([0-9]{1,4}): (.+)$", re.MULTILINE)
PART = re.compile(r"^# (?:task|part) ([0-9]{1,4})\b.*$", re.MULTILINE)


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
        found = {int(each[1]): each for each in TASK.finditer(self.readme)}
        rest = self.readme[found[number].start() :]
        following = re.search(r"\n## ", rest)
        return rest[: following.start()] if following else rest
