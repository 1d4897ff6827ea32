"""YAML files as exercises have them, and the line on which each of their values stands.

Read for its shape: of scalars, digits alone are numbers, and all else is text ("yes" and "none" are
words of checks, and an address is none of YAML's numbers).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, quoted, shortened
from xlab.record import record

MOST_BYTES = 1 << 20
_INTEGER, _DECIMAL = re.compile(r"-?[0-9]{1,15}"), re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_HALF = re.compile(r"[\ud800-\udfff]")

#: Where a value stands: ("checks", 3, "reaches").
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Document:
    file: Path
    value: Any
    _lines: Mapping[Place, int] = field(repr=False)

    def line(self, place: Place) -> int:
        """Of what stands at that place, or of what it would stand in."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def problem(self, place: Place, text: str) -> Problem:
        return Problem(self.file, self.line(place), text)

    def problems(self, schema: Mapping[str, Any]) -> Iterator[Problem]:
        """Where it is not as a JSON Schema (2020-12) has it."""
        from jsonschema.exceptions import best_match

        for error in _dialect()(schema).iter_errors(self.value):
            place = tuple(error.absolute_path)
            if text := _alternatives(error):
                yield self.problem(place, self._named(place) + text)
                continue
            closest = best_match([error])
            place = tuple(closest.absolute_path)
            if closest.validator == "additionalProperties":
                extra = next(key for key in closest.instance if key not in
                             closest.schema.get("properties", {}))  # fmt: skip
                yield self.problem(
                    (*place, extra), f"{self._named(place)}there is no {quoted(str(extra))} here"
                )
            else:
                yield self.problem(place, self._named(place) + _said(closest, place))

    def _named(self, place: Place) -> str:
        """Of one in a list what it is called: "containers-reach-each-other: "."""
        listed = self.value if isinstance(self.value, list) else []
        item = listed[place[0]] if place and isinstance(place[0], int) and listed else None
        name = (item.get("id") or item.get("fault")) if isinstance(item, dict) else None
        return f"{str(name)[:60]}: " if name else ""

    def replaced(self, value: Any) -> Document:
        """The same places with other values."""
        return Document(self.file, value, self._lines)

    def unsealed(self, value: Any) -> Unsealed:
        """The same file with what was sealed in it."""
        return Unsealed(self.file, value, self._lines)


@dataclass(frozen=True, slots=True)
class Unsealed(Document):
    """One with values that are not to be read by accident: that one is wrong is all it says."""

    def line(self, place: Place) -> int:
        return self._lines.get(place) or self._lines[("sealed",)]

    def problem(self, place: Place, text: str) -> Problem:
        del place, text
        said = "what is sealed here is not as `xlab lab export` makes it"
        return Problem(self.file, self.line(("sealed",)), said)

    def problems(self, schema: Mapping[str, Any]) -> Iterator[Problem]:
        try:
            valid = _dialect()(schema).is_valid(self.value)
        except RecursionError:
            valid = False
        if not valid:
            yield self.problem((), "")


def read(file: Path) -> Document:
    """UsageError, which names file and line, for what is no YAML."""
    try:
        content = record.read_bytes(file)
    except OSError as error:
        raise UsageError(f"{shortened(file)}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"{file}: larger than {MOST_BYTES >> 20} MiB")
    return parse(content, file)


def parse(content: bytes | str, file: Path) -> Document:
    """The same of what is in the file."""
    import yaml

    lines: dict[Place, int] = {}
    seen: set[yaml.Node] = set()

    def text(node: yaml.Node) -> str:
        said = str(node.value)
        # YAML can say half of a surrogate pair ("\uD800"); no file of text can, and no terminal.
        if _HALF.search(said):
            line = node.start_mark.line + 1
            raise UsageError(f"{file}:{line}: half of a character (\\uD800 to \\uDFFF) stands here")
        return said

    def build(node: yaml.Node, place: Place) -> Any:
        lines[place] = node.start_mark.line + 1
        # One that stands for another may stand for a billion (an alias of aliases of aliases).
        if node in seen:
            raise UsageError(f"{file}:{node.start_mark.line + 1}: an alias (*name) is used here")
        seen.add(node)
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, inner in node.value:
                name, line = text(key), key.start_mark.line + 1
                if name in found:
                    raise UsageError(f"{file}:{line}: {quoted(name)} stands here twice")
                found[name] = build(inner, (*place, name))
                lines[*place, name] = line
            return found
        if isinstance(node, yaml.SequenceNode):
            return [build(inner, (*place, i)) for i, inner in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(text(node), node.style)

    try:
        root = yaml.compose(content, yaml.SafeLoader)
        return Document(file, build(root, ()) if root else None, lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{file}:{line}: {(error.problem or 'no YAML')[:200]}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML makes a character of "\UFFFFFFFF", and a number of all digits of `%YAML 1.111…`.
        said = "".join(str(error).splitlines()[:1])
        raise UsageError(f"{file}: no YAML: {said[:200]}") from error
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deeply") from error


@functools.cache
def _dialect() -> Any:
    """JSON Schema's, but that 2.0 is no integer: nothing can be counted by it."""
    from jsonschema import Draft202012Validator, validators

    checker = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _checker, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Any = validators.extend  # it has no types
    return extend(Draft202012Validator, type_checker=checker)


def texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in it that `mapped` would change, and where it stands."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list | dict):
        for key, each in enumerate(value) if isinstance(value, list) else value.items():
            yield from texts(each, (*place, key))


def mapped(value: Any, change: Callable[[str], Any]) -> Any:
    """The same with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [mapped(each, change) for each in value]
    if isinstance(value, dict):
        return {key: mapped(each, change) for key, each in value.items()}
    return value


def _scalar(said: str, style: str | None) -> str | int | float:
    if style is None and _INTEGER.fullmatch(said):
        return int(said)
    if style is None and _DECIMAL.fullmatch(said):
        return float(said)
    return said


def _alternatives(error: Any) -> str:
    """What to say where one of several things is wanted, each with what it needs beside it."""
    if error.validator not in ("oneOf", "anyOf") or not isinstance(error.instance, dict):
        return ""
    if not all(set(each) == {"required"} for each in error.validator_value):
        return ""
    wanted = [each["required"] for each in error.validator_value]
    firsts = ", ".join(dict.fromkeys(each[0] for each in wanted))
    there = [each for each in wanted if each[0] in error.instance]
    if not there:
        return f"one of these is missing: {firsts}"
    if len(there) > 1:
        return f"only one of these may stand here: {', '.join(each[0] for each in there)}"
    lacking = [each for each in there[0] if each not in error.instance]
    return f"{' and '.join(map(repr, lacking))} is missing"


def _said(error: Any, place: Place) -> str:
    where = ".".join(str(each) for each in place if isinstance(each, str))
    text = str(error.message)[:200].replace(" is a required property", " is missing")
    return f"{where}: {text}" if where else text
