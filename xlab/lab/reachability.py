"""Who reaches whom: many ICMP echoes at once, from sockets made inside the nodes.

One raw socket for each source, no process: a full matrix of 32 containers (992 pairs) takes tens of
milliseconds where a `ping` each would take seconds.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from itertools import permutations

from xlab.lab.node import Node

_ECHO_REQUEST, _ECHO_REPLY = 8, 0

#: Echoes in flight between two reads: well below what a socket buffers.
_WINDOW = 256
_RESEND_AFTER_S = 0.4

#: Pairs at a time: two ARP entries each stay well below the machine's 1,024.
_PORTION = 200


def sample_pairs(nodes: Sequence[Node], *, most: int = 2000) -> list[tuple[Node, Node]]:
    """All ordered pairs, or a random `most` of them, the same ones for the same nodes."""
    if len(nodes) * (len(nodes) - 1) <= most:
        return list(permutations(nodes, 2))
    chooser = random.Random(len(nodes))
    pairs: dict[tuple[str, str], tuple[Node, Node]] = {}
    while len(pairs) < most:
        a, b = chooser.sample(nodes, 2)
        pairs[a.name, b.name] = (a, b)
    return list(pairs.values())


def unreachable(
    pairs: Iterable[tuple[Node, Node | IPv4Address]], *, timeout_s: float = 3.0
) -> list[tuple[Node, Node | IPv4Address]]:
    """Those of `pairs` (source, target) from which no echo reply came back in `timeout_s`.

    A pair on one segment makes an ARP entry at either end, and the kernel keeps one table for all
    namespaces of the machine (1,024 dynamic entries, gc_thresh3).  So many pairs go by portions,
    and the entries of one are forgotten before the next.
    """
    waiting = list(pairs)
    if len(waiting) <= _PORTION:
        return _unreachable(waiting, timeout_s)
    silent = []
    for start in range(0, len(waiting), _PORTION):
        portion = waiting[start : start + _PORTION]
        silent += _unreachable(portion, timeout_s)
        for node in {n for pair in portion for n in pair if isinstance(n, Node)}:
            node.rtnl.forget_neighbours()
    return silent


def _unreachable(
    pairs: Sequence[tuple[Node, Node | IPv4Address]], timeout_s: float
) -> list[tuple[Node, Node | IPv4Address]]:
    by_source: dict[Node, list[Node | IPv4Address]] = {}
    for source, target in pairs:
        by_source.setdefault(source, []).append(target)
    pingers = [_Pinger(source, targets) for source, targets in by_source.items()]
    try:
        _exchange(pingers, time.monotonic() + timeout_s)
        return [(p.source, p.targets[i]) for p in pingers for i in sorted(p.waiting)]
    finally:
        for pinger in pingers:
            pinger.socket.close()


class _Pinger:
    """One source and the targets it still waits for, by index, which is also the ICMP sequence."""

    def __init__(self, source: Node, targets: Sequence[Node | IPv4Address]) -> None:
        self.source = source
        self.targets = targets
        self.addresses = [str(t.address if isinstance(t, Node) else t) for t in targets]
        self.own = str(source.address)
        self.waiting = set(range(len(targets)))
        self.id = int.from_bytes(os.urandom(2), "big")
        with source.entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)

    def send(self) -> None:
        for index in sorted(self.waiting)[:_WINDOW]:
            if self.targets[index] is not self.source and self.addresses[index] == self.own:
                continue  # a collision: our own stack would answer in the other's place
            try:
                self.socket.sendto(echo_request(self.id, index), (self.addresses[index], 0))
            except OSError:
                continue  # no route, or a full queue: as good as lost, and tried again

    def receive(self) -> None:
        while self.waiting:
            try:
                packet = self.socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            header = (packet[0] & 0xF) * 4
            if len(packet) < header + 8:
                continue
            kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, header)
            if kind == _ECHO_REPLY and identifier == self.id:
                self.waiting.discard(sequence)


def _exchange(pingers: Sequence[_Pinger], deadline: float) -> None:
    selector = selectors.DefaultSelector()
    for pinger in pingers:
        selector.register(pinger.socket, selectors.EVENT_READ, pinger)
    while any(p.waiting for p in pingers) and time.monotonic() < deadline:
        for pinger in pingers:
            pinger.send()
            pinger.receive()
        resend_at = min(deadline, time.monotonic() + _RESEND_AFTER_S)
        while (left := resend_at - time.monotonic()) > 0:
            ready = selector.select(left)
            for key, _ in ready:
                key.data.receive()
            # Whoever has more targets than fit into one window need not wait for the full pause.
            if not ready or not any(p.waiting for p in pingers):
                break
            if all(len(p.waiting) % _WINDOW == 0 for p in pingers):
                break
    selector.close()


def echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP message of 24 bytes, RFC 792."""
    body = struct.pack("!HH", identifier, sequence) + bytes(16)
    checksum = _checksum(struct.pack("!BBH", _ECHO_REQUEST, 0, 0) + body)
    return struct.pack("!BBH", _ECHO_REQUEST, 0, checksum) + body


def _checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
