"""Claims, checked: each method here turns one sentence of the tutorial into evidence.

A check never raises because it failed; it becomes a claim that does not hold, and the build goes
on, so that one run shows everything there is to see.

Those about what lasts are remembered, so that a lab that stays can be asked again (`again`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Concatenate, ParamSpec

from xlab.errors import XlabError
from xlab.kernel.clock import Deadline
from xlab.kernel.processes import command_line
from xlab.lab.capture import Capture, follow_pings
from xlab.lab.lab import OUTSIDE, Host, Lab
from xlab.lab.node import Node
from xlab.lab.reachability import ping_until_answered, sample_pairs, unreachable
from xlab.record.record import Claim

#: How long a positive claim may take to come true: ARP and flow set-up take up to a second.
PATIENCE_S = 5.0
#: The same in a lab that stands, where nothing is being set up; many may be broken at once.
STANDING_PATIENCE_S = 2.5

#: A transfer may take so many times as long as it may be silent.
_LONGEST_TURNS = 10
#: Long enough for several windows of full-size segments; less where links are slow on purpose.
_TRANSFER_BYTES, _LEAST_TRANSFER_BYTES, _TRANSFER_S = 1 << 20, 64 << 10, 2.0

Target = Node | IPv4Address

_Arguments = ParamSpec("_Arguments")


class StageReached(BaseException):
    """Ends a build at the stage that was asked for; no error, so that no scenario may catch it."""


def _remembered(
    check: Callable[Concatenate[Checks, _Arguments], None],
) -> Callable[Concatenate[Checks, _Arguments], None]:
    """A check that can be made again, if its stage lasts."""

    @functools.wraps(check)
    def checked(checks: Checks, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        check(checks, *arguments, **named)
        checks.remember(functools.partial(check, checks, *arguments, **named))

    return checked


class Checks:
    """The claims of one build, in the order in which they were checked."""

    def __init__(
        self, lab: Lab, tell: Callable[[Claim], None], *, until: str | None = None
    ) -> None:
        """With `until`, StageReached is raised where the stage of that name begins."""
        self._lab = lab
        self._tell = tell
        self._until = until
        self._building = True
        self._stage, self._lasts = "start", True
        self.stages: list[str] = []
        self.claims: list[Claim] = []
        #: What the last claim of a stage that lasts said, and how to check it again.
        self._remembered: list[tuple[Claim, Callable[[], None]]] = []
        #: Time spent checking, to be told apart from building.
        self.spent_s = 0.0
        self._patience_s = PATIENCE_S + 5 * lab.round_trip_s
        #: How long no answer must come before it counts as none.
        self.silence_s = 0.4 + 1.5 * lab.round_trip_s

    def stage(self, name: str, *, lasts: bool = True) -> None:
        """Claims from here on belong to the stage `name`, "before the route" say.

        A stage begins when all that it is about has been built; `lasts` is False for one that the
        build leaves behind, and whose claims do not hold at its end.
        """
        self._stage, self._lasts = name, lasts
        self.stages.append(name)
        if name == self._until:
            raise StageReached(name)

    def remember(self, check: Callable[[], None]) -> None:
        """`check` has just made a claim, and can make it again."""
        if self._lasts:
            self._remembered.append((self.claims[-1], check))

    def again(self, tell: Callable[[Claim], None]) -> None:
        """Check again every claim of a stage that lasts, in the state in which the lab is now."""
        self._tell, self._building = tell, False
        self._patience_s = STANDING_PATIENCE_S + 5 * self._lab.round_trip_s
        for claim, check in self._remembered:
            self._stage = claim.stage
            try:
                check()
            except (XlabError, OSError) as error:
                failed = dataclasses.replace(claim, observed=str(error), holds=False, evidence="")
                self._tell(failed)

    # -- reachability ------------------------------------------------------------------------------

    @_remembered
    def reaches(self, source: Node, target: Target, text: str = "", *, id: str = "") -> None:
        """`source` gets an answer to a ping within `PATIENCE_S`."""
        with self._timed():
            result = ping_until_answered(source, address_of(target), timeout_s=self._patience_s)
            match = re.search(r"time=([\d.]+) ms", result.stdout)
            self._add(
                id or f"{source}-reaches-{label(target)}",
                text or f"{source} reaches {label(target)}",
                expected="an echo reply",
                observed=f"a reply after {match[1]} ms" if match else _ping_failure(result.stdout),
                holds=result.returncode == 0,
                evidence=_evidence(source, result.argv, result.stdout),
            )

    @_remembered
    def does_not_reach(
        self,
        source: Node,
        target: Target,
        text: str = "",
        *,
        id: str = "",
    ) -> None:
        """`source` gets no answer to any of three pings."""
        argv = ["ping", "-n", "-c3", "-i0.1", f"-W{self.silence_s:g}", str(address_of(target))]
        with self._timed():
            result = source.run(argv, check=False, timeout_s=10 * self._patience_s)
            replies = result.stdout.count("time=")
            self._add(
                id or f"{source}-does-not-reach-{label(target)}",
                text or f"{source} does NOT reach {label(target)}",
                expected="no reply to 3 pings",
                observed=f"{replies} replies" if replies else _ping_failure(result.stdout),
                holds=replies == 0 and result.returncode == 1,
                evidence=_evidence(source, argv, result.stdout),
            )

    def reaches_outside(self, source: Node) -> None:
        """`source` gets an answer from an address off every lab subnet, behind the gateway."""
        self.reaches(
            source, OUTSIDE, f"{source} reaches the outside", id=f"{source}-reaches-outside"
        )

    @_remembered
    def all_reach_each_other(self, nodes: Sequence[Node], what: str) -> None:
        """Every pair of `nodes`, or of more than 2,000 pairs a sample of 500, exchanges pings."""
        pairs = sample_pairs(nodes)
        with self._timed():
            silent = unreachable(
                pairs, timeout_s=self._patience_s, round_trip_s=self._lab.round_trip_s
            )
            examples = ", ".join(f"{a} > {label(b)}" for a, b in silent[:5])
            total = len(nodes) * (len(nodes) - 1)
            sampled = "" if len(pairs) == total else f", sampled of {total:,}"
            self._add(
                f"all-{what.replace(' ', '-')}-reach-each-other",
                pairs_text(what, len(pairs), sampled),
                expected=f"{len(pairs)} of {len(pairs)} pairs answer",
                observed=f"{len(pairs) - len(silent)} of {len(pairs)} pairs answer"
                + (f"; silent: {examples}" if silent else ""),
                holds=not silent and bool(pairs),
                evidence="ICMP echo from a raw socket inside each node",
            )

    @_remembered
    def transfers(self, source: Node, target: Node) -> None:
        """A TCP transfer in full-size segments arrives whole: what a ping does not show."""
        with self._timed():
            wanted, timeout_s = self._transfer_terms()
            received, reason = _transfer(source, target, wanted, timeout_s=timeout_s)
            self._add(
                f"{source}-transfers-to-{target}",
                transfer_text(source, target),
                expected=f"{wanted:,} bytes, same SHA-256",
                observed=f"{received:,} bytes, {reason}",
                holds=received == wanted and reason == "same SHA-256",
                evidence=f"TCP {source} > {target.address}",
            )

    def _transfer_terms(self) -> tuple[int, float]:
        """How many bytes to transfer, and within how many seconds."""
        rate = self._lab.slowest_bits_per_second
        wanted = int(min(_TRANSFER_BYTES, (rate or float("inf")) / 8 * _TRANSFER_S))
        wanted = max(wanted, _LEAST_TRANSFER_BYTES)
        return wanted, self._patience_s + (2 * wanted * 8 / rate if rate else 0)

    @_remembered
    def takes(self, source: Node, target: Node, encapsulation: str, text: str) -> None:
        """Ten marked pings all cross the physical link of `source`'s host in `encapsulation`."""
        host = self._host_of(source)
        with self._timed():
            sightings = follow_pings(
                source, target, wire=self._lab.wire, interface=self._lab.physical_link(host)
            )
            kinds = sorted({s.decoded.encapsulation for s in sightings.seen})
            counts = ", ".join(f"{sightings.count(kind)} {kind}" for kind in kinds)
            self._add(
                f"{source}-to-{target}-takes-{encapsulation}",
                text,
                expected=f"{2 * sightings.sent} of {2 * sightings.sent} packets: {encapsulation}",
                observed=counts or "no packet of the flow on the physical link",
                holds=sightings.all_took(encapsulation, lossy=self._lab.lossy),
                evidence=f"capture on {self._lab.physical_link(host)}; {sightings.transcript}",
            )

    @_remembered
    def broadcasts_reach(self, source: Node, target: Node, text: str) -> None:
        """An ARP request broadcast by `source` arrives at `target`'s eth0."""
        nobody = unused_address(source)
        with self._timed():
            with Capture(target, "eth0") as capture:
                source.run(["ping", "-n", "-c1", "-W0.3", str(nobody)], check=False)
            wanted = source.address.packed + bytes(6) + nobody.packed
            heard = sum(wanted in frame for _, frame in capture.frames)
            self._add(
                f"broadcasts-of-{source}-reach-{target}",
                text,
                expected=f"ARP requests for {nobody} at {target}",
                observed=f"{heard} ARP requests heard",
                holds=heard > 0,
                evidence=f"{len(capture.frames)} frames captured on {target}'s eth0",
            )

    @_remembered
    def switch_learns(self, host: Host, nodes: Sequence[Node], text: str, *, id: str) -> None:
        """The switch at `host` has the MAC of each node's eth0 in its table.

        Of nodes elsewhere it hears what they broadcast, and a busy switch loses some of that: who
        is missing sends something through it once more.
        """
        switch = self._lab.switch_of(host)
        with self._timed():
            unknown = self._unknown_to(switch, nodes)
            if unknown:
                unreachable(
                    [(node, self._beyond_switch(host, node)) for node in unknown],
                    timeout_s=self._patience_s,
                    round_trip_s=self._lab.round_trip_s,
                )
                unknown = self._unknown_to(switch, unknown)
            examples = ", ".join(node.name for node in unknown[:5])
            self._add(
                id,
                text,
                expected=f"{len(nodes)} of {len(nodes)} MACs",
                observed=f"{len(nodes) - len(unknown)} of {len(nodes)} MACs"
                + (f"; not {examples}" if unknown else ""),
                holds=not unknown,
                evidence=f"bridge fdb show br {switch}",
            )

    def _beyond_switch(self, host: Host, node: Node) -> Node:
        """Whom `node` reaches through the switch at `host`."""
        return self._lab.gateway if self._host_of(node) is host else host

    def _unknown_to(self, switch: str, nodes: Sequence[Node]) -> list[Node]:
        shown = self._lab.wire.listed(["bridge", "-json", "fdb", "show", "br", switch])
        learnt = {entry["mac"] for entry in shown}
        return [node for node in nodes if node.mac_address("eth0") not in learnt]

    # -- addresses ---------------------------------------------------------------------------------

    @_remembered
    def addresses_are_distinct(self, nodes: Iterable[Node], what: str = "containers") -> None:
        """No two of `nodes` have the same address."""
        with self._timed():
            owners: dict[IPv4Address, list[str]] = {}
            for node in nodes:
                owners.setdefault(node.address, []).append(node.name)
            shared = {a: names for a, names in owners.items() if len(names) > 1}
            total = sum(map(len, owners.values()))
            listing = "; ".join(f"{a}: {', '.join(names)}" for a, names in list(shared.items())[:5])
            self._add(
                "addresses-never-collide",
                distinct_text(what, total),
                expected=f"{total} different addresses",
                observed=f"{len(owners)} different addresses"
                + (f"; shared: {listing}" if shared else ""),
                holds=not shared,
                evidence=_ranges(owners),
            )

    @_remembered
    def addresses_are(self, id: str, text: str, expected: Mapping[Node, IPv4Address]) -> None:
        """Each node has the address that is expected of it."""
        wanted = ", ".join(map(str, expected.values()))
        self._compare(
            id, text, wanted, lambda: ", ".join(str(node.address) for node in expected), ""
        )

    # -- anything else -----------------------------------------------------------------------------

    def equal(
        self,
        id: str,
        text: str,
        *,
        expected: object,
        observed: Callable[[], object] | object,
        evidence: str = "",
    ) -> None:
        """`observed`, or what it returns when called, equals `expected`."""
        if callable(observed):
            self._equal(id, text, expected, observed, evidence)
        else:
            self._compare(id, text, expected, lambda: observed, evidence)

    @_remembered
    def _equal(
        self, id: str, text: str, expected: object, observed: Callable[[], object], evidence: str
    ) -> None:
        self._compare(id, text, expected, observed, evidence)

    def _compare(
        self, id: str, text: str, expected: object, observed: Callable[[], object], evidence: str
    ) -> None:
        with self._timed():
            try:
                seen = observed()
            except XlabError as error:
                seen = f"{error}"
            self._add(
                id,
                text,
                expected=str(expected),
                observed=str(seen),
                holds=seen == expected,
                evidence=evidence,
            )

    @_remembered
    def shows(
        self,
        id: str,
        text: str,
        *,
        node: Node,
        argv: Sequence[str],
        expected: str,
        holds: str,
    ) -> None:
        """The output of a command matches the regular expression `holds`."""
        with self._timed():
            result = node.run(argv, check=False)
            output = result.stdout + result.stderr
            self._add(
                id,
                text,
                expected=expected,
                observed=" ".join(output.split())[:200] or "no output",
                holds=re.search(holds, output) is not None,
                evidence=_evidence(node, argv, output),
            )

    def note(self, id: str, text: str, *, observed: str, evidence: str = "") -> None:
        """A measured fact that the notes state without a figure."""
        self._add(id, text, expected="(measured)", observed=observed, holds=True, evidence=evidence)

    # -- plumbing ----------------------------------------------------------------------------------

    def _add(
        self,
        id: str,
        text: str,
        *,
        expected: str,
        observed: str,
        holds: bool,
        evidence: str,
    ) -> None:
        claim = Claim(
            id=id.replace("/", "-"),
            stage=self._stage,
            text=text,
            expected=expected,
            observed=observed,
            holds=holds,
            evidence=evidence,
        )
        self.claims.append(claim)
        self._tell(claim)
        if not holds and self._building:
            self._lab.require_daemons()  # a dead one explains it, and all that would follow

    def _host_of(self, node: Node) -> Host:
        host = self._lab[node.name.partition("/")[0]]
        assert isinstance(host, Host)
        return host

    def _timed(self) -> _Stopwatch:
        return _Stopwatch(self)


class Unchecked:
    """In the place of `Checks`: claims are not what is measured."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Stopwatch:
    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._checks.spent_s += time.monotonic() - self._begun


def _transfer(source: Node, target: Node, size: int, *, timeout_s: float) -> tuple[int, str]:
    """Send `size` bytes; returns how many arrived and what was wrong, or "same SHA-256".

    It is given up when nothing more has come for `timeout_s`.
    """
    payload = os.urandom(size)
    deadline = Deadline(_LONGEST_TURNS * timeout_s)
    with target.entered():
        listener = socket.create_server(("", 0))
    with source.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    digest, received = hashlib.sha256(), 0
    try:
        sender.settimeout(timeout_s)
        try:
            sender.connect((str(target.address), listener.getsockname()[1]))
        except OSError as error:
            return 0, f"no connection ({error.strerror or error})"
        connection, _ = listener.accept()
        pump = threading.Thread(target=_send_all, args=(sender, payload), daemon=True)
        pump.start()
        with connection:
            # However busy the machine is: as long as it gets on it arrives.
            connection.settimeout(timeout_s)
            while received < size:
                if deadline.passed():
                    return received, f"and no more in {_LONGEST_TURNS * timeout_s:g} s altogether"
                try:
                    chunk = connection.recv(1 << 18)
                except TimeoutError:
                    return received, f"then nothing more within {timeout_s:g} s"
                if not chunk:
                    return received, "then the connection closed"
                digest.update(chunk)
                received += len(chunk)
    finally:
        sender.close()
        listener.close()
    same = digest.digest() == hashlib.sha256(payload).digest()
    return received, "same SHA-256" if same else "a different SHA-256"


def _send_all(sender: socket.socket, payload: bytes) -> None:
    try:
        sender.sendall(payload)
    except OSError:
        return  # the receiving side reports what did not arrive


def address_of(target: Target) -> IPv4Address:
    return target.address if isinstance(target, Node) else target


def label(target: Target) -> str:
    return target.name if isinstance(target, Node) else str(target)


def unused_address(node: Node) -> IPv4Address:
    """An address of the node's subnet that nobody has: the last but one."""
    interface = node.device_address("eth0")
    assert interface is not None
    return interface.network.broadcast_address - 1


# -- what is claimed, in the words of a record and of a script -----------------------------------


def pairs_text(what: str, pairs: int, sampled: str = "") -> str:
    return f"all {what} reach each other ({pairs:,} pairs{sampled})"


def transfer_text(source: Node, target: Node) -> str:
    return f"a full-size TCP transfer from {source} to {target} arrives whole"


def distinct_text(what: str, total: int) -> str:
    return f"no two of the {total} {what} have the same address"


def _ping_failure(output: str) -> str:
    """Why there was no reply, in ping's words: the error a router sent, or silence."""
    match = re.search(r"From ([\d.]+):? icmp_seq=\d+ (.+)", output)
    return f"no reply; {match[1]}: {match[2]}" if match else "no reply"


def _evidence(node: Node, argv: Sequence[str], output: str) -> str:
    return f"{node}$ {command_line(argv)}\n{output.strip()[-600:]}"


def _ranges(addresses: Iterable[IPv4Address]) -> str:
    """Addresses as runs: "10.211.55.64-10.211.55.67, 10.211.55.128"."""
    numbers = sorted(int(a) for a in addresses)
    if not numbers:
        return ""
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1]
    runs = [numbers[i:j] for i, j in zip([0, *breaks], [*breaks, len(numbers)], strict=True)]
    texts = [
        f"{IPv4Address(run[0])}" + (f"-{IPv4Address(run[-1])}" if len(run) > 1 else "")
        for run in runs
    ]
    return ", ".join(texts[:20]) + (" …" if len(texts) > 20 else "")
