"""What can go wrong in a network on purpose, and is mended again: each kind is a class.

    a person types      which does                                         and mends it by typing
    link h1 down        pulls the cable of a host, of gw, of s1-s2         link h1 up
                        (or named by a switch's port: s1-eth1)
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

A class says all there is to say of its kind: how it is typed, what it does, how it is mended, and
what is then broken.  Light enough for the command line, whose help it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xlab.errors import UsageError, meant, quoted

if TYPE_CHECKING:
    from xlab.faults.expectation import Broken, Topology
    from xlab.lab.lab import Host, Lab


class Fault(ABC):
    """Something that goes wrong; its kinds are dataclasses of what the words of an order name."""

    #: Every class directly below, in the order of help texts.
    kinds: ClassVar[list[type[Fault]]] = []
    #: How it is ordered, and what mends it: "crash {host}".
    order: ClassVar[str]
    cure_order: ClassVar[str]
    #: Both as help texts have them, and an example.
    grammar: ClassVar[tuple[str, ...]]
    example: ClassVar[str]
    #: How shaken a network is once it has recovered: faults are timed in this order.
    shakes: ClassVar[int] = 0

    def __init_subclass__(cls) -> None:
        # What refines a kind has its words, and is no other kind: it would be in force beside it.
        if Fault in cls.__bases__:
            Fault.kinds.append(cls)

    def __str__(self) -> str:
        return self.order.format(**vars(self))

    @property
    def cure(self) -> str:
        """What a person types to mend it."""
        return self.cure_order.format(**vars(self))

    @classmethod
    def read(cls, text: str, topology: Topology) -> Order | None:
        """What was typed, if it is about this kind; UsageError says what was wrong with it."""
        for order in (cls.order, cls.cure_order):
            names = _names(text, order)
            if names is not None:
                return Order(cls(*names).found(topology), mend=order == cls.cure_order)
        return None

    def found(self, topology: Topology) -> Fault:
        """The same with names as the topology has them; UsageError for one that it has not."""
        return self

    @classmethod
    def of_host(cls, host: Host) -> Mapping[str, Fault]:
        """Those that can befall one host, by the name of the metric: the time to recover."""
        return {}

    @classmethod
    def possible(cls, lab: Lab, topology: Topology) -> Iterable[Fault]:
        """All that could happen now, or are in force."""
        return [f for host in lab.hosts if host.is_on for f in cls.of_host(host).values()]

    @abstractmethod
    def apply(self, lab: Lab) -> None:
        """Make it happen."""

    @abstractmethod
    def mend(self, lab: Lab) -> None:
        """Undo it; what was started again has done by then what it is told.

        Or go on with that: an earlier try may have failed halfway.
        """

    @abstractmethod
    def add_to(self, broken: Broken) -> None:
        """What is broken by it, from which follows who must reach whom."""

    def hindered_by(self, broken: Broken) -> str:
        """Why it cannot happen where that is broken already; "" if it can."""
        return ""

    def is_over(self, lab: Lab) -> bool:
        """Whether it has ended with another fault, or with the mending of one."""
        return False


@dataclass(frozen=True, slots=True)
class Order:
    """What a person typed: a fault, and whether it is to be mended."""

    fault: Fault
    mend: bool


def parse(text: str, topology: Topology) -> Order:
    """One line as in the module's table; UsageError says what was wrong and what there is."""
    for kind in Fault.kinds:
        if order := kind.read(text, topology):
            return order
    verb = next(iter(text.split()), "")
    verbs = {words.split()[0]: words for words in grammar()}
    if verb in verbs:
        raise UsageError(f"{quoted(text)} is no fault; it is `{verbs[verb]}`")
    guess = meant(verb, verbs)
    raise UsageError(f"{quoted(text)} is no fault; faults are: {', '.join(grammar())}{guess}")


def grammar() -> list[str]:
    """Every order there is, for help texts."""
    return [words for kind in Fault.kinds for words in kind.grammar]


def of_host(host: Host) -> dict[str, Fault]:
    """All that can befall a host and be timed, by metric, in the order in which to do them."""
    kinds = sorted(Fault.kinds, key=lambda kind: kind.shakes)
    return {metric: fault for kind in kinds for metric, fault in kind.of_host(host).items()}


# -- the kinds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinkDown(Fault):
    """A cable pulled out: of a host, of the gateway, or between two switches ("s1-s2")."""

    link: str

    order, cure_order = "link {link} down", "link {link} up"
    grammar = ("link NAME down|up",)
    example = "link h1 down|up"
    shakes = 1

    def found(self, topology: Topology) -> Fault:
        reverse = "-".join(reversed(self.link.split("-")))
        link = reverse if reverse in topology.trunks else self.link
        link = topology.link_at(link) or link
        return LinkDown(one_of(link, (*topology.ends, *topology.trunks), "link"))

    @classmethod
    def of_host(cls, host: Host) -> Mapping[str, Fault]:
        return {"link_flap_recovery_s": cls(host.name)}

    @classmethod
    def possible(cls, lab: Lab, topology: Topology) -> Iterable[Fault]:
        return map(cls, (*topology.ends, *topology.trunks))

    def apply(self, lab: Lab) -> None:
        lab.unplug(lab.link(self.link))

    def mend(self, lab: Lab) -> None:
        lab.plug_in(lab.link(self.link))

    def add_to(self, broken: Broken) -> None:
        broken.links.add(self.link)


@dataclass(frozen=True)
class HostCrash(Fault):
    """A host without power."""

    host: str

    order, cure_order = "crash {host}", "reboot {host}"
    grammar = ("crash HOST", "reboot HOST")
    example = "crash h2, reboot h2"
    shakes = 3

    def found(self, topology: Topology) -> Fault:
        return HostCrash(one_of(self.host, topology.hosts, "host"))

    @classmethod
    def of_host(cls, host: Host) -> Mapping[str, Fault]:
        return {"host_reboot_recovery_s": cls(host.name)}

    def apply(self, lab: Lab) -> None:
        lab.crash(lab.host_of(self.host))

    def mend(self, lab: Lab) -> None:
        host = lab.host_of(self.host)
        if host.is_on:  # it did not come up to the end
            lab.crash(host)
        lab.boot(host)

    def add_to(self, broken: Broken) -> None:
        broken.hosts.add(self.host)


@dataclass(frozen=True)
class DaemonKill(Fault):
    """A daemon of one host killed with SIGKILL."""

    host: str
    daemon: str

    order, cure_order = "kill {host} {daemon}", "restart {host} {daemon}"
    grammar = ("kill HOST DAEMON", "restart HOST DAEMON")
    example = "kill h1 ovs-vswitchd, restart h1 ovs-vswitchd"
    shakes = 2

    def found(self, topology: Topology) -> Fault:
        there = topology.daemons[one_of(self.host, topology.hosts, "host")]
        return DaemonKill(self.host, one_of(self.daemon, there, f"daemon of {self.host}"))

    @classmethod
    def of_host(cls, host: Host) -> Mapping[str, Fault]:
        running = [daemon for daemon, runs in host.daemons().items() if runs]
        return {
            f"{each.replace('-', '_')}_kill_recovery_s": cls(host.name, each) for each in running
        }

    def apply(self, lab: Lab) -> None:
        lab.kill_daemon(lab.host_of(self.host), self.daemon)

    def mend(self, lab: Lab) -> None:
        lab.restart_daemon(lab.host_of(self.host), self.daemon)

    def add_to(self, broken: Broken) -> None:
        broken.daemons.add((self.host, self.daemon))

    def hindered_by(self, broken: Broken) -> str:
        crash = HostCrash(self.host)
        return f"{self.host} is down; `{crash.cure}` starts it" if self.host in broken.hosts else ""

    def is_over(self, lab: Lab) -> bool:
        """It will be started with its host, if that died; and some daemons start others."""
        host = lab.host_of(self.host)
        return not host.is_on or host.daemons().get(self.daemon, False)


@dataclass(frozen=True)
class Partition(Fault):
    """The physical network in pieces; hosts and the gateway by side, all of them."""

    sides: tuple[tuple[str, ...], ...]

    cure_order = "heal"
    # Quoted, as most type it in a shell, which else makes a pipe of it.
    grammar = ("partition HOST,… '|' HOST,…", "heal")
    example = "partition h1 '|' h2, heal"

    @classmethod
    def read(cls, text: str, topology: Topology) -> Order | None:
        """The sides are divided by "|", the hosts of a side by commas.

        Who is on no side, the gateway above all, is on the first.  "heal" stands for a partition
        with no sides.
        """
        match text.split():
            case ["heal"]:
                return Order(cls(()), mend=True)
            case ["partition", *_]:
                return Order(cls(_sides(text, topology)), mend=False)
        return None

    @classmethod
    def possible(cls, lab: Lab, topology: Topology) -> Iterable[Fault]:
        """Into two sides; the gateway stays on the first, so that none is listed twice."""
        for number in range(1, 2 ** len(topology.hosts)):
            second = [host for i, host in enumerate(topology.hosts) if number >> i & 1]
            first = [name for name in topology.ends if name not in second]
            yield cls((tuple(first), tuple(second)))

    def __str__(self) -> str:
        return "partition " + " | ".join(",".join(side) for side in self.sides)

    def apply(self, lab: Lab) -> None:
        lab.split(self.sides)

    def mend(self, lab: Lab) -> None:
        lab.rejoin()

    def add_to(self, broken: Broken) -> None:
        broken.sides = self.sides

    def hindered_by(self, broken: Broken) -> str:
        return f"there is a partition already; `{self.cure}` mends it" if broken.sides else ""


# -- plumbing --------------------------------------------------------------------------------------


def _sides(text: str, topology: Topology) -> tuple[tuple[str, ...], ...]:
    sides = [
        [one_of(name.strip(), topology.ends, "host") for name in side.split(",")]
        for side in text.replace("'|'", "|").strip().removeprefix("partition").split("|")
    ]
    named = [name for side in sides for name in side]
    for name in named:
        if named.count(name) > 1:
            raise UsageError(f"{quoted(text)}: {name} is on two sides")
    if len(sides) < 2:
        raise UsageError(f"{quoted(text)}: a partition has two sides or more, as in h1,h2 '|' h3")
    sides[0] += [name for name in topology.ends if name not in named]
    return tuple(map(tuple, sides))


def _names(text: str, order: str) -> list[str] | None:
    """What stands in the places of "kill {host} {daemon}"; None if other words stand beside."""
    given, wanted = text.split(), order.split()
    differing = [(g, w) for g, w in zip(given, wanted, strict=False) if g != w]
    if len(given) != len(wanted) or not all(w.startswith("{") for _, w in differing):
        return None
    return [g for g, w in zip(given, wanted, strict=True) if w.startswith("{")]


def one_of(name: str, known: Sequence[str], what: str) -> str:
    if name not in known:
        there_is = f"{', '.join(known) or 'none'}{meant(name, known)}"
        raise UsageError(f"no {what} {quoted(name)}; there is: {there_is}")
    return name
