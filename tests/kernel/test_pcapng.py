"""pcap turned into pcapng: block by block as the draft has it, and what is cut short."""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import XlabError
from xlab.kernel.packets import write_pcap
from xlab.kernel.pcapng import convert, copy


def converted(pcap: bytes, name: str = "h1:eth0") -> list[tuple[int, bytes]]:
    made = io.BytesIO()
    convert(io.BytesIO(pcap), made, interface=name)
    content, found, start = made.getvalue(), [], 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        assert size % 4 == 0
        assert content[start + size - 4 : start + size] == struct.pack("<I", size)
        found.append((kind, content[start + 8 : start + size - 4]))
        start += size
    return found


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=70)), max_size=5))
def test_frames_and_times_are_kept(frames: list[tuple[int, bytes]]) -> None:
    blocks = converted(write_pcap([(float(s), frame) for s, frame in frames]))
    assert [kind for kind, _ in blocks] == [0x0A0D0D0A, 1] + [6] * len(frames)
    assert b"h1:eth0" in blocks[1][1]
    for (seconds, frame), (_, body) in zip(frames, blocks[2:], strict=True):
        interface, high, low, captured, whole = struct.unpack_from("<IIIII", body)
        assert (interface, captured, whole) == (0, len(frame), len(frame))
        assert (high << 32 | low) == seconds * 1_000_000
        assert body[20 : 20 + captured] == frame
        assert not any(body[20 + captured :])


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=70)), max_size=5))
def test_pcap_is_copied_as_it_is_a_write_a_frame(frames: list[tuple[int, bytes]]) -> None:
    class Kept(io.BytesIO):
        def write(self, data: Any, /) -> int:
            pieces.append(bytes(data))
            return len(data)

    pieces: list[bytes] = []
    pcap = write_pcap([(float(s), frame) for s, frame in frames])
    copy(io.BytesIO(pcap), Kept())
    assert b"".join(pieces) == pcap
    assert [len(piece) for piece in pieces] == [24, *(16 + len(frame) for _, frame in frames)]


def test_a_name_that_is_no_utf_8_is_escaped() -> None:
    """The draft wants UTF-8 (if_name)."""
    blocks = converted(write_pcap([]), os.fsdecode(b"h1:\xff"))
    assert rb"h1:\udcff" in blocks[1][1]


def test_nanoseconds_stay_nanoseconds() -> None:
    header = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    blocks = converted(header + struct.pack("<IIII", 3, 7, 2, 60) + b"ab")
    # if_tsresol (9), one byte: a power of ten.
    assert struct.pack("<HHBxxx", 9, 1, 9) in blocks[1][1]
    _, high, low, captured, whole = struct.unpack_from("<IIIII", blocks[2][1])
    assert ((high << 32 | low), captured, whole) == (3_000_000_007, 2, 60)


def test_a_last_frame_cut_short_is_left_out() -> None:
    pcap = write_pcap([(1.0, b"whole"), (2.0, b"not so")])
    for missing in range(1, len(b"not so") + 16):
        assert len(converted(pcap[:-missing])) == 2 + 1
        kept = io.BytesIO()
        copy(io.BytesIO(pcap[:-missing]), kept)
        assert kept.getvalue() == write_pcap([(1.0, b"whole")])


def test_nothing_makes_nothing_and_what_is_no_pcap_is_refused() -> None:
    assert converted(b"") == []
    for wrong in (b"x", b"x" * 100):
        with pytest.raises(XlabError, match="is not pcap"):
            converted(wrong)
        with pytest.raises(XlabError, match="is not pcap"):
            copy(io.BytesIO(wrong), io.BytesIO())
    empty = io.BytesIO()
    copy(io.BytesIO(), empty)
    assert empty.getvalue() == b""
