"""The sandbox: private namespaces whose pid 1 is the lab's controller.

    caller ── fork ── launcher: unshare(user, mount, pid, net, uts, ipc), maps its uid, forks, exits
       │                 └── pid 1: private /run and /tmp, its own /proc and /sys, then `serve`
       └── adopts pid 1, says "go", and holds one end of a socket

Everything of a lab is a descendant of pid 1 or a namespace only it refers to, so the death of pid 1
is the end of the lab: the kernel kills what is left in the PID namespace and frees the rest.
Attached, pid 1 asks the kernel to be killed with its caller (PR_SET_PDEATHSIG); detached, it lives
on and is found by its name (registry.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

from xlab.errors import CapabilityError, SandboxError
from xlab.kernel import namespaces, signals, sole_user, syscalls
from xlab.kernel.netlink import Rtnl
from xlab.kernel.processes import search_path, shell_status
from xlab.sandbox import containment, registry
from xlab.sandbox.containment import Limits

#: What a lab run by root must not be able to do to the machine, by number in linux/capability.h:
#: SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME, MKNOD, MAC_ADMIN, SYSLOG.  A user namespace rules
#: these out.
_DROPPED_CAPABILITIES = (16, 17, 22, 25, 27, 33, 34)

#: Without a user namespace these files belong to the real machine (OCI runtimes guard the same).
_GUARDED = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")

_CGROUPS = "/sys/fs/cgroup"

#: pid 1 gets the caller's descriptor table; all but these are replaced by /dev/null.
_STDOUT, _STDERR = 1, 2

#: How long the kernel may take to end all processes of a lab.
_END_S = 60.0

Serve = Callable[["socket.socket", "socket.socket | None"], NoReturn]


class Sandbox:
    """A running sandbox as its launcher sees it."""

    def __init__(self, pid: int, channel: socket.socket, *, handle: int | None) -> None:
        """`handle` refers to a pid 1 that is not our child (pidfd_open(2))."""
        #: Pid 1's number outside.
        self.pid = pid
        self.channel = channel
        #: How long it took to start, in seconds.
        self.started_s = 0.0
        self._handle = handle
        self._gone = False

    def close(self) -> float:
        """Kill pid 1 and wait until the kernel has ended all its processes; returns seconds."""
        begun = time.monotonic()
        if not self._gone:
            self._gone = True
            self.channel.close()
            if self._handle is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                await_end(self._handle)
            else:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
        return time.monotonic() - begun

    def leave(self) -> float:
        """Let go of a detached one, which goes on; returns the seconds that took, none."""
        self._gone = True
        self.channel.close()
        if self._handle is not None:
            os.close(self._handle)
        return 0.0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def await_end(handle: int) -> None:
    """Wait for the end of the process that a descriptor of pidfd_open(2) refers to; closes it.

    A sandbox's pid 1 ends after all its processes (zap_pid_ns_processes, pid_namespaces(7)).
    """
    try:
        if not registry.has_ended(handle, within_s=_END_S):
            raise SandboxError(f"the lab has not ended within {_END_S:g} s")
    finally:
        os.close(handle)


def kind() -> Literal["rootless", "root"]:
    """Which way ours is made, or would be: with a user namespace unless we are root.

    Inside a rootless one we are root, too, and have no rights over the machine for all that.
    """
    rootless = os.geteuid() != 0 if _rootless is None else _rootless
    return "rootless" if rootless else "root"


#: Of the sandbox that this process is in; None outside.
_rootless: bool | None = None


def launch(
    serve: Serve,
    *,
    name: str | None = None,
    keep: Sequence[Path] = (),
    limits: Limits | None = None,
) -> Sandbox:
    """Start a sandbox whose pid 1 runs `serve(channel, listener)`; returns when that is ready.

    `channel` is a stream socket to us.  Attached by default: `listener` is None, and pid 1 dies
    with the calling process.  With a `name` it is detached: `listener` listens under that name, and
    pid 1 outlives us, if it wants to when our end of the channel closes.  `keep` are folders under
    /tmp or /run that must stay visible inside.  With `limits` it is contained, for strangers' work:
    see `containment`.

    Raises UsageError if a sandbox of that name is running, CapabilityError if the kernel allows no
    such namespaces, SandboxError if anything else fails.
    """
    begun = time.monotonic()
    if limits and kind() == "root":
        raise SandboxError("root of a lab of root's can't be contained")
    listener = registry.listen(name) if name else None
    ours, theirs = socket.socketpair()
    if not listener:
        # Pid 1 becomes our child when the launcher exits, so that it can ask to die with us.
        syscalls.adopt_orphans(True)
    try:
        launcher = syscalls.fork(lambda: _launcher(serve, ours, theirs, listener, keep, limits))
        theirs.close()
        _, status = os.waitpid(launcher, 0)
        if os.WIFSIGNALED(status):
            # It may have started pid 1, which waits for our word, and not have told its number.
            number = signal.Signals(os.WTERMSIG(status))
            raise SandboxError(f"the sandbox could not be made: {number.name} ended its launcher")
        pid = int(_told(ours, "pid"))
    except BaseException:
        ours.close()
        theirs.close()
        raise
    finally:
        if listener:
            listener.close()
        else:
            syscalls.adopt_orphans(False)
    sandbox = Sandbox(pid, ours, handle=os.pidfd_open(pid) if listener else None)
    try:
        ours.sendall(b"g")
        _told(ours, "ready")
    except BaseException:
        sandbox.close()
        raise
    sandbox.started_s = time.monotonic() - begun
    return sandbox


def join(lab: Sandbox, keep: Sequence[Path]) -> None:
    """Go on inside: what returns is a new process, in which nodes of the sandbox can be made.

    The calling process stays outside, waits for that one, takes the sandbox down and ends with its
    status.  `keep` is what the sandbox was launched with.  Only for a process with one thread.
    """
    opened = {
        kind: os.open(f"/proc/{lab.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in JOINED
    }
    go_inside(opened, keep, ended=lambda _: lab.close())
    lab.channel.close()


def go_inside(
    opened: Mapping[str, int], keep: Sequence[Path], *, ended: Callable[[int], object]
) -> None:
    """The same with descriptors of a sandbox's namespaces, by the names in /proc/PID/ns.

    `ended` is called outside with the exit status.
    """
    rootless, folder = os.geteuid() != 0, current_folder()
    # Ctrl-C is for the one inside, which decides what comes of it.
    interrupt = signal.getsignal(signal.SIGINT)
    signals.ignore([signal.SIGINT])
    with signals.held_off():
        attendant = os.fork()
    if attendant:
        code = status_of(attendant)
        ended(code)
        os._exit(code)
    kinds = join_for_children(opened, rootless=rootless)
    with signals.held_off():
        inside = os.fork()
    if inside:
        # Ctrl-Z stops the caller and the one inside; a zombie that waited for a stopped parent
        # would keep the sandbox from ending (zap_pid_ns_processes, pid_namespaces(7)).  Not in
        # the same session, either, see entering._attend.
        os.setsid()
        os._exit(status_of(inside))
    signal.signal(signal.SIGINT, interrupt)
    for kind in kinds:
        syscalls.setns(opened[kind], JOINED[kind])
    for descriptor in opened.values():
        os.close(descriptor)
    os.chdir(folder if folder.is_dir() else "/")
    _kept.extend(needed_below("/run", "/tmp", keep=keep))
    settle(rootless=rootless)


def join_for_children(opened: Mapping[str, int], *, rootless: bool) -> list[str]:
    """Join the user and the PID namespace; returns what a child then joins.

    The PID namespace holds for children only: a process keeps its number for life.
    """
    kinds = [kind for kind in JOINED if rootless or kind != "user"]
    for kind in ("user", "pid"):
        if kind in kinds:
            syscalls.setns(opened[kind], JOINED[kind])
            kinds.remove(kind)
    return kinds


def status_of(child: int) -> int:
    """Wait for its end; the exit status, as a shell has it."""
    _, status = os.waitpid(child, 0)
    return shell_status(os.waitstatus_to_exitcode(status))


def current_folder() -> Path:
    """The working directory, or "/" where that has been deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


#: In this order: the user namespace gives the right to the others.
JOINED = {
    "user": syscalls.CLONE_NEWUSER,
    "pid": syscalls.CLONE_NEWPID,
    "net": syscalls.CLONE_NEWNET,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "mnt": syscalls.CLONE_NEWNS,
}


def settle(*, rootless: bool) -> None:
    """The calling process, which is inside, may make nodes there, and do the machine no harm."""
    global _rootless
    _rootless = rootless
    _raise_descriptor_limit()
    namespaces.remember_home()
    give_up_rights(rootless=rootless)


def give_up_rights(*, rootless: bool) -> None:
    """Whatever the calling process executes cannot regain what would harm the machine."""
    if not rootless:
        for capability in _DROPPED_CAPABILITIES:
            syscalls.drop_from_bounding_set(capability)


# -- the launcher: between the caller and pid 1 ----------------------------------------------------


def _launcher(
    serve: Serve,
    callers: socket.socket,
    channel: socket.socket,
    listener: socket.socket | None,
    keep: Sequence[Path],
    limits: Limits | None,
) -> NoReturn:
    try:
        # Pid 1 waits for the caller's word or for its end to close, which a copy would keep open.
        callers.close()
        uid, gid = os.geteuid(), os.getegid()
        try:
            if uid == 0:
                syscalls.unshare(syscalls.NEW_NAMESPACES)
            else:
                syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.NEW_NAMESPACES)
                namespaces.map_to_root(uid, gid)
        except OSError as error:
            _send(channel, missing=f"this kernel refuses private namespaces ({error})")
            os._exit(1)
        rootless = uid != 0
        first = syscalls.fork(
            lambda: _first_process(serve, channel, listener, keep, limits, rootless=rootless)
        )
        _send(channel, pid=first)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the caller is told, and nothing may return
        _send(channel, error=f"{type(error).__name__}: {error}")
        os._exit(1)


def _first_process(
    serve: Serve,
    channel: socket.socket,
    listener: socket.socket | None,
    keep: Sequence[Path],
    limits: Limits | None,
    *,
    rootless: bool,
) -> NoReturn:
    try:
        # The go-ahead comes when the launcher is gone and the caller has become our parent: only
        # then is PR_SET_PDEATHSIG about the right process.
        if channel.recv(1) != b"g":
            os._exit(1)
        if listener is None:
            syscalls.die_with_parent()
            # The caller may have died before that took effect; then our socket has hung up.
            if _hung_up(channel):
                os._exit(1)
        os.setsid()
        channel = _above_streams(channel)
        listener = listener and _above_streams(listener)
        _shed_descriptors(channel, listener)
        if listener:
            registry.listen_as_ourselves(listener)
            _keep_log(listener)
            # Or the file system it was started from could not be unmounted.
            os.chdir("/")
        _default_signals()
        syscalls.set_process_name("xlab")
        if limits:
            containment.begin(limits)
        _private_mounts(keep, rootless=rootless)
        socket.sethostname("xlab")
        settle(rootless=rootless)
        rtnl = Rtnl()
        rtnl.now.set_up("lo")
        rtnl.close()
        if limits:
            containment.guard_pid_1()
        _send(channel, ready=True)
        serve(channel, listener)
    except CapabilityError as error:
        _send(channel, missing=error.missing, remedy=error.remedy)
    except BaseException as error:  # noqa: BLE001 - the caller is told, and nothing may return
        _send(channel, error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _hung_up(channel: socket.socket) -> bool:
    try:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _above_streams(ours: socket.socket) -> socket.socket:
    """A caller without standard streams has given their numbers to the sockets it made."""
    if ours.fileno() > _STDERR:
        return ours
    above = socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1))
    ours.detach()
    return above


def _shed_descriptors(channel: socket.socket, listener: socket.socket | None) -> None:
    """Let go of what the caller had open, other labs' sockets among it.

    /dev/null takes the place of each: a closed number would be reused, and a file object left over
    from the caller could then close a descriptor that is ours.  Not so a number beyond the hard
    limit, which may have been lowered after it was opened: no copy gets it (EBADF, dup2(2)).
    """
    _raise_descriptor_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    kept = {null, channel.fileno(), listener.fileno() if listener else -1}
    if os.environ.get("XLAB_DEBUG"):
        kept.add(_STDERR)
    for entry in list(Path("/proc/self/fd").iterdir()):
        descriptor = int(entry.name)
        if descriptor in kept or not entry.is_symlink():
            continue
        if descriptor < limit:
            os.dup2(null, descriptor, inheritable=descriptor <= _STDERR)
        else:
            os.close(descriptor)


#: What pid 1 of a detached sandbox prints, in memory.
_log: int | None = None
_LOG_SHOWN = 1 << 16


def _keep_log(listener: socket.socket) -> None:
    """Standard output and error go to a file in memory, which ends with the sandbox."""
    global _log
    _log = registry.open_log(listener)
    fcntl.fcntl(_log, fcntl.F_SETFL, os.O_APPEND)
    if not os.environ.get("XLAB_DEBUG"):
        os.dup2(_log, _STDOUT, inheritable=True)
        os.dup2(_log, _STDERR, inheritable=True)


def log() -> str:
    """The end of what pid 1 has printed; "" where that goes to whoever launched it."""
    if _log is None:
        return ""
    size = os.fstat(_log).st_size
    return os.pread(_log, _LOG_SHOWN, max(0, size - _LOG_SHOWN)).decode(errors="replace")


def _default_signals() -> None:
    # Children inherit ignored signals.  Pid 1 itself is safe: the kernel drops what it has no
    # handler for, pid_namespaces(7).
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)


def _raise_descriptor_limit() -> None:
    """A node takes four descriptors: use all the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- mounts ----------------------------------------------------------------------------------------


def _private_mounts(keep: Sequence[Path], *, rootless: bool) -> None:
    """Own /run, /tmp, /dev, /proc and /sys; with `keep` still visible where it lay.

    MS_SLAVE rather than MS_PRIVATE: nothing of ours gets out, but what the machine unmounts later
    is unmounted here too, so that a long-lived lab holds no disk busy.
    """
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    _kept.extend(needed_below("/run", "/tmp", keep=keep))
    mount_private_folders(of_pid_1=True)
    mount_proc(rootless=rootless)
    mount_sys(rootless=rootless)
    if not rootless:
        _mount_devices()
    if Path("/dev/shm").is_dir():
        mount_shared_memory()
    if containment.limits():
        containment.set_the_stage()


#: Folders under /tmp or /run that stay visible; the same in every mount namespace of the lab.
_kept: list[Path] = []


def mount_private_folders(*, of_pid_1: bool = False) -> None:
    """A /run and a /tmp of its own for the calling thread's mount namespace, next to empty."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    # Below pid 1's /run is what nodes have on their disks.
    with still_visible(_kept if of_pid_1 or not containment.limits() else ()):
        syscalls.mount("tmpfs", "/run", "tmpfs", flags, _holding("755", whole=of_pid_1))
        syscalls.mount("tmpfs", "/tmp", "tmpfs", flags, _holding("1777"))
    Path("/run/lock").mkdir()
    sole_user.provide(search_path())
    # Nearly everywhere /var/run is a symbolic link to /run.
    if not Path("/run").samefile("/var/run"):
        syscalls.mount("/run", "/var/run", flags=syscalls.MS_BIND | syscalls.MS_REC)


def _holding(mode: str, *, whole: bool = False) -> str:
    """Options of a file system in memory; the `whole` of what a lab may write on its disks."""
    limits = containment.limits()
    return limits.tmpfs(mode, 1 if whole else 4) if limits else f"mode={mode}"


@contextmanager
def still_visible(folders: Iterable[Path]) -> Iterator[None]:
    """What the block mounts hides what was there, but for `folders`, which are bound back."""
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in folders]
    yield
    for path, descriptor in held:
        path.mkdir(parents=True, exist_ok=True)
        _bind(descriptor, str(path))


def needed_below(*places: str, keep: Sequence[Path] = ()) -> list[Path]:
    """Those of `keep`, and of what Python itself needs, that lie below one of `places`."""
    package = Path(__file__).resolve().parents[2]
    wanted = [package, Path(sys.prefix), Path(sys.base_prefix), *keep]
    wanted += [Path(entry) for entry in sys.path if entry]
    folders: list[Path] = []
    for path in sorted({p.resolve() for p in wanted if p.is_dir()}):
        below = any(Path(place) in path.parents for place in places)
        if below and not any(path.is_relative_to(done) for done in folders):
            folders.append(path)
    return folders


def shown_below(place: str) -> list[Path]:
    """The same that a node sees: where that is contained, none (`containment.enter_fresh_root`)."""
    return [] if containment.limits() else needed_below(place)


def mount_proc(*, rootless: bool) -> None:
    """/proc of the caller's PID namespace; as real root with all but /proc/sys/net read-only."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    if rootless:
        return
    network = os.open("/proc/sys/net", os.O_PATH | os.O_CLOEXEC)
    for path in _GUARDED:
        if Path(path).exists():
            _read_only(path)
    _bind(network, "/proc/sys/net")


def mount_sys(*, rootless: bool) -> None:
    """/sys of the caller's network namespace, else /sys/class/net shows somebody else's interfaces.

    As real root only the devices of the network stay writable.  The cgroup tree is bound back to be
    read, of whomever it is: nothing in a lab has a group of its own.
    """
    cgroups = os.open(_CGROUPS, os.O_PATH | os.O_CLOEXEC)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    try:
        syscalls.mount("sysfs", "/sys", "sysfs", flags)
    except PermissionError:
        # A container that masks part of /sys allows no new instance of it (mount_too_revealing);
        # then /sys/class/net shows the outer interfaces, and only that.
        pass
    else:
        if not rootless:
            network = os.open("/sys/devices/virtual/net", os.O_PATH | os.O_CLOEXEC)
            _read_only("/sys")
            _bind(network, "/sys/devices/virtual/net")
    _bind(cgroups, _CGROUPS)
    # One mount for the second version, one a controller for the first: all of them.
    syscalls.make_read_only(_CGROUPS)


def _mount_devices() -> None:
    """A /dev of a few: `dd of=/dev/sda` in an emulated host must find no disk.

    The terminals are the machine's, or none would have a name in the lab, ttyname(3).
    """
    path = Path("/dev")
    found = {
        name: os.open(path / name, os.O_PATH)
        for name in containment.DEVICES if (path / name).exists()
    }  # fmt: skip
    terminals = os.open(path / "pts", os.O_PATH)
    syscalls.mount("tmpfs", "/dev", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "mode=755")
    for name, descriptor in found.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
        _bind(descriptor, str(path / name))
    for name in ("pts", "shm"):
        (path / name).mkdir()
    _bind(terminals, str(path / "pts"))
    try:
        # A node, for pts/ptmx may be nobody's to open (ptmxmode=000); not bound, since the kernel
        # looks for pts beside the file that was bound (devpts_ptmx_path).
        os.mknod(path / "ptmx", 0o20666, os.makedev(5, 2))
        (path / "ptmx").chmod(0o666)
    except PermissionError:
        (path / "ptmx").symlink_to("pts/ptmx")
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        (path / name).symlink_to(f"/proc/self/fd{target}")


def mount_shared_memory() -> None:
    """An empty /dev/shm for the calling thread's mount namespace."""
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", "/dev/shm", "tmpfs", flags, "mode=1777")


def _bind(descriptor: int, target: str) -> None:
    syscalls.mount(f"/proc/self/fd/{descriptor}", target, flags=syscalls.MS_BIND | syscalls.MS_REC)
    os.close(descriptor)


def _read_only(path: str) -> None:
    syscalls.mount(path, path, flags=syscalls.MS_BIND)
    syscalls.mount("", path, flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)


# -- messages during the start ---------------------------------------------------------------------


def _send(channel: socket.socket, **report: object) -> None:
    try:
        channel.sendall(json.dumps(report).encode() + b"\n")
    except OSError:
        os._exit(1)


def _told(channel: socket.socket, what: str) -> Any:
    """What is reported by that name; what kept the sandbox from being made is raised."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = channel.recv(1)
        if not byte:
            raise SandboxError("the sandbox ended while it was being made")
        line += byte
    report: dict[str, Any] = json.loads(line)
    if what in report:
        return report[what]
    if "missing" in report:
        remedy = report.get("remedy", "`xlab doctor` says what to change")
        raise CapabilityError(str(report["missing"]), str(remedy))
    raise SandboxError(f"the sandbox could not be made: {report.get('error', report)}")
