"""Whether a sandbox can be made: a child makes its namespaces, uses them, and reports.

That a namespace can be created says little: Ubuntu allows it and then refuses every capability
inside.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xlab.errors import NetlinkError
from xlab.kernel import namespaces, patience, syscalls
from xlab.kernel.netlink import Rtnl
from xlab.kernel.patience import Patience


@dataclass(frozen=True, slots=True)
class Trial:
    """How far a child got in making a sandbox: `errno` 0 means all the way.

    `step` is the one that failed: "create", "map" (of user ids), "mount", "proc" or "loopback".
    """

    step: str = ""
    errno: int = 0
    #: Mounting an overlay file system inside; None if it was not tried.
    overlay_errno: int | None = None
    #: For how long the child waited for the kernel, in seconds.
    waited_s: float = 0.0


LIMIT_S = 30.0


def try_sandbox(*, rootless: bool, overlay: bool) -> Trial:
    """Let a child make the namespaces of a sandbox and use its capabilities inside them.

    It mounts a tmpfs, a /proc and, with `overlay`, an overlay file system, and brings `lo` up; all
    of it ends with the child.
    """
    receive, send = os.pipe2(os.O_CLOEXEC)
    child = syscalls.fork(lambda: _trial(send, rootless=rootless, overlay=overlay))
    os.close(send)
    limit = Patience(child, LIMIT_S)
    try:
        report = _read_until_end(receive, limit)
    finally:
        os.close(receive)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        # What waits for the kernel ends when that lets it, and holds nothing: Ctrl-C does not wait.
        os.waitpid(child, os.WNOHANG if patience.is_held_up(child) else 0)
    if not report:
        return Trial("create", errno.ETIMEDOUT, waited_s=limit.waited_s)
    return dataclasses.replace(Trial(**json.loads(report)), waited_s=limit.waited_s)


def _trial(report: int, *, rootless: bool, overlay: bool) -> NoReturn:
    """Runs in the forked child and its child; reports by one write and never returns."""
    trial = Trial("create", errno.EIO)
    try:
        # Whoever waits for the end of our output would wait for the kernel, too.
        os.closerange(0, report)
        os.closerange(report + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        uid, gid = os.geteuid(), os.getegid()
        user = syscalls.CLONE_NEWUSER if rootless else 0
        trial = _step(
            "create",
            lambda: syscalls.unshare(syscalls.NEW_NAMESPACES | user),
        )
        if rootless and not trial.errno:
            trial = _step("map", lambda: namespaces.map_to_root(uid, gid))
        if not trial.errno:
            # The next child is pid 1 of the new PID namespace: /proc can be mounted only there.
            first = os.fork()
            if first:
                os.waitpid(first, 0)
                os._exit(0)
            syscalls.die_with_parent()
            trial = _use_capabilities()
            if overlay and not trial.errno:
                attempt = _step("overlay", lambda: _mount_overlay(rootless=rootless))
                trial = dataclasses.replace(trial, overlay_errno=attempt.errno)
        os.write(report, json.dumps(dataclasses.asdict(trial)).encode())
    finally:
        os._exit(0)


def _step(name: str, attempt: Callable[[], None]) -> Trial:
    try:
        attempt()
    except (OSError, NetlinkError) as error:
        return Trial(name, error.errno or errno.EIO)
    return Trial()


def _use_capabilities() -> Trial:
    def mount_tmpfs() -> None:
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("tmpfs", "/tmp", "tmpfs")

    def mount_proc() -> None:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", "/proc", "proc", flags)

    def loopback_up() -> None:
        with closing(Rtnl()) as rtnl:
            rtnl.now.set_up("lo")

    steps = {"mount": mount_tmpfs, "proc": mount_proc, "loopback": loopback_up}
    tried = (_step(name, attempt) for name, attempt in steps.items())
    return next((trial for trial in tried if trial.errno), Trial())


def _mount_overlay(*, rootless: bool) -> None:
    """On the child's own tmpfs; an unprivileged overlay keeps its marks in user.* attributes."""
    for folder in ("lower", "upper", "work", "merged"):
        Path("/tmp", folder).mkdir()
    layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    options = f"{layers},userxattr" if rootless else layers
    syscalls.mount("overlay", "/tmp/merged", "overlay", data=options)


def _read_until_end(descriptor: int, limit: Patience) -> bytes:
    """What the writers of a pipe leave there; empty if they keep it open for longer than that."""
    content, announced = b"", False
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while not limit.passed():
        if limit.waited_s and not announced:
            announced = True
            patience.announce()
        if poller.poll(1000 * limit.turn_s()):
            piece = os.read(descriptor, 4096)
            if not piece:
                return content
            content += piece
    return b""
