"""A program on a terminal of its own, as a person sees it: what is typed, what appears."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.labs import PATIENCE_S
from xlab.kernel.clock import Deadline


class Terminal:
    def __init__(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        size: tuple[int, int] = (24, 80),
        term: str = "dumb",
    ) -> None:
        """Start it; `size` is in lines and columns, and a dumb terminal has no line that moves."""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.execvpe(argv[0], list(argv), {**environment, "TERM": term})
        self._seen = ""
        self._hung_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def expect(self, text: str) -> str:
        """Wait for `text`; what came before it, and was not looked at yet."""
        deadline = Deadline(PATIENCE_S)
        while text not in self._seen:
            data = self._read(deadline)
            assert data, f"ended without {text!r}: {self._seen!r}"
            self._seen += data
        before, _, self._seen = self._seen.partition(text)
        return before

    def line(self, typed: str, prompt: str) -> str:
        """Type a line; what it prints until the next prompt."""
        self.type(f"{typed}\n")
        return self.expect(prompt).removeprefix(typed).strip()

    def end(self) -> tuple[int, str]:
        """Wait for its end; the exit status and what was not looked at yet."""
        deadline = Deadline(PATIENCE_S)
        while data := self._read(deadline):
            self._seen += data
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self._seen

    def hang_up(self) -> None:
        """The terminal is gone: its session gets SIGHUP."""
        if not self._hung_up:
            self._hung_up = True
            os.close(self._terminal)

    def _read(self, deadline: Deadline) -> str:
        ready, _, _ = select.select([self._terminal], [], [], deadline.left_s())
        assert ready, f"nothing more came after {self._seen!r}"
        try:
            return os.read(self._terminal, 1 << 16).decode(errors="replace")
        except OSError:  # EIO: nobody holds the other side any more
            return ""
