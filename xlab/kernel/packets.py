"""Reading captured Ethernet frames: which encapsulation, and what is inside.

    Ethernet | IPv4 | GRE (protocol 47)                       | Ethernet or IPv4 ...
    Ethernet | IPv4 | UDP 4789 (VXLAN), 6784 (weave's fastdp) | Ethernet ...
    Ethernet | IPv4 | UDP 6081 (Geneve)                       | Ethernet or IPv4 ...
    Ethernet | IPv4 | UDP 6783 (weave's sleeve)               | Ethernet ..., Ethernet ..., ...
    `------ outer -------'                                      `---------- inner ----------'

Pure, and without exceptions: a frame comes off a wire and may hold anything, so what cannot be
read is simply absent from the result.  Frames cut short by a capture's snap length are read as far
as they go.  One level of encapsulation is undone; an overlay inside an overlay stays closed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Literal

Encapsulation = Literal["none", "gre", "vxlan", "geneve", "sleeve"]

ICMP, TCP, UDP, GRE = 1, 6, 17, 47
ECHO_REPLY, ECHO_REQUEST = 0, 8

_IPV4, _ARP, _TRANSPARENT_ETHERNET = 0x0800, 0x0806, 0x6558
_VLAN_TAGS = (0x8100, 0x88A8)

_ETHERNET_HEADER = struct.Struct("!6s6sH")
_IPV4_HEADER = struct.Struct("!BxHxxHxBxxII")
_ICMP_ECHO = struct.Struct("!BxxxHH")
_UDP_HEADER = struct.Struct("!HHHxx")
_TWO_WORDS = struct.Struct("!HH")
#: RFC 826: of Ethernet and IPv4, a request; the sender's MAC, and the address that is asked for.
_ARP_REQUEST = struct.Struct("!8s6s10x4s")
_ARP_REQUEST_BEGINS = bytes.fromhex("0001 0800 06 04 0001")


@dataclass(frozen=True, slots=True)
class Packet:
    """One Ethernet frame, or one IPv4 packet without (GRE of protocol type 0x0800)."""

    source_mac: bytes | None
    destination_mac: bytes | None
    #: Behind any VLAN tags.  Below 0x600 it is the length of an IEEE 802.3 frame.
    ether_type: int
    #: All of IPv4 is None in anything else: ARP, IPv6, a frame cut off in the header.
    source: IPv4Address | None = None
    destination: IPv4Address | None = None
    protocol: int | None = None
    #: Length of the whole IPv4 packet in bytes, header included, as its header says.
    total_length: int | None = None
    icmp_type: int | None = None
    #: Of echo requests and replies alone.
    icmp_id: int | None = None
    icmp_sequence: int | None = None
    #: What follows the ICMP, UDP or TCP header, else the IPv4 header, else the Ethernet header.
    payload: bytes = b""
    #: Source and destination, of UDP and TCP.
    ports: tuple[int, int] | None = None
    #: The names of the routers it travels between, of what sleeve carries.
    peers: tuple[bytes, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    encapsulation: Encapsulation
    #: None when there was not even an Ethernet header.
    outer: Packet | None
    #: What the encapsulation carries: several in one sleeve datagram; empty when there is no
    #: encapsulation, and also where it is encrypted, cut off, or a later fragment.
    inner: tuple[Packet, ...] = ()


def decode(frame: bytes) -> Decoded:
    """Read one captured Ethernet frame; never raises."""
    outer, start, end = _read_ethernet(frame, 0, len(frame))
    if outer is None:
        return Decoded("none", None)
    if outer.protocol == GRE:
        return Decoded("gre", outer, () if start is None else _inside_gre(frame, start, end))
    if outer.protocol == UDP and start is not None and end - start >= 8:
        source_port, destination_port, length = _UDP_HEADER.unpack_from(frame, start)
        body, size = start + 8, length - 8
        end = min(end, start + length)
        if destination_port in (4789, 6784) and _is_vxlan(frame, body, end):
            return Decoded("vxlan", outer, _ethernet_at(frame, body + 8, end))
        if destination_port == 6081 and _is_geneve(frame, body, end):
            return Decoded("geneve", outer, _inside_geneve(frame, body, end))
        # A router's answers go to the port it was addressed from, which NAT may have changed.
        if 6783 in (source_port, destination_port) and size >= 6:
            return Decoded("sleeve", outer, _inside_sleeve(frame, body, end, size))
    return Decoded("none", outer)


def find_echoes(decoded: Decoded, token: bytes) -> tuple[Packet, ...]:
    """The ICMP echo requests and replies whose data holds `token`: those inside an encapsulation,
    or the frame itself where there is none.  Several only in one sleeve datagram.
    """
    carried = _carried(decoded)
    return tuple(p for p in carried if p.icmp_id is not None and token in p.payload)


def find_arp_requests(decoded: Decoded, mac: str, address: IPv4Address) -> tuple[Packet, ...]:
    """The ARP requests for an address by the interface of that MAC, where `find_echoes` looks.

    Not those that an ICMP error quotes: it holds all of a small packet (RFC 1812, 4.3.2.3).
    """
    carried = _carried(decoded)
    return tuple(p for p in carried if p.ether_type == _ARP and _asks(p.payload, mac, address))


def _asks(payload: bytes, mac: str, address: IPv4Address) -> bool:
    if len(payload) < _ARP_REQUEST.size:
        return False
    begins, sender, wanted = _ARP_REQUEST.unpack_from(payload)
    return (begins, sender.hex(":"), wanted) == (_ARP_REQUEST_BEGINS, mac, address.packed)


def _carried(decoded: Decoded) -> tuple[Packet, ...]:
    """What is inside an encapsulation, or the frame itself where there is none."""
    if decoded.encapsulation == "none" and decoded.outer is not None:
        return (decoded.outer,)
    return decoded.inner


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes whose checksum field is zero.

    The one's complement sum of 16-bit words is the number that the bytes spell, modulo 65535, and
    Python's division of long integers beats a loop over words a hundredfold.
    """
    if len(data) & 1:
        data += b"\0"
    # Zero and 65535 are the same sum; of data that is not all zeros it is never written as zero.
    return 65534 - (int.from_bytes(data) + 65534) % 65535


def write_pcap(frames: Iterable[tuple[float, bytes]]) -> bytes:
    """A capture file for Wireshark and tcpdump from (seconds since the epoch, frame) pairs.

    The classic format of pcap-savefile(5): microseconds, little-endian, LINKTYPE_ETHERNET.
    """
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
    for timestamp_s, frame in frames:
        seconds, microseconds = divmod(round(timestamp_s * 1_000_000), 1_000_000)
        parts.append(struct.pack("<IIII", seconds, microseconds, len(frame), len(frame)))
        parts.append(frame)
    return b"".join(parts)


def _read_ethernet(frame: bytes, start: int, end: int) -> tuple[Packet | None, int | None, int]:
    """The frame at `start`, where its IPv4 payload starts (None without one), and where it ends."""
    if end - start < 14:
        return None, None, end
    destination_mac, source_mac, ether_type = _ETHERNET_HEADER.unpack_from(frame, start)
    start += 14
    while ether_type in _VLAN_TAGS and end - start >= 4:
        _, ether_type = _TWO_WORDS.unpack_from(frame, start)
        start += 4
    return _read_packet(frame, start, end, ether_type, source_mac, destination_mac)


def _read_packet(
    frame: bytes,
    start: int,
    end: int,
    ether_type: int,
    source_mac: bytes | None = None,
    destination_mac: bytes | None = None,
) -> tuple[Packet, int | None, int]:
    """The same for what stands behind an Ethernet header, or behind none."""

    def bare() -> Packet:
        return Packet(source_mac, destination_mac, ether_type, payload=frame[start:end])

    if ether_type != _IPV4 or end - start < 20:
        return bare(), None, end
    first, total_length, fragment_bits, protocol, source, destination = _IPV4_HEADER.unpack_from(
        frame, start
    )
    header_length = (first & 0x0F) * 4
    if first >> 4 != 4 or header_length < 20 or total_length < header_length:
        return bare(), None, end
    # Short frames are padded to 60 bytes, and the padding is no payload.
    end = min(end, start + total_length)
    start = min(end, start + header_length)
    # Behind the first part of a larger packet (RFC 791) there is no transport header.
    later_fragment = bool(fragment_bits & 0x1FFF)
    icmp_type, icmp_id, icmp_sequence, ports = None, None, None, None
    payload_start = start
    if not later_fragment:
        if protocol == ICMP and end - start >= 8:
            icmp_type, icmp_id, icmp_sequence = _ICMP_ECHO.unpack_from(frame, start)
            if icmp_type not in (ECHO_REPLY, ECHO_REQUEST):
                icmp_id, icmp_sequence = None, None
            payload_start = start + 8
        elif protocol == UDP:
            payload_start = min(end, start + 8)
        elif protocol == TCP and end - start >= 20:
            payload_start = min(end, start + (frame[start + 12] >> 4) * 4)
        if protocol in (TCP, UDP) and end - start >= 4:
            source_port, destination_port = _TWO_WORDS.unpack_from(frame, start)
            ports = source_port, destination_port
    packet = Packet(
        source_mac,
        destination_mac,
        ether_type,
        _address(source),
        _address(destination),
        protocol,
        total_length,
        icmp_type,
        icmp_id,
        icmp_sequence,
        frame[payload_start:end],
        ports,
    )
    return packet, None if later_fragment else start, end


def _inside_gre(frame: bytes, start: int, end: int) -> tuple[Packet, ...]:
    """RFC 2784 and 2890: a word each for checksum, key and sequence number, where flagged."""
    if end - start < 4:
        return ()
    flags, protocol_type = _TWO_WORDS.unpack_from(frame, start)
    # Version 1 is PPTP's; the routing of RFC 1701 has a length of its own, and is extinct.
    if flags & 0x4007:
        return ()
    start += 4 + 4 * (flags & 0xB000).bit_count()
    return _inside(frame, start, end, protocol_type)


def _is_vxlan(frame: bytes, start: int, end: int) -> bool:
    """RFC 7348: without the I flag the network identifier is not valid."""
    return end - start >= 8 and bool(frame[start] & 0x08)


def _is_geneve(frame: bytes, start: int, end: int) -> bool:
    """RFC 8926: version 0 is the only one."""
    return end - start >= 8 and frame[start] >> 6 == 0


def _inside_geneve(frame: bytes, start: int, end: int) -> tuple[Packet, ...]:
    options_length = (frame[start] & 0x3F) * 4
    _, protocol_type = _TWO_WORDS.unpack_from(frame, start)
    return _inside(frame, start + 8 + options_length, end, protocol_type)


def _inside_sleeve(frame: bytes, start: int, end: int, size: int) -> tuple[Packet, ...]:
    """Sender (6), then source peer (6), destination peer (6), length (2) and frame, repeated.

    The lengths must come out at exactly the datagram's `size` in bytes (`end` is less in a frame
    cut short): that is what tells plain text from encrypted datagrams, which look alike.
    """
    packets: list[Packet] = []
    position, datagram_end = start + 6, start + size
    while position < datagram_end:
        body = position + 14
        if body > end:
            return tuple(packets) if end < datagram_end else ()
        peers = frame[position : position + 6], frame[position + 6 : position + 12]
        length = int.from_bytes(frame[body - 2 : body])
        position = body + length
        if length < 14 or position > datagram_end:
            return ()
        inner = _ethernet_at(frame, body, min(end, position))
        packets += [replace(packet, peers=peers) for packet in inner]
    return tuple(packets)


def _inside(frame: bytes, start: int, end: int, protocol_type: int) -> tuple[Packet, ...]:
    if start > end:
        return ()
    if protocol_type == _TRANSPARENT_ETHERNET:
        return _ethernet_at(frame, start, end)
    return (_read_packet(frame, start, end, protocol_type)[0],)


def _ethernet_at(frame: bytes, start: int, end: int) -> tuple[Packet, ...]:
    packet = _read_ethernet(frame, start, end)[0]
    return () if packet is None else (packet,)


@lru_cache(maxsize=4096)
def _address(number: int) -> IPv4Address:
    return IPv4Address(number)
