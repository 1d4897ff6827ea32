"""The data plane of several peers in one process: UDP over loopback, the bridge played by the test.

    bridge (test) ── socket pair in the TAP's place ── overlay h1 ── UDP 127.0.0.1 ── overlay h2 …

Time is made up.  What waits in a socket is worked off until nobody has anything left, so that
nothing here waits for a time either.
"""

from __future__ import annotations

import dataclasses
import errno
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_clock import FakeClock
from tests.support.weave_packets import (
    ACK,
    C1,
    C2,
    ETHERNET,
    PSH,
    TIMESTAMP,
    Packet,
    as_read,
    ipv4,
)
from xlab.errors import XlabError
from xlab.weave import overlay as overlay_module
from xlab.weave import sleeve
from xlab.weave.fastdp import Admitted
from xlab.weave.overlay import SleeveOverlay
from xlab.weave.routes import Routes
from xlab.weave.sleeve import FragmentationTest, Heartbeat, MtuProbe, Special, encode_special
from xlab.weave.tap import PLAIN, read_vnet_header

ALL = b"\xff" * 6
UID = 0xC0FFEE
DF = 0x4000


def name(number: int) -> bytes:
    return bytes.fromhex("7a00000000") + bytes([number])


class FakeTap:
    """A socket pair that keeps packets apart, as the device does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bridge, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.bridge, self._ours):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.descriptor = self._ours.fileno()

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        return self._ours.recvmsg_into(buffers)[0]

    def write(self, packet: bytes | memoryview) -> int:
        return self._ours.send(packet)

    def close(self) -> None:
        self.bridge.close()
        self._ours.close()


class Peer:
    """One overlay, and what the control plane would know of it."""

    def __init__(self, number: int, clock: FakeClock) -> None:
        self.name = name(number)
        self.overlay = SleeveOverlay(
            name=self.name, tap=f"tap{number}", bind=IPv4Address("127.0.0.1"), clock=clock, port=0
        )
        self.address = self.overlay._udp._socket.getsockname()
        tap: Any = self.overlay._tap
        self.bridge: socket.socket = tap.bridge
        self.events: list[str] = []
        #: Control messages under way: (to whom, subtag, data).
        self.said: list[tuple[bytes, int, bytes]] = []

    def connect(self, other: Peer, *, outbound: bool, uid: int = UID) -> None:
        admitted = Admitted(
            uid,
            remote=other.address if outbound else None,
            send_control=lambda subtag, data: self.said.append((other.name, subtag, data)),
            on_established=lambda: self.events.append(f"established {other.name[-1]}"),
            on_dead=lambda reason: self.events.append(f"dead {other.name[-1]}: {reason}"),
        )
        self.overlay.add(other.name, admitted)

    def send(self, frame: bytes) -> None:
        """The bridge has a complete frame for other hosts."""
        self.bridge.send(PLAIN + frame)

    def received(self) -> list[bytes]:
        """What the bridge was given, virtio headers included."""
        packets = []
        while True:
            try:
                packets.append(self.bridge.recv(1 << 17))
            except BlockingIOError:
                return packets

    def frames(self) -> list[bytes]:
        packets = self.received()
        assert all(packet.startswith(PLAIN) for packet in packets)
        return [packet[len(PLAIN) :] for packet in packets]

    def count(self, reason: str) -> int:
        return self.overlay.counters().get(reason, 0)


class World:
    """Some peers, a chain of neighbours: 1 - 2 - 3."""

    def __init__(self, peers: int) -> None:
        self.clock = FakeClock()
        self.peers = [Peer(number, self.clock) for number in range(1, peers + 1)]
        self.by_name = {peer.name: peer for peer in self.peers}
        for left, right in zip(self.peers, self.peers[1:], strict=False):
            right.connect(left, outbound=False)
            left.connect(right, outbound=True)
        for at, peer in enumerate(self.peers):
            others = [n for n in range(peers) if n != at]
            unicast = {
                self.peers[n].name: self.peers[at + (1 if n > at else -1)].name for n in others
            }
            broadcast = {
                self.peers[n].name: [
                    self.peers[m].name
                    for m in (at - 1, at + 1)
                    if 0 <= m < peers and abs(m - n) > abs(at - n)
                ]
                for n in range(peers)
            }
            peer.overlay.set_routes(Routes(unicast, broadcast))

    def settle(self) -> None:
        """Until nothing is left to be read or said."""
        while True:
            busy = False
            for peer in self.peers:
                for descriptor in select.select(peer.overlay.files(), (), (), 0)[0]:
                    peer.overlay.ready(descriptor)
                    busy = True
                said, peer.said = peer.said, []
                for to, subtag, data in said:
                    self.by_name[to].overlay.control(peer.name, subtag, data)
                    busy = True
            if not busy:
                return

    def pass_time(self, seconds: float) -> None:
        """Let timers run until then, each at its time."""
        end_s = self.clock.now_s + seconds
        while True:
            times = [t for p in self.peers if (t := p.overlay.next_timer()) is not None]
            if min(times) > end_s:
                self.clock.now_s = end_s
                return
            self.clock.now_s = max(self.clock.now_s, min(times))
            for peer in self.peers:
                timer = peer.overlay.next_timer()
                if timer is not None and timer <= self.clock.now_s:
                    peer.overlay.run_timers()
            self.settle()

    def close(self) -> None:
        for peer in self.peers:
            peer.overlay.close()


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_module, "open_device", FakeTap)


@pytest.fixture
def pair() -> Iterator[World]:
    with closing(World(2)) as world:
        world.pass_time(1.0)
        yield world


@pytest.fixture
def chain() -> Iterator[World]:
    with closing(World(3)) as world:
        world.pass_time(1.0)
        yield world


def narrow(peer: Peer, towards: Peer, underlay_mtu: int) -> None:
    """Loopback carries 64 KB; let the search have found less."""
    path = peer.overlay._neighbours[towards.name].path
    path.effective, path.verified, path.deadline_s = underlay_mtu - 62, True, None


def offload(peer: Peer, packet: Packet, gso: int) -> None:
    """The bridge has a segment, for the router to cut."""
    buffer, size, _ = as_read(packet, gso)
    peer.bridge.send(bytes(buffer[:size]))


# -- a connection's life ---------------------------------------------------------------------------


def test_heartbeats_establish_a_connection_and_the_mtu_is_verified(pair: World) -> None:
    h1, h2 = pair.peers
    assert (h1.events, h2.events) == (["established 2"], ["established 1"])
    assert h1.overlay.mtu(h2.name) == h2.overlay.mtu(h1.name) == 65535 - 62


def test_who_was_dialled_learns_the_address_from_the_first_heartbeat() -> None:
    with closing(World(2)) as world:
        h1, h2 = world.peers
        assert h2.overlay._neighbours[h1.name].remote is None
        assert h1.overlay.mtu(h2.name) is None
        world.settle()
        assert h2.overlay._neighbours[h1.name].remote == h1.address
        assert h2.events == ["established 1"]


def test_heartbeats_come_every_half_second_then_every_ten() -> None:
    with closing(World(2)) as world, closing(socket.socket(type=socket.SOCK_DGRAM)) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        h1 = world.peers[0]
        admitted = Admitted(
            9, listener.getsockname(), lambda _subtag, _data: None, lambda: None, lambda _: None
        )
        h1.overlay.add(name(9), admitted)
        times: list[float] = []

        def listen(seconds: float) -> None:
            for _ in range(round(seconds * 2)):
                try:
                    datagram = listener.recv(1 << 16)
                    while datagram != heartbeat(h1.name, name(9), 9):
                        datagram = listener.recv(1 << 16)
                    times.append(world.clock.now_s - 1000)
                except BlockingIOError:
                    pass
                world.pass_time(0.5)

        listen(1.5)
        h1.overlay.control(name(9), sleeve.ESTABLISHED, b"")
        listen(24)
        assert times == [0, 0.5, 1.0, 1.5, 11.5, 21.5]


def test_a_silent_peer_is_dead_after_60_s(pair: World) -> None:
    h1, h2 = pair.peers
    pair.pass_time(300)
    assert h1.events == ["established 2"]
    pair.peers.remove(h2)
    pair.pass_time(61)
    assert h1.events == ["established 2", "dead 2: no heartbeat over UDP for 60 s"]
    assert h1.overlay.mtu(h2.name) is None
    pair.pass_time(200)
    assert len(h1.events) == 2
    h2.overlay.close()


def test_a_peer_may_remove_itself_when_it_hears_that_it_is_dead(pair: World) -> None:
    h1, h2 = pair.peers
    neighbour = h1.overlay._neighbours[h2.name]
    neighbour.admitted = dataclasses.replace(
        neighbour.admitted, on_dead=lambda _: h1.overlay.remove(h2.name)
    )
    pair.peers.remove(h2)
    pair.pass_time(61)
    assert h1.overlay._neighbours == {}
    h2.overlay.close()


def test_a_heartbeat_of_another_connection_counts_for_nothing(pair: World) -> None:
    h1, h2 = pair.peers
    dead_at_s = h1.overlay._neighbours[h2.name].dead_at_s
    pair.pass_time(1)
    stray(h1, heartbeat(h2.name, h1.name, UID + 1))
    pair.settle()
    assert h1.count("heartbeat_of_another_connection") == 1
    assert h1.overlay._neighbours[h2.name].dead_at_s == dead_at_s
    assert h1.overlay._neighbours[h2.name].remote == h2.address


def test_nobody_has_heard_us_whose_address_we_do_not_know() -> None:
    with closing(World(1)) as world:
        h1 = world.peers[0]
        h1.overlay.add(
            name(9),
            Admitted(9, None, lambda *_: None, lambda: h1.events.append(""), lambda _: None),
        )
        h1.overlay.control(name(9), sleeve.ESTABLISHED, b"")
        assert (h1.count("control_unknown"), h1.events) == (1, [])


@pytest.mark.parametrize("outbound", [True, False])
@pytest.mark.parametrize("heartbeats", [0, 1, 2])
@pytest.mark.parametrize("established", [True, False])
def test_what_was_due_is_done_and_the_next_timer_is_later(
    outbound: bool, heartbeats: int, established: bool
) -> None:
    with closing(World(1)) as world, closing(socket.socket(type=socket.SOCK_DGRAM)) as far:
        (h1,) = world.peers
        far.bind(("127.0.0.1", 0))
        remote = far.getsockname() if outbound else None
        h1.overlay.add(
            name(9),
            Admitted(9, remote, lambda *_: None, lambda: None, lambda _: None),
        )
        for _ in range(heartbeats):
            far.sendto(heartbeat(name(9), h1.name, 9), h1.address)
            world.settle()
        if established:
            h1.overlay.control(name(9), sleeve.ESTABLISHED, b"")
        # Whole seconds, and each moment that the overlay itself names.
        for second in range(61):
            world.clock.now_s = max(world.clock.now_s, 1000.0 + second)
            for _ in range(100):
                h1.overlay.run_timers()
                next_s = h1.overlay.next_timer()
                assert next_s is not None
                assert next_s > world.clock.now_s
                if next_s >= 1001.0 + second:
                    break
                world.clock.now_s = next_s
            else:
                pytest.fail("a hundred timers in one second")


def test_a_connection_that_had_to_wait_is_established_at_once_when_it_is_there() -> None:
    with closing(World(2)) as world:
        world.pass_time(1.0)
        h1, h2 = world.peers
        h2.events.clear()
        # h1 is restarted, and dials; h2 has asked its former connection, and gives it up now.
        h1.overlay.remove(h2.name)
        h1.connect(h2, outbound=True, uid=UID + 1)
        world.settle()
        h2.overlay.remove(h1.name)
        h2.connect(h1, outbound=False, uid=UID + 1)
        world.settle()
        assert h2.events == ["established 1"]
        assert h1.events[-1] == "established 2"
        assert h2.overlay._neighbours[h1.name].remote == h1.address


def test_a_peer_is_followed_to_its_new_address(pair: World) -> None:
    h1, h2 = pair.peers
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as moved:
        moved.bind(("127.0.0.1", 0))
        moved.sendto(heartbeat(h2.name, h1.name, UID), h1.address)
        pair.settle()
        h1.send(ipv4(b"hello"))
        pair.settle()
        moved.setblocking(False)
        assert moved.recv(2000) == heartbeat(h1.name, h2.name, UID)
        assert moved.recv(2000).endswith(b"hello")


def test_special_frames_are_answered_on_the_control_connection(pair: World) -> None:
    h1, h2 = pair.peers
    for special in (FragmentationTest(), MtuProbe(1300)):
        stray(h1, special_datagram(h2.name, h1.name, special))
        (descriptor,) = select.select(h1.overlay.files(), (), (), 1)[0]
        h1.overlay.ready(descriptor)
    assert h1.said == [(h2.name, 2, b""), (h2.name, 3, b"\x05\x14")]
    stray(h1, special_datagram(h2.name, name(9), MtuProbe(1300)))
    pair.settle()
    assert h1.count("special_misdirected") == 1


def test_special_frames_from_another_host_are_not_answered(pair: World) -> None:
    """A stranger on the underlay says that it is h2, thousands of times a second."""
    h1, h2 = pair.peers
    for special in (FragmentationTest(), MtuProbe(1300)):
        stray(h1, special_datagram(h2.name, h1.name, special), host="127.0.0.9")
        (descriptor,) = select.select(h1.overlay.files(), (), (), 1)[0]
        h1.overlay.ready(descriptor)
    assert h1.said == []
    assert h1.count("special_from_elsewhere") == 2


def test_control_messages_that_make_no_sense_are_counted(pair: World) -> None:
    h1, h2 = pair.peers
    h1.overlay.control(name(9), sleeve.ESTABLISHED, b"")
    h1.overlay.control(h2.name, 77, b"")
    h1.overlay.control(h2.name, sleeve.MTU_VERIFIED, b"\1")
    assert (h1.count("control_without_connection"), h1.count("control_unknown")) == (1, 2)
    assert h1.events == ["established 2"]


def test_a_port_that_is_taken_is_named(pair: World) -> None:
    port = pair.peers[0].address[1]
    with pytest.raises(XlabError, match=f"UDP 127.0.0.1:{port}: Address already in use"):
        SleeveOverlay(
            name=name(8), tap="tap8", bind=IPv4Address("127.0.0.1"), clock=FakeClock(), port=port
        )


# -- frames ----------------------------------------------------------------------------------------

ARP = ALL + C1 + b"\x08\x06" + bytes(range(46))
VLAN = C2 + C1 + b"\x81\x00\x00\x05\x08\x00" + bytes(range(60))
IPV6 = C2 + C1 + b"\x86\xdd\x60" + bytes(range(100))


def test_frames_of_every_kind_arrive_untouched_and_in_order(pair: World) -> None:
    h1, h2 = pair.peers
    sent = [
        ARP,
        VLAN,
        IPV6,
        ipv4(b"with df", flags=DF),
        ipv4(b"without"),
        ALL + C1 + b"\0\x2a" + bytes(50),
    ]
    for frame in sent:
        h1.send(frame)
    pair.settle()
    # Those with DF go in a datagram of their own.
    assert sorted(h2.frames()) == sorted(sent)
    assert h2.count("datagrams_received") < len(sent) + 10
    h2.send(C1 + C2 + b"\x86\xdd\x60" + bytes(60))
    pair.settle()
    assert len(h1.frames()) == 1


def test_an_unfinished_checksum_is_completed_before_the_wire(pair: World) -> None:
    h1, h2 = pair.peers
    packet = Packet(b"little")
    h1.bridge.send(bytes.fromhex("0100000000002200") + b"\x10\0" + packet.frame(partial=True))
    pair.settle()
    assert h2.frames() == [packet.frame()]


def test_nonsense_from_the_device_is_counted(pair: World) -> None:
    h1, h2 = pair.peers
    h1.bridge.send(PLAIN + b"runt")
    h1.bridge.send(bytes.fromhex("0100000000000090") + b"\x10\0" + Packet(b"x").frame())
    h1.bridge.send(bytes.fromhex("0104000000002200") + b"\x10\0" + Packet(b"x").frame())
    pair.settle()
    assert (h1.count("captured_runt"), h1.count("captured_malformed")) == (1, 2)
    assert h2.frames() == []


def test_a_segment_crosses_whole(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    packet = Packet(bytes(range(256)) * 200, options=TIMESTAMP, flags=ACK | PSH)
    before = h2.count("datagrams_received")
    offload(h1, packet, 1386)
    pair.settle()
    assert h2.count("datagrams_received") - before == 37
    received = h2.received()
    # One call carries no more than 64 KB, of which headers are a part.
    assert len(received) == 1
    assert read_vnet_header(bytearray(received[0])).gso_bytes == 1386
    assert received[0][10:] == packet.frame(partial=True)


def test_what_is_waiting_stays_ahead_of_a_segment(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    first = Packet(b"first", 995).frame()
    h1.send(first)
    offload(h1, Packet(b"x" * 5000), 1386)
    pair.settle()
    received = h2.received()
    assert [received[0], len(received)] == [PLAIN + first, 2]


def test_a_segment_whose_packets_are_too_large_is_answered(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1400)
    h2.send(C1 + C2 + b"\x08\x06" + bytes(46))
    pair.settle()
    h1.frames()
    packet = Packet(b"x" * 5000)
    offload(h1, packet, 1386)
    pair.settle()
    (answer,) = h1.frames()
    assert answer[:14] == C1 + C2 + b"\x08\x00"
    assert answer[34:42] == bytes.fromhex("0304") + answer[36:38] + b"\0\0" + (1338).to_bytes(2)
    assert h2.received() == []
    assert h1.count("too_large_with_df") == 1


def test_a_segment_without_df_is_fragmented_where_it_must(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1000)
    h1.overlay._neighbours[h2.name].fragments_arrive = False
    offload(h1, Packet(b"x" * 3000, df=0), 1386)
    pair.settle()
    frames = h2.frames()
    assert all(len(frame) <= 938 + 14 for frame in frames)
    assert sum(len(frame) - 34 for frame in frames) == 3000 + 3 * 20


@pytest.mark.parametrize("trusted", [True, False])
def test_large_frames_without_df_are_fragmented(pair: World, trusted: bool) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    h1.overlay._neighbours[h2.name].fragments_arrive = trusted
    frame = ipv4(bytes(range(256)) * 16)
    h1.send(frame)
    pair.settle()
    frames = h2.frames()
    if trusted:
        # The underlay's fragments: what arrives is whole.
        assert frames == [frame]
    else:
        assert [len(f) - 14 for f in frames] == [1436, 1436, 1284]
        assert b"".join(f[34:] for f in frames) == frame[34:]


def test_a_large_frame_with_df_is_answered_unless_it_went_to_all(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    frame = ipv4(bytes(1500), flags=DF)
    h1.send(frame)
    pair.settle()
    assert (h1.frames(), h1.count("too_large_with_df")) == ([], 1)
    h2.send(C1 + C2 + b"\x08\x06" + bytes(46))
    pair.settle()
    h1.frames()
    h1.send(frame)
    pair.settle()
    (answer,) = h1.frames()
    assert answer[34:36] == b"\x03\x04"
    assert h1.count("fragmentation_needed_sent") == 1
    assert h2.frames() == []


def test_what_only_the_underlay_can_fragment_is_left_to_it(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    h1.overlay._neighbours[h2.name].fragments_arrive = False
    frame = C2 + C1 + b"\x86\xdd\x60" + bytes(3000)
    h1.send(frame)
    pair.settle()
    assert h2.frames() == [frame]


def test_frames_larger_than_udp_are_counted(pair: World) -> None:
    h1, h2 = pair.peers
    h1.send(C2 + C1 + b"\x86\xdd" + bytes(65500))
    pair.settle()
    assert (h1.count("too_large"), h2.frames()) == (1, [])


def test_small_frames_share_a_datagram(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    before = h2.count("datagrams_received")
    for number in range(40):
        h1.send(ipv4(bytes([number]) * 20, flags=DF))
    pair.settle()
    assert [f[34] for f in h2.frames()] == list(range(40))
    # 20 frames of 14 + 54 bytes go into 1472.
    assert h2.count("datagrams_received") - before == 2


def test_equal_frames_of_a_batch_arrive_as_one_segment(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    for number in range(20):
        h1.send(Packet(bytes([number]) * 1398, 1000 + 1398 * number, number).frame())
    pair.settle()
    (merged,) = h2.received()
    assert merged[64:] == b"".join(bytes([number]) * 1398 for number in range(20))


def test_equal_frames_that_are_no_stream_arrive_one_by_one(pair: World) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)
    sent = [ipv4(bytes([number]) * 1400, flags=DF) for number in range(20)]
    for frame in sent:
        h1.send(frame)
    pair.settle()
    assert h2.frames() == sent


def test_without_segmentation_offload_datagrams_go_one_by_one(
    pair: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1, h2 = pair.peers
    narrow(h1, h2, 1500)

    asked = []

    class NoSegmentation:
        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def sendmsg(self, *_: object) -> int:
            asked.append(1)
            raise OSError(errno.EIO, "no checksum offload")

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.real, attribute)

    monkeypatch.setattr(h1.overlay._udp, "_socket", NoSegmentation(h1.overlay._udp._socket))
    packet = Packet(b"x" * 5000)
    offload(h1, packet, 1386)
    offload(h1, packet, 1386)
    pair.settle()
    assert [len(f) - 54 for f in h2.frames()] == [1386, 1386, 1386, 842] * 2
    # Asked once, and then no more.
    assert asked == [1]


def test_a_path_that_became_narrower_is_noticed_by_sending(
    pair: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1, h2 = pair.peers

    class Narrower:
        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def sendto(self, datagram: bytes, address: tuple[str, int]) -> int:
            if len(datagram) > 1400 - 28:
                raise OSError(errno.EMSGSIZE, "too long")
            return self.real.sendto(datagram, address)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.real, attribute)

    narrow(h1, h2, 1500)
    monkeypatch.setattr(h1.overlay._udp, "_socket", Narrower(h1.overlay._udp._socket))
    asked = []
    monkeypatch.setattr(h1.overlay, "_learn_path", lambda n, _now_s: asked.append(n.peer))
    h1.send(ipv4(bytes(1400), flags=DF))
    pair.settle()
    assert (h1.count("larger_than_path"), asked) == (1, [h2.name])


# -- relaying --------------------------------------------------------------------------------------


def test_a_broadcast_reaches_everyone_once(chain: World) -> None:
    h1, h2, h3 = chain.peers
    h1.send(ARP)
    chain.settle()
    assert (h1.frames(), h2.frames(), h3.frames()) == ([], [ARP], [ARP])
    h2.send(ALL + C2 + ARP[12:])
    chain.settle()
    assert (len(h1.frames()), len(h2.frames()), len(h3.frames())) == (1, 0, 1)


def test_unicast_is_relayed_and_not_seen_on_the_way(chain: World) -> None:
    h1, h2, h3 = chain.peers
    h3.send(ALL + C2 + ARP[12:])
    chain.settle()
    h2.frames()
    frame = ipv4(b"to h3", flags=DF)
    h1.send(frame)
    chain.settle()
    assert (h2.frames(), h3.frames()) == ([], [frame])
    assert h2.count("relayed") == 2


def test_a_segment_is_relayed_as_a_train(chain: World) -> None:
    h1, h2, h3 = chain.peers
    h3.send(ALL + C2 + ARP[12:])
    chain.settle()
    h2.frames()
    narrow(h1, h2, 1500)
    narrow(h2, h3, 1500)
    packet = Packet(bytes(range(200)) * 150, flags=ACK | PSH)
    offload(h1, packet, 1386)
    chain.settle()
    assert h2.received() == []
    (merged,) = h3.received()
    assert merged[10:] == packet.frame(partial=True)


def test_a_segment_to_an_unknown_address_goes_along_the_tree(chain: World) -> None:
    h1, h2, h3 = chain.peers
    narrow(h1, h2, 1500)
    narrow(h2, h3, 1500)
    first, packet = Packet(b"first", 995).frame(), Packet(b"x" * 8000)
    h1.send(first)
    offload(h1, packet, 1386)
    chain.settle()
    for peer in (h2, h3):
        early, segment = peer.received()
        assert early == PLAIN + first
        assert segment[10:] == packet.frame(partial=True)


@pytest.mark.parametrize("frames", [1, 5])
def test_routers_of_different_views_do_not_send_a_frame_to_and_fro(
    chain: World, frames: int
) -> None:
    """h3 has told h1 that only h1 is its neighbour, and h2 that only h2 is."""
    h1, h2, h3 = chain.peers
    for peer, other in ((h1, h2), (h2, h1)):
        routes = {other.name: other.name, h3.name: other.name}
        peer.overlay.set_routes(Routes(routes, {h3.name: [other.name]}))
        narrow(peer, other, 1500)
    broadcast, unicast = ALL + C1 + ARP[12:], ipv4(b"to h3", flags=DF)
    for frame, source, to in ((broadcast, h3.name, h1.name), (unicast, name(9), h3.name)):
        head = sleeve.frame_header(source, to, len(frame))
        datagram = h2.name + head + frame
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as sender:
            option = (17, 103, len(datagram).to_bytes(2, "little"))
            sender.connect(h1.address)
            sender.sendmsg([datagram * frames], [option])
        for _ in range(20):
            for peer in (h1, h2):
                for descriptor in select.select(peer.overlay.files(), (), (), 0)[0]:
                    peer.overlay.ready(descriptor)
    assert [h1.count(reason) for reason in ("back_to_sender", "relayed")] == [frames, 0]
    assert h1.frames() == [broadcast] * frames


def test_a_narrow_second_hop_is_told_to_who_sent(chain: World) -> None:
    h1, h2, h3 = chain.peers
    for peer, mac in ((h3, C2), (h1, C1)):
        peer.send(ALL + mac + ARP[12:])
    chain.settle()
    for peer in chain.peers:
        peer.frames()
    narrow(h1, h2, 1500)
    narrow(h2, h3, 1400)
    offload(h1, Packet(b"x" * 8000), 1386)
    h1.send(ipv4(bytes(1400), flags=DF))
    chain.settle()
    answers = h1.frames()
    assert [(a[34:36], a[40:42]) for a in answers] == [(b"\x03\x04", (1338).to_bytes(2))] * 2
    assert (h2.frames(), h3.received()) == ([], [])
    assert h2.count("too_large_with_df") == 7


# -- strangers -------------------------------------------------------------------------------------


def heartbeat(source: bytes, destination: bytes, uid: int) -> bytes:
    return special_datagram(source, destination, Heartbeat(uid))


def special_datagram(source: bytes, destination: bytes, special: Special) -> bytes:
    frame = encode_special(special)
    return source + sleeve.frame_header(source, destination, len(frame)) + frame


def stray(peer: Peer, *datagrams: bytes, host: str = "127.0.0.1") -> None:
    """Datagrams from an address that nobody knows."""
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as stranger:
        stranger.bind((host, 0))
        for datagram in datagrams:
            stranger.sendto(datagram, peer.address)


def test_strangers_are_counted_and_not_answered(pair: World) -> None:
    h1, h2 = pair.peers
    stray(h1, b"", b"short", name(9) + b"whatever", heartbeat(name(9), h1.name, UID))
    stray(h1, h2.name + b"garbage that has no frames in it")
    stray(h1, *[name(9) + bytes(14) + bytes(30)] * 10)
    pair.settle()
    assert (h1.count("unknown_sender"), h1.count("datagram_malformed")) == (12, 3)
    assert (h1.frames(), h1.said) == ([], [])


def test_a_peer_cannot_send_in_our_name_or_to_nobody(pair: World) -> None:
    h1, h2 = pair.peers
    frame = ALL + C2 + ARP[12:]
    head = sleeve.frame_header
    stray(
        h1,
        h2.name + head(h1.name, h1.name, len(frame)) + frame,
        h2.name + head(name(9), h1.name, len(frame)) + frame,
        h2.name + head(h2.name, name(9), len(frame)) + frame,
    )
    pair.settle()
    assert [h1.count(r) for r in ("own_frame_returned", "unknown_source_peer", "no_route")] == [
        1
    ] * 3
    assert (h1.frames(), h2.frames()) == ([], [])


def damage(datagram: bytes, cuts: list[tuple[int, int]], length: int) -> bytes:
    damaged = bytearray(datagram)
    for position, value in cuts:
        damaged[position % len(damaged)] = value
    return bytes(damaged[:length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda tail: name(2) + tail),
        st.tuples(st.binary(max_size=100), st.integers(0, 65535)).map(
            lambda t: name(2) + name(2) + name(1) + t[1].to_bytes(2) + t[0]
        ),
    ),
    kind=st.sampled_from(["plain", "df", "tcp", "arp", "heartbeat", "several"]),
    cuts=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    length=st.integers(0, 2000),
    copies=st.integers(1, 5),
    control=st.tuples(st.integers(0, 255), st.binary(max_size=4)),
)
def test_nothing_from_outside_gets_through_as_an_exception(
    pair: World,
    data: bytes,
    kind: str,
    cuts: list[tuple[int, int]],
    length: int,
    copies: int,
    control: tuple[int, bytes],
) -> None:
    """Random datagrams, and real ones damaged, alone and in trains; random control messages."""
    h1, h2 = pair.peers
    inside = {
        "plain": ipv4(b"x" * 60),
        "df": ipv4(b"x" * 1400, flags=DF),
        "tcp": Packet(b"y" * 100).frame(),
        "arp": ARP,
        "heartbeat": encode_special(Heartbeat(UID)),
        "several": ETHERNET + b"\x45" + bytes(30),
    }[kind]
    carried = sleeve.frame_header(h2.name, h1.name, len(inside)) + inside
    datagram = h2.name + carried * (3 if kind == "several" else 1)
    damaged = damage(datagram, cuts, length)
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as stranger:
        stranger.connect(h1.address)
        stranger.send(data)
        if damaged:
            option = (17, 103, len(damaged).to_bytes(2, "little"))
            stranger.sendmsg([damaged * copies], [option] if copies > 1 else [])
    h1.overlay.control(h2.name, *control)
    pair.settle()
    # Whatever happened, those who know each other still talk.
    h1.overlay._neighbours[h2.name].remote = h2.address
    for peer in pair.peers:
        peer.received()
        peer.overlay._switch.macs.expire(float("inf"))
    h1.send(ARP)
    pair.settle()
    assert ARP in h2.frames()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=st.binary(max_size=300), flags=st.integers(0, 3), kind=st.integers(0, 5))
def test_nothing_from_the_device_does_either(
    pair: World, packet: bytes, flags: int, kind: int
) -> None:
    h1 = pair.peers[0]
    h1.bridge.send(bytes([flags, kind]) + packet)
    h1.bridge.send(bytes([flags, kind]) + bytes.fromhex("3600200022001000") + ETHERNET + packet)
    pair.settle()
    for peer in pair.peers:
        peer.received()


def test_work_is_bounded_in_each_turn(pair: World) -> None:
    h1 = pair.peers[0]
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as flood:
        for _ in range(300):
            flood.sendto(b"flood" * 3, h1.address)
    descriptor = h1.overlay.files()[1]
    before = h1.count("datagrams_received")
    h1.overlay.ready(descriptor)
    assert h1.count("datagrams_received") - before == 64
    assert select.select([descriptor], (), (), 0)[0]
    for number in range(100):
        h1.send(ipv4(bytes([number])))
    h1.overlay.ready(h1.overlay.files()[0])
    assert h1.count("captured") == 64
