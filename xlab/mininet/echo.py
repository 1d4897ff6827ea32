"""One ICMP echo each, as `ping -c1` sends it, without a process for it.

`reachability` asks again until a time-out, since a claim is about whether there is a way at all.
Mininet's ping is a measurement: what is lost stays lost.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from ipaddress import IPv4Address

from xlab.kernel.clock import Deadline
from xlab.lab.node import Node
from xlab.lab.reachability import echo_request
from xlab.mininet.machine import inside

_ECHO_REPLY, _UNREACHABLE = 0, 3

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
    with closing(inside(lambda: _socket(source))) as channel:
        found: set[IPv4Address] = set()
        for start in range(0, len(targets), _WINDOW):
            window = targets[start : start + _WINDOW]
            neighbours.expect(len(window))
            found |= _exchange(channel, window, Deadline(timeout_s))
        return found


def _socket(node: Node) -> socket.socket:
    with node.entered():
        channel = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    channel.setblocking(False)
    return channel


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
        for kind, sequence in _received(channel, identifier):
            if sequence in waiting:
                target = waiting.pop(sequence)
                if kind == _ECHO_REPLY:
                    found.add(target)
    return found


def _received(channel: socket.socket, identifier: int) -> list[tuple[int, int]]:
    """(ICMP type, sequence) of what has come in about our echoes: replies, and "unreachable"."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            packet = channel.recv(2048)
        except BlockingIOError:
            return found
        except OSError:
            continue  # the kernel's word for an unreachable host, which comes as ICMP as well
        message = packet[(packet[0] & 0xF) * 4 :]
        if len(message) < 8:
            continue
        kind = message[0]
        if kind == _UNREACHABLE and len(message) >= 36:
            # It holds what it is about: an IPv4 header and our echo (RFC 792).
            echo = message[8:][(message[8] & 0xF) * 4 :]
        elif kind == _ECHO_REPLY:
            echo = message
        else:
            continue
        if len(echo) >= 8:
            number, sequence = struct.unpack_from("!HH", echo, 4)
            if number == identifier:
                found.append((kind, sequence))
