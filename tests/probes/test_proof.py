"""The proof of a path, against flows that do and flows that do not do what is claimed of them.

h1 10.0.0.1 ── s1 ── 10.0.0.2 h2, and between them, where a test wants one, a tunnel
192.168.0.1 ┄┄┄┄┄┄┄┄ 192.168.0.2
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tests.support.labs import sandboxed
from xlab.errors import XlabError
from xlab.kernel.packets import Decoded, decode
from xlab.kernel.processes import wait_until
from xlab.lab import capture, underlay
from xlab.lab.capture import Capture, follow_pings
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.probes import proof as proof_module
from xlab.probes.proof import Proved, prove
from xlab.record.record import UnderlayPackets
from xlab.scenario.scenario import Flow

NOBODY_DIED: Callable[[], None] = lambda: None  # noqa: E731


class Story:
    def __init__(self) -> None:
        self.lab = Lab(underlay.describe(None, hosts=2))
        self.lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
        self.h1, self.h2 = self.lab.hosts
        self.port = self.lab.physical_link(self.h1)

    def plain(self) -> Flow:
        return Flow(
            source=self.h1,
            target=self.h2,
            control=(self.h1, self.h2),
            encapsulation="none",
            watched=self.h1,
            cut=lambda: self.lab.wire.set_down(self.port),
            heal=lambda: self.lab.wire.set_up(self.port),
            cut_text="the cable pulled",
        )

    def vxlan(self) -> Flow:
        """The hosts' addresses 192.168.0.1 and .2 are at the ends of a tunnel."""
        for host, peer in ((self.h1, self.h2), (self.h2, self.h1)):
            argv = [
                "ip",
                "link",
                "add",
                "vx",
                "type",
                "vxlan",
                "id",
                "7",
                "dstport",
                "4789",
                "dev",
                "eth0",
            ]
            host.configure([*argv, "remote", str(peer.address)])
        return replace(
            self.plain(),
            source=Tunnelled(self.h1, "192.168.0.1/24"),
            target=Tunnelled(self.h2, "192.168.0.2/24"),
            encapsulation="vxlan",
            cut=lambda: self.h1.set_down("vx"),
            heal=lambda: self.h1.set_up("vx"),
            cut_text="the tunnel taken down",
        )

    def prove(self, flow: Flow) -> Proved:
        return prove(flow, self.lab.wire, self.port, mtu=1500, require_daemons=NOBODY_DIED)


class Tunnelled(Node):
    """A host once more, under its address at the end of the tunnel."""

    def __init__(self, host: Node, address: str) -> None:
        self.__dict__ = host.__dict__.copy()
        self._address = None
        self.add_address("vx", address)


@sandboxed
def test_a_plain_path() -> None:
    story = Story()
    proved = story.prove(story.plain())
    proof = proved.proof
    assert proof.underlay_packets == UnderlayPackets(none=20, stray=proof.underlay_packets.stray)
    assert (proof.proved, proof.negative_control) == (True, True), proof.control_detail
    assert (proof.overhead_bytes, proof.effective_mtu) == (0, 1500)
    assert proof.control_detail == "the cable pulled: stops; healed: back"
    assert sorted(proved.raw) == ["control-ping.txt", "path-ping.txt", "path.pcap"]
    assert b"h1$ ping -n" in proved.raw["control-ping.txt"]


@sandboxed
def test_a_tunnel_is_seen_on_the_wire_with_its_overhead() -> None:
    story = Story()
    proof = story.prove(story.vxlan()).proof
    assert (proof.underlay_packets.vxlan, proof.underlay_packets.none) == (20, 0)
    assert (proof.proved, proof.negative_control) == (True, True), proof.control_detail
    # Outer IPv4 and UDP, VXLAN, inner Ethernet (RFC 7348): 1,500 less 50 remain.
    assert (proof.overhead_bytes, proof.effective_mtu) == (50, 1450)


@sandboxed
def test_what_goes_another_way_than_claimed_is_not_proved() -> None:
    story = Story()
    proof = story.prove(replace(story.plain(), encapsulation="gre")).proof
    assert not proof.proved
    assert (proof.underlay_packets.none, proof.underlay_packets.gre) == (20, 0)
    assert proof.overhead_bytes is None


@sandboxed
def test_a_path_that_is_dead_proves_nothing_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_SETTLE_S", 0.1)
    monkeypatch.setattr(proof_module, "_PATIENCE_S", 1.0)
    story = Story()
    story.lab.wire.set_down(story.port)
    flow = replace(story.plain(), cut=lambda: None, heal=lambda: None)
    asked: list[bool] = []
    proof = prove(
        flow, story.lab.wire, story.port, mtu=1500, require_daemons=lambda: asked.append(True)
    ).proof
    assert not proof.proved
    assert not proof.negative_control
    assert proof.effective_mtu is None
    # A dead daemon would be the better explanation.
    assert asked


@sandboxed
def test_a_cut_that_cuts_nothing_fails_the_control() -> None:
    story = Story()
    proof = story.prove(replace(story.plain(), cut=lambda: None, heal=lambda: None)).proof
    assert proof.proved
    assert not proof.negative_control
    assert "5 of 5 replies" in proof.control_detail


@sandboxed
def test_an_inverted_control_wants_the_traffic_to_go_on() -> None:
    story = Story()
    inverted = replace(story.plain(), cut_stops_traffic=False)
    assert not story.prove(inverted).proof.negative_control
    harmless = replace(inverted, cut=lambda: None, heal=lambda: None)
    assert story.prove(harmless).proof.negative_control


@sandboxed
def test_an_inverted_control_waits_for_answers_that_come_late() -> None:
    """As through a daemon that stood still: "2 of 5 replies" was said, where none had been lost."""
    story = Story()
    with story.h2.entered():
        station = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    def stand_still() -> None:
        story.h2.configure(["ip", "link", "set", "eth0", "arp", "off"])
        story.h1.rtnl.forget_neighbours()
        station.bind(("eth0", 0x0806))
        answering.start()

    def answer_the_next() -> None:
        # Meanwhile the echo waits: ARP asks again after a second (arp(7), retrans_time).
        station.recv(2000)
        story.h2.configure(["ip", "link", "set", "eth0", "arp", "on"])

    answering = threading.Thread(target=answer_the_next, daemon=True)
    late = replace(story.plain(), cut_stops_traffic=False, cut=stand_still, heal=answering.join)
    with closing(station):
        proved = story.prove(late)
    assert proved.proof.negative_control, proved.proof.control_detail
    round_trips_ms = re.findall(rb"time=([\d.]+) ms", proved.raw["control-ping.txt"])
    assert max(map(float, round_trips_ms)) > 500


@sandboxed
def test_a_heal_that_heals_nothing_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "_PATIENCE_S", 1.0)
    story = Story()
    flow = replace(story.plain(), heal=lambda: None)
    proof = story.prove(flow).proof
    assert not proof.negative_control
    assert proof.control_detail.endswith("healed: NOT back")


@sandboxed
def test_it_is_healed_even_if_the_look_breaks() -> None:
    story = Story()
    healed: list[bool] = []

    def look_no_more(*_: object, **__: object) -> NoReturn:
        raise XlabError("ping has vanished")

    def cut() -> None:
        story.h1.run = look_no_more  # type: ignore[method-assign]

    flow = replace(story.plain(), cut=cut, heal=lambda: healed.append(True))
    with pytest.raises(XlabError, match="ping has vanished"):
        story.prove(flow)
    assert healed


@sandboxed
def test_a_black_hole_shows_in_the_effective_mtu() -> None:
    """Larger packets vanish without a word at the switch's port of h2."""
    story = Story()
    story.lab.wire.set_mtu(story.lab.physical_link(story.h2), 1490)
    # A bridge lets a port's MTU be exceeded by a VLAN tag's 4 bytes (is_skb_forwardable).
    assert story.prove(story.plain()).proof.effective_mtu == 1494


@sandboxed
def test_other_traffic_is_stray() -> None:
    story = Story()
    with story.h1.start(["ping", "-n", "-i0.002", str(story.h2.address)]):
        sightings = follow_pings(story.h1, story.h2, wire=story.lab.wire, interface=story.port)
    assert sightings.count("none") == 20
    assert sightings.stray > 0
    assert sightings.all_took("none")


def test_two_packets_in_one_datagram_do_not_make_a_stray_frame_disappear() -> None:
    """As weave's sleeve has them while it is busy: "-4 other packets" were seen on a link."""
    packet: Any = None
    datagram = Decoded("sleeve", None)
    sightings = capture.Sightings(
        sent=2,
        seen=(capture.Sighting(datagram, packet), capture.Sighting(datagram, packet)),
        frames=((0.0, b"both"), (0.1, b"a stranger's")),
        dropped=0,
        answered=2,
        transcript="",
    )
    assert sightings.stray == 1
    assert sightings.count("sleeve") == 2


@pytest.mark.parametrize(
    ("answered", "seen", "proved"),
    # ping had ended when the last reply of these passed; the next lacks what had been answered.
    [(1, 4, True), (1, 3, True), (2, 3, False), (0, 3, False)],
)
def test_what_a_lossy_link_lost_is_missing_and_what_came_late_is_not(
    answered: int, seen: int, proved: bool
) -> None:
    echoes: list[Any] = [
        SimpleNamespace(icmp_type=kind, icmp_sequence=number)
        for number in (1, 2)
        for kind in (8, 0)
    ]
    sightings = capture.Sightings(
        sent=2,
        seen=tuple(capture.Sighting(Decoded("none", None), echo) for echo in echoes[:seen]),
        frames=(),
        dropped=0,
        answered=answered,
        transcript="",
    )
    assert sightings.all_took("none", lossy=True) is proved
    assert sightings.all_took("none") is (seen == 4)


@sandboxed
def test_a_packet_that_passes_twice_is_no_proof() -> None:
    """Each must cross once each way: duplicates mean there is a loop, or another path."""
    story = Story()
    with story.h1.entered():
        station = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        station.bind(("eth0", 0x0003))
    with closing(station):
        threading.Thread(target=send_again, args=(station,), daemon=True).start()
        sightings = follow_pings(story.h1, story.h2, wire=story.lab.wire, interface=story.port)
    assert sightings.count("none") > 20
    assert not sightings.all_took("none")


def send_again(station: socket.socket) -> None:
    """Whatever leaves leaves twice."""
    sent: set[bytes] = set()
    while True:
        try:
            frame, (_, _, direction, *_) = station.recvfrom(2000)
            if direction == socket.PACKET_OUTGOING and frame not in sent:
                sent.add(frame)
                station.send(frame)
        except OSError:
            return


@sandboxed
def test_a_capture_hears_from_the_moment_it_is_made() -> None:
    story = Story()
    with Capture(story.lab.wire, story.port) as heard:
        story.h1.run(["ping", "-n", "-c1", "-W5", str(story.h2.address)])
    echoes = [decode(frame).outer for _, frame in heard.frames]
    assert sum(ip is not None and ip.protocol == 1 for ip in echoes) == 2
    assert heard.dropped == 0


@sandboxed
def test_a_capture_ends_at_once_on_a_link_that_never_falls_silent() -> None:
    """What has arrived by then is kept; what is still coming is not waited for."""
    story = Story()
    talking = threading.Event()
    talking.set()
    with story.h1.entered():
        talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def talk() -> None:
        while talking.is_set():
            talker.sendto(b"again", (str(story.h2.address), 9))

    with closing(talker):
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            with Capture(story.lab.wire, story.port) as heard:
                wait_until(lambda: len(heard.frames) > 100, timeout_s=30, awaited="the talk")
                until_told = len(heard.frames)
        finally:
            talking.clear()
            thread.join()
    # No more than the socket's buffer holds, at some 700 bytes of the kernel's memory a frame.
    assert until_told < len(heard.frames) < until_told + 15_000
