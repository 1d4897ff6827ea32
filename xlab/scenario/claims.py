"""Claims, checked: a build states what must hold, and each statement is checked where it stands.

A check never raises because it failed; it becomes a claim that does not hold, and the build goes
on, so that one run shows everything there is to see.

Those about what lasts are remembered, so that a lab that stays can be asked again (`again`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from xlab.errors import XlabError
from xlab.lab.lab import Lab
from xlab.record.record import Claim
from xlab.scenario import statements
from xlab.scenario.statements import Statement, Terms

#: How long a positive claim may take to come true: ARP and flow set-up take up to a second.
PATIENCE_S = 5.0
#: The same in a lab that stands, where nothing is being set up; many may be broken at once.
STANDING_PATIENCE_S = 2.5

_Arguments = ParamSpec("_Arguments")


def silence_s(lab: Lab) -> float:
    """How long no answer must come before it counts as none."""
    return 0.4 + 1.5 * lab.round_trip_s


class StageReached(BaseException):
    """Ends a build at the stage that was asked for; no error, so that no scenario may catch it."""


def _stated(
    kind: Callable[_Arguments, Statement],
) -> Callable[Concatenate[Checks, _Arguments], None]:
    """A statement of that kind, as a method of those who check it."""

    def state(checks: Checks, /, *arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        checks.that(kind(*arguments, **named))

    return state


class Checks:
    """The claims of one build, in the order in which they were checked."""

    reaches = _stated(statements.Reaches)
    reaches_outside = _stated(statements.reaches_outside)
    does_not_reach = _stated(statements.DoesNotReach)
    all_reach_each_other = _stated(statements.AllReachEachOther)
    transfers = _stated(statements.Transfers)
    takes = _stated(statements.Takes)
    broadcasts_reach = _stated(statements.BroadcastsReach)
    switch_learns = _stated(statements.SwitchLearns)
    addresses_are_distinct = _stated(statements.AddressesAreDistinct)
    addresses_are = _stated(statements.AddressesAre)
    equal = _stated(statements.Equal)
    shows = _stated(statements.Shows)
    note = _stated(statements.Note)

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
        #: Those of stages that last, and what became of each.
        self._remembered: list[tuple[Claim, Statement]] = []
        #: Time spent checking, to be told apart from building.
        self.spent_s = 0.0
        self._patience_s = PATIENCE_S + 5 * lab.round_trip_s
        self.silence_s = silence_s(lab)

    def stage(self, name: str, *, lasts: bool = True) -> None:
        """Claims from here on belong to the stage `name`, "before the route" say.

        A stage begins when all that it is about has been built; `lasts` is False for one that the
        build leaves behind, and whose claims do not hold at its end.
        """
        self._stage, self._lasts = name, lasts
        self.stages.append(name)
        if name == self._until:
            raise StageReached(name)

    def that(self, statement: Statement) -> None:
        """Check it, tell what became of it, and remember it if it can be asked again later."""
        claim = self._check(statement)
        if self._lasts and statement.asks:
            self._remembered.append((claim, statement))

    def again(self, tell: Callable[[Claim], None]) -> None:
        """Check again every claim of a stage that lasts, in the state in which the lab is now."""
        self._tell, self._building = tell, False
        self._patience_s = STANDING_PATIENCE_S + 5 * self._lab.round_trip_s
        for claim, statement in self._remembered:
            self._stage = claim.stage
            try:
                self._check(statement)
            except (XlabError, OSError) as error:
                failed = dataclasses.replace(claim, observed=str(error), holds=False, evidence="")
                self._tell(failed)

    def terms(self) -> Terms:
        """Those of a statement that is made now."""
        return Terms(self._lab, self._stage, self._patience_s, self.silence_s)

    def _check(self, statement: Statement) -> Claim:
        begun = time.monotonic()
        try:
            claim = statement.check(self.terms())
        finally:
            if statement.asks:
                self.spent_s += time.monotonic() - begun
        self.claims.append(claim)
        self._tell(claim)
        if not claim.holds and self._building:
            self._lab.require_daemons()  # a dead one explains it, and all that would follow
        return claim


class Unchecked(Checks):
    """What is measured is building: no claim is checked."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, lambda _: None)

    def that(self, statement: Statement) -> None:
        """It is left open."""
