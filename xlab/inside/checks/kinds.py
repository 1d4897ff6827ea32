"""The kinds of check there are: each asks one thing of the network, in a word a teacher can read.

    reaches: {from: h1/c1, to: h2/c1}           survives: {fault: crash h2, mended: yes, then: …}
    takes: {from: h1/c1, to: h2/c1, in: gre}    distinct: all

A class says all there is to say of its kind: its word, the shape of what follows it (JSON Schema),
and what it asks of the lab.  What it sees is told in figures and addresses, never as advice.
"""

from __future__ import annotations

import time
from abc import ABC
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations
from typing import Any, ClassVar

from xlab.errors import CommandError, DaemonError, DeadlineError, XlabError
from xlab.faults import kinds as fault_kinds
from xlab.faults.faults import Faults
from xlab.inside.checks import places
from xlab.inside.checks.places import AbsentError
from xlab.kernel.clock import Deadline
from xlab.kernel.processes import wait_until
from xlab.lab.capture import Capture, follow_echoes
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.lab.path_mtu import largest_packet
from xlab.lab.reachability import is_heard, unreachable
from xlab.lab.transfer import transfer

#: How long something may take to come true where a check does not say.
USUAL_WAIT_S = 3.0
#: What is not there does not come by waiting, but for what is being started.
_ABSENT_S = 0.5
#: Between two looks, none of which costs much.
_PAUSE_S = 0.2
#: An echo is asked for again every 0.4 s: silence is three that were not answered.
_LOOK_S, _SILENCE_S = 0.6, 1.3
#: Of those who have just answered.
_HEARD_S = 1.0
_TRANSFER_BYTES = 256 << 10
#: A second without frames may be one in which a busy machine stood still, one with many the end of
#: what somebody did ask for.
_QUIET_S, _QUIET_IN_A_ROW, _QUIET_LOOKS = 1.0, 3, 5

_NODE = {"type": "string", "pattern": r"^[\w.-]+(/[\w.-]+| netns [\w.-]+)?$"}
_TEXT = {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Seen:
    holds: bool
    #: What there was.
    text: str


class Kind(ABC):
    """One check; made of the arguments that its `shape` admits."""

    #: By the word.
    known: ClassVar[dict[str, type[Kind]]] = {}
    word: ClassVar[str]
    #: JSON Schema of what follows the word.
    shape: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls, *, word: str) -> None:
        cls.word = word
        Kind.known[word] = cls

    def __init__(self, arguments: Any) -> None:
        self.given = arguments

    def examine(self, lab: Lab, faults: Faults, wait_s: float) -> Seen:
        """Whether it holds, or comes to within `wait_s`.

        XlabError or OSError if that can't be found out: then nothing is known.
        """
        return _await(lambda: self.look(lab), wait_s, lab)

    def look(self, lab: Lab) -> Seen:
        """Whether it holds now; AbsentError if what it is about is not there."""
        raise NotImplementedError


def examine(
    word: str,
    arguments: Any,
    lab: Lab,
    faults: Faults,
    *,
    wait_s: float | None = None,
    strict: bool = False,
) -> Seen:
    """See `Kind.examine`; `strict` is not to be helped by neighbours that were entered by hand."""
    if strict and not lab.tells_neighbours:
        for node in lab.nodes:
            if node.is_on:
                node.rtnl.forget_neighbours(by_hand=True)
        for name in places.in_netns(arguments):
            with suppress(XlabError), ExitStack() as stack:
                places.find(lab, name, stack).rtnl.forget_neighbours(by_hand=True)
    seen = Kind.known[word](arguments).examine(
        lab, faults, USUAL_WAIT_S if wait_s is None else wait_s
    )
    if not seen.holds:
        with suppress(XlabError):
            for host in lab.hosts:
                try:
                    host.require_daemons()
                except DaemonError as error:
                    return Seen(False, f"{seen.text}; {host}: {error.daemon} does not run")
    return seen


def _await(look: Callable[[], Seen], wait_s: float, lab: Lab) -> Seen:
    """What is seen once it holds, or at last.

    Between two looks neighbours are forgotten: a station that has another MAC now, as a bridge
    whose ports have changed, would be sent to in vain for some ten seconds more (arp(7)).  What
    somebody has entered by hand stays.
    """
    seen = Seen(False, "")
    last_chance = Deadline(min(wait_s, _ABSENT_S))

    def is_known() -> bool:
        nonlocal seen
        try:
            seen = look()
        except AbsentError as error:
            seen = Seen(False, str(error))
            return last_chance.passed()
        if not seen.holds:
            for node in lab.nodes:
                if node.is_on:
                    node.rtnl.forget_neighbours()
        return seen.holds

    with suppress(DeadlineError):
        wait_until(is_known, timeout_s=wait_s, awaited="it to hold", pause_s=_PAUSE_S)
    return seen


def _shape(*needed: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(needed),
        "additionalProperties": False,
    }


# -- who reaches whom ------------------------------------------------------------------------------


class Reaches(Kind, word="reaches"):
    """An echo request is answered; of `all` nodes each reaches each."""

    shape: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            _shape("from", "to", **{"from": _NODE, "to": _NODE}),
            _shape("all", all={"type": "array", "items": _NODE, "minItems": 2}),
        ]
    }

    def look(self, lab: Lab) -> Seen:
        with ExitStack() as stack:
            pairs = self._pairs(lab, stack)
            silent = unreachable(pairs, timeout_s=_LOOK_S, round_trip_s=lab.round_trip_s)
            if silent:
                why = _unanswered(*silent[0])
            else:
                silent = [pair for pair in pairs if not self._is_it(*pair, lab)]
                if not silent:
                    return Seen(True, f"{len(pairs)} of {len(pairs)} answer" if len(pairs) > 1 else
                                "an answer came")  # fmt: skip
                source, target = silent[0]
                why = f"an answer came to {source}, and not from {_named(target)}: it heard nothing"
        if len(pairs) == 1:
            return Seen(False, why)
        return Seen(False, f"{len(pairs) - len(silent)} of {len(pairs)} answer; {why}")

    def _is_it(self, source: Node, target: Node | IPv4Address, lab: Lab) -> bool:
        """Whether it is the target that answers, and nobody in its place."""
        if isinstance(target, Node):
            asked = {target: target.address}
        elif places.has(source, target):
            return False  # it would be asking itself
        else:
            asked = dict.fromkeys(places.owners(lab, target), target)
        # Of what nobody we know has, there is nobody to ask.
        return not asked or any(
            is_heard(source, node, address, timeout_s=_HEARD_S, round_trip_s=lab.round_trip_s)
            for node, address in asked.items()
        )

    def _pairs(self, lab: Lab, stack: ExitStack) -> list[tuple[Node, Node | IPv4Address]]:
        if "all" in self.given:
            nodes = [places.find(lab, name, stack) for name in self.given["all"]]
            for node in nodes:
                places.require_address(node)
            return list(permutations(nodes, 2))
        return [_ends(self.given, lab, stack)]


class DoesNotReach(Kind, word="does_not_reach"):
    """No echo request is answered."""

    shape: ClassVar[Mapping[str, Any]] = _shape("from", "to", **{"from": _NODE, "to": _NODE})

    def look(self, lab: Lab) -> Seen:
        with ExitStack() as stack:
            pair = _ends(self.given, lab, stack)
            silent = unreachable([pair], timeout_s=_SILENCE_S, round_trip_s=lab.round_trip_s)
            return Seen(True, "no answer") if silent else Seen(False, f"{_named(pair[1])} answers")


class Transfers(Kind, word="transfers"):
    """A TCP transfer in full-size segments arrives whole, which a ping does not show."""

    shape: ClassVar[Mapping[str, Any]] = _shape("from", "to", **{"from": _NODE, "to": _NODE})

    def examine(self, lab: Lab, faults: Faults, wait_s: float) -> Seen:
        # One that hangs is waited for as long as it may take.  One that does not begin may have met
        # neighbours that are only being found out: it is tried once more.
        seen = _await(lambda: self._once(lab, wait_s), 0, lab)
        return (
            seen
            if "no connection" not in seen.text
            else _await(lambda: self._once(lab, wait_s), 0, lab)
        )

    def _once(self, lab: Lab, wait_s: float) -> Seen:
        with ExitStack() as stack:
            source, target = _nodes(self.given, lab, stack)
            silence_s = max(wait_s, USUAL_WAIT_S) + 5 * lab.round_trip_s
            got, how = transfer(source, target, _TRANSFER_BYTES, timeout_s=silence_s)
        return Seen(
            got == _TRANSFER_BYTES and how == "same SHA-256",
            f"{got:,} of {_TRANSFER_BYTES:,} bytes arrived, {how}",
        )


class Distinct(Kind, word="distinct"):
    """No two of them have the same address; who shares which is for somebody to find out."""

    shape: ClassVar[Mapping[str, Any]] = {
        "oneOf": [{"const": "all"}, {"type": "array", "items": _NODE, "minItems": 2}]
    }

    def look(self, lab: Lab) -> Seen:
        names = self.given if self.given != "all" else [node.name for node in lab.nodes]
        with ExitStack() as stack:
            found = [places.require_address(places.find(lab, name, stack)) for name in names]
        different = len(set(found))
        return Seen(different == len(found), f"{len(found)} stations, {different} addresses")


class Address(Kind, word="address"):
    """A node has an address, or one in a network; on `device` alone if that is said."""

    shape: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            _shape("of", "in", of=_NODE, device=_TEXT, **{"in": _TEXT}),
            _shape("of", "is", of=_NODE, device=_TEXT, **{"is": _TEXT}),
        ]
    }

    def look(self, lab: Lab) -> Seen:
        given = self.given
        with ExitStack() as stack:
            node = places.find(lab, given["of"], stack)
            if device := given.get("device"):
                try:
                    found = node.device_address(device)
                except OSError:
                    raise AbsentError(f"{node} has no interface {device}") from None
                if found is None:
                    raise AbsentError(f"{device} of {node} has no address")
                own = found.ip
                others = [name for name, ip in places.addresses(node).items() if ip == own]
                if others != [device]:
                    return Seen(False, f"{node} has {own} on {' and on '.join(others)}")
            else:
                own = places.require_address(node)
        if "is" in given:
            return Seen(own == IPv4Address(given["is"]), f"{node} has {own}")
        return Seen(own in IPv4Network(given["in"]), f"{node} has {own}")


class Containers(Kind, word="containers"):
    """At least so many containers run on a host, each with an address in a network."""

    shape: ClassVar[Mapping[str, Any]] = _shape(
        "of", "in", "at_least",
        of=_NODE, at_least={"type": "integer", "minimum": 1}, **{"in": _TEXT},
    )  # fmt: skip

    def look(self, lab: Lab) -> Seen:
        host, network = lab.host_of(self.given["of"]), IPv4Network(self.given["in"])
        running = host.containers if host.is_on else []
        inside = 0
        for container in running:
            # It may have ended meanwhile, or have no address.
            with suppress(XlabError), ExitStack() as stack:
                found = places.find(lab, container.name, stack)
                inside += places.require_address(found) in network
        text = f"running on {host}: {len(running)}; of them with an address of {network}: {inside}"
        return Seen(inside >= self.given["at_least"], text)


# -- the way packets go ----------------------------------------------------------------------------


class Takes(Kind, word="takes"):
    """Ten marked echoes and their answers all cross a physical link, in that encapsulation alone.

    Each counts once: on the link of a host that forwards it comes in, and goes on.
    """

    shape: ClassVar[Mapping[str, Any]] = _shape(
        "from", "to", "in",
        **{"from": _NODE, "to": _NODE, "in": {"enum": ["gre", "sleeve", "vxlan", "none"]},
           "at": _NODE},
    )  # fmt: skip

    def look(self, lab: Lab) -> Seen:
        wanted = self.given["in"]
        with ExitStack() as stack:
            source, target = _ends(self.given, lab, stack)
            at = lab.host_of(self.given.get("at") or _host_name(source))
            link = lab.physical_link(at)
            seen = follow_echoes(source, target, wire=lab.wire, interface=link,
                                 round_trip_s=lab.round_trip_s)  # fmt: skip
        kinds = sorted({sighting.decoded.encapsulation for sighting in seen.seen})
        listed = ", ".join(f"{seen.different(kind)} {_in_words(kind)}" for kind in kinds)
        text = f"of {2 * seen.sent} packets on the physical link of {at}: {listed or 'none'}"
        text += f"; {seen.lacking()}" if seen.dropped else ""
        return Seen(seen.all_were_in(wanted, lossy=lab.lossy), text)


class Mtu(Kind, word="mtu"):
    """The largest IP packet that crosses from one to the other unfragmented, in bytes."""

    shape: ClassVar[Mapping[str, Any]] = {
        "oneOf": [
            _shape("from", "to", how, **{"from": _NODE, "to": _NODE, how: {"type": "integer"}})
            for how in ("is", "at_least", "at_most")
        ]
    }

    def look(self, lab: Lab) -> Seen:
        with ExitStack() as stack:
            source, target = _nodes(self.given, lab, stack)
            if source.address == target.address:
                return Seen(False, _unanswered(source, target))
            wanted = next(self.given[how] for how in ("is", "at_least", "at_most")
                          if how in self.given)  # fmt: skip
            try:
                largest = largest_packet(
                    source, target, most=lab.mtu, guess=wanted, round_trip_s=lab.round_trip_s
                )
            except OSError as error:
                return Seen(False, f"{source} can't send to {_named(target)}: {error.strerror}")
        if largest is None:
            return Seen(False, f"nothing crosses from {source} to {target}")
        holds = {
            "is": largest == wanted,
            "at_least": largest >= wanted,
            "at_most": largest <= wanted,
        }
        how = next(each for each in holds if each in self.given)
        return Seen(holds[how], f"the largest packet that crosses has {largest} bytes")


class Quiet(Kind, word="quiet"):
    """At most `most` frames a second pass on a host's physical link, three seconds in a row."""

    shape: ClassVar[Mapping[str, Any]] = _shape(
        "at", "most", at=_NODE, most={"type": "integer", "minimum": 0}
    )

    def look(self, lab: Lab) -> Seen:
        host = lab.host_of(self.given["at"])
        counts: deque[int] = deque(maxlen=_QUIET_IN_A_ROW)
        for _ in range(_QUIET_LOOKS):
            with Capture(lab.wire, lab.physical_link(host)) as capture:
                time.sleep(_QUIET_S)
            counts.append(len(capture.frames) + capture.dropped)
            if len(counts) == _QUIET_IN_A_ROW and max(counts) <= self.given["most"]:
                break
        text = f"{max(counts):,} frames a second on the physical link of {host}"
        return Seen(max(counts) <= self.given["most"], text)


# -- when something goes wrong ---------------------------------------------------------------------


class Survives(Kind, word="survives"):
    """Another check holds although a fault is in force, or, `mended`, once it is over."""

    shape: ClassVar[Mapping[str, Any]] = _shape(
        "fault", "then",
        fault=_TEXT, mended={"enum": ["yes", "no"]}, then={"$ref": "#/$defs/asked"},
    )  # fmt: skip

    def examine(self, lab: Lab, faults: Faults, wait_s: float) -> Seen:
        order = self.given["fault"]
        fault = faults.read(order).fault
        ((word, arguments),) = self.given["then"].items()
        then = Kind.known[word](arguments)
        over = self.given.get("mended") == "yes"
        if fault in faults.in_force and not over:
            seen = then.examine(lab, faults, wait_s)
            return Seen(seen.holds, f"under `{order}`: {seen.text}")
        if fault in faults.in_force:
            return Seen(False, f"`{order}` is in force already: `{fault.cure}` mends it")
        faults.apply(fault)
        try:
            if over:
                _mend(faults, fault)
            seen = then.examine(lab, faults, wait_s)
        finally:
            if not over:
                _mend(faults, fault)
        when = "after" if over else "under"
        return Seen(seen.holds, f"{when} `{order}`: {seen.text}")


def _mend(faults: Faults, fault: fault_kinds.Fault) -> None:
    """What has ended by itself needs no mending."""
    if fault in faults.in_force:
        faults.mend(fault)


# -- plumbing --------------------------------------------------------------------------------------


def _ends(given: Mapping[str, Any], lab: Lab, stack: ExitStack) -> tuple[Node, Node | IPv4Address]:
    source = places.find(lab, given["from"], stack)
    places.require_address(source)
    return source, places.target(lab, given["to"], stack)


def _nodes(given: Mapping[str, Any], lab: Lab, stack: ExitStack) -> tuple[Node, Node]:
    source, target = (places.find(lab, given[end], stack) for end in ("from", "to"))
    places.require_address(source)
    places.require_address(target)
    return source, target


def _host_name(node: Node) -> str:
    return node.name.partition("/")[0].partition(" ")[0]


def _named(target: Node | IPv4Address) -> str:
    return f"{target} ({target.address})" if isinstance(target, Node) else str(target)


def _unanswered(source: Node, target: Node | IPv4Address) -> str:
    """What there is to say of an echo that was not answered: what the kernel does with it."""
    address = target.address if isinstance(target, Node) else target
    if isinstance(target, Node) and target is not source and address == source.address:
        return f"{source} and {target} have the same address, {address}"
    try:
        (route,) = source.listed(["ip", "-json", "route", "get", str(address)])
    except (CommandError, ValueError):
        return f"{source} has no route to {_named(target)}"
    via = f"via {route['gateway']} " if "gateway" in route else ""
    return f"no answer from {_named(target)}; {source} sends it {via}dev {route.get('dev')}"


def _in_words(encapsulation: str) -> str:
    return "plain" if encapsulation == "none" else f"in {encapsulation}"
