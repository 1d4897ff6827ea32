"""What a program in the lab reads and writes while people come and go: a terminal or pipes, a log.

    program ── pty, or three pipes ── pump, a thread of pid 1 ──┬── log
                                                                ├── somebody who is attached
                                                                └── somebody else who is

Docker's way: nobody need be there, any number may be, and the program never waits for one to come.
Who is attached and reads no more, a stopped client say, holds the program up, as a terminal would.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import threading
from collections import deque
from collections.abc import Iterable
from typing import Literal

from xlab.errors import XlabError
from xlab.kernel.processes import Process, shell_status
from xlab.sandbox import containment

Stream = Literal["out", "err"]
_STREAMS: tuple[Stream, Stream] = ("out", "err")

#: Of its log the end is kept.
_LOG_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
#: What an entry of the log takes of our memory, however little is in it.
_ENTRY_BYTES = 200
#: What the pump is told: somebody may have left, and the program has ended.
_LOOK, _OVER = b"?", b"."
#: Descriptors for a console and somebody who is attached to it.
_OF_A_PROGRAM = 12


class Console:
    """One program's standard input, output and error.  `opened` it belongs to a running program.

    One that has not been when its block is left has no program: all of it is closed, what `attach`
    has given away included.

        with Console() as console:
            descriptors = console.attach()
            …                               start a program on it, and say `opened`
    """

    def __init__(self, *, tty: bool = False, stdin: bool = False) -> None:
        """With a `tty` all three are one terminal; without `stdin` nobody can type.

        XlabError where it would leave too little of what this process may open to the rest.
        """
        _require_room()
        self.tty = tty
        self.stdin = stdin or tty
        self._lock = threading.Lock()
        self._log: deque[tuple[Stream, bytearray]] = deque()
        self._logged = 0
        self._attached: list[dict[Stream, int]] = []
        #: Where it comes from, by our descriptor.
        self._sources: dict[int, Stream] = {}
        #: What can be typed into, and the program's ends until it has its own copies.
        self._input: int | None = None
        self._theirs: list[int] = []
        #: What `attach` has given away, until there is a program.
        self._given: list[int] = []
        self.is_opened = False
        #: By which the pump is told what to do; None when all is closed.
        self._wake: tuple[int, int] | None = None
        self._is_to_look = False
        self._pump = threading.Thread(target=self._pass_on, name="console", daemon=True)
        try:
            self._open(tty, stdin)
        except BaseException:
            self.abandon()
            raise

    def _open(self, tty: bool, stdin: bool) -> None:
        self._wake = os.pipe()
        if tty:
            ours, theirs = os.openpty()
            self._sources[ours], self._input = "out", ours
            self._theirs = [theirs, theirs, theirs]
        else:
            self._theirs = [self._input_pipe() if stdin else os.open(os.devnull, os.O_RDONLY)]
            for stream in _STREAMS:
                ours, theirs = os.pipe()
                self._sources[ours] = stream
                self._theirs.append(theirs)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_opened:
            self.abandon()

    def _input_pipe(self) -> int:
        theirs, self._input = os.pipe()
        return theirs

    @property
    def tty_path(self) -> str:
        """The terminal, "" without one.  Whoever leads a session and opens it for reading has it as
        controlling terminal from then on (tty_open, drivers/tty/tty_io.c)."""
        return os.ttyname(self._theirs[0]) if self.tty else ""

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told of it, as Docker tells it."""
        own = {"HOME": "/root", "LC_ALL": "C.UTF-8"}
        return own | {"TERM": "xterm"} if self.tty else own

    @property
    def stdin_path(self) -> str:
        """What to open for standard input where our /proc is seen, if it is seen there."""
        if self.stdin and not containment.limits():
            return self.tty_path or f"/proc/{os.getpid()}/fd/{self._theirs[0]}"
        return self.tty_path or os.devnull

    @property
    def input_end(self) -> int:
        """A descriptor for the program's standard input."""
        return self._theirs[0]

    @property
    def outputs(self) -> tuple[int, int]:
        """Descriptors for the program's standard output and error."""
        return self._theirs[1], self._theirs[2]

    def opened(self) -> None:
        """The program has its ends."""
        self._close_theirs()
        self._pump.start()
        self._given, self.is_opened = [], True

    def abandon(self) -> None:
        """There will be no program."""
        self._close_theirs()
        self._close()
        given, self._given = self._given, []
        close_all(given)

    def attach(self, *, once: bool = False) -> list[int]:
        """Descriptors for somebody: what to type into, if one can, then output and error to read.

        They end with the program.  `once`: when this one has no more to type, that is the end of
        the program's standard input.  XlabError as of a program more.
        """
        _require_room()
        with self._lock:
            found: list[int] = []
            ends: dict[Stream, int] = {}
            try:
                if self._input is not None:
                    found.append(os.dup(self._input))
                for stream in _STREAMS:
                    theirs, ends[stream] = os.pipe()
                    found.append(theirs)
            except BaseException:
                # EMFILE, say.  A copy of the input that stayed would keep its end from the program.
                close_all((*found, *ends.values()))
                raise
            if once and not self.tty and self._input is not None:
                os.close(self._input)
                self._input = None
            if self._sources:
                if self._attached and self._wake is not None and not self._is_to_look:
                    self._is_to_look = True  # the pump may be held up, and a pipe be full
                    os.write(self._wake[1], _LOOK)
                self._attached.append(ends)
            else:
                close_all(ends.values())
            if not self.is_opened:
                self._given += found
            return found

    def log(self) -> list[tuple[Stream, bytes]]:
        """What the program has printed, the last megabyte of it."""
        with self._lock:
            return [(stream, bytes(data)) for stream, data in self._log]

    def ended(self) -> None:
        """The program has: what it has printed is passed on, and what it started may go on alone.

        Returns when everybody attached has been told all.
        """
        with self._lock:
            if self._wake is not None:
                os.write(self._wake[1], _OVER)
        self._pump.join()

    def _pass_on(self) -> None:
        over = False
        assert self._wake is not None
        wake_read, _ = self._wake
        poller = select.poll()
        for descriptor in (*self._sources, wake_read):
            poller.register(descriptor, select.POLLIN)
        while self._sources:
            readable = poller.poll(0 if over else None)
            if over and not readable:
                break
            for descriptor, _ in readable:
                if descriptor == wake_read:
                    if _OVER in os.read(descriptor, _CHUNK_BYTES):
                        poller.unregister(descriptor)
                        over = True
                    self._let_go_of_who_has_left()
                    continue
                data = _read(descriptor)
                if data:
                    self._tell(self._sources[descriptor], data)
                else:
                    poller.unregister(descriptor)
                    with self._lock:
                        del self._sources[descriptor]
                    if descriptor != self._input:
                        os.close(descriptor)
        self._close()

    def _tell(self, stream: Stream, data: bytes) -> None:
        with self._lock:
            if self._log and self._log[-1][0] == stream and len(self._log[-1][1]) < _CHUNK_BYTES:
                self._log[-1][1].extend(data)
            else:
                self._log.append((stream, bytearray(data)))
                self._logged += _ENTRY_BYTES
            self._logged += len(data)
            while self._logged > _LOG_BYTES and len(self._log) > 1:
                self._logged -= len(self._log.popleft()[1]) + _ENTRY_BYTES
            attached = list(self._attached)
        for ends in attached:
            if not _write(ends[stream], data):
                self._let_go(ends)

    def _let_go_of_who_has_left(self) -> None:
        """Who prints nothing would else keep them all."""
        with self._lock:
            self._is_to_look = False
            attached = list(self._attached)
        for ends in attached:
            poller = select.poll()
            for descriptor in ends.values():
                # POLLERR of a pipe that nobody can read any more comes without being asked for.
                poller.register(descriptor, 0)
            if len(poller.poll(0)) == len(ends):
                self._let_go(ends)

    def _let_go(self, ends: dict[Stream, int]) -> None:
        """By the pump alone, which writes there without the lock."""
        with self._lock:
            self._attached.remove(ends)
        close_all(ends.values())

    def _close_theirs(self) -> None:
        close_all(set(self._theirs))
        self._theirs = []

    def _close(self) -> None:
        with self._lock:
            for ends in self._attached:
                close_all(ends.values())
            self._attached.clear()
            left = {*self._sources, *(self._wake or ()), self._input}
            self._sources.clear()
            self._input = self._wake = None
            close_all(number for number in left if number is not None)


class Attachable:
    """A program with a console, for whoever wants to see how it ends."""

    def __init__(self, process: Process, console: Console) -> None:
        self.process = process
        self.console = console

    def wait(self) -> int:
        """The exit status, as a shell has it, once it has ended and all has been told."""
        status = self.process.wait(threading.TIMEOUT_MAX)
        self.console.ended()
        return shell_status(status)


def _require_room() -> None:
    if _is_crowded():
        raise XlabError("too many programs run in this lab: end some of them")


def _is_crowded() -> bool:
    """Whether a program more would take of the last eighth of what this process may open.

    The lowest numbers that are free are given (open(2)), and gaps among those in use may be few: so
    as many are asked for as a program takes.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        taken += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_OF_A_PROGRAM))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return True
    finally:
        close_all(taken)
    return taken[-1] > limit * 7 // 8


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


def _write(descriptor: int, data: bytes) -> bool:
    """Whether somebody is there who reads."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        return False
    return True


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
