"""A grade made of what came of a submission; the document itself is `record.grade`'s."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlab.exercises.grading.replay import Replayed
from xlab.exercises.grading.submission import Submission
from xlab.exercises.judging import Result
from xlab.exercises.model import Exercise
from xlab.record import record
from xlab.record.grade import Grade, GradedCheck, GradedPart, Status
from xlab.record.version import __version__


def of_replayed(
    found: Exercise,
    given: Submission,
    replayed: Replayed,
    *,
    file: str,
    key: str,
    took_s: float,
) -> Grade:
    broken = [r.check.id for r in replayed.results if r.outcome == "broken"]
    error = f"{', '.join(broken)} can't be carried out" if broken else ""
    return _grade(
        found,
        "stopped" if replayed.cause else "error" if error else "graded",
        replayed.cause or error,
        checks=tuple(map(_check, replayed.results)),
        parts=tuple(GradedPart(p.host, p.number, p.said, p.stopped) for p in replayed.parts),
        notes=tuple(replayed.notes),
        submission=said_of(file, given),
        key=key,
        took_s=took_s,
        peak=dict(replayed.peak),
    )


def without(
    found: Exercise, status: Status, cause: str, *, file: str, key: str, given: Submission | None
) -> Grade:
    """One without a check: nothing of it was carried out."""
    checks = tuple(
        GradedCheck(
            c.id, c.task, 0, c.points, "skipped", f"{c.id} was not asked.", cause, c.shown, 0.0
        )
        for c in found.checks
    )  # fmt: skip
    return _grade(
        found, status, cause, checks=checks, parts=(), notes=(), took_s=0.0, peak={}, key=key,
        submission=said_of(file, given),
    )  # fmt: skip


def key_of(found: Exercise, given: Submission, *, limits: object, secret: bytes | None) -> str:
    """What a grade depends on: submission, exercise, variant, limits, and our own version."""
    summed = hashlib.sha256()
    for said in (
        given.digest, _of_folder(found.folder), found.student, sorted(found.values.items()),
        limits, __version__, hashlib.sha256(secret or b"").hexdigest(),
    ):  # fmt: skip
        summed.update(f"{said}\0".encode(errors="surrogatepass"))
    return summed.hexdigest()


def said_of(file: str, given: Submission | None) -> dict[str, str]:
    if given is None:
        return {"file": file}
    return {"file": file, "sha256": given.digest, "says_student": given.student,
            "says_exercise": given.exercise}  # fmt: skip


def _grade(found: Exercise, status: Status, cause: str, **more: Any) -> Grade:
    checks: Sequence[GradedCheck] = more["checks"]
    return Grade(
        student=found.student,
        exercise=found.name,
        title=found.title,
        status=status,
        cause=cause,
        points=sum(check.points for check in checks),
        of=sum(check.of for check in checks),
        graded_at=record.now(),
        versions={"xlab": __version__, "python": platform.python_version(),
                  "kernel": platform.release()},
        values=dict(found.values),
        **more,
    )  # fmt: skip


def _check(result: Result) -> GradedCheck:
    check = result.check
    return GradedCheck(
        check.id, check.task, result.points, check.points, result.outcome.value, result.text,
        result.seen[:2000], check.shown, round(result.took_s, 3),
    )  # fmt: skip


def _of_folder(folder: Path) -> str:
    """SHA-256 of an exercise's files."""
    summed = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        summed.update(os.fsencode(file.relative_to(folder)) + b"\0" + record.read_bytes(file))
    return summed.hexdigest()
