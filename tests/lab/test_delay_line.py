"""The delay line's logic, with clock and chance made up, and its reading of virtio headers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.lab import delay_line
from xlab.lab.conditions import LinkConditions
from xlab.lab.delay_line import Direction, bytes_on_wire, with_vlan_tag
from xlab.lab.imposers.delay_line import argv_of

NO_OFFLOAD = bytes(10)


def packet(number: int, size: int = 100) -> bytes:
    """`size` bytes of Ethernet frame behind a virtio header that asks for nothing."""
    return NO_OFFLOAD + number.to_bytes(4, "big") + bytes(size - 4)


def chances(*values: float) -> Callable[[], float]:
    rest: Iterator[float] = iter(values)
    return lambda: next(rest)


class Wire:
    """Where a direction sends to: notes what came, and when the clock said so."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packet: bytes) -> int:
        self.packets.append(packet)
        return len(packet)


def departures(direction: Direction) -> list[float]:
    return [round(leaves_s, 9) for leaves_s, _ in direction.queue]


# -- delay -----------------------------------------------------------------------------------------


def test_a_packet_leaves_when_its_delay_is_over_and_not_before() -> None:
    direction, wire = Direction(delay_s=0.010), Wire()
    direction.admit(packet(1), now_s=5.0)
    assert direction.release(5.0099, wire.send) == pytest.approx(5.010)
    assert wire.packets == []
    assert direction.release(5.0101, wire.send) is None
    assert wire.packets == [packet(1)]
    assert direction.counters() == {
        "arrived": 1, "departed": 1, "lost": 0, "overflowed": 0, "unsent": 0, "queued": 0,
        "missed": 0,
    }  # fmt: skip
    assert direction.queued_bytes == 0


def test_release_says_when_the_next_one_leaves() -> None:
    direction, wire = Direction(delay_s=0.010), Wire()
    for i in range(3):
        direction.admit(packet(i), now_s=1.0 + i / 1000)
    assert direction.release(1.011, wire.send) == pytest.approx(1.012)
    assert wire.packets == [packet(0), packet(1)]


def test_jitter_spreads_around_the_delay_from_end_to_end() -> None:
    direction = Direction(delay_s=0.010, jitter_s=0.004, chance=chances(0.0, 0.5, 1.0))
    for now_s in (0.0, 1.0, 2.0):
        direction.admit(packet(0), now_s)
    assert departures(direction) == [0.006, 1.010, 2.014]


def test_jitter_never_lets_a_packet_overtake() -> None:
    direction = Direction(delay_s=0.010, jitter_s=0.004, chance=chances(1.0, 0.0))
    direction.admit(packet(1), 0.000)
    direction.admit(packet(2), 0.001)
    assert departures(direction) == [0.014, 0.014]


# -- loss ------------------------------------------------------------------------------------------


def test_loss_takes_what_chance_says() -> None:
    direction, wire = Direction(loss_ratio=0.1, chance=chances(0.0999, 0.1, 0.5)), Wire()
    for i in range(3):
        direction.admit(packet(i), 0.0)
    direction.release(0.0, wire.send)
    assert wire.packets == [packet(1), packet(2)]
    assert (direction.arrived, direction.lost, direction.departed) == (3, 1, 2)


def test_without_loss_chance_is_not_asked() -> None:
    direction = Direction(delay_s=0.001, chance=chances())
    direction.admit(packet(1), 0.0)
    assert direction.arrived == 1


# -- rate ------------------------------------------------------------------------------------------


def test_a_rate_serialises_behind_the_delay() -> None:
    # 125 bytes at 1 Mbit/s take 1 ms.
    direction = Direction(delay_s=0.010, rate_bits_per_second=1e6)
    for _ in range(3):
        direction.admit(packet(0, size=125), 0.0)
    direction.admit(packet(0, size=250), 1.0)
    assert departures(direction) == [0.011, 0.012, 0.013, 1.012]


def test_what_would_wait_behind_a_full_queue_is_dropped() -> None:
    direction = Direction(rate_bits_per_second=1e6, queue_bytes=250)
    for _ in range(5):
        direction.admit(packet(0, size=125), 0.0)
    # One is being sent, two wait, and the fourth finds 375 bytes ahead of it.
    assert departures(direction) == [0.001, 0.002, 0.003]
    assert direction.overflowed == 2


def test_the_delay_itself_is_no_waiting_for_the_rate() -> None:
    direction = Direction(delay_s=1.0, rate_bits_per_second=1e6, queue_bytes=125)
    for i in range(500):
        direction.admit(packet(0, size=125), i / 1000)
    assert direction.overflowed == 0
    assert len(direction.queue) == 500


# -- bounds ----------------------------------------------------------------------------------------


def test_the_line_is_bounded_in_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_line, "LINE_LIMIT_PACKETS", 3)
    direction = Direction(delay_s=1.0)
    for i in range(5):
        direction.admit(packet(i), 0.0)
    assert (len(direction.queue), direction.overflowed) == (3, 2)


def test_the_line_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_line, "LINE_LIMIT_BYTES", 350)
    direction, wire = Direction(delay_s=1.0), Wire()
    for i in range(5):
        direction.admit(packet(i), 0.0)
    assert (direction.queued_bytes, direction.overflowed) == (330, 2)
    direction.release(1.0, wire.send)
    direction.admit(packet(9), 2.0)
    assert direction.queued_bytes == 110


def test_a_refusal_on_the_way_out_is_a_packet_lost_and_the_rest_goes_on() -> None:
    sent = []

    def send(data: bytes) -> None:
        if data == packet(1):
            raise BlockingIOError
        sent.append(data)

    direction = Direction()
    for i in range(3):
        direction.admit(packet(i), 0.0)
    assert direction.release(0.0, send) is None
    assert sent == [packet(0), packet(2)]
    assert (direction.departed, direction.unsent) == (2, 1)


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 0.01), st.integers(60, 1514), st.floats(0, 1), st.floats(0, 1)),
        max_size=60,
    ),
    delay_s=st.floats(0, 0.05),
    jitter_share=st.floats(0, 1),
    loss_ratio=st.floats(0, 0.9),
    rate=st.none() | st.floats(1e5, 1e10),
)
def test_order_is_kept_and_every_packet_accounted_for(
    arrivals: list[tuple[float, int, float, float]],
    delay_s: float,
    jitter_share: float,
    loss_ratio: float,
    rate: float | None,
) -> None:
    drawn = iter([value for _, _, *values in arrivals for value in values] + [0.5] * 120)
    direction, wire = (
        Direction(
            delay_s=delay_s,
            jitter_s=delay_s * jitter_share,
            loss_ratio=loss_ratio,
            rate_bits_per_second=rate,
            queue_bytes=5000,
            chance=lambda: next(drawn),
        ),
        Wire(),
    )
    now_s = 0.0
    for number, (gap_s, size, _, _) in enumerate(arrivals):
        now_s += gap_s
        direction.release(now_s, wire.send)
        direction.admit(packet(number, size), now_s)
        # Nothing leaves before the shortest delay.
        assert not direction.queue or direction.queue[-1][0] >= delay_s * (1 - jitter_share) - 1e-9
    while direction.release(now_s, wire.send) is not None:
        now_s += 0.01
    numbers = [int.from_bytes(data[10:14], "big") for data in wire.packets]
    assert numbers == sorted(numbers)
    assert direction.queued_bytes == 0
    assert direction.arrived == len(arrivals)
    assert direction.arrived == direction.departed + direction.lost + direction.overflowed


# -- virtio headers --------------------------------------------------------------------------------

#: A TCP segment as a veth hands it over: NEEDS_CSUM, GSO_TCPV4, 66 bytes of headers, 1,448 each.
TCP_SEGMENT = delay_line._VNET_HEADER.pack(1, 1, 66, 1448, 34, 16)


def test_bytes_on_wire_counts_the_headers_of_every_segment() -> None:
    assert bytes_on_wire(TCP_SEGMENT + bytes(66 + 3 * 1448)) == 3 * (66 + 1448)
    assert bytes_on_wire(TCP_SEGMENT + bytes(66 + 2 * 1448 + 1)) == 2 * (66 + 1448) + 67
    assert bytes_on_wire(TCP_SEGMENT + bytes(66 + 100)) == 166
    assert bytes_on_wire(NO_OFFLOAD + bytes(1514)) == 1514
    # What no kernel sends must not end the loop either.
    assert bytes_on_wire(bytes([0, 1]) + bytes(8) + bytes(60)) == 60


def test_a_vlan_tag_goes_behind_the_addresses_and_moves_the_offsets() -> None:
    frame = bytes(range(12)) + b"\x08\x00" + b"payload"
    tagged = with_vlan_tag(TCP_SEGMENT + frame, 0x8100, 0x2064)
    assert tagged[10:] == bytes(range(12)) + b"\x81\x00\x20\x64" + b"\x08\x00" + b"payload"
    assert delay_line._VNET_HEADER.unpack(tagged[:10]) == (1, 1, 70, 1448, 38, 16)


def test_a_vlan_tag_leaves_an_empty_header_empty() -> None:
    assert with_vlan_tag(packet(1), 0x88A8, 7)[:10] == NO_OFFLOAD


# -- the program -----------------------------------------------------------------------------------


def test_the_program_imports_the_standard_library_alone() -> None:
    """Isolated and without site-packages, as it is started for every link."""
    program = [sys.executable, "-I", "-S", delay_line.__file__]
    arguments = [*program, "no-such-if0", "no-such-if1"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("delay_line: no-such-if0 - no-such-if1: ")
    assert "Traceback" not in done.stderr


CONDITIONS = st.builds(
    lambda rate, delay, share, loss: LinkConditions(
        rate_bits_per_second=rate,
        delay_ms=delay,
        jitter_ms=None if delay is None else delay * share,
        loss_ratio=loss,
    ),
    st.none() | st.floats(8e3, 1e12),
    st.none() | st.floats(0, 10_000),
    st.floats(0, 1),
    st.none() | st.floats(0, 1),
)


@given(CONDITIONS, st.none() | CONDITIONS, st.integers(576, 65535))
def test_what_is_asked_for_is_what_the_program_understands(
    asked: LinkConditions, back: LinkConditions | None, mtu: int
) -> None:
    argv = argv_of("s1-eth1", "s1-eth1q", asked, back=back, mtu=mtu)[4:]
    options = delay_line._parser().parse_args(argv)
    understood = [(options, asked)]
    assert (options.back is not None) == (back is not None)
    if back is not None:
        understood.append((delay_line._parser().parse_args(["a", "b", *options.back]), back))
    assert (understood[0][0].a, understood[0][0].b) == ("s1-eth1", "s1-eth1q")
    assert understood[0][0].frame_bytes == mtu + 18
    for got, wanted in understood:
        assert got.delay_ms == pytest.approx(wanted.delay_ms or 0, rel=1e-5, abs=1e-5)
        assert got.jitter_ms == pytest.approx(wanted.jitter_ms or 0, rel=1e-5, abs=1e-5)
        assert got.loss_ratio == pytest.approx(wanted.loss_ratio or 0, rel=1e-5, abs=1e-12)
        assert (got.rate_bits_per_second or 0) == pytest.approx(
            wanted.rate_bits_per_second or 0, rel=1e-5
        )


@given(st.binary(min_size=24, max_size=80), st.integers(0, 65535), st.integers(0, 65535))
def test_any_packet_has_a_size_on_the_wire_and_takes_a_tag(
    data: bytes, protocol: int, tag: int
) -> None:
    assert len(data) - 10 <= bytes_on_wire(data) <= 65535 * 65535
    tagged = with_vlan_tag(data[:2] + bytes(8) + data[10:], protocol, tag)
    assert len(tagged) == len(data) + 4
    assert tagged[10:22] + tagged[26:] == data[10:]
