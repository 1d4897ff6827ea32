"""Stands for a process in a node among the children of the program that started it (api.py).

    program ── Popen ── proxy: joins the user and the PID namespace, forks ── waits
                         └── child: joins the rest, execs; killed with the proxy

To its parent the proxy is the process: it passes signals on and ends as that one ends, by the
same signal if by one.  Its standard streams are the child's alone.  The arguments are descriptors:
of a file with what is to be done, and of a pipe that is closed when the child has become what it is
to be; what kept it from that is written there before.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

from xlab.errors import CapabilityError
from xlab.sandbox import entering
from xlab.sandbox.containment import Limits
from xlab.sandbox.entering import Doors

#: What cannot be waited for, or is about us.
_NOT_PASSED_ON = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}

#: In `si_code`: sent by the kernel, as a terminal's Ctrl-C is (asm-generic/siginfo.h).
_SI_KERNEL = 0x80


def main() -> NoReturn:
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        file.seek(0)
        orders = json.load(file)
    begun = int(sys.argv[2])
    os.set_inheritable(begun, False)
    limits = orders["limits"] and Limits(**orders["limits"])
    doors = Doors(orders["doors"], rootless=orders["rootless"], limits=limits)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ours, theirs = os.pipe()
    try:
        kinds = doors.begin()
        # Fails with ENOMEM where pid 1 is gone, fork(2).
        child = os.fork()
    except (OSError, CapabilityError) as error:
        _complain(begun, entering.NOT_ENTERED, f"{orders['node']}: cannot be entered: {error}")
        os._exit(entering.NOT_ENTERED)
    if child == 0:
        # The pipe hangs up when all copies of this end are closed.
        os.close(ours)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        entering.become(
            doors,
            kinds,
            orders["argv"],
            node=orders["node"],
            folder=Path(orders["folder"]),
            env=orders["env"],
            orphaned=signal.SIGKILL,
            is_orphan=lambda: _hung_up(theirs),
            complain=lambda status, text: _complain(begun, status, text),
        )
    os.close(theirs)
    os.close(begun)
    doors.close()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    _end_as(_wait(child))


def _complain(pipe: int, status: int, text: str) -> None:
    os.write(pipe, json.dumps({"status": status, "text": text}).encode())


def _hung_up(pipe: int) -> bool:
    """Whether the other end of a pipe is closed; getppid(2) is 0 across PID namespaces anyway."""
    poller = select.poll()
    poller.register(pipe, 0)
    return bool(poller.poll(0))


def _wait(child: int) -> int:
    """Pass signals on until the child has ended; its wait status."""
    while True:
        told = signal.sigwaitinfo(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
        # The terminal has told the child, too, which is in our process group.
        if told.si_signo not in _NOT_PASSED_ON and told.si_code != _SI_KERNEL:
            os.kill(child, told.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status


def _end_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code)
