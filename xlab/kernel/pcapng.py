"""A pcap stream, kept as it is or as pcapng, which names the interface: Wireshark's own format.

tcpdump writes pcap alone, and says nothing of a disk that is full.  Blocks of pcapng are those of
draft-ietf-opsawg-pcapng: a section header, one interface description, then an enhanced packet block
for each frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from xlab.errors import XlabError

_SECTION, _INTERFACE, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _LENGTH_UNKNOWN = 0x1A2B3C4D, -1
_OPTION_NAME, _OPTION_RESOLUTION = 2, 9
#: Of the classic format, by what begins it: decimal places of the second (pcap-savefile(5)).
_PLACES = {0xA1B2C3D4: 6, 0xA1B23C4D: 9}


def copy(pcap: BinaryIO, kept: BinaryIO) -> None:
    """Copy frame by frame until the stream ends, each in one write.

    A last frame cut short is left out.  XlabError as for `convert`.
    """
    header = _header(pcap)
    kept.write(header)
    kept.flush()
    for head, frame in _frames(pcap) if header else ():
        kept.write(head + frame)
        kept.flush()


def convert(pcap: BinaryIO, pcapng: BinaryIO, *, interface: str) -> None:
    """The same as pcapng, each block in one write.

    A last frame cut short is left out.  XlabError if it does not begin as pcap in this machine's
    byte order does.
    """
    header = _header(pcap)
    if not header:
        return
    snap_length, link_type = struct.unpack_from("<II", header, 16)
    places = _PLACES[_magic(header)]
    described = _option(_OPTION_NAME, interface.encode(errors="backslashreplace"))
    described += _option(_OPTION_RESOLUTION, bytes([places])) + _option(0, b"")
    pcapng.write(_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)))
    pcapng.write(
        _block(_INTERFACE, struct.pack("<HHI", link_type & 0xFFFF, 0, snap_length) + described)
    )
    pcapng.flush()
    for head, frame in _frames(pcap):
        seconds, fraction, captured, whole = struct.unpack("<IIII", head)
        time = seconds * 10**places + fraction
        fields = struct.pack("<IIIII", 0, time >> 32, time & 0xFFFFFFFF, captured, whole)
        pcapng.write(_block(_ENHANCED_PACKET, fields + _padded(frame)))
        pcapng.flush()


def _header(pcap: BinaryIO) -> bytes:
    """Empty if nothing comes."""
    header = pcap.read(24)
    if header and (len(header) < 24 or _magic(header) not in _PLACES):
        raise XlabError("what was captured is not pcap")
    return header


def _magic(header: bytes) -> int:
    return int.from_bytes(header[:4], "little")


def _frames(pcap: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """What stands before each frame, and the frame."""
    while len(head := pcap.read(16)) == 16:
        (captured,) = struct.unpack_from("<8xI", head)
        frame = pcap.read(captured)
        if len(frame) < captured:
            return
        yield head, frame


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
