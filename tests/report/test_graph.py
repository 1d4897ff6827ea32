"""Graphs of labs: names that mean something to Mermaid or to SVG stay text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from xlab.report import graph, picture
from xlab.report.picture import Box, Cable, Network, Site

_HOSTILE = '<b>"#end;&'


def device(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "veth", "mtu": 1500, "up": True, "addresses": [], "bridge": None,
        "peer": None, "remotes": [], **facts,
    }  # fmt: skip


def node(name: str, kind: str, *devices: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "host": None, "up": True, "forwards": False,
        "devices": list(devices), "switches": [], "router": None, **facts,
    }  # fmt: skip


def lab() -> Network:
    port = device("s1-eth1", bridge=_HOSTILE, peer="end:eth0")
    wire = node("wire", "wire", device(_HOSTILE, kind="bridge"), port)
    host = node("end", "host", device("eth0", peer="wire:s1-eth1", up=False))
    down = node("h2", "host", up=False)
    return graph.network("lab", "bridge", [host, down, wire], [f"cut {_HOSTILE}"])


def test_mermaid_keeps_text_as_text() -> None:
    written = graph.as_mermaid(lab())
    assert "#lt;b#gt;#quot;#35;end;#amp;" in written
    # Quotes come in pairs around what is text, and a bare "end" ends a subgraph.
    outside = re.sub(r'"[^"]*"', "", written)
    assert '"' not in outside
    assert outside.count("subgraph ") == len(re.findall(r"(?m)^ *end$", outside)) == 2
    shown = re.sub(r"(?m)^ *%%.*$|^ *end$", "", outside)
    assert not re.search(r"\bend\b", shown)


def test_svg_is_well_formed_and_says_what_is_down() -> None:
    root = ET.fromstring(picture.document(lab()))
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert _HOSTILE in words
    assert f"fault: cut {_HOSTILE}" in words
    assert "down" in words
    classes = [element.get("class") for element in root.iter()]
    assert classes.count("p-link p-down") == classes.count("p-part p-down") == 1
    assert classes.count("p-host p-down") == 1


def test_text_says_what_is_down() -> None:
    written = graph.as_text(lab())
    assert "\nh2  down\n" in written
    assert "└ eth0  MTU 1500  DOWN\n" in written
    assert f"── wire:{_HOSTILE}  s1-eth1  DOWN" in written


def test_a_legend_has_what_occurs_and_nothing_else() -> None:
    def signs(shown: Network) -> list[str | None]:
        found = [e.get("class") for e in ET.fromstring(picture.document(shown)).iter()]
        return [each for each in found if each and each.startswith("p-sign ")]

    assert signs(lab()) == [
        "p-sign p-host", "p-sign p-part", "p-sign p-part p-down", "p-sign p-link"
    ]  # fmt: skip
    assert graph.as_text(lab()).endswith("\n\n── cable, bridge port\n")
    tunnel = Cable("h1:a", "h2:a", kind="tunnel")
    sites = tuple(Site(h, (Box(f"{h}:a", "a", (), 2),)) for h in ("h1", "h2"))
    tunnelled = Network("", sites, (Box("wire:s1", "s1", (), 4),), (tunnel,))
    assert signs(tunnelled) == ["p-sign p-host", "p-sign p-part", "p-sign p-tunnel"]
    assert graph.as_text(tunnelled).endswith("\n\n══ tunnel between hosts\n")
