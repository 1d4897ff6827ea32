"""Whole routers in a world without sockets and real time: meshes form, break and heal."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.weave_world import HEARD, Member, Wire, World, accept_stranger
from xlab.weave import gob, messages, names, status, topology
from xlab.weave.connection import DEAD_AFTER_S, HANDSHAKE_S, HEARTBEAT_S, Connection
from xlab.weave.messages import Features, GossipMessage, Tag
from xlab.weave.names import PeerName
from xlab.weave.topology import Link, Peer


def chain(world: World, count: int) -> list[Member]:
    """Routers, each told to connect to the one before it."""
    members = world.routers(count)
    for before, member in itertools.pairwise(members):
        member.control.connect([before.host])
    return members


def mesh(world: World, count: int) -> list[Member]:
    members = chain(world, count)
    world.run(3.0)
    assert all(fully_meshed(members))
    return members


def fully_meshed(members: list[Member]) -> list[bool]:
    everyone = {member.name for member in members}
    return [
        member.established == everyone - {member.name}
        and member.overlay.unicast == {name: name for name in everyone - {member.name}}
        for member in members
    ]


def stranger_features(name: str = "7a:00:00:00:00:77", **changes: Any) -> Features:
    features = Features(
        name=names.parse(name),
        nickname="stranger",
        uid=4711,
        connection_id=1,
        short_id=77,
        overlays=("sleeve",),
    )
    return dataclasses.replace(features, **changes)


def introduce_stranger(member: Member, features: Features | None = None) -> Wire:
    """A peer that the test plays, past its handshake."""
    wire = accept_stranger(member)
    greeting = b"weave\1\2\0" + messages.frame((features or stranger_features()).encode())
    wire.write(greeting)
    member.world.settle()
    return wire


def frames(wire: Wire) -> list[bytes]:
    """Messages that have come since the last look."""
    stream, wire.kept = bytes(wire.kept), bytearray()
    stream = stream.removeprefix(b"weave\1\2\0")
    found = []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        found.append(stream[4 : 4 + length])
        stream = stream[4 + length :]
    return found


# -- two peers -------------------------------------------------------------------------------------


def test_two_routers_meet_and_agree_on_everything() -> None:
    world = World()
    a, b = chain(world, 2)
    world.run(1.0)
    assert (a.established, b.established) == ({b.name}, {a.name})
    here, there = a.overlay.peers[b.name], b.overlay.peers[a.name]
    assert here.uid == there.uid != 0
    # Who dialled knows where the other is; the other learns it from the first datagram.
    assert there.remote == ("10.0.0.1", 6783)
    assert here.remote is None
    assert a.control.topology.peers == b.control.topology.peers
    assert a.overlay.broadcast == {a.name: [b.name], b.name: []}
    assert a.log == b.log == []


def test_silence_of_the_overlay_leaves_a_connection_pending() -> None:
    world = World()
    a, b = world.routers(2)
    a.overlay.deaf_to.add(b.name)
    b.control.connect([a.host])
    world.run(5.0)
    # a hears nothing of b, so b is not told so; a has been told.
    assert (a.established, b.established) == ({b.name}, set())
    assert a.overlay.unicast == b.overlay.unicast == {}
    assert "pending" in status.connections(b.control)


def test_both_may_dial_at_the_same_moment_and_one_connection_stays() -> None:
    for seed in range(20):
        world = World(seed)
        a, b = world.routers(2)
        a.control.connect([b.host])
        b.control.connect([a.host])
        world.run(120.0)
        ours, theirs = a.control.neighbours[b.name], b.control.neighbours[a.name]
        assert ours.uid == theirs.uid
        assert ours.outbound != theirs.outbound
        assert a.established == {b.name}
        assert a.log == b.log == []
        # The loser of the two is not dialled again and again.
        assert len(a.dialled) == len(b.dialled) == 1


def test_of_two_connections_that_with_the_lower_uid_stays() -> None:
    survivors = set()
    for seed in range(10):
        world = World(seed)
        (a,) = world.routers(1)
        ends = [introduce_stranger(a, stranger_features(connection_id=n)) for n in (5, 9)]
        # The first message back are our features, with our half of the connection's UID.
        halves = [messages.parse_features(frames(wire)[0]).connection_id for wire in ends]
        uids = [halves[0] ^ 5, halves[1] ^ 9]
        # Each end hangs up on the same one; we wait for the peer to do so with what carries frames.
        ends[uids.index(max(uids))].close()
        world.settle()
        (survivor,) = a.control.neighbours.values()
        assert survivor.uid == min(uids) == a.overlay.peers[stranger_features().name].uid
        closed = [wire.far.closed for wire in ends if wire.far]
        assert closed == [uid != min(uids) for uid in uids]
        assert a.control.counters["duplicates"] == 1
        assert a.log == []
        survivors.add(closed.index(False))
    assert survivors == {0, 1}


def test_a_restarted_peer_takes_the_place_of_its_former_life() -> None:
    world = World()
    a, b, c = mesh(world, 3)
    power_cut(world, b)
    version = b.control.topology.ourself.version
    reborn = world.router("h2", name=b.name, ip=2)
    reborn.control.connect([a.host])
    world.run(5.0)
    assert "the peer was restarted" in a.log[0]
    assert all(fully_meshed([a, reborn, c]))
    for member in (a, c):
        assert member.control.topology.peers[b.name].uid == reborn.control.topology.ourself.uid
        assert member.control.topology.peers[b.name].version > version


def power_cut(world: World, member: Member) -> None:
    """The host is gone without a goodbye."""
    for connection in member.control.neighbours.values():
        wire = member.streams[connection]
        assert wire.far is not None
        wire.cut = wire.far.cut = True
    member.stop()


def test_a_restarted_host_is_back_within_a_second_and_a_half() -> None:
    for seed in range(10):
        world = World(seed)
        a, b, c = mesh(world, 3)
        power_cut(world, b)
        reborn = world.router("h2", name=b.name, ip=2)
        reborn.control.connect([a.host])
        world.run(1.5)
        assert all(fully_meshed([a, reborn, c]))


def impostors(former: Connection) -> dict[str, Features]:
    """Who would be in the place of a peer: another life of it, or that very life as gossip told of
    it, with the connection of a UID that is lower than any."""
    assert former.peer is not None
    named = dataclasses.replace(stranger_features(), name=former.peer.name)
    return {"another life": named, "that life": dataclasses.replace(named, uid=former.peer.uid)}


@pytest.mark.parametrize("life", ["another life", "that life"])
def test_a_living_connection_yields_to_nobody_who_says_its_name(life: str) -> None:
    world = World()
    a, b = mesh(world, 2)
    former = a.control.neighbours[b.name]
    wire = a.streams[former]
    before = wire.written
    crowd = []
    for _ in range(200):
        stranger = accept_stranger(a)
        stranger.write(b"weave\1\2\0")
        world.settle()
        (greeting,) = frames(stranger)
        half = messages.parse_features(greeting).connection_id
        features = dataclasses.replace(impostors(former)[life], connection_id=half)
        stranger.write(messages.frame(features.encode()) + messages.frame(b"\4garbage"))
        crowd.append(stranger)
        world.run(0.1)
        assert a.control.neighbours == {b.name: former}
        assert all(fully_meshed([a, b]))
    world.run(2.0)
    assert all(stranger.far is not None and stranger.far.closed for stranger in crowd)
    # It is asked once a second at most: 5 bytes.
    assert 15 <= (wire.written - before) / 5 <= 25
    assert b.log == []
    says = f"another router has this name, at {former.remote}"
    assert [line.endswith(says) for line in a.log] == [True] * (20 if "other" in life else 0)


def test_a_peer_that_prefers_its_new_connection_has_it_at_once() -> None:
    """As the original router does: it hangs up on the former, and speaks on the new one."""
    world = World(3)
    (a,) = world.routers(1)
    former = introduce_stranger(a, stranger_features(connection_id=1))
    uid = next(iter(a.control.neighbours.values())).uid
    lower = accept_stranger(a)
    lower.write(b"weave\1\2\0")
    world.settle()
    half = messages.parse_features(frames(lower)[0]).connection_id
    features = stranger_features(connection_id=half ^ (uid - 1))
    told = messages.frame(messages.overlay_control(0, HEARD, b""))
    lower.write(messages.frame(features.encode()) + told)
    lower.write(told)
    world.settle()
    assert a.established == set()
    former.close()
    world.run(0.0)
    (connection,) = a.control.neighbours.values()
    assert connection.uid == uid - 1
    # What was said while it waited is heard now.
    assert a.established == {stranger_features().name}
    assert a.overlay.controls == [(stranger_features().name, HEARD, b"")] * 2
    assert a.log == []


def test_a_connection_that_is_dead_makes_room_for_its_peers_next_whatever_the_uids() -> None:
    """One end has given the connection up, and the other does not know: half of all UIDs lose."""
    for seed in range(10):
        world = World(seed)
        a, b = chain(world, 2)
        world.run(1.0)
        for end, other in ((a, b), (b, a)):
            end.wire_to(other).cut = True
        b.control.disconnected(b.control.neighbours[a.name], "Connection timed out")
        world.run(3.0)
        assert all(fully_meshed([a, b]))


# -- meshes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 5, 12])
def test_a_chain_becomes_a_mesh(count: int) -> None:
    world = World()
    members = chain(world, count)
    world.run(2.0)
    assert all(fully_meshed(members))
    assert [member.log for member in members] == [[]] * count
    for member in members:
        assert member.overlay.broadcast[member.name] == sorted(
            m.name for m in members if m is not member
        )
        assert {m.name for m in members} == member.control.topology.peers.keys()


def test_a_mesh_at_rest_only_beats_and_gossips_now_and_then() -> None:
    world = World()
    members = mesh(world, 4)
    world.run(60.0)
    before = [(wire, wire.written) for m in members for wire in m.streams.values()]
    versions = [member.control.topology.ourself.version for member in members]
    world.run(3600.0)
    assert versions == [member.control.topology.ourself.version for member in members]
    assert all(fully_meshed(members))
    # An hour has 120 heartbeats of 5 bytes and 120 rounds of gossip of less than 2 KB.
    assert all(0 < wire.written - written < 120 * 2100 for wire, written in before)


def test_a_router_that_stops_is_forgotten_by_all() -> None:
    world = World()
    members = mesh(world, 4)
    members[1].stop()
    world.run(1.0)
    rest = [members[0], *members[2:]]
    assert all(fully_meshed(rest))
    assert members[1].name not in rest[0].control.topology.peers
    # Only the one that was told to connect to it goes on trying.
    world.run(100.0)
    dialling = [bool(m.control.targets.unconnected) for m in rest]
    assert dialling == [False, True, False]


def test_where_two_cannot_meet_the_third_passes_on() -> None:
    world = World()
    a, b, c, d = world.routers(4)
    world.block(a, c)
    world.block(a, d)
    for member in (a, c, d):
        member.control.connect([b.host])
    world.run(5.0)
    assert a.overlay.unicast == {b.name: b.name, c.name: b.name, d.name: b.name}
    assert c.overlay.unicast == {a.name: b.name, b.name: b.name, d.name: d.name}
    assert b.overlay.broadcast == {
        a.name: [c.name, d.name],
        b.name: [a.name, c.name, d.name],
        c.name: [a.name],
        d.name: [a.name],
    }
    assert c.overlay.broadcast[d.name] == []
    # They go on trying, and find each other when it is possible.
    world.unblock(a, c)
    world.run(400.0)
    assert a.overlay.unicast[c.name] == c.name


def test_a_cut_link_is_noticed_and_gone_around() -> None:
    world = World()
    a, b, c = mesh(world, 3)
    world.block(a, c)
    a.wire_to(c).cut = c.wire_to(a).cut = True
    world.run(DEAD_AFTER_S + 5.0)
    assert a.overlay.unicast == {b.name: b.name, c.name: b.name}
    assert c.overlay.unicast == {a.name: b.name, b.name: b.name}
    assert "nothing heard from the peer for 60 s" in a.log[0]
    assert "(h3)" in a.log[0]


def test_heartbeats_keep_a_connection_and_their_absence_ends_it() -> None:
    world = World()
    (a,) = world.routers(1)
    wire = introduce_stranger(a)
    frames(wire)
    for _ in range(10):
        world.run(50.0)
        wire.write(messages.frame(bytes([Tag.HEARTBEAT])))
        world.settle()
    assert frames(wire).count(b"\0") == 500 // HEARTBEAT_S
    world.run(DEAD_AFTER_S - 1.0)
    assert len(a.control.neighbours) == 1
    world.run(1.0)
    assert a.control.neighbours == {}
    assert a.overlay.peers == {}


def test_an_overlay_that_gives_up_ends_the_connection_and_it_is_dialled_again() -> None:
    world = World()
    a, b = chain(world, 2)
    world.run(1.0)
    first = b.control.neighbours[a.name]
    b.overlay.peers[a.name].on_dead("no heartbeat over UDP for 60 s")
    world.run(2.0)
    assert first.closed
    assert b.log == ["10.0.0.1:6783 7a:00:00:00:00:01(h1): sleeve: no heartbeat over UDP for 60 s"]
    assert b.control.neighbours[a.name] is not first
    assert all(fully_meshed([a, b]))


def test_what_an_overlay_says_of_a_connection_that_is_gone_is_not_heard() -> None:
    world = World()
    a, b = chain(world, 2)
    world.run(1.0)
    dead = b.overlay.peers[a.name].on_dead
    b.control.neighbours[a.name].close()
    a.stop()
    world.run(1.0)
    dead("too late")
    world.run(1.0)
    assert not any("too late" in line for line in b.log)


# -- who is not admitted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"overlays": ("fastdp",)}, "no common overlay: sleeve here, there fastdp"),
        ({"overlays": ()}, "no common overlay: sleeve here, there none"),
        ({"name": "7a:00:00:00:00:01"}, "another router has this router's name"),
    ],
)
def test_a_peer_that_does_not_fit_is_told_off(features: dict[str, Any], reason: str) -> None:
    world = World()
    (a,) = world.routers(1)
    wire = introduce_stranger(a, stranger_features(**features))
    assert wire.far is not None
    assert wire.far.closed
    assert len(a.log) == 1
    assert a.log[0].endswith(reason)
    assert a.log[0].startswith("10.0.9.9:50000 ")
    assert a.control.neighbours == {}
    assert a.overlay.peers == {}


def test_a_router_that_dials_itself_sees_it_and_stops() -> None:
    world = World()
    (a,) = world.routers(1)
    a.control.connect([a.host])
    world.run(1000.0)
    assert len(a.dialled) == 1
    assert a.control.neighbours == {}
    assert a.log == []
    assert "it is this router itself, retry: never" in status.connections(a.control)


def test_a_peer_that_had_our_name_for_a_while_is_met_under_its_own() -> None:
    """As when a host was cloned, and its router is restarted with a name of its own."""
    world = World()
    a = world.router("h1")
    twin = world.router("clone", name=a.name, ip=2)
    a.control.connect([twin.host])
    world.run(10.0)
    assert any(line.endswith("another router has this router's name") for line in a.log)
    assert "retry: never" not in status.connections(a.control)
    # It is not knocked at all the time.
    assert 2 < len(a.dialled) < 15
    twin.stop()
    b = world.router("h2", ip=2)
    world.run(60.0)
    assert a.established == {b.name}


def test_encryption_is_refused_in_words() -> None:
    world = World()
    (a,) = world.routers(1)
    wire = accept_stranger(a)
    wire.write(b"weave\1\2\1" + bytes(32))
    world.settle()
    assert a.log == [
        "10.0.9.9:50000: the peer has a password and wants encryption; this router has none"
    ]
    assert a.control.counters["protocol_errors"] == 1


def test_who_says_nothing_is_hung_up_on() -> None:
    world = World()
    (a,) = world.routers(1)
    wire = accept_stranger(a)
    wire.write(b"weave\1\2")
    world.run(HANDSHAKE_S + 1)
    assert wire.far is not None
    assert wire.far.closed
    assert "did not introduce itself within 10 s" in a.log[0]


def test_a_crowd_of_strangers_is_kept_outside() -> None:
    world = World()
    a, b = world.routers(2)
    crowd = [accept_stranger(a, number // 50) for number in range(400)]
    world.settle()
    refused = [wire for wire in crowd if wire.far is not None and wire.far.closed]
    assert a.control.counters["refused_strangers"] == len(refused) == 400 - 256
    # When they have had their time, there is room again.
    world.run(HANDSHAKE_S + 1)
    b.control.connect([a.host])
    world.run(1.0)
    assert all(fully_meshed([a, b]))


def test_one_address_cannot_keep_the_others_out() -> None:
    """Whatever it says, and whether it says anything: under a new name each time."""
    world = World()
    a, b = world.routers(2)
    for number in range(1200):
        wire = accept_stranger(a)
        features = stranger_features(f"7b:00:00:00:{number >> 8:02x}:{number & 255:02x}")
        if number < 60:
            wire.write(b"weave\1\2\0" + messages.frame(features.encode()))
        world.settle()
    assert (len(a.control.neighbours), a.control.counters["accepted"]) == (60, 64)
    b.control.connect([a.host])
    world.run(1.0)
    assert b.established == {a.name}
    # Who hangs up makes room for others of that address.
    for connection in list(a.control.neighbours.values()):
        if connection.peer and connection.peer.nickname == "stranger":
            a.control.disconnected(connection, "the peer has hung up")
    world.run(HANDSHAKE_S + 1)
    assert all(fully_meshed([a, b]))
    assert introduce_stranger(a).kept
    assert len(a.control.neighbours) == 2


# -- overlays --------------------------------------------------------------------------------------


def test_control_messages_name_the_overlay_in_the_diallers_order() -> None:
    world = World()
    a = world.router("h1", overlays=("sleeve", "fastdp"))
    wire = introduce_stranger(a, stranger_features(overlays=("fastdp", "sleeve")))
    assert messages.overlay_control(1, HEARD, b"") in frames(wire)
    wire.write(messages.frame(messages.overlay_control(0, 9, b"not for sleeve")))
    wire.write(messages.frame(messages.overlay_control(1, 3, b"\x05\x9e")))
    world.settle()
    assert a.overlay.controls == [(stranger_features().name, 3, b"\x05\x9e")]
    assert a.control.counters["control_of_other_overlays"] == 1


# -- channels that are not ours --------------------------------------------------------------------


def send_gossip(wire: Wire, tag: Tag, message: GossipMessage) -> None:
    wire.write(messages.frame(bytes([tag]) + message.encode()))
    wire.world.settle()


def heard(wire: Wire, channel: str) -> list[tuple[int, GossipMessage]]:
    found = [(m[0], m[1:]) for m in frames(wire) if m[:1] and m[0] in {4, 5, 6}]
    parsed = [(tag, messages.parse_gossip(tag, body)) for tag, body in found]
    return [(tag, message) for tag, message in parsed if message.channel == channel]


def test_foreign_channels_are_passed_on() -> None:
    """IPAM's messages go through a router that knows nothing of IPAM."""
    world = World()
    (a,) = world.routers(1)
    left = introduce_stranger(a, stranger_features("7a:00:00:00:00:71", uid=71))
    right = introduce_stranger(a, stranger_features("7a:00:00:00:00:72", uid=72))
    world.run(1.0)
    frames(left), frames(right)
    name, other = names.parse("7a:00:00:00:00:71"), names.parse("7a:00:00:00:00:72")
    for uid, wire, own in ((71, left, name), (72, right, other)):
        own_view = Peer(own, "s", uid, 5, links={a.name: Link("10.0.0.1:6783", True, True)})
        update = GossipMessage("topology", own, topology.encode([own_view]))
        send_gossip(wire, Tag.GOSSIP_BROADCAST, update)
    frames(left), frames(right)

    broadcast = GossipMessage("IPallocation", name, b"ring")
    send_gossip(left, Tag.GOSSIP_BROADCAST, broadcast)
    assert heard(right, "IPallocation") == [(6, broadcast)]
    assert heard(left, "IPallocation") == []

    gossip = GossipMessage("IPallocation", name, b"all I know")
    send_gossip(left, Tag.GOSSIP, gossip)
    # Gossip goes from neighbour to neighbour, each in its own name, and the same only once.
    passed_on = dataclasses.replace(gossip, source=a.name)
    assert heard(right, "IPallocation") == [(4, passed_on)]
    send_gossip(right, Tag.GOSSIP, dataclasses.replace(gossip, source=other))
    assert heard(left, "IPallocation") == []

    unicast = GossipMessage("IPallocation", name, b"may I have", destination=other)
    send_gossip(left, Tag.GOSSIP_UNICAST, unicast)
    assert heard(right, "IPallocation") == [(5, unicast)]
    to_nobody = dataclasses.replace(unicast, destination=names.parse("7a:00:00:00:00:99"))
    send_gossip(left, Tag.GOSSIP_UNICAST, to_nobody)
    assert a.control.gossip.undeliverable == 1
    assert len(a.control.neighbours) == 2


def test_a_broadcast_reaches_every_router_once_across_a_broken_mesh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ears:
        """Hears what a router receives on a channel that is not its own."""

        def __init__(self, member: Member) -> None:
            self.receive = member.control.gossip.receive
            self.name = member.name
            self.broadcasts: list[PeerName] = []
            self.unicasts: list[PeerName] = []

        def __call__(self, sender: PeerName, tag: int, body: bytes) -> None:
            message = messages.parse_gossip(tag, body)
            if message.channel == "dns":
                if tag == Tag.GOSSIP_BROADCAST:
                    self.broadcasts.append(message.source)
                elif message.destination == self.name:
                    self.unicasts.append(message.source)
            self.receive(sender, tag, body)

    for seed in range(8):
        world = World(seed)
        members = world.routers(7)
        chance = random.Random(seed)
        # A ring, and a few connections across.
        for i, member in enumerate(members):
            for j in range(i + 2, 7 if i else 6):
                if chance.random() < 0.7:
                    world.block(member, members[j])
            member.control.connect([members[(i + 1) % 7].host])
        world.run(30.0)
        ears = [Ears(member) for member in members]
        for member, hearing in zip(members, ears, strict=True):
            monkeypatch.setattr(member.control.gossip, "receive", hearing)
        first = members[0].name
        for member in members:
            gossip = member.control.gossip
            gossip._spread(GossipMessage("dns", member.name, b"from " + member.name))
            unicast = GossipMessage("dns", member.name, b"to the first", destination=first)
            if member.name != first:
                gossip._pass_on(first, unicast.encode(), sender=member.name)
        world.settle()
        for member, hearing in zip(members, ears, strict=True):
            assert sorted(hearing.broadcasts) == sorted(m.name for m in members if m is not member)
        assert sorted(ears[0].unicasts) == sorted(m.name for m in members[1:])


# -- hostile peers ---------------------------------------------------------------------------------


def test_garbage_ends_that_connection_and_no_other() -> None:
    world = World()
    a, b = mesh(world, 2)
    for number, garbage in enumerate((b"\4\xff", b"\6" + bytes(20), b"\7\1", b"\4" + b"\x80" * 50)):
        wire = introduce_stranger(a)
        wire.write(messages.frame(garbage))
        world.run(0.5)
        assert wire.far is not None
        assert wire.far.closed
        assert a.control.counters["protocol_errors"] == number + 1
    assert all(fully_meshed([a, b]))
    assert b.log == []
    assert stranger_features().name not in b.control.topology.peers


def kept_bytes(member: Member) -> int:
    """What a router keeps of messages that are not complete, of closed connections, too."""
    return sum(connection.unfinished_bytes for connection in member.streams)


def test_of_messages_cut_short_nothing_is_kept() -> None:
    """150 peers, one after the other, each hang up in the middle of their longest message."""
    world = World()
    (a,) = world.routers(1)
    for number in range(150):
        wire = introduce_stranger(a, stranger_features(connection_id=number))
        wire.write((10 << 20).to_bytes(4, "big") + bytes(1 << 20))
        world.settle()
        wire.close()
        world.settle()
    assert (len(a.streams), a.control.neighbours) == (150, {})
    assert kept_bytes(a) == 0
    # Nor do timers keep the connections: gossip's regular round is all that is left to happen.
    world.run(0.1)
    assert a.timers.next_at_s() == 1030.0


def test_messages_without_an_end_take_a_bounded_room_together() -> None:
    world = World()
    a, b = mesh(world, 2)
    wires = []
    for number in range(20):
        wires.append(introduce_stranger(a, stranger_features(f"7a:00:00:00:01:{number:02x}")))
        wires[-1].write((10 << 20).to_bytes(4, "big") + bytes((10 << 20) - 1))
        world.run(0.01)
        assert kept_bytes(a) <= 128 << 20
    # Those who have been at it for longest had to go; those who come to an end may stay.
    wires[-1].write(b"\0")
    world.settle()
    gone = [wire.far is None or wire.far.closed for wire in wires]
    assert gone == [True] * 8 + [False] * 12
    assert all(fully_meshed([a, b]))


def test_who_sends_its_message_drop_by_drop_has_not_been_heard() -> None:
    world = World()
    (a,) = world.routers(1)
    wire = introduce_stranger(a)
    wire.write((1000).to_bytes(4, "big"))
    for _ in range(int(DEAD_AFTER_S) + 1):
        wire.write(b"\0")
        world.run(1.0)
    assert a.control.neighbours == {}
    assert "nothing heard from the peer for 60 s" in a.log[0]


def test_a_neighbour_is_not_blamed_for_what_it_passes_on_unread() -> None:
    world = World()
    (a,) = world.routers(1)
    wire = introduce_stranger(a)
    source = names.parse("7a:00:00:00:00:99")
    send_gossip(wire, Tag.GOSSIP_UNICAST, GossipMessage("topology", source, b"?", a.name))
    wire.write(messages.frame(b"\5noise"))
    wire.write(messages.frame(b"\3a tag of old") + messages.frame(b"\x63a tag to come"))
    world.settle()
    assert len(a.control.neighbours) == 1
    assert a.control.gossip.undeliverable == 2
    assert a.control.counters["unknown_tags"] == 2


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.builds(
                lambda tag, body: bytes([tag]) + body,
                st.sampled_from([0, 4, 5, 6, 7]),
                st.binary(max_size=60),
            ),
            st.builds(
                lambda tag, channel, source, payload: (
                    bytes([tag]) + GossipMessage(channel, source, payload, source).encode()
                    if tag == 5
                    else bytes([tag]) + GossipMessage(channel, source, payload).encode()
                ),
                st.sampled_from([4, 5, 6]),
                st.sampled_from(["topology", "IPallocation", ""]),
                st.binary(min_size=6, max_size=6).filter(any),
                st.binary(max_size=60),
            ),
        ),
        max_size=6,
    )
)
def test_whatever_a_peer_says_the_others_stay_connected(said: list[bytes]) -> None:
    world = World()
    a, b = mesh(world, 2)
    wire = introduce_stranger(a)
    for message in said:
        wire.write(messages.frame(message))
    wire.write(b"\xff\xff")
    world.run(2.0)
    assert a.established >= {b.name}
    assert b.established == {a.name}
    status.report(a.control)
    for page in (status.summary, status.connections, status.peers):
        assert page(a.control)


@pytest.mark.parametrize("uid", ["foreign", "ours"])
def test_lies_about_a_router_are_mended_within_a_second_however_many_there_were(uid: str) -> None:
    """As with the original router; waiting for the regular round takes 15 s."""
    world = World()
    a, b = mesh(world, 2)
    wire = introduce_stranger(b)
    liar = stranger_features().name
    world.run(1.0)

    def lie() -> None:
        known = b.control.topology.peers[a.name]
        false = dataclasses.replace(
            known, version=known.version + 1, links={}, uid=4711 if uid == "foreign" else known.uid
        )
        send_gossip(wire, Tag.GOSSIP, GossipMessage("topology", liar, topology.encode([false])))
        world.run(0.1)

    before = sum(w.written for w in a.streams.values())
    for _ in range(100):
        lie()
    assert b.control.topology.peers[a.name].links == {}
    world.run(1.0)
    assert b.control.topology.peers[a.name].links.keys() == {b.name}
    assert b.overlay.unicast[a.name] == a.name
    # Once a second, not once a lie.
    assert a.control.counters["other_self"] == 100
    assert (sum(w.written for w in a.streams.values()) - before) / 11 < 1.5 * len(
        a.control.topology.describe([a.name])
    )


def test_two_living_routers_of_one_name_do_not_shout_each_other_down() -> None:
    world = World()
    a, b = world.routers(2)
    twin = world.router("twin", name=a.name, ip=9)
    c = world.router("h3", ip=3)
    world.block(a, c)
    world.block(b, twin)
    b.control.connect([a.host])
    c.control.connect([b.host, twin.host])
    world.run(300.0)
    # Both live on; what the others know of that name is now of the one, now of the other.
    assert a.established == {b.name}
    assert twin.established == {c.name}
    assert any("another router has this router's name" in line for line in a.log + twin.log)
    before = sum(wire.written for wire in b.streams.values())
    world.run(100.0)
    assert sum(wire.written for wire in b.streams.values()) - before < 20_000


# -- what people ask for ---------------------------------------------------------------------------


def test_attempts_become_rare_and_a_person_can_ask_for_one_now() -> None:
    world = World()
    (a,) = world.routers(1)
    a.control.connect([World().router("far", ip=50).host])
    world.run(3600.0)
    tries = len(a.dialled)
    assert 15 < tries < 60
    (target,) = a.control.targets.unconnected
    assert target.error == "Connection refused"
    assert "failed" in status.connections(a.control)
    a.control.connect([World().router("far", ip=50).host])
    world.run(0.01)
    assert len(a.dialled) == tries + 1


def test_between_two_looks_at_whom_to_dial_there_is_as_long_a_pause_as_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gossip of many links makes it take long, and may change without pause."""
    world = World()
    (a,) = world.routers(1)
    control = a.control
    times: list[float] = []

    def refresh(*_: object) -> None:
        times.append(world.now_s)
        world.now_s += 2.0
        times.append(world.now_s)

    monkeypatch.setattr(control.targets, "refresh", refresh)
    for _ in range(100):
        control._targets_changed()
        world.now_s = max(world.now_s, a.timers.next_at_s() or 0.0)
        a.timers.run()
    assert len(times) > 10
    assert all(later - end >= 1.99 for end, later in zip(times[1::2], times[2::2], strict=False))


def test_who_is_forgotten_is_not_dialled_any_more() -> None:
    world = World()
    a, b = world.routers(2)
    a.control.connect([b.host])
    world.run(1.0)
    a.control.forget([b.host])
    assert all(fully_meshed([a, b]))
    b.stop()
    world.run(100.0)
    assert len(a.dialled) == 1
    assert status.targets(a.control) == ""


def test_a_stranger_found_where_gossip_said_is_dialled_once_and_then_with_patience() -> None:
    """Addresses in gossip may be anything: nobody is dialled in a hurry because of them."""
    world = World()
    (a,) = world.routers(1)
    wire = introduce_stranger(a)
    liar = stranger_features()
    links = {
        names.from_number(0x020000000000 + n): Link(f"10.1.{n // 250}.{n % 250}:80", True, True)
        for n in range(1, 300)
    }
    links[names.from_number(0x030000000000)] = Link("224.0.0.1:6783", True, True)
    links[names.from_number(0x030000000001)] = Link("example:6783", True, True)
    links[names.from_number(0x030000000002)] = Link("10.2.0.1:99999", True, True)
    lie = Peer(liar.name, "liar", liar.uid, 9, links={a.name: Link("10.0.0.1:6783", True, True)})
    lie = dataclasses.replace(lie, links={**lie.links, **links})
    send_gossip(wire, Tag.GOSSIP, GossipMessage("topology", liar.name, topology.encode([lie])))
    for _ in range(60):
        world.run(1.0)
        wire.write(messages.frame(b"\0"))
    assert {address.ip.packed[:2] for address in a.dialled} == {b"\x0a\x01"}
    assert len(a.dialled) < 300 * 15


# -- what lies beneath -----------------------------------------------------------------------------


def test_a_dead_wire_under_a_new_connection_does_not_stop_the_list() -> None:
    """Streams end while the router is writing to all of them."""
    world = World()
    members = mesh(world, 4)
    for member in members[1:]:
        connection = members[0].control.neighbours[member.name]
        members[0].streams[connection].closed = True
    members[0].control.gossip.broadcast([members[0].name])
    world.run(DEAD_AFTER_S + 10)
    assert all(fully_meshed(members))


def test_features_travel_as_gob() -> None:
    """What a router says first is what Weave Net expects to the letter."""
    world = World()
    a = world.router("h1", overlays=("fastdp", "sleeve"))
    wire = accept_stranger(a)
    wire.write(b"weave\1\2\0")
    world.settle()
    (features,) = frames(wire)
    sent = gob.Decoder(features).decode()
    assert sent["Overlays"] == "fastdp sleeve"
    assert sent["Name"] == "7a:00:00:00:00:01"
