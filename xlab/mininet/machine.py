"""What Mininet's nodes stand on: nodes of the lab's engine, and programs started in them.

    root    the sandbox's own namespaces: where Mininet's switches, and nodes that are not "in a
            namespace", live
    hosts   a network, a mount and a UTS namespace each.  Files and processes are everybody's, as
            Mininet has it: a script reads in /tmp what a host wrote there, and knows its process
            numbers

A script's main thread never enters a node.  Ctrl-C raises KeyboardInterrupt in it anywhere, which
could leave it in the wrong namespace, and entering a mount namespace moves the working directory.
Whatever must be done inside is done by one other thread (`inside`).
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

from xlab.errors import CapabilityError, CommandError, UsageError
from xlab.kernel import namespaces, processes, reaping, signals, syscalls, sysctls
from xlab.kernel.namespaces import Namespaces
from xlab.kernel.netlink import Rtnl
from xlab.lab.lab import Host
from xlab.lab.node import Node
from xlab.sandbox import sandbox

_Result = TypeVar("_Result")

#: Commands that replace the machine's for what a script starts; there may be none.
COMMANDS = Path("/run/xlab-bin")


class Root(Node):
    """The sandbox's own namespaces as a node."""

    def boot(self) -> None:
        self._settings = sysctls.open_folder()
        self.namespaces = namespaces.home()
        self._is_on = True
        with self.entered():
            self._write_settings()
            self.rtnl = Rtnl()
        self._address = None
        self._furnished = True
        self._init = None

    def inhabited(self) -> Namespaces:
        return self.namespaces

    def close(self) -> None:
        """It is not ours to end."""


class Machine(Host):
    """A Mininet host: a network and a name of its own, and everybody's files and processes."""

    def inhabited(self) -> Namespaces:
        with self._lock:
            self._furnish_once()
        return self.namespaces

    def _furnish(self) -> None:
        with self.entered():
            sandbox.mount_sys(rootless=sandbox.kind() == "rootless")
            _hide_nameservers()


def _hide_nameservers() -> None:
    """No nameserver can be reached from a lab, and each name would take seconds not to be found.

    A resolver without one asks 127.0.0.1, which refuses at once (resolv.conf(5)).
    """
    configuration, empty = Path("/etc/resolv.conf"), Path("/run/xlab-resolv.conf")
    if configuration.exists():
        empty.touch()
        syscalls.mount(str(empty), str(configuration), flags=syscalls.MS_BIND)


@functools.cache
def root() -> Root:
    """The one of this sandbox."""
    node = inside(lambda: Root("root"))
    atexit.register(node.rtnl.close)
    return node


# -- the thread that goes inside -------------------------------------------------------------------


def inside(work: Callable[[], _Result]) -> _Result:
    """What `work` returns, done by a thread that may enter nodes; errors are raised here."""
    if threading.current_thread().name.startswith(_WORKER):
        return work()
    return _workers().submit(work).result()


_WORKER = "inside"


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=_WORKER, initializer=signals.deafen)


# -- programs --------------------------------------------------------------------------------------


class Program(subprocess.Popen[Any]):
    """A Popen whose program is reaped when it ends, and not when somebody asks for its status.

    In pid 1 `reaping.reap` takes every child's.  Elsewhere a zombie would keep a container from
    ending.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._ended = threading.Event()
        self._then: list[Callable[[], object]] = []
        with reaping.births() as told:
            super().__init__(*arguments, **options)
            told[self.pid] = self._end

    def _end(self, status: int) -> None:
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()
        self._go_on()

    def then(self, do: Callable[[], object]) -> None:
        """Have `do` called when it has ended, on whichever thread learns of it."""
        self._then.append(do)
        if self._ended.is_set():
            self._go_on()

    def _go_on(self) -> None:
        while self._then:
            with suppress(IndexError):  # the other thread was faster
                self._then.pop()()

    def poll(self) -> int | None:
        return self.returncode if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return int(self.returncode)


def start(node: Node, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """A program in a node, with `subprocess.Popen`'s options, in a session of its own.

    One that cannot be started ends with status 127 or 126 and says so, as in a shell.
    """
    options.setdefault("cwd", sandbox.current_folder())
    options.setdefault("env", environment())
    options.setdefault("start_new_session", True)

    def begin() -> subprocess.Popen[Any]:
        with namespaces.entered(node.inhabited()):
            try:
                return Program(argv, **options)
            except OSError:
                # No such program, or none that may be executed; or the folder is not seen here.
                folder = options["cwd"] if Path(options["cwd"]).is_dir() else "/"
                return Program(["env", "--", *argv], **{**options, "cwd": folder})

    program = inside(begin)
    # Not from within: a new thread shares the working directory, and could not leave with it.
    reaping.see_to(program.pid)
    return program


def environment() -> dict[str, str]:
    """What programs get: tools speak English, since Mininet reads what they print."""
    path = f"{COMMANDS}:{processes.search_path()}"
    return {**os.environ, "LC_ALL": "C.UTF-8", "PATH": path}


# -- what nodes are asked for ----------------------------------------------------------------------


def address_of(node: Node, device: str) -> IPv4Interface | None:
    """The first IPv4 address on an interface; None without one, or without the interface."""
    if not node.rtnl.has(device):
        return None
    return inside(lambda: node.device_address(device))


def mac_of(node: Node, device: str) -> str | None:
    """The hardware address of an interface; None without the interface."""
    return inside(lambda: node.mac_address(device)) if node.rtnl.has(device) else None


def is_up(node: Node, device: str) -> bool:
    """Whether an interface is switched on (IFF_UP); False if there is none of that name."""
    return node.rtnl.has(device) and inside(lambda: node.is_up(device))


def configure(node: Node, *argv: str) -> str:
    """What a configuration tool has to complain about; "" if it did its work."""
    try:
        inside(lambda: node.configure(argv))
    except CommandError as error:
        return error.stderr or str(error)
    return ""


# -- other machines -------------------------------------------------------------------------------

#: Of mininet.examples.cluster; `mn` imports them, and makes one with --cluster.
_CLUSTERS = ("RemoteMixin", "RemoteLink", "MininetCluster")


def refuse_clusters(kind: type[Any]) -> None:
    """Make a class of `mininet.examples.cluster` refuse to be used, before it calls ssh."""
    if not any(base.__name__ in _CLUSTERS for base in kind.__mro__):
        return

    def refuse(_self: object, *_: object, **__: object) -> None:
        raise CapabilityError(
            f"{kind.__name__}: no other machine can be reached from inside a sandbox",
            "a host of Mininet's own is as far away as its links say",
        )

    kind.__init__ = refuse


# -- private folders -------------------------------------------------------------------------------


def make_private(node: Node, folder: str, source: str | None) -> None:
    """In this node alone `folder` is `source`, or an empty folder in memory (mount(8)).

    Where there is no such folder yet, it comes to be in this node's view only.
    """

    def mount() -> None:
        with namespaces.entered(node.inhabited()):
            _provide(Path(folder))
            if source is None:
                syscalls.mount("tmpfs", folder, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
            else:
                Path(source).mkdir(parents=True, exist_ok=True)
                syscalls.mount(source, folder, flags=syscalls.MS_BIND | syscalls.MS_REC)

    inside(mount)


def _provide(folder: Path) -> None:
    """Make `folder` without touching the disk: a folder in memory, with all that its parent holds.

    Everything in the nearest folder above that exists is bound into an empty file system, which
    then takes that folder's place.
    """
    if folder.is_dir() or any(folder.is_relative_to(own) for own in ("/run", "/tmp")):
        folder.mkdir(parents=True, exist_ok=True)
        return
    above = next(parent for parent in folder.parents if parent.is_dir())
    if above == Path("/"):
        raise UsageError(f"privateDirs: {folder} is to be at the top, where nothing can be added")
    stage = Path("/run/xlab-stage")
    stage.mkdir(exist_ok=True)
    syscalls.mount("tmpfs", str(stage), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
    for entry in above.iterdir():
        place = stage / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
            continue
        if entry.is_dir():
            place.mkdir()
        else:
            place.touch()
        syscalls.mount(str(entry), str(place), flags=syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount(str(stage), str(above), flags=syscalls.MS_MOVE)
    folder.mkdir(parents=True)
