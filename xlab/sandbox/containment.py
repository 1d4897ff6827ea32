"""A lab of strangers' work: how much it may take, and how little of the machine it sees.

    limits       files and sizes of files by the kernel (setrlimit(2), sized tmpfs, tmpfs(5));
                 processes and memory altogether by a thread of pid 1, which ends what is too much
    pid 1        root of the lab can neither look into it nor change it: it is not dumpable, and
                 that is a matter of the user namespace it was executed in, which is outside
                 (__ptrace_may_access, kernel/ptrace.c)
    keys         and sockets that no namespace keeps apart are refused (`kernel.seccomp`)
    who enters   is guarded as pid 1 is, and takes no more of an environment along
    a fresh root in the place of a node's copy of the machine's mounts, and nothing lies below:

        /usr /etc /var/lib /var/log /root /run /tmp   the node's own, as `lab.machine_root` made it
        /bin /sbin /lib…                              links, or the machine's
        /dev                                          a few devices, terminals of the lab's
        /proc                                         until its first process mounts its own: of a
                                                      PID namespace in which nobody is
        Python, xlab/                                 read-only for good: an overlay without an
                                                      upper layer cannot be remounted

Only for a lab in a user namespace: without one its root is the machine's.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xlab.errors import CapabilityError, LimitError
from xlab.kernel import seccomp, syscalls

#: All that is found in such a /dev beside terminals and shared memory.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")

#: Where the parts of fresh roots are made: the first that nothing of ours lies below.
_STAGES = ("/mnt", "/media", "/srv", "/opt", "/home")
#: What a node has of its own, or the lab has.
_OWN = ("/usr", "/etc", "/var/lib", "/var/log", "/root", "/run", "/tmp", "/dev/pts")
_TOP_LEVEL = re.compile(r"bin|sbin|lib(32|64|x32)?")

_LOOK_S = 0.1
#: Every so often it also looks at what costs more to see.
_THOROUGH = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a whole lab, pid 1 and what emulates its hosts included."""

    processes: int = 400
    memory_bytes: int = 1 << 30
    #: Of all that hosts change on their disks; of each /run, /tmp and /dev/shm a quarter.
    disk_bytes: int = 256 << 20
    #: In each file system.
    files: int = 20_000
    file_bytes: int = 128 << 20

    def tmpfs(self, mode: str, part: int = 4) -> str:
        """Options of one that may hold so much."""
        return f"mode={mode},size={self.disk_bytes // part},nr_inodes={self.files}"


#: All that a stranger is told of an environment.
_TOLD = ("PATH", "LANG", "TERM")

_limits: Limits | None = None
_stage: Path | None = None
#: What `code` found before anything was mounted over it.
_shown: list[Path] = []
_exceeded = ""
#: Devices of the machine's own file systems in memory.
_machines: set[int] = set()
#: The most there ever was.
_peak = {"processes": 0, "memory_bytes": 0}


def limits() -> Limits | None:
    """Of this lab; None if it is nobody's but its owner's."""
    return _limits


def begin(given: Limits) -> None:
    """In pid 1, before it has mounted anything."""
    global _limits, _stage
    _limits = given
    # What pid 1 starts in a node has pid 1's.
    told = environment()
    os.environ.clear()
    os.environ.update(told)
    _shown.extend(code())
    _stage = _chosen_stage(_shown)
    _machines.update(device for device, _ in _in_tmpfs("self"))


def environment() -> dict[str, str]:
    """What a stranger may see of ours."""
    return {name: os.environ[name] for name in _TOLD if name in os.environ}


def code() -> list[Path]:
    """What programs of ours are started from in a node: Python, and of a checkout xlab/ alone."""
    package = Path(__file__).resolve().parents[1]
    wanted = [package, Path(sys.prefix), Path(sys.base_prefix)]
    wanted += [path for path in map(Path, filter(None, sys.path))
               if not package.is_relative_to(path.resolve())]  # fmt: skip
    found: list[Path] = []
    for path in sorted({path.resolve() for path in wanted if path.is_dir()}):
        # What is mounted below /usr is not seen through an overlay on that.
        with_usr = path.is_relative_to("/usr") and path.stat().st_dev == Path("/usr").stat().st_dev
        if not with_usr and not any(path.is_relative_to(done) for done in found):
            found.append(path)
    return found


def is_seen(path: Path) -> bool:
    """Whether a node would see it: it lies where the machine's programs are, or ours."""
    shown = [*map(Path, ("/usr", "/etc", "/var/lib", "/bin", "/sbin", "/lib")), *code()]
    return any(path.resolve().is_relative_to(place) for place in shown)


def set_the_stage() -> None:
    """In pid 1: what all fresh roots are made from."""
    stage = str(_stage)
    syscalls.mount("tmpfs", stage, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=700")
    for name in ("root", "nobody", "nothing"):
        Path(stage, name).mkdir()
    _mount_empty_proc(f"{stage}/nobody")
    for number, path in enumerate(_shown):
        place = Path(stage, f"code{number}")
        place.mkdir()
        layers = f"lowerdir={path}:{stage}/nothing,userxattr"
        syscalls.mount("overlay", str(place), "overlay", syscalls.MS_RDONLY, layers)
    # Terminals that are opened from now on are the lab's; those of the machine are not seen.
    flags = syscalls.MS_NOSUID | syscalls.MS_NOEXEC
    syscalls.mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620")
    syscalls.mount("/dev/pts/ptmx", "/dev/ptmx", flags=syscalls.MS_BIND)


def guard_pid_1() -> None:
    """Before anything of a stranger's runs."""
    assert _limits is not None
    _guard(_limits)
    threading.Thread(target=_watch, name="limits", daemon=True).start()


def guard_who_enters(given: Limits) -> None:
    """The calling process is about to join a contained lab's namespaces; CapabilityError if not.

    In that of its processes root of the lab sees it before it has executed anything, and its /proc
    would lead to the machine's files.  Of descriptors it takes the standard streams along.
    """
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if descriptor > 2:
            with suppress(OSError):  # that of the folder itself
                os.set_inheritable(descriptor, False)
    # Or whoever has no CAP_SYS_ADMIN is allowed no filter.
    syscalls.gain_no_rights()
    _guard(given)


def _guard(given: Limits) -> None:
    syscalls.set_dumpable(False)
    leave_keys()
    seccomp.refuse_unnamespaced()
    for kind, most in (
        # The kernel counts threads, pid 1's too, and lets nobody know why no more can be started:
        # a bomb is to meet our own limit first.
        (resource.RLIMIT_NPROC, 2 * given.processes + 200),
        (resource.RLIMIT_FSIZE, given.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def leave_keys() -> None:
    """From now on what we start has no part in the keys that our caller's session holds.

    CapabilityError if it would keep it.
    """
    try:
        syscalls.leave_keyring()
    except OSError as error:
        # A kernel without keyrings; or somebody's filter, which refuses it to what we start, too.
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return
        # Keys count by the user's number outside, over all namespaces.
        full = error.errno == errno.EDQUOT
        raise CapabilityError(
            "no session keyring of its own for a lab: "
            + ("this user has as many keys as one may" if full else str(error)),
            "sudo sysctl -w kernel.keys.maxkeys=2000 kernel.keys.maxbytes=200000" if full else "",
        ) from error


def enter_fresh_root() -> None:
    """For the calling thread's mount namespace, in which the node's own things are mounted."""
    assert _limits is not None
    assert _stage is not None
    new = _stage / "root"
    syscalls.mount("tmpfs", str(new), "tmpfs", syscalls.MS_NOSUID, "mode=755,size=1m,nr_inodes=4k")
    for entry in os.scandir("/"):
        if _TOP_LEVEL.fullmatch(entry.name):
            if entry.is_symlink():
                (new / entry.name).symlink_to(Path(entry.path).readlink())
            else:
                _bind(entry.path, new)
    for path in _OWN:
        _bind(path, new)
    for path, mode in (("/var/tmp", 0o1777), ("/var/cache", 0o755), ("/var/spool", 0o755)):
        (new / path[1:]).mkdir()
        (new / path[1:]).chmod(mode)
    for path, aim in (("/var/run", "/run"), ("/var/lock", "/run/lock")):
        (new / path[1:]).symlink_to(aim)
    _make_devices(new / "dev")
    _bind(str(_stage / "nobody"), new, "proc")
    (new / "sys").mkdir()
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    with suppress(PermissionError):  # as in `sandbox.mount_sys`
        syscalls.mount("sysfs", str(new / "sys"), "sysfs", flags)
        # `ip netns exec` takes one away before it mounts its own, and may then only where there is
        # another to be seen (mount_too_revealing again).
        _bind(str(new / "sys"), new, "sys")
    for number, folder in enumerate(_shown):
        _bind(str(_stage / f"code{number}"), new, str(folder)[1:])
    syscalls.become_root_of_mounts(str(new))


def require_kept() -> None:
    """LimitError once anything has been ended here."""
    if _exceeded:
        raise LimitError(_exceeded)


def peak() -> dict[str, int]:
    """The most there was so far: `processes`, `memory_bytes`."""
    return dict(_peak)


def _chosen_stage(needed: Iterable[Path]) -> Path:
    below = [str(path) for path in needed]
    for stage in map(Path, _STAGES):
        if stage.is_dir() and not any(Path(path).is_relative_to(stage) for path in below):
            return stage
    raise CapabilityError(f"none of {', '.join(_STAGES)} is there, and without what xlab is from")


def _bind(path: str, new: Path, name: str = "") -> None:
    target = new / (name or path[1:])
    target.mkdir(parents=True, exist_ok=True)
    syscalls.mount(path, str(target), flags=syscalls.MS_BIND | syscalls.MS_REC)


def _make_devices(folder: Path) -> None:
    for name in DEVICES:
        if Path("/dev", name).exists():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            syscalls.mount(f"/dev/{name}", str(target), flags=syscalls.MS_BIND)
    assert _limits is not None
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    (folder / "shm").mkdir()
    syscalls.mount("tmpfs", str(folder / "shm"), "tmpfs", flags, _limits.tmpfs("1777"))
    (folder / "ptmx").symlink_to("pts/ptmx")
    for name, target_name in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        (folder / name).symlink_to(f"/proc/self/fd{target_name}")


def _mount_empty_proc(place: str) -> None:
    """/proc of a PID namespace that has ended.

    Whoever is to mount one in a user namespace must see one already, and nothing of it covered
    (mount_too_revealing, fs/namespace.c): this one, which shows nobody.
    """

    def first() -> None:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", place, "proc", flags)

    def launcher() -> None:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        _, status = os.waitpid(syscalls.fork(_ending(first)), 0)
        if status:
            os._exit(1)

    pid = syscalls.fork(_ending(launcher))
    _, status = os.waitpid(pid, 0)
    if status:
        raise CapabilityError("no /proc of a PID namespace of its own can be mounted here")


# -- the watcher -----------------------------------------------------------------------------------


def _watch() -> None:
    global _exceeded
    assert _limits is not None
    hidden_bytes, turn = 0, 0
    while True:
        try:
            pids = [entry.name for entry in os.scandir("/proc") if entry.name.isdecimal()]
        except OSError as error:  # EMFILE: whoever can't be watched any more has taken too much
            pids, _exceeded = [], _exceeded or f"more than pid 1 may open ({error.strerror})"
        if turn % _THOROUGH == 0:
            hidden_bytes = _in_files(pids) + _in_segments()
        turn += 1
        found = {
            "processes": len(pids),
            "memory_bytes": sum(map(_resident_bytes, pids)) + hidden_bytes,
        }
        for name, value in found.items():
            _peak[name] = max(_peak[name], value)
        if found["processes"] > _limits.processes:
            _exceeded = _exceeded or f"more than {_limits.processes} processes at a time"
        elif found["memory_bytes"] > _limits.memory_bytes:
            _exceeded = _exceeded or f"more than {_limits.memory_bytes >> 20} MiB of memory"
        if _exceeded:
            # All but ourselves, at one moment: none can fork in between (kill_something_info).
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        time.sleep(_LOOK_S)


def _resident_bytes(pid: str) -> int:
    """What a process has in memory that no file on a disk is behind, proc_pid_status(5)."""
    found = 0
    with suppress(OSError, ValueError):
        for line in Path("/proc", pid, "status").read_bytes().splitlines():
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                found += int(line.split()[1]) << 10
    return found


def _in_files(pids: Iterable[str]) -> int:
    """What is in memory as files: in each tmpfs of each node, and in memory files that are open."""
    seen: dict[int, int] = {}
    files: dict[tuple[int, int], int] = {}
    namespaces: set[int] = set()
    for pid in pids:
        with suppress(OSError):
            number = Path(f"/proc/{pid}/ns/mnt").stat().st_ino
            if number not in namespaces:
                namespaces.add(number)
                seen.update(_in_tmpfs(pid))
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if str(Path(entry.path).readlink()).startswith("/memfd:"):
                        facts = entry.stat()
                        files[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    ours = (count for device, count in seen.items() if device not in _machines)
    return sum(ours) + sum(files.values())


def _in_tmpfs(pid: str) -> Iterator[tuple[int, int]]:
    """Of a process's mounts that are such: device, bytes."""
    for line in Path("/proc", pid, "mountinfo").read_bytes().split(b"\n"):
        before, _, behind = line.partition(b" - ")
        if behind.startswith(b"tmpfs "):
            place = re.sub(rb"\\([0-7]{3})", lambda f: bytes([int(f[1], 8)]), before.split(b" ")[4])
            with suppress(OSError):
                inside = f"/proc/{pid}/root{os.fsdecode(place)}"
                facts = os.statvfs(inside)
                yield Path(inside).stat().st_dev, (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _in_segments() -> int:
    """In System V shared memory, sysvipc(7)."""
    with suppress(OSError, ValueError):
        heading, *lines = Path("/proc/sysvipc/shm").read_text().splitlines()
        column = heading.split().index("rss")
        return sum(int(line.split()[column]) for line in lines)
    return 0


def _ending(work: Callable[[], object]) -> Callable[[], NoReturn]:
    """As `syscalls.fork` has it: the process ends with it, status 0 if it was done."""

    def child() -> NoReturn:
        with suppress(OSError):
            work()
            os._exit(0)
        os._exit(1)

    return child
