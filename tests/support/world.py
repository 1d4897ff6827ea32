"""Where a story of labs that stay is told: a network namespace of its own to start them from.

That is where their names are bound, so whatever else runs on this machine, only the labs of the
story are there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

import xlab.cli.screens.run
import xlab.outside.running_lab
from tests.support.labs import (
    PATIENCE_S,
    Marked,
    but_for_waiting,
    kill,
)
from tests.support.ordinary import ordinary_user
from tests.support.terminal import Terminal
from xlab import cli
from xlab.kernel import syscalls
from xlab.kernel.processes import wait_until

#: What the forks of this process need not import each for itself.
_IMPORTED = (xlab.cli.screens.run, xlab.outside.running_lab)

#: The command line, however Python is started.
_XLAB = """
import sys
from xlab.cli import main
sys.exit(main(sys.argv[sys.argv.index("--xlab") + 1:]))
"""

#: Holds a network namespace, and the user namespace that a person without root needs for that; in
#: it that person is who they were.
_HOLDER = """
import os, sys
from xlab.kernel import syscalls
uid, gid = os.geteuid(), os.getegid()
if uid:
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET)
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
else:
    syscalls.unshare(syscalls.CLONE_NEWNET)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    status: int
    stdout: str
    stderr: str


class World(Marked):
    """Where a story is told: nobody else's labs are here."""

    def __init__(self, python: Sequence[str] | None, folder: Path) -> None:
        """`python` is what to start Python with; ours unless given."""
        super().__init__()
        self.folder = folder
        self._forks = python is None
        self._holder = subprocess.Popen(
            [sys.executable, "-P", "-c", _HOLDER],
            env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self._holder.pid
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        join = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        if os.geteuid() != 0:
            join += [f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials"]
        self.python = [*join, "--", *(python or [sys.executable, "-P"])]
        self.xlab = [*self.python, "-c", _XLAB, "--xlab"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "COLUMNS": "100"}

    def say(self, *arguments: str, stdin: str = "") -> Said:
        """`xlab ARGUMENTS`, without a terminal."""
        if self._forks and not _leaves_a_lab(arguments):
            return self._say_at_once(arguments, stdin.encode())
        done = subprocess.run(
            [*self.xlab, *arguments],
            cwd=self.folder, env=self.environment(), input=stdin,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, but_for_waiting(done.stderr))

    def _say_at_once(self, arguments: Sequence[str], stdin: bytes) -> Said:
        """The same by a fork of this process, which saves Python's start.

        Not for what leaves a lab standing: the mark is what a program was started with.
        """
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            self._become_xlab(arguments, files)
        with closing(os.fdopen(os.pidfd_open(child))) as handle:
            assert select.select([handle], [], [], PATIENCE_S)[0], arguments
        _, status = os.waitpid(child, 0)
        out, err = (os.pread(file, 1 << 20, 0).decode() for file in files[1:])
        for file in files:
            os.close(file)
        assert "Traceback" not in err
        return Said(os.waitstatus_to_exitcode(status), out, but_for_waiting(err))

    def _become_xlab(self, arguments: Sequence[str], files: Sequence[int]) -> NoReturn:
        status = 1
        try:
            for kind in ("user", "net") if os.geteuid() else ("net",):
                with Path(f"/proc/{self.pid}/ns/{kind}").open() as opened:
                    syscalls.setns(opened.fileno(), 0)
            os.chdir(self.folder)
            os.environ.update(self.environment())
            for number, (file, mode) in enumerate(zip(files, "rww", strict=True)):
                os.dup2(file, number)
                name = ("stdin", "stdout", "stderr")[number]
                setattr(sys, name, os.fdopen(number, mode))
            status = cli.main(arguments)
            sys.stderr.flush()
        finally:
            os._exit(status)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, which goes on by itself."""
        return subprocess.Popen(
            [*self.xlab, *arguments],
            cwd=self.folder, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def terminal(self, argv: Sequence[str], **options: Any) -> Terminal:
        return Terminal(argv, folder=self.folder, environment=self.environment(), **options)

    def labs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.say("ps", "--json").stdout)
        return found

    def await_alone(self) -> None:
        """Wait until nothing of any lab is left."""
        wait_until(
            lambda: self.processes() == [self.pid],
            timeout_s=PATIENCE_S,
            awaited=f"the end of {self.processes()}",
        )

    def close(self) -> None:
        for pid in self.processes():
            kill(pid)
        self._holder.wait(PATIENCE_S)
        for stream in (self._holder.stdin, self._holder.stdout):
            assert stream is not None
            stream.close()


def _leaves_a_lab(arguments: Sequence[str]) -> bool:
    return arguments[0] == "up" or arguments[:2] in (("lab", "start"), ("lab", "reset"))


@pytest.fixture(autouse=True, scope="module")
def usual_signals() -> Iterator[None]:
    """Under nohup, or as a shell's background job, the tests start with signals ignored."""
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(None, tmp_path)
    yield made
    made.close()


@pytest.fixture
def ordinary_world(tmp_path: Path) -> Iterator[World]:
    """The same for a person without rights."""
    with ordinary_user(tmp_path) as (python, folder):
        made = World(python, folder)
        yield made
        made.close()
