"""Sleeve datagrams: what is packed comes out again, and what strangers send does no harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.weave import sleeve
from xlab.weave.sleeve import (
    LARGEST_DATAGRAM_BYTES,
    MOST_SEGMENTS,
    FragmentationTest,
    Heartbeat,
    MtuProbe,
    Packer,
    Special,
    decode,
    decode_special,
    encode_special,
    trains,
)

H1, H2, H3 = (bytes.fromhex(f"7a000000000{n}") for n in (1, 2, 3))

names = st.binary(min_size=6, max_size=6)
frames = st.binary(min_size=14, max_size=200)


# -- the protocol, byte by byte --------------------------------------------------------------------


def test_a_heartbeat_is_22_bytes_with_the_connection_in_the_last_eight() -> None:
    frame = encode_special(Heartbeat(0x0123456789ABCDEF))
    assert frame == bytes(14) + bytes.fromhex("0123456789abcdef")
    header = sleeve.frame_header(H1, H2, len(frame))
    assert header == H1 + H2 + b"\x00\x16"


def test_overhead_is_62_bytes() -> None:
    assert sleeve.OVERHEAD_BYTES == 62


@pytest.mark.parametrize(
    ("special", "size"),
    [(Heartbeat(2**64 - 1), 22), (FragmentationTest(), 60001), (MtuProbe(1438), 1452)],
)
def test_special_frames_are_told_apart_by_size(special: Special, size: int) -> None:
    frame = encode_special(special)
    assert len(frame) == size
    assert decode_special(frame) == special
    assert decode_special(memoryview(frame)) == special


@pytest.mark.parametrize("mtu", [8, 59987])
def test_a_probe_that_would_be_something_else_is_refused(mtu: int) -> None:
    assert decode_special(bytes(14 + mtu)) != MtuProbe(mtu)
    with pytest.raises(ValueError, match="means something else"):
        encode_special(MtuProbe(mtu))


def test_an_ordinary_frame_is_not_special() -> None:
    assert decode_special(bytes(12) + b"\x08\x00" + bytes(8)) is None


def test_the_verified_mtu_is_two_bytes() -> None:
    assert sleeve.encode_mtu(1438) == b"\x05\x9e"
    assert sleeve.decode_mtu(b"\x05\x9e and more") == 1438
    assert sleeve.decode_mtu(b"\x05") is None


# -- datagrams -------------------------------------------------------------------------------------


def test_a_datagram_is_sender_then_frames_with_peers_and_length() -> None:
    packer = Packer(H1)
    assert not packer.take()
    assert packer.add(H1, H2, b"a" * 20, 1472)
    assert packer.add(H3, H2, b"b" * 14, 1472)
    wanted = H1 + H1 + H2 + b"\0\x14" + b"a" * 20 + H3 + H2 + b"\0\x0e" + b"b" * 14
    assert packer.take() == [wanted]
    assert packer.take() == []


@given(st.lists(st.tuples(names, names, frames), max_size=30), st.integers(40, 1500))
def test_frames_come_out_as_they_were_packed(
    carried: list[tuple[bytes, bytes, bytes]], limit: int
) -> None:
    packer = Packer(H1)
    for source, destination, frame in carried:
        assert packer.add(source, destination, frame, limit)
    found = []
    for datagram in packer.take():
        assert datagram.startswith(H1)
        inside, whole = decode(memoryview(datagram))
        assert whole
        # Only a frame that is too large by itself makes a datagram larger than the limit.
        assert len(datagram) <= limit or len(inside) == 1
        found += [(c.source, c.destination, bytes(c.frame)) for c in inside]
    assert found == carried


def test_a_frame_too_large_for_udp_is_refused_and_leaves_no_trace() -> None:
    packer = Packer(H1)
    largest = bytes(LARGEST_DATAGRAM_BYTES - 20)
    assert packer.add(H1, H2, bytes(100), 1472)
    assert packer.add(H1, H2, largest, 1472)
    assert not packer.add(H1, H2, largest + b"x", 1472)
    assert packer.add(H1, H2, bytes(200), 1472)
    assert [len(d) for d in packer.take()] == [120, LARGEST_DATAGRAM_BYTES, 220]


@given(st.binary(max_size=300))
def test_any_bytes_can_be_decoded(datagram: bytes) -> None:
    inside, _ = decode(memoryview(datagram))
    for carried in inside:
        assert len(carried.frame) >= 14
        decode_special(carried.frame)
    assert 6 + sum(14 + len(c.frame) for c in inside) <= max(6, len(datagram))


@given(st.lists(frames, min_size=1, max_size=5), st.data())
def test_damage_costs_frames_from_there_on_and_nothing_else(
    sent: list[bytes], data: st.DataObject
) -> None:
    packer = Packer(H1)
    for frame in sent:
        packer.add(H1, H2, frame, 65507)
    (datagram,) = packer.take()
    position = data.draw(st.integers(6, len(datagram) - 1))
    damaged = bytearray(datagram)
    damaged[position] ^= data.draw(st.integers(1, 255))
    inside, _ = decode(memoryview(damaged))
    end, intact = 6, 0
    while end + 14 + len(sent[intact]) <= position:
        end += 14 + len(sent[intact])
        intact += 1
    assert [bytes(c.frame) for c in inside[:intact]] == sent[:intact]


@given(st.lists(frames, min_size=1, max_size=5), st.integers(1, 50))
def test_a_datagram_cut_short_is_not_whole(sent: list[bytes], missing: int) -> None:
    packer = Packer(H1)
    for frame in sent:
        packer.add(H1, H2, frame, 65507)
    (datagram,) = packer.take()
    inside, whole = decode(memoryview(datagram)[: max(6, len(datagram) - missing)])
    lost = len(sent) - len(inside)
    assert lost > 0
    # What is cut off at the boundary of frames cannot be told from a datagram that never had more.
    assert whole == (bool(inside) and missing == sum(14 + len(f) for f in sent[-lost:]))


def test_a_length_below_an_ethernet_header_ends_the_datagram() -> None:
    good = H1 + H2 + struct.pack("!H", 14) + bytes(range(14))
    bad = H1 + H2 + struct.pack("!H", 13) + bytes(13)
    inside, whole = decode(memoryview(H1 + good + bad + good))
    assert ([bytes(c.frame) for c in inside], whole) == ([bytes(range(14))], False)


def test_a_sender_alone_is_not_whole() -> None:
    assert decode(memoryview(H1)) == ([], False)


# -- trains ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([10, 20, 1472, 30000]), max_size=200))
def test_a_train_cut_every_size_bytes_gives_the_datagrams_back(sizes: list[int]) -> None:
    datagrams = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    found = []
    for train in trains(datagrams):
        assert train.datagrams <= MOST_SEGMENTS
        assert len(train.data) <= LARGEST_DATAGRAM_BYTES
        cut = [bytes(datagram) for datagram in train.split()]
        assert len(cut) == train.datagrams
        found += cut
    assert found == datagrams


def test_equal_datagrams_go_together_with_one_shorter_behind() -> None:
    sizes = [1472] * 3 + [700] + [1472] * 2
    assert [(train.size, train.datagrams) for train in trains([bytes(n) for n in sizes])] == [
        (1472, 4),
        (1472, 2),
    ]
