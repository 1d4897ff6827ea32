"""What is written goes where it is meant to go, whoever has prepared the folder."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT
from tests.support.labs import PATIENCE_S
from tests.support.ordinary import ORDINARY
from xlab import cli
from xlab.cli import capture
from xlab.errors import UsageError
from xlab.kernel import disk
from xlab.record import record

RECORDS = ROOT / "tests/data/records"
RECORD = RECORDS / "20250102T090000Z-baseline"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user is played by root alone")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file whose owner asked for nothing."""
    file = tmp_path / "victim"
    file.write_text("as it was")
    return file


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Anybody may write there, and no sticky bit has the kernel look at links."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def a_strangers(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
    return path


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".partial-*")]


# -- names that can be guessed ---------------------------------------------------------------------


def by_number(name: str) -> str:
    """The hidden name that another process may work out."""
    return f".partial-{os.getpid()}-{name}"


def test_a_link_with_the_hidden_name_is_not_written_through(shared: Path, victim: Path) -> None:
    planted = shared / by_number("r.html")
    planted.symlink_to(victim)
    assert cli.main(["report", str(RECORD), "--output", str(shared / "r.html")]) == 0
    assert victim.read_text() == "as it was"
    assert "<html" in (shared / "r.html").read_text()
    assert planted.is_symlink()
    assert hidden(shared) == [planted.name]


def test_nobody_has_the_hidden_name_of_a_record(shared: Path, tmp_path: Path) -> None:
    """Neither is its place taken, nor is what takes it removed."""
    planted = shared / by_number("x")
    planted.mkdir()
    (planted / "raw").symlink_to(tmp_path)
    record.save(record.load(RECORD), shared / "x", {"ping.txt": b"64 bytes"})
    assert (shared / "x/raw/ping.txt").read_bytes() == b"64 bytes"
    assert not (tmp_path / "ping.txt").exists()
    assert (planted / "raw").is_symlink()


# -- the name itself -------------------------------------------------------------------------------


@needs_root
def test_a_strangers_link_is_replaced(shared: Path, victim: Path) -> None:
    a_strangers(shared / "r.csv", victim)
    disk.write_whole(shared / "r.csv", b"new")
    assert (victim.read_text(), (shared / "r.csv").is_symlink()) == ("as it was", False)
    a_strangers(shared / "f.pcapng", victim)
    os.close(disk.create(shared / "f.pcapng"))
    assert (victim.read_text(), (shared / "f.pcapng").read_bytes()) == ("as it was", b"")


def test_a_link_of_ones_own_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    link = tmp_path / "latest.html"
    link.symlink_to("www/page.html")
    for content in (b"first", b"second"):
        disk.write_whole(link, content)
        assert (tmp_path / "www/page.html").read_bytes() == content
    assert link.is_symlink()
    assert hidden(tmp_path) == []


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"Too many levels of symbolic links: '.*/a'"):
        disk.write_whole(tmp_path / "a", b"")


def test_another_name_of_the_same_file_keeps_what_it_had(shared: Path, victim: Path) -> None:
    """A capture truncated what had its name."""
    (shared / "f.pcap").hardlink_to(victim)
    child = capture._keep(shared / "f.pcap", "wire")
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert victim.read_text() == "as it was"


def test_rights_of_what_is_replaced_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "private.json"
    file.touch(mode=0o600)
    disk.write_whole(file, b"{}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@needs_root
def test_at_a_strangers_pipe_nobody_waits(shared: Path) -> None:
    os.mkfifo(shared / "r.csv")
    os.chown(shared / "r.csv", ORDINARY, ORDINARY)
    disk.write_whole(shared / "r.csv", b"new")
    assert (shared / "r.csv").read_bytes() == b"new"


#: Told where /dev is one of its own, for what fails there has harmed the machine.
_IN_A_DEV_OF_ITS_OWN = r"""
set -e
mount -n -t tmpfs -o mode=755 none "$1"
cp -a /dev/null "$1"
ln -s /proc/self/fd "$1/fd"
ln -s /proc/self/fd/1 "$1/stdout"
mount -n --bind "$1" /dev
cd /dev
for name in /dev/stdout /dev/fd/1 /proc/self/fd/1 /dev/null; do
    "$2" -P -c "$3" $name
done | cat
echo before >"$1/file"
"$2" -P -c "$3" /dev/stdout >>"$1/file"
cat "$1/file"
find . -type l -o -type c | sort
"""
_WRITE = "from xlab.kernel.disk import *; import sys; write_whole(Path(sys.argv[1]), b'said\\n')"


@needs_root
def test_no_device_is_replaced_by_a_file(tmp_path: Path) -> None:
    said = subprocess.run(
        ["unshare", "--mount", "bash", "-c", _IN_A_DEV_OF_ITS_OWN, "bash", tmp_path,
         sys.executable, _WRITE],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split() == [*["said"] * 3, "before", "said", "./fd", "./null", "./stdout"]


def test_a_pipe_of_ones_own_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    disk.write_whole(pipe, b"to read")
    assert os.read(reading, 100) == b"to read"
    os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


# -- the way there ---------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(
    "write",
    [
        lambda place: disk.write_whole(place / "r.csv", b""),
        lambda place: disk.new_folder(place / "run", {"run.json": b""}),
        lambda place: disk.make_folder(place / "results"),
        lambda place: os.close(disk.create(place / "f.pcap")),
    ],
)
def test_a_strangers_link_on_the_way_is_not_followed(
    write: Callable[[Path], Any], shared: Path, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    a_strangers(shared / "way", inner)
    with pytest.raises(PermissionError, match="a link of somebody else's is on the way"):
        write(shared / "way")
    assert list(inner.iterdir()) == []
    (shared / "way").unlink()
    (shared / "way").symlink_to(inner)
    write(shared / "way")
    assert len(list(inner.iterdir())) == 1


def test_below_results_no_link_is_followed(tmp_path: Path) -> None:
    """Who may rename things in the folder puts a link in the place of one of ours."""
    results, elsewhere = tmp_path / "compare", tmp_path / "elsewhere"
    (results / "weave").mkdir(parents=True)
    elsewhere.mkdir()
    (results / "weave/b1").symlink_to(elsewhere)
    for path in ("weave/b1/raw/ping.txt", "../elsewhere/x"):
        with pytest.raises(OSError, match=r"Not a directory|Invalid argument"):
            disk.write(results, {"compare.json": b"{}", path: b""})
    assert list(elsewhere.iterdir()) == []
    assert not (results / "compare.json").exists()
    assert hidden(tmp_path) == []


def test_a_folder_that_is_swapped_meanwhile_gains_nothing(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "raw").mkdir(parents=True)
    filled = disk._fill

    def swap(descriptor: int, content: bytes, **options: bool) -> None:
        filled(descriptor, content, **options)
        for draft in shared.glob(".partial-*"):
            if draft.is_symlink():
                return
            draft.rename(shared / "aside")
            draft.symlink_to(elsewhere)

    monkeypatch.setattr(disk, "_fill", swap)
    record.save(record.load(RECORD), shared / "x", {"1": b"", "2": b""})
    assert [path.name for path in elsewhere.rglob("*")] == ["raw"]
    assert {path.name for path in (shared / "x/raw").iterdir()} == {"1", "2"}


# -- names that are taken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "take",
    [
        lambda folder: folder.symlink_to("nowhere"),
        lambda folder: folder.touch(),
        lambda folder: (folder / "in it").mkdir(parents=True),
    ],
)
def test_a_record_comes_under_the_next_name(take: Callable[[Path], None], tmp_path: Path) -> None:
    found = record.load(RECORD)
    begun = datetime(2025, 1, 2, tzinfo=UTC)
    names: list[str] = []

    def make(folder: Path) -> None:
        if not names:
            take(folder)  # between the look and the renaming
        names.append(folder.name)
        record.save(found, folder, {})

    made = record.under_free_name(tmp_path, begun, "bridge", make)
    assert made.name == "2025-01-02T000000Z-bridge-2"
    assert record.load(made) == found
    assert hidden(tmp_path) == []


# -- what the dead have left -----------------------------------------------------------------------


@needs_root
def test_only_ones_own_leftovers_are_swept(shared: Path) -> None:
    mine, theirs = shared / ".partial-999999999-a", shared / ".partial-999999999-b"
    for folder in (mine, theirs):
        folder.mkdir()
    os.chown(theirs, ORDINARY, ORDINARY)
    disk.sweep(shared)
    assert not mine.exists()
    assert theirs.is_dir()


def test_sweeping_follows_no_link(shared: Path, victim: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept").touch()
    for number, target in enumerate((victim, tmp_path / "full")):
        (shared / f".partial-999999999-{number}").symlink_to(target)
    disk.sweep(shared)
    assert hidden(shared) == []
    assert victim.exists()
    assert (tmp_path / "full/kept").exists()


def test_a_whole_folder_that_got_a_hidden_name_keeps_what_is_in_it(shared: Path) -> None:
    """Who may rename in a folder could have ours emptied by us."""
    record.save(record.load(RECORD), shared / "x", {"ping.txt": b""})
    (shared / "x").rename(shared / ".partial-999999999-x")
    disk.sweep(shared)
    assert (shared / ".partial-999999999-x/raw/ping.txt").exists()


# -- what is read where we happen to be ------------------------------------------------------------


@pytest.mark.slow
def test_a_matplotlibrc_that_somebody_left_here_is_not_read(tmp_path: Path) -> None:
    """A pipe of that name kept a report waiting for good."""
    os.mkfifo(tmp_path / "matplotlibrc")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "xlab", "report", RECORD, "--charts", "charts"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert "charts/rtt.svg\n" in done.stdout
    assert (tmp_path / "charts/rtt.svg").is_file()


# -- a disk that refuses ---------------------------------------------------------------------------


def test_none_of_several_is_replaced_before_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.md").write_text("before")
    filled = disk._fill

    def full(descriptor: int, content: bytes, **options: bool) -> None:
        filled(descriptor, content, **options)
        if content == b"page":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "_fill", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/report.html'"):
        disk.write(tmp_path, {"report.md": b"text", "report.html": b"page"})
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "before"


def test_a_name_as_long_as_may_be(tmp_path: Path) -> None:
    disk.write_whole(tmp_path / ("é" * 127), b"there")
    assert (tmp_path / ("é" * 127)).read_bytes() == b"there"


def test_whoever_may_only_read_a_folder_cannot_lock_it(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch(0o644)  # of a process that was killed
    reader = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX)
    with closing(disk.Lock(tmp_path, "busy")):
        assert (tmp_path / ".lock").stat().st_mode & 0o077 == 0
        with pytest.raises(UsageError, match="busy"):
            disk.Lock(tmp_path, "busy")
    assert list(tmp_path.iterdir()) == []
    os.close(reader)


def test_a_lock_whose_file_is_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        (tmp_path / ".lock").unlink()  # as who had the folder until now does
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with (
        closing(disk.Lock(tmp_path, "busy")),
        pytest.raises(UsageError, match="busy"),
    ):
        disk.Lock(tmp_path, "busy")


def test_a_lock_is_let_go_of_where_it_was_taken(tmp_path: Path) -> None:
    """Whatever has the folder's name by then, or the file's."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
    (other / ".lock").write_text("of something else")
    with closing(disk.Lock(folder, "busy")):
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)
    assert (other / ".lock").read_text() == "of something else"
    assert list((tmp_path / "moved").iterdir()) == []

    with closing(disk.Lock(other, "busy")):
        (other / ".lock").unlink()
        (other / ".lock").write_text("the next one's")
    assert (other / ".lock").read_text() == "the next one's"


def test_a_file_that_others_have_made_locks_nobody_out(tmp_path: Path) -> None:
    """In a folder of a group's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / ".lock").touch(0o666)
    os.chown(tmp_path / ".lock", 12345, 12345)
    theirs = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    with closing(disk.Lock(tmp_path, "busy")), pytest.raises(UsageError, match="busy"):
        disk.Lock(tmp_path, "busy")
    os.close(theirs)


@pytest.mark.parametrize("mode", [0o644, 0o400])
def test_another_name_of_a_file_of_ones_own_is_no_lock(mode: int, tmp_path: Path) -> None:
    """Whoever may give it one in a folder of a group's, and may read it, could lock it, too."""
    mine, folder = tmp_path / "mine", tmp_path / "folder"
    mine.write_text("as it was")
    mine.chmod(mode)
    folder.mkdir()
    (folder / ".lock").hardlink_to(mine)
    theirs = os.open(mine, os.O_RDONLY)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    with closing(disk.Lock(folder, "busy")), pytest.raises(UsageError, match="busy"):
        disk.Lock(folder, "busy")
    os.close(theirs)
    assert (stat.S_IMODE(mine.stat().st_mode), mine.read_text()) == (mode, "as it was")
    assert list(folder.iterdir()) == []


def test_a_file_that_can_be_locked_keeps_its_rights_if_it_has_another_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.touch(0o644)
    mine.chmod(0o644)
    (tmp_path / "lock").hardlink_to(mine)
    os.close(disk.lock_file(tmp_path / "lock"))
    assert stat.S_IMODE(mine.stat().st_mode) == 0o644
    mine.unlink()
    os.close(disk.lock_file(tmp_path / "lock"))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_who_holds_a_lock() -> None:
    held = os.memfd_create("locked")  # what /proc/locks says of its device is the same everywhere
    other = os.open(f"/proc/self/fd/{held}", os.O_RDWR)
    assert disk.who_holds(other) == ""
    fcntl.flock(held, fcntl.LOCK_EX)
    assert disk.who_holds(other) == f" by process {os.getpid()}"
    os.close(held)
    assert disk.who_holds(other) == ""
    os.close(other)
