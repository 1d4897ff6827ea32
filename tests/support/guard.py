"""What tests leave standing when they are killed, as by timeout(1), ends all the same.

A lab that stays is a process of nobody's: a fixture takes it down, but not where pytest has been
ended by SIGTERM or SIGKILL, nor a thread of a test where it was interrupted.  A process beside it
waits for that, and kills what bears its mark.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

NAME = "XLAB_TESTED_BY"
_WATCH = """
import os, sys
from tests.support import guard
# Nobody's child: some tests look whether they have any.
if child := os.fork():
    print(child)
    os._exit(0)
os.setsid()
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
guard.watch(int(sys.argv[1]), sys.argv[2])
"""


class Guard:
    """A plugin; whoever registers it begins to be guarded."""

    def __init__(self) -> None:
        self._pid = begun()

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Tests that came to their end have taken down what they made, or failed."""
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            os.kill(self._pid, signal.SIGKILL)


def begun() -> int:
    """The guard's pid, to be killed at a good end.  What is started from here on bears the mark."""
    mark = os.environ[NAME] = str(uuid.uuid4())
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != NAME}
    started = subprocess.run(
        [sys.executable, "-u", "-c", _WATCH, str(os.getpid()), mark],
        cwd=root,
        env={**environment, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return int(started.stdout)


def watch(pid: int, mark: str) -> None:
    """Wait for the end of a process, then kill all that is left with its mark."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    else:
        select.select([descriptor], [], [])
    marked = f"{NAME}={mark}".encode()
    # What is being started meanwhile shows at the next look.
    while found := [each for each in _all() if marked in _environment(each)]:
        for each in found:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
