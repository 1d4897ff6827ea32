"""A pcap stream as pcapng, which names the interface and the program: Wireshark's own format.

tcpdump writes pcap alone.  Blocks are those of draft-ietf-opsawg-pcapng: a section header, one
interface description, then an enhanced packet block for each frame.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from xlab.errors import XlabError

_SECTION, _INTERFACE, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _LENGTH_UNKNOWN = 0x1A2B3C4D, -1
_OPTION_NAME, _OPTION_RESOLUTION = 2, 9
#: Of the classic format, by what begins it: decimal places of the second (pcap-savefile(5)).
_PLACES = {0xA1B2C3D4: 6, 0xA1B23C4D: 9}


def convert(pcap: BinaryIO, pcapng: BinaryIO, *, interface: str) -> int:
    """Copy frame by frame until the stream ends, each at once; returns how many there were.

    A last frame cut short is left out.  XlabError if it does not begin as pcap in this machine's
    byte order does.
    """
    header = pcap.read(24)
    if not header:
        return 0
    magic = int.from_bytes(header[:4], "little")
    if len(header) < 24 or magic not in _PLACES:
        raise XlabError("what was captured is not pcap")
    snap_length, link_type = struct.unpack_from("<II", header, 16)
    places = _PLACES[magic]
    described = _option(_OPTION_NAME, interface.encode())
    described += _option(_OPTION_RESOLUTION, bytes([places])) + _option(0, b"")
    pcapng.write(_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)))
    pcapng.write(
        _block(_INTERFACE, struct.pack("<HHI", link_type & 0xFFFF, 0, snap_length) + described)
    )
    pcapng.flush()
    count = 0
    while len(head := pcap.read(16)) == 16:
        seconds, fraction, captured, whole = struct.unpack("<IIII", head)
        frame = pcap.read(captured)
        if len(frame) < captured:
            break
        time = seconds * 10**places + fraction
        fields = struct.pack("<IIIII", 0, time >> 32, time & 0xFFFFFFFF, captured, whole)
        pcapng.write(_block(_ENHANCED_PACKET, fields + _padded(frame)))
        pcapng.flush()
        count += 1
    return count


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
