"""Namespaces held by descriptors, made and entered by threads of one process.

    pid 1 of the sandbox ──┬── thread in h1's namespaces ── vfork ── ping
                           ├── thread in h2/c1's ── a socket made here belongs to h2/c1 for good
                           └── descriptors: (net, uts) of every node, (mnt, pid) of the inhabited

A node costs no process: a thread unshares, keeps the descriptors and goes home.  (Pinning a
mount namespace by bind mount instead fails at random with EINVAL on some kernels.)  A child
inherits the namespaces of the thread that starts it, so running a program "in" a node needs no
helper either.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xlab.kernel import syscalls
from xlab.kernel.netlink import Rtnl


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Open descriptors of a node's namespaces; where there is none the controller's own is meant.

    `mnt` and `pid` come with the first program: a mount namespace is a copy of every mount, and
    most nodes of a large lab never run any.
    """

    net: int
    uts: int
    mnt: int | None = None
    pid: int | None = None

    def close(self) -> None:
        for descriptor in (self.net, self.uts, self.mnt, self.pid):
            if descriptor is not None:
                os.close(descriptor)


class _ThreadState(threading.local):
    """Which namespaces this thread has entered; None means those of the controller."""

    inside: Namespaces | None = None


_thread = _ThreadState()

#: Descriptors of 1,000 hosts with two containers each, at 8 bytes apiece.
_ROOM = 16384
_home: Namespaces | None = None


def remember_home() -> None:
    """Take the calling thread's namespaces as those to return to; once, when pid 1 starts."""
    global _home
    _home = current()
    _make_room_for_descriptors()


def current() -> Namespaces:
    """Descriptors of the calling thread's namespaces, as they are now."""
    return Namespaces(
        net=_open("/proc/thread-self/ns/net"),
        uts=_open("/proc/thread-self/ns/uts"),
        mnt=_open("/proc/thread-self/ns/mnt"),
        pid=_open("/proc/thread-self/ns/pid_for_children"),
    )


def create(hostname: str, *, prepare: Callable[[], None] = lambda: None) -> tuple[Namespaces, Rtnl]:
    """New network and UTS namespaces with `lo` up, and the rtnetlink socket of the former.

    `prepare` runs in them before anything else does.
    """
    _unshare_working_directory()
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS)
    opened: list[int] = []
    try:
        opened += (_open(f"/proc/thread-self/ns/{each}") for each in ("net", "uts"))
        net, uts = opened
        namespaces = Namespaces(net=net, uts=uts)
        socket.sethostname(hostname)
        prepare()
        rtnl = Rtnl()
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    finally:
        _go(_thread.inside or home())
    rtnl.now.set_up("lo")
    return namespaces, rtnl


def with_own_mounts(namespaces: Namespaces) -> Namespaces:
    """The same with a mount namespace, a copy of the one they were in."""
    with entered(namespaces):
        syscalls.unshare(syscalls.CLONE_NEWNS)
        return dataclasses.replace(namespaces, mnt=_open("/proc/thread-self/ns/mnt"))


@contextmanager
def entered(namespaces: Namespaces) -> Iterator[None]:
    """The calling thread, and the children it starts, are in `namespaces` until the block ends.

    No thread may be started inside: the kernel refuses CLONE_THREAD while the PID namespace for
    children differs from the thread's own.
    """
    _unshare_working_directory()
    before = _thread.inside
    way_back = before or home()
    _go(namespaces)
    _thread.inside = namespaces
    try:
        yield
    finally:
        _thread.inside = before
        _go(way_back)


def inside() -> bool:
    """Whether this process is in a sandbox, and has a home there."""
    return _home is not None


def home() -> Namespaces:
    """The controller's own namespaces."""
    assert _home is not None, "remember_home() has not run in this process"
    return _home


def _go(namespaces: Namespaces) -> None:
    syscalls.setns(namespaces.net, syscalls.CLONE_NEWNET)
    syscalls.setns(namespaces.uts, syscalls.CLONE_NEWUTS)
    pid = namespaces.pid if namespaces.pid is not None else home().pid
    mnt = namespaces.mnt if namespaces.mnt is not None else home().mnt
    assert pid is not None
    assert mnt is not None
    syscalls.setns(pid, syscalls.CLONE_NEWPID)
    # Last: it also moves the thread's root and working directory.
    syscalls.setns(mnt, syscalls.CLONE_NEWNS)


def _unshare_working_directory() -> None:
    # A mount namespace can be changed only by a thread that shares its root and working directory
    # with no other (EINVAL otherwise, setns(2)).  A new thread shares its creator's, so this is
    # asked for every time; for a thread that is alone already the kernel does nothing.
    syscalls.unshare(syscalls.CLONE_FS)


def _make_room_for_descriptors() -> None:
    """Grow the table of descriptors now, while one thread uses it.

    The kernel doubles it when it is full, and among threads that waits for every CPU to pass a
    quiet state (expand_fdtable, synchronize_rcu): some 5 ms, at 64, 128, 256 … descriptors.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(fcntl.fcntl(home().net, fcntl.F_DUPFD_CLOEXEC, min(limit, _ROOM) - 1))


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def map_to_root(uid: int, gid: int) -> None:
    """In a user namespace that has just been made, root is the user with these numbers outside."""
    # setgroups must be denied before an ordinary user may map a gid, user_namespaces(7).
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        Path("/proc/self", file).write_text(text)
