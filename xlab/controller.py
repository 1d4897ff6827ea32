"""The controller: pid 1's loop, and the client that talks to it.

One JSON object a line, both ways, over a stream socket:

    > {"verb": "run", "arguments": {...}}
    < {"event": {...}}                       any number
    < {"result": ...}  or  {"error": {"type", "message", "exit_status", "traceback"}}

The main thread only accepts, reaps and watches; each connection has a thread in which its requests
run one after the other.  Attached or detached, it is the same loop.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from xlab import errors, processes
from xlab.errors import SandboxError, XlabError

Emit = Callable[[Mapping[str, Any]], None]
Handler = Callable[[Mapping[str, Any], Emit], Any]


def serve(
    handlers: Mapping[str, Handler],
    channel: socket.socket | None,
    listener: socket.socket | None,
) -> NoReturn:
    """Answer requests until "down" is asked or, attached, the channel closes; then end the lab."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(wake_read, selectors.EVENT_READ)
    if listener:
        selector.register(listener, selectors.EVENT_READ)
    if channel:
        _start_connection(handlers, channel, attached=True)
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                os.read(wake_read, 4096)
                processes.reap()
            elif listener:
                connection, _ = listener.accept()
                _start_connection(handlers, connection, attached=False)


class Client:
    """A caller's end of the connection."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._file = channel.makefile("rb")

    def call(self, verb: str, arguments: Mapping[str, Any], watch: Emit = lambda _: None) -> Any:
        """Ask and wait, passing events to `watch`; raises the error the controller met."""
        request = json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"
        try:
            self._channel.sendall(request)
        except OSError as error:
            raise SandboxError(f"the lab's controller is gone ({error.strerror})") from error
        while True:
            answer = self._receive()
            if "event" in answer:
                watch(answer["event"])
            elif "error" in answer:
                raise _rebuilt(answer["error"])
            else:
                return answer.get("result")

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError as error:
            raise SandboxError(f"the lab's controller is gone ({error.strerror})") from error
        if not line:
            raise SandboxError("the lab's controller is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._file.close()
        self._channel.close()


def _start_connection(
    handlers: Mapping[str, Handler], connection: socket.socket, *, attached: bool
) -> None:
    threading.Thread(
        target=_converse, args=(handlers, connection, attached), name="connection", daemon=True
    ).start()


def _converse(handlers: Mapping[str, Handler], connection: socket.socket, attached: bool) -> None:
    writing = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        data = json.dumps(message, default=str).encode() + b"\n"
        with writing:
            connection.sendall(data)

    try:
        for line in connection.makefile("rb"):
            request = json.loads(line)
            verb = str(request["verb"])
            if verb == "down":
                send({"result": None})
                os._exit(0)
            try:
                handler = handlers[verb]
                result = handler(request["arguments"], lambda event: send({"event": event}))
            except Exception as error:  # noqa: BLE001 - the caller gets it, whatever it is
                send({"error": _described(error)})
            else:
                send({"result": result})
    except (OSError, ValueError, KeyError):
        pass  # the peer hung up or does not speak our language; the lab goes on
    finally:
        if attached:
            os._exit(0)
        connection.close()


def _described(error: Exception) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "exit_status": getattr(error, "exit_status", 1),
        "missing": getattr(error, "missing", ""),
        "remedy": getattr(error, "remedy", ""),
        "traceback": traceback.format_exc(),
    }


def _rebuilt(described: Mapping[str, Any]) -> XlabError:
    """The error as the caller would have met it; the far traceback is added as a note."""
    kind = getattr(errors, str(described["type"]), None)
    message = str(described["message"])
    if not (isinstance(kind, type) and issubclass(kind, XlabError)):
        kind, message = SandboxError, f"{described['type']}: {message}"
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.exit_status = int(described["exit_status"])
    if isinstance(error, errors.CapabilityError):
        error.missing, error.remedy = str(described["missing"]), str(described["remedy"])
    error.add_note(str(described["traceback"]))
    return error
