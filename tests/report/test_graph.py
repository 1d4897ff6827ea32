"""Graphs of labs: names that mean something to Mermaid or to SVG stay text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from xlab.report import graph, picture
from xlab.report.picture import Network

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
