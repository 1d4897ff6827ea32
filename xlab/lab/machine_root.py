"""A node's own disk: what it may change without anybody else seeing it.

    /etc        overlay   the machine's own below; hostname, hosts, resolv.conf, machine-id differ
    /usr        overlay   the machine's own below; commands of an emulated host, if it has any, and
                          what stands for programs that want the internet
    /var/lib    overlay   the machine's own below; openvswitch, docker and containerd start empty
    /var/log    empty, with the folders that packages made
    /root       empty, with what a new user gets (/etc/skel)

Whatever else is the machine's own is read-only, but for people's files: /home, /mnt, /media.  In
the lab of an exercise those are, too: its scripts may be anybody's.

All of it is in memory, below /run of the sandbox, and stays when the host is switched off: a mount
namespace is copied with everything in it, so a host that boots mounts what it finds there.

An ordinary user owns nothing in the machine's /etc, and an overlay on it would refuse to append
(EACCES) and to rename (EOVERFLOW): there the lower layer is a copy, made once a lab, which is ours.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xlab.errors import XlabError
from xlab.kernel import foreign, sole_user, syscalls
from xlab.sandbox import sandbox

#: Of the sandbox: a tmpfs, which ends with it.
_DISKS = Path("/run/xlab/disks")
_TEMPLATE = Path("/run/xlab/etc")
#: Lies on top of the machine's /usr in every host; filled before there is one.
TOOLS = Path("/run/xlab/tools")
#: The same in every host and every container: what is said of the internet, which no lab has.
OFFLINE = Path("/run/xlab/offline")

#: People's files: as writable as they are, but in a guarded lab and in containers.
PEOPLES = ("/home", "/mnt", "/media")

#: What a package keeps there is one machine's, not the next one's.
_EMPTY = ("/var/lib/openvswitch", "/var/lib/docker", "/var/lib/containerd", "/etc/openvswitch")

#: What a shell keeps of what is typed in a node: seconds, status and command, ended by a NUL.
TYPED = "/root/.typed"
#: Of files that somebody has changed.
_MOST_CHANGED = 500
_KEPT_BY_PROGRAMS = re.compile(
    r"/etc/(openvswitch|docker|ssl)/|/etc/(hosts|hostname|resolv\.conf|machine-id|mtab|ld\.so\.cache)$"
    r"|/root/\.(typed|\w*history|lesshst|viminfo|cache|local|config|ssh)\b|.*\.sw[a-p]$|.*~$"
    r"|/usr/lib/systemd/system/docker\.service$"
)

_copying = threading.Lock()


def mount(
    name: str,
    *,
    hostname: str,
    hosts: str,
    rootless: bool,
    container: bool = False,
    commands: bool = True,
    guarded: bool = False,
) -> None:
    """Give the calling thread's mount namespace the disk called `name`, made when first wanted.

    `hosts` is what is in its /etc/hosts then; in a container's each time, as Docker does it.

    Before /run is hidden there.  Without `commands` it has none of those that are emulated.  For a
    container /usr is read-only, and so are people's files; of those commands it has `OFFLINE`'s.
    People's files are read-only for a host that is `guarded`, too.
    """
    disk = _DISKS / name
    if not disk.exists():
        _make(disk, hostname, hosts)
    elif container:
        # It may have put anything in its place; the upper layer is looked up from outside of it.
        foreign.put(disk / "etc/upper/hosts", os.fsencode(hosts))
    _protect(() if container or guarded else PEOPLES)
    below = {"/etc": [_template() if rootless else Path("/etc")], "/var/lib": [Path("/var/lib")]}
    on_top = [] if not commands else [OFFLINE] if container else [TOOLS, OFFLINE]
    below["/usr"] = [*filter(Path.exists, on_top), Path("/usr")]
    for path, layers in below.items():
        own = disk / path[1:]
        options = f"lowerdir={':'.join(map(str, layers))}"
        if path != "/usr" or not container:
            options += f",upperdir={own}/upper,workdir={own}/work"
        elif len(layers) == 1:
            continue  # an overlay without an upper layer has two, mount(8)
        # An ordinary user may not set the marks that overlayfs sets otherwise.
        options += ",userxattr" if rootless else ""
        # What is mounted below /usr, a Python say, would not be seen through an overlay.
        with sandbox.still_visible(_mounted_below(path)):
            syscalls.mount("overlay", path, "overlay", 0, options)
    # Whoever has Python or a checkout below /root needs it there: routers are started with it.
    with sandbox.still_visible(sandbox.shown_below("/root")):
        for path in ("/var/log", "/root"):
            syscalls.mount(str(disk / path[1:]), path, flags=syscalls.MS_BIND)
    for path in _EMPTY:
        if Path(path).is_dir():
            own = disk / "empty" / path[1:]
            own.mkdir(parents=True, exist_ok=True)
            syscalls.mount(str(own), path, flags=syscalls.MS_BIND)


def changed(name: str) -> dict[str, str]:
    """Texts that a disk has and the machine has not, or others there, by their paths.

    Of /etc, /root and /usr; what a program keeps for itself is left out, and what is long or no
    text.  Whoever is root in the node may have put anything there: nothing is followed.
    """
    found: dict[str, str] = {}
    tops = {"/etc": "etc/upper", "/usr": "usr/upper", "/root": "root"}
    for place, below in tops.items():
        top = _DISKS / name / below
        for own in foreign.files(top):
            if len(found) == _MOST_CHANGED:
                return found
            path = f"{place}/{own.relative_to(top)}"
            if _KEPT_BY_PROGRAMS.match(path):
                continue
            with suppress(OSError, XlabError, UnicodeDecodeError):
                facts = own.lstat()
                if stat.S_ISREG(facts.st_mode):
                    found[path] = foreign.read(own).decode()
    return found


def discard(name: str) -> None:
    """The disk is nobody's any more."""
    with suppress(OSError):
        foreign.remove(_DISKS / name)


def _protect(open_: Sequence[str]) -> None:
    """Make all that is mounted read-only, but for /run, where disks are, and `open_`."""
    kept = [path for path in ("/run", *open_) if Path(path).is_dir()]
    for path in kept:
        syscalls.mount(path, path, flags=syscalls.MS_BIND | syscalls.MS_REC)
    # One by one: what the machine itself has read-only below `open_` must stay so, and a rootless
    # lab could not undo it, either (MNT_LOCK_READONLY).
    for point in _mount_points():
        if not any(Path(point).is_relative_to(path) for path in kept):
            _make_read_only(point)
    if Path("/dev/shm").is_dir():
        sandbox.mount_shared_memory()


def _make_read_only(point: str) -> None:
    try:
        syscalls.make_read_only(point, below=False)
    except (FileNotFoundError, PermissionError):
        pass  # something else is mounted over it
    except OSError as error:
        # What is mounted over it has a folder of that name, which is no mount: in a container,
        # whose first /proc had parts of it hidden, /proc/acpi.
        if error.errno != errno.EINVAL:
            raise


def _mount_points() -> list[str]:
    """Where something is mounted in this mount namespace, proc_pid_mountinfo(5)."""
    lines = Path("/proc/thread-self/mountinfo").read_bytes().split(b"\n")
    escaped = (line.split(b" ")[4] for line in lines if line)
    octal = re.compile(rb"\\([0-7]{3})")
    return [os.fsdecode(octal.sub(lambda f: bytes([int(f[1], 8)]), point)) for point in escaped]


def _mounted_below(path: str) -> list[Path]:
    """What Python or we are started from that is mounted somewhere below `path`."""
    device = Path(path).stat().st_dev
    return [found for found in sandbox.shown_below(path) if found.stat().st_dev != device]


def _make(disk: Path, hostname: str, hosts: str) -> None:
    for path in ("etc", "usr", "var/lib"):
        for layer in ("upper", "work"):
            (disk / path / layer).mkdir(parents=True)
    etc = disk / "etc/upper"
    # Of a container it is what somebody has typed.
    (etc / "hostname").write_bytes(os.fsencode(f"{hostname}\n"))
    (etc / "hosts").write_bytes(os.fsencode(hosts))
    # No nameserver can be reached from a lab; without one a resolver asks 127.0.0.1, which refuses
    # at once (resolv.conf(5)).
    (etc / "resolv.conf").write_text("")
    (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
    # Not the machine's own interfaces: what is here is what a host has by itself.
    (etc / "network").mkdir()
    (etc / "docker").mkdir()
    (etc / "network/interfaces").write_text("auto lo\niface lo inet loopback\n")
    if sole_user.applies():
        # A login shell, of tmux say, begins with a PATH of its own.
        (etc / "profile.d").mkdir()
        (etc / "profile.d/xlab.sh").write_text(f"PATH={sole_user.FOLDER}:$PATH\n")
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
