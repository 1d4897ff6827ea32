"""One ICMP echo each, as `ping -c1` sends it, without a process for it.

`reachability` asks again until a time-out, since a claim is about whether there is a way at all.
Mininet's ping is a measurement: what is lost stays lost.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address

from xlab.kernel.clock import Deadline
from xlab.lab.node import Node
from xlab.lab.reachability import ECHO_REPLY, echo_request, echo_socket, echoes_in
from xlab.mininet.machine import inside

#: Echoes under way at once: a link that queues few packets loses none of so few.
_WINDOW = 16

#: Two ARP entries a pair must stay below the machine's 1,024, in whatever state.
_PAIRS_REMEMBERED = 200


class Neighbours:
    """Keeps many pings from filling the kernel's one ARP table for all namespaces."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = list(dict.fromkeys(nodes))
        self._pairs = 0

    def expect(self, pairs: int) -> None:
        """So many pairs will be resolved next: forget the earlier ones if it gets tight."""
        self._pairs += pairs
        if self._pairs > _PAIRS_REMEMBERED:
            for node in self._nodes:
                node.rtnl.forget_neighbours()
            self._pairs = pairs


def answered(
    source: Node, targets: Sequence[IPv4Address], *, timeout_s: float, neighbours: Neighbours
) -> set[IPv4Address]:
    """Those of `targets` whose reply to one echo came back within `timeout_s`."""
    with inside(lambda: echo_socket(source)) as channel:
        found: set[IPv4Address] = set()
        for start in range(0, len(targets), _WINDOW):
            window = targets[start : start + _WINDOW]
            neighbours.expect(len(window))
            found |= _exchange(channel, window, Deadline(timeout_s))
        return found


def _exchange(
    channel: socket.socket, targets: Sequence[IPv4Address], deadline: Deadline
) -> set[IPv4Address]:
    identifier = int.from_bytes(os.urandom(2), "big")
    waiting: dict[int, IPv4Address] = {}
    for sequence, target in enumerate(targets):
        try:
            channel.sendto(echo_request(identifier, sequence), (str(target), 0))
        except OSError:
            continue  # no route: as ping says, and sends nothing
        waiting[sequence] = target
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    found: set[IPv4Address] = set()
    while waiting and (left_s := deadline.left_s()):
        poller.poll(left_s * 1e3)
        for kind, sequence in echoes_in(channel, identifier):
            if sequence in waiting:
                target = waiting.pop(sequence)
                if kind == ECHO_REPLY:
                    found.add(target)
    return found
