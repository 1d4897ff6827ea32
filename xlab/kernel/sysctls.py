"""Settings below net., for many network namespaces at once.

    an instance of proc ── sys/net ── ipv4 of h1, ipv4 of h2, …      another ── ipv4 of h33, …

/proc/sys/net shows the namespace of whoever looks.  Each namespace has entries of its own there,
under the same name in the same folder: one hash chain, which every look-up walks (proc_sys_compare
in fs/proc/proc_sysctl.c).  Among 1,000 namespaces that is 0.3 ms a look-up, which makes the cost of
a lab grow with its square.  An instance of proc for every few of them keeps the chains short.

The calling thread must be in the network namespace that is meant.
"""

from __future__ import annotations

import os
import threading

from xlab.kernel import syscalls

#: An instance costs 50 us, a look-up in a chain of so many less than 10.
_SHARED_BY = 32

_lock = threading.Lock()
_folder: int | None = None
_users = 0


def open_folder() -> int:
    """A descriptor of some sys/net, for the caller to close; the namespace may be any."""
    global _folder, _users
    with _lock:
        if _folder is None or _users == _SHARED_BY:
            if _folder is not None:
                os.close(_folder)
            _folder, _users = _new_folder(), 0
        _users += 1
        return os.dup(_folder)


def read(folder: int, name: str) -> str:
    """What `sysctl -n NAME` prints; FileNotFoundError if this kernel has no such setting."""
    descriptor = os.open(_path(name), os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 4096).decode().strip()
    finally:
        os.close(descriptor)


def write(folder: int, name: str, value: int | str) -> None:
    """`sysctl -w NAME=VALUE`; OSError(EINVAL) if the kernel takes no such value."""
    descriptor = os.open(_path(name), os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, f"{value}\n".encode())
    finally:
        os.close(descriptor)


def _path(name: str) -> str:
    """Below sys/net; ValueError for what does not belong to a network namespace."""
    tree, _, rest = name.partition(".")
    if tree != "net" or not rest or "/" in rest:
        raise ValueError(f"{name} does not belong to a network namespace")
    return rest.replace(".", "/")


def _new_folder() -> int:
    proc = syscalls.detached_mount("proc")
    try:
        return os.open("sys/net", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    finally:
        os.close(proc)
