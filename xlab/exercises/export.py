"""What a teacher hands out: each student's exercise, finished, without what only the teacher keeps.

    export/ANNA/05-share-out-a-subnet/   README.md, lab.yaml, checks.yaml, hints.yaml, answers.yaml

Values are drawn from the course secret, which stays where it is; in the files there are only the
values.  What breaks the lab is packed into one word, so that nobody reads it by accident; who wants
to can, since the student's own machine has to build it.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, quoted, shortened
from xlab.exercises import answers, document, exercise, own_files, variants
from xlab.exercises.exercise import SEALED
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant
from xlab.kernel import disk
from xlab.record import record

_SECRET_BYTES = 32


def secret_in(file: Path) -> bytes:
    """The course secret; made, readable for its owner alone, if there is no such file.

    UsageError for one that somebody else may know: values are drawn from it.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        try:
            said = _kept(file).strip()
        except OSError as error:
            raise UsageError(f"{shortened(file)}: {error.strerror}") from error
        if len(said) < _SECRET_BYTES:
            raise UsageError(f"{file}: a course secret has at least 32 characters") from None
        return said
    made = secrets.token_hex(_SECRET_BYTES).encode()
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(made + b"\n")
    return made


def _kept(file: Path) -> bytes:
    """What is in a file of the caller's or root's that nobody else reads or writes."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        problem = ""
        if not disk.is_ones_own(found):
            problem = (
                f"it belongs to uid {found.st_uid}, who knows all values that are drawn from it: "
                "name another file, or, if you trust them, a copy of your own"
            )
        elif others := found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            may = "write" if others & (stat.S_IWGRP | stat.S_IWOTH) else "read"
            problem = f"others may {may} it: chmod 600 {shlex.quote(str(file))}"
        if problem:
            os.close(descriptor)
            raise UsageError(f"{file}: {problem}")
    return record.read_descriptor(descriptor)


def export(folder: Path, variant: Variant, into: Path) -> Path:
    """One student's exercise into a new folder below `into`, which is returned."""
    found = exercise.load(folder, variant)
    target = _target(into, variant, folder)
    files = {name: text.encode() for name, text in _texts(folder, found).items()}
    for number, file in enumerate(found.files.values(), 1):
        files[f"files/{number}{file.suffix}"] = own_files.read(folder, file)
    disk.make_folder(target)
    disk.write(target, files)
    return target


def require_possible(folders: Sequence[Path], students: Sequence[Variant], into: Path) -> None:
    """UsageError before anything is written: all have values, and no folder is there yet."""
    for student in students:
        for folder in folders:
            exercise.load(folder, student)
            _target(into, student, folder)


def _target(into: Path, variant: Variant, folder: Path) -> Path:
    target = into / folder_name(variant.student) / folder.name
    if target.exists():
        raise UsageError(
            f"{target} is there already: remove it, or name the students and exercises that are new"
        )
    return target


def folder_name(student: str) -> str:
    """For a student's folder; UsageError for a name with nothing in it that a folder may have."""
    found = re.sub(r"[^\w.@+-]+", "-", student).strip(".-")
    if not found:
        raise UsageError(f"{quoted(student)} is no name of a student")
    return found[:100]


def require_distinct(students: Sequence[str]) -> None:
    """UsageError for two whose folders would be one."""
    names: dict[str, str] = {}
    for student in students:
        other = names.setdefault(folder_name(student).casefold(), student)
        if other != student or students.count(student) > 1:
            raise UsageError(f"{student!r} and {other!r} would have one folder")


def _texts(folder: Path, found: Exercise) -> dict[str, str]:
    lab: dict[str, Any] = {
        "machines": found.machines,
        "typed_before": found.typed_before,
        "break": list(found.breaks),
        "files": {
            place: f"files/{number}{file.suffix}"
            for number, (place, file) in enumerate(found.files.items(), 1)
        },
    }
    assert set(lab) == set(SEALED)
    said = {
        "title": found.title,
        "minutes": found.minutes,
        "student": found.student,
        "sealed": exercise.sealed({key: lab[key] for key in SEALED}),
    }
    return {
        "README.md": found.readme,
        "lab.yaml": _yaml(said),
        "checks.yaml": _yaml(_filled(folder / "checks.yaml", found.values)),
        "hints.yaml": _yaml({"sealed": exercise.sealed(found.hints)}),
        answers.NAME: answers.sheet(found),
    }


def _filled(file: Path, values: variants.Values) -> Any:
    read = document.read(file).value
    return document.mapped(read, lambda text: variants.filled(text, values))


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(_plain(value), sort_keys=False, allow_unicode=True, width=100))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
