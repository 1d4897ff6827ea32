"""Claims that are written down instead of checked: the script checks them when it runs."""

from __future__ import annotations

from xlab.lab.commands import CommandLog, Stage
from xlab.lab.lab import Lab
from xlab.scenario.claims import Checks
from xlab.scenario.scenario import Flow
from xlab.scenario.statements import Statement, Takes


class WrittenClaims(Checks):
    """In the place of `Checks`: what plain tools can show goes into the script as a claim, what
    only a program of ours knows as a comment."""

    def __init__(self, lab: Lab, kept: CommandLog) -> None:
        super().__init__(lab, lambda _: None)
        self._kept = kept

    def stage(self, name: str, *, lasts: bool = True) -> None:
        super().stage(name, lasts=lasts)
        self._kept.add(Stage(name))

    def that(self, statement: Statement) -> None:
        self._kept.add(statement.written(self.terms()))

    def prove(self, flow: Flow) -> None:
        """The flow's path, then its negative control: cut, and healed again."""
        self._kept.add(Stage("the proof of the path", built=False))
        source, target = flow.source, flow.target
        link, form = self._lab.physical_link(flow.watched), _FORMS[flow.encapsulation]
        text = f"packets from {source} to {target} cross {link}: {form}"
        self.that(Takes(source, target, flow.encapsulation, text, watched=flow.watched))
        flow.cut()
        if flow.cut_stops_traffic:
            self.does_not_reach(source, target, f"{flow.cut_text}: {source} no longer reaches it")
        else:
            self.reaches(source, target, f"{flow.cut_text}: {source} still reaches it")
        flow.heal()
        self.reaches(source, target, f"healed: {source} reaches {target}")


_FORMS = {
    "none": "plain IP",
    "gre": "GRE",
    "vxlan": "VXLAN",
    "geneve": "Geneve",
    "sleeve": "weave's sleeve",
}
