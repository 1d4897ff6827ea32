"""The faults of one lab: made and mended (`kinds` says how), and what is then to be expected."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address

from xlab.errors import DeadlineError, UsageError, XlabError
from xlab.faults.expectation import Broken, Pair, Topology, expected
from xlab.faults.kinds import Fault, Order, parse
from xlab.kernel.processes import wait_until
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.lab.reachability import unreachable
from xlab.record import record
from xlab.record.record import Event
from xlab.scenario.scenario import Flow

#: Within this a mended network must do what is expected of it again.  The longest to be waited for
#: is a router that began to dial into the void: TCP sends its request again after 1, 3 and 7 s.
PATIENCE_S = 40.0

#: How long silence must last to be believed, and a pair may keep the others waiting.
_SILENCE_S, _TRY_S = 0.3, 0.3


class Faults:
    """The faults of one lab: applied and mended here, so that what to expect is known."""

    def __init__(
        self, lab: Lab, flow: Flow | None, *, tell: Callable[[Event], None] = lambda _: None
    ) -> None:
        """On a lab that works.  `tell` hears of every fault and recovery.

        Without a `flow` the lab is whatever somebody types in it: of hosts and the gateway it is
        known who must reach whom, of containers nothing.
        """
        self.lab = lab
        self._flow = flow
        if flow:
            lab.after_boot = flow.after_boot
        self.topology = Topology.of(lab, flow)
        self._tell = tell
        #: In the order in which they happened.
        self.in_force: list[Fault] = []
        # What crashes forgets its address, and is still pinged.
        self._addresses: dict[str, IPv4Address] = {}
        for node in (*lab.hosts, *lab.containers, lab.gateway):
            with suppress(XlabError):  # it has none
                self._addresses[node.name] = node.address

    def do(self, text: str) -> None:
        """What a person typed; UsageError for nonsense, also for what is not so now."""
        order = self.read(text)
        if order.mend:
            self.mend(self._in_force(order.fault))
        else:
            self.apply(order.fault)

    def read(self, text: str) -> Order:
        """What was typed, as of now; UsageError for nonsense."""
        if self._flow is None:
            self.topology = Topology.of(self.lab, None)
        return parse(text, self.topology)

    def apply(self, fault: Fault) -> None:
        """Make it happen; UsageError where it cannot, since it has already or its host is down."""
        if fault in self.in_force:
            raise UsageError(f"`{fault}` is in force already")
        if hindrance := fault.hindered_by(self._broken()):
            raise UsageError(hindrance)
        fault.apply(self.lab)
        self.in_force.append(fault)
        self._forget_what_is_over()
        self._tell(Event(record.now(), "fault", str(fault)))

    def mend(self, fault: Fault) -> None:
        """Undo it, and return when all that can be waited for on its host has been done.

        What the network then makes of it takes longer: see `await_expected`.  Until it has been
        done to the end the fault is in force, and the same can be tried again.
        """
        try:
            fault.mend(self.lab)
            self.in_force.remove(fault)
        finally:
            self._forget_what_is_over()
        self._tell(Event(record.now(), "recovery", fault.cure))

    def mend_all(self) -> None:
        """The latest first."""
        while self.in_force:
            self.mend(self.in_force[-1])

    def expected(self) -> dict[Pair, bool]:
        """For each pair of names whether the first must reach the second now, or must not."""
        exposed = frozenset(host.name for host in self.lab.hosts if host.weave.exposed)
        found = expected(dataclasses.replace(self.topology, exposed=exposed), self._broken())
        return {pair: reached for pair, reached in found.items() if pair[1] in self._addresses}

    def address_of_gone(self, name: str) -> IPv4Address | None:
        """What a container had whose host is down; None for all others."""
        host, _, container = name.partition("/")
        return self._addresses.get(name) if container and host in self._broken().hosts else None

    def await_expected(self, *, timeout_s: float = PATIENCE_S) -> float:
        """Wait until all is as expected; the seconds until all was reached that must be.

        DeadlineError names pairs of which something else is true, and the faults in force.

        Between two looks every node forgets its neighbours, for the reason told in `recovery`.
        """
        begun = time.monotonic()
        reached_s: float | None = None
        wrong: dict[Pair, bool] = {}

        def as_expected() -> bool:
            nonlocal wrong, reached_s
            wanted = self.expected()
            must = [pair for pair, reached in wanted.items() if reached]
            must_not = [pair for pair, reached in wanted.items() if not reached]
            wrong = dict.fromkeys(self._silent(must, _TRY_S), False)
            if wrong:
                reached_s = None
                self._forget_neighbours()
                return False
            reached_s = time.monotonic() - begun if reached_s is None else reached_s
            wrong = dict.fromkeys(set(must_not) - self._silent(must_not, _SILENCE_S), True)
            return not wrong

        try:
            wait_until(as_expected, timeout_s=timeout_s, awaited="what is expected")
        except DeadlineError:
            seen = [
                f"{a} {'reaches' if does else 'does not reach'} {b}"
                for (a, b), does in sorted(wrong.items())
            ]
            more = f" and {len(seen) - 6} more" if len(seen) > 6 else ""
            faults = "; ".join(map(str, self.in_force)) or "none"
            raise DeadlineError(
                f"the reachability to be expected: {', '.join(seen[:6])}{more}; "
                f"faults in force: {faults}",
                timeout_s,
            ) from None
        assert reached_s is not None
        return reached_s

    def possible(self) -> list[Fault]:
        """Every fault that could happen now, all partitions into two sides among them."""
        broken = self._broken()
        return [
            fault
            for kind in Fault.kinds
            for fault in kind.possible(self.lab, self.topology)
            if fault not in self.in_force and not fault.hindered_by(broken)
        ]

    # -- plumbing ----------------------------------------------------------------------------------

    def _in_force(self, wanted: Fault) -> Fault:
        for fault in self.in_force:
            if fault.cure == wanted.cure:
                return fault
        now = [f"{fault}, which `xlab fault {fault.cure}` mends" for fault in self.in_force]
        raise UsageError(
            f"`{wanted.cure}` mends `{str(wanted).strip()}`, which is not in force; "
            f"in force: {'; '.join(now) or 'nothing'}"
        )

    def _broken(self) -> Broken:
        broken = Broken()
        for fault in self.in_force:
            fault.add_to(broken)
        return broken

    def _forget_what_is_over(self) -> None:
        self.in_force = [fault for fault in self.in_force if not fault.is_over(self.lab)]

    def _silent(self, pairs: list[Pair], timeout_s: float) -> set[Pair]:
        if not pairs:
            return set()
        timeout_s += 2 * self.lab.round_trip_s
        by_address: dict[tuple[Node, Node | IPv4Address], Pair] = {
            (self.lab[a], self._addresses[b]): (a, b) for a, b in pairs
        }
        return {by_address[pair] for pair in unreachable(by_address, timeout_s=timeout_s)}

    def _forget_neighbours(self) -> None:
        for node in (*self.lab.hosts, *self.lab.containers, self.lab.gateway):
            if node.is_on:
                node.rtnl.forget_neighbours()
