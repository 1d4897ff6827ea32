"""The kinds of statement there are: each turns one sentence of the tutorial into evidence.

A kind is a class, and all of it is there: what it asks of the lab, what it says in the record, and
how a shell script asks the same (`outside/script/functions.sh` has what a script can ask).
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Address
from itertools import groupby

from xlab.errors import XlabError
from xlab.kernel.processes import command_line
from xlab.lab.capture import Capture, follow_pings
from xlab.lab.commands import Call, Remark, called, in_script
from xlab.lab.lab import OUTSIDE, Host, Lab
from xlab.lab.node import Node
from xlab.lab.reachability import ping_until_answered, sample_pairs, unreachable
from xlab.lab.transfer import transfer
from xlab.lab.weave import FASTDP_PORT
from xlab.record.record import Claim

#: Long enough for several windows of full-size segments; less where links are slow on purpose.
_TRANSFER_BYTES, _LEAST_TRANSFER_BYTES, _TRANSFER_S = 1 << 20, 64 << 10, 2.0

Target = Node | IPv4Address


@dataclass(frozen=True, slots=True)
class Terms:
    """Of which lab something is stated, and at which stage of its build."""

    lab: Lab
    stage: str
    #: How long what must come true may take.
    patience_s: float
    #: How long no answer must come before it counts as none.
    silence_s: float

    def claim(
        self, id: str, text: str, *, expected: str, observed: str, holds: bool, evidence: str
    ) -> Claim:
        return Claim(id.replace("/", "-"), self.stage, text, expected, observed, holds, evidence)


class Statement(ABC):
    """Something that must hold."""

    @property
    def asks(self) -> bool:
        """Whether the lab is asked, and can be asked again."""
        return True

    @abstractmethod
    def check(self, terms: Terms) -> Claim:
        """Whether it holds now.  That it does not is no error."""

    @abstractmethod
    def written(self, terms: Terms) -> Call | Remark:
        """The same for a script, in which plain tools check it; a remark if they can't."""


# -- reachability ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reaches(Statement):
    """`source` gets an answer to a ping within the terms' patience."""

    source: Node
    target: Target
    text: str = ""
    _: KW_ONLY
    id: str = ""

    def check(self, terms: Terms) -> Claim:
        result = ping_until_answered(self.source, _address(self.target), timeout_s=terms.patience_s)
        match = re.search(r"time=([\d.]+) ms", result.stdout)
        return terms.claim(
            self.id or f"{self.source}-reaches-{self.target}",
            self._said(),
            expected="an echo reply",
            observed=f"a reply after {match[1]} ms" if match else _ping_failure(result.stdout),
            holds=result.returncode == 0,
            evidence=_evidence(self.source, result.argv, result.stdout),
        )

    def written(self, terms: Terms) -> Call:
        return called("reaches", in_script(self.source), _address(self.target), self._said())

    def _said(self) -> str:
        return self.text or f"{self.source} reaches {self.target}"


def reaches_outside(source: Node) -> Reaches:
    """`source` gets an answer from an address off every lab subnet, behind the gateway."""
    return Reaches(source, OUTSIDE, f"{source} reaches the outside", id=f"{source}-reaches-outside")


@dataclass(frozen=True, slots=True)
class DoesNotReach(Statement):
    """`source` gets no answer to any of three pings."""

    source: Node
    target: Target
    text: str = ""
    _: KW_ONLY
    id: str = ""

    def check(self, terms: Terms) -> Claim:
        address = str(_address(self.target))
        argv = ["ping", "-n", "-c3", "-i0.1", f"-W{terms.silence_s:g}", address]
        result = self.source.run(argv, check=False, timeout_s=10 * terms.patience_s)
        replies = result.stdout.count("time=")
        return terms.claim(
            self.id or f"{self.source}-does-not-reach-{self.target}",
            self._said(),
            expected="no reply to 3 pings",
            observed=f"{replies} replies" if replies else _ping_failure(result.stdout),
            holds=replies == 0 and result.returncode == 1,
            evidence=_evidence(self.source, argv, result.stdout),
        )

    def written(self, terms: Terms) -> Call:
        return called("does_not_reach", in_script(self.source), _address(self.target), self._said())

    def _said(self) -> str:
        return self.text or f"{self.source} does NOT reach {self.target}"


@dataclass(frozen=True, slots=True)
class AllReachEachOther(Statement):
    """Every pair of `nodes`, or of more than 2,000 pairs a sample of 500, exchanges pings."""

    nodes: Sequence[Node]
    what: str

    def check(self, terms: Terms) -> Claim:
        pairs = sample_pairs(self.nodes)
        silent = unreachable(pairs, timeout_s=terms.patience_s, round_trip_s=terms.lab.round_trip_s)
        examples = ", ".join(f"{a} > {b}" for a, b in silent[:5])
        if silent[5:]:
            examples += f" and {len(silent) - 5} more"
        sampled = "" if len(pairs) == self._total else f", sampled of {self._total:,}"
        return terms.claim(
            f"all-{self.what.replace(' ', '-')}-reach-each-other",
            self._said(len(pairs), sampled),
            expected=f"{len(pairs)} of {len(pairs)} pairs answer",
            observed=f"{len(pairs) - len(silent)} of {len(pairs)} pairs answer"
            + (f"; silent: {examples}" if silent else ""),
            holds=not silent and bool(pairs),
            evidence="ICMP echo from a raw socket inside each node",
        )

    def written(self, terms: Terms) -> Call:
        return called("all_reach_each_other", self._said(self._total), *_addressed(self.nodes))

    @property
    def _total(self) -> int:
        return len(self.nodes) * (len(self.nodes) - 1)

    def _said(self, pairs: int, sampled: str = "") -> str:
        return f"all {self.what} reach each other ({pairs:,} pairs{sampled})"


@dataclass(frozen=True, slots=True)
class Transfers(Statement):
    """A TCP transfer in full-size segments arrives whole: what a ping does not show."""

    source: Node
    target: Node

    def check(self, terms: Terms) -> Claim:
        wanted, timeout_s = self._extent(terms)
        received, reason = transfer(self.source, self.target, wanted, timeout_s=timeout_s)
        return terms.claim(
            f"{self.source}-transfers-to-{self.target}",
            self._said(),
            expected=f"{wanted:,} bytes, same SHA-256",
            observed=f"{received:,} bytes, {reason}",
            holds=received == wanted and reason == "same SHA-256",
            evidence=f"TCP {self.source} > {self.target.address}",
        )

    def written(self, terms: Terms) -> Call:
        size_bytes, timeout_s = self._extent(terms)
        within_s = math.ceil(2 * timeout_s)  # twice, for two programs must start
        ends = in_script(self.source), in_script(self.target), self.target.address
        return called("transfers", *ends, size_bytes, within_s, self._said())

    def _said(self) -> str:
        return f"a full-size TCP transfer from {self.source} to {self.target} arrives whole"

    def _extent(self, terms: Terms) -> tuple[int, float]:
        """How many bytes to transfer, and how many seconds nothing may come."""
        rate = terms.lab.slowest_bits_per_second
        wanted = int(min(_TRANSFER_BYTES, (rate or float("inf")) / 8 * _TRANSFER_S))
        wanted = max(wanted, _LEAST_TRANSFER_BYTES)
        return wanted, terms.patience_s + (2 * wanted * 8 / rate if rate else 0)


@dataclass(frozen=True, slots=True)
class Takes(Statement):
    """Ten marked pings all cross the physical link of `source`'s host in `encapsulation`."""

    source: Node
    target: Node
    encapsulation: str
    text: str
    _: KW_ONLY
    #: The host whose link it is, if another.
    watched: Host | None = None

    def check(self, terms: Terms) -> Claim:
        link = self._link(terms)
        sightings = follow_pings(self.source, self.target, wire=terms.lab.wire, interface=link)
        kinds = sorted({s.decoded.encapsulation for s in sightings.seen})
        counts = ", ".join(f"{sightings.count(kind)} {kind}" for kind in kinds)
        packets = 2 * sightings.sent
        return terms.claim(
            f"{self.source}-to-{self.target}-takes-{self.encapsulation}",
            self.text,
            expected=f"{packets} of {packets} packets: {self.encapsulation}",
            observed="; ".join(filter(None, [counts or _NOTHING_OF_IT, sightings.lacking()])),
            holds=sightings.all_took(self.encapsulation, lossy=terms.lab.lossy),
            evidence=f"capture on {link}; {sightings.transcript}",
        )

    def written(self, terms: Terms) -> Call:
        how = _FILTERS[self.encapsulation], self._link(terms)
        return called("takes", *how, in_script(self.source), self.target.address, self.text)

    def _link(self, terms: Terms) -> str:
        return terms.lab.physical_link(self.watched or terms.lab.host_of(self.source))


_NOTHING_OF_IT = "no packet of the flow on the physical link"
#: What tells an encapsulation on the wire, for tcpdump (pcap-filter(7)).
_FILTERS: Mapping[str, str] = {
    "none": "icmp",
    "gre": "ip proto 47",
    "vxlan": f"udp dst port {FASTDP_PORT}",
    "geneve": "udp dst port 6081",
    "sleeve": "udp dst port 6783",
}


@dataclass(frozen=True, slots=True)
class BroadcastsReach(Statement):
    """An ARP request broadcast by `source` arrives at `target`'s eth0."""

    source: Node
    target: Node
    text: str

    def check(self, terms: Terms) -> Claim:
        source, target, nobody = self.source, self.target, _unused_address(self.source)
        with Capture(target, "eth0") as capture:
            source.run(["ping", "-n", "-c1", "-W0.3", str(nobody)], check=False)
        wanted = source.address.packed + bytes(6) + nobody.packed
        heard = sum(wanted in frame for _, frame in capture.frames)
        return terms.claim(
            f"broadcasts-of-{source}-reach-{target}",
            self.text,
            expected=f"ARP requests for {nobody} at {target}",
            observed=f"{heard} ARP requests heard",
            holds=heard > 0,
            evidence=f"{len(capture.frames)} frames captured on {target}'s eth0",
        )

    def written(self, terms: Terms) -> Call:
        asked = in_script(self.source), self.source.address, _unused_address(self.source)
        return called("broadcasts_reach", *asked, in_script(self.target), self.text)


@dataclass(frozen=True, slots=True)
class SwitchLearns(Statement):
    """The switch at `host` has the MAC of each node's eth0 in its table.

    Of nodes elsewhere it hears what they broadcast, and a busy switch loses some of that: who is
    missing sends something through it once more.
    """

    host: Host
    nodes: Sequence[Node]
    text: str
    _: KW_ONLY
    id: str

    def check(self, terms: Terms) -> Claim:
        lab, total = terms.lab, len(self.nodes)
        switch = lab.switch_of(self.host)
        unknown = _unknown_to(switch, self.nodes, lab)
        if unknown:
            unreachable(
                [(node, self._beyond(node, lab)) for node in unknown],
                timeout_s=terms.patience_s,
                round_trip_s=lab.round_trip_s,
            )
            unknown = _unknown_to(switch, unknown, lab)
        examples = ", ".join(node.name for node in unknown[:5])
        return terms.claim(
            self.id,
            self.text,
            expected=f"{total} of {total} MACs",
            observed=f"{total - len(unknown)} of {total} MACs"
            + (f"; not {examples}" if unknown else ""),
            holds=not unknown,
            evidence=f"bridge fdb show br {switch}",
        )

    def written(self, terms: Terms) -> Call:
        asked = [_pair(node, self._beyond(node, terms.lab).address) for node in self.nodes]
        return called("switch_learns", self.text, terms.lab.switch_of(self.host), *asked)

    def _beyond(self, node: Node, lab: Lab) -> Node:
        """Whom `node` reaches through the switch."""
        return lab.gateway if lab.host_of(node) is self.host else self.host


def _unknown_to(switch: str, nodes: Sequence[Node], lab: Lab) -> list[Node]:
    shown = lab.wire.listed(["bridge", "-json", "fdb", "show", "br", switch])
    learnt = {entry["mac"] for entry in shown}
    return [node for node in nodes if node.mac_address("eth0") not in learnt]


# -- addresses -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddressesAreDistinct(Statement):
    """No two of `nodes` have the same address."""

    nodes: Sequence[Node]
    what: str = "containers"

    def check(self, terms: Terms) -> Claim:
        owners: dict[IPv4Address, list[str]] = {}
        for node in self.nodes:
            owners.setdefault(node.address, []).append(node.name)
        shared = {a: names for a, names in owners.items() if len(names) > 1}
        listing = "; ".join(f"{a}: {', '.join(names)}" for a, names in list(shared.items())[:5])
        return terms.claim(
            "addresses-never-collide",
            self._said(),
            expected=f"{len(self.nodes)} different addresses",
            observed=f"{len(owners)} different addresses"
            + (f"; shared: {listing}" if shared else ""),
            holds=not shared,
            evidence=_ranges(owners),
        )

    def written(self, terms: Terms) -> Call:
        return called("distinct", self._said(), *_addressed(self.nodes))

    def _said(self) -> str:
        return f"no two of the {len(self.nodes)} {self.what} have the same address"


@dataclass(frozen=True, slots=True)
class AddressesAre(Statement):
    """Each node has the address that is expected of it."""

    id: str
    text: str
    expected: Mapping[Node, IPv4Address]

    def check(self, terms: Terms) -> Claim:
        observed = lambda: ", ".join(str(node.address) for node in self.expected)  # noqa: E731
        wanted = ", ".join(map(str, self.expected.values()))
        return Equal(self.id, self.text, expected=wanted, observed=observed).check(terms)

    def written(self, terms: Terms) -> Call:
        return called("have", self.text, *(_pair(*each) for each in self.expected.items()))


# -- anything else ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Equal(Statement):
    """`observed`, or what it returns when called, equals `expected`."""

    id: str
    text: str
    _: KW_ONLY
    expected: object
    observed: Callable[[], object] | object
    evidence: str = ""

    @property
    def asks(self) -> bool:
        return callable(self.observed)

    def check(self, terms: Terms) -> Claim:
        try:
            seen = self.observed() if callable(self.observed) else self.observed
        except XlabError as error:
            seen = f"{error}"
        return terms.claim(
            self.id,
            self.text,
            expected=str(self.expected),
            observed=str(seen),
            holds=seen == self.expected,
            evidence=self.evidence,
        )

    def written(self, terms: Terms) -> Remark:
        return _left_to_xlab(self.text)


@dataclass(frozen=True, slots=True)
class Shows(Statement):
    """The output of a command matches the regular expression `holds`."""

    id: str
    text: str
    _: KW_ONLY
    node: Node
    argv: Sequence[str]
    expected: str
    holds: str

    def check(self, terms: Terms) -> Claim:
        result = self.node.run(self.argv, check=False)
        output = result.stdout + result.stderr
        return terms.claim(
            self.id,
            self.text,
            expected=self.expected,
            observed=" ".join(output.split())[:200] or "no output",
            holds=re.search(self.holds, output) is not None,
            evidence=_evidence(self.node, self.argv, output),
        )

    def written(self, terms: Terms) -> Call:
        return called("shows", self.text, self.holds, in_script(self.node), *self.argv)


@dataclass(frozen=True, slots=True)
class Note(Statement):
    """A measured fact that the notes state without a figure."""

    id: str
    text: str
    _: KW_ONLY
    observed: str
    evidence: str = ""

    @property
    def asks(self) -> bool:
        return False

    def check(self, terms: Terms) -> Claim:
        return terms.claim(
            self.id,
            self.text,
            expected="(measured)",
            observed=self.observed,
            holds=True,
            evidence=self.evidence,
        )

    def written(self, terms: Terms) -> Remark:
        return _left_to_xlab(self.text)


# -- plumbing --------------------------------------------------------------------------------------


def _left_to_xlab(text: str) -> Remark:
    return Remark(f"xlab checks here, too: {text}")


def _addressed(nodes: Iterable[Node]) -> list[str]:
    return [_pair(node, node.address) for node in nodes]


def _pair(node: Node, address: IPv4Address) -> str:
    return f"{in_script(node)}={address}"


def _address(target: Target) -> IPv4Address:
    return target if isinstance(target, IPv4Address) else target.address


def _unused_address(node: Node) -> IPv4Address:
    """An address of the node's subnet that nobody has: the last but one."""
    interface = node.device_address("eth0")
    assert interface is not None
    return interface.network.broadcast_address - 1


def _ping_failure(output: str) -> str:
    """Why there was no reply, in ping's words: the error a router sent, or silence."""
    match = re.search(r"From ([\d.]+):? icmp_seq=\d+ (.+)", output)
    return f"no reply; {match[1]}: {match[2]}" if match else "no reply"


def _evidence(node: Node, argv: Sequence[str], output: str) -> str:
    return f"{node}$ {command_line(argv)}\n{output.strip()[-600:]}"


def _ranges(addresses: Iterable[IPv4Address]) -> str:
    """Addresses as runs: "10.211.55.64-10.211.55.67, 10.211.55.128"."""
    # All of a run are as far above where they stand.
    runs = groupby(enumerate(sorted(addresses)), lambda at: int(at[1]) - at[0])
    found = [[address for _, address in run] for _, run in runs]
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found]
    return ", ".join(texts[:20]) + (" …" if len(texts) > 20 else "")
