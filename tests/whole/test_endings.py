"""How bin/xlab ends when something goes wrong around it: a message, a status, and nothing left.

What goes wrong is real: the disk is a small one, the terminal is closed, the daemon is killed.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import REMOUNT, Command, Ended, in_private, on_a_disk, whole_records
from tests.support.labs import PATIENCE_S, comm_of, kill, machine
from xlab.kernel.processes import wait_until
from xlab.kernel.programs import remedy
from xlab.record import comparisons, result_files

pytestmark = pytest.mark.sandbox

#: Breaks as soon as its lab is there, so that a run is over within a second.
_BREAKS = """
from xlab.errors import XlabError
from xlab.scenario.scenario import Scenario

def build(lab, plan, size, settings, check):
    raise XlabError("so it is written")

SCENARIO = Scenario("breaks", "it breaks", (), lambda size, settings: None, build)
"""
_STOPPED = "the build stopped at breaks.py:6: so it is written"


@pytest.fixture
def breaks(tmp_path: Path) -> str:
    path = tmp_path / "breaks.py"
    path.write_text(_BREAKS)
    return str(path)


def assert_ended(command: Command, status: int, *said: str) -> Ended:
    """Its status, the whole of its error output by line, and no process, no file left."""
    ended = command.end()
    assert (ended.status, tuple(ended.stderr.splitlines())) == (status, said), ended
    assert "Traceback" not in ended.stdout
    command.await_alone()
    assert list(command.temporary.iterdir()) == []
    return ended


def assert_no_results(results: Path) -> None:
    assert list(results.iterdir() if results.exists() else []) == []


# -- signals ---------------------------------------------------------------------------------------


def in_a_lab(command: Command) -> bool:
    return command.first_process() is not None


SLOW = pytest.mark.slow
MOMENTS = [in_a_lab, pytest.param(Command.measures, marks=SLOW)]


def reach(command: Command, moment: Callable[[Command], bool]) -> None:
    def reached() -> bool:
        assert not command.ended(), command.end()
        return moment(command)

    wait_until(reached, timeout_s=PATIENCE_S, awaited=moment.__name__)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_pressed_again_and_again_takes_down_once(
    moment: Callable[[Command], bool], tmp_path: Path
) -> None:
    with Command("run", "baseline", "--quick", folder=tmp_path) as command:
        reach(command, moment)
        while not command.ended():
            command.signal(signal.SIGINT)
        # The last of them may be its end, when all is said and done: to a shell both are 130.
        assert_ended(command, -signal.SIGINT if command.end().status < 0 else 130, "interrupted")
    assert_no_results(tmp_path / "results")


@pytest.mark.parametrize("looks", [0, 5, 10, 20])
def test_ctrl_c_again_and_again_never_shows_a_traceback(looks: int, tmp_path: Path) -> None:
    """From the first moment on: before there is a handler, the signal itself is the end."""
    with Command("doctor", folder=tmp_path) as command:
        left = iter(range(looks))
        wait_until(
            lambda: comm_of(command.pid) == "python" and next(left, None) is None,
            timeout_s=PATIENCE_S,
            awaited="the moment",
        )
        while not command.ended():
            command.signal(signal.SIGINT)
        ended = command.end()
        assert ended.status in (0, 3, 130, -signal.SIGINT), ended
        assert "Traceback" not in ended.stderr
        command.await_alone()


#: bin/xlab without its shell, which has no say in what a signal does to Python.
_XLAB = (sys.executable, "-P", "-m", "xlab")


def test_sigterm_while_measuring(tmp_path: Path) -> None:
    with Command("run", "baseline", "--quick", folder=tmp_path) as command:
        reach(command, Command.measures)
        os.kill(command.pid, signal.SIGTERM)  # to it alone, as `kill` does
        assert_ended(command, 143, "interrupted by SIGTERM")
    assert_no_results(tmp_path / "results")


# -- the other end of the output -------------------------------------------------------------------

#: Takes its standard input as the terminal of its session, and becomes what the arguments say.
_ON_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@contextmanager
def on_a_terminal(
    folder: Path, *arguments: str, told: bool = True
) -> Iterator[tuple[Command, int]]:
    """A command with a terminal, and the end of it that whoever sits there has.

    It is told when the terminal is closed (SIGHUP), as the terminal's own session is.
    """
    ours, theirs = pty.openpty()
    with Command(
        *arguments, folder=folder, stdin=theirs, stdout=theirs,
        prefix=[sys.executable, "-c", _ON_A_TERMINAL] if told else (),
    ) as command:  # fmt: skip
        os.close(theirs)
        yield command, ours


@pytest.mark.parametrize(
    ("moment", "told"),
    [(in_a_lab, True), (in_a_lab, False), pytest.param(Command.measures, True, marks=SLOW)],
)
def test_a_terminal_that_is_closed(
    moment: Callable[[Command], bool], told: bool, tmp_path: Path
) -> None:
    """What is written to it fails, and that may come before SIGHUP does."""
    with on_a_terminal(tmp_path, "run", "baseline", "--quick", told=told) as (command, terminal):
        reach(command, moment)
        os.close(terminal)
        assert_ended(command, 129, "interrupted by SIGHUP")
    assert_no_results(tmp_path / "results")


def test_a_reader_that_has_read_enough(tmp_path: Path) -> None:
    """As `xlab run baseline | head -1` does."""
    read, write = os.pipe()
    with Command("run", "baseline", "--quick", folder=tmp_path, stdout=write) as command:
        os.close(write)
        assert os.read(read, 1)
        os.close(read)
        assert_ended(command, 128 + signal.SIGPIPE)
    assert_no_results(tmp_path / "results")


# -- disks -----------------------------------------------------------------------------------------


def written_by(command: str, breaks: str, folder: Path) -> tuple[str, ...]:
    """What makes that command write results within seconds, though nothing comes of its labs."""
    (folder / "two.yaml").write_text(
        f"methods: {breaks}\naxes: {{flows: [1, 2]}}\nquick: true\nrepeat: 3\n"
    )
    asked = {
        "run": (breaks,),
        "compare": (breaks, "--quick", "--repeat", "3"),
        "sweep": ("two.yaml",),
        "scale": (breaks, "--hosts", "2,3,4", "--repeat", "1"),
    }
    return (command, *asked[command], "--results", "disk")


@pytest.mark.parametrize(
    "asked", ["run", "compare", *(pytest.param(each, marks=SLOW) for each in ("sweep", "scale"))]
)
def test_a_disk_that_cannot_be_written_to_is_refused_at_once(
    asked: str, breaks: str, tmp_path: Path
) -> None:
    arguments = written_by(asked, breaks, tmp_path)
    with Command(*arguments, folder=tmp_path, prefix=on_a_disk("ro")) as command:
        ended = assert_ended(
            command, 2, "xlab: --results disk: cannot be written to; --results DIR writes elsewhere"
        )
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("size", "what"),
    [
        pytest.param(
            "nr_inodes=1", "breaks", marks=pytest.mark.slow
        ),  # the disk's own folder takes it
        ("nr_inodes=3", "breaks/raw"),
        pytest.param("nr_inodes=4", "breaks/raw/error.txt", marks=pytest.mark.slow),
        # Whether raw/error.txt, a traceback, has room depends on how long the checkout's path is.
        ("size=4k", r"breaks(?:/run\.json)?"),
    ],
)
def test_a_full_disk_leaves_no_half_a_record(
    size: str, what: str, breaks: str, tmp_path: Path
) -> None:
    disk = on_a_disk(size, then="find disk -mindepth 1 >left")
    with Command("run", breaks, "--results", "disk", folder=tmp_path, prefix=disk) as command:
        ended = command.end()
        command.await_alone()
    assert ended.status == 1, ended
    assert re.fullmatch(rf"xlab: disk/\S+Z-{what}: No space left on device\n", ended.stderr), ended
    assert (tmp_path / "left").read_text() == ""
    # What it came to is told all the same.
    assert f"failed   {_STOPPED}" in ended.stdout


def test_a_disk_that_is_full_after_the_record_has_the_record(breaks: str, tmp_path: Path) -> None:
    disk = on_a_disk("size=24k", then="cp -a disk copy")
    with Command("run", breaks, "--results", "disk", folder=tmp_path, prefix=disk) as command:
        ended = command.end()
        command.await_alone()
    assert ended.status == 1, ended
    full = r"xlab: disk/\S+Z-breaks/report\.\w+: No space left on device\n"
    assert re.fullmatch(full, ended.stderr), ended
    (found,) = whole_records(tmp_path / "copy")
    assert found.reason == _STOPPED
    assert not list((tmp_path / "copy").glob(".*"))


def test_a_disk_that_becomes_read_only_meanwhile(breaks: str, tmp_path: Path) -> None:
    """As the kernel does when a disk has errors."""
    waits = "    lab.hosts[0].run(['sleep', '1000'], check=False, timeout_s=1000)\n    raise"
    Path(breaks).write_text(_BREAKS.replace("    raise", waits))
    os.mkfifo(tmp_path / "go")
    os.mkfifo(tmp_path / "gone")
    disk = on_a_disk("size=1m", meanwhile=f"read _ <go; {REMOUNT},ro disk; echo >gone")
    with Command("run", breaks, "--results", "disk", folder=tmp_path, prefix=disk) as command:
        reach(command, waiting)
        (tmp_path / "go").write_text("\n")
        (tmp_path / "gone").read_text()
        kill_one(command, "sleep")
        ended = command.end()
    assert ended.status == 1, ended
    assert re.fullmatch(r"xlab: disk/\S+Z-breaks: Read-only file system\n", ended.stderr), ended


#: How much room there is, and what of a comparison, a sweep or a scale has none.
_FULL = [
    pytest.param("scale", "nr_inodes=1", "scale-breaks", marks=pytest.mark.slow),
    ("scale", "nr_inodes=3", "scale-breaks/scale.json"),
    pytest.param("compare", "nr_inodes=1", "compare", marks=pytest.mark.slow),
    ("compare", "nr_inodes=3", "compare/journal.jsonl"),
    pytest.param("compare", "nr_inodes=5", r"compare/\S+/b1/raw", marks=pytest.mark.slow),
    # Where exactly depends on how long paths are, and on the tools of this machine.
    pytest.param("compare", "size=8k", r"compare/\S+", marks=pytest.mark.slow),
    pytest.param("compare", "size=24k", r"compare/\S+", marks=pytest.mark.slow),
    ("compare", "size=48k", r"compare(?:/\S+)?"),
    pytest.param("sweep", "nr_inodes=1", "sweep", marks=pytest.mark.slow),
    pytest.param("sweep", "nr_inodes=4", "sweep/sweep.yaml", marks=pytest.mark.slow),
    pytest.param("sweep", "nr_inodes=5", r"sweep/dask\S*", marks=pytest.mark.slow),
    pytest.param("sweep", "size=4k", r"sweep/points/\S+/compare.json", marks=pytest.mark.slow),
    pytest.param("sweep", "size=16k", r"sweep(?:/\S+)?", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("asked", "size", "what"), _FULL)
def test_whatever_is_on_a_full_disk_is_whole(
    asked: str, size: str, what: str, breaks: str, tmp_path: Path
) -> None:
    # A machine measures one sweep of a user's at a time; what is one the network tells.
    disk = on_a_disk(size, "--net", then="cp -a disk copy")
    arguments = written_by(asked, breaks, tmp_path)
    with Command(*arguments, folder=tmp_path, prefix=disk) as command:
        ended = command.end()
        command.await_alone()
        assert list(command.temporary.iterdir()) == []
    assert ended.status == 1, ended
    assert "Traceback" not in ended.stdout
    if asked == "scale":
        assert "result   failed" in ended.stdout
    *before, last = ended.stderr.splitlines()
    where = rf"(?:{tmp_path}/)?disk/[^ /]+Z-{what}"
    assert re.fullmatch(rf"xlab: {where}: No space left on device", last), ended
    assert len(before) <= 1
    for line in before:
        assert re.fullmatch(rf"\d \w+ (is|are) kept; to go on: \S+ {asked} --resume \S+", line)
    assert_all_whole(tmp_path / "copy")


def assert_all_whole(results: Path) -> None:
    for file in results.rglob("*"):
        assert not file.name.startswith("."), file
        if file.is_dir():
            continue
        content = file.read_bytes()
        assert content, file
        if file.suffix == ".json":
            json.loads(content)
        elif file.suffix == ".jsonl":
            assert content.endswith(b"\n")
            assert all(json.loads(line) for line in content.splitlines())
        elif file.suffix == ".html":
            assert content.rstrip().endswith(b"</html>")


@pytest.mark.slow
def test_a_comparison_goes_on_when_there_is_room_again(breaks: str, tmp_path: Path) -> None:
    disk = in_private(
        "mkdir disk && mount -t tmpfs -o size=8k small disk || exit 99\n"
        f'"$@"; {REMOUNT},size=2m disk\n'
        '"$1" compare --resume disk/*; status=$?; cp -a disk copy; exit $status'
    )
    arguments = written_by("compare", breaks, tmp_path)
    with Command(*arguments, folder=tmp_path, prefix=disk) as command:
        ended = command.end()
        command.await_alone()
    assert ended.status == 1, ended
    assert len(ended.stderr.splitlines()) == 2, "of the first time alone"
    (folder,) = (tmp_path / "copy").iterdir()
    found = comparisons.load(folder)
    assert (found.sessions, found.ending) == (2, "alone")
    assert found.methods[1].reason == _STOPPED
    assert len(result_files.find([folder])) == sum(len(method.builds) for method in found.methods)
    assert_all_whole(tmp_path / "copy")


def kill_one(command: Command, name: str) -> None:
    pid = command.daemon(name)
    assert pid is not None
    kill(pid)


def waiting(command: Command) -> bool:
    return command.daemon("sleep") is not None


# -- what dies, and what is not there --------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "daemon", "said"),
    [
        ("ovs-gre", "ovs-vswitchd", "ovs-vswitchd has ended (status -9)"),
        pytest.param("ovs-gre", "ovsdb-server", "ovsdb-server has ended (status -9)", marks=SLOW),
        pytest.param("weave", "xlab.weave", "has ended (status -9)", marks=SLOW),
    ],
)
def test_a_daemon_that_dies_while_measuring(
    scenario: str, daemon: str, said: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if scenario == "ovs-gre":
        request.getfixturevalue("open_vswitch")
    with Command("run", scenario, "--quick", folder=tmp_path) as command:
        reach(command, Command.measures)
        kill_one(command, daemon)
        ended = assert_ended(command, 1)
    (found,) = whole_records(tmp_path / "results")
    first, *tail = found.reason.splitlines()
    assert found.status == "failed"
    assert re.fullmatch(rf"h[12]: .*{re.escape(said)}.*", first)
    assert tail[0] == "--- last lines of its log"
    assert len(tail) > 1
    assert said in ended.stdout
    assert found.measurements == () or found.path is not None
    (error,) = (tmp_path / "results").glob("*/raw/error.txt")
    assert first in error.read_text()


#: As if the programs of a name were not installed: below, all but those is as it was.
_HIDDEN = """
mkdir layers && mount -t tmpfs layers layers || exit 99
for folder in /usr/bin /usr/sbin; do
    mkdir -p layers$folder/upper layers$folder/work
    layers=lowerdir=$folder,upperdir=$PWD/layers$folder/upper,workdir=$PWD/layers$folder/work
    mount -t overlay -o $layers overlay $folder || exit 99
    rm -f $folder/{tool} $folder/{tool}-*
done
exec "$@"
"""


@pytest.mark.parametrize(
    ("tool", "scenario", "missing"),
    [
        ("ip", "bridge", "ip"),
        pytest.param("catatonit", "baseline", "catatonit", marks=SLOW),
        ("iptables", "bridge", "iptables-restore"),
        pytest.param("ovs-vswitchd", "ovs-gre", "ovs-vswitchd", marks=SLOW),
        pytest.param("ovsdb-server", "ovs-gre", "ovsdb-server", marks=SLOW),
        pytest.param("ping", "baseline", "ping", marks=SLOW),
        pytest.param("iperf3", "baseline", "iperf3", marks=SLOW),
    ],
)
def test_a_tool_that_is_not_installed(
    tool: str, scenario: str, missing: str, tmp_path: Path
) -> None:
    overlay = machine().overlayfs
    if not overlay.usable:
        pytest.skip(f"{overlay.name}: {overlay.detail}")
    # Not bin/xlab, which would install it.
    hidden = in_private(_HIDDEN.format(tool=tool))
    arguments = ("run", scenario, "--quick")
    with Command(*arguments, folder=tmp_path, prefix=hidden, program=_XLAB) as command:
        package = remedy(missing).rpartition(" ")[2]
        ended = assert_ended(command, 3, f"missing: {package}; to install: xlab setup")
    (found,) = whole_records(tmp_path / "results")
    assert found.status == "skipped"
    assert found.reason == f"`{missing}` is not installed; {remedy(missing)}"
    assert f"skipped  `{missing}` is not installed" in ended.stdout
    assert remedy(missing).startswith("sudo apt-get install ")
