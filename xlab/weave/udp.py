"""The socket under the overlay: datagrams to and from all neighbours, many in one system call.

UDP_SEGMENT has the kernel cut one buffer into datagrams of one size as late as it can, UDP_GRO
hands over what came in from one sender as one buffer again.  Between hosts of one machine they are
never cut at all.

DF is an option of the socket (IP_MTU_DISCOVER), switched when the next datagram needs it otherwise:
cheaper than a second socket, and both kinds come from the same port.

Linux: linux/in.h, linux/udp.h; udp(7), ip(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address
from typing import TypeAlias

from xlab.errors import XlabError
from xlab.weave.sleeve import LARGEST_DATAGRAM_BYTES, MOST_SEGMENTS, Train

_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IP_PMTUDISC_DONT, _IP_PMTUDISC_DO = 0, 2
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

#: The plain number: operators of enum members cost a microsecond.
_MSG_TRUNC = int(socket.MSG_TRUNC)

_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_GRO_SIZE.size)

_BUFFERED_BYTES = 4 * 1024 * 1024
#: No train that is received is longer.
_LONGEST_TRAIN_BYTES = 65536

Address: TypeAlias = tuple[str, int]


class UdpSocket:
    """One socket, bound for all neighbours."""

    def __init__(self, bind: IPv4Address, port: int, *, buffer: bytearray) -> None:
        """Trains are received into the beginning of `buffer`.  XlabError if the port is taken."""
        self._bind = str(bind)
        self._view = memoryview(buffer)
        self._target = [self._view[:_LONGEST_TRAIN_BYTES]]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._df = False
        self._can_segment = True
        try:
            enlarge_buffers(self._socket)
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
            try:
                self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            except OSError:
                # Before Linux 5.0: datagrams then come one by one.
                pass
            self._socket.bind((self._bind, port))
        except OSError as error:
            self._socket.close()
            raise XlabError(f"UDP {bind}:{port}: {error.strerror}") from error
        self.descriptor = self._socket.fileno()

    def receive(self) -> tuple[Train, Address] | None:
        """What came next, and from where; None for what is larger than a datagram can be.

        Raises BlockingIOError when nothing waits, OSError for an ICMP error about what was sent.
        The train is valid until the next call.
        """
        length, ancillary, flags, sender = self._socket.recvmsg_into(self._target, _ANCILLARY_BYTES)
        if flags & _MSG_TRUNC:
            return None
        size = length
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO and len(data) == _GRO_SIZE.size:
                size = _GRO_SIZE.unpack(data)[0]
        # An empty datagram makes an empty train.
        return Train(self._view[:length], max(1, size)), sender

    def send(self, train: Train, to: Address, *, df: bool) -> list[tuple[int, OSError | None]]:
        """Send the datagrams of a train in as few calls as they fit in.

        For each call: how many datagrams were in it, and what went wrong: EMSGSIZE if the path is
        narrower, with DF.  Only a train of one datagram may be larger than the path.
        """
        data, size = train
        most = min(MOST_SEGMENTS, LARGEST_DATAGRAM_BYTES // size)
        calls = -(-train.datagrams // most)
        step = -(-train.datagrams // calls) * size
        self._set_df(df)
        outcome: list[tuple[int, OSError | None]] = []
        for start in range(0, len(data), step):
            piece = Train(data[start : start + step], size)
            error = self._send_at_once(piece, to)
            if piece.datagrams > 1 and error and error.errno in (errno.EIO, errno.EINVAL):
                # EIO: the kernel cannot on this way out (no checksum offload before Linux 6.9,
                # IPsec), and asking again is vain.  EINVAL: not at this size.
                self._can_segment = self._can_segment and error.errno == errno.EINVAL
                outcome += [(1, self._send_at_once(one, to)) for one in piece.singly()]
            else:
                outcome.append((piece.datagrams, error))
        return outcome

    def path_mtu(self, to: Address) -> int:
        """The MTU of the path, as far as the kernel knows; only a connected socket can ask.

        Raises OSError if there is no way there.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            query.bind((self._bind, 0))
            query.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            query.connect(to)
            return query.getsockopt(socket.IPPROTO_IP, _IP_MTU)

    def close(self) -> None:
        self._socket.close()

    def _send_at_once(self, train: Train, to: Address) -> OSError | None:
        try:
            if len(train.data) <= train.size:
                self._socket.sendto(train.data, to)
            elif self._can_segment:
                option = (_SOL_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(train.size))
                self._socket.sendmsg((train.data,), (option,), 0, to)
            else:
                return OSError(errno.EIO, os.strerror(errno.EIO))
        except OSError as error:
            return error
        return None

    def _set_df(self, df: bool) -> None:
        if df != self._df:
            self._df = df
            value = _IP_PMTUDISC_DO if df else _IP_PMTUDISC_DONT
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, value)


def enlarge_buffers(wanting: socket.socket) -> None:
    """Room for 4 MB each way, or what net.core.rmem_max and wmem_max allow."""
    for force, plain in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            wanting.setsockopt(socket.SOL_SOCKET, force, _BUFFERED_BYTES)
        except OSError:
            # Only root of the machine is above the limits.
            wanting.setsockopt(socket.SOL_SOCKET, plain, _BUFFERED_BYTES)
