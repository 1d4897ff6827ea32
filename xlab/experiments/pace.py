"""How long it still takes: from what steps are known to take, then from what was seen.

    known before    probes between two ends say their seconds (`probes.kinds.Probe.takes`)
    first round     how many of its steps are done
    from then on    the median of the rounds, and of the methods, that are done

An estimate that nothing supports yet is None.  In virtual time nothing is known before: an emulated
second takes as long as this machine needs for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xlab.experiments.compare.methods import BASELINE
from xlab.probes.catalog import USUAL
from xlab.probes.facts import Plan
from xlab.probes.rounds import seconds_of
from xlab.record import stats
from xlab.record.comparisons import ComparisonPlan
from xlab.record.record import ROUTES
from xlab.scenario.request import Request

#: What a lab takes to be built, checked and proved, and to be taken down: as measured on two
#: processors, with two hosts.
_BUILD_S, _END_S = 3.0, 0.5
#: So much of the first round tells how long it takes.
_TELLING_SHARE = 0.2


def of_run(request: Request) -> float | None:
    """Seconds of one run, as far as they are known before."""
    round_s = _round_s(request)
    return None if round_s is None else _BUILD_S + request.repeat * round_s + _END_S


def of_comparison(plan: ComparisonPlan) -> float | None:
    """The same of a comparison that ends with its usual rounds."""
    if plan.disturbing:
        return None
    each = Plan(plan.duration_s, virtual=plan.clock == "virtual", quick=plan.quick)
    total = 0.0
    for method in plan.methods:
        routes = 1 if method == BASELINE else 2
        seconds = seconds_of(plan.probes, each, routes)
        if seconds is None:
            return None
        total += seconds
    builds = -(-plan.rounds // plan.rounds_per_build)
    # Labs are built side by side, two a processor.
    return plan.rounds * total + builds * (_BUILD_S + _END_S) * max(1.0, len(plan.methods) / 4)


def _round_s(request: Request) -> float | None:
    plan = Plan(request.duration_s, virtual=request.clock == "virtual", quick=request.quick)
    return seconds_of((*USUAL, *request.probes), plan, len(ROUTES))


class Pace:
    """Where several runs are, one after the other, told by the events that their screen is told."""

    def __init__(
        self, requests: Sequence[Request], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = requests
        self._clock = clock
        #: Which of them it is, from 1 on.
        self.number = 0
        #: What was seen: seconds before, of, and after the rounds.
        self._before: list[float] = []
        self._rounds: list[float] = []
        self._after: list[float] = []

    @property
    def of(self) -> int:
        return len(self._requests)

    def begins(self) -> None:
        """The next of them."""
        self.number += 1
        self._since = self._clock()
        self._phase = "before"
        self._round = self._step = self._steps = 0

    def watch(self, event: Mapping[str, Any]) -> None:
        """Of the one that runs."""
        kind, phase = event["kind"], event.get("phase")
        if kind == "step" and phase == "guest":
            # Made once: the next need not wait for it.
            self._since = self._clock()
        elif kind == "step" and "steps" in event:
            if event["round"] != self._round:
                self._turn(self._rounds if self._round else self._before, "rounds")
                self._round = event["round"]
            self._step, self._steps = event["step"], event["steps"]
        elif kind == "phase" and phase == "measure" and self._round:
            self._turn(self._rounds, "after")

    def ended(self) -> None:
        """The one that ran has; what became of one that was not measured tells nothing."""
        if self._phase == "after":
            self._turn(self._after, "over")

    def left_s(self) -> float | None:
        """Until the last of them has ended; None while nobody knows."""
        repeat = self._requests[0].repeat
        round_s = self._usual_round_s()
        if round_s is None:
            return None
        before_s = stats.median(self._before) or _BUILD_S
        after_s = stats.median(self._after) or _END_S
        elapsed = self._clock() - self._since
        others = (self.of - self.number) * (before_s + repeat * round_s + after_s)
        if self._phase == "over":
            return others
        if self._phase == "after":
            return others + max(after_s - elapsed, 0.0)
        if self._phase == "before":
            return others + max(before_s - elapsed, 0.0) + repeat * round_s + after_s
        here = round_s - elapsed
        if here < 0:  # it takes longer than it should: its steps tell
            here = round_s * max(self._steps - self._step, 0) / self._steps
        return others + here + (repeat - self._round) * round_s + after_s

    def _usual_round_s(self) -> float | None:
        seen = stats.median(self._rounds)
        if seen is not None:
            return seen
        known = _round_s(self._requests[0])
        done = self._step - 1
        if self._phase == "rounds" and done >= _TELLING_SHARE * self._steps:
            # A busy machine needs longer than it should.
            return max((self._clock() - self._since) * self._steps / done, known or 0.0)
        return known

    def _turn(self, kept: list[float], phase: str) -> None:
        now = self._clock()
        kept.append(now - self._since)
        self._since, self._phase = now, phase
