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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlab.errors import UsageError
from xlab.exercises import agreement, document, schemas, variants
from xlab.exercises.document import Document, Problem
from xlab.exercises.model import PART, Check, Exercise, Fault, Solution
from xlab.exercises.variants import Value, Variant
from xlab.kernel import shipped
from xlab.record import record

_NAME = re.compile(r"([0-9]{2})-([a-z0-9]+(?:-[a-z0-9]+)*)")
#: Of other people's values, so that nobody is handed what makes no sense.
_TRIED = 30
#: What an exported exercise hands over without its being read by accident.
SEALED = ("machines", "typed_before", "break", "files")
_MAY_BE_SEALED = ("lab.yaml", "hints.yaml")
_TOO_LONG = f"larger than {document.MOST_BYTES >> 20} MiB with its values filled in"


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
    reader = _Reader(folder, variant, others=_TRIED)
    try:
        reader.read()
    except UsageError as error:
        file, _, rest = str(error).partition(":")
        line, _, text = rest.partition(": ")
        reader.problems.append(
            Problem(Path(file), int(line) if line.isdigit() else 1, text or rest)
        )
    return sorted(dict.fromkeys(reader.problems), key=lambda each: (str(each.file), each.line))


class _Reader:
    """Reads a folder, and gathers what is wrong with it."""

    def __init__(self, folder: Path, variant: Variant, *, others: int = 0) -> None:
        """So many `others` are to have values, too."""
        self._folder = folder
        self._variant = variant
        self._others = others
        self.problems: list[Problem] = []
        self._values: dict[str, Value] = {}
        #: By name, with values filled in; those with which nothing is wrong.
        self._documents: dict[str, Document] = {}

    def read(self) -> Exercise | None:
        """None where what is wrong leaves nothing to go on with."""
        folder = self._folder
        if not is_name(folder.name):
            raise UsageError(f"{folder}:1: an exercise's folder is called as 05-share-out-a-subnet")
        said = self._valid(schemas.UNDRAWN, self._open("lab.yaml"))
        if said is None or not self._draw(said):
            return None
        student = str(said.value.get("student", self._variant.student))
        said = self._yaml("lab.yaml")
        if said is None:
            return None
        lab = said.value
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
            readme=self._filled_text("README.md"),
            tasks={},
            start_points=0,
            checks=(*checks, *hidden),
            hints=self._hints(),
            solution=solution,
            other=self._solution("solution/other", solution),
            faults=self._faults(),
        )
        found, wrong = agreement.agreeing(found, self._documents, self._text)
        self.problems += wrong
        return found

    def _draw(self, said: Document) -> bool:
        """Whether there are values; and whether some others would have none."""
        wanted = said.value.get("variants", {})
        keys = [self._variant.key(self._folder.name)]
        keys += [Variant(str(number)).key(self._folder.name) for number in range(self._others)]
        for key in keys:
            try:
                drawn = variants.drawn(wanted, key)
            except UsageError as error:
                place, _, text = str(error).partition(": ")
                self.problems.append(said.problem(tuple(place.split(".")), text))
                return False
            self._values = self._values or drawn
        return True

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

    def _yaml(self, name: str) -> Document | None:
        """With values in the place of their names, but where the values themselves are made.

        What is sealed in it stands in it, as if it had never been sealed.
        """
        found = self._open(name)
        if found is None or not self._has_room(found):
            return None
        value = document.mapped(found.value, self._filled)
        if name == "lab.yaml" and isinstance(value, dict) and "variants" in value:
            value["variants"] = found.value["variants"]
        valid = self._valid(schemas.BY_FILE[name], found.replaced(value))
        if valid is not None and name in _MAY_BE_SEALED and "sealed" in valid.value:
            valid = self._valid(schemas.BY_FILE[name], self._unsealed(valid))
        if valid is not None:
            self._documents[name] = valid
        return valid

    def _has_room(self, found: Document) -> bool:
        """Whether with all values in it the file is no larger than one may be."""
        length = 0
        for place, text in document.texts(found.value):
            length += variants.filled_length(text, self._values)
            if length > document.MOST_BYTES:
                self.problems.append(found.problem(place, _TOO_LONG))
                return False
        return True

    def _unsealed(self, found: Document) -> Document | None:
        """Whoever made the folder may have sealed anything."""
        said = dict(found.value)
        hidden = _opened(said.pop("sealed"))
        if hidden is None:
            problem = Problem(found.file, found.line(("sealed",)), "what is sealed can't be read")
            self.problems.append(problem)
            return None
        return found.unsealed({**said, **hidden})

    def _filled(self, text: str) -> Value:
        """With its values; and with the command as it is called where there is no checkout."""
        filled = variants.filled(text, self._values)
        if isinstance(filled, str) and shipped.find("bin/xlab") is None:
            return filled.replace("bin/xlab", "xlab")
        return filled

    def _filled_text(self, name: str) -> str:
        """Of a file that is all one text."""
        text = self._text(name)
        if variants.filled_length(text, self._values) > document.MOST_BYTES:
            self.problems.append(Problem(self._folder / name, 1, _TOO_LONG))
            return ""
        return str(self._filled(text))

    def _checks(self, name: str, *, shown: bool) -> list[Check] | None:
        found = self._yaml(name)
        if found is None:
            return [] if not (self._folder / name).exists() and not shown else None
        return [_check(said, shown=shown) for said in found.value]

    def _hints(self) -> dict[str, tuple[str, ...]]:
        found = self._yaml("hints.yaml")
        return {name: tuple(each) for name, each in (found.value if found else {}).items()}

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
        scripts = {}
        for file in sorted((self._folder / name).glob("*.sh")):
            scripts[file.stem] = parts(self._filled_text(f"{name}/{file.name}"))
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


def _check(said: Mapping[str, Any], *, shown: bool) -> Check:
    word = next(word for word in schemas.WORDS if word in said)
    wait = said.get("wait")
    return Check(
        id=said["id"],
        task=said["task"],
        points=said["points"],
        word=word,
        arguments=said[word],
        needs=tuple(said.get("needs", ())),
        wait_s=None if wait is None else float(wait),
        passed=said.get("pass", ""),
        failed=said.get("fail", ""),
        look=said.get("look", ""),
        shown=shown,
    )


def sealed(hidden: Mapping[str, Any]) -> str:
    """What is not to be read by accident, as one word.  It is no secret: the lab is made of it."""
    return base64.b85encode(zlib.compress(json.dumps(hidden).encode())).decode()


def _opened(text: str) -> dict[str, Any] | None:
    """What was sealed; None for what can't have been, as what would be sealed once more."""
    try:
        packed = zlib.decompressobj().decompress(base64.b85decode(text), document.MOST_BYTES)
        found = record.parse_json(packed.decode())
        json.dumps(found, ensure_ascii=False).encode()  # half of a character is no text
    except (ValueError, RecursionError, zlib.error):
        return None
    return found if isinstance(found, dict) and "sealed" not in found else None


def parts(script: str) -> dict[int, str]:
    """By task; what stands before the first `# task N` belongs to the first."""
    found = list(PART.finditer(script))
    if not found:
        return {1: script}
    ends = [each.start() for each in found[1:]] + [len(script)]
    by_task = {int(each[1]): script[each.end() : end]
               for each, end in zip(found, ends, strict=True)}  # fmt: skip
    first = int(found[0][1])
    by_task[first] = script[: found[0].start()] + by_task[first]
    return by_task


def is_name(text: str) -> bool:
    """Whether an exercise's folder may be called so."""
    return _NAME.fullmatch(text) is not None


def is_handed_out(folder: Path) -> bool:
    """Whether it is one student's, as `export` makes it."""
    said = document.read(folder / "lab.yaml").value
    return isinstance(said, dict) and "sealed" in said
