"""Claims that are written down instead of checked: the script checks them when it runs."""

# ruff: noqa: A002, ARG002  (the names are those of Checks; most of it only xlab can check)

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from xlab.checks import Checks, Target, address_of, label
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.scenario import Flow
from xlab.transcript import Distinct, Reach, ReachAll, Remark, Show, Stage, Take, Transcript


class WrittenClaims(Checks):
    """In the place of `Checks`: what `ip`, `ping` or a capture can show goes into the script
    as a claim, anything else as a comment."""

    def __init__(self, lab: Lab, kept: Transcript) -> None:
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
        self._kept.add(ReachAll(_named(nodes), f"all {what} reach each other"))

    def takes(self, source: Node, target: Node, encapsulation: str, text: str) -> None:
        link = self._lab.physical_link(self._host_of(source))
        self._kept.add(Take(source.name, _address(target), link, encapsulation, text))

    def addresses_are_distinct(self, nodes: Iterable[Node], what: str = "containers") -> None:
        self._kept.add(Distinct(_named(nodes), f"no two {what} have the same address"))

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

    # -- what only xlab checks ---------------------------------------------------------------------

    def transfers(self, source: Node, target: Node) -> None:
        self._remark(f"a full-size TCP transfer from {source} to {target} arrives whole")

    def broadcasts_reach(self, source: Node, target: Node, text: str) -> None:
        self._remark(text)

    def switch_learns(self, host: Host, nodes: Sequence[Node], text: str, *, id: str) -> None:
        self._remark(text)

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
