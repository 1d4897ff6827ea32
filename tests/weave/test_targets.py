"""Whom to dial and when: with clock and chance made up."""

from __future__ import annotations

import itertools
import random
from ipaddress import IPv4Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fake_clock import FakeClock
from tests.support.fuzzing import Refusal, attempt
from xlab.weave import names
from xlab.weave import targets as targets_module
from xlab.weave.targets import Address, Targets, parse_address
from xlab.weave.topology import Link, Peer

A, B, C, D = (names.from_number(0x7A0000000000 + n) for n in range(1, 5))


def at(text: str) -> Address:
    ip, port = parse_address(text)
    return Address(ip, port or 6783)


def targets_of(ourself: bytes = A) -> tuple[Targets, FakeClock]:
    clock = FakeClock()
    return Targets(ourself, port=6783, clock=clock, chance=random.Random(1)), clock


def link(address: str, *, outbound: bool = True) -> Link:
    return Link(address, outbound=outbound, established=True)


# -- addresses -------------------------------------------------------------------------------------


def test_addresses_with_and_without_a_port() -> None:
    assert parse_address("10.0.0.1") == (IPv4Address("10.0.0.1"), None)
    assert parse_address("10.0.0.1:7000") == (IPv4Address("10.0.0.1"), 7000)
    assert str(at("10.0.0.1")) == "10.0.0.1:6783"


@pytest.mark.parametrize(
    "text",
    ["", "h1", "10.0.0", "10.0.0.256", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:-1",
     "10.0.0.1:6783:1", "10.0.0.1:٣", "224.0.0.1", "0.0.0.0", "255.255.255.255", "[::1]:6783"],
)  # fmt: skip
def test_what_nobody_can_be_dialled_at(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an IPv4 address|not a port|no host's address"):
        parse_address(text)


# -- what a person asked for -----------------------------------------------------------------------


def test_attempts_wait_longer_each_time_and_never_longer_than_six_minutes() -> None:
    targets, clock = targets_of()
    targets.add(IPv4Address("10.0.0.9"), None)
    targets.refresh({}, [])
    waits = []
    for _ in range(40):
        due, _ = targets.due({})
        assert due == [at("10.0.0.9")]
        # While it is being tried it is not due.
        assert targets.due({}) == ([], None)
        targets.failed(due[0], "Connection refused")
        due, again_s = targets.due({})
        assert due == []
        assert again_s is not None
        waits.append(again_s - clock.now_s)
        clock.now_s = again_s
    assert 0.1 <= waits[0] <= 0.3
    assert all(later < 3 * 1.5 * earlier for earlier, later in itertools.pairwise(waits))
    assert max(waits) <= 1.5 * 360
    assert min(waits[-10:]) >= 0.5 * 360


def test_what_has_held_for_long_is_dialled_again_at_once() -> None:
    targets, clock = targets_of()
    targets.add(IPv4Address("10.0.0.9"), None)
    targets.refresh({}, [])
    for held_s, at_once in ((61.0, True), (5.0, False)):
        (address,), _ = targets.due({})
        targets.reached(address, B)
        clock.now_s += held_s
        targets.failed(address, "the peer closed the connection")
        targets.refresh({}, [])
        due, again_s = targets.due({})
        assert bool(due) == at_once
        if due:
            targets.failed(due[0], "Connection refused")
            _, again_s = targets.due({})
        assert again_s is not None
        clock.now_s = again_s


def test_a_router_that_is_killed_again_and_again_is_dialled_as_soon_as_the_first_time() -> None:
    targets, clock = targets_of()
    targets.add(IPv4Address("10.0.0.9"), None)
    targets.refresh({}, [])
    for _ in range(10):
        (address,), _ = targets.due({})
        targets.reached(address, B)
        clock.now_s += 3.0
        targets.failed(address, "the peer closed the connection")
        for failures in range(4):
            due, again_s = targets.due({})
            assert due == []
            assert again_s is not None
            assert 0.1 <= (again_s - clock.now_s) / 1.5**failures <= 0.3
            clock.now_s = again_s
            if failures < 3:
                targets.failed(targets.due({})[0][0], "Connection refused")
    # What ends as soon as it is there is no such thing.
    waits = []
    for _ in range(6):
        (address,), _ = targets.due({})
        targets.reached(address, B)
        clock.now_s += 0.1
        targets.failed(address, "not spoken here")
        _, again_s = targets.due({})
        assert again_s is not None
        waits.append(again_s - clock.now_s)
        clock.now_s = again_s
    assert waits[-1] > 0.5


def test_whoever_is_connected_from_there_will_do_unless_a_port_was_given() -> None:
    ours = {B: link("10.0.0.2:40000", outbound=False)}
    targets, _ = targets_of()
    targets.add(IPv4Address("10.0.0.2"), None)
    targets.refresh(ours, [])
    assert targets.due(ours) == ([], None)
    targets.add(IPv4Address("10.0.0.2"), 7000)
    targets.refresh(ours, [])
    assert targets.due(ours) == ([at("10.0.0.2:7000")], None)
    # There we meet the same peer: the second connection is given up, and not tried again.
    targets.failed(at("10.0.0.2:7000"), "multiple connections", peer=B)
    assert targets.due(ours) == ([], None)
    # Until the first is gone.
    targets.refresh({}, [])
    _, again_s = targets.due({})
    assert again_s is not None


def test_what_is_connected_is_not_dialled() -> None:
    targets, _ = targets_of()
    targets.add(IPv4Address("10.0.0.2"), None)
    ours = {B: link("10.0.0.2:6783")}
    targets.refresh(ours, [])
    assert targets.due(ours) == ([], None)
    assert targets.unconnected == []


def test_ourself_is_tried_once() -> None:
    targets, clock = targets_of()
    targets.add(IPv4Address("10.0.0.1"), None)
    targets.refresh({}, [])
    assert targets.due({}) == ([at("10.0.0.1")], None)
    targets.failed(at("10.0.0.1"), "it is this router itself", peer=A, itself=True)
    clock.now_s += 1e6
    targets.refresh({}, [])
    assert targets.due({}) == ([], None)


def test_what_is_no_longer_wanted_is_not_dialled() -> None:
    targets, _ = targets_of()
    targets.add(IPv4Address("10.0.0.2"), None)
    targets.add(IPv4Address("10.0.0.3"), 7000)
    assert targets.direct == ["10.0.0.2", "10.0.0.3:7000"]
    targets.refresh({}, [])
    targets.due({})
    targets.remove(IPv4Address("10.0.0.2"), None)
    targets.remove(IPv4Address("10.0.0.3"), None)
    targets.refresh({}, [])
    for address in (at("10.0.0.2"), at("10.0.0.3:7000")):
        targets.failed(address, "Connection refused")
    targets.refresh({}, [])
    assert [target.address for target in targets.unconnected] == [at("10.0.0.3:7000")]


# -- what gossip says ------------------------------------------------------------------------------


def test_peers_of_peers_are_dialled_where_they_listen() -> None:
    targets, clock = targets_of()
    ours = {B: link("10.0.0.2:6783")}
    peers = [
        Peer(A, "h1", 1, links=ours),
        Peer(
            B,
            "h2",
            2,
            links={
                A: link("10.0.0.1:40000", outbound=False),
                C: link("10.0.0.3:7000"),
                D: link("10.0.0.4:41000", outbound=False),
            },
        ),
        Peer(C, "h3", 3, links={B: link("nonsense")}),
    ]
    targets.refresh(ours, peers)
    # C was dialled at a port of its own; D has dialled, from a port where nobody listens.
    assert sorted(targets.due(ours)[0]) == [at("10.0.0.3:7000"), at("10.0.0.4:6783")]
    # When they are neighbours of nobody any more, they are forgotten.
    targets.failed(at("10.0.0.3:7000"), "no answer")
    targets.failed(at("10.0.0.4"), "no answer")
    targets.refresh(ours, peers[:1])
    clock.now_s += 1e6
    assert targets.due(ours) == ([], None)


def test_of_two_that_hear_of_each_other_the_lower_name_dials_first() -> None:
    for ourself, other, first_s in ((B, C, 0.0), (C, B, 0.5)):
        targets, clock = targets_of(ourself)
        ours = {A: link("10.0.0.1:6783")}
        peers = [Peer(A, "h1", 1, links={other: link("10.0.0.9:6783")})]
        targets.refresh(ours, peers)
        due, again_s = targets.due(ours)
        assert due == ([] if first_s else [at("10.0.0.9")])
        assert again_s == (clock.now_s + first_s if first_s else None)


def test_only_so_many_are_tried_at_a_time() -> None:
    targets, clock = targets_of()
    links = {names.from_number(0x7B0000000000 + n): link(f"10.1.0.{n}:6783") for n in range(1, 101)}
    peers = [Peer(B, "h2", 2, links=links)]
    targets.refresh({}, peers)
    tried, _ = targets.due({})
    assert len(tried) == 32
    assert targets.due({}) == ([], None)
    clock.now_s += 0.01
    targets.failed(tried[0], "no answer")
    # Its place goes to one that has waited longer.
    (another,), _ = targets.due({})
    assert another not in tried


def test_what_a_person_asked_for_does_not_wait_for_what_gossip_says() -> None:
    """A peer may name thousands of addresses where nobody answers, each for ten seconds."""
    targets, clock = targets_of()
    links = {
        names.from_number(number): link(f"10.1.{number >> 8}.{number & 255}:1")
        for number in range(1, 5000)
    }
    peers = [Peer(B, "h2", 2, links=links)]
    targets.refresh({}, peers)
    clock.now_s += 1.0
    assert len(targets.due({})[0]) == 32
    targets.add(IPv4Address("10.0.0.9"), None)
    targets.refresh({}, peers)
    assert targets.due({}) == ([at("10.0.0.9")], None)
    targets.failed(at("10.0.0.9"), "Connection refused")
    _, again_s = targets.due({})
    assert again_s is not None
    clock.now_s = again_s
    assert targets.due({}) == ([at("10.0.0.9")], None)


# -- whatever gossip and people say ----------------------------------------------------------------


@given(st.ip_addresses(v=4), st.none() | st.integers(1, 65535))
def test_an_address_comes_back_as_it_was_written(ip: IPv4Address, port: int | None) -> None:
    text = f"{ip}:{port}" if port else str(ip)
    found = attempt(lambda: parse_address(text), ValueError)
    if isinstance(found, Refusal):
        assert ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255"
    else:
        assert found == (ip, port)


NOT_QUITE = st.lists(
    st.sampled_from(["10.0.0.9", "256", ".", ":", "6783", "0", "-1", "1", "\u0661", "::1", " "])
).map("".join)


@given(st.text(max_size=30) | NOT_QUITE)
@example("10.0.0.9:\u0661")
@example("10.0.0.9:" + "1" * 5000)
@example("1" * 5000)
@example("10.0.0.09")
def test_any_text_is_an_address_that_can_be_dialled_or_refused(text: str) -> None:
    found = attempt(lambda: parse_address(text), ValueError)
    if not isinstance(found, Refusal):
        ip, port = found
        assert port is None or 0 < port < 65536
        assert f"{ip}:{port}" == text or str(ip) == text or text.startswith(f"{ip}:0")


@given(st.binary(min_size=6, max_size=6).filter(any), st.sampled_from([":", "-"]), st.booleans())
def test_a_name_comes_back_however_it_is_written(name: bytes, between: str, upper: bool) -> None:
    text = name.hex(between)
    assert names.parse(text.upper() if upper else text) == name
    assert names.parse(names.text(name)) == name
    assert names.from_number(names.number(name)) == name


@given(st.text(max_size=20) | st.text("0123456789abF:-", min_size=17, max_size=17))
@example("00:00:00:00:00:00")
@example("\uff11" * 2 + ":11:11:11:11:11")
@example("11:11-11:11:11:11")
def test_any_text_is_a_name_or_refused(text: str) -> None:
    found = attempt(lambda: names.parse(text), ValueError)
    assert isinstance(found, Refusal) or names.valid(found)


WILD_LINKS = st.dictionaries(
    st.sampled_from([A, B, C, D]),
    st.builds(
        Link,
        st.text(max_size=24) | st.ip_addresses(v=4).map(lambda ip: f"{ip}:6783"),
        st.booleans(),
        st.booleans(),
    ),
    max_size=4,
)


@given(st.lists(WILD_LINKS, max_size=4), st.floats(0, 100))
def test_whatever_peers_are_said_to_be_connected_to_little_is_dialled_at_once(
    said: list[dict[bytes, Link]], passed_s: float
) -> None:
    targets, clock = targets_of()
    peers = [
        Peer(name, "h", uid=1, links=links) for name, links in zip((A, B, C, D), said, strict=False)
    ]
    targets.refresh({}, peers)
    clock.now_s += passed_s
    due, ask_again_s = targets.due({})
    assert len(due) == len(set(due)) <= 32
    assert ask_again_s is None or ask_again_s > clock()
    for address in due:
        assert parse_address(str(address)) == (address.ip, address.port)


def test_gossip_that_names_many_addresses_is_remembered_in_part() -> None:
    targets, _ = targets_of()
    links = {
        names.from_number(number): link(f"10.0.{number >> 8}.{number & 255}:1")
        for number in range(1, 9000)
    }
    targets.refresh({}, [Peer(B, "h", uid=1, links=links)])
    assert len(targets.unconnected) == 4096


def test_who_claims_many_links_does_not_keep_out_the_others() -> None:
    targets, _ = targets_of()
    links = {
        names.from_number(number): link(f"10.0.{number >> 8}.{number & 255}:1")
        for number in range(1, 9000)
    }
    honest = {D: link("10.9.9.9:6783")}
    targets.refresh({}, [Peer(B, "h", uid=1, links=links), Peer(C, "h", uid=1, links=honest)])
    assert at("10.9.9.9") in {target.address for target in targets.unconnected}


@pytest.mark.parametrize(
    ("address", "outbound", "most"),
    [
        ("10.0.0.9:6783", True, 1),
        # The port that a peer has dialled from is its own affair.
        ("10.0.0.9:{}", False, 1),
        ("10.0.0.9:{}", True, 4096),
        ("nonsense {}", True, 4096),
    ],
)
def test_links_without_end_are_not_all_read(
    address: str, outbound: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200,000 can be claimed: reading them all takes two seconds, in which no frames move."""
    texts = []

    def counting(text: str) -> tuple[IPv4Address, int | None]:
        texts.append(text)
        return parse_address(text)

    monkeypatch.setattr(targets_module, "parse_address", counting)
    targets, _ = targets_of()
    links = {
        names.from_number(number): link(address.format(number), outbound=outbound)
        for number in range(1, 9000)
    }
    targets.refresh({}, [Peer(B, "h", uid=1, links=links)])
    assert len(texts) == most
