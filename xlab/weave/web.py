"""Just enough HTTP/1.1 (RFC 9112) to answer those on this host: one request a connection."""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import IPv4Address

from xlab.weave.status import Answer
from xlab.weave.transport import Loop, accept, listen

PORT = 6784

_REQUEST_LIMIT_BYTES = 16 * 1024
_CLIENT_LIMIT = 32
_PATIENCE_S = 5.0

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[^ ?]*)(?:\?[^ ]*)? HTTP/1\.[01]")
_DIGITS = re.compile(r"0*([0-9]{1,9})")


class Server:
    """Answers (method, path, body) on the loopback address."""

    def __init__(self, loop: Loop, port: int, answer: Callable[[str, str, str], Answer]) -> None:
        """XlabError if the port is taken."""
        self._loop = loop
        self._answer = answer
        self._clients: set[_Client] = set()
        self._listener = listen(IPv4Address("127.0.0.1"), port)
        loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        self._loop.unwatch(self._listener)
        self._listener.close()
        for client in tuple(self._clients):
            client.close()

    def _accept(self, _: int) -> None:
        accepted = accept(self._loop, self._listener)
        if accepted and len(self._clients) >= _CLIENT_LIMIT:
            accepted[0].close()
        elif accepted:
            self._clients.add(_Client(self._loop, accepted[0], self._answer, self._clients.discard))


class _Client:
    def __init__(
        self,
        loop: Loop,
        connected: socket.socket,
        answer: Callable[[str, str, str], Answer],
        gone: Callable[[_Client], None],
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._answer = answer
        self._gone = gone
        self._request = b""
        self._response = memoryview(b"")
        self._impatient = loop.timers.after(_PATIENCE_S, self.close)
        loop.watch(connected, selectors.EVENT_READ, self._on_events)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._impatient.cancel()
            self._loop.unwatch(self._socket)
            self._socket.close()
            self._gone(self)

    def _on_events(self, _: int) -> None:
        try:
            if self._response:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _receive(self) -> None:
        data = self._socket.recv(_REQUEST_LIMIT_BYTES)
        self._request += data
        if not data:
            self.close()
            return
        answer = respond(self._request, self._answer)
        if answer is not None:
            self._response = memoryview(answer)
            self._loop.watch(self._socket, selectors.EVENT_WRITE, self._on_events)

    def _send(self) -> None:
        sent = self._socket.send(self._response)
        self._response = self._response[sent:]
        if not self._response:
            self.close()


def respond(request: bytes, answer: Callable[[str, str, str], Answer]) -> bytes | None:
    """The response to a request; None while it is incomplete."""
    if len(request) > _REQUEST_LIMIT_BYTES:
        return _response(Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long\n"))
    head, end, body = request.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *headers = head.decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if not line:
        return _response(Answer(HTTPStatus.BAD_REQUEST, "not an HTTP request\n"))
    split = (header.partition(":") for header in headers)
    fields = [(name.lower(), value.strip(" \t")) for name, _, value in split]
    if any(name == "transfer-encoding" for name, _ in fields):
        return _response(Answer(HTTPStatus.NOT_IMPLEMENTED, "a body needs a Content-Length\n"))
    lengths = {value for name, value in fields if name == "content-length"} or {"0"}
    digits = _DIGITS.fullmatch(lengths.pop())
    if lengths or not digits:
        # RFC 9112, 6.3: where the body ends is anybody's guess.
        return _response(Answer(HTTPStatus.BAD_REQUEST, "no valid Content-Length\n"))
    length = int(digits[1])
    if length > _REQUEST_LIMIT_BYTES:
        return _response(Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long\n"))
    if len(body) < length:
        return None
    method, path = line.groups()
    return _response(answer(method, path, body[:length].decode("latin-1")))


def _response(answer: Answer) -> bytes:
    text = answer.text.encode(errors="replace")
    return (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    ).encode() + text
