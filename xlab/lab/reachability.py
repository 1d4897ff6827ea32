"""Who reaches whom: many ICMP echoes at once, from sockets made inside the nodes.

One raw socket for each source, no process: a full matrix of 32 containers (992 pairs) takes a
tenth of a second where a `ping` each would take many.
"""

from __future__ import annotations

import math
import os
import random
import select
import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import permutations

from xlab.errors import DeadlineError
from xlab.kernel.clock import Clock, Deadline, steady
from xlab.kernel.packets import checksum
from xlab.kernel.processes import Completed, ask, wait_until
from xlab.lab.docker import Container
from xlab.lab.node import Node

ECHO_REPLY, _UNREACHABLE, _ECHO_REQUEST = 0, 3, 8

#: Echoes under way at once.  Before the first one between two nodes goes an ARP request to all of
#: their segment, and all its copies wait in one queue, which is short (`underlay.QUEUE_PACKETS`).
#: An answer makes room for the next, so a slow lab is asked slowly.
_UNDER_WAY = 4
#: After so long without an answer the next one may go all the same.
_TURN_S = 0.05
#: Where links delay packets, so many more are under way for every second of it.
_MORE_PER_S = 400
_RESEND_AFTER_S = 0.4
#: Messages that are read in one go.
_AT_ONCE = 1000
#: Of what nobody guesses; with the header as long as any other echo of ours.
_NUMBER_BYTES = 16

#: How many pairs are all asked, and how many of more.
_ALL_OF, _SAMPLE = 2000, 500

#: Pairs at a time: six ARP entries each, where packets are routed on the way, stay below 1,024.
_PORTION = 100


def ping_until_answered(source: Node, target: IPv4Address, *, timeout_s: float) -> Completed:
    """`ping` until the first reply comes, or `timeout_s` are over; what it printed.

    Even with -w, ping ends at the first error that is sent back, and an ARP request that nobody
    answers in three seconds is one: the target may answer a moment later.
    """
    deadline = Deadline(timeout_s)
    result: Completed | None = None

    def answered() -> bool:
        nonlocal result
        left_s = max(1, math.ceil(deadline.left_s()))
        argv = ["ping", "-n", "-c1", "-i0.2", f"-w{left_s}", str(target)]
        latest = source.run(argv, check=False, timeout_s=timeout_s + 5)
        # Errors are sent back once a second at most (icmp_ratelimit): silence says less than one.
        if result is None or latest.returncode == 0 or "errors" in latest.stdout:
            result = latest
        return latest.returncode == 0

    with suppress(DeadlineError):  # the output says why
        wait_until(answered, timeout_s=timeout_s, awaited=f"an answer from {target}")
    assert result is not None
    return result


def is_heard(
    source: Node,
    target: Node,
    address: IPv4Address,
    *,
    timeout_s: float = 3.0,
    round_trip_s: float = 0.0,
) -> bool:
    """Whether `target` itself, by that address, hears `source`, and `source` what is answered.

    Nobody on the way can pretend to be it, be they root: what is asked is a number nobody knows
    beforehand, looked for by a socket in the target; the answer to it is sent from there with
    another such number.  A firewall takes both for one ping, RFC 792 and conntrack alike.
    """
    if source is target:
        return True
    asked, answered = os.urandom(_NUMBER_BYTES), os.urandom(_NUMBER_BYTES)
    identifier = int.from_bytes(os.urandom(2), "big")
    with echo_socket(source) as ours, echo_socket(target) as theirs:
        try:
            theirs.bind((str(address), 0))
        except OSError:
            return False  # it does not have that address
        poller = select.poll()
        for channel in (ours, theirs):
            poller.register(channel, select.POLLIN)
        deadline, resend_at = Deadline(timeout_s + 2 * round_trip_s), Deadline(0)
        sequence = 0
        while not deadline.passed():
            ask()
            if resend_at.passed():
                resend_at, sequence = Deadline(_RESEND_AFTER_S), sequence + 1
                with suppress(OSError):  # no route, or a full queue
                    request = echo_request(identifier, sequence, data=asked)
                    ours.sendto(request, (str(address), 0))
            waited_s = max(0.0, min(deadline.left_s(), resend_at.left_s()))
            # Not select(2), which knows no descriptor beyond 1,023.
            for descriptor, _ in poller.poll(1000 * waited_s):
                ready = ours if descriptor == ours.fileno() else theirs
                for sender, message in _messages_in(ready):
                    if ready is theirs and message[:1] == b"\x08" and message[8:] == asked:
                        # As the kernel answers, but for the number: the same identifier.
                        with suppress(OSError):
                            theirs.sendto(_message(ECHO_REPLY, message[4:8] + answered), sender)
                    elif ready is ours and message[:1] == b"\0" and message[8:] == answered:
                        return True
    return False


def _messages_in(channel: socket.socket) -> Iterator[tuple[tuple[str, int], bytes]]:
    """ICMP messages that have come in, and who sent them; some of them, if they are many.

    Whoever sends faster than we read must not keep us from looking at the clock.
    """
    for _ in range(_AT_ONCE):
        try:
            packet, (sender, _) = channel.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError:
            continue  # the kernel's word for an unreachable host, which comes as ICMP as well
        yield (sender, 0), packet[(packet[0] & 0xF) * 4 :]


def sample_pairs(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """All ordered pairs, or of more than 2,000 a random 500, the same ones for the same nodes."""
    if len(nodes) * (len(nodes) - 1) <= _ALL_OF:
        return list(permutations(nodes, 2))
    chooser = random.Random(len(nodes))
    pairs: dict[tuple[str, str], tuple[Node, Node]] = {}
    while len(pairs) < _SAMPLE:
        a, b = chooser.sample(nodes, 2)
        pairs[a.name, b.name] = (a, b)
    return list(pairs.values())


def unreachable(
    pairs: Iterable[tuple[Node, Node | IPv4Address]],
    *,
    timeout_s: float = 3.0,
    round_trip_s: float = 0.0,
) -> list[tuple[Node, Node | IPv4Address]]:
    """Those of `pairs` (source, target) from which no echo reply came back.

    They are given up when all have been asked and none has answered for `timeout_s`: however slow
    a lab is, as long as it gets on it is whole.  `round_trip_s` is what links' delays come to.
    Within `processes.asking_meanwhile` it may raise what is raised there.

    A pair on one segment makes an ARP entry at either end, others more on the way, and the kernel
    keeps one table for all namespaces of the machine (1,024 dynamic entries, gc_thresh3).  So many
    pairs go by portions, and the entries of one are forgotten before the next.
    """
    waiting = list(pairs)
    if len(waiting) <= _PORTION:
        return _unreachable(waiting, timeout_s, round_trip_s)
    silent = []
    for start in range(0, len(waiting), _PORTION):
        portion = waiting[start : start + _PORTION]
        silent += _unreachable(portion, timeout_s, round_trip_s)
        for node in _on_the_way(portion):
            node.rtnl.forget_neighbours()
    return silent


def _on_the_way(pairs: Iterable[tuple[Node, Node | IPv4Address]]) -> set[Node]:
    """Who may have made ARP entries: both ends, and the hosts of containers."""
    ends = {node for pair in pairs for node in pair if isinstance(node, Node)}
    return ends | {node.host for node in ends if isinstance(node, Container)}


def _unreachable(
    pairs: Sequence[tuple[Node, Node | IPv4Address]], timeout_s: float, round_trip_s: float
) -> list[tuple[Node, Node | IPv4Address]]:
    by_source: dict[Node, list[Node | IPv4Address]] = {}
    for source, target in pairs:
        by_source.setdefault(source, []).append(target)
    pingers = [_Pinger(source, targets) for source, targets in by_source.items()]
    try:
        _exchange(pingers, timeout_s, round_trip_s)
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
        self.socket = echo_socket(source)

    def send(self, index: int) -> bool:
        """Ask a target; whether a packet has left."""
        if self.targets[index] is not self.source and self.addresses[index] == self.own:
            return False  # a collision: our own stack would answer in the other's place
        try:
            self.socket.sendto(echo_request(self.id, index), (self.addresses[index], 0))
        except OSError:
            return False  # no route, or a full queue: as good as lost, and tried again
        return True

    def receive(self) -> bool:
        """Read what there is; whether a target that was waited for has answered."""
        before = len(self.waiting)
        replies = [at for kind, at in echoes_in(self.socket, self.id) if kind == ECHO_REPLY]
        self.waiting.difference_update(replies)
        return len(self.waiting) < before


def _exchange(
    pingers: Sequence[_Pinger], timeout_s: float, round_trip_s: float, clock: Clock = steady
) -> None:
    """Ask whoever has not answered, a few at a time, again and again."""
    # A round trip for ARP, and one for the echo.
    most = _UNDER_WAY + int(2 * round_trip_s * _MORE_PER_S)
    turn_s = _TURN_S + 2 * round_trip_s
    progress = clock()
    with selectors.DefaultSelector() as selector:
        for pinger in pingers:
            selector.register(pinger.socket, selectors.EVENT_READ, pinger)

        def receive_until(moment: float) -> None:
            nonlocal progress
            for key, _ in selector.select(max(0.0, moment - clock())):
                if key.data.receive():
                    progress = clock()

        asked_all = False
        while any(p.waiting for p in pingers):
            ask()
            resend_at = clock() + _RESEND_AFTER_S
            under_way: deque[tuple[_Pinger, int, float]] = deque()
            for pinger, index in [(p, i) for p in pingers for i in sorted(p.waiting)]:
                if asked_all and clock() >= progress + timeout_s:
                    return
                if pinger.send(index):
                    under_way.append((pinger, index, clock() + turn_s))
                while len(under_way) >= most:
                    receive_until(under_way[0][2])
                    while under_way and _is_over(*under_way[0], clock()):
                        under_way.popleft()
            if not asked_all:
                asked_all, progress = True, clock()
            # Whatever the time: on a machine that stalls, answers may be there by now.
            while any(p.waiting for p in pingers):
                receive_until(min(resend_at, progress + timeout_s))
                if (now := clock()) >= progress + timeout_s:
                    return
                if now >= resend_at:
                    break


def _is_over(pinger: _Pinger, index: int, until: float, now: float) -> bool:
    return index not in pinger.waiting or now >= until


def echo_socket(node: Node) -> socket.socket:
    """One of the node's for ICMP (raw(7)), which does not block."""
    with node.entered():
        channel = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    channel.setblocking(False)
    return channel


def echoes_in(channel: socket.socket, identifier: int) -> list[tuple[int, int]]:
    """(ICMP type, sequence) of what has come in about our echoes: replies, and "unreachable"."""
    found: list[tuple[int, int]] = []
    for _, message in _messages_in(channel):
        if len(message) < 8:
            continue
        kind = message[0]
        if kind == _UNREACHABLE and len(message) >= 36:
            # It holds what it is about: an IPv4 header and our echo (RFC 792).
            echo = message[8:][(message[8] & 0xF) * 4 :]
        elif kind == ECHO_REPLY:
            echo = message
        else:
            continue
        if len(echo) >= 8:
            number, sequence = struct.unpack_from("!HH", echo, 4)
            if number == identifier:
                found.append((kind, sequence))
    return found


def echo_request(identifier: int, sequence: int, *, size: int = 24, data: bytes = b"") -> bytes:
    """An ICMP message of so many bytes, RFC 792; zeros follow its data."""
    body = struct.pack("!HH", identifier, sequence) + data.ljust(size - 8, b"\0")
    return _message(_ECHO_REQUEST, body)


def _message(kind: int, body: bytes) -> bytes:
    """Of ICMP: what stands before and in `body` is summed up, RFC 792."""
    summed = checksum(struct.pack("!BBH", kind, 0, 0) + body)
    return struct.pack("!BBH", kind, 0, summed) + body
