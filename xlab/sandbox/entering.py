"""Going into a running lab: a program of the caller's, in a node, on the caller's own terminal.

    caller ── sees to the terminal, is stopped with the program (Ctrl-Z), passes its status on
      └── attendant: joins the user and the PID namespace, forks ── waits, and nobody stops it
            └── child: a process of the node (`ps` there shows it); joins the network, UTS, IPC and
                mount namespaces, becomes a job of its own in the terminal's session, execs

No pseudo-terminal is in between, so job control, window sizes, Ctrl-C and completion are simply
there; but in a contained lab one is (`terminal`), and whoever enters is guarded as its pid 1 is.
The child is in the lab's PID namespace and ends with the lab.  The attendant is there since a
zombie whose parent is stopped would keep its PID namespace, and so the lab, from ending
(zap_pid_ns_processes, pid_namespaces(7)).
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from xlab.errors import CapabilityError
from xlab.kernel import signals, syscalls
from xlab.kernel.processes import search_path, shell_status
from xlab.sandbox import containment, sandbox
from xlab.sandbox.console import close_all
from xlab.sandbox.containment import Limits
from xlab.sandbox.terminal import Relay

#: What a shell says of a program that it does not find, or must not execute.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: Above this the status is that of a program that a signal has ended.
_KILLED = 128
#: How often a program is looked at whose time is over, and how many times before it is interrupted
#: though it does not catch that.
_AGAIN_S, _MOST_TIMES = 0.1, 300
#: What `xlab exec` says of a node that cannot be entered, as docker exec does.
NOT_ENTERED = 125


@dataclass(frozen=True, slots=True)
class Doors:
    """Open namespaces of a place in a lab, by their names in /proc/PID/ns."""

    opened: Mapping[str, int]
    rootless: bool
    #: Of a lab that is contained.
    limits: Limits | None = None

    def begin(self) -> list[str]:
        """See `sandbox.join_for_children`; CapabilityError if we could not enter unharmed."""
        if self.limits:
            containment.guard_who_enters(self.limits)
        return sandbox.join_for_children(self.opened, rootless=self.rootless)

    def close(self) -> None:
        close_all(self.opened.values())


def run(
    doors: Doors,
    argv: Sequence[str],
    *,
    node: str,
    folder: Path,
    env: Mapping[str, str],
    inherit: Sequence[int] = (),
    duration_s: float | None = None,
) -> int:
    """Run a program there in the foreground and wait; its exit status, as a shell has it.

    It starts in `folder`, or in "/" where there is none of that name, and is interrupted after
    `duration_s`, as Ctrl-C would.  Only for a process with one thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    relay = Relay(_our_terminal()) if doors.limits else None
    terminal = None if relay else _our_terminal()
    modes = termios.tcgetattr(terminal) if terminal is not None else None
    # Until the child is a job of its own, a Ctrl-C would be for both.
    signals.ignore([signal.SIGINT, signal.SIGQUIT])

    start = partial(
        become, doors, argv=argv, node=node, folder=folder, env=env, inherit=inherit,
        terminal=terminal, relay=relay,
    )  # fmt: skip
    caller = os.getpid()
    told, tells = os.pipe2(os.O_CLOEXEC)
    attendant = syscalls.fork(
        lambda: _attend(
            doors, start, node=node, caller=caller, tells=tells, job=terminal is not None,
            relay=relay,
        )
    )  # fmt: skip
    os.close(tells)
    doors.close()
    if relay:
        relay.leave_to_program()
    child = _next(told)
    if child is None:
        os.waitpid(attendant, 0)
        return NOT_ENTERED

    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    ends = (signal.SIGTERM, signal.SIGHUP)
    before: dict[int, signals.Handler] = {number: signal.getsignal(number) for number in ends}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    if relay:
        # In a session of its own, a Ctrl-C on our terminal is not for it.
        before |= dict.fromkeys((signal.SIGINT, signal.SIGQUIT), signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, pass_on)

    left = iter(range(_MOST_TIMES))

    def interrupt(*_: object) -> None:
        # One that does not catch it yet has not begun, and would end without a word.
        if _catches(child, signal.SIGINT) or next(left, None) is None:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)

    if duration_s:
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, duration_s, _AGAIN_S)
    code = _relayed(relay, told) if relay else _wait(child, told, terminal)
    os.waitpid(attendant, 0)
    os.close(told)
    signal.setitimer(signal.ITIMER_REAL, 0)
    # Its number may be another's from now on.
    signals.handle(before)
    if terminal is not None and modes and code > _KILLED:
        # A shell that was killed, with its host perhaps, has left it as it was while one typed.
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
    return code


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt, proc(5)); False once it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def environment(doors: Doors) -> dict[str, str]:
    """The caller's own, but for what is different where the program runs, as root.

    In a contained lab no more than a stranger may see.
    """
    own = containment.environment() if doors.limits else {
        key: value
        for key, value in os.environ.items()
        # Folders that may be there, and not to be written to.
        if not key.startswith("XDG_") and key != "TMPDIR"
    }  # fmt: skip
    path = search_path(rootless=doors.rootless)
    return {**own, "PATH": path, "HOME": "/root", "USER": "root", "LOGNAME": "root"}


def _our_terminal() -> int | None:
    """The terminal in whose foreground we are, as the descriptor of standard input."""
    with suppress(OSError):  # not our session's terminal
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
            return 0
    return None


def _attend(
    doors: Doors,
    start: Callable[[Sequence[str]], NoReturn],
    *,
    node: str,
    caller: int,
    tells: int,
    job: bool,
    relay: Relay | None,
) -> NoReturn:
    """Be the parent of the program, and tell its number, then each wait status (waitpid(2)).

    `job`: whether the program has a process group of its own.
    """
    try:
        kinds = doors.begin()
        # Not before: the kernel forgets it where credentials change (commit_creds).
        syscalls.die_with_parent()
        if os.getppid() != caller:
            os._exit(NOT_ENTERED)
        child = syscalls.fork(lambda: start(kinds))
        doors.close()
        if relay:
            relay.leave_to_program()
        # The group of whoever is stopped: the caller's.  A program that is a job of its own has its
        # parent in its session, or Ctrl-Z would be lost.  One of the caller's group has not: with
        # its end that group could become an orphaned one, which the kernel then sends SIGHUP if
        # somebody in it is stopped (kill_orphaned_pgrp).
        if job:
            os.setpgid(0, 0)
        else:
            os.setsid()
        os.write(tells, _NUMBER.pack(child))
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            os.write(tells, _NUMBER.pack(status))
            if not os.WIFSTOPPED(status):
                os._exit(0)
    except (OSError, CapabilityError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _complain(NOT_ENTERED, f"{node}: cannot be entered: {reason}")
    finally:
        os._exit(NOT_ENTERED)


#: What an attendant tells.
_NUMBER = struct.Struct("i")


def _next(told: int) -> int | None:
    """What the attendant tells next; None if there is none any more."""
    data = os.read(told, _NUMBER.size)
    return int(_NUMBER.unpack(data)[0]) if data else None


def _wait(child: int, told: int, terminal: int | None) -> int:
    # Whoever is in the background and takes the terminal is stopped, unless it ignores that.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    while True:
        status = _next(told)
        if terminal is not None:
            _take(terminal, os.getpgrp())
        if status is None:
            return _KILLED + signal.SIGKILL  # the attendant was, and with it the program
        if not os.WIFSTOPPED(status):
            return shell_status(os.waitstatus_to_exitcode(status))
        if terminal is not None:
            # As the shell that started us would have it of any job: stopped as a whole.
            os.killpg(0, signal.SIGSTOP)
            if os.tcgetpgrp(terminal) == os.getpgrp():
                _take(terminal, child)
            with suppress(ProcessLookupError):  # it has ended with its lab
                os.killpg(child, signal.SIGCONT)


def _relayed(relay: Relay, told: int) -> int:
    """The same of a program that has not our terminal."""
    code = _KILLED + signal.SIGKILL

    def over() -> bool:
        nonlocal code
        status = _next(told)
        if status is not None and os.WIFSTOPPED(status):
            return False
        if status is not None:
            code = shell_status(os.waitstatus_to_exitcode(status))
        return True

    relay.run(told, over)
    return code


def _take(terminal: int, group: int) -> None:
    with suppress(OSError):  # it has hung up
        os.tcsetpgrp(terminal, group)


def become(
    doors: Doors,
    kinds: Sequence[str],
    argv: Sequence[str],
    *,
    node: str,
    folder: Path,
    env: Mapping[str, str],
    terminal: int | None = None,
    relay: Relay | None = None,
    inherit: Sequence[int] = (),
    orphaned: signal.Signals = signal.SIGHUP,
    is_orphan: Callable[[], bool] = lambda: False,
    complain: Callable[[int, str], object] | None = None,
) -> NoReturn:
    """Go on as the node's program; runs in the child, and never returns.

    `complain` is told the exit status, and why, if there will be no program.
    """
    complain = complain or _complain
    status = NOT_ENTERED
    try:
        # A program left without whoever waits for it is told as if its terminal had gone.
        syscalls.die_with_parent(orphaned)
        if is_orphan():
            os._exit(status)
        for kind in kinds:
            syscalls.setns(doors.opened[kind], sandbox.JOINED[kind])
        sandbox.give_up_rights(rootless=doors.rootless)
        if relay:
            relay.become_programs()
        os.chdir(folder if folder.is_dir() else "/")
        if terminal is not None:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(terminal, os.getpgrp())
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in inherit:
            os.set_inheritable(descriptor, True)
        status = NOT_FOUND
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as error:
        reason = error.strerror
        if status == NOT_FOUND:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                reason = "not found"
            else:
                status = NOT_EXECUTABLE
        what = argv[0] if status != NOT_ENTERED else "cannot be entered"
        complain(status, f"{node}: {what}: {reason}")
    except BaseException as error:  # noqa: BLE001 - nothing may return into the caller's code
        complain(status, f"{node}: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _complain(_: int, text: str) -> None:
    os.write(2, f"xlab: {text}\n".encode(errors="backslashreplace"))
