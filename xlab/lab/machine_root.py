"""A host's own disk: what it may change without anybody else seeing it.

    /etc        overlay   the machine's own below; hostname, hosts, resolv.conf, machine-id differ
    /var/lib    overlay   the machine's own below; openvswitch, docker and containerd start empty
    /var/log    empty, with the folders that packages made
    /root       empty, with what a new user gets (/etc/skel)

All of it is in memory, below /run of the sandbox, and stays when the host is switched off: a mount
namespace is copied with everything in it, so a host that boots mounts what it finds there.

An ordinary user owns nothing in the machine's /etc, and an overlay on it would refuse to append
(EACCES) and to rename (EOVERFLOW): there the lower layer is a copy, made once a lab, which is ours.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from pathlib import Path

from xlab import sandbox, syscalls

#: Of the sandbox: a tmpfs, which ends with it.
_DISKS = Path("/run/xlab/disks")
_TEMPLATE = Path("/run/xlab/etc")

#: What a package keeps there is one machine's, not the next one's.
_EMPTY = ("/var/lib/openvswitch", "/var/lib/docker", "/var/lib/containerd", "/etc/openvswitch")

_copying = threading.Lock()


def mount(hostname: str, *, rootless: bool) -> None:
    """Give the calling thread's mount namespace the disk of `hostname`, made when first wanted.

    Before /run is hidden there.
    """
    disk = _DISKS / hostname
    new = not disk.exists()
    if new:
        _make(disk, hostname)
    # `userxattr`: an ordinary user may not set the marks that overlayfs sets otherwise.
    lower = {"/etc": _template() if rootless else Path("/etc"), "/var/lib": Path("/var/lib")}
    for path, below in lower.items():
        own = disk / path[1:]
        layers = f"lowerdir={below},upperdir={own}/upper,workdir={own}/work"
        syscalls.mount("overlay", path, "overlay", 0, f"{layers},userxattr" if rootless else layers)
    # Whoever has Python or a checkout below /root needs it there: routers are started with it.
    with sandbox.still_visible(sandbox.needed_below("/root")):
        for path in ("/var/log", "/root"):
            syscalls.mount(str(disk / path[1:]), path, flags=syscalls.MS_BIND)
    for path in _EMPTY:
        if Path(path).is_dir():
            own = disk / "empty" / path[1:]
            own.mkdir(parents=True, exist_ok=True)
            syscalls.mount(str(own), path, flags=syscalls.MS_BIND)


def _make(disk: Path, hostname: str) -> None:
    for path in ("etc", "var/lib"):
        for layer in ("upper", "work"):
            (disk / path / layer).mkdir(parents=True)
    etc = disk / "etc/upper"
    (etc / "hostname").write_text(f"{hostname}\n")
    (etc / "hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n")
    # No nameserver can be reached from a lab; without one a resolver asks 127.0.0.1, which refuses
    # at once (resolv.conf(5)).
    (etc / "resolv.conf").write_text("")
    (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
    log = disk / "var/log"
    log.mkdir()
    for entry in os.scandir("/var/log"):
        if entry.is_dir(follow_symlinks=False):
            (log / entry.name).mkdir()
    _copy(Path("/etc/skel"), disk / "root")
    (disk / "root").chmod(0o700)


def _template() -> Path:
    """A copy of /etc, but for what may not be read."""
    with _copying:
        if not _TEMPLATE.exists():
            _copy(Path("/etc"), _TEMPLATE)
    return _TEMPLATE


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        return
    for entry in os.scandir(source):
        place = target / entry.name
        try:
            if entry.is_symlink():
                place.symlink_to(Path(entry.path).readlink())
            elif entry.is_dir():
                _copy(Path(entry.path), place)
            elif entry.is_file():
                shutil.copyfile(entry.path, place)
                place.chmod(entry.stat().st_mode & 0o777)
        except PermissionError:
            continue
