"""What is told of a node's interfaces."""

from __future__ import annotations

from tests.support.labs import sandboxed
from xlab.lab.network import devices
from xlab.lab.node import Node


@sandboxed
def test_a_fallback_tunnel_that_somebody_uses_is_shown() -> None:
    """By its name alone it is one; a port of a bridge that is down explains what is lost."""
    node = Node("h1")
    with node.rtnl.batch() as batch:
        batch.add_bridge("br0")
        batch.add_veth("other", "gretap0")
    before = node.rtnl.has("gretap0")
    assert (before, "gretap0" in {device["name"] for device in devices(node)}) == (True, False)
    node.rtnl.now.set_master("gretap0", "br0")
    (found,) = (device for device in devices(node) if device["name"] == "gretap0")
    assert (found["bridge"], found["up"]) == ("br0", False)
