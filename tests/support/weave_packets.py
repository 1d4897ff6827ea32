"""Packets as containers send them and a TAP device gives them, after a plain reading of RFCs."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from xlab.weave.tap import BUFFER_BYTES, VnetHeader, read_vnet_header

C1, C2 = (bytes.fromhex(f"0242c0a8010{n}") for n in (1, 2))
ADDRESSES = bytes.fromhex("c0a8010ac0a80102")
FIN, PSH, ACK, ECE, CWR = 1, 8, 16, 64, 128
TIMESTAMP = bytes.fromhex("0101080a1122334455667788")
#: With a VLAN tag, and without.
ETHERNET = C2 + C1 + b"\x08\x00"
TAGGED = C2 + C1 + b"\x81\x00\x00\x05\x08\x00"


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071, 4.1, word by word."""
    total = 0
    for high, low in zip(data[::2], data[1::2] + b"\0", strict=False):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return total


def naive_checksum(data: bytes) -> int:
    return ~ones_complement_sum(data) & 0xFFFF


def ipv4(
    data: bytes,
    *,
    flags: int = 0,
    protocol: int = 17,
    options: bytes = b"",
    source: str = "10.32.0.1",
    destination: str = "10.32.0.2",
    destination_mac: bytes = C2,
) -> bytes:
    """An Ethernet frame with IPv4 in it."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | 5 + len(options) // 4, 0x28, 20 + len(options) + len(data), 4711,
        flags, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(destination),
    )  # fmt: skip
    header += options
    header = header[:10] + struct.pack("!H", naive_checksum(header)) + header[12:]
    return destination_mac + C1 + b"\x08\x00" + header + data


@dataclass(frozen=True)
class Packet:
    """One TCP packet, as Ethernet frame."""

    payload: bytes
    sequence: int = 1000
    identification: int = 7
    flags: int = ACK
    options: bytes = b""
    ethernet: bytes = ETHERNET
    df: int = 0x4000

    def frame(self, *, partial: bool = False) -> bytes:
        """Complete, or with the pseudo-header's sum for a checksum (CHECKSUM_PARTIAL)."""
        tcp = struct.pack(
            "!HHIIBBHHH", 40000, 5201, self.sequence & 0xFFFFFFFF, 99,
            5 + len(self.options) // 4 << 4, self.flags, 512, 0, 0,
        )  # fmt: skip
        tcp += self.options
        length = len(tcp) + len(self.payload)
        pseudo = ADDRESSES + struct.pack("!HH", 6, length)
        total = ones_complement_sum(pseudo)
        if not partial:
            total = ~ones_complement_sum(pseudo + tcp + self.payload) & 0xFFFF
        tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
        ip = struct.pack(
            "!BBHHHBBH8s", 0x45, 2, 20 + length, self.identification & 0xFFFF, self.df, 64, 6, 0,
            ADDRESSES,
        )  # fmt: skip
        ip = ip[:10] + struct.pack("!H", ~ones_complement_sum(ip) & 0xFFFF) + ip[12:]
        return self.ethernet + ip + tcp + self.payload

    def headers_bytes(self) -> int:
        return len(self.ethernet) + 40 + len(self.options)


def as_read(packet: Packet, gso: int) -> tuple[bytearray, int, VnetHeader]:
    """The buffer after a read of the device, with the remains of an earlier one in it."""
    buffer = bytearray(b"\xaa" * BUFFER_BYTES)
    tcp = len(packet.ethernet) + 20
    read = struct.pack("=BBHHHH", 1, 1, packet.headers_bytes(), gso, tcp, 16)
    read += packet.frame(partial=True)
    buffer[: len(read)] = read
    return buffer, len(read), read_vnet_header(buffer)
