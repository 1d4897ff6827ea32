"""Root that gives up being root, for good, before it handles what strangers have made.

become("nobody", [the checkout, Python])    afterwards: no capability, no way back, and of what
                                            only root may enter nothing is seen but those folders
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

from xlab.errors import CapabilityError, UsageError
from xlab.kernel import syscalls
from xlab.sandbox import containment, sandbox


def become(name: str, needed: Sequence[Path]) -> None:
    """Be the user of that name from now on; `needed` stays readable, wherever it lies.

    UsageError if there is none, or it is root; CapabilityError if something needed is not for
    others to read, or root's keys would come along.  Only for a process with one thread.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"there is no user {name}") from None
    if user.pw_uid == 0:
        raise UsageError(f"{name} is root: name somebody without rights")
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    closed = {top for path in needed for top in _closed_above(path.resolve(), user.pw_uid)}
    for top in sorted(closed):
        below = [path.resolve() for path in needed if path.resolve().is_relative_to(top)]
        with sandbox.still_visible(below):
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
            syscalls.mount("tmpfs", str(top), "tmpfs", flags, "mode=755")
    _share_tun()
    # While it counts among root's keys, of which there may be many more.
    containment.leave_keys()
    os.chdir("/")
    os.setgroups([])
    try:
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        raise CapabilityError(
            f"this root can't become {name} ({error.strerror})",
            "be root of the machine, or an ordinary user",
        ) from error
    # The kernel guards whom an identity was changed from: it could not map its own user then.
    syscalls.set_dumpable(True)
    syscalls.gain_no_rights()
    os.environ |= {"HOME": "/", "USER": name, "LOGNAME": name}
    for path in needed:
        if not os.access(path, os.R_OK | os.X_OK):
            raise CapabilityError(f"{name} can't read {path}", f"`chmod -R o+rX {path}`")


def _share_tun() -> None:
    """Where the machine's TUN node is root's alone, one as udev has it: for everybody.

    Whoever opens it can make an interface only where they have CAP_NET_ADMIN: in a lab.
    """
    node = Path("/dev/net/tun")
    try:
        facts = node.stat()
    except FileNotFoundError:
        return
    if facts.st_mode & 0o006 != 0o006:
        syscalls.mount("tmpfs", str(node.parent), "tmpfs", syscalls.MS_NOSUID, "mode=755")
        os.mknod(node, stat.S_IFCHR, facts.st_rdev)
        node.chmod(0o666)


def _closed_above(path: Path, uid: int) -> list[Path]:
    """The uppermost folder on the way there that the user may not enter, if there is one."""
    for folder in reversed(path.parents):
        facts = folder.stat()
        if not facts.st_mode & (0o100 if facts.st_uid == uid else 0o001):
            return [folder]
    return []
