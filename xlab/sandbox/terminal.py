"""A terminal in between, for a stranger's program: that never has the caller's own.

    caller's terminal, raw ── Relay, in the caller ── pseudo-terminal ── program: leads a session

Whoever has a terminal open may read there what its user types elsewhere, once in a session without
one (job_control, drivers/tty/n_tty.c), and change its modes, also after the program has ended.
Here that is over with the pseudo-terminal.  What is shown is passed on as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from xlab.kernel import signals

_CHUNK_BYTES = 1 << 16
#: Each has up to 4 KiB, and a terminal holds up to 64 KiB.
_LAST_READS = 32
#: Of what termios.tcgetattr has.
_LFLAG = 3
#: The end of what is typed (VEOF).
_END = b"\x04"


class Relay:
    """Of those of our standard streams that are terminals; without any a program has none."""

    def __init__(self, typed: int | None) -> None:
        """`typed`: a descriptor of the terminal in whose foreground we are."""
        self._streams = [stream for stream in (1, 2, 0) if _is_terminal(stream)]
        self._typed = typed
        #: Whoever our standard output goes to may have the terminal's modes in hand: less(1).
        self._by_lines = 1 not in self._streams
        self._ours = self._theirs = -1
        if self._streams:
            self._ours, self._theirs = os.openpty()
            os.set_blocking(self._ours, False)
            with suppress(termios.error):  # it has hung up
                modes = termios.tcgetattr(self._streams[0])
                if self._by_lines:
                    # Ours echoes.
                    modes[_LFLAG] &= ~termios.ECHO
                termios.tcsetattr(self._theirs, termios.TCSANOW, modes)
            self._fit()

    def become_programs(self) -> None:
        """In the process that is to execute the program."""
        os.setsid()
        if self._streams:
            fcntl.ioctl(self._theirs, termios.TIOCSCTTY, 0)
            for stream in self._streams:
                os.dup2(self._theirs, stream)

    def leave_to_program(self) -> None:
        """In another: the program has its end."""
        if self._streams:
            os.close(self._theirs)

    def run(self, told: int, over: Callable[[], bool]) -> None:
        """Pass on what is typed and shown, until it is `over`, asked when `told` is readable."""
        if not self._streams:
            while not over():
                pass
            return
        raw = self._typed is not None and not self._by_lines
        before = termios.tcgetattr(self._typed) if raw and self._typed is not None else None
        handlers: dict[int, signals.Handler] = {signal.SIGWINCH: signal.getsignal(signal.SIGWINCH)}
        signal.signal(signal.SIGWINCH, self._fit)
        self._fit()
        try:
            if before is not None and self._typed is not None:
                tty.setraw(self._typed, termios.TCSADRAIN)
            self._pass_on(told, over)
        finally:
            if before is not None and self._typed is not None:
                with suppress(termios.error):
                    termios.tcsetattr(self._typed, termios.TCSADRAIN, before)
            signals.handle(handlers)
            os.close(self._ours)

    def _pass_on(self, told: int, over: Callable[[], bool]) -> None:
        poller = select.poll()
        for descriptor in (told, self._ours, *([] if self._typed is None else [self._typed])):
            poller.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == told:
                    if over():
                        # All that it has printed: a read waits for what is on its way (n_tty_read).
                        # Not more, of whom it may have left behind.
                        any(not self._show() for _ in range(_LAST_READS))
                        return
                elif descriptor == self._ours:
                    if not self._show():
                        poller.unregister(descriptor)
                elif not self._type():
                    poller.unregister(descriptor)

    def _show(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._ours, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has it open
                raise
            return False
        view = memoryview(data)
        with suppress(OSError):  # ours has hung up
            while view:
                view = view[os.write(self._streams[0], view) :]
        return bool(data)

    def _type(self) -> bool:
        assert self._typed is not None
        try:
            data = os.read(self._typed, _CHUNK_BYTES)
        except OSError:
            return False
        with suppress(BlockingIOError):  # nobody reads there: it is lost, as on any terminal
            os.write(self._ours, data or _END)
        return bool(data)

    def _fit(self, _: int = 0, __: FrameType | None = None) -> None:
        """The other is as large as ours."""
        with suppress(OSError):
            size = fcntl.ioctl(self._streams[0], termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)


def _is_terminal(stream: int) -> bool:
    with suppress(OSError):
        return os.isatty(stream)
    return False
