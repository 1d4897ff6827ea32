"""The TAP device on the weave bridge, and TCP segments of 64 KB instead of packets.

With virtio headers the kernel hands a whole TCP segment over in one read, uncut and its checksum to
be filled in, and takes one back the same way.  What it would have done is done here, for all
packets of a segment at once, by numpy:

    TAP ── one read, 64 KB ──> Segmenter ──> datagrams end to end ── one sendmsg, UDP_SEGMENT ──>
    TAP <── one write, 64 KB ── Merger <── datagrams end to end ── one recvmsg, UDP_GRO ──

On the wire they are ordinary datagrams, one frame in each.  Everything else passes frame by frame.

Layouts: linux/virtio_net.h, linux/if_tun.h; RFC 791, RFC 9293.  numpy takes 0.1 s to import, and is
imported when the first large segment comes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from xlab.errors import CapabilityError, XlabError
from xlab.netlink import Rtnl
from xlab.weave.forward import checksum
from xlab.weave.sleeve import FRAME_HEADER_BYTES, NAME_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]

# -- the device ------------------------------------------------------------------------------------

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x4000, 0x8000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02

#: The device itself never limits a packet: what fits is decided for each neighbour.
_LARGEST_MTU = 65521
#: Frames waiting to be read; 1000, the default, would be 64 MB of TCP segments.
_QUEUE_FRAMES = 256

#: The largest packet: a virtio header before 64 KB of IPv4 in Ethernet, with a VLAN tag or two.
LARGEST_PACKET_BYTES = 10 + 14 + 8 + 65535
#: What buffers must hold: the largest packet, filled up to whole pieces of any size.
BUFFER_BYTES = 2 * LARGEST_PACKET_BYTES


class Tap:
    """A TAP device with virtio headers; it exists as long as it is open."""

    def __init__(self, name: str) -> None:
        """In the caller's network namespace.  Raises CapabilityError, or XlabError if `name` is
        taken.
        """
        self.name = name
        try:
            self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CapabilityError(
                f"/dev/net/tun does not open ({os.strerror(error.errno or 0)})"
            ) from error
        try:
            self._set_up()
        except OSError as error:
            os.close(self.descriptor)
            reason = os.strerror(error.errno or 0)
            if error.errno in (errno.EPERM, errno.EACCES):
                raise CapabilityError(f"no TAP device {name} ({reason})") from error
            raise XlabError(f"no TAP device {name}: {reason}") from error

    def _set_up(self) -> None:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(self.descriptor, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
        fcntl.ioctl(self.descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
        # By netlink: the ioctl for the queue's length asks for a capability of the real root.
        with closing(Rtnl()) as rtnl, rtnl.batch() as batch:
            batch.set_mtu(self.name, _LARGEST_MTU)
            batch.set_queue_length(self.name, _QUEUE_FRAMES)
            batch.set_up(self.name)

    def close(self) -> None:
        os.close(self.descriptor)


# -- virtio headers --------------------------------------------------------------------------------

VNET_HEADER_BYTES = 10
_VNET_HEADER = struct.Struct("=BBHHHH")
_NEEDS_CSUM = 1
_GSO_NONE, _GSO_TCPV4 = 0, 1

#: Says that a frame is complete as it stands.
PLAIN = bytes(VNET_HEADER_BYTES)


class VnetHeader(NamedTuple):
    """struct virtio_net_hdr; positions count from the start of the frame behind it."""

    flags: int
    gso_type: int
    header_bytes: int
    gso_bytes: int
    checksum_start: int
    checksum_offset: int

    @property
    def is_segment(self) -> bool:
        """It stands for several packets."""
        return self.gso_type != _GSO_NONE

    @property
    def needs_checksum(self) -> bool:
        return bool(self.flags & _NEEDS_CSUM)


def is_plain(packet: memoryview) -> bool:
    """Nothing is left to do about the frame: no flags, no segmentation."""
    return packet[0] == 0 and packet[1] == _GSO_NONE


def read_vnet_header(packet: bytearray) -> VnetHeader:
    return VnetHeader._make(_VNET_HEADER.unpack_from(packet))


_UDP = 17


def complete_checksum(frame: bytes, header: VnetHeader) -> bytes | None:
    """Fill in what the kernel left for the hardware to compute; None if the header is nonsense.

    The field holds the pseudo-header's sum already, so the sum goes over everything from
    `checksum_start` on, the field included.
    """
    start, place = header.checksum_start, header.checksum_start + header.checksum_offset
    if start < 14 or place + 2 > len(frame):
        return None
    data = frame[start:]
    if len(data) & 1:
        data += b"\0"
    value = 65535 - int.from_bytes(data) % 65535
    if value == 65535 and header.checksum_offset != 6:
        # Both spell zero.  UDP, whose field is at 6, uses the other as "no checksum" (RFC 768).
        value = 0
    return b"".join((frame[:place], value.to_bytes(2), frame[place + 2 :]))


# -- cutting ---------------------------------------------------------------------------------------

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_CHECKSUM_IN_TCP = 16
_TCP = 6

#: Sender, source, destination, length: before the frame, as every datagram here holds one.
PREFIX_BYTES = NAME_BYTES + FRAME_HEADER_BYTES


class Train(NamedTuple):
    """Datagrams end to end, all of `size` bytes but the last, which may be shorter."""

    data: memoryview
    size: int

    @property
    def datagrams(self) -> int:
        """How many there are."""
        return -(-len(self.data) // self.size)


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
    if header.gso_type != _GSO_TCPV4 or not header.needs_checksum or not header.gso_bytes:
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
    vnet = _VNET_HEADER.pack(_NEEDS_CSUM, _GSO_TCPV4, len(header), gso_bytes, tcp, _CHECKSUM_IN_TCP)
    return vnet + header
