"""The controller: pid 1's loop, and the client that talks to it.

One JSON object a line, both ways, over a stream socket:

    > {"verb": "run", "arguments": {...}}
    < {"event": {...}}                       any number
    < {"result": ...}  or  {"error": {"type", "message", "exit_status", "traceback"}}

The main thread only accepts, reaps and watches; each connection has a thread in which its requests
run one after the other.  Attached or detached, it is the same loop: a lab is attached to the
connection it was launched with, and ends with it, until "stay" is asked there.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import select
import selectors
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedIOBase
from queue import SimpleQueue
from typing import Any, NoReturn

from xlab import errors
from xlab.errors import SandboxError, XlabError
from xlab.kernel import limits, reaping
from xlab.sandbox import registry
from xlab.sandbox.pulse import Pulse

#: Of one line that asks for something.
_LONGEST_REQUEST_BYTES = 16 << 20

Emit = Callable[[Mapping[str, Any]], None]
Handler = Callable[[Mapping[str, Any], Emit], Any]
#: Reads what is asked for next, and is left when that has been done.  Raises EOFError at the end,
#: and XlabError, which the caller is told, where it reads no more.
Reader = Callable[[BufferedIOBase], AbstractContextManager[object]]

#: Before another connection is accepted, if the last could not be.
_ONCE_MORE_S = 0.02

#: Of one line that answers: two streams of 64 MiB (processes.run), of which JSON may make six times
#: as much.
_LONGEST_ANSWER_BYTES = 1 << 30
#: Descriptors that come with one answer, at the most; the kernel's limit is 253 (SCM_MAX_FD).
_MOST_DESCRIPTORS = 16


@dataclass(frozen=True, slots=True)
class WithDescriptors:
    """A handler's result with open files, of which the caller gets copies; ours are then closed."""

    result: Any
    descriptors: Sequence[int]


def serve(
    handlers: Mapping[str, Handler],
    channel: socket.socket | None,
    listener: socket.socket | None,
) -> NoReturn:
    """Answer requests until "down" is asked or the channel it is attached to closes; then end.

    Who connects to the listener must be of our own user: an abstract socket has no permissions.
    """
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # By this whoever asked for "down" sees when the last process has ended.
    ourselves = os.pidfd_open(os.getpid())
    handlers = {
        "here": lambda *_: None,
        "stay": lambda *_: None,
        "down": lambda *_: WithDescriptors(None, [ourselves]),
        "connect": lambda *_: _connect(handlers),
        **handlers,
    }
    selector = selectors.DefaultSelector()
    selector.register(wake_read, selectors.EVENT_READ)
    if listener:
        selector.register(listener, selectors.EVENT_READ)
    threading.Thread(target=reaping.end_stuck, name="births", daemon=True).start()
    if channel:
        answer(handlers, channel, attached=True)
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                os.read(wake_read, 4096)
                reaping.reap()
            elif listener:
                _accept(handlers, listener)


def _accept(handlers: Mapping[str, Handler], listener: socket.socket) -> None:
    """One more connection, if it is of our own user; what cannot be had now does not end the lab.

    Anyone may connect, and others may use up what the machine has of files and processes.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        time.sleep(_ONCE_MORE_S)
        return
    try:
        if registry.is_ours(connection):
            answer(handlers, connection)
            return
    except RuntimeError:
        pass  # no thread can be started
    connection.close()


class Client:
    """A caller's end of the connection."""

    def __init__(self, channel: socket.socket, pulse: Pulse | None = None) -> None:
        """With a pulse every wait ends when the controller has been stopped: NoAnswerError."""
        self._channel = channel
        self._pulse = pulse
        self._received = bytearray()
        self._descriptors: list[int] = []
        #: An answer is still to come, perhaps to what its caller has given up; and what of the
        #: question has not been sent yet.
        self._owed = False
        self._unsent = memoryview(b"")
        #: For how long what was asked last may yet be waited for.
        self._left_s = math.inf

    def call(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        watch: Emit = lambda _: None,
        *,
        idle_s: float = math.inf,
        limit_s: float = math.inf,
    ) -> Any:
        """Ask and wait, passing events to `watch`; raises the error the controller met.

        With a pulse NoAnswerError if nothing at all is heard for so long, see `Pulse.wait`.
        """
        result, descriptors = self.call_for_descriptors(
            verb, arguments, watch, idle_s=idle_s, limit_s=limit_s
        )
        for descriptor in descriptors:
            os.close(descriptor)
        return result

    def call_for_descriptors(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        watch: Emit = lambda _: None,
        *,
        idle_s: float = math.inf,
        limit_s: float = math.inf,
    ) -> tuple[Any, list[int]]:
        """The same with the open files that came with the result, which the caller closes."""
        request = json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"
        self._left_s = limit_s
        if self._owed:
            self._receive_answer(lambda _: None, idle_s)
            self._close_descriptors()
        if self._pulse is not None:
            # Or it would do what it was asked for when it goes on, long after we have given up.
            self._left_s -= self._pulse.wait(self._pulse.beats, limit_s=self._left_s)
        self._unsent, self._owed = memoryview(request), True
        answer = self._receive_answer(watch, idle_s)
        if "error" in answer:
            raise _rebuilt(answer["error"])
        descriptors, self._descriptors = self._descriptors, []
        return answer.get("result"), descriptors

    def _receive_answer(self, watch: Emit, idle_s: float) -> dict[str, Any]:
        """Send what is unsent, and wait for what then comes."""
        try:
            while self._unsent:
                self._await(select.POLLOUT, idle_s)
                # Without a pulse it waits here, as long as the channel does.
                flags = socket.MSG_DONTWAIT if self._pulse else 0
                with suppress(BlockingIOError):
                    self._unsent = self._unsent[self._channel.send(self._unsent, flags) :]
        except OSError as error:
            raise _gone(error) from error
        while True:
            answer = _answer(self._receive_line(idle_s))
            if "event" not in answer:
                self._owed = False
                return answer
            watch(answer["event"])

    def _await(self, event: int, idle_s: float) -> None:
        if self._pulse is not None:
            poller = select.poll()
            poller.register(self._channel, event)
            self._left_s -= self._pulse.wait(
                lambda seconds: bool(poller.poll(seconds * 1e3)),
                idle_s=idle_s,
                limit_s=self._left_s,
            )

    def _receive_line(self, idle_s: float) -> bytes:
        looked_at = 0
        while (end := self._received.find(b"\n", looked_at)) < 0:
            looked_at = len(self._received)
            self._await(select.POLLIN, idle_s)
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 16, _MOST_DESCRIPTORS)
            except OSError as error:
                raise _gone(error) from error
            if not data:
                raise SandboxError("the lab's controller is gone")
            self._received += data
            if len(self._received) > _LONGEST_ANSWER_BYTES:
                raise SandboxError("the lab's controller says more than anybody asked for")
            self._descriptors += descriptors
            for descriptor in descriptors:
                # recv_fds() takes flags and does nothing with them.
                os.set_inheritable(descriptor, False)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def close(self) -> None:
        self._close_descriptors()
        self._channel.close()

    def _close_descriptors(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise SandboxError(f"the lab's controller says what nobody understands: {line[:60]!r}")
    return answer


def _gone(error: OSError) -> SandboxError:
    if isinstance(error, TimeoutError):
        return SandboxError("the lab's controller does not answer")
    return SandboxError(f"the lab's controller is gone ({error.strerror})")


def _connect(handlers: Mapping[str, Handler]) -> WithDescriptors:
    """Another connection, for whoever has one: its requests do not wait for those of the first."""
    ours, theirs = socket.socketpair()
    answer(handlers, ours)
    return WithDescriptors(None, [theirs.detach()])


@contextmanager
def _next_request(lines: BufferedIOBase) -> Iterator[object]:
    line = lines.readline(_LONGEST_REQUEST_BYTES)
    if not line:
        raise EOFError
    yield json.loads(line)


def answer(
    handlers: Mapping[str, Handler],
    connection: socket.socket,
    *,
    attached: bool = False,
    read: Reader = _next_request,
    ended: Callable[[], object] = lambda: None,
) -> None:
    """Start to answer requests on one more connection, until that closes.

    `ended` is called then.  RuntimeError if no thread can be started.
    """

    def converse() -> None:
        try:
            _converse(handlers, connection, attached, read)
        finally:
            ended()

    threading.Thread(target=converse, name="connection", daemon=True).start()


def _converse(
    handlers: Mapping[str, Handler],
    connection: socket.socket,
    attached: bool,
    read: Reader = _next_request,
) -> None:
    writing = threading.Lock()

    def send(message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        data = json.dumps(message, default=str).encode() + b"\n"
        with writing:
            if descriptors:
                data = data[socket.send_fds(connection, [data], descriptors) :]
            # Sending nothing is an error, too, once the peer has what it wants and hangs up.
            if data:
                connection.sendall(data)

    def emit(event: Mapping[str, Any]) -> None:
        try:
            send({"event": event})
        except OSError:
            # Nobody is left to tell; in a lab that stays, what has been begun is brought to an end.
            if attached:
                raise

    def do_next(lines: BufferedIOBase) -> bool:
        """Whether there may be more to do; nothing is kept of what was asked for."""
        nonlocal attached
        with read(lines) as request:
            verb = request.get("verb") if isinstance(request, dict) else None
            if verb == "down" and "down" in handlers:
                attached = True
                ended = handlers["down"]({}, emit)
                send({"result": None}, ended.descriptors)
                return False
            if verb == "stay":
                attached = False
            try:
                result = _perform(handlers, request, emit)
            except Exception as error:  # noqa: BLE001 - the caller gets it, whatever it is
                send({"error": described(error)})
                return True
            if isinstance(result, WithDescriptors):
                try:
                    send({"result": result.result}, result.descriptors)
                finally:
                    for descriptor in result.descriptors:
                        os.close(descriptor)
            else:
                send({"result": result})
            return True

    try:
        with connection.makefile("rb") as lines:
            try:
                while do_next(lines):
                    pass
            except XlabError as error:
                send({"error": described(error)})
    except (OSError, EOFError, ValueError, RecursionError):
        pass  # the peer hung up or does not speak our language; the lab goes on
    finally:
        if attached:
            os._exit(0)
        connection.close()


def _perform(handlers: Mapping[str, Handler], request: object, emit: Emit) -> Any:
    match request:
        case {"verb": str(verb), "arguments": dict(arguments)}:
            if verb not in handlers:
                raise SandboxError(f"the controller does not know how to {verb[:40]!r}")
            return handlers[verb](arguments, emit)
    raise SandboxError("a request has a verb and arguments")


@contextmanager
def aside(emit: Emit) -> Iterator[Emit]:
    """Events told by a thread of its own: who does not read them holds up nobody in the block.

    On leaving it waits until all have been told.
    """
    events: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
    failures: list[BaseException] = []

    def tell() -> None:
        while (event := events.get()) is not None:
            try:
                emit(event)
            except BaseException as error:  # noqa: BLE001 - raised where the block is left
                failures.append(error)
                return

    def put(event: Mapping[str, Any]) -> None:
        if failures:
            raise failures[0]
        events.put(event)

    teller = threading.Thread(target=tell, name="teller", daemon=True)
    teller.start()
    try:
        yield put
    finally:
        events.put(None)
        teller.join()
    if failures:
        raise failures[0]


def described(error: Exception) -> dict[str, Any]:
    """An error as it goes over the wire; `Client` makes it one again."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        # How many it takes in the end hangs on what is measured; none of that is broken.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        error = limits.too_few_open_files(limit, "this lab needs more")
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "exit_status": getattr(error, "exit_status", 1),
        "missing": getattr(error, "missing", ""),
        "remedy": getattr(error, "remedy", ""),
        "command": _command(error) if isinstance(error, errors.CommandError) else None,
        "traceback": traceback.format_exc(),
    }


def _command(error: errors.CommandError) -> dict[str, Any]:
    fields = ("argv", "node", "returncode", "stderr")
    return {name: getattr(error, name) for name in fields}


def _rebuilt(described: object) -> XlabError:
    """The error as the caller would have met it; the far traceback is added as a note."""
    fields = described if isinstance(described, dict) else {"message": described}
    type_name = str(fields.get("type", ""))
    message = str(fields.get("message", "")) or "an error without words"
    kind = getattr(errors, type_name, None)
    if not (isinstance(kind, type) and issubclass(kind, XlabError)):
        kind, message = SandboxError, f"{type_name}: {message}"
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    status = fields.get("exit_status")
    error.exit_status = status if isinstance(status, int) else 1
    if isinstance(error, errors.CapabilityError):
        error.missing, error.remedy = (str(fields.get(key, "")) for key in ("missing", "remedy"))
    if isinstance(error, errors.CommandError):
        command = fields.get("command")
        command = command if isinstance(command, dict) else {}
        argv, code = command.get("argv"), command.get("returncode")
        error.argv = tuple(map(str, argv)) if isinstance(argv, list) else ()
        error.node, error.stderr = (str(command.get(key, "")) for key in ("node", "stderr"))
        error.returncode = code if isinstance(code, int) else None
    error.add_note(str(fields.get("traceback", "")))
    return error
