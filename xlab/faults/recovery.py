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
"""

from __future__ import annotations

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
from xlab.lab.node import Node
from xlab.lab.reachability import echo_request

#: With this resolution answers are timed; so many in a row are a flow that works.
_INTERVAL_S, _IN_A_ROW = 0.01, 10

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

    def start() -> Train:
        return Train(
            source,
            address,
            interval_s=_INTERVAL_S,
            silent=lambda: _forget_neighbours([source, target, *hosts]),
            silent_after_s=_FORGET_EVERY_S + 2 * faults.lab.round_trip_s,
        )

    train = start()
    try:
        _await_row(train, 0, timeout_s, f"{source} to reach {target} before `{fault}`")
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
        before, first = train, mending_from
        source_died = train.stopped
        if source_died:
            train, first = start(), 0
        _await_row(train, train.sent, timeout_s, f"{source} to reach {target} after `{fault.cure}`")
        # Only now has every answer to what was asked before had its time.
        stopped = source_died or None in before.answers[broken_at:mending_from]
        back_at = train.back_at(first)
        if stopped and back_at is None:
            # None was missing by then: the first to be asked after it was mended is answered.
            back_at = train.answers[first]
        return Recovery(
            str(fault), stopped, mend_s, 0.0 if back_at is None else max(0.0, back_at - begun)
        )
    finally:
        train.stop()


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
    ) -> None:
        """`silent` is called when no answer has come for `silent_after_s`, and that often."""
        self._target = (str(target), 0)
        self._interval_s = interval_s
        self._silent = silent
        self._silent_after_s = silent_after_s
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

    def in_a_row(self, first: int) -> bool:
        """Whether, from `first` on, enough requests have been answered one after another."""
        row = 0
        for answer in self.answers[first:]:
            row = row + 1 if answer is not None else 0
            if row >= _IN_A_ROW:
                return True
        return False

    def back_at(self, first: int) -> float | None:
        """When the answer came that follows the last missing one from `first` on.

        None if none is missing.  Those under way at the end are not: a row of answers is before
        them.
        """
        answers = self.answers[first:]
        while answers and answers[-1] is None:
            answers.pop()
        if None not in answers:
            return None
        return answers[len(answers) - answers[::-1].index(None)]

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
                forget_at = now + self._silent_after_s

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


def _await_row(train: Train, first: int, timeout_s: float, awaited: str) -> None:
    wait_until(lambda: train.in_a_row(first), timeout_s=timeout_s, awaited=awaited)


def _forget_neighbours(nodes: Sequence[Node]) -> None:
    for node in nodes:
        with suppress(OSError, NetlinkError):  # it is down, or goes down just now
            node.rtnl.forget_neighbours()
