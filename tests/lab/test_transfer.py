"""A transfer leaves nothing behind on the link."""

from __future__ import annotations

import time
from ipaddress import IPv4Network

from tests.support.labs import machine, sandboxed
from xlab.lab import underlay
from xlab.lab.capture import Capture
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.chooser import choose
from xlab.lab.lab import Conditioned, Lab
from xlab.lab.transfer import transfer

_IPV4 = b"\x08\x00"
#: Each way, of one of the links between the hosts.
_DELAY_S = 0.1


@sandboxed
def test_a_transfer_ends_with_its_last_packet() -> None:
    """What came later would be a stray in the capture of the path, which begins just then."""
    described = underlay.describe(None, hosts=2)
    slow = LinkConditions(delay_ms=1000 * _DELAY_S)
    uplink = described.uplink_of("h1").a.interface
    lab = Lab(described, conditions={uplink: Conditioned(slow, choose(slow, machine()))})
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    h1, h2 = lab.hosts
    assert transfer(h1, h2, 10_000, timeout_s=30) == (10_000, "same SHA-256")
    with Capture(lab.wire, described.uplink_of("h2").a.interface) as capture:
        time.sleep(5 * _DELAY_S)
        packets = [frame for _, frame in capture.frames if frame[12:14] == _IPV4]
    assert not packets
