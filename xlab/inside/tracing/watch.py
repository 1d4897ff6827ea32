"""Frames on all interfaces of several nodes at once, in the order in which the kernel saw them.

One packet socket a network namespace, bound to no interface: with each frame come its interface,
its direction (packet(7)) and when the kernel met it (SO_TIMESTAMPNS), on one clock for all.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from xlab.kernel.clock import Deadline
from xlab.lab.capture import Room, let_no_long_ones_in, let_nothing_in
from xlab.lab.node import Node

_ETH_P_ALL = 0x0003
_SO_TIMESTAMPNS = 35
_PACKET_OUTGOING = 4
_RECEIVE_BUFFER_BYTES = 4 << 20
_TIMESPEC = struct.Struct("qq")

#: When it is over, the last packet may be on its way: until nothing has come for so long, or, as a
#: busy link is never silent, until so much later.
_SILENCE_S, _SETTLE_S = 0.05, 0.5


@dataclass(frozen=True, slots=True)
class Frame:
    node: str
    device: str
    #: Whether it left by that device, or came in.
    outgoing: bool
    #: Nanoseconds since the epoch.
    time_ns: int
    content: bytes


class Watch:
    """Keeps what passes while the context lasts; `frames` may be read at any time.

    Of frames beyond 256 MiB it keeps none, nor those that are longer than what a link takes.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.frames: list[Frame] = []
        #: Frames that could not be kept, for want of room.
        self.dropped = 0
        self._room = Room()
        self._sockets: dict[socket.socket, str] = {}
        for node in nodes:
            with node.entered():
                opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            let_no_long_ones_in(opened)
            opened.setblocking(False)
            self._sockets[opened] = node.name
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._reader.join()
        for opened in self._sockets:
            opened.close()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for opened in self._sockets:
                selector.register(opened, selectors.EVENT_READ)
            last = None
            while not (last and last.passed()):
                ready = selector.select(_SILENCE_S)
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    self._keep_one(key.fileobj)
                if self._stopping.is_set():
                    if not ready:
                        break
                    last = last or Deadline(_SETTLE_S)
        for opened in self._sockets:
            let_nothing_in(opened)
            while self._keep_one(opened):
                pass

    def _keep_one(self, opened: socket.socket) -> bool:
        """Whether there was any."""
        try:
            content, ancillary, _, address = opened.recvmsg(65535, socket.CMSG_SPACE(16))
        except BlockingIOError:
            return False
        except (OSError, UnicodeDecodeError):
            # ENETDOWN of an interface that has gone; or Python cannot name it (makesockaddr,
            # socketmodule.c).
            return True
        device, _, kind = address[:3]
        for level, what, data in ancillary:
            if (level, what) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(data[:16])
                time_ns = seconds * 1_000_000_000 + nanoseconds
                if kept := self._room.kept(content):
                    outgoing = kind == _PACKET_OUTGOING
                    self.frames.append(
                        Frame(self._sockets[opened], device, outgoing, time_ns, kept)
                    )
                else:
                    self.dropped += 1
        return True
