"""Whoever goes into a lab of strangers' work shows nothing of theirs to whom they meet there."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.labs import PATIENCE_S
from tests.support.ordinary import ordinary_user
from tests.support.world import World, usual_signals
from xlab.kernel.processes import wait_until

pytestmark = pytest.mark.sandbox

_FIXTURES = (usual_signals,)

#: Starts one as `xlab lab grade --keep` does.
_UP = """
import sys
from pathlib import Path
# A lab's /tmp is its own.
sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to("/tmp")]
from xlab.outside import starting
from xlab.sandbox.containment import Limits
from xlab.scenario.request import Request
starting.up(Request("bridge"), name="kept", until="hosts", guarded=True, limits=Limits())
print(sys.executable)
"""

#: The command line of whom has something to lose: a key, a secret in the environment, a file open.
_TEACHER = """
import ctypes, os, platform, sys
libc = ctypes.CDLL(None)
add_key, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
libc.syscall(keyctl, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(add_key, b"user", b"planted-key", b"x", 1, -3)
os.environ["PLANTED"] = "planted-secret"
os.set_inheritable(os.open(".", os.O_RDONLY), True)
from xlab.cli import main
sys.exit(main(sys.argv[sys.argv.index("--xlab") + 1:]))
"""

#: What a program finds that has been put in the place of bash.
_FINDS = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
keyctl = 250 if platform.machine() == "x86_64" else 219
def tried(call, *arguments):
    return errno.errorcode[ctypes.get_errno()] if call(*arguments) < 0 else "done"
print("environment:", *sorted(os.environ))
print("descriptors:", *(n for n in range(100) if os.path.exists(f"/proc/self/fd/{n}")))
print("keyctl:", tried(libc.syscall, keyctl, 10, -3, b"user", b"planted-key", 0))
print("TIOCSTI:", tried(libc.ioctl, 0, 0x5412, b"#"))
print("TIOCLINUX:", tried(libc.ioctl, 0, 0x541C, bytes([2])))
try:
    print("terminal:", os.fstat(os.open("/dev/tty", os.O_RDWR)) and os.fstat(0).st_rdev)
except OSError as error:
    print("terminal:", errno.errorcode[error.errno])
with open("/proc/self/status") as status:
    print(*(line.split()[1] for line in status if line.startswith(("NoNewPrivs", "Seccomp:"))))
"""
_ENVIRONMENT = "HOME LANG LOGNAME PATH TERM USER"


class Kept:
    def __init__(self, world: World, python: str) -> None:
        self.world = world
        self.python = python
        self.teacher = [*world.python, "-c", _TEACHER, "--xlab"]

    def finds(self, node: str = "h1") -> list[str]:
        return [*self.teacher, "exec", node, "--", self.python, "-I", "-S", "-c", _FINDS]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with ordinary_user(tmp_path_factory.mktemp("kept")) as (python, folder):
        world = World(python, folder)
        try:
            up = subprocess.run(
                [*world.python, "-c", _UP],
                cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                env={**world.environment(), "PLANTED": "planted-secret"},
            )  # fmt: skip
            assert (up.returncode, up.stderr) == (0, "")
            yield Kept(world, up.stdout.strip())
        finally:
            world.close()


def test_what_enters_has_nothing_of_whose_it_is(kept: Kept) -> None:
    done = subprocess.run(
        kept.finds(), cwd=kept.world.folder, stdin=subprocess.DEVNULL,
        env={**kept.world.environment(), "LANG": "C.UTF-8", "TERM": "dumb"},
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"environment: {_ENVIRONMENT}", "descriptors: 0 1 2", "keyctl: ENOSYS",
        "TIOCSTI: EPERM", "TIOCLINUX: EPERM", "terminal: ENXIO", "1 2",
    ]  # fmt: skip


def test_what_runs_there_by_itself_has_no_more(kept: Kept) -> None:
    """A script of a submission's, say: pid 1 is a fork of whoever had the lab left standing."""
    said = kept.world.say("exec", "--all", "--", "env")
    assert (said.status, said.stderr) == (0, "")
    names = {line.partition("=")[0] for line in said.stdout.splitlines() if "=" in line}
    assert names - {"LANG", "TERM"} == {"PATH", "LC_ALL", "TMPDIR"}


def test_the_terminal_is_not_ours(kept: Kept) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with kept.world.terminal(shell, size=(40, 132)) as terminal:
        terminal.type("PS1='@'' '\n")
        terminal.expect("@ ")
        before = terminal.line("stty -a", "@ ")
        rdev = terminal.line(f"{kept.python} -c 'import os; print(os.fstat(0).st_rdev)'", "@ ")
        program = kept.world.folder / "look"
        program.write_text(f"#!/bin/sh\nexec {shlex.join(kept.finds())}\n")
        program.chmod(0o755)
        found = terminal.line("./look", "@ ")
        assert "TIOCSTI: EPERM" in found
        assert "TIOCLINUX: EPERM" in found
        assert "terminal: " in found
        assert f"terminal: {rdev}" not in found
        assert "terminal: E" not in found
        assert terminal.line("stty -a", "@ ") == before
        terminal.type("exit\n")
        assert terminal.end()[0] == 0


def test_a_shell_there_is_like_any(kept: Kept) -> None:
    prompt = "kept:h1:~# "
    argv = [*kept.world.xlab, "shell", "--name", "kept", "h1"]
    with kept.world.terminal(argv, size=(40, 132)) as shell:
        shell.expect(prompt)
        assert shell.line("stty size", prompt) == "40 132"
        shell.type("sleep 1000; echo said $?\n")
        wait_until(
            lambda: kept.world.say("exec", "h1", "--", "pidof", "sleep").status == 0,
            timeout_s=PATIENCE_S, awaited="sleep",
        )  # fmt: skip
        shell.type("\x03")
        shell.expect("^C")
        shell.expect(prompt)
        shell.type("exit 3\n")
        assert shell.end()[0] == 3


def test_what_is_behind_a_pipe_has_the_terminal_as_it_was(kept: Kept) -> None:
    argv = [*kept.world.xlab, "exec", "h1", "--", "sh", "-c", 'stty -a >&2; echo rea""dy >&2; cat']
    with kept.world.terminal(["sh", "-c", f"{shlex.join(argv)} | sed s/typed/piped/"]) as terminal:
        assert " -echo " in terminal.expect("\r\nready")
        terminal.type("typed\n")
        assert terminal.expect("piped\r\n").count("typed") == 1
        terminal.type("\x04")
        assert terminal.end()[0] == 0


#: A reader of the terminal, in no session of whoever has it.
_LEAVES = """
trap '' HUP
exec 3<&0
setsid sh -c 'echo >/root/there; cat <&3 >/root/stolen; echo over >>/root/stolen' &
until [ -e /root/there ]; do :; done
"""


def test_what_is_left_behind_reads_nothing_that_is_typed_later(kept: Kept) -> None:
    with kept.world.terminal(["bash", "--norc", "--noprofile", "-i"]) as terminal:
        terminal.type("PS1='@'' '\n")
        terminal.expect("@ ")
        program = kept.world.folder / "leave"
        argv = [*kept.world.xlab, "exec", "h1", "--", "sh", "-c", _LEAVES]
        program.write_text(f"#!/bin/sh\nexec {shlex.join(argv)}\n")
        program.chmod(0o755)
        terminal.line("./leave", "@ ")
        waits = "until grep -q over /root/stolen; do :; done; cat /root/stolen"
        said = kept.world.say(
            "exec", "h1", "--", "timeout", f"{PATIENCE_S // 2}", "sh", "-c", waits
        )
        assert said.stdout == "over\n"
        terminal.type("exit\n")
        assert terminal.end()[0] == 0


#: Goes as far as the program is to be executed, and waits there.
_HALF_WAY = """
import os
from xlab.kernel import syscalls
from xlab.outside import running_lab
with running_lab.find("kept") as lab:
    doors = lab.enter("h1")
    told, tells = os.pipe()
    stays, ends = os.pipe()
    def come():
        doors.begin()
        def wait():
            os.close(ends)
            os.write(tells, b".")
            os.read(stays, 1)
            os._exit(0)
        child = syscalls.fork(wait)
        os.close(ends)
        os.waitpid(child, 0)
        os._exit(0)
    attendant = syscalls.fork(come)
    os.close(tells)
    assert os.read(told, 1) == b"."
    look = "cat /proc/*/environ; for p in /proc/[0-9]*; do ls $p/root/ $p/fd/; done"
    print(lab.run("h1", ["sh", "-c", look]).stdout)
    os.close(ends)
    assert os.waitpid(attendant, 0)[1] == 0
"""


def test_root_of_the_lab_sees_nothing_through_whoever_is_entering(kept: Kept) -> None:
    done = subprocess.run(
        [*kept.world.python, "-c", _HALF_WAY],
        cwd=kept.world.folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={**kept.world.environment(), "PLANTED": "planted-secret"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "planted-secret" not in done.stdout
    assert all(name not in done.stdout.split() for name in ("mnt", "boot", "lost+found"))


def test_captures_and_programs_go_on_as_ever(kept: Kept) -> None:
    said = kept.world.say("capture", "h1:lo", "--duration", "0.5", "-w", "seen.pcap")
    assert said.status == 0, said
    assert (kept.world.folder / "seen.pcap").stat().st_size == 24
    assert kept.world.say("exec", "h1", "--", "sh", "-c", "exit 5").status == 5
    assert kept.world.say("exec", "h1", "--", "cat", stdin="typed").stdout == "typed"
    said = kept.world.say("cli")
    assert said.status == 2
    assert "is a lab of strangers' work" in said.stderr
