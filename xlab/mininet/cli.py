"""Mininet's command line, with nodes whose names are no identifiers, and errors said in a line."""

from __future__ import annotations

import os
import select
import sys
from typing import Any

from xlab.errors import XlabError
from xlab.kernel import signals
from xlab.mininet import openvswitch
from xlab.mininet.original import cli as original
from xlab.mininet.original import log


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
        super().__init__(mininet, stdin, script, *args, **named)

    def onecmd(self, line: str) -> Any:
        """Run one line; what fails in the lab ends the line, not the command line."""
        try:
            return super().onecmd(line)
        except XlabError as error:
            log.error(f"*** {error}\n")
            return None

    def waitForNode(self, node: Any) -> None:
        """Print what a node's command prints, and pass on what is typed, until it has ended.

        Mininet's own would not see a Ctrl-C that comes just before it waits again.
        """
        keys, output = self.stdin.fileno(), node.stdout.fileno()
        poller = select.poll()
        with signals.noted() as interrupted:
            for each in (keys, output, interrupted):
                poller.register(each, select.POLLIN)
            if self.isatty():
                # Keys one by one, for whoever asks for one.
                original.quietRun("stty -icanon min 1")
            while node.waiting:
                try:
                    ready = {each for each, _ in poller.poll()}
                    if interrupted in ready:
                        os.read(interrupted, 1024)
                    if keys in ready and not _pass_on_key(keys, node):
                        poller.unregister(keys)
                    if output in ready:
                        log.output(node.monitor())
                except KeyboardInterrupt:
                    if node.waiting:
                        node.sendInt()

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


def _pass_on_key(source: int, node: Any) -> bool:
    """False if there are no more.

    From a buffer the first key of several would be taken, and the rest stay until the next is typed
    (or, of a script on a pipe, the lines meant for the command line would go to the program).
    """
    try:
        key = os.read(source, 1)
    except OSError:
        return False  # the terminal is gone
    os.write(node.stdin.fileno(), key)
    return bool(key)
