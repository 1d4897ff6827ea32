"""Sockets, and the one loop that serves them all: control connections, the overlay, the status.

Each turn takes a bounded piece of work from everything that is ready, so that neither a flood of
frames nor a long message keeps the others waiting.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

from xlab.errors import XlabError
from xlab.weave.connection import Connection
from xlab.weave.fastdp import Overlay
from xlab.weave.router import Router
from xlab.weave.targets import Address
from xlab.weave.timers import Timers

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_CHUNK_BYTES = 64 * 1024
#: What may wait to be sent on one connection: two of the longest messages.
_BACKLOG_BYTES = 24 * 1024 * 1024
#: And on all together.  Sockets have some megabytes of their own each before it.
_ALL_BACKLOGS_BYTES = 256 * 1024 * 1024
_DIAL_S = 10.0

#: tcpi_bytes_acked of struct tcp_info (linux/tcp.h, since Linux 4.1).
_BYTES_ACKED = struct.Struct("=120xQ")


class Loop:
    """Waits for descriptors and times, and calls whoever they belong to."""

    def __init__(self, timers: Timers, overlay: Overlay) -> None:
        self.timers = timers
        self._overlay = overlay
        self._selector = selectors.DefaultSelector()
        for number in overlay.files():
            self._selector.register(number, _READ, lambda _, number=number: overlay.ready(number))

    def watch(self, file: socket.socket, events: int, call: Callable[[int], None]) -> None:
        """Call with the events that have happened, these and no others, until `unwatch`."""
        self.unwatch(file)
        self._selector.register(file, events, call)

    def unwatch(self, file: socket.socket) -> None:
        """Before closing it: a closed file cannot be found any more."""
        if file in self._selector.get_map():
            self._selector.unregister(file)

    def pause(self, file: socket.socket, pause_s: float) -> None:
        """Do not wait for this one for a while."""
        key = self._selector.unregister(file)

        def resume() -> None:
            if file.fileno() >= 0:
                self._selector.register(file, key.events, key.data)

        self.timers.after(pause_s, resume)

    def turn(self) -> None:
        """Wait until something is to be done, and do it."""
        timers, overlay, clock = self.timers, self._overlay, self.timers.clock
        times = [at_s for at_s in (timers.next_at_s(), overlay.next_timer()) if at_s is not None]
        timeout_s = max(0.0, min(times) - clock()) if times else None
        watched = self._selector.get_map()
        for key, events in self._selector.select(timeout_s):
            # Who was called before may have closed this one.
            if watched.get(key.fd) is key:
                key.data(events)
        overlay_at_s = overlay.next_timer()
        if overlay_at_s is not None and overlay_at_s <= clock():
            overlay.run_timers()
        timers.run()

    def close(self) -> None:
        self._selector.close()


class Transport:
    """The router's TCP sockets: one that listens, and one for each connection."""

    def __init__(self, loop: Loop, *, bind: IPv4Address, port: int) -> None:
        """XlabError if the address is taken, or not one of this host."""
        self._loop = loop
        self._bind = bind
        self._backlogs = Backlogs()
        self.router: Router | None = None
        self._listener = listen(bind, port)
        self._loop.watch(self._listener, _READ, self._accept)

    def dial(self, address: Address) -> None:
        """Begin to connect; the router hears what becomes of it."""
        try:
            connecting = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as failure:
            # No descriptor is left: there may be one at the next attempt.
            self._dial_failed(address, os.strerror(failure.errno or errno.EIO))
            return
        try:
            if not self._bind.is_unspecified:
                connecting.bind((str(self._bind), 0))
            error = connecting.connect_ex((str(address.ip), address.port))
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error not in (0, errno.EINPROGRESS):
            self._end_dial(connecting, address, os.strerror(error))
            return
        give_up = self._loop.timers.after(
            _DIAL_S, lambda: self._end_dial(connecting, address, "no answer")
        )

        def answered(_: int) -> None:
            give_up.cancel()
            outcome = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                self._end_dial(connecting, address, os.strerror(outcome))
            else:
                self._begin(connecting, address, outbound=True)

        self._loop.watch(connecting, _WRITE, answered)

    def close(self) -> None:
        self._loop.unwatch(self._listener)
        self._listener.close()

    def _end_dial(self, connecting: socket.socket, address: Address, reason: str) -> None:
        self._loop.unwatch(connecting)
        connecting.close()
        self._dial_failed(address, reason)

    def _dial_failed(self, address: Address, reason: str) -> None:
        if self.router:
            self.router.dial_failed(address, reason)

    def _accept(self, _: int) -> None:
        accepted = accept(self._loop, self._listener)
        if accepted:
            connection, (host, port) = accepted
            self._begin(connection, Address(IPv4Address(host), port), outbound=False)

    def _begin(self, connected: socket.socket, remote: Address, *, outbound: bool) -> None:
        assert self.router is not None
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = TcpStream(self._loop, connected, self._backlogs)
        begin = self.router.connected if outbound else self.router.accepted
        connection = begin(stream, remote)
        if connection:
            stream.attach(self.router, connection)
        else:
            stream.close()


class Backlogs:
    """What waits to be sent, on all connections: a bounded part of memory, however many there are
    that do not read."""

    def __init__(self) -> None:
        self._bytes: dict[TcpStream, int] = {}

    def note(self, stream: TcpStream, unsent_bytes: int) -> None:
        """So much waits on this one.  If it is too much of all, the longest must go."""
        if unsent_bytes:
            self._bytes[stream] = unsent_bytes
        else:
            self._bytes.pop(stream, None)
        while sum(self._bytes.values()) > _ALL_BACKLOGS_BYTES:
            max(self._bytes, key=self._bytes.__getitem__).give_up()


class TcpStream:
    """The socket under one connection."""

    def __init__(self, loop: Loop, connected: socket.socket, backlogs: Backlogs) -> None:
        self._loop = loop
        self._socket = connected
        self._backlogs = backlogs
        self._given_up = False
        self._unsent = bytearray()
        self._closed = False
        self._paused = False
        self._router: Router | None = None
        self._connection: Connection | None = None
        loop.watch(connected, _READ, self._on_events)

    def attach(self, router: Router, connection: Connection) -> None:
        """From now on `router` gets what comes in."""
        self._router, self._connection = router, connection

    def write(self, data: bytes) -> None:
        if self._closed or self._given_up:
            return
        waiting = bool(self._unsent)
        self._unsent += data
        if not waiting:
            self._send()
            if self._unsent:
                self._watch()
        elif len(self._unsent) > _BACKLOG_BYTES:
            self.give_up()
        self._backlogs.note(self, len(self._unsent))

    def give_up(self) -> None:
        """Nothing more is sent on it, and it ends when the thread is back in its loop."""
        self._given_up = True
        self._unsent.clear()
        self._backlogs.note(self, 0)
        self._end_soon("the peer does not read what we send")

    def pause(self) -> None:
        self._paused = True
        self._watch()

    def resume(self) -> None:
        self._paused = False
        self._watch()

    def confirmed_bytes(self) -> int:
        if self._closed:
            return 0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        except OSError:
            return 0
        return int(_BYTES_ACKED.unpack(info)[0]) if len(info) == _BYTES_ACKED.size else 0

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._unsent.clear()
            self._backlogs.note(self, 0)
            self._loop.unwatch(self._socket)
            self._socket.close()

    def _watch(self) -> None:
        """Wait for what there is to be done; a selector does not take that it is nothing."""
        if self._closed:
            return
        events = (0 if self._paused else _READ) | (_WRITE if self._unsent else 0)
        if events:
            self._loop.watch(self._socket, events, self._on_events)
        else:
            self._loop.unwatch(self._socket)

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self._end_soon(os.strerror(error.errno or 0))
            return
        del self._unsent[:sent]

    def _on_events(self, events: int) -> None:
        if events & _WRITE:
            self._send()
            self._backlogs.note(self, len(self._unsent))
            if not self._unsent:
                self._watch()
        if events & _READ and not self._closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(os.strerror(error.errno or 0))
            return
        if not data:
            self._end("the peer closed the connection")
        elif self._router and self._connection:
            self._router.received(self._connection, data)

    def _end_soon(self, reason: str) -> None:
        # Who writes may be going through the list of connections.
        self._loop.timers.soon(lambda: self._end(reason))

    def _end(self, reason: str) -> None:
        if self._router and self._connection and not self._closed:
            self._router.disconnected(self._connection, reason)
        self.close()


def listen(address: IPv4Address, port: int) -> socket.socket:
    """A listening TCP socket; XlabError if there cannot be one."""
    try:
        listener = socket.create_server((str(address), port), backlog=128)
    except OSError as error:
        raise XlabError(f"TCP {address}:{port}: {os.strerror(error.errno or 0)}") from error
    listener.setblocking(False)
    return listener


def accept(loop: Loop, listener: socket.socket) -> tuple[socket.socket, tuple[str, int]] | None:
    """Who has connected; None if nobody is there any more, or there is no room."""
    try:
        connection, address = listener.accept()
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            # The listener stays ready, and would keep the loop spinning.
            loop.pause(listener, 1.0)
        return None
    connection.setblocking(False)
    return connection, address
