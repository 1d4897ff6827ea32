"""The netlink batch against the kernel itself, read back with iproute2."""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from tests.support.labs import PATIENCE_S, interfaces, sandboxed
from xlab.errors import NetlinkError
from xlab.kernel.clock import Deadline
from xlab.kernel.netlink import Batch, Rtnl
from xlab.lab.node import Node


def shown(node: Node, *arguments: str) -> Any:
    """What `ip -json …` prints in the node."""
    return json.loads(node.configure(["ip", "-details", "-json", *arguments]).stdout or "[]")


def link(node: Node, name: str) -> dict[str, Any]:
    (found,) = shown(node, "link", "show", "dev", name)
    return dict(found)


@sandboxed
def test_a_veth_pair_between_two_nodes() -> None:
    h1, h2 = Node("h1"), Node("h2")
    with h1.rtnl.batch() as batch:
        batch.add_veth(
            "eth0", "eth9", peer_namespace=h2.namespaces.net, mtu=1400,
            peer_mac="02:42:0a:d3:37:40",
        )  # fmt: skip
    h2.set_up("eth9")
    here, there = link(h1, "eth0"), link(h2, "eth9")
    assert (here["linkinfo"]["info_kind"], here["mtu"], here["operstate"]) == ("veth", 1400, "UP")
    assert (there["mtu"], there["address"], there["operstate"]) == (1400, "02:42:0a:d3:37:40", "UP")
    assert not h1.rtnl.has("eth9")


@sandboxed
def test_a_bridge_forwards_at_once_and_without_stp() -> None:
    node = Node("wire")
    with node.rtnl.batch() as batch:
        batch.add_bridge("br0", mac="02:00:00:00:00:07")
        batch.add_veth("p1", "q1", master="br0")
        batch.add_veth("p2", "q2")
        batch.set_master("p2", "br0")
    bridge = link(node, "br0")
    assert bridge["address"] == "02:00:00:00:00:07"
    options = bridge["linkinfo"]["info_data"]
    assert (options["stp_state"], options["forward_delay"], options["mcast_snooping"]) == (0, 0, 0)
    assert [link(node, port)["master"] for port in ("p1", "p2")] == ["br0", "br0"]
    with node.rtnl.batch() as batch:
        batch.set_master("p1", None)
    assert "master" not in link(node, "p1")


@sandboxed
def test_links_change_and_go() -> None:
    here, there = Node("h1"), Node("h2")
    with here.rtnl.batch() as batch:
        batch.add_veth("a", "b")
        batch.set_mtu("a", 9000)
        batch.set_mac("a", "02:00:00:00:00:01")
        batch.set_down("a")
    changed = link(here, "a")
    assert (changed["mtu"], changed["address"]) == (9000, "02:00:00:00:00:01")
    assert "UP" not in changed["flags"]
    with here.rtnl.batch() as batch:
        batch.rename("a", "uplink")
        batch.move("b", there.namespaces.net, new_name="eth0")
    assert (interfaces(here), interfaces(there)) == (["lo", "uplink"], ["lo", "eth0"])
    with here.rtnl.batch() as batch:
        batch.delete_link("uplink")
    assert (interfaces(here), interfaces(there)) == (["lo"], ["lo"])


@sandboxed
def test_addresses_come_with_their_broadcast_and_go() -> None:
    node = Node("h1")
    with node.rtnl.batch() as batch:
        batch.add_bridge("br0")
        batch.add_address("br0", IPv4Interface("10.211.55.3/24"))
        batch.add_address("br0", IPv4Interface("192.0.2.1/32"))
    (br0,) = shown(node, "-4", "address", "show", "dev", "br0")
    found = [(a["local"], a["prefixlen"], a.get("broadcast")) for a in br0["addr_info"]]
    assert found == [("10.211.55.3", 24, "10.211.55.255"), ("192.0.2.1", 32, None)]
    assert node.device_address("br0") == IPv4Interface("10.211.55.3/24")
    with node.rtnl.batch() as batch:
        batch.delete_address("br0", IPv4Interface("10.211.55.3/24"))
        batch.delete_address("br0", IPv4Interface("192.0.2.1/32"))
    assert node.device_address("br0") is None


@sandboxed
def test_routes_as_ip_route_would_make_them() -> None:
    ours, theirs = Node("ours"), Node("theirs")
    for node in (ours, theirs):
        node.add_bridge("br0")
        node.add_address("br0", "10.0.0.1/24")
    with ours.rtnl.batch() as batch:
        batch.add_route(IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.254"), device="br0")
        batch.add_route(IPv4Network("192.168.2.0/24"), via=IPv4Address("10.0.0.2"))
        batch.add_route(IPv4Network("192.168.3.0/24"), device="br0")
        batch.add_route(
            IPv4Network("192.168.4.0/24"), via=IPv4Address("192.168.4.1"), device="br0",
            onlink=True,
        )  # fmt: skip
    for typed in (
        "default via 10.0.0.254 dev br0",
        "192.168.2.0/24 via 10.0.0.2",
        "192.168.3.0/24 dev br0",
        "192.168.4.0/24 via 192.168.4.1 dev br0 onlink",
    ):
        theirs.configure(["ip", "route", "add", *typed.split()])
    assert shown(ours, "route") == shown(theirs, "route")

    with ours.rtnl.batch() as batch:
        batch.delete_route(IPv4Network("192.168.2.0/24"), via=IPv4Address("10.0.0.2"))
        batch.delete_route(IPv4Network("192.168.3.0/24"), device="br0")
    left = [route["dst"] for route in shown(ours, "route")]
    assert left == ["default", "10.0.0.0/24", "192.168.4.0/24"]


@sandboxed
def test_a_neighbour_entry_is_permanent() -> None:
    node = Node("h1")
    node.add_bridge("br0")
    node.add_address("br0", "10.0.0.1/24")
    with node.rtnl.batch() as batch:
        batch.add_neighbour("br0", IPv4Address("10.0.0.2"), "02:42:0a:00:00:02")
    (entry,) = shown(node, "neigh")
    assert (entry["dst"], entry["lladdr"]) == ("10.0.0.2", "02:42:0a:00:00:02")
    assert entry["state"] == ["PERMANENT"]


def joined() -> tuple[Node, Node]:
    """Two nodes on one cable: 10.0.0.1 and 10.0.0.2."""
    h1, h2 = Node("h1"), Node("h2")
    with h1.rtnl.batch() as batch:
        batch.add_veth("eth0", "eth0", peer_namespace=h2.namespaces.net)
    h1.add_address("eth0", "10.0.0.1/24")
    h2.add_address("eth0", "10.0.0.2/24")
    return h1, h2


@sandboxed
def test_neighbours_are_forgotten_but_permanent_ones_stay() -> None:
    """Entries that were learnt count towards a limit of the whole machine; permanent ones don't."""
    h1, _h2 = joined()
    with h1.rtnl.batch() as batch:
        batch.add_neighbour("eth0", IPv4Address("10.0.0.3"), "02:42:0a:00:00:03")
    h1.run(["ping", "-n", "-c1", "10.0.0.2"])
    assert {entry["dst"] for entry in shown(h1, "neigh")} == {"10.0.0.2", "10.0.0.3"}
    h1.rtnl.forget_neighbours()
    assert {entry["dst"] for entry in shown(h1, "neigh")} == {"10.0.0.3"}
    h1.run(["ping", "-n", "-c1", "10.0.0.2"])


@sandboxed
def test_neighbours_made_by_hand_are_forgotten_if_that_is_said() -> None:
    h1, _h2 = joined()
    mac = "02:42:0a:00:00:03"
    for number, state in enumerate(("permanent", "noarp", "reachable"), 3):
        entry = ["lladdr", mac, "nud", state, "dev", "eth0"]
        h1.run(["ip", "neigh", "add", f"10.0.0.{number}", *entry])
    assert len(shown(h1, "neigh", "show", "nud", "all", "to", "10.0.0.0/24")) == 3
    h1.rtnl.forget_neighbours(by_hand=True)
    left = shown(h1, "neigh", "show", "nud", "all", "to", "10.0.0.0/24")
    assert [entry for entry in left if entry.get("lladdr") == mac] == []


# -- what goes wrong -------------------------------------------------------------------------------


@sandboxed
def test_nobody_but_the_kernel_answers() -> None:
    """Root of a node may send to any netlink socket there is in its namespace."""
    node = Node("h1")
    with node.entered():
        stranger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    end = struct.pack("=IHHIIi", 20, 3, 0, node.rtnl._sequence + 1, 0, 0)
    with closing(stranger), pytest.raises(ConnectionRefusedError):
        stranger.sendto(end, (node.rtnl._socket.getsockname()[0], 0))
    assert node.rtnl.inactive() == []


@sandboxed
def test_an_answer_that_nobody_waited_for_is_not_the_next_ones() -> None:
    """Of a list that Ctrl-C has broken off, say."""
    node = Node("h1")
    with node.rtnl.batch() as batch:
        batch.add_veth("here", "there")
    for kind in (18, 30):  # RTM_GETLINK, RTM_GETNEIGH
        header = struct.pack("=IHHII", 32, kind, 0x301, 0, 0)
        node.rtnl._socket.send(header + bytes(16))
        node.set_up("there")
        assert set(node.rtnl._veths_with_carrier()) == {
            node.rtnl.index("here"), node.rtnl.index("there"),
        }  # fmt: skip


@sandboxed
def test_an_interface_that_somebody_keeps_dormant_is_not_waited_for() -> None:
    h1 = Node("h1")
    with h1.rtnl.batch() as batch:
        batch.add_veth("here", "there")
    h1.run(["ip", "link", "set", "here", "mode", "dormant"])
    h1.set_up("there")
    deadline = Deadline(PATIENCE_S)
    h1.rtnl.wait_until_active(deadline)
    assert not deadline.passed()
    assert link(h1, "here")["operstate"] == "DORMANT"


def refusal(node: Node, fill: Callable[[Batch], None]) -> NetlinkError:
    """The error that a batch filled by `fill` ends in."""

    def send() -> None:
        with node.rtnl.batch() as batch:
            fill(batch)

    with pytest.raises(NetlinkError) as met:
        send()
    return met.value


@sandboxed
def test_a_failure_names_the_operation_and_the_kernels_reason() -> None:
    node = Node("h1")

    def fill(batch: Batch) -> None:
        batch.add_bridge("br0")
        batch.add_address("br0", IPv4Interface("10.0.0.1/24"))
        batch.add_route(IPv4Network("192.168.2.0/24"), via=IPv4Address("10.9.9.9"))
        batch.add_route(IPv4Network("192.168.3.0/24"), via=IPv4Address("10.0.0.2"))

    error = refusal(node, fill)
    assert error.operation == "ip route add 192.168.2.0/24 via 10.9.9.9"
    assert error.errno == errno.ENETUNREACH
    # The sentence is the kernel's own (extended ACK), not that of the error number.
    assert "Nexthop has invalid gateway" in str(error)
    # What stood before and behind it has been done.
    assert [route["dst"] for route in shown(node, "route")] == ["10.0.0.0/24", "192.168.3.0/24"]


@sandboxed
def test_the_first_of_several_failures_is_told() -> None:
    node = Node("h1")

    def fill(batch: Batch) -> None:
        batch.add_bridge("br0")
        batch.set_up("nobody1")
        batch.set_up("nobody2")
        batch.set_up("br0")

    error = refusal(node, fill)
    assert (error.operation, error.errno) == ("ip link set nobody1 up", errno.ENODEV)


@sandboxed
def test_the_next_batch_starts_clean() -> None:
    """Answers to an earlier batch must not be taken for this one's."""
    node = Node("h1")

    def fill(batch: Batch) -> None:
        for number in range(5):
            batch.set_up(f"nobody{number}")

    for _ in range(3):
        assert refusal(node, fill).operation == "ip link set nobody0 up"
        with node.rtnl.batch() as batch:
            batch.set_up("lo")


@pytest.mark.parametrize("names", [("eth0", "eth0"), ("eth0", "b")])
@sandboxed
def test_a_name_that_is_taken(names: tuple[str, str]) -> None:
    node = Node("h1")
    node.add_bridge("eth0")
    error = refusal(node, lambda batch: batch.add_veth(*names))
    assert error.operation == f"ip link add {names[0]} up type veth peer name {names[1]}"
    assert error.errno == errno.EEXIST
    assert "exists" in str(error)


@sandboxed
def test_an_interface_that_is_not_there_is_named() -> None:
    node = Node("h1")
    error = refusal(node, lambda batch: batch.add_address("eth7", IPv4Interface("10.0.0.1/24")))
    assert (error.operation, error.errno) == ("look up eth7", errno.ENODEV)
    assert not node.rtnl.has("eth7")


@sandboxed
def test_what_goes_meanwhile_is_removed_as_well() -> None:
    """As the ends of veths do whose other ends are in a namespace that the kernel frees."""
    names = [str(number) for number in range(40)]
    with closing(Rtnl()) as here, closing(Rtnl()) as there, ThreadPoolExecutor(2) as both:
        with here.batch() as batch:
            for name in names:
                batch.add_veth(f"a{name}", f"b{name}")
        for name in names:
            list(both.map(Rtnl.remove_link, (here, there), (f"a{name}", f"b{name}")))
            assert not here.has(f"a{name}")
        with pytest.raises(NetlinkError) as met:
            here.remove_link("lo")
    assert met.value.errno == errno.EOPNOTSUPP


@sandboxed
def test_a_link_is_waited_for_until_it_takes_packets() -> None:
    # Ends with the same number in their namespaces are not urgent to the kernel: from the second
    # time within a second on, it comes to them up to a second later (linkwatch_urgent_event).
    waited = 0
    for number in range(4):
        near, far = Node(f"a{number}"), Node(f"b{number}")
        # Where tunnels' modules are loaded each namespace begins with devices of theirs.
        index = 1 + max(map(far.rtnl.index, far.interfaces()))
        near.rtnl.now.add_veth("eth0", "eth0", peer_namespace=far.namespaces.net, index=index)
        assert not near.rtnl.inactive(), "without a carrier there is nothing to wait for"
        near.rtnl.wait_until_active(Deadline(60))
        far.set_up("eth0")
        waited += far.rtnl.inactive() == [index]
        far.rtnl.wait_until_active(Deadline(60))
        assert not far.rtnl.inactive()
        facts = link(far, "eth0")
        assert (facts["ifindex"], facts["operstate"]) == (index, "UP")
    assert waited


@sandboxed
def test_a_link_is_asked_about_whatever_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of before where it went down and came up again, and the kernel has come to neither."""
    near, far = Node("a"), Node("b")
    near.rtnl.now.add_veth("eth0", "eth0", peer_namespace=far.namespaces.net)
    for node in (near, far):
        node.set_up("eth0")
    near.rtnl.wait_until_active(Deadline(60))
    assert not near.rtnl.inactive()
    asked = list[str]()

    def exchange(messages: list[tuple[int, int, bytes, str]]) -> None:
        asked.extend(command for *_, command in messages)

    monkeypatch.setattr(near.rtnl, "exchange", exchange)
    near.rtnl.wait_until_active(Deadline(60))
    assert asked == [f"ip link show {near.rtnl.index('eth0')}"]


@sandboxed
def test_a_failed_block_sends_nothing_more() -> None:
    node = Node("h1")

    def fill(batch: Batch) -> None:
        batch.add_bridge("br0")
        raise NetlinkError("a look-up", errno.ENODEV, "in vain")

    assert refusal(node, fill).operation == "a look-up"
    assert interfaces(node) == ["lo"]


# -- size ------------------------------------------------------------------------------------------


@sandboxed
def test_a_large_batch_goes_out_in_several_pieces() -> None:
    """3,000 routes are 200 kB, more than a socket sends at once by default."""
    node = Node("h1")
    node.add_bridge("br0")
    node.add_address("br0", "10.0.0.1/24")
    first = int(IPv4Address("172.16.0.0"))
    with node.rtnl.batch() as batch:
        for number in range(3000):
            batch.add_route(IPv4Network(first + number), via=IPv4Address("10.0.0.2"))
    assert len(shown(node, "route", "show", "via", "10.0.0.2")) == 3000


@sandboxed
def test_a_flood_of_failures_is_one_error() -> None:
    """Their answers, 64 kB and more, must not overflow the socket's receive buffer."""
    node = Node("h1")

    def fill(batch: Batch) -> None:
        for number in range(1000):
            batch.add_route(IPv4Network(f"172.16.{number % 250}.0/24"), via=IPv4Address("10.9.9.9"))

    assert refusal(node, fill).operation == "ip route add 172.16.0.0/24 via 10.9.9.9"


@sandboxed
def test_one_batch_makes_and_uses_what_it_made() -> None:
    node = Node("wire")
    with node.rtnl.batch() as batch:
        for number in range(50):
            batch.add_bridge(f"s{number}")
            batch.add_veth(f"s{number}-a", f"s{number}-b", master=f"s{number}")
            batch.add_address(f"s{number}", IPv4Interface(f"10.0.{number}.1/24"))
    assert len(interfaces(node)) == 1 + 150
    assert link(node, "s49-a")["master"] == "s49"
