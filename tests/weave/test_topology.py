"""Who is connected to whom: merging what peers say, and the routes that follow from it."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.weave import gob, names, routes, topology
from xlab.weave.gob import ProtocolError
from xlab.weave.names import PeerName
from xlab.weave.topology import LINK_LIMIT, PEER_LIMIT, Link, Peer, Topology

A, B, C, D, E, F = (names.from_number(0x7A0000000000 + n) for n in range(1, 7))

UP = Link("10.0.0.1:6783", outbound=True, established=True)
DOWN = Link("10.0.0.1:6783", outbound=True, established=False)


def peer(name: PeerName, *links: PeerName, version: int = 1, uid: int = 100, **more: int) -> Peer:
    return Peer(
        name=name,
        nickname=f"h{name[-1]}",
        uid=uid,
        version=version,
        links=dict.fromkeys(links, UP),
        short_id=more.get("short_id"),
    )


def view_of_a(*others: Peer, links: tuple[PeerName, ...] = (B,), **more: int) -> Topology:
    """A's view, connected to `links`, after an update about `others`."""
    view = Topology(peer(A, short_id=more.get("short_id", 1), uid=7), chance=random.Random(1))
    for name in links:
        view.set_link(name, UP)
    view.merge(others)
    return view


# -- which description counts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "told", "news"),
    [
        ((1, 100), (2, 100), True),
        ((2, 100), (1, 100), False),
        ((1, 100), (1, 100), False),
        ((1, 100), (1, 101), True),
        ((1, 101), (1, 100), False),
        ((2, 1), (1, 999), False),
        ((1, 999), (2, 1), True),
    ],
)
def test_the_higher_version_counts_then_the_higher_uid(
    known: tuple[int, int], told: tuple[int, int], news: bool
) -> None:
    view = view_of_a(peer(B, A, version=known[0], uid=known[1]))
    # By its bytes the description that is known would win.
    merged = view.merge([peer(B, version=told[0], uid=told[1])])
    assert merged.news == ({B} if news else set())
    assert merged.described == {B}
    assert (view.peers[B].version, view.peers[B].uid) == (told if news else known)


def test_who_tells_two_routers_different_things_under_one_version_does_not_divide_them() -> None:
    """Routes that follow from different views can send a frame round for ever."""
    views = [
        Topology(peer(name, uid=7, short_id=name[-1]), chance=random.Random(1)) for name in (A, B)
    ]
    words = [peer(C, name, version=100) for name in (A, B)]
    for view, other, said in zip(views, (B, A), words, strict=True):
        view.set_link(other, UP)
        view.set_link(C, UP)
        view.merge([said])
    a, b = views
    news = []
    for _ in range(3):
        news += [b.merge(topology.decode(a.describe(a.peers))).news - {A}]
        news += [a.merge(topology.decode(b.describe(b.peers))).news - {B}]
    assert a.peers == b.peers
    assert a.peers[C] in words
    # One of them has heard something new, once.
    assert sorted(map(set, news), key=len) == [set()] * 5 + [{C}]


def test_a_short_id_is_news_even_at_the_same_version() -> None:
    view = view_of_a(peer(B, A))
    assert view.merge([peer(B, A, short_id=9)]).news == {B}
    assert view.merge([peer(B, A)]).news == set()
    assert view.peers[B].short_id == 9


def test_what_is_told_of_ourselves_is_believed_only_as_a_version_to_beat() -> None:
    view = view_of_a(peer(B, A))
    before = view.ourself
    # Our own words, come back, and earlier ones.
    for words in (before, dataclasses.replace(before, version=before.version - 1, links={})):
        merged = view.merge([words])
        assert (merged.ourself_changed, merged.other_self, view.ourself) == (False, False, before)
    # An earlier life of ours, that got further.
    merged = view.merge([peer(A, C, D, version=40, uid=99)])
    assert merged.ourself_changed
    assert merged.other_self
    assert merged.news == set()
    assert view.ourself == dataclasses.replace(before, version=41)
    # The same once more is no longer worth a word.
    assert not view.merge([peer(A, version=40, uid=99)]).ourself_changed


@pytest.mark.parametrize("ahead", [0, 5])
def test_words_in_our_mouth_are_beaten_though_they_have_our_uid(ahead: int) -> None:
    view = view_of_a(peer(B, A))
    lie = dataclasses.replace(view.ourself, version=view.ourself.version + ahead, links={C: UP})
    assert view.merge([lie]).other_self
    assert view.ourself.version == lie.version + 1
    assert view.ourself.links == {B: UP}


def test_the_highest_version_there_is_does_not_overflow() -> None:
    view = Topology(peer(A, version=(1 << 64) - 2, uid=7), chance=random.Random(1))
    view.set_link(B, UP)
    view.merge([peer(A, version=(1 << 64) - 1, uid=99)])
    view.set_link(C, UP)
    assert view.ourself.version == (1 << 64) - 1
    assert topology.decode(view.describe([A])) == [view.ourself]


@pytest.mark.parametrize("version", [(1 << 64) - 1, 1 << 63, 1 << 40])
def test_nobody_else_has_the_last_word_about_a_peer(version: int) -> None:
    """There is no version above the highest for it to contradict with."""
    view, of_b = view_of_a(peer(B, A, uid=9)), Topology(peer(B, uid=9), chance=random.Random(1))
    of_b.set_link(A, UP)
    lie = peer(B, uid=9, version=version)
    assert view.merge([lie], sender=C).news == set()
    assert not of_b.merge([lie], sender=C).ourself_changed
    assert (view.disbelieved, of_b.disbelieved) == (1, 1)
    # What changes may bring about is believed, and can be contradicted.
    lie = dataclasses.replace(lie, version=of_b.ourself.version + 1000)
    assert view.merge([lie], sender=C).news == {B}
    assert of_b.merge([lie], sender=C).other_self
    view.merge(topology.decode(of_b.describe([B])), sender=C)
    assert view.peers[B] == of_b.ourself


@pytest.mark.parametrize("version", [(1 << 64) - 1, 1 << 63, 1 << 40])
@pytest.mark.parametrize("introduced", [True, False])
def test_a_peer_s_own_words_count_more_than_a_lie_that_came_first(
    version: int, introduced: bool
) -> None:
    view = view_of_a(peer(B, A, C))
    if introduced:
        view.introduce(Peer(C, "h3", uid=9))
    first = view.merge([peer(C, uid=9, version=version)], sender=B)
    assert first.news == ({C} if version <= 1 << 63 else set())
    truth = peer(C, A, B, uid=9, version=3)
    assert view.merge([truth], sender=C).news == {C}
    assert view.merge([peer(C, uid=9, version=version)], sender=B).news == set()
    # Only what is so far apart: what others say may well be newer.
    newer = peer(C, B, uid=9, version=4)
    assert view.merge([newer], sender=B).news == {C}
    assert view.merge([truth], sender=C).news == set()
    assert view.peers[C] == newer


def test_who_has_been_driven_up_step_by_step_is_still_believed_by_newcomers() -> None:
    high = peer(C, B, version=1 << 50)
    assert view_of_a(peer(B, A, C), high).peers[C] == high
    view = view_of_a(peer(B, A, C))
    view.introduce(Peer(C, "h3", uid=100))
    assert view.merge([high], sender=B).news == {C}


def test_each_change_of_ours_is_a_version() -> None:
    view = view_of_a(peer(B, A))
    version = view.ourself.version
    view.set_link(C, DOWN)
    view.set_link(C, UP)
    view.set_link(C, None)
    assert view.ourself.version == version + 3
    assert view.ourself.links == {B: UP}


# -- what is forgotten -----------------------------------------------------------------------------


def test_what_cannot_be_reached_is_forgotten() -> None:
    view = view_of_a(peer(B, A, C), peer(C, B, D), peer(D, C))
    assert view.peers.keys() == {A, B, C, D}
    view.merge([peer(B, A, version=2)])
    assert view.peers.keys() == {A, B}
    view.set_link(B, None)
    assert view.peers.keys() == {A}


def test_news_of_what_cannot_be_reached_is_no_news() -> None:
    view = view_of_a(peer(B, A))
    assert view.merge([peer(C, D), peer(D, C)]).news == set()
    assert view.peers.keys() == {A, B}


def test_a_link_that_one_end_claims_is_enough_to_be_remembered() -> None:
    assert view_of_a(peer(B, A, C), peer(C)).peers.keys() == {A, B, C}


def test_a_liar_cannot_fill_the_memory() -> None:
    many = [names.from_number(0x020000000000 + n) for n in range(1, PEER_LIMIT + 10)]
    view = view_of_a(peer(B, A, *many))
    view.merge([peer(name) for name in many])
    assert len(view.peers) == PEER_LIMIT
    assert view.refused == len(many) - (PEER_LIMIT - 2)

    view = view_of_a(peer(B, A, *many[:100]))
    view.merge([peer(name, *many[:3000]) for name in many[:100]])
    assert sum(len(known.links) for known in view.peers.values()) <= LINK_LIMIT
    assert view.refused > 0


# -- short IDs -------------------------------------------------------------------------------------


def test_of_two_peers_with_one_short_id_the_lower_name_keeps_it() -> None:
    view = Topology(peer(B, short_id=5, uid=7), chance=random.Random(1))
    view.set_link(C, UP)
    assert not view.merge([peer(C, B, short_id=5)]).ourself_changed
    assert view.ourself.short_id == 5
    view.set_link(A, UP)
    version = view.ourself.version
    merged = view.merge([peer(A, B, short_id=5)])
    assert merged.ourself_changed
    assert not merged.other_self
    assert view.ourself.short_id not in (5, None)
    assert view.ourself.version == version + 1


# -- on the wire -----------------------------------------------------------------------------------

#: encoding/gob of Go 1.24, of Weave Net's two structs.
WRITTEN_BY_GO = bytes.fromhex(
    "62ff810301010b7065657253756d6d61727901ff8200010601084e616d6542797465010a0001084e69636b4e616d"
    "65010c000103554944010600010756657273696f6e010600010753686f72744944010600010a48617353686f7274"
    "4944010200000021ff8201067a01020304050102683101f8ffffffffffffffff010301fe0fff0101000dff850201"
    "02ff860001ff8400005bff8303010111636f6e6e656374696f6e53756d6d61727901ff8400010401084e616d6542"
    "797465010a00010d52656d6f746554435041646472010c0001084f7574626f756e64010200010b45737461626c69"
    "73686564010200000039ff86000201067a0102030406010d31302e302e302e323a363738330101010100"
    "01067a0102030409010e31302e302e302e393a3430303030000fff8201067a0102030406020703010004ff860000"
)  # fmt: skip


def test_an_update_is_what_go_writes_to_the_byte() -> None:
    first, second, third = (bytes.fromhex(f"7a01020304{n:02x}") for n in (5, 6, 9))
    peers = [
        Peer(
            name=first,
            nickname="h1",
            uid=(1 << 64) - 1,
            version=3,
            short_id=4095,
            links={
                second: Link("10.0.0.2:6783", outbound=True, established=True),
                third: Link("10.0.0.9:40000", outbound=False, established=False),
            },
        ),
        Peer(name=second, nickname="", uid=7, version=0, short_id=0),
    ]
    assert topology.decode(WRITTEN_BY_GO) == peers
    assert topology.encode(peers) == WRITTEN_BY_GO


_NAMES = st.binary(min_size=6, max_size=6).filter(any)
_LINKS = st.builds(Link, st.text(max_size=30), outbound=st.booleans(), established=st.booleans())
_PEERS = st.builds(
    Peer,
    name=_NAMES,
    nickname=st.text(max_size=30),
    uid=st.integers(1, (1 << 64) - 1),
    version=st.integers(0, (1 << 64) - 1),
    short_id=st.none() | st.integers(0, 4095),
    links=st.dictionaries(_NAMES, _LINKS, max_size=5),
)


@given(st.lists(_PEERS, max_size=4))
def test_any_description_survives(peers: list[Peer]) -> None:
    assert topology.decode(topology.encode(peers)) == peers


@given(
    st.lists(st.tuples(st.integers(0, len(WRITTEN_BY_GO) - 1), st.integers(0, 255)), min_size=1),
    st.lists(_PEERS, max_size=4),
)
def test_damaged_updates_leave_a_topology_that_still_works(
    changes: list[tuple[int, int]], more: list[Peer]
) -> None:
    damaged = bytearray(WRITTEN_BY_GO)
    for place, value in changes:
        damaged[place] = value
    view = view_of_a(peer(B, A, C, D), peer(C, B))
    try:
        view.merge([*topology.decode(bytes(damaged)), *more])
    except ProtocolError:
        return
    assert A in view.peers
    assert view.peers.keys() - {A} <= routes.next_hops(view.every_link(), A).keys()
    dict(routes.calculate(view.established_links(), A).broadcast)
    assert topology.decode(view.describe(view.peers.keys()))


@pytest.mark.parametrize(
    "strange",
    [
        {"name": b"\0" * 6},
        {"name": b"\1\2\3"},
        {"uid": 0},
        {"nickname": "x" * 300},
        {"links": {b"\0" * 6: UP}},
        {"links": {b"\1" * 7: UP}},
        {"links": {B: dataclasses.replace(UP, remote_address="9" * 100)}},
    ],
)
def test_impossible_descriptions_are_left_out_and_the_others_count(
    strange: Mapping[str, object],
) -> None:
    odd = dataclasses.replace(peer(C), **strange)  # type: ignore[arg-type]  # odd on purpose
    assert topology.decode(topology.encode([peer(B, A), odd, peer(D)])) == [peer(B, A), peer(D)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (gob.Basic.STRING, "h1"),
        (gob.Struct("p", (("NameByte", gob.Basic.STRING),)), {"NameByte": "h1"}),
        (gob.Struct("p", (("UID", gob.Basic.STRING),)), {"UID": "1"}),
        (gob.Struct("p", (("UID", gob.Basic.INT),)), {"UID": -1}),
        (gob.Struct("p", (("NickName", gob.Basic.UINT),)), {"NickName": 1}),
    ],
)
def test_other_types_are_a_protocol_error(kind: gob.Type, value: object) -> None:
    encoder = gob.Encoder()
    encoder.encode(kind, value)
    encoder.encode(gob.Slice(gob.Basic.UINT), [])
    with pytest.raises(ProtocolError, match="topology"):
        topology.decode(bytes(encoder.data))


# -- routes ----------------------------------------------------------------------------------------


def symmetric(*edges: tuple[PeerName, PeerName]) -> dict[PeerName, list[PeerName]]:
    graph: dict[PeerName, list[PeerName]] = {}
    for a, b in edges:
        graph.setdefault(a, []).append(b)
        graph.setdefault(b, []).append(a)
    return graph


def test_frames_take_only_links_that_both_ends_call_established() -> None:
    view = Topology(peer(A, uid=7), chance=random.Random(1))
    view.set_link(B, UP)
    view.set_link(C, DOWN)
    view.set_link(D, UP)
    view.merge([peer(B, A), peer(C, A), dataclasses.replace(peer(D), links={A: DOWN}), peer(E, A)])
    assert routes.next_hops(view.established_links(), A) == {B: B}
    assert routes.next_hops(view.every_link(), A).keys() == {B, C, D}


def test_the_way_is_the_shortest_and_among_equals_by_the_lowest_name() -> None:
    #     B ── D
    #   /        \
    # A            F         A to F: three ways of three steps, B and C each have two of them
    #   \        /
    #     C ── E ── B
    graph = symmetric((A, B), (A, C), (B, D), (C, E), (D, F), (E, F), (B, E))
    assert routes.next_hops(graph, A) == {B: B, C: C, D: B, E: B, F: B}
    assert routes.next_hops(graph, F) == {D: D, E: E, B: D, C: E, A: D}


def test_a_broadcast_goes_to_those_whom_its_source_has_not_reached_before_us() -> None:
    triangle = symmetric((A, B), (B, C), (A, C))
    assert routes.calculate(triangle, A).broadcast == {A: [B, C], B: [], C: []}
    chain = symmetric((A, B), (B, C), (C, D))
    assert routes.calculate(chain, B).broadcast == {A: [C], B: [A, C], C: [A], D: [A]}
    square = symmetric((A, B), (B, D), (A, C), (C, D))
    # B comes before C, so D hears A through B.
    assert routes.forward_to(square, A, B) == [D]
    assert routes.forward_to(square, A, C) == []


def test_trees_are_worked_out_for_those_who_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's gossip may describe 4,000 peers: all their trees take every router seconds."""
    asked = []

    def counting(graph: routes.Graph, source: PeerName, ourself: PeerName) -> list[PeerName]:
        asked.append(source)
        return forward_to(graph, source, ourself)

    forward_to = routes.forward_to
    monkeypatch.setattr(routes, "forward_to", counting)
    trees = routes.calculate(symmetric((A, B), (B, C), (C, D)), B).broadcast
    assert asked == []
    assert [trees.get(source) for source in (C, A, C, F)] == [[A], [C], [A], None]
    assert asked == [C, A]
    assert len(trees) == 4


def test_of_the_unreachable_there_is_no_route() -> None:
    graph = symmetric((A, B), (C, D))
    assert routes.calculate(graph, A) == routes.Routes({B: B}, {A: [B], B: []})
    assert routes.forward_to(graph, C, A) == []
    assert routes.forward_to(graph, F, A) == []
    assert routes.calculate({}, A) == routes.Routes({}, {A: []})


_EDGES = st.lists(st.sampled_from(list(itertools.combinations((A, B, C, D, E, F), 2))), max_size=15)


@given(_EDGES)
def test_every_broadcast_reaches_everyone_once(edges: list[tuple[PeerName, PeerName]]) -> None:
    """In any network, with each peer deciding for itself."""
    graph = symmetric(*set(edges))
    for source in graph:
        got: list[PeerName] = [source]
        for member in got:
            got += routes.forward_to(graph, source, member)
        assert sorted(got) == sorted({source, *routes.next_hops(graph, source)})


@given(_EDGES)
def test_every_unicast_arrives(edges: list[tuple[PeerName, PeerName]]) -> None:
    """Hop by hop, each with a next hop of its own choice, and never farther away."""
    graph = symmetric(*set(edges))
    for source in graph:
        for destination in routes.next_hops(graph, source):
            at, steps = source, 0
            while at != destination:
                at = routes.next_hops(graph, at)[destination]
                steps += 1
                assert steps < len(graph)


# -- a description is told many times --------------------------------------------------------------


def test_a_description_heard_again_is_not_taken_apart_again() -> None:
    update = topology.encode([peer(B, A), peer(C, A, B)])
    first = topology.decode(update)
    again = topology.decode(update)
    assert [id(p) for p in again] == [id(p) for p in first]
    # Whoever describes it, and beside whom.
    assert topology.decode(topology.encode([again[1]])) == [first[1]]


def test_of_what_is_remembered_only_so_many_links_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's, each another: a link takes twenty times the room here that it takes there."""
    monkeypatch.setattr(topology, "_REMEMBERED_LINKS", 10, raising=False)

    def remembered(*links: PeerName) -> list[bool]:
        told = [topology.encode([peer(B, *links, version=v)]) for v in range(4)]
        first = [topology.decode(update)[0] for update in told]
        # The last one first: who is forgotten first is who was heard of first.
        return [topology.decode(told[v])[0] is first[v] for v in (3, 2, 1, 0)]

    assert remembered() == [True] * 4
    assert remembered(A, C, D, E) == [True, True, False, False]


def test_what_another_program_means_by_a_number_is_its_own_affair() -> None:
    """Whoever encodes numbers the types: behind other definitions the same bytes differ."""
    update = topology.encode([peer(B, A)])
    assert topology.decode(update) == [peer(B, A)]
    renamed = update.replace(b"NickName", b"NickNome")
    (found,) = topology.decode(renamed)
    assert found.nickname == ""
    assert topology.decode(update) == [peer(B, A)]


def test_an_update_of_more_peers_than_there_can_be_is_refused() -> None:
    message = topology.encode([peer(B, A)])
    values = b"".join(topology.encode([peer(B, A), peer(C, A)])[len(message) :] for _ in range(2))
    assert len(topology.decode(message + values)) == 3
    half = len(values) // 2
    with pytest.raises(ProtocolError, match="more than 4096 peers"):
        topology.decode(message + values[:half] * PEER_LIMIT)


def test_definitions_without_end_are_refused() -> None:
    encoder = gob.Encoder()
    for number in range(200):
        encoder.encode(gob.Struct(f"type{number}" + "x" * 20, (("A", gob.Basic.INT),)), {})
    definitions = b"".join(m for is_one, m in gob.Decoder(bytes(encoder.data)).messages() if is_one)
    with pytest.raises(ProtocolError, match="too many definitions"):
        topology.decode(definitions + topology.encode([peer(B, A)]))
