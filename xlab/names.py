"""How labs that stay are found: each listens on an abstract socket, a name without a file.

    /proc/net/unix    … 00010000 0001 01 81542 @xlab/1000/ovs-gre

The name is bound in the network namespace of whoever started the lab and vanishes with its pid 1,
so no file can be left behind, or be wrong about what runs.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

from xlab.errors import SandboxError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

#: Of a socket that listens, in the Flags column of /proc/net/unix (linux/net.h).
_ACCEPTS = 0x10000


def validated(name: str) -> str:
    """The name itself; UsageError if no lab can be called that."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"no lab can be called {name[:60]!r}: up to 63 letters, digits, '_', '.' and '-', "
            "the first a letter or a digit"
        )
    return name


def running() -> list[str]:
    """The names of our own labs that stay, sorted; somebody else's under our names are left out."""
    table = Path("/proc/self/net/unix").read_text(errors="replace")
    return sorted(name for name in _listed(table, os.geteuid()) if _answers(name))


def option(name: str) -> str:
    """What a command line to be pasted needs to mean this lab: " --name NAME", or nothing."""
    return f" --name {name}" if len(running()) > 1 else ""


def _listed(table: str, uid: int) -> set[str]:
    """The names of labs in /proc/net/unix.

    Anyone may bind a name with spaces and line feeds in it, and the kernel shows it as it is.
    """
    prefix = f"@xlab/{uid}/"
    found = set()
    for line in table.split("\n")[1:]:
        columns = line.split(maxsplit=7)
        if len(columns) < 8 or not re.fullmatch("[0-9A-Fa-f]{8}", columns[3]):
            continue
        name = columns[7].removeprefix(prefix)
        if int(columns[3], 16) & _ACCEPTS and name != columns[7] and _NAME.fullmatch(name):
            found.add(name)
    return found


def _answers(name: str) -> bool:
    try:
        connect(name).close()
    except (UsageError, SandboxError):
        return False
    return True


def connect(name: str) -> socket.socket:
    """A stream socket to the controller of a lab that stays; UsageError if there is none."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(address_of(name))
    except OSError as error:
        channel.close()
        raise UsageError(f"no lab named {name!r} is running") from error
    # Anyone may bind an abstract name.
    if not is_ours(channel):
        channel.close()
        raise SandboxError(f"the socket of lab {name!r} belongs to somebody else")
    return channel


def is_ours(channel: socket.socket) -> bool:
    """Whether the peer runs under our own uid (SO_PEERCRED, unix(7)).

    In a user namespace the kernel translates: whoever is not mapped there is the overflow uid.
    """
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.geteuid()


def listen(name: str) -> socket.socket:
    """Take a name; UsageError if a lab has it already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address_of(validated(name)))
    except OSError as error:
        listener.close()
        raise UsageError(f"a lab named {name!r} is already running") from error
    listener.listen(16)
    return listener


def address_of(name: str) -> str:
    """The abstract socket address of a lab (the NUL stands for "no file")."""
    return f"\0xlab/{os.geteuid()}/{name}"
