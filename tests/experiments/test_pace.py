"""How long runs still take, told by a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from xlab.experiments import pace
from xlab.experiments.compare import plan
from xlab.experiments.compare.methods import Method
from xlab.experiments.pace import Pace
from xlab.scenario.request import Request

FULL = Request("bridge")
QUICK = replace(FULL, quick=True, duration_s=1.0, repeat=1)
VIRTUAL = replace(FULL, clock="virtual", duration_s=1.0)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def begun(clock: Clock, request: Request, methods: int = 4) -> Pace:
    made = Pace([request] * methods, clock)
    made.begins()
    return made


def measure(made: Pace, clock: Clock, *, rounds: int, round_s: float, steps: int = 16) -> None:
    """The rounds of one run, each step as long as the others."""
    for number in range(1, rounds + 1):
        for step in range(1, steps + 1):
            made.watch(
                {"kind": "step", "phase": "measure", "round": number, "step": step, "steps": steps}
            )
            clock.now += round_s / steps
    made.watch({"kind": "phase", "phase": "measure", "seconds": 0})


def left(made: Pace) -> float:
    found = made.left_s()
    assert found is not None
    return found


def test_before_anything_was_seen_the_steps_own_seconds_tell() -> None:
    known = pace.of_run(FULL)
    assert known is not None
    # Three rounds: 3 s alone, then three times 1 + 1 + 3 + 3 + 3 s, and 15 starts of programs.
    assert known == pytest.approx(3 * (3 + 33 + 15 * 0.15) + 3.5)
    assert left(begun(Clock(), FULL)) == pytest.approx(4 * known)
    quick = pace.of_run(QUICK)
    assert quick is not None
    assert 8 < quick < 15, "the help says: under 15 s"


def test_of_another_lab_and_of_another_clock_nobody_knows_before() -> None:
    assert pace.of_run(replace(FULL, probes=("first-packet",))) is None
    assert pace.of_run(VIRTUAL) is None
    assert begun(Clock(), VIRTUAL).left_s() is None


def test_what_rounds_and_methods_took_counts_for_those_to_come() -> None:
    clock = Clock()
    made = begun(clock, FULL)
    clock.now += 20  # it is built
    measure(made, clock, rounds=3, round_s=100)
    clock.now += 4  # it is taken down
    made.ended()
    assert left(made) == pytest.approx(3 * (20 + 300 + 4))
    made.begins()
    clock.now += 5
    assert left(made) == pytest.approx(3 * (20 + 300 + 4) - 5)
    measure(made, clock, rounds=1, round_s=50)
    assert made.number == 2


def test_one_round_of_the_other_clock_tells_the_next() -> None:
    clock = Clock()
    made = begun(clock, VIRTUAL, methods=1)
    made.watch({"kind": "step", "phase": "guest", "text": "booting"})
    clock.now += 60
    made.watch({"kind": "step", "phase": "guest", "text": "unpacking"})
    clock.now += 2
    for step in range(1, 5):
        made.watch({"kind": "step", "phase": "measure", "round": 1, "step": step, "steps": 10})
        clock.now += 1
    # Four of ten steps in 4 s, of which three had ended when the fourth began.
    assert 2 * 10 < left(made) < 3 * 14


def test_a_busy_machine_is_not_promised_to_be_fast() -> None:
    clock = Clock()
    made = begun(clock, QUICK, methods=1)
    for step in range(1, 9):
        made.watch({"kind": "step", "phase": "measure", "round": 1, "step": step, "steps": 16})
        clock.now += 10
    assert left(made) > 70


def test_what_was_skipped_or_broke_tells_nothing() -> None:
    clock = Clock()
    made = begun(clock, FULL)
    clock.now += 1
    made.ended()
    made.begins()
    known = pace.of_run(FULL)
    assert known is not None
    assert left(made) == pytest.approx(3 * known)


def test_a_round_that_takes_longer_than_all_before_is_told_by_its_steps() -> None:
    clock = Clock()
    made = begun(clock, FULL, methods=2)
    measure(made, clock, rounds=3, round_s=10)
    made.ended()
    made.begins()
    measure(made, clock, rounds=2, round_s=10)
    made.watch({"kind": "step", "phase": "measure", "round": 3, "step": 8, "steps": 16})
    clock.now += 40
    assert 5 <= left(made) < 10


def test_a_comparison_is_estimated_before_its_first_round() -> None:
    methods = [Method(name, name, Request(name)) for name in ("baseline", "bridge", "weave")]
    known = pace.of_comparison(plan.make(methods))
    assert known is not None
    assert 60 < known < 1200
    more = pace.of_comparison(plan.make(methods, rounds=20))
    assert more is not None
    assert more > 1.8 * known
    assert pace.of_comparison(plan.make(methods, probes=["recovery"])) is None
    virtual = [replace(each, request=replace(each.request, clock="virtual")) for each in methods]
    assert pace.of_comparison(plan.make(virtual)) is None
