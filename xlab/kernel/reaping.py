"""The duties of a sandbox's pid 1 towards its children, from their birth to their status.

Pid 1 inherits every orphan, so it must reap children it did not start; `subprocess` on the other
hand wants to wait for its own.  Both at once lose exit statuses.  Here one place reaps everything
(`reap`, called by the controller's loop on SIGCHLD) and hands the status to whom it belongs.

A program has been started when execve(2) is done, and whoever is root in a host can hold that up:
by a lease on the program (F_SETLEASE, fcntl(2)), for 45 s at a time; and for good by a SIGSTOP to
the child, which is in the host's PID namespace already, or by a file system of its own (fuse(4)).
So nothing waits for another program's start: while there is one, `reap` only leaves alone what
nobody is known to own.  And a start that does not go on is ended (`end_stuck`).

A process beside pid 1 in which somebody else's code runs has no orphans, but children that are not
ours to reap: there a thread waits for each of ours (`reap_only_own`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xlab.kernel import patience, signals

#: Held while a child is reaped: within it a number means the process that it meant.
lock = threading.Lock()
#: Who is told the wait status, by process number.
_told: dict[int, Callable[[int], None]] = {}
_reaps_everything = True


@dataclass(slots=True)
class _Birth:
    #: How often it was looked at so far.
    looks: int = 0
    #: Why it was, if it was, before it had begun.
    ended: str = ""


#: By the thread that is starting a child, whose owner may not be in `_told` yet.
_births: dict[int, _Birth] = {}

#: A child that is stopped in two looks, one after the other, is stopped for good.
_LOOK_S = 0.5
_LONGEST_S = patience.LONGEST_S


def reap_only_own() -> None:
    """In this process only programs started by `spawn` are reaped, and `reap` is not called."""
    global _reaps_everything
    _reaps_everything = False


def reaps_everything() -> bool:
    """Whether `reap` takes every child's status here, so that none may wait for its own."""
    return _reaps_everything


@contextmanager
def births() -> Iterator[dict[int, Callable[[int], None]]]:
    """Start a child meanwhile, and enter who is to be told its wait status, by its number.

    Until then `reap` takes no status whose owner is not known.  Any number may be started at once.
    A child blocks no signal, though its starter be deaf.  ChildProcessError if it was ended before
    it had begun, in words.
    """
    thread, birth = threading.get_native_id(), _Birth()
    with lock:
        _births[thread] = birth
    try:
        with signals.hearing():
            yield _told
    finally:
        with lock:
            del _births[thread]
        if _reaps_everything:
            reap()  # what it has left alone meanwhile
    if birth.ended:
        raise ChildProcessError(birth.ended)


def reap() -> None:
    """Reap every child that has ended, ours and adopted ones.  Never blocks.

    Adopted ones only if none is being started, which `births` makes up for.
    """
    while True:
        with lock:
            try:
                if _births:
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if ended is None:
                        return
                    if ended.si_pid not in _told:
                        _reap_owned()
                        return
                    pid, status = os.waitpid(ended.si_pid, os.WNOHANG)
                else:
                    pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            told = _told.pop(pid, None)
            if told is not None:
                told(status)


def _reap_owned() -> None:
    """The kernel shows one that has ended at a time, the same again and again."""
    for owned in list(_told):
        with suppress(ChildProcessError):
            pid, status = os.waitpid(owned, os.WNOHANG)
            if pid:
                _told.pop(pid)(status)


def see_to(pid: int) -> None:
    """Where `reap` is not called: have a child reaped, and its status told, as soon as it ends.

    A zombie whose parent is outside its PID namespace keeps that namespace's init from ending.
    """
    if not _reaps_everything:
        signals.start_deaf(threading.Thread(target=_reap_one, args=(pid,), daemon=True))


def _reap_one(pid: int) -> None:
    """Wait for one child and tell whom its status belongs to."""
    # It stays a zombie until the lock is held, so that nobody signals another process's number.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with lock:
        _, status = os.waitpid(pid, 0)
        _told.pop(pid)(status)


def end_stuck() -> NoReturn:
    """For a thread of pid 1's: end every child whose start somebody keeps from going on."""
    stopped: set[int] = set()
    while True:
        time.sleep(_LOOK_S)
        with lock:
            under_way = list(_births.items())
        before, stopped = stopped, set()
        for thread, birth in under_way:
            birth.looks += 1
            for child in _children(thread):
                if _is_stopped(child):
                    stopped.add(child)
                if child in before & stopped:
                    _end(child, thread, birth, "it was stopped before it had begun")
                elif birth.looks * _LOOK_S > _LONGEST_S:
                    _end(child, thread, birth, f"it had not begun within {_LONGEST_S:g} s")


def _end(child: int, thread: int, birth: _Birth, why: str) -> None:
    with lock:
        if _births.get(thread) is birth and child not in _told:
            birth.ended = why
            # Its starter, who waits in vfork(2), goes on then.
            os.kill(child, signal.SIGKILL)


def _children(thread: int) -> list[int]:
    """Those whom this thread of ours has started; none on a kernel that does not tell."""
    with suppress(OSError):
        return list(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return []


def _is_stopped(pid: int) -> bool:
    """By a signal, or by a tracer."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2]
        return fields[:1] in (b"T", b"t")
    return False
