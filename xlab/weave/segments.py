"""TCP segments of 64 KB instead of packets: cut for the wire, and put together from it.

    TAP ── one read, 64 KB ──> Segmenter ──> datagrams end to end ── one sendmsg, UDP_SEGMENT ──>
    TAP <── one write, 64 KB ── Merger <── datagrams end to end ── one recvmsg, UDP_GRO ──

The kernel hands a whole TCP segment over and takes one back (`xlab.weave.tap`).  What it would have
done in between is done here by numpy, for all packets of a segment at once.  On the wire they are
ordinary datagrams, one frame in each.

RFC 791, RFC 1071, RFC 9293.  numpy takes 0.1 s to import, and is imported when the first large
segment comes.
"""

from __future__ import annotations

import os
import struct
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from xlab.kernel.packets import checksum
from xlab.weave.sleeve import FRAME_HEADER_BYTES, NAME_BYTES, Train
from xlab.weave.tap import BUFFER_BYTES, GSO_TCPV4, NEEDS_CSUM, VNET_HEADER_BYTES, VnetHeader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]

# -- cutting ---------------------------------------------------------------------------------------

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_CHECKSUM_IN_TCP = 16
_TCP = 6

#: Sender, source, destination, length: before the frame, as every datagram here holds one.
PREFIX_BYTES = NAME_BYTES + FRAME_HEADER_BYTES


class Segment(NamedTuple):
    """A TCP segment as it was read: where its parts are, counted from the start of the frame."""

    ip: int
    tcp: int
    payload: int
    end: int
    #: Of the payload in every packet but the last.
    gso_bytes: int

    @property
    def mtu(self) -> int:
        """The size of the packets it stands for, IPv4 header included."""
        return self.payload - self.ip + min(self.gso_bytes, self.end - self.payload)


def read_segment(packet: bytearray, size: int, header: VnetHeader) -> Segment | None:
    """Find the parts of a TCP segment in `packet[:size]`; None if it is no TCP over IPv4."""
    base = VNET_HEADER_BYTES
    tcp = header.checksum_start
    if header.gso_type != GSO_TCPV4 or not header.needs_checksum or not header.gso_bytes:
        return None
    end = size - base
    if header.checksum_offset != _CHECKSUM_IN_TCP or tcp < 34 or tcp + 20 > end:
        return None
    # The IPv4 header ends where TCP starts; VLAN tags may precede it.
    for ip in (14, 18, 22):
        first = packet[base + ip]
        if packet[base + ip - 2] << 8 | packet[base + ip - 1] == 0x0800:
            if first >> 4 != 4 or ip + (first & 0x0F) * 4 != tcp or packet[base + ip + 9] != _TCP:
                return None
            payload = tcp + (packet[base + tcp + 12] >> 4) * 4
            if payload < tcp + 20 or payload >= end:
                return None
            return Segment(ip, tcp, payload, end, header.gso_bytes)
    return None


class Segmenter:
    """Cuts TCP segments into packets, each in a datagram of its own.

    Works in a buffer of its own: what `cut` returns is valid until the next call.
    """

    def __init__(self, packet: bytearray) -> None:
        """`packet` is the buffer that segments are read into, BUFFER_BYTES long."""
        self._np = np = _numpy()
        self._packet = packet
        self._in: Bytes = np.frombuffer(packet, np.uint8)
        self._out: Bytes = np.empty(96 * 1024, np.uint8)
        self._numbers = np.arange(65536, dtype=np.uint64)

    def cut(self, segment: Segment, name: bytes, source: bytes, destination: bytes) -> Train:
        """The packets of `segment`, from peer `source` to peer `destination`, sent by `name`.

        All headers are the segment's own but for lengths, identification, sequence numbers, flags
        and checksums, which are as the kernel's tcp_gso_segment() has them.
        """
        np = self._np
        start = VNET_HEADER_BYTES + segment.payload
        payload_bytes = segment.end - segment.payload
        gso = min(segment.gso_bytes, payload_bytes)
        count = -(-payload_bytes // gso)
        last_bytes = payload_bytes - (count - 1) * gso
        shorter = gso - last_bytes
        ip, tcp = PREFIX_BYTES + segment.ip, PREFIX_BYTES + segment.tcp
        body = PREFIX_BYTES + segment.payload
        size = body + gso
        if count * size > len(self._out):
            self._out = np.empty(count * size, np.uint8)
        out = self._out
        rows = out[: count * size].reshape(count, size)

        header = bytearray(PREFIX_BYTES) + self._packet[VNET_HEADER_BYTES:start]
        first_id = header[ip + 4] << 8 | header[ip + 5]
        first_sequence = int.from_bytes(header[tcp + 4 : tcp + 8])
        flags = header[tcp + 13]
        header[:PREFIX_BYTES] = name + source + destination + (size - PREFIX_BYTES).to_bytes(2)
        header[ip + 2 : ip + 4] = (size - ip).to_bytes(2)
        header[tcp + 13] = flags & ~(_FIN | _PSH | _CWR)
        # What differs from packet to packet is zero in the header's sums, and added to each.
        for field, length in ((ip + 4, 2), (ip + 10, 2), (tcp + 4, 4), (tcp + 16, 2)):
            header[field : field + length] = bytes(length)
        ip_sum = int.from_bytes(header[ip:tcp]) % 65535
        tcp_sum = int.from_bytes(header[ip + 12 : ip + 20] + header[tcp:body]) % 65535
        rows[:, :body] = np.frombuffer(header, np.uint8)

        # The last packet is filled up with zeros, which no sum sees and nobody sends.
        padded = self._in[start : start + count * gso]
        padded[payload_bytes:] = 0
        payload = padded.reshape(count, gso)
        rows[:, body:] = payload
        if gso % 4:
            even = np.zeros((count, (gso + 3) // 4 * 4), np.uint8)
            even[:, :gso] = payload
            words = even.view(np.uint32)
        else:
            words = padded.view(np.uint32).reshape(count, gso // 4)

        # One's complement sums (RFC 1071) are numbers modulo 65535, where 65536 is 1: words may be
        # of 32 bits, and the other byte order is a factor of 256.
        numbers = self._numbers[:count]
        ids = numbers + first_id & 0xFFFF
        ip_sums = ids + (ip_sum + 2 * 65535 - 1)
        ip_sums[-1] -= shorter
        sequences = numbers * gso + first_sequence & 0xFFFFFFFF
        tcp_sums = np.add.reduce(words, axis=1, dtype=np.uint64)
        if _LITTLE:
            tcp_sums *= 256
        tcp_sums += sequences
        tcp_sums += tcp_sum + _TCP + size - tcp + 2 * 65535 - 1
        tcp_sums[0] += flags & _CWR
        tcp_sums[-1] += flags & (_FIN | _PSH)
        tcp_sums[-1] -= shorter
        rows[:, ip + 4 : ip + 6] = _big_endian(ids, ">u2")
        rows[:, ip + 10 : ip + 12] = _big_endian(65534 - ip_sums % 65535, ">u2")
        rows[:, tcp + 4 : tcp + 8] = _big_endian(sequences, ">u4")
        rows[:, tcp + 16 : tcp + 18] = _big_endian(65534 - tcp_sums % 65535, ">u2")

        last = (count - 1) * size
        out[tcp + 13] |= flags & _CWR
        out[last + tcp + 13] |= flags & (_FIN | _PSH)
        _U16.pack_into(out.data, last + PREFIX_BYTES - 2, size - PREFIX_BYTES - shorter)
        _U16.pack_into(out.data, last + ip + 2, size - ip - shorter)
        return Train(out.data[: count * size - shorter], size)


def _numpy() -> ModuleType:
    """numpy, without the threads of its linear algebra, which spin for a while when they start."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np

    return np


_LITTLE = sys.byteorder == "little"
_U16 = struct.Struct("!H")


def _big_endian(numbers: NDArray[Any], kind: str) -> Bytes:
    """Numbers as bytes, a row each."""
    return numbers.astype(kind).view("u1").reshape(len(numbers), -1)


# -- merging ---------------------------------------------------------------------------------------

_ACK = 0x10

#: Positions in a datagram that holds one frame: Ethernet, IPv4 without options, TCP.
_ETHERNET = PREFIX_BYTES
_IP = _ETHERNET + 14
_TCP_HEADER = _IP + 20
_SEQUENCE, _OFFSET, _FLAGS = _TCP_HEADER + 4, _TCP_HEADER + 12, _TCP_HEADER + 13

#: Fields that differ between packets of one segment: identification, checksums, sequence, flags.
_FREE = (_IP + 4, _IP + 5, _IP + 10, _IP + 11, *range(_SEQUENCE, _SEQUENCE + 4), _FLAGS,
         _TCP_HEADER + 16, _TCP_HEADER + 17)  # fmt: skip


class Merger:
    """Joins packets that follow one another in one TCP stream to a segment for the TAP device.

    As strict as the kernel's own receive offload: all headers must be equal but for the fields that
    count, and checksums must hold, because the device takes the payload for verified.

    Works in a buffer of its own: what `merge` returns is valid until the next call.
    """

    def __init__(self, datagrams: bytearray) -> None:
        """`datagrams` is the buffer that trains are received into, BUFFER_BYTES long."""
        self._np = np = _numpy()
        self._in: Bytes = np.frombuffer(datagrams, np.uint8)
        self._out = bytearray(BUFFER_BYTES)
        self._out_array: Bytes = np.frombuffer(self._out, np.uint8)
        self._numbers = np.arange(65536, dtype=np.uint32)
        self._compared: dict[int, Bytes] = {}

    def alike(self, train: Train) -> bool:
        """Every datagram holds one frame, and all have the peers and Ethernet header in common."""
        data, size = train
        whole = len(data) // size
        last = bytes(data[whole * size :])
        if int.from_bytes(data[_ETHERNET - 2 : _ETHERNET]) != size - PREFIX_BYTES:
            return False
        if last and (
            last[: _ETHERNET - 2] != data[: _ETHERNET - 2]
            or last[_ETHERNET:_IP] != data[_ETHERNET:_IP]
            or int.from_bytes(last[_ETHERNET - 2 : _ETHERNET]) != len(last) - PREFIX_BYTES
        ):
            return False
        rows = self._in[: whole * size].reshape(whole, size)[:, :_IP]
        return not (rows != rows[0]).any()

    def merge(self, train: Train) -> memoryview | None:
        """The packet to write to the device, virtio header first; None if a train of which
        `alike` is true is anything but one TCP stream, in order and intact.
        """
        data, size = train
        whole = len(data) // size
        last = bytes(data[whole * size :])
        body = _TCP_HEADER + (data[_OFFSET] >> 4) * 4 if size > _OFFSET else size
        first = bytes(data[:body])
        # Odd sizes would change the place of bytes within the words that checksums add up.
        if size & 1 or not _is_tcp(first, size) or not self._is_stream(train, first, last):
            return None
        if not self._is_intact(train, first, last):
            return None

        gso = size - body
        start = VNET_HEADER_BYTES + body - PREFIX_BYTES
        end = start + whole * gso
        rows = self._in[: whole * size].reshape(whole, size)
        self._out_array[start:end].reshape(whole, gso)[:] = rows[:, body:]
        flags = int(self._np.bitwise_or.reduce(rows[:, _FLAGS]))
        if last:
            self._out[end : end + len(last) - body] = last[body:]
            flags |= last[_FLAGS]
            end += len(last) - body
        self._out[:start] = _merged_headers(first, flags, end - start, gso)
        return memoryview(self._out)[:end]

    def _is_stream(self, train: Train, first: bytes, last: bytes) -> bool:
        """All packets continue one another, and nothing else about them differs."""
        np, size, body = self._np, train.size, len(first)
        whole = len(train.data) // size
        rows = self._in[: whole * size].reshape(whole, size)
        compared = self._compared.get(body)
        if compared is None:
            compared = np.array([i for i in range(_IP, body) if i not in _FREE])
            self._compared[body] = compared
        headers = rows[:, :body].take(compared, axis=1)
        if (headers != headers[0]).any():
            return False
        sequence = int.from_bytes(first[_SEQUENCE : _SEQUENCE + 4])
        found = np.ascontiguousarray(rows[:, _SEQUENCE : _SEQUENCE + 4]).view(">u4")[:, 0]
        wanted = self._numbers[:whole] * np.uint32(size - body) + np.uint32(sequence)
        if (found != wanted).any():
            return False
        flags = rows[:, _FLAGS] & (0xFF ^ _PSH)
        if not last:
            return not (flags[:-1] != _ACK).any() and int(flags[-1]) & ~_FIN == _ACK
        return not (flags != _ACK).any() and _continues(
            first, last, sequence + whole * (size - body)
        )

    def _is_intact(self, train: Train, first: bytes, last: bytes) -> bool:
        """Whether the checksums of IPv4 and TCP hold, by one sum over all of the train.

        The words that each checksum covers come to 0 modulo 65535 (RFC 1071), and so do those of
        all packets together; the chance to overlook damage is that of a single checksum.
        """
        size = train.size
        whole, length = len(train.data) // size, len(train.data)
        padded = (length + 3) // 4 * 4
        self._in[length:padded] = 0
        words = self._in[:padded].view(self._np.uint32)
        total = int(self._np.add.reduce(words, dtype=self._np.uint64))
        total += whole * _outside_checksums(first, size)
        if last:
            total += _outside_checksums(last, len(last))
        return total % 65535 == 0


def _is_tcp(datagram: bytes, size: int) -> bool:
    """It holds TCP with data over IPv4, unfragmented and with DF, and no padding behind it."""
    return (
        len(datagram) < size
        and datagram[_IP - 2 : _IP + 1] == b"\x08\x00\x45"
        and int.from_bytes(datagram[_IP + 2 : _IP + 4]) == size - _IP
        and datagram[_IP + 6 : _IP + 8] == b"\x40\x00"
        and datagram[_IP + 9] == _TCP
        and len(datagram) >= _TCP_HEADER + 20
    )


def _continues(first: bytes, last: bytes, sequence: int) -> bool:
    """The last, shorter datagram belongs behind the others."""
    body = len(first)
    if len(last) <= body or not _is_tcp(last[:body], len(last)):
        return False
    if (
        last[_FLAGS] & ~(_PSH | _FIN) != _ACK
        or int.from_bytes(last[_SEQUENCE : _SEQUENCE + 4]) != sequence & 0xFFFFFFFF
    ):
        return False
    return all(
        last[position] == first[position]
        for position in range(_IP, body)
        if position not in _FREE_OF_LAST
    )


_FREE_OF_LAST = frozenset((*_FREE, _IP + 2, _IP + 3))


def _outside_checksums(datagram: bytes, size: int) -> int:
    """What makes up for the words that no checksum covers, and for the pseudo-header."""
    pseudo = datagram[_IP + 12 : _IP + 20] + bytes((0, _TCP)) + (size - _TCP_HEADER).to_bytes(2)
    return int.from_bytes(pseudo, sys.byteorder) - int.from_bytes(datagram[:_IP], sys.byteorder)


def _merged_headers(first: bytes, flags: int, payload_bytes: int, gso_bytes: int) -> bytes:
    """The headers of the segment: virtio, Ethernet, IPv4, TCP."""
    header = bytearray(first[PREFIX_BYTES:])
    ip, tcp = _IP - PREFIX_BYTES, _TCP_HEADER - PREFIX_BYTES
    tcp_bytes = len(header) - tcp + payload_bytes
    header[ip + 2 : ip + 4] = (tcp_bytes + 20).to_bytes(2)
    header[ip + 10 : ip + 12] = b"\0\0"
    header[ip + 10 : ip + 12] = checksum(bytes(header[ip:tcp])).to_bytes(2)
    header[tcp + 13] = flags
    pseudo = int.from_bytes(header[ip + 12 : ip + 20]) + _TCP + tcp_bytes
    header[tcp + 16 : tcp + 18] = (pseudo % 65535).to_bytes(2)
    vnet = VnetHeader(NEEDS_CSUM, GSO_TCPV4, len(header), gso_bytes, tcp, _CHECKSUM_IN_TCP)
    return vnet.pack() + header
