"""Segments cut and merged, against a plain reading of the RFCs packet by packet."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.support.weave_packets import (
    ACK,
    CWR,
    ECE,
    ETHERNET,
    FIN,
    PSH,
    TAGGED,
    TIMESTAMP,
    Packet,
    as_read,
    ones_complement_sum,
)
from xlab.weave.segments import (
    PREFIX_BYTES,
    Merger,
    Segment,
    Segmenter,
    read_segment,
)
from xlab.weave.sleeve import Train
from xlab.weave.tap import (
    BUFFER_BYTES,
    PLAIN,
    VnetHeader,
    complete_checksum,
    insert_vlan_tag,
    is_plain,
    read_vnet_header,
)

H1, H2 = (bytes.fromhex(f"7a000000000{n}") for n in (1, 2))


def cut_plainly(packet: Packet, gso: int) -> list[bytes]:
    """What the kernel's tcp_gso_segment() makes of a segment."""
    pieces = [packet.payload[start : start + gso] for start in range(0, len(packet.payload), gso)]
    frames = []
    for number, piece in enumerate(pieces):
        flags = packet.flags
        if number > 0:
            flags &= ~CWR
        if number < len(pieces) - 1:
            flags &= ~(FIN | PSH)
        frames.append(
            Packet(
                piece, packet.sequence + number * gso, packet.identification + number, flags,
                packet.options, packet.ethernet, packet.df,
            ).frame()
        )  # fmt: skip
    return frames


def cut(packet: Packet, gso: int) -> Train:
    buffer, size, header = as_read(packet, gso)
    segment = read_segment(buffer, size, header)
    assert segment is not None
    return Segmenter(buffer).cut(segment, H1, H1, H2)


def unpack(train: Train) -> list[bytes]:
    """The frames of a train, after a look at what precedes each."""
    frames = []
    for start in range(0, len(train.data), train.size):
        datagram = bytes(train.data[start : start + train.size])
        assert datagram[:18] == H1 + H1 + H2
        assert int.from_bytes(datagram[18:20]) == len(datagram) - PREFIX_BYTES
        frames.append(datagram[PREFIX_BYTES:])
    return frames


def packed(frames: list[bytes]) -> tuple[Merger, Train]:
    """Frames as a train that was received, with the remains of an earlier one behind it."""
    buffer = bytearray(b"\xaa" * BUFFER_BYTES)
    datagrams = [H1 + H1 + H2 + len(f).to_bytes(2) + f for f in frames]
    joined = b"".join(datagrams)
    buffer[: len(joined)] = joined
    return Merger(buffer), Train(memoryview(buffer)[: len(joined)], len(datagrams[0]))


def merge(frames: list[bytes]) -> bytes | None:
    merger, train = packed(frames)
    assert merger.alike(train)
    merged = merger.merge(train)
    return None if merged is None else bytes(merged)


payloads = st.integers(1, 20000).flatmap(
    lambda size: st.binary(min_size=1, max_size=64).map(lambda seed: (seed * size)[:size])
)
packets = st.builds(
    Packet,
    payload=payloads,
    sequence=st.integers(0, 2**32 - 1),
    identification=st.integers(0, 65535),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | ECE | PSH]),
    options=st.sampled_from([b"", TIMESTAMP, b"\x01" * 40]),
    ethernet=st.sampled_from([ETHERNET, TAGGED]),
    df=st.sampled_from([0x4000, 0]),
)


# -- cutting ---------------------------------------------------------------------------------------


@given(packets, st.integers(100, 3000))
def test_a_segment_is_cut_as_the_kernel_cuts_it(packet: Packet, gso: int) -> None:
    def values(frames: list[bytes]) -> list[bytes]:
        return [canonical(frame, packet.ethernet) for frame in frames]

    assert values(unpack(cut(packet, gso))) == values(cut_plainly(packet, gso))


def canonical(frame: bytes, ethernet: bytes) -> bytes:
    """A checksum of 0xffff and one of 0 are the same sum (RFC 1071)."""
    tcp = len(ethernet) + 20
    if frame[tcp + 16 : tcp + 18] == b"\xff\xff":
        return frame[: tcp + 16] + b"\0\0" + frame[tcp + 18 :]
    return frame


def test_64_kb_in_1438_byte_packets() -> None:
    packet = Packet(bytes(range(256)) * 255, options=TIMESTAMP, flags=ACK | PSH)
    train = cut(packet, 1386)
    assert (train.size, train.datagrams) == (1472, 48)
    assert unpack(train) == cut_plainly(packet, 1386)


def test_numbers_wrap_around() -> None:
    packet = Packet(b"x" * 5000, sequence=2**32 - 1500, identification=65534)
    assert unpack(cut(packet, 1000)) == cut_plainly(packet, 1000)


def test_a_segmenter_is_used_again_and_again() -> None:
    buffer = bytearray(BUFFER_BYTES)
    segmenter = Segmenter(buffer)
    for packet, gso in [(Packet(b"a" * 60000), 60), (Packet(b"b" * 3000), 1400)]:
        read, size, header = as_read(packet, gso)
        buffer[:] = read
        segment = read_segment(buffer, size, header)
        assert segment is not None
        assert unpack(segmenter.cut(segment, H1, H1, H2)) == cut_plainly(packet, gso)


def test_the_size_of_its_packets_is_known_before_it_is_cut() -> None:
    buffer, size, header = as_read(Packet(b"x" * 5000, options=TIMESTAMP), 1386)
    segment = read_segment(buffer, size, header)
    assert segment == Segment(14, 34, 66, 5066, 1386)
    assert segment.mtu == 1438


@given(st.binary(max_size=120), st.integers(0, 3), st.integers(0, 5))
def test_no_header_of_a_read_makes_trouble(data: bytes, flags: int, gso_type: int) -> None:
    buffer = bytearray(BUFFER_BYTES)
    buffer[: len(data)] = data
    buffer[0], buffer[1] = flags, gso_type
    header = read_vnet_header(buffer)
    segment = read_segment(buffer, max(10, len(data)), header)
    if segment is not None:
        Segmenter(buffer).cut(segment, H1, H1, H2)
    complete_checksum(bytes(data), header)


def test_what_is_no_tcp_over_ipv4_is_no_segment() -> None:
    buffer, size, header = as_read(Packet(b"x" * 5000), 1400)
    assert read_segment(buffer, size, header) is not None
    for broken in (
        header._replace(gso_type=4),  # TCP over IPv6
        header._replace(flags=0),
        header._replace(gso_bytes=0),
        header._replace(checksum_start=38),
        header._replace(checksum_offset=6),
        header._replace(checksum_start=60000),
    ):
        assert read_segment(buffer, size, broken) is None
    buffer[10 + 14 + 9] = 17
    assert read_segment(buffer, size, header) is None


# -- checksums -------------------------------------------------------------------------------------


@given(packets)
def test_a_checksum_is_completed(packet: Packet) -> None:
    tcp = len(packet.ethernet) + 20
    header = VnetHeader(1, 0, 0, 0, tcp, 16)
    completed = complete_checksum(packet.frame(partial=True), header)
    assert completed is not None
    assert canonical(completed, packet.ethernet) == canonical(packet.frame(), packet.ethernet)


def test_udp_s_zero_is_written_as_ones() -> None:
    # RFC 768: a transmitted zero would mean that there is no checksum.
    frame = bytes(34) + bytes.fromhex("1111222200080000")
    rest = 0xFFFF - ones_complement_sum(frame[34:])
    for data in (rest.to_bytes(2), rest.to_bytes(2) + b"\0"):
        completed = complete_checksum(frame + data, VnetHeader(1, 0, 0, 0, 34, 6))
        assert completed is not None
        assert completed[40:42] == b"\xff\xff"
        plain = complete_checksum(frame + data, VnetHeader(1, 0, 0, 0, 34, 4))
        assert plain is not None
        assert plain[38:40] == b"\0\0"


def test_a_checksum_outside_the_frame_is_refused() -> None:
    assert complete_checksum(bytes(60), VnetHeader(1, 0, 0, 0, 50, 9)) is None
    assert complete_checksum(bytes(60), VnetHeader(1, 0, 0, 0, 0, 9)) is None


def test_what_is_plain() -> None:
    assert is_plain(memoryview(PLAIN))
    assert not is_plain(memoryview(b"\1" + bytes(9)))
    assert not is_plain(memoryview(b"\0\1" + bytes(8)))


# -- what a packet socket keeps beside a packet ----------------------------------------------------


def test_a_vlan_tag_is_put_back() -> None:
    frame = Packet(b"x" * 100).frame()
    tagged = ETHERNET[:12] + b"\x88\xa8\x00\x05" + frame[12:]
    for header in (VnetHeader(1, 0, 0, 0, 34, 16), VnetHeader(0, 0, 0, 0, 0, 0)):
        packet = bytearray(BUFFER_BYTES)
        packet[: 10 + len(frame)] = header.pack() + frame
        size = insert_vlan_tag(memoryview(packet), 10 + len(frame), 5, 0x88A8)
        assert packet[10:size] == tagged
        start = 38 if header.flags else 0
        assert read_vnet_header(packet).checksum_start == start


# -- merging ---------------------------------------------------------------------------------------


@given(
    st.integers(2, 12), st.integers(50, 1500), st.integers(1, 1500),
    st.sampled_from([b"", TIMESTAMP]), st.integers(0, 2**32 - 1),
    st.sampled_from([ACK, ACK | PSH, ACK | PSH | FIN]),
)  # fmt: skip
def test_packets_of_one_stream_become_the_segment_they_were(
    count: int, gso: int, last: int, options: bytes, sequence: int, flags: int
) -> None:
    gso = gso // 2 * 2
    payload = bytes(range(251)) * (count * gso // 251 + 1)
    packet = Packet(
        payload[: (count - 1) * gso + min(last, gso)], sequence, flags=flags, options=options
    )
    merged = merge(cut_plainly(packet, gso))
    assert merged is not None
    assert read_vnet_header(bytearray(merged)) == VnetHeader(
        1, 1, packet.headers_bytes(), gso, 34, 16
    )
    assert merged[10:] == packet.frame(partial=True)


def stream(count: int = 4, size: int = 1000, last: int = 500) -> list[Packet]:
    return [
        Packet(bytes([65 + n]) * (size if n < count - 1 else last), 1000 + n * size, n)
        for n in range(count)
    ]


def altered(number: int, **changes: object) -> list[bytes]:
    """A stream of four packets, one of which is otherwise than the others."""
    frames = [packet.frame() for packet in stream()]
    packet = stream()[number]
    fields = {name: getattr(packet, name) for name in packet.__dataclass_fields__}
    frames[number] = Packet(**{**fields, **changes}).frame()
    return frames


def test_an_unaltered_stream_merges() -> None:
    assert merge(altered(1)) is not None
    # Who pushed in between is not lost.
    merged = merge(altered(1, flags=ACK | PSH))
    assert merged is not None
    assert merged[10 + 34 + 13] == ACK | PSH


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    "changes",
    [{"sequence": 77}, {"flags": ACK | 4}, {"flags": ACK | 32}, {"df": 0}, {"df": 0x2000}],
    ids=str,
)
def test_what_is_no_stream_is_left_alone(number: int, changes: dict[str, int]) -> None:
    assert merge(altered(number, **changes)) is None


def test_only_the_last_may_end_the_stream() -> None:
    assert merge(altered(1, flags=ACK | FIN)) is None
    assert merge(altered(3, flags=ACK | FIN)) is not None


def test_options_must_agree() -> None:
    frames = [
        Packet(b"x" * 1000, 1000 + n * 1000, n, options=TIMESTAMP[:-1] + bytes([n // 2])).frame()
        for n in range(4)
    ]
    assert merge(frames) is None


@pytest.mark.parametrize("size", [999, 1000])
def test_packets_of_odd_size_are_left_alone(size: int) -> None:
    frames = [packet.frame() for packet in stream(size=size, last=size)]
    assert (merge(frames) is None) == (size == 999)


def test_acknowledgements_are_left_alone() -> None:
    assert merge([Packet(b"", 1000).frame()] * 4) is None


def test_padding_is_no_payload() -> None:
    frames = [packet.frame() + bytes(6) for packet in stream(last=1000)]
    assert merge(frames) is None


@given(st.integers(0), st.integers(0, 7))
def test_a_single_wrong_bit_anywhere_is_noticed(where: int, bit: int) -> None:
    frames = [packet.frame() for packet in stream(size=100, last=51)]
    merger, train = packed(frames)
    where = where % (len(train.data) - PREFIX_BYTES) + PREFIX_BYTES
    train.data[where] ^= 1 << bit
    assert not merger.alike(train) or merger.merge(train) is None


def test_datagrams_to_other_peers_or_of_several_frames_are_not_alike() -> None:
    frames = [packet.frame() for packet in stream(last=1000)]
    size = len(frames[0]) + PREFIX_BYTES
    for position in (0, 6, 12, 18, 20, 26, 32):
        for number in (0, 2, 3):
            merger, train = packed(frames)
            train.data[number * size + position] ^= 1
            assert not merger.alike(train)
    merger, train = packed([*frames[:3], frames[3][:900]])
    assert merger.alike(train)
    train.data[3 * size + 19] ^= 1
    assert not merger.alike(train)


def look_at(datagram: bytes, count: int, last: int) -> None:
    """Take `count` copies of a datagram, and a part of it, for a train."""
    buffer = bytearray(BUFFER_BYTES)
    joined = datagram * count + datagram[:last]
    buffer[: len(joined)] = joined
    merger = Merger(buffer)
    train = Train(memoryview(buffer)[: len(joined)], len(datagram))
    if merger.alike(train):
        merged = merger.merge(train)
        assert merged is None or len(merged) < len(joined) + len(PLAIN)


@given(st.binary(min_size=34, max_size=150), st.integers(1, 8), st.integers(0, 150))
def test_any_train_can_be_looked_at(datagram: bytes, count: int, last: int) -> None:
    look_at(datagram, count, last)


@given(st.binary(max_size=130), st.integers(0, 60), st.integers(1, 5), st.integers(0, 150))
def test_any_train_that_looks_like_tcp_can_be_looked_at(
    tail: bytes, at: int, count: int, last: int
) -> None:
    frame = bytearray(Packet(b"y" * 60).frame())
    frame[at : at + len(tail)] = tail[: len(frame) - at]
    look_at(H1 + H1 + H2 + len(frame).to_bytes(2) + bytes(frame), count, last)


def cut_again(merged: bytes) -> list[bytes]:
    """What the kernel would make of a merged segment, were it to leave by another wire."""
    header = read_vnet_header(bytearray(merged))
    frame, size = merged[10:], header.gso_bytes
    payload, options = frame[header.header_bytes :], frame[54 : header.header_bytes]
    sequence = int.from_bytes(frame[38:42])
    return [
        Packet(
            payload[start : start + size], sequence + start, options=options, ethernet=frame[:14]
        ).frame()
        for start in range(0, len(payload), size)
    ]


def what_tcp_reads(frame: bytes) -> bytes:
    """All but the identification, who pushed or ended, and the sums of those."""
    masked = bytearray(frame)
    masked[18:20] = masked[24:26] = masked[50:52] = b"\0\0"
    masked[47] &= ~(PSH | FIN)
    return bytes(masked)


STREAMS = st.lists(
    st.builds(
        Packet,
        payload=st.sampled_from([b"a" * 100, b"b" * 100, b"c" * 60, b""]),
        sequence=st.integers(0, 4).map(lambda number: (2**32 - 200 + number * 100) % 2**32),
        identification=st.integers(0, 3),
        flags=st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | CWR, FIN]),
        options=st.sampled_from([b"", b"", TIMESTAMP]),
        df=st.sampled_from([0x4000, 0x4000, 0]),
    ),
    min_size=1,
    max_size=6,
)


@given(STREAMS, st.none() | st.tuples(st.integers(0, 5), st.integers(0, 200), st.integers(1, 255)))
@example([Packet(b"a" * 100, 1000), Packet(b"b" * 100, 1100), Packet(b"c" * 60, 1200)], None)
@example([Packet(b"a" * 100, 2**32 - 100), Packet(b"b" * 100, 0)], None)
@example([Packet(b"a" * 100, 1000), Packet(b"b" * 100, 1100)], (1, 60, 1))
@example([Packet(b"a" * 100, 1000)], (0, 0, 1))
def test_whatever_is_merged_is_the_same_packets_again_when_it_is_cut(
    packets: list[Packet], damage: tuple[int, int, int] | None
) -> None:
    """In any order, with a byte wrong: merged they are the stream they were, or left alone."""
    frames = [packet.frame() for packet in packets]
    if damage:
        number, place, change = damage
        damaged = bytearray(frames[number % len(frames)])
        damaged[place % len(damaged)] ^= change
        frames[number % len(frames)] = bytes(damaged)
    sizes = [len(frame) for frame in frames]
    # A train's datagrams are of one size, but for a shorter last.
    assume(set(sizes[:-1]) <= {sizes[0]} and sizes[-1] <= sizes[0])
    merger, train = packed(frames)
    merged = merger.merge(train) if merger.alike(train) else None
    if merged is None:
        return
    assert list(map(what_tcp_reads, cut_again(bytes(merged)))) == list(map(what_tcp_reads, frames))
    assert merged[10 + 47] & FIN == packets[-1].flags & FIN
