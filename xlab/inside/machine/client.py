"""A command typed in a host: has the lab's pid 1 do it, and shows what comes of it.

    $ docker run -it ubuntu bash      client ── /run/xlab/desk ── pid 1, `xlab.inside.machine.desk`
                                        └── the container's terminal, as open files from there

Stands alone and imports little, so that it starts like the small programs it stands for.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

DESK = "/run/xlab/desk"

#: Ctrl-P Ctrl-Q: leave, and let the program go on; Docker's own.
_DETACH = b"\x10\x11"
_CHUNK_BYTES = 1 << 16
_MOST_DESCRIPTORS = 16
_ENOUGH_SIGNALS = 3


def main(command: str, words: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Words that are no UTF-8 come back as they went.
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        desk = Desk()
    except OSError as error:
        sys.stderr.write(
            f"{command}: the lab does not answer ({error.strerror}); outside of it, xlab ps shows "
            "whether it runs\n"
        )
        return 1
    asked = {"command": command, "words": words, "terminal": os.isatty(0)}
    try:
        result, descriptors = desk.ask("typed", asked)
        if "attached" in result:
            return _attend(desk, result, descriptors)
        return int(result["status"])
    except RefusalError as refusal:
        sys.stderr.write(f"{command}: {refusal}\n")
        return refusal.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


class RefusalError(Exception):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Desk:
    """A connection to the lab's pid 1, `xlab.sandbox.controller`'s protocol."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(DESK)
        self._received = b""

    def ask(self, verb: str, arguments: dict[str, Any]) -> tuple[Any, list[int]]:
        """The result, and the open files that came with it; text meanwhile is shown."""
        try:
            # As short as it can be; words that are no UTF-8 are surrogates here.
            request = json.dumps({"verb": verb, "arguments": arguments}, ensure_ascii=False)
            self._socket.sendall(request.encode(errors="surrogatepass") + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # turned away, and told why
        descriptors: list[int] = []
        while True:
            answer = json.loads(self._line(descriptors))
            if "event" in answer:
                for stream, text in answer["event"].items():
                    shown = sys.stderr if stream == "err" else sys.stdout
                    shown.write(text)
                    shown.flush()
            elif "error" in answer:
                raise RefusalError(answer["error"]["message"], answer["error"]["exit_status"])
            else:
                return answer["result"], descriptors

    def _line(self, descriptors: list[int]) -> bytes:
        while b"\n" not in self._received:
            try:
                data, files, _, _ = socket.recv_fds(self._socket, _CHUNK_BYTES, _MOST_DESCRIPTORS)
            except ConnectionResetError:
                data, files = b"", []
            descriptors += files
            if not data:
                raise RefusalError("the lab has ended", 1)
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


def _attend(desk: Desk, result: dict[str, Any], descriptors: list[int]) -> int:
    """Be the program's terminal until it ends, or until somebody leaves it."""
    number = result["attached"]
    output, errors = descriptors[-2:]
    theirs = descriptors[0] if len(descriptors) > 2 else None
    raw = result["tty"] and result["interactive"] and os.isatty(0)
    before = termios.tcgetattr(0) if raw else None
    if result["tty"] and theirs is not None:
        _follow_size(theirs)
    elif not result["tty"]:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(signum, _passing_signals(number))
    typing = theirs if result["interactive"] else None
    try:
        if raw:
            tty.setraw(0, termios.TCSANOW)  # what was typed ahead is for the program
        left = _relay(typing, {output: 1, errors: 2}, may_leave=raw)
    finally:
        if before:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
    if left:
        sys.stderr.write("\nread escape sequence\n")
        return 0
    status, _ = desk.ask("await", {"attached": number})
    return int(status)


def _relay(typing: int | None, outputs: dict[int, int], *, may_leave: bool) -> bool:
    """Copy both ways until every output has ended; whether the keys for leaving were typed."""
    held = b""
    poller = select.poll()
    for descriptor in outputs:
        poller.register(descriptor, select.POLLIN)
    if typing is not None:
        poller.register(0, select.POLLIN)
    while outputs:
        for descriptor, _ in poller.poll():
            data = _read(descriptor)
            if descriptor == 0 and typing is not None:
                if not data:
                    poller.unregister(0)
                    os.close(typing)
                    continue
                if may_leave:
                    data = held + data
                    if _DETACH in data:
                        return True
                    # The first of the two keys waits for what comes after it.
                    held = _DETACH[:1] if data.endswith(_DETACH[:1]) else b""
                    data = data[: len(data) - len(held)]
                _write(typing, data)
            elif data:
                _write(outputs[descriptor], data)
            else:
                poller.unregister(descriptor)
                del outputs[descriptor]
    return False


def _follow_size(terminal: int) -> None:
    def copy(*_: object, more: int = 0) -> None:
        try:
            lines, columns = termios.tcgetwinsize(0)
            termios.tcsetwinsize(terminal, (lines + more, columns + more))
        except termios.error:
            pass  # no terminal here, or the program has ended

    signal.signal(signal.SIGWINCH, copy)
    # A size that changes makes whoever is there draw again, a shell its prompt, as Docker does.
    copy(more=1)
    copy()


def _passing_signals(number: int) -> Callable[[int, object], None]:
    """Signals are the program's; whoever sends a third one wants to leave, as of Docker."""
    passed = []

    def pass_on(signum: int, _: object) -> None:
        passed.append(signum)
        if len(passed) == _ENOUGH_SIGNALS:
            sys.stderr.write("\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
            os._exit(1)
        Desk().ask("signal", {"attached": number, "signal": signum})

    return pass_on


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError as error:
        if error.errno == errno.EIO:  # our own terminal has gone
            return b""
        raise


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        if descriptor in (1, 2) or error.errno not in (errno.EPIPE, errno.EIO):
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
