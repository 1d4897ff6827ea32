"""Files that somebody may have made of anything: read to an end, and written to no one's else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.deep import nested
from tests.support.fuzzing import Refusal, attempt, memory_below
from xlab.errors import XlabError
from xlab.kernel import foreign


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, 20 << 30)


#: What somebody may put in a file's place.
PLACED: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a file": lambda path: path.write_text("theirs"),
    "a link to a file": lambda path: path.symlink_to("victim"),
    "a link to nothing": lambda path: path.symlink_to("missing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a FIFO": os.mkfifo,
    "a folder": lambda path: (path / "full").mkdir(parents=True),
    "20 GB of nothing": large,
}


@pytest.fixture(params=PLACED)
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    (tmp_path / "victim").write_text("mine")
    path = tmp_path / "file"
    PLACED[request.param](path)
    return request.param, path


def test_what_is_read_is_a_file_of_some_length(placed: tuple[str, Path]) -> None:
    kind, path = placed
    with memory_below(1 << 20):
        found = attempt(lambda: foreign.text(path), FileNotFoundError, XlabError)
    expected = {"a file": "theirs", "a link to a file": "mine"}
    assert found == expected.get(kind) if kind in expected else isinstance(found, Refusal)
    if kind.endswith("nothing") and "GB" not in kind:
        with pytest.raises(FileNotFoundError):
            foreign.read(path)


def test_what_is_written_is_new_whatever_was_there(placed: tuple[str, Path]) -> None:
    _, path = placed
    foreign.put(path, b"ours")
    assert (path.is_symlink(), path.read_text()) == (False, "ours")
    assert (path.parent / "victim").read_text() == "mine"
    assert sorted(each.name for each in path.parent.iterdir()) == ["file", "victim"]


def test_where_no_file_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(XlabError, match="file/inner: "):
        foreign.put(tmp_path / "file/inner", b"ours")
    assert (tmp_path / "file").read_text() == "theirs"


def test_a_folder_goes_however_deep_it_is(tmp_path: Path) -> None:
    """Deeper than Python calls, than paths are long, and than there are descriptors."""
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/theirs").touch()
    path = tmp_path / "file"
    with nested(path, 3000) as deepest:
        os.symlink("/dev/zero", "link", dir_fd=deepest)
        os.symlink(tmp_path / "elsewhere", "way", dir_fd=deepest)
        os.mkfifo("pipe", dir_fd=deepest)
        foreign.put(path, b"ours")
        assert path.read_text() == "ours"
        assert sorted(e.name for e in tmp_path.iterdir()) == ["elsewhere", "file", "victim"]
        assert (tmp_path / "elsewhere/theirs").exists()


def test_a_limit_is_what_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    assert foreign.text(tmp_path / "file", longest_bytes=5) == "12345"
    with pytest.raises(XlabError, match="longer than 4 bytes"):
        foreign.text(tmp_path / "file", longest_bytes=4)


def test_what_cannot_be_a_name_is_refused() -> None:
    with pytest.raises(XlabError, match="null"):
        foreign.read(Path("/etc/\0"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("file", "mine"),
        ("inner/../file", "mine"),
        ("inner/link", "mine"),
        ("{}/folder/file", "mine"),
        ("../victim", None),
        ("inner/../../victim", None),
        ("{}/victim", None),
        ("{}/folder/../victim", None),
        ("out", None),
        ("absolute", None),
        ("elsewhere/victim", None),
        ("/proc/self/environ", None),
        ("file\0", None),
        (".", None),
    ],
)
def test_what_is_wanted_of_a_folder_is_in_it(
    tmp_path: Path, name: str, expected: str | None
) -> None:
    """A link may lead to it, but neither out of the folder nor, by its whole path, back into it."""
    (tmp_path / "victim").write_text("theirs")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("mine")
    (folder / "inner/link").symlink_to("../file")
    (folder / "out").symlink_to("../victim")
    (folder / "absolute").symlink_to(folder / "file")
    (folder / "elsewhere").symlink_to("..")
    path = folder / name.format(tmp_path)
    if expected is None:
        with pytest.raises(XlabError, match=r"not a file of|Is a directory"):
            foreign.read(path, below=folder)
    else:
        assert foreign.read(path, below=folder).decode() == expected
    with pytest.raises(FileNotFoundError):
        foreign.read(folder / "missing", below=folder)
