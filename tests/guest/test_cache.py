"""What is kept of the virtual clock's guest from one time to the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from xlab.guest import frozen, packages, userland
from xlab.guest.packages import Package


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The trees that were made, in order; of no packages."""
    made: list[Path] = []

    def unpack(_: Sequence[Path], tree: Path) -> None:
        tree.mkdir()
        made.append(tree)

    def fetch(wanted: Sequence[Package], _: Path) -> tuple[Package, ...]:
        return tuple(wanted)

    monkeypatch.setattr(packages, "qemu_version", lambda: "10.0")
    monkeypatch.setattr(packages, "fetch", fetch)
    monkeypatch.setattr(userland, "unpack", unpack)
    return made


def test_a_tree_is_made_once_for_each_recipe(
    unpacked: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was unpacked by an older xlab boots otherwise, so its digits are others."""
    _, first = frozen._made(tmp_path, print)
    assert frozen._made(tmp_path, print)[1] == first
    assert len(unpacked) == 1
    init = tmp_path / "init.sh"
    init.write_bytes(userland._INIT.read_bytes() + b"# as it will be\n")
    monkeypatch.setattr(userland, "_INIT", init)
    assert frozen._made(tmp_path, print)[1] != first
    assert len(unpacked) == 2


def test_of_older_trees_one_is_kept(
    unpacked: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each takes a gigabyte with its frozen machines."""
    places = []
    for number, recipe in enumerate(("first", "second", "third")):
        monkeypatch.setattr(userland, "recipe", lambda recipe=recipe: recipe)
        places.append(frozen._made(tmp_path, print)[1])
        os.utime(places[-1], (number, number))
    assert len(unpacked) == 3
    assert [place.exists() for place in places] == [False, True, True]
