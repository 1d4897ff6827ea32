"""Mininet's command line, with nodes whose names are no identifiers, and errors said in a line."""

from __future__ import annotations

import os
import sys
from typing import Any

from xlab.errors import XlabError
from xlab.mininet import openvswitch
from xlab.mininet.original import cli as original
from xlab.mininet.original import log


class _Keys:
    """Standard input, of which a running program gets one key after the other.

    From a buffer the first key of several would be taken, and the rest stay until the next is typed
    (or, of a script on a pipe, the lines meant for the command line would go to the program).
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def read(self, size: int) -> str:
        return os.read(self.fileno(), size).decode(errors="replace")

    def readline(self) -> str:
        return str(self._stream.readline())


class CLI(original.CLI):
    """Mininet's CLI on a network of this package."""

    #: A container is called h1/c1, a host of some topologies h1-100.
    identchars = original.CLI.identchars + "/-."

    def __init__(
        self, mininet: Any, stdin: Any = None, script: str | None = None, *args: Any, **named: Any
    ) -> None:
        stdin = sys.stdin if stdin is None else stdin
        # input() reads the process's own.
        self.use_rawinput = stdin is sys.stdin
        super().__init__(mininet, _Keys(stdin), script, *args, **named)

    def onecmd(self, line: str) -> Any:
        """Run one line; what fails in the lab ends the line, not the command line."""
        try:
            return super().onecmd(line)
        except XlabError as error:
            log.error(f"*** {error}\n")
            return None

    def do_sh(self, line: str) -> None:
        """Run a command in Mininet's "root": sh ip link."""
        if not self.mn.of_a_lab:
            openvswitch.see_to(line)
        super().do_sh(line)

    def do_x(self, line: str) -> None:
        """Refused, as xterm: a display cannot be reached from inside a sandbox."""
        log.error(f"*** x {line}: no display can be reached from inside a sandbox\n")

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Refused: a display cannot be reached from inside a sandbox."""
        log.error(f"*** {term} {line}: no display can be reached from inside a sandbox\n")
