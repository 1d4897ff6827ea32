"""The few system calls that the standard library of Python 3.11 lacks, through one ctypes helper.

Each wrapper raises OSError with the call's name.  Flag values are the kernel's (linux/sched.h,
linux/mount.h, linux/prctl.h); only those in use are listed.  `fork` is os.fork() made safe from
signals.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

from xlab.kernel import signals
from xlab.kernel.clock import Deadline

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_FS = 0x00000200
#: What a sandbox has of its own, beside a user namespace unless it is root's.
NEW_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

#: The same numbers on every architecture that Linux 5.12 and later runs on.
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT, _SYS_MOUNT_SETATTR = 430, 431, 432, 442
_SYS_OPENAT2 = 437
#: That of older calls differs: of x86-64, and of those that came later (asm-generic/unistd.h).
_SYS_PIVOT_ROOT, _SYS_KEYCTL = (155, 250) if platform.machine() == "x86_64" else (41, 219)
_KEYCTL_JOIN_SESSION_KEYRING = 1
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOEXEC = 2, 4, 8
_RESOLVE_BENEATH = 0x08
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1

_MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

#: Of classic BPF (struct sock_filter, linux/filter.h): code, jt, jf, k.
Instruction: TypeAlias = tuple[int, int, int, int]

#: How long a mount that is to become read-only may be written to.
_BUSY_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object, subject: str = "") -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}", subject or None)
    return result


def _syscall(number: int, *arguments: object, subject: str = "") -> int:
    """One that libc has no function for."""
    return _call("syscall", ctypes.c_long(number), *arguments, subject=subject)


def fork(child: Callable[[], NoReturn]) -> int:
    """Start a child that does what `child` does and ends with it; its process number.

    A handler of the caller's never runs in it: such signals have their default action there.
    """
    with signals.held_off() as mask:
        pid = os.fork()
        if pid == 0:
            try:
                for number in signal.valid_signals():
                    if callable(signal.getsignal(number)):
                        signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                child()
            finally:
                os._exit(1)
    return pid


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (unshare(2)).

    CLONE_NEWUSER is refused in a process with several threads, CLONE_NEWNS in a thread that shares
    its working directory with others: such a thread calls `unshare(CLONE_FS)` first.
    """
    _call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that `fd` refers to (setns(2))."""
    _call("setns", fd, kind)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); an empty `kind` or `data` is passed as NULL."""
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
        subject=target,
    )


def open_beneath(folder: int, path: str, flags: int) -> int:
    """A descriptor of what `path` leads to from a folder that is held (openat2(2)).

    EXDEV where that is outside of it: by an absolute path, by `..`, by a link.
    """

    class How(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]

    name = os.fsencode(path)
    if b"\0" in name:  # where to C it ends
        raise ValueError("embedded null byte")
    how = How(flags=flags, resolve=_RESOLVE_BENEATH)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _syscall(_SYS_OPENAT2, folder, name, ctypes.byref(how), size, subject=path)


def detached_mount(kind: str) -> int:
    """A new instance of a file system that is mounted nowhere, by its descriptor (fsmount(2))."""
    context = _syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC)
    try:
        _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_NOEXEC
        return _syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def become_root_of_mounts(folder: str) -> None:
    """Make what is mounted at `folder` the calling thread's root, and leave the one before behind.

    pivot_root(2) with one folder for both: the old root lies on top of the new one, and goes.
    """
    os.chdir(folder)
    _syscall(_SYS_PIVOT_ROOT, b".", b".", subject=folder)
    _call("umount2", b".", _MNT_DETACH, subject=folder)
    os.chdir("/")


def make_read_only(path: str, *, below: bool = True) -> None:
    """Make the mount at `path` read-only for this mount namespace, mount_setattr(2).

    With those `below` it.
    """

    class MountAttributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]

    attributes = MountAttributes(set=_MOUNT_ATTR_RDONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    where = _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE if below else 0
    deadline = Deadline(_BUSY_S)
    while True:
        try:
            _syscall(_SYS_MOUNT_SETATTR, *where, ctypes.byref(attributes), size, subject=path)
        except OSError as error:
            # Somebody is writing there at this very moment (mnt_hold_writers, fs/namespace.c).
            if error.errno != errno.EBUSY or deadline.passed():
                raise
            time.sleep(0.001)
        else:
            return


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send us `signum` when our parent ends (PR_SET_PDEATHSIG)."""
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Whether those with our user's rights may look into us and change us (PR_SET_DUMPABLE)."""
    _call("prctl", _PR_SET_DUMPABLE, ctypes.c_ulong(dumpable), 0, 0, 0)


def leave_keyring() -> None:
    """Have a session keyring of our own, empty: one is inherited, with all that is in it.

    keyctl_join_session_keyring(3); OSError where the kernel has no keyrings.
    """
    _syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)


def gain_no_rights() -> None:
    """Nothing we execute gains rights by its owner or capabilities (PR_SET_NO_NEW_PRIVS)."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0),
          ctypes.c_ulong(0))  # fmt: skip


def filter_calls(program: Sequence[Instruction]) -> None:
    """Have a program decide on each system call of the calling thread, and of all that it starts.

    PR_SET_SECCOMP, prctl(2).  For good.  EINVAL where the kernel has no filters; EACCES for whoever
    has no CAP_SYS_ADMIN and may gain rights.
    """

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    given = Program(len(program), packed)
    _call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(given), 0, 0)


def adopt_orphans(adopt: bool) -> None:
    """Whether orphaned descendants become our children (PR_SET_CHILD_SUBREAPER)."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(adopt), 0, 0, 0)


def set_process_name(name: str) -> None:
    """What `ps` shows as comm; the kernel keeps 15 bytes."""
    _call("prctl", _PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def drop_from_bounding_set(capability: int) -> None:
    """Nothing we execute can regain `capability`, by its number in linux/capability.h."""
    _call("prctl", _PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)
