"""Where commands typed in a host are done: a socket in its own /run, which pid 1 answers.

    h1$ docker run …    client ── /run/xlab/desk of h1 ── a thread of pid 1 ── `machine.docker`

    typed     do a command; text for the terminal comes as events
    await     the exit status of a program that the client is the terminal of
    signal    send that program a signal

The protocol is the controller's own, with these verbs and no others.
"""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import BufferedIOBase
from itertools import count
from pathlib import Path
from typing import Any

from xlab.errors import DockerError, XlabError, quoted
from xlab.faults.kinds import HostCrash
from xlab.inside.machine import docker, weave
from xlab.inside.machine.client import DESK
from xlab.inside.machine.systemd import Systemd
from xlab.inside.machine.typist import Attached, Outcome, RefusalError, Typist
from xlab.lab.lab import Host
from xlab.sandbox import controller
from xlab.sandbox.console import Attachable
from xlab.sandbox.controller import Emit, Handler, WithDescriptors

_SYSTEMD = "systemctl: emulated, for the services of an emulated host\n"
_NOTICES = {"docker": docker.NOTICE, "weave": weave.NOTICE, "systemctl": _SYSTEMD}


#: Commands at a time; one that is the terminal of a program takes as long as that.
MOST_CLIENTS = 64
#: A command line has at most 2 MiB (ARG_MAX), of which JSON makes twice as much if all of it are
#: quotes or ends of lines; only of control characters it makes more.
_LONGEST_REQUEST_BYTES = 4 << 20
#: What is longer takes turns with the host's others that are.
_USUAL_REQUEST_BYTES = 16 << 10
#: JSON in memory may be 24 times as long as it was, `[{},{},…]`: the lab reads one at a time.
_reading = threading.Lock()
#: What getopt(3) of Python does with many takes their square of time.
_MOST_WORDS = 10_000

#: Why no connection can be accepted now, accept(2).
_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_ONCE_MORE_S = 0.02


class Desk:
    """Of one host."""

    def __init__(self, host: Host, systemd: Systemd, reboot: Callable[[Host], None]) -> None:
        self._host = host
        self._systemd = systemd
        self._reboot = reboot
        self._listener: socket.socket | None = None
        self._attached: dict[int, Attachable] = {}
        self._numbers = count(1)
        self._room = threading.Semaphore(MOST_CLIENTS)
        #: Held while a long command line comes in and is done.
        self._long = threading.Lock()
        #: Whose notice has been given.
        self._noticed: set[str] = set()

    def open(self) -> None:
        """Answer from now on; again after the host has been booted, where /run is another one."""
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._host.entered():
            Path(DESK).parent.mkdir(parents=True, exist_ok=True)
            listener.bind(DESK)
        listener.listen(16)
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), name="desk", daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno not in _FOR_NOW:
                    return  # it has been shut down
                time.sleep(_ONCE_MORE_S)
                continue
            # Each has a thread and a descriptor of pid 1's, which the whole lab needs.
            if not self._room.acquire(blocking=False):
                _turn_away(connection)
                continue
            #: What was started on this connection: the last, which it may still await.
            mine: list[int] = []
            handlers: dict[str, Handler] = {
                "typed": partial(self._typed, mine=mine),
                "await": self._await,
                "signal": self._signal,
            }
            try:
                controller.answer(
                    handlers,
                    connection,
                    read=self._next_request,
                    ended=partial(self._closed, mine),
                )
            except RuntimeError:
                self._room.release()
                _turn_away(connection)

    @contextmanager
    def _next_request(self, lines: BufferedIOBase) -> Iterator[object]:
        line = lines.readline(_USUAL_REQUEST_BYTES)
        if not line:
            raise EOFError
        with ExitStack() as while_it_is_done:
            is_long = len(line) == _USUAL_REQUEST_BYTES and not line.endswith(b"\n")
            if is_long:
                while_it_is_done.enter_context(self._long)
                line += lines.readline(_LONGEST_REQUEST_BYTES - len(line))
                if len(line) == _LONGEST_REQUEST_BYTES:
                    raise XlabError(
                        f"the command line is longer than {_LONGEST_REQUEST_BYTES:,} bytes"
                    )
            request = _known(line)
            del line
            # For a program's end somebody may wait for hours.
            is_sensible = request and (request["verb"] == "typed" or not is_long)
            yield request if is_sensible else None

    def _closed(self, mine: list[int]) -> None:
        self._room.release()
        self._forget(mine)

    def _forget(self, mine: list[int]) -> None:
        """Programs that nobody awaits any more; each would keep descriptors of pid 1's."""
        while mine:
            self._attached.pop(mine.pop(), None)

    def _typed(self, arguments: Mapping[str, Any], emit: Emit, *, mine: list[int]) -> Any:
        command, words = arguments["command"], arguments["words"]
        if len(words) > _MOST_WORDS:
            raise XlabError(f"{quoted(command)}: more than {_MOST_WORDS:,} words")
        typist = Typist(
            words=words,
            terminal=bool(arguments.get("terminal")),
            out=lambda text: emit({"out": text}),
            err=lambda text: emit({"err": text}),
            require_host=partial(self._require_host, self._host.crashes),
        )
        notice = _NOTICES.get(command)
        # A script that asks systemctl something need not be told.
        wanted = typist.terminal or command != "systemctl"
        if notice and wanted and command not in self._noticed:
            self._noticed.add(command)
            typist.err(notice)
        try:
            outcome = self._perform(command, typist)
        except DockerError as error:
            typist.err(f"{error}\n")
            outcome = error.exit_code
        except (RefusalError, XlabError) as error:
            typist.err(f"{command}: {error}\n")
            outcome = error.status if isinstance(error, RefusalError) else 1
        if isinstance(outcome, Attached):
            return self._attend(mine, outcome)
        return {"status": outcome or 0}

    def _require_host(self, crashes: int) -> None:
        if self._host.crashes != crashes:
            raise RefusalError(f"{self._host} has been switched off since this was typed")

    def _perform(self, command: str, typist: Typist) -> Outcome:
        host = self._host
        if command == "shutdown" and {"-r", "--reboot"} & set(typist.words):
            command = "reboot"
        match command:
            case "docker":
                return docker.perform(host.docker, typist)
            case "weave":
                return weave.perform(host, typist)
            case "systemctl":
                return self._systemd.systemctl(typist)
            case "service":
                return self._systemd.service(typist)
            case "journalctl":
                self._systemd.journalctl(typist)
            case "reboot":
                self._reboot(host)
            case "poweroff" | "halt" | "shutdown":
                crash = HostCrash(host.name)
                raise RefusalError(
                    f"not emulated in here: `xlab fault {crash}` outside switches the host off; "
                    "`reboot` here boots it anew"
                )
            case _:
                raise RefusalError("not emulated")
        return None

    def _attend(self, mine: list[int], found: Attached) -> WithDescriptors:
        self._forget(mine)
        number = next(self._numbers)
        mine.append(number)
        self._attached[number] = found.program
        facts = {
            "attached": number,
            "tty": found.program.console.tty,
            "interactive": found.interactive,
        }
        return WithDescriptors(facts, found.descriptors)

    def _await(self, arguments: Mapping[str, Any], _: Emit) -> int:
        number = arguments["attached"]
        try:
            return self._attached[number].wait()
        finally:
            self._attached.pop(number, None)

    def _signal(self, arguments: Mapping[str, Any], _: Emit) -> None:
        program = self._attached.get(arguments["attached"])
        if program:
            program.process.signal(arguments["signal"])


def _known(line: bytes) -> dict[str, Any] | None:
    """What a handler knows of what is asked for, whatever else is said; None if it knows of none.

    All that is in it are words and numbers: it is kept for as long as a handler is at work.
    """
    with _reading:
        match json.loads(line):
            case {
                "verb": "typed",
                "arguments": {"command": str(command), "words": list(words), **rest},
            } if all(isinstance(word, str) for word in words):
                terminal = rest.get("terminal") is True
                arguments = {"command": command, "words": words, "terminal": terminal}
                return {"verb": "typed", "arguments": arguments}
            case {"verb": "await", "arguments": {"attached": int(number)}}:
                return {"verb": "await", "arguments": {"attached": number}}
            case {"verb": "signal", "arguments": {"attached": int(number), "signal": int(signum)}}:
                return {"verb": "signal", "arguments": {"attached": number, "signal": signum}}
    return None


def _turn_away(connection: socket.socket) -> None:
    error = {
        "message": f"{MOST_CLIENTS} commands are at work in this host already: when one of them "
        "has ended there is room again",
        "exit_status": 1,
    }
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.sendall(json.dumps({"error": error}).encode() + b"\n")
