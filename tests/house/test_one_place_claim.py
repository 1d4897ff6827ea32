"""A new kind of claim is one class: it is checked, told in the record, and put in the script."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from xlab.lab.commands import Call, CommandLog, called, in_script
from xlab.outside.script import whole
from xlab.outside.script.claims import WrittenClaims
from xlab.record.record import Claim
from xlab.scenario import blueprint
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.claims import Checks, Unchecked
from xlab.scenario.request import Request
from xlab.scenario.statements import Statement, Terms


@dataclass(frozen=True, slots=True)
class HasMtu(Statement):
    """The one class, as a scenario's own file could have it."""

    node: Any
    mtu: int

    def check(self, terms: Terms) -> Claim:
        seen = self.node.mtu("eth0")
        return terms.claim(
            f"{self.node}-mtu",
            self._said(),
            expected=f"{self.mtu}",
            observed=f"{seen}",
            holds=seen == self.mtu,
            evidence="",
        )

    def written(self, terms: Terms) -> Call:
        argv = ["cat", "/sys/class/net/eth0/mtu"]
        return called("shows", self._said(), f"^{self.mtu}$", in_script(self.node), *argv)

    def _said(self) -> str:
        return f"{self.node} has MTU {self.mtu}"


class Container(SimpleNamespace):
    def __str__(self) -> str:
        return "h1/c1"


def build(check: Checks, node: Container) -> None:
    check.stage("once", lasts=False)
    check.that(HasMtu(node, 9000))
    check.stage("in the end")
    check.that(HasMtu(node, 1500))


def test_a_new_kind_is_checked_told_and_asked_again() -> None:
    lab: Any = SimpleNamespace(round_trip_s=0, require_daemons=lambda: None)
    mtus = iter([1500, 1500, 1400])
    node, told = Container(mtu=lambda _: next(mtus)), list[Claim]()
    check = Checks(lab, told.append)
    build(check, node)
    wrong, right = check.claims
    assert told == [wrong, right]
    assert wrong == Claim("h1-c1-mtu", "once", "h1/c1 has MTU 9000", "9000", "1500", holds=False)
    assert (right.stage, right.text, right.holds) == ("in the end", "h1/c1 has MTU 1500", True)
    # Later the lab is asked again what is to last, and nothing else.
    check.again(told.append)
    assert [(claim.expected, claim.observed) for claim in told[2:]] == [("1500", "1400")]


def test_a_new_kind_is_written_in_the_script_and_left_out_where_nothing_is_checked() -> None:
    lab: Any = SimpleNamespace(round_trip_s=0)
    kept = CommandLog()
    build(WrittenClaims(lab, kept), Container())
    text = whole.script(kept.entries, Blueprint(blueprint.design(Request("bridge")), None, {}))
    line = "shows 'h1/c1 has MTU 1500' '^1500$' h1:c1 cat /sys/class/net/eth0/mtu"
    assert text.splitlines()[-4:-2] == ["stage 'in the end'", line]

    unchecked = Unchecked(lab)
    build(unchecked, Container())  # which has no MTU to ask for
    assert unchecked.claims == []
