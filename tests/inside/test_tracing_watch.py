"""Frames of several nodes: what is kept of them, and when that ends."""

from __future__ import annotations

from tests.support.labs import PATIENCE_S, sandboxed
from xlab.inside.tracing.watch import Watch
from xlab.kernel.processes import wait_until
from xlab.lab.node import Node


@sandboxed
def test_a_link_that_is_never_silent_is_watched_to_the_end() -> None:
    h1, h2 = Node("h1"), Node("h2")
    with h1.rtnl.batch() as batch:
        batch.add_veth("eth0", "eth0", peer_namespace=h2.namespaces.net)
    h1.add_address("eth0", "10.0.0.1/24")
    h2.add_address("eth0", "10.0.0.2/24")
    with h1.start(["ping", "-q", "-i", "0.005", "10.0.0.2"]), Watch([h1, h2]) as watch:
        wait_until(
            lambda: {frame.node for frame in watch.frames} == {"h1", "h2"},
            timeout_s=PATIENCE_S,
            awaited="frames of both",
        )
    times = [frame.time_ns for frame in watch.frames]
    assert max(times) - min(times) < PATIENCE_S * 1e9
