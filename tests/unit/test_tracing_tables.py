"""What Open vSwitch says that it would do with a frame, on one line.

The answers are those of Open vSwitch 3.5.0: see tests/data/ovs.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from xlab.lab.node import Node
from xlab.packets import Packet
from xlab.processes import Completed
from xlab.tracing import tables

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
