"""What a record tells of its network, and the picture made of that."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import sample
from tests.support.reports import Page, hostile
from xlab.kernel.packets import Encapsulation
from xlab.record.record import Node, PathProof, RunRecord
from xlab.report import picture
from xlab.report.picture import Box
from xlab.report.topology import network, proved, way


def proof(told: RunRecord, **changed: Any) -> PathProof:
    assert told.path is not None
    return replace(told.path, **changed)


# -------------------------------------------------------------------------- the way of a packet


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("baseline", "h1 → eth0 → the wire (plain IP, MTU 1500) → eth0 → h2"),
        ("bridge", "h1/c1 → br0 → eth0 → the wire (plain IP, MTU 1500) → eth0 → br0 → h2/c1"),
        (
            "ovs-gre",
            "h1/c1 → br0 → obr0 → gre0 → eth0 → the wire (GRE, IP protocol 47, MTU 1500) → …",
        ),
        (
            "ovs-gre-underlay",
            "h1/c1 → br0 → eth0 → the wire (plain IP, MTU 1500) → eth0 → br0 → h2/c1",
        ),
        (
            "weave",
            "h1/c1 → weave → weave router → eth0 → the wire (sleeve, UDP 6783, MTU 1500) → …",
        ),
        (
            "weave-fastdp",
            "h1/c1 → weave → vxlan-6784 → eth0 → the wire (VXLAN over UDP, MTU 1500) → …",
        ),
    ],
)
def test_the_way_of_a_packet_is_that_which_was_proved(name: str, expected: str) -> None:
    found = way(sample(name))
    there, wire, back = re.split(r" → (the wire \(.*\)) → ", found)
    end = "h5" if name.startswith("weave") else "h2"
    # The last host is passed in the opposite order.
    assert back.split(" → ") == [p.replace("h1", end) for p in reversed(there.split(" → "))]
    assert found == expected.replace("…", back)
    assert wire in found


def boxes(told: RunRecord) -> dict[str, Box]:
    """Those of the first host, and the wire, by name."""
    shown = network(told)
    return {box.name: box for box in shown.sites[0].boxes} | {"wire": shown.switches[0]}


def test_where_the_tunnel_is_bypassed_it_is_there_but_off_the_path() -> None:
    shown = boxes(sample("ovs-gre-underlay"))
    assert [name for name, box in shown.items() if not box.on_path] == ["c2", "obr0", "gre0"]
    assert shown["gre0"].notes == ("bypassed",)


def test_with_several_peers_a_host_has_several_gre_ports() -> None:
    told = sample("ovs-gre")
    shown = boxes(replace(told, parameters={**told.parameters, "hosts": 4}))
    assert "gre0 … 2" in shown
    assert "and 2 more hosts" in shown["wire"].notes


@pytest.mark.parametrize(
    ("name", "overhead"), [("ovs-gre", 38), ("weave", 62), ("weave-fastdp", 50), ("bridge", 0)]
)
def test_the_headers_on_the_wire_are_as_long_as_the_overhead_that_was_measured(
    name: str, overhead: int
) -> None:
    told = sample(name)
    *headers, _ = boxes(told)["wire"].frame
    assert sum(int(size) for _, size in headers) == overhead + 14
    # Where they would not be, nobody knows what they are.
    other = boxes(replace(told, path=proof(told, overhead_bytes=overhead + 4)))
    assert other["wire"].frame[:-1] == (("Eth", "14"),)


def test_a_scenario_that_nobody_here_knows_has_no_inside() -> None:
    told = replace(sample("bridge"), scenario="my-own")
    assert list(boxes(told)) == ["c1", "c2", "eth0", "wire"]
    assert way(told) == "h1/c1 → eth0 → the wire (plain IP, MTU 1500) → eth0 → h2/c1"


def test_what_was_not_proved_is_not_said_to_be() -> None:
    told = sample("ovs-gre")
    nothing = replace(told, path=None, measurements=())
    assert not proved(nothing)
    assert boxes(nothing)["wire"].notes == ("one switch, MTU 1500",)
    counts = replace(proof(told).underlay_packets, gre=3)
    doubtful = replace(told, path=proof(told, underlay_packets=counts, proved=False))
    assert boxes(doubtful)["wire"].notes[0] == "✗ 3 of 20 packets of the proof"


# ------------------------------------------------------------------------------------- addresses


def words(told: RunRecord) -> list[str]:
    return [e.text for e in drawn(told).all("text")]


def with_nodes(told: RunRecord, *, address: str = "10.0.0.9") -> RunRecord:
    nodes = (
        Node("h1", "host", "10.0.0.1", {"br0": "10.0.0.1/24", "eth0": "10.9.9.1/24"}),
        Node("h1/c1", "container", "10.0.0.7", {"eth0": "10.0.0.7/24"}),
        Node("h2/c1", "container", address, {"eth0": f"{address}/24"}),
    )
    return replace(told, nodes=nodes)


def test_addresses_are_those_of_the_nodes() -> None:
    shown = words(with_nodes(sample("bridge")))
    for expected in ("10.0.0.1", "10.0.0.1/24", "10.0.0.7", "10.0.0.9", "10.9.9.1/24"):
        assert shown.count(expected) == 1
    # What has no address is called what it is.
    assert shown.count("a port of br0") == 1


def test_a_record_without_nodes_is_drawn_without_addresses() -> None:
    assert not [said for said in words(sample("bridge")) if re.search(r"\d\.\d", said)]


@given(st.text(max_size=60))
def test_any_text_gives_a_picture(said: str) -> None:
    assert_all_inside(drawn(with_nodes(sample("ovs-gre"), address=said)))


# ------------------------------------------------------------------------------------- the picture


def drawn(told: RunRecord) -> Page:
    return Page(picture.draw(network(told), "x", width=340))


@pytest.mark.parametrize(
    "scenario",
    [
        "weave",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("ovs-gre", "else", "baseline", "bridge")
        ),
    ],
)
def test_every_box_and_word_is_inside_the_picture(scenario: str) -> None:
    kinds: tuple[Encapsulation, ...] = ("none", "gre", "vxlan", "geneve", "sleeve")
    for encapsulation, containers in product(kinds, (0, 1, 3, 4, 99)):
        told = sample("ovs-gre")
        told = replace(
            told,
            scenario=scenario,
            parameters={
                "hosts": 9, "containers": containers, "mtu": 9000, "topo": "tree,depth=3,fanout=4",
            },
            path=proof(told, encapsulation=encapsulation, proved=containers != 3),
        )  # fmt: skip
        assert_all_inside(drawn(told))


def assert_all_inside(found: Page) -> None:
    (svg,) = found.all("svg")
    _, _, width, height = map(float, str(svg.attributes["viewbox"]).split())
    for box in found.all("rect"):
        x, y, w, h = (float(str(box.attributes[key])) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        assert w > 0
    for word in found.all("text"):
        assert 0 < float(str(word.attributes["x"])) < width
        assert 0 < float(str(word.attributes["y"])) < height


def test_the_way_is_one_line_and_dashed_where_it_was_not_proved() -> None:
    for name, doubtful in (("ovs-gre", False), ("bridge-failed", True)):
        ways = [
            str(e.attributes["class"])
            for e in drawn(sample(name)).all("line")
            if e.attributes["class"] != "p-link" and "p-sign" not in str(e.attributes["class"])
        ]
        assert len(ways) >= 6
        assert set(ways) == {"p-doubt" if doubtful else "p-way"}


def test_the_picture_shows_names_addresses_mtu_and_what_is_on_the_wire() -> None:
    told = sample("weave")
    told = replace(
        told, conditions=replace(told.conditions, delay_ms=5.0, rate_bits_per_second=1e8)
    )
    shown = words(told)
    for expected in (
        "h1", "h5", "c1 · ethwe", "+ 2 more", "weave", "weave router",
        "UDP port 6783", "eth0", "sleeve, UDP 6783", "✓ 20 of 20 packets of the proof",
        "one switch, MTU 1500", "rate 100 Mbit/s, delay 5.00 ms", "and 3 more hosts", "sleeve",
        "20", "IP ≤ 1438",
    ):  # fmt: skip
        assert expected in shown


def test_names_that_are_too_long_are_cut_not_spilled() -> None:
    found = drawn(hostile())
    assert all(len(e.text) <= 50 for e in found.all("text"))
    assert not found.all("script")
