"""What a record tells of its network, and the picture made of that."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report_support import Page, hostile, sample
from xlab.kernel.packets import Encapsulation
from xlab.record.record import Claim, PathProof, RunRecord
from xlab.report import picture
from xlab.report.topology import Topology, addresses, topology, way


def claim(id: str, **fields: Any) -> Claim:  # noqa: A002 - a claim has an `id`
    given: dict[str, Any] = {
        "stage": "s", "text": "t", "expected": "e", "observed": "o", "holds": True, **fields
    }  # fmt: skip
    return Claim(id, **given)


def with_claims(told: RunRecord, *claims: Claim) -> RunRecord:
    return replace(told, claims=claims, measurements=())


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
    found = way(topology(sample(name)))
    there, wire, back = re.split(r" → (the wire \(.*\)) → ", found)
    end = "h5" if name.startswith("weave") else "h2"
    # The last host is passed in the opposite order.
    assert back.split(" → ") == [p.replace("h1", end) for p in reversed(there.split(" → "))]
    assert found == expected.replace("…", back)
    assert wire in found


def test_where_the_tunnel_is_bypassed_it_is_there_but_off_the_path() -> None:
    shown = topology(sample("ovs-gre-underlay"))
    assert [(part.name, part.on_path) for part in shown.first.between] == [
        ("obr0", False),
        ("gre0", False),
    ]
    assert shown.first.between[1].note == "bypassed"


def test_with_several_peers_a_host_has_several_gre_ports() -> None:
    told = sample("ovs-gre")
    shown = topology(replace(told, parameters={**told.parameters, "hosts": 4}))
    assert shown.first.between[1].name == "gre0 … 2"
    assert shown.more_hosts == 2


@pytest.mark.parametrize(
    ("name", "overhead"), [("ovs-gre", 38), ("weave", 62), ("weave-fastdp", 50), ("bridge", 0)]
)
def test_the_headers_on_the_wire_are_as_long_as_the_overhead_that_was_measured(
    name: str, overhead: int
) -> None:
    shown = topology(sample(name))
    assert sum(size for _, size in shown.headers) == overhead + 14
    # Where they would not be, nobody knows what they are.
    told = sample(name)
    other = topology(replace(told, path=proof(told, overhead_bytes=overhead + 4)))
    assert other.headers == (("Ethernet", 14),)


def test_a_scenario_that_nobody_here_knows_has_no_inside() -> None:
    shown = topology(replace(sample("bridge"), scenario="my-own"))
    assert shown.first.bridge is None
    assert shown.first.between == ()
    assert way(shown) == "h1/c1 → eth0 → the wire (plain IP, MTU 1500) → eth0 → h2/c1"


def test_what_was_not_proved_is_not_said_to_be() -> None:
    told = sample("ovs-gre")
    shown = topology(replace(told, path=None, measurements=()))
    assert (shown.encapsulation, shown.proved, shown.packets) == ("gre", False, None)
    counts = replace(proof(told).underlay_packets, gre=3)
    shown = topology(replace(told, path=proof(told, underlay_packets=counts, proved=False)))
    assert (shown.proved, shown.packets) == (False, "3 of 20 packets")


# ------------------------------------------------------------------------------------- addresses


def test_addresses_are_those_that_commands_and_their_output_show() -> None:
    told = with_claims(
        sample("bridge"),
        claim("x", evidence="h1$ ip -brief -4 address\nlo  UNKNOWN  127.0.0.1/8 \n"
              "br0   UP   10.211.55.3/24"),
        claim("h1-addresses-from-fixed-cidr", observed="['10.211.55.64', '10.211.55.65']"),
        claim("h1-c1-reaches-h2", evidence="h1/c1$ ping -n -c1 10.211.55.4\nPING 10.211.55.4"),
        claim("h1-c1-transfers-to-h2-c1", evidence="TCP h1/c1 > 10.211.55.128"),
    )  # fmt: skip
    assert addresses(told) == {
        "h1 br0": "10.211.55.3/24",
        "h1": "10.211.55.3",
        "h1/c1": "10.211.55.64",
        "h1/c2": "10.211.55.65",
        "h2": "10.211.55.4",
        "h2/c1": "10.211.55.128",
    }


def test_a_measurement_shows_the_address_of_its_target() -> None:
    told = sample("bridge")
    (first, *_) = told.measurements
    for command in (
        "ping -n -c 21 -i 0.01 -W 2 10.0.0.7",
        "iperf3 -4 -c 10.0.0.7 --json -i 0.1",
        "netperf -4 -P 0 -H 10.0.0.7 -l -7500",
    ):
        measured = replace(first, direction="h1/c1 > h2/c1", detail={"command": command})
        assert addresses(replace(told, claims=(), measurements=(measured,))) == {
            "h2/c1": "10.0.0.7"
        }
        plain = replace(measured, route="baseline")
        assert addresses(replace(told, claims=(), measurements=(plain,))) == {}


def test_containers_that_share_an_address_are_shown_with_it() -> None:
    told = with_claims(
        sample("bridge-failed"),
        claim(
            "addresses-never-collide",
            observed="2 addresses; shared: 10.0.0.1: h1/c1, h2/c1; 10.0.0.2: h1/c2, h2/c2",
            holds=False,
        ),
    )
    assert addresses(told) == {
        "h1/c1": "10.0.0.1", "h2/c1": "10.0.0.1", "h1/c2": "10.0.0.2", "h2/c2": "10.0.0.2",
    }  # fmt: skip


def test_addresses_in_order_are_told_apart_only_where_each_host_has_a_subnet() -> None:
    known = addresses(sample("ovs-gre-underlay"))
    assert (known["h1/c2"], known["h2/c2"]) == ("192.168.1.3", "192.168.2.3")
    # Weave gives the second host the first addresses: sorted, they would be drawn on the wrong one.
    evidence = "192.168.1.2-192.168.1.3, 192.168.1.10-192.168.1.11"
    told = with_claims(sample("weave"), claim("addresses-never-collide", evidence=evidence))
    assert addresses(told) == {}


@pytest.mark.parametrize(
    "written", ["999.1.1.1", "1.2.3", "1.2.3.4.5.6", "", "\u0661.\u0662.\u0663.\u0664"]
)
def test_what_is_no_address_is_not_shown_as_one(written: str) -> None:
    told = with_claims(
        sample("baseline"), claim("x", text="h2/c1 has the same address as h1/c1: x",
                                  observed=written)
    )  # fmt: skip
    assert addresses(told) == {}


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=120))
def test_any_text_gives_a_topology(id_: str, observed: str, evidence: str) -> None:
    told = sample("ovs-gre")
    claims = (claim(id_, text=evidence, observed=observed, evidence=f"h1$ {evidence} address\n"),)
    drawn(topology(replace(told, claims=claims)))


# ------------------------------------------------------------------------------------- the picture


def drawn(shown: Topology) -> Page:
    return Page(picture.draw(shown, "x"))


@pytest.mark.parametrize("scenario", ["baseline", "bridge", "ovs-gre", "weave", "else"])
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
        assert_all_inside(drawn(topology(told)))


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
            for e in drawn(topology(sample(name))).all("path")
            if "p-way" in str(e.attributes["class"])
        ]
        assert len(ways) >= 5
        assert all(("p-doubt" in kind) == doubtful for kind in ways)


def test_the_picture_shows_names_addresses_mtu_and_what_is_on_the_wire() -> None:
    told = sample("weave")
    told = replace(
        told, conditions=replace(told.conditions, delay_ms=5.0, rate_bits_per_second=1e8)
    )
    words = [e.text for e in drawn(topology(told)).all("text")]
    for expected in (
        "h1", "h5", "c1 · ethwe", "192.168.1.34", "+ 2 more", "weave", "weave router",
        "UDP port 6783", "eth0", "sleeve, UDP 6783", "✓ 20 of 20 packets of the proof",
        "one switch, MTU 1500", "rate 100 Mbit/s, delay 5.00 ms", "and 3 more hosts", "sleeve",
        "20", "IP ≤ 1438",
    ):  # fmt: skip
        assert expected in words


def test_names_that_are_too_long_are_cut_not_spilled() -> None:
    found = drawn(topology(hostile()))
    assert all(len(e.text) <= 41 for e in found.all("text"))
    assert not found.all("script")
