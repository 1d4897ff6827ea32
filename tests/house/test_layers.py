"""Imports go one way, down the rooms as docs/architecture.md lists them, and never in a circle."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

from tests.support.documents import ROOT

_ROW = re.compile(r"^\| `([a-z]+)(?:/|\.py)` \|", re.MULTILINE)
_ARROWS = re.compile(r"^ +(\w+) --> ([\w &]+)$", re.MULTILINE)
#: What a user of the package or of `python -m xlab` meets; no room may import either.
_DOORS = {"__init__", "__main__"}
_MOST_FLOORS = 13


@functools.cache
def order() -> dict[str, int]:
    """The place of each room, 0 for the uppermost."""
    text = (ROOT / "docs/architecture.md").read_text()
    return {name: place for place, name in enumerate(_ROW.findall(text))}


@functools.cache
def modules() -> Mapping[str, Set[str]]:
    """The modules of xlab/ and what each imports of it, wherever in it and for whatever."""
    files = {_dotted(file): file for file in sorted((ROOT / "xlab").rglob("*.py"))}
    return {
        name: {found for found in _imported(file, files) if found != name}
        for name, file in files.items()
    }


def _dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                for name in (f"{node.module}.{alias.name}", node.module):
                    if name in known:
                        yield name
                        break


@functools.cache
def picture() -> Mapping[str, Set[str]]:
    """The arrows of the picture, from each room to those below it."""
    found = _ARROWS.findall((ROOT / "docs/architecture.md").read_text())
    return {name: set(targets.split(" & ")) for name, targets in found}


def reached(arrows: Mapping[str, Set[str]], start: str) -> set[str]:
    """Where one gets along arrows."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@functools.cache
def rooms() -> Mapping[str, Set[str]]:
    """What each room imports of others."""
    found: dict[str, set[str]] = {}
    for module, targets in modules().items():
        found.setdefault(room(module), set()).update(map(room, targets))
    return {name: targets - {name} for name, targets in found.items()}


def floors(arrows: Mapping[str, Set[str]]) -> dict[str, int]:
    """How high each stands over what imports nothing, 1; raises AssertionError for a circle."""
    height: dict[str, int] = {}
    while len(height) < len(arrows):
        ready = {
            name: 1 + max((height[target] for target in targets), default=0)
            for name, targets in arrows.items()
            if name not in height and targets <= set(height)
        }
        assert ready, f"a circle among {sorted(set(arrows) - set(height))}"
        height |= ready
    return height


def test_every_room_has_its_place() -> None:
    assert set(order()) == set(rooms()) - _DOORS
    loose = {file.stem for file in (ROOT / "xlab").glob("*.py")}
    assert loose == _DOORS | {"errors"}


def test_imports_go_down() -> None:
    place = order()
    upwards = {
        (module, target)
        for module, targets in modules().items()
        for target in targets
        if room(target) in _DOORS - {room(module)}
        or (room(module) in place and place[room(target)] < place[room(module)])
    }
    assert upwards == set()


def test_the_picture_has_every_arrow_and_none_too_many() -> None:
    """It is the transitive reduction of the imports."""
    imports = {name: targets for name, targets in rooms().items() if name != "__init__"}
    needed = {
        name: {
            target
            for target in targets
            if not any(target in reached(imports, other) for other in targets - {target})
        }
        for name, targets in imports.items()
    }
    assert picture() == {name: targets for name, targets in needed.items() if targets}


def test_there_are_few_floors_and_no_circle() -> None:
    assert max(floors(rooms()).values()) <= _MOST_FLOORS
    floors(modules())


def test_a_circle_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"a circle among \['a', 'b'\]"):
        floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_every_room_says_what_it_is() -> None:
    for name in set(rooms()) - _DOORS:
        path = ROOT / "xlab" / name
        if path.is_dir():
            assert ast.get_docstring(ast.parse((path / "__init__.py").read_text())), name


def test_tests_are_laid_out_like_the_house_and_import_no_other_test() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = {
        file: set(_imported(file, {_dotted(other): other for other in files})) for file in files
    }
    assert {file: others for file, others in found.items() if others} == {}
    beside = {
        "benchmarks", "clean_root", "desks", "docs", "house", "pipelines", "scenarios", "whole",
    }  # fmt: skip
    assert {file.relative_to(ROOT / "tests").parts[0] for file in files} == beside | {
        name for name in rooms() if name not in _DOORS | {"errors"}
    }
