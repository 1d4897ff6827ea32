"""Faults: what goes wrong in a network, done on purpose, and mended again.

    a person types      which does                                         and mends it by typing
    link h1 down        pulls the cable of a host, of gw, of s1-s2         link h1 up
    crash h2            takes a host's power away                          reboot h2
    kill h1 DAEMON      SIGKILL to ovs-vswitchd, ovsdb-server or weave     restart h1 DAEMON
    partition h1 | h2   breaks the physical network into pieces            heal

A host that crashes loses every process, interface and address, and its containers with it; the
switch sees a port without carrier.  When it is rebooted, what is on its disk is there again: its
address plan, Open vSwitch's conf.db and so its bridges and tunnels, docker.service, the router's
peers.  What was typed by hand is typed once more (`Flow.after_boot`), and containers, which have no
restart policy, are started by whoever started them first.

A daemon that was killed stays dead until `restart`, which real ones do not: ovs-vswitchd has its
monitor, the router's container the restart policy "always".  So there is time to look at what goes
on without it.  With the kernel's datapath flows go on; in user space the host's eth0 is dead, and
dead without ovsdb-server, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address

from xlab.errors import DeadlineError, UsageError, XlabError
from xlab.faults.expectation import Broken, Pair, Topology, expected
from xlab.kernel.processes import wait_until
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.lab.reachability import unreachable
from xlab.lab.underlay import GATEWAY
from xlab.record.record import Event
from xlab.scenario.scenario import Flow

#: Within this a mended network must do what is expected of it again.  The longest to be waited for
#: is a router that began to dial into the void: TCP sends its request again after 1, 3 and 7 s.
PATIENCE_S = 40.0

#: How long silence must last to be believed, and a pair may keep the others waiting.
_SILENCE_S, _TRY_S = 0.3, 0.3


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A cable pulled out: of a host, of the gateway, or between two switches ("s1-s2")."""

    link: str

    def __str__(self) -> str:
        return f"link {self.link} down"

    @property
    def cure(self) -> str:
        return f"link {self.link} up"

    def apply(self, lab: Lab) -> None:
        lab.unplug(lab.link(self.link))

    def mend(self, lab: Lab) -> None:
        lab.plug_in(lab.link(self.link))

    def add_to(self, broken: Broken) -> None:
        broken.links.add(self.link)


@dataclass(frozen=True, slots=True)
class HostCrash:
    """A host without power."""

    host: str

    def __str__(self) -> str:
        return f"crash {self.host}"

    @property
    def cure(self) -> str:
        return f"reboot {self.host}"

    def apply(self, lab: Lab) -> None:
        lab.crash(_host(lab, self.host))

    def mend(self, lab: Lab) -> None:
        lab.boot(_host(lab, self.host))

    def add_to(self, broken: Broken) -> None:
        broken.hosts.add(self.host)


@dataclass(frozen=True, slots=True)
class DaemonKill:
    """A daemon of one host killed with SIGKILL."""

    host: str
    daemon: str

    def __str__(self) -> str:
        return f"kill {self.host} {self.daemon}"

    @property
    def cure(self) -> str:
        return f"restart {self.host} {self.daemon}"

    def apply(self, lab: Lab) -> None:
        lab.kill_daemon(_host(lab, self.host), self.daemon)

    def mend(self, lab: Lab) -> None:
        lab.restart_daemon(_host(lab, self.host), self.daemon)

    def add_to(self, broken: Broken) -> None:
        broken.daemons.add((self.host, self.daemon))


@dataclass(frozen=True, slots=True)
class Partition:
    """The physical network in pieces; hosts and the gateway by side, all of them."""

    sides: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return "partition " + " | ".join(",".join(side) for side in self.sides)

    @property
    def cure(self) -> str:
        return "heal"

    def apply(self, lab: Lab) -> None:
        lab.split(self.sides)

    def mend(self, lab: Lab) -> None:
        lab.rejoin()

    def add_to(self, broken: Broken) -> None:
        broken.sides = self.sides


Fault = LinkDown | HostCrash | DaemonKill | Partition


# -- from text -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What a person typed: a fault, and whether it is to be mended."""

    fault: Fault
    mend: bool


def parse(text: str, topology: Topology) -> Order:
    """One line as in the module's table; UsageError says what was wrong and what there is.

    The sides of a partition are divided by "|", the hosts of a side by commas.  Who is on no side,
    the gateway above all, is on the first.  "heal" stands for a partition with no sides.
    """
    match text.split():
        case ["link", link, ("down" | "up") as state]:
            known = [*topology.hosts, GATEWAY, *topology.trunks]
            reverse = "-".join(reversed(link.split("-")))
            link = reverse if reverse in topology.trunks else link
            return Order(LinkDown(_one_of(link, known, "link")), mend=state == "up")
        case ["crash" | "reboot" as verb, host]:
            return Order(HostCrash(_one_of(host, topology.hosts, "host")), mend=verb == "reboot")
        case ["kill" | "restart" as verb, host, daemon]:
            there = topology.daemons[_one_of(host, topology.hosts, "host")]
            _one_of(daemon, there, f"daemon of {host}")
            return Order(DaemonKill(host, daemon), mend=verb == "restart")
        case ["partition", *_]:
            return Order(_parse_partition(text, topology), mend=False)
        case ["heal"]:
            return Order(Partition(()), mend=True)
    raise UsageError(f"{_quoted(text)} is no fault; faults are: {', '.join(GRAMMAR)}")


#: Every order there is, for help texts.
GRAMMAR = (
    "link NAME down|up",
    "crash HOST",
    "reboot HOST",
    "kill HOST DAEMON",
    "restart HOST DAEMON",
    "partition HOST,… | HOST,…",
    "heal",
)


def _parse_partition(text: str, topology: Topology) -> Partition:
    known = [*topology.hosts, GATEWAY]
    sides = [
        [_one_of(name.strip(), known, "host") for name in side.split(",")]
        for side in text.strip().removeprefix("partition").split("|")
    ]
    named = [name for side in sides for name in side]
    for name in named:
        if named.count(name) > 1:
            raise UsageError(f"{_quoted(text)}: {name} is on two sides")
    if len(sides) < 2:
        raise UsageError(f'{_quoted(text)}: a partition has two sides or more, as in "h1,h2 | h3"')
    sides[0] += [name for name in known if name not in named]
    return Partition(tuple(map(tuple, sides)))


def _one_of(name: str, known: tuple[str, ...] | list[str], what: str) -> str:
    if name not in known:
        raise UsageError(f"no {what} {_quoted(name)}; there is: {', '.join(known) or 'none'}")
    return name


def _quoted(text: str) -> str:
    """As much of what was typed as anyone wants to read again."""
    return repr(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…")


_LONGEST_QUOTE = 60


# -- in a lab --------------------------------------------------------------------------------------


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
        if self._flow is None:
            self.topology = Topology.of(self.lab, None)
        order = parse(text, self.topology)
        if not order.mend:
            self.apply(order.fault)
            return
        self.mend(self._in_force(order.fault))

    def apply(self, fault: Fault) -> None:
        """Make it happen; UsageError where it cannot, since it has already or its host is down."""
        if str(fault) in map(str, self.in_force):
            raise UsageError(f"`{fault}` is in force already")
        if isinstance(fault, Partition) and any(isinstance(f, Partition) for f in self.in_force):
            raise UsageError("there is a partition already; `heal` mends it")
        if isinstance(fault, DaemonKill) and HostCrash(fault.host) in self.in_force:
            raise UsageError(f"{fault.host} is down; `reboot {fault.host}` starts it")
        fault.apply(self.lab)
        self.in_force.append(fault)
        self._forget_moot()
        self._tell(Event(_now(), "fault", str(fault)))

    def mend(self, fault: Fault) -> None:
        """Undo it, and return when all that can be waited for on its host has been done.

        What the network then makes of it takes longer: see `await_expected`.
        """
        self.in_force.remove(fault)
        fault.mend(self.lab)
        self._forget_moot()
        self._tell(Event(_now(), "recovery", fault.cure))

    def mend_all(self) -> None:
        """The latest first."""
        while self.in_force:
            self.mend(self.in_force[-1])

    def expected(self) -> dict[Pair, bool]:
        """For each pair of names whether the first must reach the second now, or must not."""
        broken = Broken()
        for fault in self.in_force:
            fault.add_to(broken)
        found = expected(self.topology, broken)
        return {pair: reached for pair, reached in found.items() if pair[1] in self._addresses}

    def address_of_gone(self, name: str) -> IPv4Address | None:
        """What a container had whose host is down; None for all others."""
        host, _, container = name.partition("/")
        return self._addresses.get(name) if container and HostCrash(host) in self.in_force else None

    def await_expected(self, *, timeout_s: float = PATIENCE_S) -> float:
        """Wait until all is as expected; the seconds until all was reached that must be.

        DeadlineError names pairs of which something else is true, and the faults in force.

        Between two looks every node forgets its neighbours: the kernel asks for one that does not
        answer once a second, and believes in an address that has changed for half a minute.  That
        is the same with every method, and would be all there is to see.
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
        hosts, names = self.topology.hosts, (*self.topology.hosts, GATEWAY)
        found: list[Fault] = [LinkDown(link) for link in (*names, *self.topology.trunks)]
        found += [HostCrash(host) for host in hosts]
        for host in self.lab.hosts:
            if host.is_on:
                found += [DaemonKill(host.name, d) for d, runs in host.daemons().items() if runs]
        if not any(isinstance(fault, Partition) for fault in self.in_force):
            # The gateway stays on the first side, so that none is listed twice.
            for number in range(1, 2 ** len(hosts)):
                second = [host for i, host in enumerate(hosts) if number >> i & 1]
                first = [name for name in names if name not in second]
                found.append(Partition((tuple(first), tuple(second))))
        return [fault for fault in found if fault not in self.in_force]

    # -- plumbing ----------------------------------------------------------------------------------

    def _in_force(self, wanted: Fault) -> Fault:
        for fault in self.in_force:
            if fault == wanted or (isinstance(wanted, Partition) and isinstance(fault, Partition)):
                return fault
        now = ", ".join(map(str, self.in_force)) or "nothing"
        raise UsageError(f"`{wanted.cure}`: there is no such fault; in force: {now}")

    def _forget_moot(self) -> None:
        """Daemons that died with their host will be started with it; some start others."""
        alive = {host.name: host.daemons() for host in self.lab.hosts if host.is_on}
        self.in_force = [
            fault
            for fault in self.in_force
            if not isinstance(fault, DaemonKill)
            or (fault.host in alive and not alive[fault.host].get(fault.daemon, False))
        ]

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


def _host(lab: Lab, name: str) -> Host:
    host = lab[name]
    if not isinstance(host, Host):
        raise XlabError(f"{name} is not a host")
    return host


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
