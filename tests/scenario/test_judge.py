"""What judging works out without a lab."""

from __future__ import annotations

from typing import Any

import pytest

from xlab.record.judgement import Carried, Judgement, Stage
from xlab.record.record import UnderlayPackets
from xlab.scenario.found import _routes
from xlab.scenario.looks import has_loop


@pytest.mark.parametrize(
    ("links", "forwarding", "loop"),
    [
        ("12 23 31", "123", True),
        ("12 23 31", "12", False),  # split horizon at one of them opens it
        ("12 23 31", "", False),
        ("12 13 14", "1234", False),  # a star
        ("12 23 34 41 45", "12345", True),
        ("12 23 34 45", "12345", False),
        ("", "1", False),
    ],
)
def test_tunnels_make_a_loop_where_each_host_of_it_forwards(
    links: str, forwarding: str, loop: bool
) -> None:
    found: Any = {frozenset(link) for link in links.split()}
    hosts: Any = set(forwarding)
    assert has_loop(found, hosts) is loop


def test_routes_as_ip_lists_them() -> None:
    def text(raw: dict[str, Any]) -> list[str]:
        return [route.text for route in _routes(raw)]

    (default,) = _routes({"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"})
    assert (default.is_default, str(default.via), default.device) == (True, "10.0.0.1", "eth0")
    (nowhere,) = _routes({"type": "unreachable", "dst": "10.1.0.0/16", "dev": "lo"})
    assert (nowhere.device, nowhere.text) == ("", "unreachable 10.1.0.0/16 dev lo")
    (single,) = _routes({"dst": "10.1.0.7", "dev": "br0"})
    assert (single.destination.prefixlen, single.via) == (32, None)
    hops = [{"gateway": "10.0.0.2", "dev": "a"}, {"gateway": "fe80::1", "dev": "b"}]
    assert text({"dst": "10.1.0.0/16", "nexthops": hops}) == [
        "10.1.0.0/16 via 10.0.0.2 dev a", "10.1.0.0/16 via fe80::1 dev b"
    ]  # fmt: skip
    assert text({"dst": "anything"}) == []


def test_a_judgement_holds_when_each_stage_does_or_is_not_what_is_there() -> None:
    assert Judgement((Stage("a", "holds"), Stage("b", "passed over"))).holds
    for stage in (Stage("b", "fails"), Stage("b", "not yet"), Stage("b", "after that")):
        assert not Judgement((Stage("a", "holds"), stage)).holds
    assert Carried("h1", "h2", UnderlayPackets(gre=20, none=1, stray=5)).seen() == [
        ("none", 1), ("gre", 20)
    ]  # fmt: skip
