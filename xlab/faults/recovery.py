"""How long a flow is gone after a fault has been mended, to the millisecond.

    echo requests  │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │   one every 10 ms
    answers        │ │ │ │                         │ │ │ │ │ │
                           fault       mend        recovered
                                       ├── recovery_s ──┤

The clock starts when mending begins (the cable goes in, the host is switched on, the daemon's
supervisor starts it) and stops with the first answer after the last that is missing.  How long
mending itself took is told beside it: a host of this lab boots in a fraction of a second.

What the kernel's table of neighbours adds is left out.  It asks for one who does not answer once a
second (retrans_time), gives up after the third time, and goes on sending to an address that has
changed for 15 to 45 s (base_reachable_time): figures would tell of these times, and hardly of the
method.  So while no answer comes, the hosts and containers at both ends forget their neighbours
again and again.

Where links lose packets on purpose, single answers are missing all the time.  There the flow has
stopped when so many in a row are missing as chance takes from one measurement in 1,000 at most.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from xlab.errors import NetlinkError
from xlab.faults.faults import PATIENCE_S, Faults
from xlab.faults.kinds import Fault
from xlab.kernel.clock import steady
from xlab.kernel.processes import wait_until
from xlab.lab.docker import Container
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.lab.reachability import echo_request

#: With this resolution answers are timed; so many without a gap are a flow that works.
_INTERVAL_S, _IN_A_ROW = 0.01, 10

#: How many measurements may take a gap that lossy links make by chance for one of the fault's.
_MISTAKEN = 1e-3

#: Neighbours are forgotten that often at most, a round trip apart: an answer to the request that
#: the last time brought about must not come too late.
_FORGET_EVERY_S = 0.02

#: The sequence number of an echo has 16 bits.
_MOST_ECHOES = 1 << 16


@dataclass(frozen=True, slots=True)
class Recovery:
    """One fault, applied and mended, and what a flow felt of it."""

    fault: str
    #: Whether the flow stopped at all: the kernel's datapath goes on without its daemons.
    stopped: bool
    #: How long mending took, until it was done with.
    mend_s: float
    #: From the beginning of mending to the first of the answers of which none is missing any more;
    #: 0 if none was missing from then on.
    recovery_s: float
    #: For how long answers must be missing at least to count: longer where links lose packets.
    shortest_gap_s: float


def measure_recovery(
    faults: Faults,
    fault: Fault,
    source: Node,
    target: Node,
    *,
    held_s: float = 0.5,
    timeout_s: float = PATIENCE_S,
) -> Recovery:
    """Apply `fault`, mend it after `held_s`, and time how long `source` > `target` takes.

    Where the source itself goes down with the fault, asking goes on as soon as it is there again
    and mending is over.  Raises DeadlineError if the flow does not work to begin with, or is not
    back `timeout_s` after the fault has been mended.
    """
    address = target.address
    hosts = [end.host for end in (source, target) if isinstance(end, Container)]
    forget_every_s = _FORGET_EVERY_S + 2 * faults.lab.round_trip_s
    # Before the fault and after it, at the most.
    echoes = math.ceil(2 * timeout_s / _INTERVAL_S)
    least = least_gap(_lost_round_trips(faults.lab, source, target), echoes=echoes)

    def start() -> Train:
        return Train(
            source,
            address,
            interval_s=_INTERVAL_S,
            silent=lambda: _forget_neighbours([source, target, *hosts]),
            silent_after_s=forget_every_s + (least - 1) * _INTERVAL_S,
            silent_every_s=forget_every_s,
        )

    def await_flow(first: int, awaited: str) -> None:
        wait_until(
            lambda: works(train.answers[first:], least),
            timeout_s=timeout_s,
            awaited=f"{source} to reach {target} {awaited}",
        )

    train = start()
    try:
        await_flow(0, f"before `{fault}`")
        broken_at = train.sent
        faults.apply(fault)
        try:
            if not source.is_on:
                train.stop()
            threading.Event().wait(held_s)  # it lasts: there is nothing to wait for
        finally:
            begun = time.monotonic()
            mending_from = train.sent
            faults.mend(fault)
            mend_s = time.monotonic() - begun
        source_died = train.stopped
        if source_died:
            train, broken_at, mending_from = start(), 0, 0
        await_flow(train.sent, f"after `{fault.cure}`")
        # Only now has every answer to what was asked before had its time.
        answers = train.answers[broken_at:]
        stopped, back_at = felt(answers, mending_from - broken_at, least, stopped=source_died)
        recovery_s = 0.0 if back_at is None else max(0.0, back_at - begun)
        return Recovery(str(fault), stopped, mend_s, recovery_s, least * _INTERVAL_S)
    finally:
        train.stop()


#: When each echo was answered, if it was.
Answers = Sequence[float | None]


def least_gap(lost: float, *, echoes: int) -> int:
    """How many echoes in a row must be missing to say that not chance has taken them.

    Links take the part `lost` of round trips: among so many `echoes` there is a gap of n by chance
    with a probability of less than echoes * lost**n.
    """
    return math.ceil(math.log(_MISTAKEN / echoes, lost)) if 0 < lost < 1 else 1


def works(answers: Answers, least: int) -> bool:
    """Whether enough were answered with no gap of `least` echoes between them."""
    answered = missing = 0
    for answer in answers:
        missing = missing + 1 if answer is None else 0
        answered += answer is not None
        if missing >= least:
            answered = 0
        if answered >= _IN_A_ROW:
            return True
    return False


def felt(
    answers: Answers, mending_from: int, least: int, *, stopped: bool = False
) -> tuple[bool, float | None]:
    """Whether the flow stopped before it was mended, and when it was back; None: never gone.

    `answers` are those since the fault; of these `least` missing in a row are a gap.  `stopped` if
    that is known.  What is missing at the end is under way: the flow works by then.
    """
    gaps = _gaps(answers, least)
    stopped = stopped or any(start < mending_from for start, _ in gaps)
    for _, end in reversed(gaps):
        if end > mending_from:
            return stopped, answers[end]
    after = (answer for answer in answers[mending_from:] if answer is not None)
    # None was missing by then: the first to be asked after it was mended is answered.
    return stopped, next(after, None) if stopped else None


def _gaps(answers: Answers, least: int) -> list[tuple[int, int]]:
    """Where each begins, and the number of the answer that ends it."""
    found, start = [], 0
    for number, answer in enumerate(answers):
        if answer is not None:
            if number - start >= least:
                found.append((start, number))
            start = number + 1
    return found


class Train:
    """Echo requests, one every `interval_s`, from a thread of its own, and when answers came."""

    def __init__(
        self,
        source: Node,
        target: IPv4Address,
        *,
        interval_s: float,
        silent: Callable[[], None],
        silent_after_s: float,
        silent_every_s: float,
    ) -> None:
        """`silent` is called when no answer has come for `silent_after_s`, and how often then."""
        self._target = (str(target), 0)
        self._interval_s = interval_s
        self._silent = silent
        self._silent_after_s = silent_after_s
        self._silent_every_s = silent_every_s
        self._identifier = int.from_bytes(os.urandom(2), "big")
        #: When each was answered, by sequence number; None as long as it was not.
        self.answers: list[float | None] = []
        self._stopping = threading.Event()
        with source.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._thread = threading.Thread(target=self._run, name="echo train", daemon=True)
        self._thread.start()

    @property
    def sent(self) -> int:
        """The sequence number of the next request."""
        return len(self.answers)

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """End it; the socket no longer keeps the source's network namespace alive."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        send_at = forget_at = steady()
        while not self._stopping.is_set():
            now = steady()
            if now >= send_at:
                self._send()
                # Whoever was kept waiting does not catch up: a burst would be another measurement.
                send_at = max(send_at + self._interval_s, now)
            heard = self._receive(max(0.0, send_at - steady()))
            now = steady()
            if heard:
                forget_at = now + self._silent_after_s
            elif now >= forget_at:
                self._silent()
                forget_at = now + self._silent_every_s

    def _send(self) -> None:
        number = len(self.answers)
        if number >= _MOST_ECHOES:
            return
        self.answers.append(None)
        # Without a route, or where the last neighbour did not answer, it is one that is missing.
        with suppress(OSError):
            self._socket.sendto(echo_request(self._identifier, number), self._target)

    def _receive(self, timeout_s: float) -> bool:
        """Whether an answer came within that time."""
        self._socket.settimeout(max(0.0002, timeout_s))
        try:
            packet = self._socket.recv(2048)
        except OSError:
            return False  # time-out, or an ICMP error of what was sent before
        now = steady()
        header = (packet[0] & 0xF) * 4
        kind, _, _, identifier, number = struct.unpack_from("!BBHHH", packet, header)
        mine = (kind, identifier) == (0, self._identifier) and number < len(self.answers)
        if mine and self.answers[number] is None:
            self.answers[number] = now
        return mine


def _lost_round_trips(lab: Lab, source: Node, target: Node) -> float:
    """The part of round trips that links take on purpose: each is crossed twice."""
    ends = [lab.host_of(end) for end in (source, target)]
    between = lab.conditions_between(*ends) if ends[0] is not ends[1] else []
    return 1 - math.prod(1 - (link.loss_ratio or 0.0) for link in between) ** 2


def _forget_neighbours(nodes: Sequence[Node]) -> None:
    for node in nodes:
        with suppress(OSError, NetlinkError):  # it is down, or goes down just now
            node.rtnl.forget_neighbours()
