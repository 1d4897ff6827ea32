"""How labs that stay are found: each listens on an abstract socket, a name without a file.

    /proc/net/unix    … 00010000 0001 01 81542 @xlab/1000/ovs-gre

The name is bound in the network namespace of whoever started the lab and vanishes with its pid 1,
so no file can be left behind, or be wrong about what runs.

Anyone may bind any such name, and never accept.  So nothing here waits: who connects learns at once
whose the socket is (SO_PEERCRED), and where the queue is full, as behind a lab of our own that has
been stopped, a process of ours is looked for that holds it.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from xlab.errors import SandboxError, UsageError, quoted

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

#: Of a socket that listens, in the Flags column of /proc/net/unix (linux/net.h).
_ACCEPTS = 0x10000
#: In its Type column: SOCK_STREAM.
_STREAM = "0001"

#: Of a name that is bound, and at which nobody listens: whose the socket is nobody tells.
_OCCUPIED = "the name {name!r} is taken by a socket that is no lab's: --name gives this lab another"

#: How many may wait for a lab to accept them.
BACKLOG = 128


def validated(name: str) -> str:
    """The name itself; UsageError if no lab can be called that."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no lab can be called {quoted(name)}: up to 63 letters, digits, '_', '.' and '-', "
            "the first a letter or a digit"
        )
    return name


def running() -> list[str]:
    """The names of our own labs that stay, sorted; somebody else's under our names are left out."""
    found, full = [], {}
    for name, inodes in _listed(_table(), os.geteuid()).items():
        try:
            connect(name).close()
            found.append(name)
        except BlockingIOError:
            full[name] = inodes
        except (UsageError, SandboxError):
            continue
    return sorted([*found, *(name for name, _ in _held(full))])


def option(name: str) -> str:
    """What a command line to be pasted needs to mean this lab: " --name NAME", or nothing."""
    return f" --name {name}" if len(running()) > 1 else ""


def reach(name: str) -> tuple[socket.socket | None, int]:
    """A stream socket to the controller of a lab that stays, and its pid 1's number; at once.

    None instead of the socket while its queue is full; 0 instead of the number if pid 1 is in no
    PID namespace of ours.  UsageError if there is no such lab, SandboxError if the name is somebody
    else's.
    """
    try:
        channel = connect(name)
    except BlockingIOError:
        for _, pid in _held(_inodes(name)):
            return None, pid
        raise _somebody_elses(name) from None
    return channel, credentials(channel)[0]


def connect(name: str, *, patience_s: float = 0.0) -> socket.socket:
    """A stream socket to the controller of a lab that stays; errors as `reach`.

    BlockingIOError if its queue is full, and stays so for `patience_s`.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # As long as connect(2) waits for room; by poll(2) that cannot be waited for.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience_s))
        channel.setblocking(patience_s > 0)
        channel.connect(address_of(name))
    except BlockingIOError:
        channel.close()
        raise
    except OSError as error:
        channel.close()
        raise UsageError(f"no lab named {quoted(name)} is running") from error
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))
    channel.setblocking(True)
    # Anyone may bind an abstract name.
    _, uid = credentials(channel)
    if uid != os.geteuid():
        channel.close()
        raise _somebody_elses(name, f" (uid {uid})")
    return channel


def process_of(name: str) -> int:
    """Pid 1 of a lab of ours, as a descriptor of pidfd_open(2), whether it answers or not.

    SandboxError if no process of ours is that lab's.
    """
    inodes = _inodes(name)
    for _, pid in _held(inodes):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            # Looked at again: before it was opened, another process may have got the number.
            if list(_labs_of(pid, inodes)) == [(name, pid)] and not has_ended(handle, within_s=0):
                return handle
            os.close(handle)
    raise SandboxError(f"the socket of lab {name!r} is held by no process known to be a lab's")


def is_ours(channel: socket.socket) -> bool:
    """Whether the peer runs under our own uid.

    In a user namespace the kernel translates: whoever is not mapped there is the overflow uid.
    """
    return credentials(channel)[1] == os.geteuid()


def credentials(channel: socket.socket) -> tuple[int, int]:
    """The peer's process number and uid (SO_PEERCRED, unix(7)); of a listener's, pid 1's."""
    told = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", told)
    return pid, uid


def listen(name: str) -> socket.socket:
    """Take a name; UsageError if it is taken."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address_of(validated(name)))
    except OSError as error:
        listener.close()
        raise UsageError(taken(name) or _OCCUPIED.format(name=name)) from error
    listener.listen(BACKLOG)
    return listener


def listen_as_ourselves(listener: socket.socket) -> None:
    """What SO_PEERCRED tells of a listener is who called listen(2) last (unix_listen)."""
    listener.listen(BACKLOG)


def taken(name: str) -> str:
    """By whom a name is taken, and what to do about it; empty if nobody listens there."""
    try:
        channel, _ = reach(name)
    except UsageError:
        return ""
    except SandboxError as error:
        return f"{error}: --name gives this lab another name"
    if channel is not None:
        channel.close()
    return (
        f"a lab named {name!r} is already running: `xlab down {name}` ends it, "
        "--name gives this one another name"
    )


def address_of(name: str) -> str:
    """The abstract socket address of a lab (the NUL stands for "no file")."""
    return f"\0xlab/{os.geteuid()}/{name}"


def open_log(listener: socket.socket) -> int:
    """A file in memory whose name says which lab the process is that holds it."""
    return os.memfd_create(f"{listener.getsockname().decode()[1:]}{_LOG}", os.MFD_CLOEXEC)


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _somebody_elses(name: str, who: str = "") -> SandboxError:
    return SandboxError(f"the name {name!r} is taken by somebody else's socket{who}")


# -- /proc -----------------------------------------------------------------------------------------


def _table() -> str:
    return Path("/proc/self/net/unix").read_text(errors="replace")


def _inodes(name: str) -> dict[str, set[str]]:
    return {name: _listed(_table(), os.geteuid()).get(name, set())}


def _listed(table: str, uid: int) -> dict[str, set[str]]:
    """The names of labs in /proc/net/unix, and the inodes of their sockets.

    Anyone may bind a name with spaces and line feeds in it, and the kernel shows it as it is: a
    whole line may be made up.
    """
    prefix = f"@xlab/{uid}/"
    found: dict[str, set[str]] = {}
    for line in table.split("\n")[1:]:
        if prefix not in line:
            continue
        columns = line.split(maxsplit=7)
        if len(columns) < 8 or not re.fullmatch("[0-9A-Fa-f]{8}", columns[3]):
            continue
        name = columns[7].removeprefix(prefix)
        if not int(columns[3], 16) & _ACCEPTS or columns[4] != _STREAM:
            continue
        if name != columns[7] and _NAME.fullmatch(name):
            found.setdefault(name, set()).add(columns[6])
    return found


def _held(listed: Mapping[str, set[str]]) -> Iterator[tuple[str, int]]:
    """Those of these labs that a process of ours holds, with pid 1's number."""
    if not listed:
        return
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield from _labs_of(int(entry.name), listed)


def _labs_of(pid: int, listed: Mapping[str, set[str]]) -> Iterator[tuple[str, int]]:
    """The lab that a process of ours is pid 1 of, if it is one of these; told by nobody but it."""
    folder = Path(f"/proc/{pid}")
    try:
        if folder.stat().st_uid != os.geteuid() or (folder / "comm").read_bytes() != b"xlab\n":
            return
        if not re.search(rb"^NSpid:.*\t1$", (folder / "status").read_bytes(), re.MULTILINE):
            return
        opened = {str(entry.readlink()) for entry in (folder / "fd").iterdir()}
    except OSError:
        return  # it has ended
    prefix, suffix = f"/memfd:{address_of('')[1:]}", f"{_LOG} (deleted)"
    for link in opened:
        name = link.removeprefix(prefix).removesuffix(suffix)
        if link == f"{prefix}{name}{suffix}" and name in listed:
            if any(f"socket:[{inode}]" in opened for inode in listed[name]):
                yield name, pid


#: Behind a lab's address the name of its log.
_LOG = " log"


def has_ended(handle: int, *, within_s: float) -> bool:
    """Whether a process has, by a descriptor of pidfd_open(2), or does meanwhile."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(within_s * 1e3))
