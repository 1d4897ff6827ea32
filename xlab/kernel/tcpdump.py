"""What tcpdump tells while it captures, and beneath each datagram of sleeve what that carries.

    10.211.55.3.6783 > 10.211.55.4.6783: UDP, length 118
    \t0x0000:  4500 0092 b6e6 4000 4011 ...                  tcpdump's -x: read, not shown
    \tsleeve h1 > h2: 02:42:… > 02:42:…, 192.168.1.10 > 192.168.1.2: ICMP echo request, …

tcpdump opens GRE, VXLAN and Geneve by itself; of sleeve it knows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import BinaryIO

from xlab.kernel.packets import ECHO_REPLY, ECHO_REQUEST, ICMP, TCP, UDP, Packet, decode

#: One line of -x, which leaves the link's own header out.
_HEX = re.compile(rb"\t0x[0-9a-f]+:  ([0-9a-f ]+)")
_ETHERNET_HEADER = bytes(12) + b"\x08\x00"
_ARP = 0x0806
_PROTOCOLS = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP"}
_ECHOES = {ECHO_REQUEST: "echo request", ECHO_REPLY: "echo reply"}
#: A router's frames to another have no Ethernet header; one of this length says that it lives.
_HEARTBEAT_BYTES = 8


def explain(told: Iterable[bytes], shown: BinaryIO, peers: Mapping[bytes, str]) -> None:
    """Copy the lines of `tcpdump -x` as they come, each packet's bytes read instead of shown.

    `peers` are the routers, by the names they have among each other.
    """
    packet = bytearray()
    for line in told:
        found = _HEX.match(line)
        if not found:
            packet.clear()
            shown.write(line)
            shown.flush()
            continue
        missing = _length(packet) > len(packet)
        packet += bytes.fromhex(found[1].decode())
        if missing and _length(packet) <= len(packet):
            shown.writelines(f"\t{said}\n".encode() for said in inside(bytes(packet), peers))
            shown.flush()


def inside(packet: bytes, peers: Mapping[bytes, str]) -> Iterator[str]:
    """What an IPv4 packet of sleeve carries, a line a frame; nothing of any other packet."""
    decoded = decode(_ETHERNET_HEADER + packet)
    if decoded.encapsulation != "sleeve" or decoded.outer is None:
        return
    if not decoded.inner:
        sender = _peer(decoded.outer.payload[:6], peers)
        yield f"sleeve of {sender}: encrypted, or not whole"
    for carried in decoded.inner:
        assert carried.peers is not None
        source, target = (_peer(name, peers) for name in carried.peers)
        yield f"sleeve {source} > {target}: {in_words(carried)}"


def in_words(frame: Packet) -> str:
    """What a frame is, on a line like those of `tcpdump -e`."""
    if not any((frame.source_mac or b"") + (frame.destination_mac or b"")):
        return "heartbeat" if len(frame.payload) == _HEARTBEAT_BYTES else "probe of the path's MTU"
    macs = " > ".join((mac or b"").hex(":") for mac in (frame.source_mac, frame.destination_mac))
    if frame.source is None:
        what = _arp(frame.payload) if frame.ether_type == _ARP else f"0x{frame.ether_type:04x}"
        return f"{macs}, {what}"
    source, target = f"{frame.source}", f"{frame.destination}"
    if frame.ports:
        source, target = f"{source}.{frame.ports[0]}", f"{target}.{frame.ports[1]}"
    what = _PROTOCOLS.get(frame.protocol or 0, f"IP protocol {frame.protocol}")
    if frame.icmp_type in _ECHOES:
        what += f" {_ECHOES[frame.icmp_type]}, id {frame.icmp_id}, seq {frame.icmp_sequence}"
    return f"{macs}, {source} > {target}: {what}, length {frame.total_length}"


def _arp(body: bytes) -> str:
    """RFC 826: behind 8 bytes of header the sender's two addresses, then the target's."""
    if len(body) < 28:
        return "ARP"
    sender, target = IPv4Address(body[14:18]), IPv4Address(body[24:28])
    if body[7] == 1:
        return f"ARP, who has {target}, tell {sender}"
    return f"ARP, {sender} is at {body[8:14].hex(':')}"


def _peer(name: bytes, peers: Mapping[bytes, str]) -> str:
    return peers.get(name) or name.hex(":")


def _length(packet: bytes | bytearray) -> int:
    """Of the whole IPv4 packet that begins so; of anything else, no end."""
    if len(packet) >= 4 and packet[0] >> 4 == 4:
        return int.from_bytes(packet[2:4], "big")
    return 1 << 16
