"""The largest packet that passes whole from one node to another, found by trying.

What passes the target has heard itself: a number that nobody guesses, in a packet of that size.
Somebody on the way, root of a host or not, can answer in its place, but not make it hear.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from xlab.kernel.clock import Deadline
from xlab.lab.node import Node
from xlab.lab.reachability import echo_request, echo_socket

#: ip(7); DF on every packet whatever the path MTU cache says.
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
#: What every IPv4 host must take whole (RFC 791).
SMALLEST_MTU = 576
#: Of what the target has heard, this much is looked at: others may send to it, too.
_HEARD_MESSAGES = 1000
_NUMBER_BYTES = 16

#: Whether a packet of so many bytes passes; False where somebody says that it is too large, None
#: where nobody says anything.
Passes = Callable[[int], bool | None]


def largest_packet(
    source: Node, target: Node, *, most: int, guess: int, round_trip_s: float
) -> int | None:
    """The largest IP packet, in bytes, that crosses with DF set; None if not even 576 does.

    Searched from there to `most`; `guess` is tried early.  Raises OSError without a route.
    """
    with _probe(source, target, round_trip_s) as passes:
        # Nearly always the link's MTU, or that less the overhead, is the answer: ask these first.
        if passes(most):
            return most
        low, high = SMALLEST_MTU, most
        if low < guess < high:
            if passes(guess):
                low = guess
                if not passes(guess + 1):
                    return guess
            else:
                high = guess
                if not passes(low):
                    return None
        elif not passes(low):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return low


def vanishes(
    source: Node, target: Node, *, size: int, round_trip_s: float, timeout_s: float
) -> bool:
    """Whether packets of so many bytes get lost, and nobody says that they are too large.

    TCP between two that have learnt better says nothing of it.  Raises OSError without a route.
    """
    deadline = Deadline(timeout_s)
    with _probe(source, target, round_trip_s) as passes:
        while True:
            if passes(size) is not None:
                return False
            if deadline.passed():
                return True


def _pinger(source: Node, target: Node) -> socket.socket:
    with source.entered():
        pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    try:
        pinger.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        pinger.connect((str(target.address), 0))
    except BaseException:
        pinger.close()
        raise
    return pinger


@contextmanager
def _probe(source: Node, target: Node, round_trip_s: float) -> Iterator[Passes]:
    with closing(_pinger(source, target)) as pinger, closing(echo_socket(target)) as listener:
        yield _probe_of(pinger, listener, round_trip_s)


def _probe_of(pinger: socket.socket, listener: socket.socket, round_trip_s: float) -> Passes:
    identifier = int.from_bytes(os.urandom(2), "big")
    sequence = 0

    def passes(size: int) -> bool | None:
        nonlocal sequence
        for timeout_s in (round_trip_s + 0.3, round_trip_s + 0.6):
            sequence += 1
            _forget(listener)
            number = os.urandom(_NUMBER_BYTES)
            try:
                pinger.send(echo_request(identifier, sequence, size=size - 20, data=number))
            except OSError:
                return False  # EMSGSIZE: larger than the source's own interface takes
            deadline = Deadline(timeout_s)
            while left := deadline.left_s():
                pinger.settimeout(left)
                try:
                    reply = pinger.recv(65535)
                except TimeoutError:
                    break
                except OSError:
                    return False  # a router's "fragmentation needed" (RFC 1191)
                kind, _, _, got_id, got_sequence = struct.unpack_from("!BBHHH", reply, 20)
                if (kind, got_id, got_sequence) == (0, identifier, sequence):
                    # A raw socket has a packet before ICMP answers it (ip_local_deliver_finish); if
                    # it has none, somebody else has answered, or others left it no room.
                    if _has_heard(listener, number, size):
                        return True
                    break
        return None

    return passes


def _forget(listener: socket.socket) -> None:
    """What others have sent it meanwhile, so that there is room."""
    for _ in range(_HEARD_MESSAGES):
        try:
            listener.recv(0)
        except BlockingIOError:
            return
        except OSError:
            continue


def _has_heard(listener: socket.socket, number: bytes, size: int) -> bool:
    for _ in range(_HEARD_MESSAGES):
        try:
            packet = listener.recv(65535)
        except BlockingIOError:
            return False
        except OSError:
            continue  # the kernel's word for an unreachable host, which comes as ICMP as well
        message = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) == size and message[:1] == b"\x08" and message[8:].startswith(number):
            return True
    return False
