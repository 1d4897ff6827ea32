"""What came of one submission: a document, GRADES/ANNA/05-share-out-a-subnet/grade.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xlab.errors import RecordError
from xlab.kernel import disk
from xlab.record import record

SCHEMA_VERSION = 1
NAME = "grade.json"

#: graded    all of it was carried out
#: stopped   it took more than it may, and was ended: what a lab was needed for earns nothing
#: refused   it could not be read, or is for another exercise: no points
#: error     the grader's own: no grade
Status = Literal["graded", "stopped", "refused", "error"]


@dataclass(frozen=True, slots=True)
class GradedCheck:
    id: str
    task: int
    points: int
    of: int
    #: passed, failed, skipped, unjudged, broken.
    outcome: str
    text: str
    seen: str
    #: Whether students see it beforehand.
    shown: bool
    took_s: float


@dataclass(frozen=True, slots=True)
class GradedPart:
    """Of a script."""

    host: str
    number: int
    said: str
    stopped: str


@dataclass(frozen=True, slots=True)
class Grade:
    student: str
    exercise: str
    title: str
    status: Status
    #: Why it has any status but graded.
    cause: str
    points: int
    of: int
    checks: tuple[GradedCheck, ...]
    parts: tuple[GradedPart, ...]
    #: What the student is to know beside.
    notes: tuple[str, ...]
    #: The file, its digest, and whose it says it is.
    submission: Mapping[str, str]
    #: What the grade depends on, as one word: a submission with another one is graded anew.
    key: str
    graded_at: str
    took_s: float
    #: processes, memory_bytes.
    peak: Mapping[str, int]
    versions: Mapping[str, str]
    values: Mapping[str, Any] = field(repr=False)
    schema_version: int = SCHEMA_VERSION

    @property
    def place(self) -> str:
        """What tells it from others: student and exercise."""
        return f"{self.student}/{self.exercise}"


def read(file: Path) -> Grade | None:
    """None if there is none that can be read, or if it is somebody else's: it says its points."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        theirs = not disk.is_trusted(os.fstat(descriptor))
        content = record.read_descriptor(descriptor)
        return None if theirs else record.from_document(Grade, record.parse_json(content.decode()))
    except (RecordError, OSError, ValueError, RecursionError):
        return None
