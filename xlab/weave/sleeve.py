"""The sleeve encapsulation: what stands in a datagram to or from UDP port 6783.

    sender (6) | source peer (6) | destination peer (6) | length (2) | Ethernet frame | ...
               `------------------------- once for every frame -------------------------'

Names are the 6 bytes of a peer's name, lengths are big-endian.  The sender is the neighbour that
sent the datagram; source and destination are the peers at both ends of the overlay, and differ from
sender and receiver when a frame is relayed.  A frame whose Ethernet header is all zeros is the
routers' own (`Special`), told apart by its size.

Pure: bytes in, bytes out.  A datagram may come from anybody, so nothing here raises on its content.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

PORT = 6783

NAME_BYTES = 6
#: Source, destination and length, before every frame.
FRAME_HEADER_BYTES = 14
ETHERNET_HEADER_BYTES = 14
IPV4_AND_UDP_BYTES = 28

#: What a packet inside the overlay grows by until it is one on the underlay: 62 bytes.
OVERHEAD_BYTES = IPV4_AND_UDP_BYTES + NAME_BYTES + FRAME_HEADER_BYTES + ETHERNET_HEADER_BYTES

#: The most a UDP datagram over IPv4 can hold.
LARGEST_DATAGRAM_BYTES = 65535 - IPV4_AND_UDP_BYTES

#: Subtags of the control messages that go with the overlay, on the TCP connection.
ESTABLISHED, FRAGMENTATION_TEST_RECEIVED, MTU_VERIFIED = 1, 2, 3

#: Linux cuts one buffer into at most so many datagrams (UDP_MAX_SEGMENTS; 128 since 6.9).
MOST_SEGMENTS = 64

_ZERO_HEADER = bytes(ETHERNET_HEADER_BYTES)
_FRAGMENTATION_TEST_BYTES = 60001
_HEARTBEAT = struct.Struct("!14xQ")
_FRAME_HEADER = struct.Struct("!6s6sH")
_LENGTH = struct.Struct("!H")


# -- special frames --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heartbeat:
    connection_uid: int


@dataclass(frozen=True, slots=True)
class FragmentationTest:
    """Too large for any underlay: it arrives only if the network's fragments do."""


@dataclass(frozen=True, slots=True)
class MtuProbe:
    """Sent with DF; its mere arrival proves that packets of `mtu` bytes pass the overlay."""

    mtu: int


Special: TypeAlias = Heartbeat | FragmentationTest | MtuProbe


def encode_special(special: Special) -> bytes:
    """The frame of a special; ValueError for a probe that would be taken for something else."""
    if isinstance(special, Heartbeat):
        return _HEARTBEAT.pack(special.connection_uid)
    if isinstance(special, FragmentationTest):
        return bytes(_FRAGMENTATION_TEST_BYTES)
    if special.mtu in AMBIGUOUS_MTUS:
        raise ValueError(f"a probe of {special.mtu} bytes means something else")
    return bytes(ETHERNET_HEADER_BYTES + special.mtu)


def decode_special(frame: bytes | memoryview) -> Special | None:
    """What the frame says if it is one of the routers' own, None if it is an ordinary one."""
    if frame[:ETHERNET_HEADER_BYTES] != _ZERO_HEADER:
        return None
    if len(frame) == _HEARTBEAT.size:
        return Heartbeat(*_HEARTBEAT.unpack(frame))
    if len(frame) == _FRAGMENTATION_TEST_BYTES:
        return FragmentationTest()
    return MtuProbe(len(frame) - ETHERNET_HEADER_BYTES)


#: Sizes at which a probe cannot be told from a heartbeat or from the fragmentation test.
AMBIGUOUS_MTUS = frozenset(
    size - ETHERNET_HEADER_BYTES for size in (_HEARTBEAT.size, _FRAGMENTATION_TEST_BYTES)
)


def encode_mtu(mtu: int) -> bytes:
    """The data of the control message MTU_VERIFIED."""
    return mtu.to_bytes(2)


def decode_mtu(data: bytes) -> int | None:
    """The MTU that the peer verified; None if the message is too short to hold one."""
    return int.from_bytes(data[:2]) if len(data) >= 2 else None


# -- datagrams -------------------------------------------------------------------------------------


class Carried(NamedTuple):
    """One frame of a datagram, and the peers between which it travels.

    A tuple, because making one takes a third of the time of a frozen dataclass.
    """

    source: bytes
    destination: bytes
    frame: memoryview


def frame_header(source: bytes, destination: bytes, length: int) -> bytes:
    """What precedes a frame of `length` bytes."""
    return _FRAME_HEADER.pack(source, destination, length)


def decode(datagram: memoryview) -> tuple[list[Carried], bool]:
    """The frames in a datagram, the sender's name apart, and whether they fill it exactly.

    What precedes the first impossible length is returned all the same, as the original router has
    it.  The frames are views of the datagram.
    """
    frames: list[Carried] = []
    position, end = NAME_BYTES, len(datagram)
    while position < end:
        body = position + FRAME_HEADER_BYTES
        if body > end:
            return frames, False
        source, destination, length = _FRAME_HEADER.unpack_from(datagram, position)
        position = body + length
        if length < ETHERNET_HEADER_BYTES or position > end:
            return frames, False
        frames.append(Carried(source, destination, datagram[body:position]))
    return frames, bool(frames)


class Packer:
    """Packs frames for one neighbour into as few datagrams as their order allows."""

    __slots__ = ("_datagrams", "_name", "_parts", "_size")

    def __init__(self, name: bytes) -> None:
        """`name` is our own: the sender's."""
        self._name = name
        self._datagrams: list[bytes] = []
        self._parts: list[bytes] = [name]
        self._size = NAME_BYTES

    def add(self, source: bytes, destination: bytes, frame: bytes, limit_bytes: int) -> bool:
        """Append a frame; no datagram of several frames is made larger than `limit_bytes`.

        One frame that is too large for the limit goes alone, for the network to fragment.  False,
        and nothing is added, if it is too large even for UDP.
        """
        grown = self._size + FRAME_HEADER_BYTES + len(frame)
        if grown > limit_bytes and len(self._parts) > 1:
            self._finish()
            grown = self._size + FRAME_HEADER_BYTES + len(frame)
        if grown > LARGEST_DATAGRAM_BYTES:
            return False
        self._parts += (source, destination, _LENGTH.pack(len(frame)), frame)
        self._size = grown
        return True

    def take(self) -> list[bytes]:
        """The datagrams to send now, in order."""
        if len(self._parts) > 1:
            self._finish()
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def _finish(self) -> None:
        self._datagrams.append(b"".join(self._parts))
        self._parts = [self._name]
        self._size = NAME_BYTES


class Train(NamedTuple):
    """Datagrams end to end, all of `size` bytes but the last, which may be shorter."""

    data: memoryview
    size: int

    @property
    def datagrams(self) -> int:
        """How many there are."""
        return -(-len(self.data) // self.size)

    def split(self, skip_bytes: int = 0) -> list[memoryview]:
        """Each datagram, without the first `skip_bytes` of it."""
        data, size = self
        return [data[start + skip_bytes : start + size] for start in range(0, len(data), size)]

    def singly(self) -> list[Train]:
        """Each datagram as a train of its own."""
        return [Train(datagram, len(datagram)) for datagram in self.split()]


def trains(datagrams: Sequence[bytes]) -> Iterator[Train]:
    """Runs of datagrams of one size; the last of a run may be shorter than the others."""
    start, count = 0, len(datagrams)
    while start < count:
        size = total = len(datagrams[start])
        end = start + 1
        while end < count and end - start < MOST_SEGMENTS:
            following = len(datagrams[end])
            if following > size or total + following > LARGEST_DATAGRAM_BYTES:
                break
            total += following
            end += 1
            if following < size:
                break
        run = datagrams[start:end]
        yield Train(memoryview(run[0] if len(run) == 1 else b"".join(run)), size)
        start = end
