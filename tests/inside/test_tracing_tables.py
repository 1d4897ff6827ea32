"""What tables say of a packet, on one line: Open vSwitch's above all, and anybody's at all.

The answers are those of Open vSwitch 3.5.0: see tests/data/ovs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import XlabError
from xlab.inside.tracing import tables
from xlab.kernel.packets import Packet
from xlab.kernel.processes import Completed
from xlab.lab.node import Node

TRACES = Path(__file__).parents[1] / "data" / "ovs"
SWITCH = {
    "name": "obr0",
    "ports": [
        {"name": "obr0", "type": "internal", "remote": None},
        {"name": "gre0", "type": "gre", "remote": "192.168.59.104"},
        {"name": "gre1", "type": "gre", "remote": "192.168.59.105"},
    ],
}
PING = Packet(
    bytes.fromhex("024200000001"), bytes.fromhex("024200000002"), 0x0800,
    IPv4Address("192.168.1.2"), IPv4Address("192.168.2.2"), 1,
)  # fmt: skip
FDB = " port  VLAN  MAC                Age\n    2     0  02:42:00:00:00:02    1\n"
PORTS = (
    "netdev@ovs-netdev: hit:0 missed:2\n  obr0:\n    gre0 2/2: (gre: remote_ip=192.168.59.104)\n"
)


class Told:
    """A node whose Open vSwitch gives these answers, by the command; it fails without one."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        self.asked.append(" ".join(argv))
        answer = self.answers.get(argv[2].replace("/", "_"))
        return Completed(tuple(argv), 0 if answer is not None else 2, answer or "", "", 0.0)


def entry(node: Told) -> str:
    return tables.switch_entry(cast(Node, node), SWITCH, PING)


TO_GRE0, TO_GRE1 = "gre0 gre to 192.168.59.104", "gre1 gre to 192.168.59.105"
NO_NEIGHBOUR = "neighbor cache miss for 192.168.59.104 on bridge eth0, sending ARP request"


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("known", f"NORMAL, forwarding to learned port, {TO_GRE0}"),
        ("kernel", f"NORMAL, forwarding to learned port, {TO_GRE0}"),
        ("unknown", f"NORMAL, no learned MAC for destination, flooding, {TO_GRE0}, {TO_GRE1}"),
        ("no-neighbour", f"NORMAL, forwarding to learned port, {NO_NEIGHBOUR}, {TO_GRE0}"),
        ("rule", "icmp, priority 100, drop"),
        ("no-rule", "No match, drop"),
    ],
)
def test_a_trace_on_one_line(trace: str, expected: str) -> None:
    node = Told(ofproto_trace=(TRACES / f"{trace}.txt").read_text())
    assert entry(node) == f"obr0 ofproto/trace: {expected}"
    (asked,) = node.asked
    assert asked.startswith("ovs-appctl --timeout=5 ofproto/trace obr0 in_port=LOCAL,")
    assert ",dl_src=02:42:00:00:00:01,dl_dst=02:42:00:00:00:02,dl_type=0x0800," in asked
    assert asked.endswith(",nw_src=192.168.1.2,nw_dst=192.168.2.2,nw_proto=1")


def test_without_a_trace_the_table_of_macs_says() -> None:
    node = Told(fdb_show=FDB, dpif_show=PORTS)
    assert entry(node) == "obr0 fdb: 02:42:00:00:00:02 port gre0 gre to 192.168.59.104"
    nothing_learnt = Told(fdb_show=FDB.splitlines()[0])
    assert entry(nothing_learnt) == (
        "obr0: no entry for 02:42:00:00:00:02, to all ports "
        "(gre0 gre to 192.168.59.104, gre1 gre to 192.168.59.105)"
    )
    assert entry(Told()) == "obr0: Open vSwitch does not answer"


def test_a_port_that_is_no_tunnel_is_named_by_the_table_of_macs() -> None:
    known = (TRACES / "known.txt").read_text()
    plain = "".join(line for line in known.splitlines(True) if "tunnel" not in line)
    node = Told(ofproto_trace=plain, fdb_show=FDB, dpif_show=PORTS)
    assert entry(node).startswith("obr0 fdb: 02:42:00:00:00:02 port gre0")


# -- any answer ------------------------------------------------------------------------------------

TARGET, MAC = IPv4Address("192.168.2.2"), "02:42:00:00:00:02"


class Saying:
    """A node whose every command prints the same."""

    def __init__(self, said: str) -> None:
        self.said = said

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        return Completed(tuple(argv), 0, self.said, "", 0.0)

    configure = run

    def listed(self, argv: Sequence[str]) -> list[dict[str, Any]]:
        return Node.listed(cast(Node, self), argv)


VALUES = st.sampled_from([MAC, "00:00:00:00:00:00", "192.168.2.2", "br0", "permanent", ["FAILED"]])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | VALUES,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ENTRIES = st.lists(
    st.dictionaries(st.sampled_from(["mac", "dst", "state", "master", "ifname"]), ANYTHING),
    max_size=4,
).map(json.dumps)
WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["192.168.2.2", "via", "inet6", "fe80::1", "dev", "eth0", "local", "src", "unreachable",
             "*filter", ":FORWARD DROP [3:9]", "[5:1] -A FORWARD -j DROP", "IPReversePathFilter",
             "TcpExt:", "9" * 5000, MAC, "2 0", "(", "LOCAL", "\n", "    gre0 2/2:", "  obr0:"]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map(" ".join)  # fmt: skip
TRACED = st.builds(
    lambda text, at, other: text[:at] + other + text[at:],
    st.sampled_from([path.read_text() for path in sorted(TRACES.glob("*.txt"))] + [FDB, PORTS]),
    st.integers(0, 2000),
    WORDS,
)
SAID = st.one_of(ENTRIES, ANYTHING.map(json.dumps), WORDS, TRACED, st.text())


@given(SAID)
@example(FDB.replace("    2 ", "    ( "))
@example("192.168.2.2 dev")
@example("192.168.2.2 via inet6 fe80::1 dev eth0")
@example("*filter\n[" + "9" * 5000 + ":1] -A FORWARD -j DROP")
@example("IPReversePathFilter\n" + "9" * 5000)
@example('[{"dst": "192.168.2.2", "state": true}]')
@example("[" * 100_000)
def test_whatever_a_tool_says_is_a_line_or_an_error_of_ours(said: str) -> None:
    node = cast(Node, Saying(said))
    for look in (
        lambda: tables.route(node, TARGET),
        lambda: tables.bridge_entry(node, "br0", MAC),
        lambda: tables.vxlan_entry(node, "vxlan0", MAC),
        lambda: tables.switch_entry(node, SWITCH, PING),
        lambda: tables._learnt(node, SWITCH, PING),
    ):
        assert isinstance(attempt(look, XlabError), str)
    for asked in (
        lambda: tables.unanswered(node, TARGET, "eth0"),
        lambda: tables.turned_away(node, "br0", "eth0", MAC),
    ):
        assert isinstance(attempt(asked, XlabError), bool | str)
    hop = attempt(lambda: tables.next_hop(tables.route(node, TARGET), TARGET), XlabError)
    assert hop is None or isinstance(hop, Refusal) or isinstance(hop[0], IPv4Address)
    assert all(isinstance(count, int) for count in tables.dropped(node).values())


@given(st.sets(st.sampled_from(["gre0", "gre1", "eth0"]), min_size=1), st.data())
def test_a_bridge_names_the_port_of_the_address(ports: set[str], data: st.DataObject) -> None:
    """The right answer among entries of others, whatever order they come in."""
    right = data.draw(st.sampled_from(sorted(ports)))
    table = [
        {
            "mac": MAC if port == right else f"02:42:00:00:01:{n:02x}",
            "ifname": port,
            "master": "br0",
        }
        for n, port in enumerate(sorted(ports))
    ]
    said = json.dumps(data.draw(st.permutations(table)))
    node = cast(Node, Saying(said))
    assert tables.bridge_entry(node, "br0", MAC) == f"br0 fdb: {MAC} dev {right}"


def test_what_a_host_says_without_end_is_read_in_one_go() -> None:
    """Its ovs-appctl may be anything; a regular expression that begins anew holds pid 1 up."""
    traced = f'bridge("obr0")\n 0. in_port=1\nFinal flow:{"tunnel(" * 200_000}dst=192.0.2.1'
    assert "192.0.2.1" in tables._decided(traced, "obr0", {})
