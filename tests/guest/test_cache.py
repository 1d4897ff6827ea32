"""What is kept of the virtual clock's guest, and who may have a hand in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from xlab.errors import CapabilityError
from xlab.guest import frozen, packages, userland
from xlab.guest.packages import Package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "xlab/guest"
    made.mkdir(parents=True)
    return made


def test_nobody_else_can_take_its_lock(folder: Path) -> None:
    """flock(2) asks for no right to write: whoever can open the file can have others wait."""
    lock = folder / "lock"
    lock.touch(0o644)
    with frozen._locked(lock, lambda _: None):
        assert lock.stat().st_mode & 0o077 == 0


def test_who_waits_says_for_what(folder: Path) -> None:
    lock, said = folder / "lock", list[str]()
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def hear(text: str) -> None:
            said.append(text)
            fcntl.flock(other, fcntl.LOCK_UN)

        with frozen._locked(lock, hear):
            pass
    assert said == [
        f"waiting for the virtual clock's guest, which is being made by process {os.getpid()}"
    ]


def test_a_lock_is_no_link_to_somebodys_file(folder: Path) -> None:
    mine = folder / "mine"
    mine.write_text("kept")
    (folder / "lock").symlink_to("mine")
    with (
        pytest.raises(OSError, match="symbolic links"),
        frozen._locked(folder / "lock", lambda _: None),
    ):
        pass
    assert mine.read_text() == "kept"


@pytest.mark.parametrize("which", [".", ".."])
def test_no_machine_comes_from_a_folder_that_others_can_change(which: str, folder: Path) -> None:
    frozen._require_ours(folder)
    (folder / which).chmod(0o777)
    with pytest.raises(CapabilityError, match="which others can change"):
        frozen._require_ours(folder)


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
