"""The answers of a student: a file of YAML, an answer for each question, by its id."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, XlabError, shortened
from xlab.exercises import document
from xlab.exercises.document import Document
from xlab.exercises.model import Check, Exercise
from xlab.kernel import foreign

NAME = "answers.yaml"
#: Characters of one: a pattern may take the time of their square, where no limit is kept.
_LONGEST = 1000
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[-+]?[0-9]+(?:[.,][0-9]+)?")


def sheet(exercise: Exercise, given: Mapping[str, Any] | None = None) -> str:
    """The file with its questions, and with the answers that are known."""
    lines = [
        f"# Answers to {exercise.number} {exercise.title}.",
        "# Write each behind its colon and a space, as in `how-many: 3`.",
    ]
    for check in exercise.questions:
        if not check.shown:
            continue
        asked = check.arguments
        # A choice stands on a line of its own: it is copied from there.
        kind = (
            "one of these lines" if "choice" in asked
            else f"a number: {asked['number']}" if "number" in asked
            else asked["text"]
        )  # fmt: skip
        said = textwrap.wrap(f"{asked['question']} ({kind})", 96)
        said += [f"    {each}" for each in asked.get("choice", ())]
        known = (given or {}).get(check.id)
        lines += ["", *(f"# {line}" for line in said)]
        lines.append(f"{check.id}: {_scalar(known)}" if known is not None else f"{check.id}:")
    return "\n".join(lines) + "\n"


def read(file: Path, *, place: int | None = None) -> dict[str, Any]:
    """What was answered; nothing if there is no such file.  UsageError names file and line."""
    return of_document(document.parse(content(file, place=place), file))


def content(file: Path, *, place: int | None = None) -> bytes:
    """The same unread.  `place` is the descriptor of its folder, if that is held.

    UsageError for what is no regular file, or not in there, be it by a link: it goes to others.
    """
    try:
        return foreign.read(file, longest_bytes=document.MOST_BYTES, below=file.parent, place=place)
    except FileNotFoundError:
        return b""
    except XlabError as error:
        raise UsageError(str(error)) from error


def of_document(found: Document) -> dict[str, Any]:
    """The same of what has been read."""
    if found.value is None:
        return {}
    if not isinstance(found.value, dict):
        raise UsageError(f"{found.file}:1: ID: ANSWER is wanted on each line")
    for name, said in found.value.items():
        if isinstance(said, dict | list):
            place = f"{found.file}:{found.line((name,))}: {shortened(name)}"
            raise UsageError(f"{place}: one answer is wanted")
    return {name: said for name, said in found.value.items() if str(said).strip()}


def judged(given: Any, expected: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether an answer is right, and what it was taken for."""
    said = str(given).strip()
    if "number" in expected:
        found = _NUMBER.search(said)
        if not found:
            return False, f"{said!r} holds no number"
        number, wanted = _value(found[0]), float(expected["number"])
        within = float(str(expected.get("within", "0")).rstrip("% ")) / 100 * abs(wanted)
        tolerance = max(float(expected.get("tolerance", 0)), within)
        return abs(number - wanted) <= tolerance + 1e-9, f"{number:g}"
    if "choice" in expected:
        return _bare(said) == _bare(str(expected["choice"])), repr(said)
    matched = re.search(str(expected["text"]), said, re.IGNORECASE | re.DOTALL)
    return matched is not None, repr(said[:80])


def _value(number: str) -> float:
    try:
        whole = int(number, 16) if number.startswith("0x") else number.replace(",", ".")
        return float(whole)
    except OverflowError:  # an integer of more than 1,024 bits
        return math.inf


def _bare(choice: str) -> str:
    return choice.strip(" .").casefold().removeprefix("the ")


def amiss(check: Check, given: Any) -> str:
    """Why an answer can't be right, whatever is; nothing if it may be."""
    said = str(given).strip()
    if len(said) > _LONGEST:
        return f"an answer has at most {_LONGEST} characters"
    choices = [str(each) for each in check.arguments.get("choice", ())]
    if choices and _bare(said) not in map(_bare, choices):
        return f"{said!r} is none of: {', '.join(choices)}"
    if "number" in check.arguments and not _NUMBER.search(said):
        return f"{said!r} holds no number"
    return ""


def right(expected: Mapping[str, Any]) -> Any:
    """An answer that is right, to be written down."""
    return expected.get("number", expected.get("choice", expected.get("text")))


def wrong(check: Check, expected: Mapping[str, Any]) -> Any:
    """One that is not."""
    if "number" in expected:
        return 3 * abs(float(expected["number"])) + 1000
    if "choice" in expected:
        known = map(str, check.arguments["choice"])
        return next(each for each in known if each != str(expected["choice"]))
    return "\N{WHITE SQUARE}"


def _scalar(said: Any) -> str:
    """As YAML that is read back as the same text or number."""
    if isinstance(said, int | float):
        return f"{said:g}" if isinstance(said, float) else str(said)
    return "'" + str(said).replace("'", "''") + "'"
