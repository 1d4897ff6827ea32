"""Link conditions on real links: impose them, send, and see what has become of the packets.

h1: eth0 ── s1-eth1 [joint] ── bridge s1 ── [joint] s1-eth2 ── eth0 :h2
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import machine, run_in_sandbox
from xlab.errors import DaemonError
from xlab.kernel.drivers import DRIVERS, Driver, Kernel, State
from xlab.kernel.processes import wait_until
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers import delay_line, tbf
from xlab.lab.imposers.chooser import IMPOSERS
from xlab.lab.imposers.joint import Imposed, Imposer
from xlab.lab.node import Node
from xlab.probes.link_conditions import Measured, measure

DELAY = LinkConditions(delay_ms=5.0)
RATE = LinkConditions(rate_bits_per_second=20e6)
LOSS = LinkConditions(loss_ratio=0.05)

#: TCG makes everything slower; shapes and lower bounds hold all the same.
IN_GUEST = "XLAB_GUEST" in os.environ


class Wires:
    """Two hosts at one switch, both links with the same conditions."""

    def __init__(self, asked: LinkConditions, imposer: Imposer, *, mtu: int = 1500) -> None:
        self.wire = Node("wire")
        self.wire.add_bridge("s1")
        self.hosts = (Node("h1"), Node("h2"))
        self.imposed: list[Imposed] = []
        for number, host in enumerate(self.hosts, 1):
            uplink = f"s1-eth{number}"
            with self.wire.rtnl.batch() as batch:
                batch.add_veth(uplink, "eth0", peer_namespace=host.namespaces.net, mtu=mtu)
            imposed = imposer.impose(self.wire, uplink, asked, mtu=mtu)
            self.wire.add_to_bridge("s1", imposed.port)
            host.add_address("eth0", f"10.0.0.{number}/24")
            imposed.switch_off(host, "eth0")
            self.imposed.append(imposed)

    def require_alive(self) -> None:
        for imposed in self.imposed:
            imposed.require_alive()


def measured(asked: LinkConditions, imposer: Imposer) -> Measured:
    def story() -> Any:
        wires = Wires(asked, imposer)
        result = measure(*wires.hosts, [asked, asked])
        wires.require_alive()
        return dataclasses.asdict(result)

    return Measured(**run_in_sandbox(story))


def require(name: str) -> None:
    capability = getattr(machine(), name)
    if not capability.live:
        if IN_GUEST:
            pytest.fail(f"the guest's kernel lacks {name}: {capability.detail}")
        pytest.skip(capability.detail)


EACH = [
    pytest.param("netem", marks=[pytest.mark.sandbox, pytest.mark.kernel]),
    pytest.param(
        "delay-line", marks=[pytest.mark.sandbox, pytest.mark.kernel, pytest.mark.long_in_guest]
    ),
]


@pytest.fixture
def imposer(request: pytest.FixtureRequest) -> Imposer:
    (chosen,) = (imposer for imposer in IMPOSERS if imposer.name == request.param)
    if chosen.name == "netem":
        require("netem")
    return chosen


# -- what conditions come to -----------------------------------------------------------------------


@pytest.mark.parametrize("imposer", EACH, indirect=True)
def test_two_links_delay_a_round_trip_four_times(imposer: Imposer) -> None:
    found = measured(DELAY, imposer)
    assert set(found.values) == {"rtt_ms"}
    assert 19.9 <= found.values["rtt_ms"] <= 60
    # A busy machine adds to it, and that is said.
    assert bool(found.doubts) == (found.values["rtt_ms"] > 26)


@pytest.mark.long_in_guest
@pytest.mark.parametrize("imposer", EACH, indirect=True)
def test_loss_is_lost_on_every_link_in_each_direction(imposer: Imposer) -> None:
    found = measured(LOSS, imposer)
    assert set(found.values) == {"loss_ratio"}
    # Two links one way: 9.75 %; a hundred round trips show it within four standard deviations.
    assert 0.02 <= found.values["loss_ratio"] <= 0.19


@pytest.mark.long_in_guest
@pytest.mark.parametrize(
    "imposer", [*EACH, pytest.param("tbf", marks=pytest.mark.sandbox)], indirect=True
)
def test_a_rate_is_the_rate_of_the_path(imposer: Imposer) -> None:
    if imposer is tbf.IMPOSER:
        require("tbf")
    found = measured(RATE, imposer)
    assert set(found.values) == {"rate_bits_per_second"}
    assert 20e6 * (0.25 if IN_GUEST else 0.4) <= found.values["rate_bits_per_second"] <= 20e6 * 1.1


@pytest.mark.parametrize("imposer", EACH, indirect=True)
def test_jitter_keeps_packets_in_order(imposer: Imposer) -> None:
    asked = LinkConditions(delay_ms=10.0, jitter_ms=8.0)

    def story() -> Any:
        wires = Wires(asked, imposer)
        h1, h2 = wires.hosts
        h1.run(["ping", "-c", "1", "-w", "5", "10.0.0.2"])
        with h2.entered():
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(("10.0.0.2", 4000))
        with h1.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.settimeout(5)
        for number in range(50):
            sender.sendto(number.to_bytes(2, "big"), ("10.0.0.2", 4000))
        arrived: list[int] = []
        with suppress(TimeoutError):  # a slow guest may lose one; order is what matters
            while len(arrived) < 50:
                arrived.append(int.from_bytes(receiver.recv(16), "big"))
        return arrived

    arrived = run_in_sandbox(story)
    assert arrived == sorted(arrived)
    assert len(arrived) >= 30


# -- what a link must not do to packets ------------------------------------------------------------


#: 4 MB.
CONTENT = os.urandom(64 * 1024) * 64


def received(client: socket.socket, server: socket.socket, content: bytes) -> bytes:
    """What `server` gets of the content that `client` sends; a pause of 10 s ends it."""
    sending = threading.Thread(target=client.sendall, args=(content,), daemon=True)
    sending.start()
    server.settimeout(10)
    got = bytearray()
    while len(got) < len(content):
        try:
            piece = server.recv(1 << 20)
        except TimeoutError:
            break
        got += piece
    return bytes(got)


@pytest.mark.sandbox
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_large_segments_pass_the_delay_line_whole(mtu: int) -> None:
    """TCP leaves 64 KB to the interface to cut and to sum up; all of it must arrive, and right."""

    def story() -> Any:
        wires = Wires(LinkConditions(delay_ms=1.0), delay_line.IMPOSER, mtu=mtu)
        h1, h2 = wires.hosts
        with h2.entered():
            listener = socket.create_server(("10.0.0.2", 4000))
        with h1.entered():
            client = socket.create_connection(("10.0.0.2", 4000), timeout=10)
        server, _ = listener.accept()
        same = received(client, server, CONTENT) == CONTENT
        line = wires.imposed[0].line
        assert line is not None
        line.signal(signal.SIGTERM)
        line.wait(5)
        return [same, json.loads(line.stdout().split("\n")[1])]

    same, counters = run_in_sandbox(story)
    assert same
    from_host = counters["s1-eth1"]
    assert from_host["missed"] == 0
    # Far fewer packets than the 2,900 of 1,448 bytes that are in it: the segments came whole.
    assert from_host["departed"] < 1500


TUNNELS = [
    pytest.param(
        Driver("vxlan", "CONFIG_VXLAN"),
        "vxlan id 7 dstport 4789 dev eth0",
        marks=pytest.mark.sandbox,
    ),
    pytest.param(DRIVERS["ovs_gre"], "gretap", marks=[pytest.mark.sandbox, pytest.mark.kernel]),
]


@pytest.mark.long_in_guest
@pytest.mark.parametrize(("driver", "kind"), TUNNELS)
def test_tcp_inside_a_tunnel_passes_the_delay_line(driver: Driver, kind: str) -> None:
    """Segments inside a tunnel cannot be handed over: with their offloads on, TCP gets nowhere."""
    if Kernel().driver(driver).state is not State.YES:
        pytest.skip(Kernel().driver(driver).detail)

    def story() -> Any:
        wires = Wires(LinkConditions(delay_ms=1.0), delay_line.IMPOSER)
        for number, host in enumerate(wires.hosts, 1):
            link = f"link add tunnel type {kind} remote 10.0.0.{3 - number} local 10.0.0.{number}"
            host.run(["ip", *link.split()])
            host.add_address("tunnel", f"10.1.0.{number}/24")
        h1, h2 = wires.hosts
        with h2.entered():
            listener = socket.create_server(("10.1.0.2", 4000))
        with h1.entered():
            client = socket.create_connection(("10.1.0.2", 4000), timeout=10)
        server, _ = listener.accept()
        return received(client, server, CONTENT) == CONTENT

    assert run_in_sandbox(story)


@pytest.mark.sandbox
def test_vlan_tags_pass_the_delay_line() -> None:
    """The kernel takes the tag out of a frame before a packet socket sees it."""
    destination, source = b"\xff" * 6, b"\x02\x00\x00\x00\x00\x09"
    tag, payload = 0x2064, b"tagged".ljust(46, b".")
    frame = destination + source + struct.pack("!HHH", 0x8100, tag, 0x88B5) + payload

    def story() -> Any:
        wires = Wires(LinkConditions(delay_ms=1.0), delay_line.IMPOSER)
        h1, h2 = wires.hosts
        h1.run(["ping", "-n", "-c1", "-w30", "10.0.0.2"])
        with h2.entered():
            receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            receiver.bind(("eth0", 0x0003))
        auxdata, sol_packet = 8, 263
        receiver.setsockopt(sol_packet, auxdata, 1)
        receiver.settimeout(5)
        with h1.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            sender.bind(("eth0", 0))
        sender.send(frame)
        while True:
            data, ancillary, _, _ = receiver.recvmsg(2048, socket.CMSG_SPACE(20))
            if payload in data:
                break
        # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid.
        (_, _, aux), *_ = ancillary
        return [*struct.unpack("=IIIHHHH", aux)[5:], data.hex()]

    tci, protocol, data = run_in_sandbox(story)
    assert (tci, protocol) == (tag, 0x8100)
    assert bytes.fromhex(data) == destination + source + struct.pack("!H", 0x88B5) + payload


@pytest.mark.sandbox
def test_loss_takes_packets_one_by_one_because_offloads_are_off() -> None:
    def story() -> Any:
        wires = Wires(LOSS, delay_line.IMPOSER)
        shown = wires.hosts[0].run(["ethtool", "-k", "eth0"]).stdout
        port = wires.wire.run(["ethtool", "-k", wires.imposed[0].port]).stdout
        return [shown, port]

    for shown in run_in_sandbox(story):
        assert "tcp-segmentation-offload: off" in shown
        assert "generic-segmentation-offload: off" in shown
        assert "tx-udp_tnl-segmentation: off" in shown


@pytest.mark.sandbox
def test_a_joint_of_bridges_learns_nothing() -> None:
    """A wire has no memory: what moves to the other side of it must be reached at once."""

    require("tbf")

    def story() -> Any:
        wires = Wires(RATE, tbf.IMPOSER)
        wires.hosts[0].run(["ping", "-c", "1", "-w", "5", "10.0.0.2"])
        shown = wires.wire.run(["bridge", "-json", "fdb", "show", "br", "s1-eth1j"]).stdout
        learnt = [entry for entry in json.loads(shown) if entry.get("state") != "permanent"]
        switch = wires.wire.run(["bridge", "-json", "fdb", "show", "br", "s1"]).stdout
        by_switch = [e for e in json.loads(switch) if e.get("state") != "permanent"]
        return [learnt, len(by_switch)]

    learnt, by_switch = run_in_sandbox(story)
    assert learnt == []
    assert by_switch == 2


# -- when it goes wrong ----------------------------------------------------------------------------


@pytest.mark.sandbox
def test_a_delay_line_that_dies_is_reported() -> None:
    def story() -> Any:
        wires = Wires(DELAY, delay_line.IMPOSER)
        imposed = wires.imposed[1]
        assert imposed.line is not None
        wires.require_alive()
        imposed.line.stop()
        try:
            wires.require_alive()
        except DaemonError as error:
            return str(error)
        return "not noticed"

    assert "the delay line of s1-eth2p ended with status -9" in run_in_sandbox(story)


@pytest.mark.sandbox
def test_a_delay_line_that_cannot_start_says_why() -> None:
    def story() -> Any:
        wire = Node("wire")
        try:
            delay_line.start(wire, delay_line.argv_of("none0", "none1", DELAY, mtu=1500))
        except DaemonError as error:
            return str(error)
        return "not noticed"

    message = run_in_sandbox(story)
    assert "ended at once with status 1" in message
    assert "none0 - none1: No such device" in message


@pytest.mark.sandbox
def test_an_interface_that_goes_down_and_up_again_does_not_end_the_line() -> None:
    def story() -> Any:
        wires = Wires(DELAY, delay_line.IMPOSER)
        h1, _ = wires.hosts
        wires.wire.set_down("s1-eth1")
        lost = h1.run(["ping", "-c", "1", "-W", "1", "10.0.0.2"], check=False).returncode
        line = wires.imposed[0].line
        assert line is not None
        used_s = _cpu_seconds(line.pid)
        wires.wire.set_up("s1-eth1")

        def answers() -> bool:
            ping = ["ping", "-c", "1", "-W", "1", "10.0.0.2"]
            return h1.run(ping, check=False).returncode == 0

        wait_until(answers, timeout_s=10, awaited="an answer once the interface is up again")
        return [lost, used_s]

    lost, used_s = run_in_sandbox(story)
    assert lost == 1
    # Waiting a second for an interface that is down must not be done by spinning.
    assert used_s < 0.7


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.sandbox
def test_a_path_that_answers_nothing_is_doubted_and_not_measured_as_zero() -> None:
    def story() -> Any:
        wires = Wires(DELAY, delay_line.IMPOSER)
        wires.wire.set_down("s1-eth2")
        return dataclasses.asdict(measure(*wires.hosts, [DELAY, DELAY]))

    found = run_in_sandbox(story)
    assert found["values"] == {}
    assert found["doubts"] == ["none of 25 pings from h1 to h2 was answered"]
