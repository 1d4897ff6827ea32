"""Claims that are written down instead of checked: the script checks them when it runs."""

# ruff: noqa: A002, ARG002  (the names are those of Checks; a script has no use for ids)

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from xlab.lab.commands import (
    Broadcast,
    CommandLog,
    Distinct,
    Have,
    Learn,
    Reach,
    ReachAll,
    Remark,
    Show,
    Stage,
    Take,
    Transfer,
)
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.scenario.claims import (
    Checks,
    Target,
    address_of,
    distinct_text,
    label,
    pairs_text,
    transfer_text,
    unused_address,
)
from xlab.scenario.scenario import Flow


class WrittenClaims(Checks):
    """In the place of `Checks`: what plain tools can show goes into the script as a claim, what
    only a program of ours knows as a comment."""

    def __init__(self, lab: Lab, kept: CommandLog) -> None:
        super().__init__(lab, lambda _: None)
        self._kept = kept

    def stage(self, name: str, *, lasts: bool = True) -> None:
        super().stage(name, lasts=lasts)
        self._kept.add(Stage(name))

    def reaches(self, source: Node, target: Target, text: str = "", *, id: str = "") -> None:
        self._kept.add(
            Reach(source.name, _address(target), text or f"{source} reaches {label(target)}")
        )

    def does_not_reach(
        self,
        source: Node,
        target: Target,
        text: str = "",
        *,
        id: str = "",
    ) -> None:
        text = text or f"{source} does NOT reach {label(target)}"
        self._kept.add(Reach(source.name, _address(target), text, holds=False))

    def all_reach_each_other(self, nodes: Sequence[Node], what: str) -> None:
        pairs = len(nodes) * (len(nodes) - 1)
        self._kept.add(ReachAll(_named(nodes), pairs_text(what, pairs)))

    def takes(self, source: Node, target: Node, encapsulation: str, text: str) -> None:
        link = self._lab.physical_link(self._host_of(source))
        self._kept.add(Take(source.name, _address(target), link, encapsulation, text))

    def addresses_are_distinct(self, nodes: Iterable[Node], what: str = "containers") -> None:
        named = _named(nodes)
        self._kept.add(Distinct(named, distinct_text(what, len(named))))

    def addresses_are(self, id: str, text: str, expected: Mapping[Node, IPv4Address]) -> None:
        named = tuple((node.name, str(address)) for node, address in expected.items())
        self._kept.add(Have(named, text))

    def transfers(self, source: Node, target: Node) -> None:
        size_bytes, timeout_s = self._transfer_terms()
        # Twice, for two programs must start.
        within_s, text = math.ceil(2 * timeout_s), transfer_text(source, target)
        self._kept.add(
            Transfer(source.name, target.name, _address(target), size_bytes, within_s, text)
        )

    def broadcasts_reach(self, source: Node, target: Node, text: str) -> None:
        nobody = str(unused_address(source))
        self._kept.add(Broadcast(source.name, _address(source), target.name, nobody, text))

    def switch_learns(self, host: Host, nodes: Sequence[Node], text: str, *, id: str) -> None:
        asked = tuple((node.name, _address(self._beyond_switch(host, node))) for node in nodes)
        self._kept.add(Learn(self._lab.switch_of(host), asked, text))

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
        self._kept.add(Show(node.name, tuple(argv), holds, text))

    def prove(self, flow: Flow) -> None:
        """The flow's path, then its negative control: cut, and healed again."""
        self._kept.add(Stage("the proof of the path", built=False))
        source, target = flow.source, flow.target
        link = self._lab.physical_link(flow.watched)
        text = f"packets from {source} to {target} cross {link}: {_FORMS[flow.encapsulation]}"
        self._kept.add(Take(source.name, _address(target), link, flow.encapsulation, text))
        flow.cut()
        if flow.cut_stops_traffic:
            self.does_not_reach(source, target, f"{flow.cut_text}: {source} no longer reaches it")
        else:
            self.reaches(source, target, f"{flow.cut_text}: {source} still reaches it")
        flow.heal()
        self.reaches(source, target, f"healed: {source} reaches {target}")

    # -- what only xlab knows ----------------------------------------------------------------------

    def equal(
        self,
        id: str,
        text: str,
        *,
        expected: object,
        observed: Callable[[], object] | object,
        evidence: str = "",
    ) -> None:
        self._remark(text)

    def note(self, id: str, text: str, *, observed: str, evidence: str = "") -> None:
        self._remark(text)

    def _remark(self, text: str) -> None:
        self._kept.add(Remark(f"xlab checks here, too: {text}"))


_FORMS = {
    "none": "plain IP",
    "gre": "GRE",
    "vxlan": "VXLAN",
    "geneve": "Geneve",
    "sleeve": "weave's sleeve",
}


def _named(nodes: Iterable[Node]) -> tuple[tuple[str, str], ...]:
    return tuple((node.name, str(node.address)) for node in nodes)


def _address(target: Target) -> str:
    return str(address_of(target))
