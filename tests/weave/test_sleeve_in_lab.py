"""Frames across real routers: containers of two hosts talk, and what they send arrives unharmed.

c1 ethwe ── weave (bridge) ── weave0 (TAP) ── router ── eth0 h1
                                                         │ UDP 6783
c2 ethwe ── weave (bridge) ── weave0 (TAP) ── router ── eth0 h2
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.support.labs import PATIENCE_S, machine, sandboxed
from tests.support.routers import complaints, report, routers, spawn, wait_for_mesh
from xlab.kernel.packets import decode as decode_packet
from xlab.kernel.processes import wait_until
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.weave import sleeve
from xlab.weave.fastdp import Admitted
from xlab.weave.overlay import SleeveOverlay
from xlab.weave.routes import Routes

_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_TAP = "weave0"
_EFFECTIVE = {1500: 1438, 9000: 8938}


@pytest.fixture(params=["tap", "veth"])
def device(request: pytest.FixtureRequest) -> str:
    """What a router's end of the bridge is; skips where there can be no TAP device."""
    if request.param == "tap" and not machine().tun.live:
        pytest.skip(machine().tun.detail)
    kind: str = request.param
    return kind


@dataclass(frozen=True)
class Meshed:
    hosts: list[Host]
    #: One on each host, addresses 10.32.0.1 and so on.
    containers: list[Node]

    def count(self, host: int, name: str) -> int:
        counters: dict[str, int] = report(self.hosts[host])["counters"]["overlay"]
        return counters.get(name, 0)


def attach(host: Host, tap: str, *, mtu: int) -> Node:
    """A container on the host's weave bridge, which carries whatever its MTU allows."""
    container = Node(f"{host.name}/c")
    container.boot()
    with host.rtnl.batch() as batch:
        batch.add_bridge("weave")
        batch.add_veth(
            "vethwe", "ethwe", peer_namespace=container.namespaces.net, mtu=mtu, master="weave"
        )
    host.add_to_bridge("weave", tap)
    container.add_address("ethwe", f"10.32.0.{host.number}/24")
    # Either end drops what is sent until linkwatch_event, a work item of the kernel, has activated
    # it: on a busy machine that takes longer than the broadcasts that are told of here.
    wait_until(
        lambda: is_up(host, "vethwe") and is_up(container, "ethwe"),
        timeout_s=PATIENCE_S,
        awaited=f"the container's link on {host}",
    )
    return container


def is_up(node: Node, interface: str) -> bool:
    (link,) = node.listed(["ip", "-json", "link", "show", "dev", interface])
    return bool(link["operstate"] == "UP")


def racked(hosts: int, mtu: int, device: str) -> Lab:
    lab = Lab(underlay.describe(None, hosts=hosts), mtu=mtu)
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    if device == "veth":
        for host in lab.hosts:
            # As if there were no such device node.
            host.run(["mount", "-t", "tmpfs", "none", "/dev/net"])
    return lab


@contextmanager
def meshed(
    device: str, *, hosts: int = 2, mtu: int = 1500, container_mtu: int | None = None
) -> Iterator[Meshed]:
    lab = racked(hosts, mtu, device)
    effective = _EFFECTIVE[mtu]
    with routers(lab, datapath="sleeve") as processes:
        wait_for_mesh(lab.hosts)
        wait_until(
            lambda: all(
                connection["mtu"] == effective
                for host in lab.hosts
                for connection in report(host)["connections"]
            ),
            timeout_s=10.0,
            awaited=f"an effective MTU of {effective}",
        )
        containers = [attach(host, _TAP, mtu=container_mtu or effective) for host in lab.hosts]
        yield Meshed(lab.hosts, containers)
        assert [complaints(process) for process in processes] == [""] * hosts


def transfer(source: Node, target: Node, data: bytes) -> str:
    """Send it over TCP; the SHA-256 of what arrived."""
    with target.entered():
        server = socket.create_server((str(target.address), 5000))
    with source.entered():
        client = socket.create_connection((str(target.address), 5000), timeout=20)
    with server, client:
        connection, _ = server.accept()

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        digest = hashlib.sha256()
        with connection:
            connection.settimeout(20)
            while piece := connection.recv(1 << 20):
                digest.update(piece)
        sender.join()
    return digest.hexdigest()


def arrives(source: Node, target: Node, data: bytes) -> bool:
    return transfer(source, target, data) == hashlib.sha256(data).hexdigest()


def ping(source: Node, target: IPv4Address, *options: str) -> str:
    command = ["ping", "-c", "1", "-W", "2", *options, str(target)]
    done = source.run(command, check=False)
    return done.stdout + done.stderr


# -- what containers notice ------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.long_in_guest
@sandboxed
def test_containers_reach_each_other_and_bulk_data_arrives_unharmed(device: str) -> None:
    with meshed(device) as lab:
        c1, c2 = lab.containers
        assert "1 received" in ping(c1, c2.address)
        data = os.urandom(10_000_001)
        assert arrives(c1, c2, data)
        assert arrives(c2, c1, data)
        # It went through the routers in segments, how large depends on the rate: fewer frames were
        # read than datagrams sent, although those that carry acknowledgements share theirs.
        assert lab.count(1, "injected") > 7_000
        assert lab.count(0, "captured") < lab.count(0, "datagrams_sent")
        assert lab.count(0, "inject_refused") == lab.count(1, "inject_refused") == 0


@sandboxed
def test_without_offload_in_the_container_it_does_too(device: str) -> None:
    """As with the original router, which switches it off."""
    with meshed(device) as lab:
        c1, c2 = lab.containers
        for container in lab.containers:
            container.configure(["ethtool", "-K", "ethwe", "tx", "off"])
        data = os.urandom(3_000_001)
        assert arrives(c1, c2, data)
        assert arrives(c2, c1, data)
        assert lab.count(0, "captured") > 3_000_000 / 1438


@sandboxed
def test_a_container_with_a_larger_mtu_is_told_the_effective_one(device: str) -> None:
    with meshed(device, container_mtu=9000) as lab:
        c1, c2 = lab.containers
        # Segments that would be cut too large: c1 learns, and c2 from the MSS that c1 then offers.
        data = os.urandom(1_000_001)
        assert arrives(c1, c2, data)
        assert lab.count(0, "too_large_with_df") > 0
        assert arrives(c2, c1, data)
        # Does not fit and says DF: the answer comes from the overlay, then from c2's own kernel.
        assert "mtu = 1438" in ping(c2, c1.address, "-M", "do", "-s", "3000")
        assert "essage too long" in ping(c2, c1.address, "-M", "do", "-s", "1411")
        assert "1 received" in ping(c2, c1.address, "-M", "do", "-s", "1410")
        assert lab.count(1, "fragmentation_needed_sent") == 1


@sandboxed
def test_large_datagrams_without_df_arrive_whole(device: str) -> None:
    with meshed(device, container_mtu=9000) as lab:
        c1, c2 = lab.containers
        assert "1 received" in ping(c1, c2.address)
        with c2.entered():
            receiver = socket.socket(type=socket.SOCK_DGRAM)
        with c1.entered():
            sender = socket.socket(type=socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((str(c2.address), 5000))
            receiver.settimeout(5)
            sender.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, DONT
            for size in (1, 1410, 1411, 4000, 8972, 20000, 65507):
                data = os.urandom(size)
                sender.sendto(data, (str(c2.address), 5000))
                assert receiver.recv(1 << 17) == data
        assert lab.count(0, "too_large") == lab.count(0, "too_large_with_df") == 0


@sandboxed
def test_a_jumbo_underlay_makes_jumbo_packets(device: str) -> None:
    with meshed(device, mtu=9000) as lab:
        c1, c2 = lab.containers
        assert "1 received" in ping(c1, c2.address, "-M", "do", "-s", str(8938 - 28))
        assert arrives(c1, c2, os.urandom(10_000_001))
        assert lab.count(0, "datagrams_sent") < 10_000_000 / 8000


@sandboxed
def test_broadcasts_and_multicasts_reach_every_host_once(device: str) -> None:
    with meshed(device, hosts=3) as lab:
        c1, *others = lab.containers
        receivers = []
        for container in others:
            with container.entered():
                receiver = socket.socket(type=socket.SOCK_DGRAM)
            receiver.bind(("0.0.0.0", 5000))
            receiver.settimeout(5)
            membership = socket.inet_aton("224.1.2.3") + container.address.packed
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            receivers.append(receiver)
        with c1.entered():
            sender = socket.socket(type=socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, c1.address.packed)
        messages = [b"one", b"two", b"three"]
        for message, to in zip(messages, ("10.32.0.255", "224.1.2.3", "10.32.0.255"), strict=True):
            sender.sendto(message, (to, 5000))
        for receiver in receivers:
            assert [receiver.recv(100) for _ in messages] == messages
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(100)


@sandboxed
def test_frames_with_a_vlan_tag_keep_it(device: str) -> None:
    with meshed(device) as lab:
        c1, c2 = lab.containers
        sockets = []
        for container in (c1, c2):
            with container.entered():
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind(("ethwe", 3))
            raw.settimeout(5)
            raw.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            sockets.append(raw)
        sender, receiver = sockets
        addresses = b"\xff" * 6 + b"\x02\0\0\0\0\1"
        sender.send(addresses + b"\x81\x00\x00\x05\x88\xb5" + b"tagged" * 20)
        while True:
            frame, ancillary, _, _ = receiver.recvmsg(2000, 100)
            if frame.endswith(b"tagged" * 20):
                break
        # The kernel takes a tag out of the frame and keeps it beside (struct tpacket_auxdata).
        ((_, _, beside),) = ancillary
        assert frame[:14] == addresses + b"\x88\xb5"
        assert struct.unpack("=HH", beside[16:20]) == (5, 0x8100)


@sandboxed
def test_the_far_end_of_a_veth_keeps_quiet() -> None:
    """Or the host would answer ARP requests for its eth0 there, and confuse the bridge."""
    with meshed("veth") as lab:
        c1, (h1, _) = lab.containers[0], lab.hosts
        c1.configure(["ip", "route", "add", str(h1.address), "dev", "ethwe"])
        assert "1 received" not in ping(c1, h1.address)
        found = c1.run(["ip", "neigh", "show", str(h1.address)]).stdout
        assert h1.mac_address("weave0r") not in found


@sandboxed
def test_a_router_that_was_killed_can_be_started_again(device: str) -> None:
    lab = racked(2, 1500, device)
    h1, h2 = lab.hosts
    for _ in range(2):
        first, second = spawn(h1, datapath="sleeve"), spawn(h2, h1, datapath="sleeve")
        wait_for_mesh(lab.hosts)
        first.stop()
        second.stop()
    third = spawn(h1, datapath="sleeve")
    # A killed router leaves its veth behind: the port tells that the next one is there.
    wait_until(lambda: holds_the_port(h1), timeout_s=20, awaited="the third router")
    fourth = spawn(h1, datapath="sleeve")
    assert fourth.wait(20.0) == 1
    assert "Address already in use" in fourth.stderr_tail()
    third.signal(signal.SIGTERM)
    assert third.wait(20.0) == 0
    assert not {"weave0", "weave0r"} & set(h1.interfaces())


def holds_the_port(host: Node) -> bool:
    """Whether a socket of the host is bound to UDP 6783, 0x1A7F in the kernel's table."""
    return ":1A7F " in host.run(["cat", "/proc/net/udp"]).stdout


@sandboxed
def test_a_router_whose_device_is_deleted_ends_and_says_so(device: str) -> None:
    lab = racked(2, 1500, device)
    h1, h2 = lab.hosts
    first, second = spawn(h1, datapath="sleeve"), spawn(h2, h1, datapath="sleeve")
    wait_for_mesh(lab.hosts)
    h1.configure(["ip", "link", "delete", "weave0"])
    assert first.wait(5.0) == 1
    assert re.search(r"the (TAP device|veth) weave0 is gone", first.stderr_tail())
    second.stop()


# -- what the wire shows ---------------------------------------------------------------------------


@sandboxed
def test_each_datagram_is_one_the_original_router_would_take(device: str) -> None:
    """A bulk transfer, seen by a plain UDP socket, which knows nothing of trains."""
    lab = racked(2, 1500, device)
    h1, h2 = lab.hosts
    name, peer = bytes.fromhex("7a0000000001"), bytes.fromhex("7a0000000002")
    with h1.entered():
        overlay = SleeveOverlay(name=name, tap=_TAP, bind=h1.address, clock=lambda: 0.0)
    container = attach(h1, _TAP, mtu=1438)
    with h2.entered():
        listener = socket.socket(type=socket.SOCK_DGRAM)
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    listener.bind((str(h2.address), 6783))
    sniffer.bind(("eth0", 3))
    for receiver in (listener, sniffer):
        receiver.setblocking(False)
    with h1.entered():
        admitted = Admitted(
            1, (str(h2.address), 6783), lambda _subtag, _data: None, lambda: None, lambda _: None
        )
        overlay.add(peer, admitted)
        overlay.set_routes(Routes({peer: peer}, {name: [peer]}))
        overlay.control(peer, sleeve.ESTABLISHED, b"")
        overlay.control(peer, sleeve.FRAGMENTATION_TEST_RECEIVED, b"")
        overlay.control(peer, sleeve.MTU_VERIFIED, sleeve.encode_mtu(1438))
    assert overlay.mtu(peer) == 1438

    stranger = b"\x02" * 6
    container.configure(
        ["ip", "neigh", "add", "10.32.0.9", "lladdr", stranger.hex(":"), "dev", "ethwe"]
    )
    with container.entered():
        sender = socket.socket(type=socket.SOCK_DGRAM)
    sizes = [10, 1400, 1400, 1400, 300, 1410, 1410]
    sender.setsockopt(socket.IPPROTO_IP, 10, 2)  # DF
    for size in sizes:
        sender.sendto(bytes([size % 251]) * size, ("10.32.0.9", 7))
    sender.setsockopt(socket.IPPROTO_IP, 10, 0)
    sender.sendto(b"without DF", ("10.32.0.9", 7))
    overlay.ready(overlay.files()[0])

    datagrams = received(listener)
    carried = []
    for datagram in datagrams:
        assert datagram[:6] == name
        inside, whole = sleeve.decode(memoryview(datagram))
        assert whole
        assert all((c.source, c.destination) == (name, peer) for c in inside)
        if sleeve.decode_special(inside[0].frame) is None:
            assert len(datagram) <= 1472
            carried += [bytes(c.frame) for c in inside]
    # The last, without DF, went into a datagram of its own.
    assert [len(frame) - 42 for frame in carried] == [*sizes, 10]
    assert carried[1][42:] == bytes([1400 % 251]) * 1400
    specials = [sleeve.decode_special(memoryview(d)[20:]) for d in datagrams]
    assert sleeve.Heartbeat(1) in specials
    assert sleeve.FragmentationTest() in specials
    assert sleeve.MtuProbe(1438) in specials

    # On the wire a frame with DF is in a packet with DF, and others are not.
    flags = {True: set[int](), False: set[int]()}
    for packet in received(sniffer):
        for inner in decode_packet(packet).inner:
            if inner.protocol == 17 and inner.payload:
                flags[inner.payload == b"without DF"].add(packet[20] & 0x40)
    assert flags == {False: {0x40}, True: {0}}
    overlay.close()


def received(source: socket.socket) -> list[bytes]:
    packets = []
    while True:
        try:
            packets.append(source.recv(1 << 17))
        except BlockingIOError:
            return packets
