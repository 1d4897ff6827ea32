"""What tcpdump tells live, and what is told of sleeve beneath: real captures, and anything."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.kernel import tcpdump

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
H1, H2 = bytes.fromhex("7a0000000001"), bytes.fromhex("7a0000000002")

needs_tcpdump = pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")


def told(name: str, *options: str) -> bytes:
    argv = ["tcpdump", "-nn", "-e", "-t", *options, "-r", f"{CAPTURES / name}.pcap"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def explained(lines: bytes) -> str:
    shown = io.BytesIO()
    tcpdump.explain(io.BytesIO(lines), shown, {H1: "h1", H2: "h2"})
    return shown.getvalue().decode(errors="replace")


@needs_tcpdump
def test_what_sleeve_carries_stands_beneath_its_datagrams() -> None:
    shown = explained(told("sleeve", "-x"))
    lines = shown.splitlines(keepends=True)
    # tcpdump's lines are there as they are without -x, and none of the bytes.
    assert "".join(line for line in lines if not line.startswith("\t")).encode() == told("sleeve")
    assert "0x0000" not in shown
    inside = [line.strip() for line in lines if line.startswith("\t")]
    assert all(line.startswith("sleeve ") for line in inside)
    assert len([line for line in inside if "ICMP echo request" in line]) == 8
    # The last datagram has five answers in it.
    assert [re.findall(r"seq (\d+)", line) for line in inside[-5:]] == [
        [str(n)] for n in range(1, 6)
    ]
    assert {"who has", "is at"} <= set(re.findall("who has|is at", "".join(inside)))


@needs_tcpdump
@pytest.mark.parametrize("name", ["plain", "gre-ovs", "vxlan-ovs", "fragments"])
def test_whatever_else_passes_is_shown_as_tcpdump_tells_it(name: str) -> None:
    assert explained(told(name, "-x")).encode() == told(name)


def datagram(*parts: bytes) -> bytes:
    """An IPv4 packet from one router to another; neither checksum is looked at."""
    body = b"".join(parts)
    udp = (6783).to_bytes(2) * 2 + (8 + len(body)).to_bytes(2) + bytes(2)
    length = (28 + len(body)).to_bytes(2)
    addresses = bytes([10, 211, 55, 3, 10, 211, 55, 4])
    return b"\x45\x00" + length + bytes(4) + b"\x40\x11\x00\x00" + addresses + udp + body


def said(packet: bytes) -> list[str]:
    return list(tcpdump.inside(packet, {H1: "h1", H2: "h2"}))


def test_what_routers_say_to_each_other_is_named() -> None:
    heartbeat = datagram(H1, H1 + H2 + (22).to_bytes(2), bytes(14), (7).to_bytes(8))
    assert said(heartbeat) == ["sleeve h1 > h2: heartbeat"]
    probe = datagram(H1, H1 + H2 + (1000).to_bytes(2), bytes(1000))
    assert said(probe) == ["sleeve h1 > h2: probe of the path's MTU"]
    stranger = bytes.fromhex("7a0000000009")
    assert said(datagram(stranger, bytes(20))) == [
        "sleeve of 7a:00:00:00:00:09: encrypted, or not whole"
    ]


def test_frames_are_told_with_all_that_a_reader_looks_for() -> None:
    macs = bytes.fromhex("0242c0a80102 0242c0a8010a".replace(" ", ""))
    tcp = (40000).to_bytes(2) + (5201).to_bytes(2) + bytes(8) + b"\x50" + bytes(7)
    addresses = bytes([192, 168, 1, 10, 192, 168, 1, 2])
    ip = b"\x45\x00" + (40).to_bytes(2) + bytes(4) + b"\x40\x06\x00\x00" + addresses + tcp
    frame = macs + b"\x08\x00" + ip
    (line,) = said(datagram(H1, H1 + H2 + len(frame).to_bytes(2), frame))
    assert line == (
        "sleeve h1 > h2: 02:42:c0:a8:01:0a > 02:42:c0:a8:01:02, "
        "192.168.1.10.40000 > 192.168.1.2.5201: TCP, length 40"
    )


@given(st.binary(max_size=200), st.booleans())
def test_any_packet_and_any_line_is_borne(content: bytes, like_sleeve: bool) -> None:
    packet = datagram(content) if like_sleeve else content
    assert all(line.startswith("sleeve ") for line in said(packet))
    rows = [packet[i : i + 16].hex(" ", 2) for i in range(0, len(packet), 16)]
    hexed = "".join(f"\t0x{i * 16:04x}:  {row}\n" for i, row in enumerate(rows)).encode()
    assert explained(b"a line\n" + hexed + content).startswith("a line\n")
