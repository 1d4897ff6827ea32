"""Which way frames go, and whether they fit: the overlay's decisions, with times made up."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.weave_packets import ipv4, naive_checksum
from xlab.kernel.packets import checksum
from xlab.weave import forward
from xlab.weave.forward import (
    Decision,
    MacCache,
    PathMtu,
    Switch,
    fragmentation_needed,
    fragments,
    has_df,
    is_ipv4,
    too_large,
)
from xlab.weave.routes import Routes

H1, H2, H3, H4 = (bytes.fromhex(f"7a000000000{n}") for n in (1, 2, 3, 4))
C1, C2, C3 = (bytes.fromhex(f"0242c0a8010{n}") for n in (1, 2, 3))
ALL = b"\xff" * 6
DF, MF = 0x4000, 0x2000


@given(st.binary(min_size=1, max_size=100).filter(any))
def test_the_checksum_is_the_textbook_s(data: bytes) -> None:
    assert checksum(data) == naive_checksum(data)


# -- MAC addresses ---------------------------------------------------------------------------------


def test_addresses_are_forgotten_after_ten_minutes_of_silence() -> None:
    macs = MacCache()
    macs.hear(C1, H1, 0.0)
    assert macs.find(C1, 600.0) == H1
    assert macs.find(C1, 600.1) is None
    macs.hear(C1, H1, 500.0)
    macs.hear(C2, H2, 0.0)
    macs.expire(601.0)
    assert (macs.find(C1, 601.0), len(macs._seen)) == (H1, 1)


def test_an_address_moves_with_its_container() -> None:
    macs = MacCache()
    macs.hear(C1, H1, 0.0)
    macs.hear(C1, H2, 1.0)
    assert macs.find(C1, 1.0) == H2


def test_strangers_cannot_make_us_remember_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MOST_MACS", 2)
    macs = MacCache()
    for mac in (C1, C2, C3):
        macs.hear(mac, H1, 0.0)
    macs.hear(C1, H2, 0.0)
    assert [macs.find(mac, 0.0) for mac in (C1, C2, C3)] == [H2, H1, None]
    assert len(macs._seen) == 2


# -- which way -------------------------------------------------------------------------------------


@pytest.fixture
def switch() -> Switch:
    """h1 between h2 and h3; h4 is behind h3."""
    found = Switch(H1)
    broadcast = {H1: [H2, H3], H2: [H3], H3: [H2], H4: [H2]}
    found.set_routes(Routes({H2: H2, H3: H3, H4: H3}, broadcast))
    return found


def test_what_nobody_knows_goes_to_all(switch: Switch) -> None:
    for destination in (ALL, C2):
        decision = switch.captured(destination, C1, 0.0)
        assert decision == Decision(send=((H2, H2), (H3, H3)), broadcast=True)


def test_a_known_address_gets_its_frames_by_the_route_of_its_peer(switch: Switch) -> None:
    switch.received(H4, H1, C1, C2, 0.0, sender=H3)
    assert switch.captured(C2, C1, 1.0) == Decision(send=((H3, H4),))


def test_an_address_of_our_own_bridge_needs_no_overlay(switch: Switch) -> None:
    switch.captured(ALL, C2, 0.0)
    assert switch.captured(C2, C1, 0.0).dropped == "captured_local"


def test_a_captured_frame_from_another_peer_s_address_is_dropped(switch: Switch) -> None:
    switch.received(H2, H1, ALL, C2, 0.0, sender=H2)
    assert switch.captured(C1, C2, 1.0).dropped == "captured_foreign_source"
    # It stays the other's as long as it is heard there.
    assert switch.macs.find(C2, 1.0) == H2
    assert switch.captured(C1, C2, 601.0).dropped is None


def test_a_frame_from_elsewhere_does_not_take_an_address_that_speaks_here(switch: Switch) -> None:
    """It may come from any container of another host, and would cut ours off for ten minutes."""
    switch.captured(ALL, C1, 0.0)
    for now_s in (0.0, 0.5, 1.0):
        assert switch.received(H2, H1, ALL, C1, now_s, sender=H2).dropped == "received_local_source"
        assert switch.macs.find(C1, now_s) == H1
    assert switch.captured(ALL, C1, 1.0).dropped is None
    # A container that is started elsewhere is silent here, and soon found there.
    assert switch.received(H2, H1, ALL, C1, 2.5, sender=H2).inject
    assert switch.captured(C1, C2, 2.5) == Decision(send=((H2, H2),))


def test_an_address_that_was_ours_before_is_back_when_it_is_silent_elsewhere(
    switch: Switch,
) -> None:
    switch.captured(ALL, C1, 0.0)
    switch.received(H2, H1, ALL, C1, 100.0, sender=H2)
    # Our bridge may send back what we gave it.
    assert switch.captured(ALL, C1, 100.0).dropped == "captured_foreign_source"
    assert switch.captured(ALL, C1, 100.5).dropped == "captured_foreign_source"
    assert switch.captured(ALL, C1, 100.6).dropped is None
    assert switch.macs.find(C1, 100.6) == H1
    # But not if that is long ago: then it may be the echo of another network.
    switch.received(H2, H1, ALL, C1, 110.0, sender=H2)
    switch.received(H2, H1, ALL, C1, 700.0, sender=H2)
    assert switch.captured(ALL, C1, 710.0).dropped == "captured_foreign_source"


def test_spanning_tree_stays_at_home(switch: Switch) -> None:
    group = bytes.fromhex("0180c2000000")
    assert switch.captured(group, C1, 0.0).dropped == "link_local"
    assert switch.captured(bytes.fromhex("01005e000001"), C1, 0.0).broadcast


def test_unicast_for_us_is_injected_and_goes_no_further(switch: Switch) -> None:
    switch.captured(ALL, C1, 0.0)
    assert switch.received(H2, H1, C1, C2, 0.0, sender=H2) == Decision(inject=True)


def test_a_broadcast_is_injected_and_passed_on_along_its_source_s_tree(switch: Switch) -> None:
    decision = switch.received(H4, H1, ALL, C2, 0.0, sender=H3)
    assert decision == Decision(inject=True, send=((H2, H2),), broadcast=True)
    assert switch.received(H2, H1, ALL, C3, 0.0, sender=H2).send == ((H3, H3),)


def test_a_frame_for_another_peer_is_relayed_with_its_peers_kept(switch: Switch) -> None:
    assert switch.received(H2, H4, C2, C1, 0.0, sender=H2) == Decision(send=((H3, H4),))
    # Whose address it is, is learnt only where it arrives.
    assert switch.macs.find(C1, 0.0) is None


def test_nothing_goes_back_to_the_neighbour_that_it_came_from(switch: Switch) -> None:
    """Views differ while the topology changes, and where one router tells two of them lies."""
    assert switch.received(H2, H4, C2, C1, 0.0, sender=H3).dropped == "back_to_sender"
    switch.set_routes(Routes({H2: H2, H3: H3, H4: H3}, {H4: [H2, H3]}))
    decision = switch.received(H4, H1, ALL, C2, 0.0, sender=H3)
    assert decision == Decision(inject=True, send=((H2, H2),), broadcast=True)


@pytest.mark.parametrize(
    ("source", "destination", "reason"),
    [
        (H1, H2, "own_frame_returned"),
        (H1, H1, "own_frame_returned"),
        (H2, b"nobody", "no_route"),
        (b"nobody", H1, "unknown_source_peer"),
    ],
)
def test_impossible_peers(switch: Switch, source: bytes, destination: bytes, reason: str) -> None:
    assert switch.received(source, destination, ALL, C1, 0.0, sender=H2).dropped == reason


def test_a_group_address_is_nobody_s_source(switch: Switch) -> None:
    assert switch.received(H2, H1, C1, ALL, 0.0, sender=H2).dropped == "source_is_group"
    assert switch.captured(C1, ALL, 0.0).dropped == "source_is_group"
    assert not switch.macs._seen


def test_without_neighbours_a_broadcast_is_counted(switch: Switch) -> None:
    switch.set_routes(Routes({}, {}))
    assert switch.captured(ALL, C1, 0.0).dropped == "nobody_to_broadcast_to"


def test_addresses_behind_a_lost_peer_are_forgotten_and_ours_are_not(switch: Switch) -> None:
    switch.captured(ALL, C1, 0.0)
    switch.received(H4, H1, ALL, C2, 0.0, sender=H3)
    switch.set_routes(Routes({H2: H2}, {H1: [H2]}))
    assert switch.captured(C2, C1, 0.0).broadcast
    assert switch.macs.find(C1, 0.0) == H1


# -- path MTU --------------------------------------------------------------------------------------


def search(path: PathMtu, passes: Callable[[int], bool], now_s: float = 0.0) -> tuple[int, float]:
    """Answer probes that pass until the search ends: how many were sent, and when it ended."""
    probes = 0
    while path.deadline_s is not None:
        now_s = max(now_s, path.deadline_s)
        probe = path.due(now_s)
        if probe is not None:
            probes += 1
            if passes(probe):
                path.verify(probe, now_s)
    return probes, now_s


def test_a_path_that_carries_what_the_kernel_says_takes_one_probe() -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    assert (path.effective, path.verified) == (1438, False)
    assert search(path, lambda mtu: mtu <= 1438) == (1, 0.0)
    assert (path.effective, path.verified) == (1438, True)


def test_a_candidate_is_given_up_after_eight_probes_in_2_55_s() -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    times = []
    now_s = 0.0
    while path.effective == 1438:
        assert path.deadline_s is not None
        now_s = path.deadline_s
        if path.due(now_s) == 1438:
            times.append(round(now_s, 3))
    assert times == [0.0, 0.01, 0.03, 0.07, 0.15, 0.31, 0.63, 1.27]
    assert round(now_s, 3) == 2.55
    # From then on, until more is proved, only what passes everywhere.
    assert path.effective == 552


@given(st.integers(552, 1438))
def test_the_search_finds_what_passes(limit: int) -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    probes, _ = search(path, lambda mtu: mtu <= limit)
    assert (path.effective, path.verified) == (limit, True)
    assert probes <= 8 * 11


@given(st.integers(1000, 65536), st.integers(552, 65473))
def test_no_probe_is_taken_for_something_else(underlay: int, limit: int) -> None:
    path = PathMtu()
    path.begin(underlay, 0.0)
    search(path, lambda mtu: mtu <= limit and mtu not in (8, 59987))
    assert path.verified
    assert path.effective <= min(limit, 65473)


def test_old_answers_change_nothing() -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    path.verify(9000, 0.0)
    assert (path.effective, path.verified) == (1438, False)


def test_the_kernel_refusing_a_datagram_lowers_it_at_once() -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    search(path, lambda _: True)
    path.begin(1400, 10.0)
    assert (path.effective, path.verified) == (1338, False)
    # The same news once more, for every datagram that was under way.
    assert path.due(10.0) == 1338
    path.begin(1400, 10.001)
    assert path.deadline_s == pytest.approx(10.010)
    search(path, lambda _: True, 10.0)
    assert (path.effective, path.verified) == (1338, True)


def test_a_wider_path_counts_only_when_proved() -> None:
    path = PathMtu()
    path.begin(1500, 0.0)
    search(path, lambda _: True)
    path.begin(9000, 300.0)
    assert (path.effective, path.verified) == (1438, True)
    search(path, lambda mtu: mtu <= 1438, 300.0)
    assert (path.effective, path.verified) == (1438, True)
    path.begin(9000, 600.0)
    search(path, lambda _: True, 600.0)
    assert path.effective == 8938


def test_a_path_narrower_than_the_floor_is_taken_at_its_word() -> None:
    path = PathMtu()
    path.begin(300, 0.0)
    search(path, lambda mtu: mtu <= 238)
    assert path.effective == 238


# -- frames that do not fit ------------------------------------------------------------------------


def test_what_counts_as_df() -> None:
    assert has_df(ipv4(b"", flags=DF))
    assert not has_df(ipv4(b""))
    assert not has_df(b"\xff" * 12 + b"\x86\xdd" + b"\x60" + b"\xff" * 60)
    # Behind a VLAN tag nothing is looked at.
    assert not is_ipv4(C2 + C1 + b"\x81\x00\x00\x05" + ipv4(b"", flags=DF)[12:])
    assert not is_ipv4(ipv4(b"")[:33])


def test_an_mtu_leaves_out_the_ethernet_header() -> None:
    assert not too_large(bytes(1438 + 14), 1438)
    assert too_large(bytes(1438 + 15), 1438)


def test_the_icmp_error_says_the_mtu_and_quotes_the_packet() -> None:
    frame = ipv4(b"datagram" * 300, flags=DF)
    answer = fragmentation_needed(frame, 1438)
    assert answer is not None
    assert answer[:14] == C1 + C2 + b"\x08\x00"
    ip, icmp = answer[14:34], answer[34:]
    assert (ip[12:16], ip[16:20], ip[9]) == (frame[30:34], frame[26:30], 1)
    assert (naive_checksum(ip), naive_checksum(icmp)) == (0, 0)
    assert int.from_bytes(ip[2:4]) == 20 + len(icmp)
    assert icmp[:2] == b"\x03\x04"
    assert icmp[4:8] == struct.pack("!HH", 0, 1438)
    assert icmp[8:] == frame[14 : 14 + 20 + 8]
    assert not has_df(answer)


@pytest.mark.parametrize(
    "frame",
    [
        ipv4(b"\x03\x01" + bytes(2000), flags=DF, protocol=1),  # about an ICMP error
        ipv4(bytes(2000), flags=DF | 100),  # a later fragment
        ipv4(bytes(2000), flags=DF, destination_mac=ALL),
        ipv4(bytes(2000), flags=DF, destination="224.0.0.1"),
        ipv4(bytes(2000), flags=DF, source="0.0.0.0"),
        ipv4(b"short", flags=DF),
        b"\xff" * 2000,
    ],
)
def test_where_no_error_may_be_sent(frame: bytes) -> None:
    assert fragmentation_needed(frame, 1438) is None


def test_an_echo_request_may_be_answered_with_an_error() -> None:
    assert fragmentation_needed(ipv4(b"\x08\x00" + bytes(2000), flags=DF, protocol=1), 1438)


def reassemble(cut: list[bytes]) -> tuple[bytes, int]:
    """The data of fragments, and the flags of the last: RFC 791, with every header checked."""
    data, flags = b"", MF
    for frame in cut:
        assert flags & MF
        header_bytes = (frame[14] & 15) * 4
        ip = frame[14 : 14 + header_bytes]
        assert naive_checksum(ip) == 0
        assert int.from_bytes(ip[2:4]) == len(frame) - 14
        flags = int.from_bytes(ip[6:8])
        assert (flags & 0x1FFF) * 8 == len(data)
        data += frame[14 + header_bytes :]
    return data, flags & 0xE000


@given(st.binary(min_size=1, max_size=5000), st.integers(68, 1500), st.sampled_from([0, 1, 9]))
def test_fragments_make_the_packet_again(data: bytes, mtu: int, words: int) -> None:
    # No-operation, twice, then one to be copied (stream identifier, RFC 791), then padding.
    options = (b"\x01\x01\x88\x04\x12\x34" + bytes(40))[: words * 4] if words > 1 else b"\x01" * 4
    frame = ipv4(data, options=options if words else b"")
    cut = fragments(frame, mtu)
    assert all(len(f) <= mtu + 14 and is_ipv4(f) for f in cut)
    assert reassemble(cut) == (data, 0)
    if words > 1:
        # The two no-operations and the padding are not copied.
        assert all(f[14] == 0x46 and f[34:38] == b"\x88\x04\x12\x34" for f in cut[1:])
    assert all(f[18:20] == frame[18:20] for f in cut)


def test_a_fragment_may_be_cut_again() -> None:
    middle = fragments(ipv4(bytes(range(256)) * 12), 1000)[1]
    cut = fragments(middle, 500)
    assert [int.from_bytes(f[20:22]) for f in cut] == [
        MF | 976 // 8,
        MF | (976 + 480) // 8,
        MF | (976 + 960) // 8,
    ]
    assert b"".join(f[34:] for f in cut) == middle[34:]


@pytest.mark.parametrize(
    "frame", [b"\xff" * 100, ipv4(bytes(100))[:60], ipv4(bytes(9), flags=8191)]
)
def test_what_cannot_be_fragmented(frame: bytes) -> None:
    assert fragments(frame, 1000) == []
    assert fragments(ipv4(bytes(100)), 27) == []


@given(st.binary(max_size=120), st.integers(0, 2000))
def test_any_frame_can_be_asked_about(data: bytes, mtu: int) -> None:
    for frame in (data, C2 + C1 + b"\x08\x00" + data, C2 + C1 + b"\x08\x00\x4f" + data):
        has_df(frame)
        fragmentation_needed(frame, mtu)
        fragments(frame, mtu)
