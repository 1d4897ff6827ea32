"""Decoding against tcpdump's reading of real captures, frames built by hand, and random bytes."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlab.kernel.packets import (
    Decoded,
    Packet,
    decode,
    find_arp_requests,
    find_echoes,
    write_pcap,
)

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.pcap"))
TOKEN = b"xlab"

H1_MAC, H2_MAC = bytes.fromhex("021111111111"), bytes.fromhex("022222222222")
H1, H2 = IPv4Address("192.168.59.103"), IPv4Address("192.168.59.104")
C1, C3 = IPv4Address("192.168.1.2"), IPv4Address("192.168.2.2")
PEERS = bytes.fromhex("7a0000000001"), bytes.fromhex("7a0000000002")


# ------------------------------------------------------------------------------- building by hand


def ethernet(payload: bytes, ether_type: int = 0x0800) -> bytes:
    return H2_MAC + H1_MAC + struct.pack("!H", ether_type) + payload


def ipv4(
    payload: bytes,
    protocol: int,
    source: IPv4Address = H1,
    destination: IPv4Address = H2,
    *,
    fragment_bits: int = 0,
    options: bytes = b"",
) -> bytes:
    header_words = 5 + len(options) // 4
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | header_words, 0, header_words * 4 + len(payload), 1, fragment_bits,
            64, protocol, 0, source.packed, destination.packed,
        )
        + options
        + payload
    )  # fmt: skip


def udp(payload: bytes, port: int, source_port: int = 40000) -> bytes:
    return struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def echo(sequence: int = 1, data: bytes = TOKEN, icmp_type: int = 8) -> bytes:
    return struct.pack("!BBHHH", icmp_type, 0, 0, 77, sequence) + data


def container_ping(sequence: int = 1) -> bytes:
    """An Ethernet frame from c1 on h1 to c3 on h2; 32 bytes of IPv4."""
    return ethernet(ipv4(echo(sequence), 1, C1, C3))


def sleeve(*frames: bytes) -> bytes:
    peers = b"".join(PEERS)
    return peers[:6] + b"".join(peers + struct.pack("!H", len(f)) + f for f in frames)


GRE_PING = ethernet(ipv4(b"\x00\x00\x65\x58" + container_ping(), 47))
VXLAN_HEADER = bytes.fromhex("0800000000002a00")
GENEVE_HEADER = bytes.fromhex("0000655800002a00")


def check_container_ping(decoded: Decoded, peers: tuple[bytes, bytes] | None = None) -> None:
    (inner,) = decoded.inner
    assert inner == Packet(
        source_mac=H1_MAC,
        destination_mac=H2_MAC,
        ether_type=0x0800,
        source=C1,
        destination=C3,
        protocol=1,
        total_length=32,
        icmp_type=8,
        icmp_id=77,
        icmp_sequence=1,
        payload=TOKEN,
        peers=peers,
    )
    assert decoded.outer is not None
    assert (decoded.outer.source, decoded.outer.destination) == (H1, H2)
    assert find_echoes(decoded, TOKEN) == (inner,)
    assert find_echoes(decoded, b"other") == ()


# ------------------------------------------------------------------------------- ARP requests


def arp_request(sender: IPv4Address = H1, wanted: IPv4Address = H2) -> bytes:
    begins = bytes.fromhex("0001 0800 06 04 0001")
    return ethernet(begins + H1_MAC + sender.packed + bytes(6) + wanted.packed, 0x0806)


def in_gre(frame: bytes) -> bytes:
    return ipv4(b"\x00\x00\x65\x58" + frame, 47)


def asked(frame: bytes, mac: bytes = H1_MAC, address: IPv4Address = H2) -> int:
    return len(find_arp_requests(decode(frame), mac.hex(":"), address))


def test_an_arp_request_is_found_bare_and_inside() -> None:
    request = arp_request()
    assert asked(request) == asked(ethernet(in_gre(request))) == 1
    assert asked(ethernet(ipv4(udp(sleeve(container_ping(), request, request), 6783), 17))) == 2
    # Padded, as it is on the wire.
    assert asked(request.ljust(60, b"\0")) == 1


def test_what_is_no_arp_request_of_that_interface_for_that_address() -> None:
    request = arp_request()
    assert asked(request, mac=H2_MAC) == asked(request, address=C3) == 0
    answer = request.replace(bytes.fromhex("06040001"), bytes.fromhex("06040002"))
    assert asked(answer) == 0
    assert not any(asked(request[:length]) for length in range(len(request)))
    # A host that takes no GRE: protocol unreachable, with all of it (RFC 1812, 4.3.2.3).
    quoting = b"\x03\x02" + bytes(6) + in_gre(request)
    assert asked(ethernet(ipv4(quoting, 1, H2, H1))) == 0
    assert asked(ethernet(ipv4(udp(request, 40001), 17))) == 0


# ------------------------------------------------------------------------- captures and tcpdump


def read_pcap(data: bytes) -> Iterator[bytes]:
    position = 24
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position + 8)
        yield data[position + 16 : position + 16 + length]
        position += 16 + length


def decoded_capture(name: str) -> list[Decoded]:
    return [decode(frame) for frame in read_pcap((CAPTURES / f"{name}.pcap").read_bytes())]


TCPDUMP_FRAME = re.compile(
    r"(?P<src>[0-9a-f:]{17}) > (?P<dst>[0-9a-f:]{17}), ethertype \S+ \((?P<type>0x[0-9a-f]{4})\), "
    r"length (?P<length>\d+): "
    r"(?:vlan \d+, p \d+, ethertype \S+ \((?P<vlan_type>0x[0-9a-f]{4})\), )?"
    r"(?:(?P<ip_src>\d+\.\d+\.\d+\.\d+)\S* > (?P<ip_dst>\d+\.\d+\.\d+\.\d+)[^ :]*: )?"
    r"(?:ICMP echo (?P<kind>request|reply), id (?P<id>\d+), seq (?P<seq>\d+), "
    r"length (?P<icmp>\d+))?"
)


def facts_of_tcpdump(text: str) -> list[tuple[object, ...]]:
    """Every Ethernet frame that tcpdump names, outer and inner, in its order."""
    return [
        (
            found["src"],
            found["dst"],
            int(found["vlan_type"] or found["type"], 16),
            found["ip_src"],
            found["ip_dst"],
            {"request": 8, "reply": 0}.get(found["kind"]),
            found["id"] and int(found["id"]),
            found["seq"] and int(found["seq"]),
            found["icmp"] and int(found["icmp"]) - 8,
        )
        for found in TCPDUMP_FRAME.finditer(text)
    ]


def facts_of_ours(packets: list[Packet]) -> list[tuple[object, ...]]:
    return [
        (
            p.source_mac and p.source_mac.hex(":"),
            p.destination_mac and p.destination_mac.hex(":"),
            p.ether_type,
            str(p.source) if p.source else None,
            str(p.destination) if p.destination else None,
            p.icmp_type,
            p.icmp_id,
            p.icmp_sequence,
            len(p.payload) if p.icmp_id is not None else None,
        )
        for p in packets
    ]


def frames_in(decoded: Decoded, *, opened: bool) -> list[Packet]:
    outer = [decoded.outer] if decoded.outer else []
    return [*outer, *decoded.inner] if opened else outer


@pytest.mark.parametrize("name", NAMES)
def test_reads_a_capture_as_tcpdump_does(name: str) -> None:
    """tcpdump opens GRE, Geneve and VXLAN of the standard port, but not sleeve."""
    packets = [
        packet
        for decoded in decoded_capture(name)
        for packet in frames_in(decoded, opened=name not in ("sleeve", "plain"))
    ]
    expected = facts_of_tcpdump((CAPTURES / f"{name}.txt").read_text(encoding="utf-8"))
    assert len(expected) >= 6
    assert facts_of_ours(packets) == expected


@pytest.mark.parametrize(
    ("name", "encapsulation", "overhead_bytes"),
    [
        ("plain", "none", 0),
        ("gre-ovs", "gre", 38),
        ("gre-key-csum-ovs", "gre", 46),
        ("gre-seq-ovs", "gre", 46),
        ("vxlan-ovs", "vxlan", 50),
        ("geneve-ovs", "geneve", 50),
        ("vxlan-6784-kernel", "vxlan", 50),
    ],
)
def test_three_pings_and_their_replies(name: str, encapsulation: str, overhead_bytes: int) -> None:
    seen = Counter[tuple[int | None, int | None]]()
    for decoded in decoded_capture(name):
        for packet in find_echoes(decoded, TOKEN):
            assert decoded.encapsulation == encapsulation
            assert decoded.outer is not None
            assert decoded.outer.total_length is not None
            assert packet.total_length == 84
            assert decoded.outer.total_length - packet.total_length == overhead_bytes
            seen[packet.icmp_type, packet.icmp_sequence] += 1
    assert seen == Counter({(kind, sequence): 1 for kind in (8, 0) for sequence in (1, 2, 3)})


def test_sleeve_packs_several_frames_into_a_datagram() -> None:
    decoded = decoded_capture("sleeve")
    assert {d.encapsulation for d in decoded} == {"sleeve"}
    assert [len(find_echoes(d, TOKEN)) for d in decoded] == [0, 0, 1, 1, 1, 1, 1, 1, 5, 5]
    arp = decoded[0].inner[0]
    assert (arp.ether_type, arp.source) == (0x0806, None)
    packed = decoded[8]
    assert [p.icmp_sequence for p in find_echoes(packed, TOKEN)] == [1, 2, 3, 4, 5]
    # IPv4 20, UDP 8, sender 6, and for each frame peers 12, length 2, Ethernet 14.
    assert packed.outer is not None
    assert packed.outer.total_length == 34 + 5 * (28 + 84)


def test_fragments() -> None:
    first, second, last, *reply = decoded_capture("fragments")
    for decoded in (first, second, last, *reply):
        assert decoded.outer is not None
        assert (decoded.encapsulation, decoded.inner) == ("none", ())
    assert len(find_echoes(first, TOKEN)) == 1
    assert find_echoes(second, TOKEN) == find_echoes(last, TOKEN) == ()


# ---------------------------------------------------------------------------- frames built by hand


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("00006558", id="bare"),
        pytest.param("80006558 12340000", id="checksum"),
        pytest.param("20006558 00000007", id="key"),
        pytest.param("10006558 00000001", id="sequence"),
        pytest.param("b0006558 12340000 00000007 00000001", id="all"),
    ],
)
def test_gre_headers(header: str) -> None:
    decoded = decode(ethernet(ipv4(bytes.fromhex(header) + container_ping(), 47)))
    assert decoded.encapsulation == "gre"
    check_container_ping(decoded)


def test_gre_with_a_plain_ip_packet_inside() -> None:
    decoded = decode(ethernet(ipv4(b"\x00\x00\x08\x00" + ipv4(echo(), 1, C1, C3), 47)))
    (inner,) = decoded.inner
    assert (inner.source_mac, inner.source, inner.icmp_sequence) == (None, C1, 1)
    assert find_echoes(decoded, TOKEN) == (inner,)


@pytest.mark.parametrize("header", ["00016558", "30018880", "40006558"])
def test_gre_of_other_versions_stays_closed(header: str) -> None:
    decoded = decode(ethernet(ipv4(bytes.fromhex(header) + container_ping(), 47)))
    assert (decoded.encapsulation, decoded.inner) == ("gre", ())


@pytest.mark.parametrize(
    ("port", "body", "encapsulation"),
    [
        (4789, VXLAN_HEADER + container_ping(), "vxlan"),
        (6784, VXLAN_HEADER + container_ping(), "vxlan"),
        (6081, GENEVE_HEADER + container_ping(), "geneve"),
        (6081, b"\x02" + GENEVE_HEADER[1:] + bytes(8) + container_ping(), "geneve"),
        (6783, sleeve(container_ping()), "sleeve"),
    ],
)
def test_udp_encapsulations(port: int, body: bytes, encapsulation: str) -> None:
    decoded = decode(ethernet(ipv4(udp(body, port), 17)))
    assert decoded.encapsulation == encapsulation
    check_container_ping(decoded, PEERS if encapsulation == "sleeve" else None)


def test_geneve_with_a_plain_ip_packet_inside() -> None:
    header = bytes.fromhex("0000080000002a00")
    body = udp(header + ipv4(echo(), 1, C1, C3), 6081)
    (packet,) = find_echoes(decode(ethernet(ipv4(body, 17))), TOKEN)
    assert (packet.source, packet.source_mac) == (C1, None)


def test_sleeve_answers_to_a_port_changed_by_nat() -> None:
    frame = ethernet(ipv4(udp(sleeve(container_ping()), port=51234, source_port=6783), 17))
    assert decode(frame).encapsulation == "sleeve"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(bytes(range(100)), id="encrypted"),
        pytest.param(sleeve(container_ping()) + b"\0", id="a byte too many"),
        pytest.param(sleeve(container_ping())[:-1], id="a byte too few"),
        pytest.param(sleeve(b""), id="an empty frame"),
        pytest.param(b"sender", id="no frame"),
    ],
)
def test_sleeve_that_cannot_be_read_stays_closed(body: bytes) -> None:
    decoded = decode(ethernet(ipv4(udp(body, 6783), 17)))
    assert (decoded.encapsulation, decoded.inner) == ("sleeve", ())


@pytest.mark.parametrize(
    ("port", "body"),
    [(4789, bytes(8) + container_ping()), (6081, b"\x40" + bytes(7)), (6783, b"short"), (53, b"")],
)
def test_other_udp_is_no_encapsulation(port: int, body: bytes) -> None:
    decoded = decode(ethernet(ipv4(udp(body, port), 17)))
    assert (decoded.encapsulation, decoded.inner) == ("none", ())
    assert decoded.outer is not None
    assert decoded.outer.payload == body


def test_a_later_fragment_of_gre_is_gre_and_closed() -> None:
    decoded = decode(ethernet(ipv4(container_ping(), 47, fragment_bits=185)))
    assert (decoded.encapsulation, decoded.inner) == ("gre", ())


def test_a_later_fragment_has_no_ports() -> None:
    frame = ethernet(ipv4(udp(VXLAN_HEADER + container_ping(), 4789), 17, fragment_bits=185))
    assert decode(frame).encapsulation == "none"


@pytest.mark.parametrize("tags", ["81000007", "88a80007 81000008"])
def test_vlan_tags_are_skipped_outside_and_inside(tags: str) -> None:
    tag = bytes.fromhex(tags)
    tagged_ping = container_ping()[:12] + tag + container_ping()[12:]
    decoded = decode(GRE_PING[:12] + tag + GRE_PING[12:])
    check_container_ping(decoded)
    decoded = decode(ethernet(ipv4(b"\x00\x00\x65\x58" + tagged_ping, 47)))
    check_container_ping(decoded)


def test_options_and_padding_of_the_outer_packet() -> None:
    body = b"\x00\x00\x65\x58" + container_ping()
    check_container_ping(decode(ethernet(ipv4(body, 47, options=bytes(8)) + b"pad" * 9)))
    short = decode(ethernet(ipv4(echo(data=b""), 1)).ljust(60, b"x"))
    assert short.outer is not None
    assert (short.outer.payload, short.outer.total_length) == (b"", 28)


def test_what_an_icmp_error_quotes_is_no_echo() -> None:
    quoting = b"\x03\x04\x00\x00\x00\x00\x05\xb6" + ipv4(echo(), 1)
    decoded = decode(ethernet(ipv4(quoting, 1)))
    assert decoded.outer is not None
    assert (decoded.outer.icmp_type, decoded.outer.icmp_id) == (3, None)
    assert TOKEN in decoded.outer.payload
    assert find_echoes(decoded, TOKEN) == ()


def test_tcp_payload_stands_behind_the_options() -> None:
    segment = struct.pack("!HHIIBBHHH", 80, 1, 0, 0, 0x80, 0x18, 0, 0, 0) + bytes(12) + b"data"
    outer = decode(ethernet(ipv4(segment, 6))).outer
    assert outer is not None
    assert (outer.protocol, outer.ports, outer.payload) == (6, (80, 1), b"data")


@pytest.mark.parametrize(
    ("frame", "ether_type"),
    [
        (ethernet(bytes.fromhex("0001080006040001") + bytes(20), 0x0806), 0x0806),
        (ethernet(b"\x60" + bytes(39), 0x86DD), 0x86DD),
        (ethernet(b"\x45" + bytes(10)), 0x0800),
        (ethernet(b"\x65" + ipv4(echo(), 1)[1:]), 0x0800),
        (ethernet(b"\x44" + ipv4(echo(), 1)[1:]), 0x0800),
    ],
)
def test_what_is_not_ipv4_has_no_addresses(frame: bytes, ether_type: int) -> None:
    decoded = decode(frame)
    assert (decoded.encapsulation, decoded.inner) == ("none", ())
    assert decoded.outer == Packet(H1_MAC, H2_MAC, ether_type, payload=frame[14:])


def test_less_than_an_ethernet_header() -> None:
    assert decode(b"") == decode(b"x" * 13) == Decoded("none", None)


def test_a_frame_cut_short_is_read_as_far_as_it_goes() -> None:
    body = udp(sleeve(container_ping(1), container_ping(2)), 6783)
    frame = ethernet(ipv4(body, 17))
    assert len(decode(frame).inner) == 2
    assert [len(decode(frame[:-cut]).inner) for cut in (10, 50, 70)] == [2, 1, 1]
    assert find_echoes(decode(GRE_PING[:-4]), b"") != ()


def test_the_pcap_is_read_back_by_tcpdump() -> None:
    tcpdump = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if tcpdump is None:
        pytest.skip("tcpdump is not installed")
    tagged = GRE_PING[:12] + bytes.fromhex("81000007") + GRE_PING[12:]
    frames = [GRE_PING, tagged, ethernet(ipv4(udp(VXLAN_HEADER + container_ping(), 4789), 17))]
    capture = write_pcap([(1_700_000_000.25 + i, frame) for i, frame in enumerate(frames)])
    read = subprocess.run(
        [tcpdump, "-nn", "-e", "-tt", "-r", "-"], input=capture, capture_output=True, check=True
    )
    text = read.stdout.decode()
    assert re.findall(r"^1700000\d+\.\d+", text, re.MULTILINE) == [
        "1700000000.250000", "1700000001.250000", "1700000002.250000",
    ]  # fmt: skip
    packets = [p for frame in frames for p in frames_in(decode(frame), opened=True)]
    assert facts_of_ours(packets) == facts_of_tcpdump(text)


def test_the_pcap_keeps_the_frames() -> None:
    frames = [b"", b"a" * 60, b"b" * 2000]
    written = write_pcap([(0.9999999, frame) for frame in frames])
    assert list(read_pcap(written)) == frames
    assert struct.unpack_from("<II", written, 24) == (1, 0)
    assert struct.unpack_from("<I", written, 20) == (1,)


# --------------------------------------------------------------------------------------- any bytes

ANY_GOOD_FRAME = st.sampled_from(
    [f for name in NAMES for f in read_pcap((CAPTURES / f"{name}.pcap").read_bytes())]
)


def check_sane(decoded: Decoded, frame: bytes) -> None:
    assert decoded.encapsulation in ("none", "gre", "vxlan", "geneve", "sleeve")
    if decoded.encapsulation == "none":
        assert decoded.inner == ()
    else:
        assert decoded.outer is not None
        assert decoded.outer.protocol in (17, 47)
    for packet in (*frames_in(decoded, opened=True), *find_echoes(decoded, TOKEN)):
        assert packet.payload in frame
        assert (packet.source is None) == (packet.total_length is None)


@given(st.binary(max_size=200))
@example(ethernet(b""))
def test_any_bytes_are_read_without_an_exception(frame: bytes) -> None:
    check_sane(decode(frame), frame)


@given(
    ANY_GOOD_FRAME,
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    st.integers(0, 200),
)
def test_damaged_frames_are_read_without_an_exception(
    frame: bytes, damage: list[tuple[int, int]], kept: int
) -> None:
    octets = bytearray(frame)
    for position, value in damage:
        octets[position % len(octets)] = value
    for damaged in (bytes(octets), bytes(octets[:kept])):
        check_sane(decode(damaged), damaged)


@given(ANY_GOOD_FRAME, st.binary(min_size=1, max_size=300))
def test_any_bytes_behind_good_headers(frame: bytes, tail: bytes) -> None:
    for kept in (34, 42, 50, 56):
        mixed = frame[:kept] + tail
        check_sane(decode(mixed), mixed)
