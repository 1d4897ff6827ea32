"""Programs run inside the sandbox.

Output goes to memory files instead of pipes: nothing fills up, nothing needs a reader.  Whose child
has ended, and with which status, `reaping` says.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

from xlab.errors import CapabilityError, CommandError, DaemonError, DeadlineError, XlabError
from xlab.kernel import reaping, sole_user, syscalls
from xlab.kernel.clock import Clock, Deadline, steady
from xlab.kernel.namespaces import Namespaces, entered
from xlab.kernel.patience import Patience, doing
from xlab.kernel.programs import remedy


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended; `stdout` and `stderr` are text (UTF-8, bad bytes replaced).

    Of `run` with `exact` they are what `os.fsdecode` makes of the bytes: names can be passed on.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    duration_s: float


class Process:
    """A running program.  `pid` is its number in the sandbox's PID namespace."""

    def __init__(
        self, popen: subprocess.Popen[bytes], *, node: str, argv: Sequence[str], out: int, err: int
    ) -> None:
        self._popen = popen
        self._node = node
        self._ended = ended = threading.Event()
        self._out = out
        self._err = err
        self.argv = tuple(argv)
        self.pid = popen.pid
        #: Of a first process: its namespace, a descriptor that is its caller's to close.
        self.pid_namespace: int | None = None

        def end(status: int) -> None:
            popen.returncode = os.waitstatus_to_exitcode(status)
            ended.set()

        #: For whoever reaps it, who does not hold it, and with it its files, a moment longer.
        self.end = end

    def poll(self) -> int | None:
        """The exit status (minus the signal's number where one killed it), None while it runs."""
        return self._popen.returncode if self._ended.is_set() else None

    def has_ended(self) -> bool:
        """Whether it has, whatever `poll` says until it has been reaped."""
        if self._ended.is_set():
            return True
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # it is being reaped just now
        return ended is not None

    def wait(self, timeout_s: float) -> int:
        """Wait for the end; raises CommandError on time-out and leaves the program running.

        Time in which it waits for the kernel does not count, see `patience`.
        Within `asking_meanwhile` it may raise what is raised there, too.
        """
        if not self._ends_within(timeout_s):
            error = CommandError(
                self.argv,
                node=self._node,
                returncode=None,
                stderr=self.stderr_tail(),
                timeout_s=timeout_s,
            )
            error.add_note(f"waited for, by process: {doing(self.pid)}")
            raise error
        returncode = self._popen.returncode
        assert returncode is not None
        return int(returncode)

    def signal(self, signum: int) -> None:
        """Send a signal; nothing happens if the program has ended."""
        with reaping.lock:
            if not self._ended.is_set():
                os.kill(self.pid, signum)

    def stop(self) -> None:
        """End the program by SIGKILL; it is reaped then."""
        self.signal(signal.SIGKILL)
        # Nobody can refuse it; but to close a TAP device the kernel waits for a lock that all
        # network namespaces of the machine share (rtnl_mutex).
        with asking_meanwhile(None):
            self.wait(60.0)

    def has_printed_too_much(self) -> bool:
        """Whether its output so far is more than `run` hands on."""
        return any(os.fstat(f).st_size > _MOST_OUTPUT_BYTES for f in (self._out, self._err))

    def stdout(self) -> str:
        """All it has printed so far."""
        return _contents(self._out).decode(errors="replace")

    def stderr_tail(self) -> str:
        """The last 2,000 characters of its error output so far."""
        size = os.fstat(self._err).st_size
        return os.pread(self._err, 8000, max(0, size - 8000)).decode(errors="replace")[-2000:]

    def blamed(self, daemon: str, reason: str) -> DaemonError:
        """The error that says so of it by the name of `daemon`, with the tail of its log."""
        return DaemonError(daemon, node=self._node, reason=reason, log_tail=self.stderr_tail())

    def _ends_within(self, timeout_s: float) -> bool:
        question = _question.get()
        patience = Patience(self.pid, timeout_s)
        try:
            while not self._ended.wait(
                min(_ASKED_EVERY_S, patience.turn_s()) if question else patience.turn_s()
            ):
                if patience.passed():
                    return False
                if question:
                    question()
            return True
        finally:
            _add_to_waited(patience.waited_s)

    def __del__(self) -> None:
        # Only the memory files: a process is ended by whoever started it, never by the collector.
        os.close(self._out)
        if self._err != self._out:
            os.close(self._err)


#: What is parsed is in English.  A folder that TMPDIR names below /tmp is hidden by the lab's own,
#: and iperf3 for one makes its streams there.
_ENVIRONMENT = {"LC_ALL": "C", "TMPDIR": "/tmp"}

#: Of a program that is run to its end, for either stream: it stays in memory, and comes whole.
_MOST_OUTPUT_BYTES = 64 << 20
_LONGEST_SHOWN = 200

_ASKED_EVERY_S = 0.2
_question: ContextVar[Callable[[], object] | None] = ContextVar("question", default=None)

_waited_s = 0.0
_waiting = threading.Lock()


def waited_s() -> float:
    """For how long programs have kept us waiting because the kernel did, in seconds, so far."""
    return _waited_s


def _add_to_waited(seconds: float) -> None:
    global _waited_s
    if seconds:
        with _waiting:
            _waited_s += seconds


if sys.version_info < (3, 11, 7):
    # Until vfork(2) returns, which is when execve(2) is done, older ones let no other thread run
    # (CPython issue 104372): 3.11.2, which is Debian 12's, does not, 3.11.7 does.
    subprocess._USE_VFORK = False  # type: ignore[misc]


@contextmanager
def asking_meanwhile(question: Callable[[], object] | None) -> Iterator[None]:
    """While this thread waits for a program in here, `question` is asked five times a second.

    What it raises ends the waiting: netperf, for one, waits a minute for a path that has died.
    """
    before = _question.set(question)
    try:
        yield
    finally:
        _question.reset(before)


def ask() -> None:
    """For who waits for something other than a program: the question of `asking_meanwhile`."""
    question = _question.get()
    if question is not None:
        question()


def spawn(
    argv: Sequence[str],
    *,
    node: str,
    namespaces: Namespaces | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | int | None = None,
    outputs: tuple[int, int] | None = None,
    new_pid_namespace: bool = False,
) -> Process:
    """Start `argv` in a node's namespaces, with bytes or a descriptor as standard input.

    With `outputs`, descriptors for standard output and error, the process keeps none of either.
    In a new PID namespace it is the first, and holds a descriptor of that.
    Raises CapabilityError if there is no such program, CommandError if it cannot be executed.
    """
    process: Process | None = None
    with ExitStack() as passing, ExitStack() as until_started:
        # A node has a /proc of its own.
        ours = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        passing.callback(os.close, ours)
        out = _memory_file("stdout", until_started)
        err = _memory_file("stderr", until_started)
        source = stdin if isinstance(stdin, int) else subprocess.DEVNULL
        if isinstance(stdin, bytes):
            source = _memory_file("stdin", passing)
            os.write(source, stdin)
            os.lseek(source, 0, os.SEEK_SET)
        environment = {**os.environ, **_ENVIRONMENT, "PATH": search_path(), **(env or {})}
        try:
            with entered(namespaces) if namespaces else nullcontext():
                if new_pid_namespace:
                    syscalls.unshare(syscalls.CLONE_NEWPID)
                # All our descriptors are close-on-exec, so nothing needs closing in the child.
                with reaping.births() as told:
                    popen = subprocess.Popen(
                        argv, stdin=source, stdout=outputs[0] if outputs else out,
                        stderr=outputs[1] if outputs else err, env=environment, close_fds=False,
                        start_new_session=True,
                    )  # fmt: skip
                    process = Process(popen, node=node, argv=argv, out=out, err=err)
                    until_started.pop_all()  # from now on it closes them itself
                    try:
                        if new_pid_namespace:
                            # It may have ended by now, but is reaped only if we are told of it.
                            its = f"{popen.pid}/ns/pid"
                            process.pid_namespace = os.open(
                                its, os.O_RDONLY | os.O_CLOEXEC, dir_fd=ours
                            )
                    finally:
                        told[popen.pid] = process.end
        except BaseException as error:
            if process is not None:
                _end_unowned(process)
            if not isinstance(error, OSError):
                raise
            # Looking in a folder of PATH that may not be searched gives EACCES as well, execvp(3).
            missing = isinstance(error, FileNotFoundError) or (
                isinstance(error, PermissionError) and not _is_there(argv[0])
            )
            if missing and process is None:
                raise _not_installed(argv[0]) from error
            # As a shell has it: 126 for what is there and cannot be executed.
            raise CommandError(argv, node=node, returncode=126, stderr=str(error)) from error
    reaping.see_to(process.pid)
    return process


def _end_unowned(process: Process) -> None:
    """One that was started, and whose caller will not have it."""
    reaping.see_to(process.pid)
    process.stop()
    if process.pid_namespace is not None:
        os.close(process.pid_namespace)


def run(
    argv: Sequence[str],
    *,
    node: str,
    namespaces: Namespaces | None = None,
    timeout_s: float = 10.0,
    check: bool = True,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    exact: bool = False,
) -> Completed:
    """Run a program to its end.

    Raises CommandError if it does not end in time (it is killed then) and, with `check`, if its
    status is not 0; XlabError, and it is killed, if it prints more than 64 MiB.
    """
    begun = time.monotonic()
    process = spawn(argv, node=node, namespaces=namespaces, env=env, stdin=stdin)
    question = _question.get()

    def look() -> None:
        if process.has_printed_too_much():
            shown = command_line(argv)[:_LONGEST_SHOWN]
            raise XlabError(f"{node}: `{shown}` printed more than {_MOST_OUTPUT_BYTES >> 20} MiB")
        if question is not None:
            question()

    try:
        with asking_meanwhile(look):
            returncode = process.wait(timeout_s)
        look()
    except BaseException:
        process.stop()
        raise
    errors = "surrogateescape" if exact else "replace"
    completed = Completed(
        argv=tuple(argv),
        returncode=returncode,
        stdout=_contents(process._out).decode(errors=errors),
        stderr=_contents(process._err).decode(errors=errors),
        duration_s=time.monotonic() - begun,
    )
    if check and returncode != 0:
        raise CommandError(
            argv, node=node, returncode=returncode, stderr=completed.stderr or completed.stdout
        )
    return completed


@contextmanager
def running(
    argv: Sequence[str],
    *,
    node: str,
    namespaces: Namespaces | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A program that runs while the block does and has been reaped when it is left."""
    process = spawn(argv, node=node, namespaces=namespaces, env=env)
    try:
        yield process
    finally:
        process.stop()


def wait_until(
    condition: Callable[[], bool],
    *,
    timeout_s: float,
    awaited: str,
    pid: int | None = None,
    pause_s: float = 0.0005,
    clock: Clock = steady,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Poll `condition`, often at first, until it is true; DeadlineError names what was awaited.

    Sleeping longer than was asked for does not count: the machine is busy, or was stopped, and what
    is awaited was held up as much as we were.  Nor does time in which the process `pid`, whose work
    it is, waits for the kernel.
    """
    deadline = Deadline(timeout_s, clock) if pid is None else Patience(pid, timeout_s, clock=clock)
    while not condition():
        if deadline.passed():
            raise DeadlineError(awaited, timeout_s)
        asleep_since_s = clock()
        sleep(pause_s)
        deadline.put_off(max(0.0, clock() - asleep_since_s - pause_s))
        pause_s = max(pause_s, min(pause_s * 1.5, 0.05))


def find_program(name: str) -> str:
    """The path of a program the lab needs; CapabilityError, with the remedy, if it is missing."""
    path = shutil.which(name, path=search_path())
    if path is None:
        raise _not_installed(name)
    return path


def _not_installed(program: str) -> CapabilityError:
    return CapabilityError(f"`{program}` is not installed", remedy(program))


def _is_there(program: str) -> bool:
    """Whether the name means a file at all, be it one that may not be executed."""
    return "/" in program or shutil.which(program, os.F_OK, search_path()) is not None


def command_line(argv: Sequence[str]) -> str:
    """`argv` as a line that can be pasted into a shell."""
    return shlex.join(argv)


def shell_status(returncode: int) -> int:
    """As a shell has it, and Docker: 137 for what SIGKILL ended."""
    return returncode if returncode >= 0 else 128 - returncode


def search_path(*, rootless: bool = False) -> str:
    """Where programs are looked for here, or in a `rootless` lab that is seen from outside."""
    # An ordinary user's PATH lacks the folders that hold ip, tcpdump and ovs-vswitchd on Debian.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    first = f"{sole_user.FOLDER}:"
    ours = (rootless or sole_user.applies()) and not path.startswith(first)
    return f"{first}{path}" if ours else path


def _memory_file(name: str, closing: ExitStack) -> int:
    descriptor = os.memfd_create(f"xlab-{name}", os.MFD_CLOEXEC)
    closing.callback(os.close, descriptor)
    return descriptor


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
