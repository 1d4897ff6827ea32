"""Checks checked: an exercise done as its teacher would, and broken on purpose.

as it begins              the points that README.md says, and no check that can't be carried out
solved                    all points, the hidden ones too
a fault planted in that   exactly the checks it is said to fail, and all of them again without
solved by other commands  all points
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xlab.errors import UsageError, XlabError
from xlab.exercises import answers, beginning, judging
from xlab.exercises.exercise import Exercise, Fault, Solution
from xlab.exercises.judging import Lab, Outcome, Result
from xlab.outside import api


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried, and what was wrong with it; nothing if it was as it should be."""

    tried: str
    wrong: str


def selftest(
    exercise: Exercise, *, faults: bool = True, tell: Callable[[Finding], object] = lambda _: None
) -> list[Finding]:
    """Try all of it, or only beginning and solution; `tell` hears of each thing that was tried."""
    solution = exercise.solution
    if solution is None:
        raise UsageError(f"{exercise.name} has no solution/ here: nothing to try it with")
    found: list[Finding] = []

    def note(tried: str, wrong: str) -> None:
        found.append(Finding(tried, wrong))
        tell(found[-1])

    try:
        with begun(exercise) as lab:
            note("as it begins", _at_start(exercise, lab))
            beginning.solve(lab, solution)
            given = beginning.right_answers(solution)
            note("solved", _all_pass(judging.judge(exercise, lab, given)))
            if faults:
                note("answered wrong", _answered_wrong(exercise, lab, solution, given))
                for fault in exercise.faults:
                    note(f"with a fault: {fault.text}", _notices(exercise, lab, fault, given))
                if exercise.faults:
                    note("without them again", _all_pass(judging.judge(exercise, lab, given)))
        if exercise.other and faults:
            with begun(exercise) as lab:
                beginning.solve(lab, exercise.other)
                given = beginning.right_answers(exercise.other)
                note("solved by other commands", _all_pass(judging.judge(exercise, lab, given)))
    except XlabError as error:
        note("to carry it out", str(error))
    return found


@contextmanager
def begun(exercise: Exercise) -> Iterator[Lab]:
    """A lab of its own for the exercise, as the student finds it; ends with the block."""
    asked = beginning.asked(exercise)
    made = api.of_request(
        asked.request, until=asked.until, empty=asked.empty, machines=True, check=False
    )
    with made as lab:
        beginning.prepare(exercise, lab)
        yield lab


def _at_start(exercise: Exercise, lab: Lab) -> str:
    results = judging.judge(exercise, lab, {})
    broken = _broken(results)
    shown = [result for result in results if result.check.shown]
    got, hidden = judging.points(shown), judging.points(results) - judging.points(shown)
    if broken:
        return broken
    if hidden:
        return f"{hidden} points of hidden checks"
    if got != exercise.start_points:
        names = ", ".join(result.check.id for result in shown if result.points)
        return f"{got} points ({names}); README.md says {exercise.start_points}"
    return ""


def _all_pass(results: list[Result]) -> str:
    wrong = [r for r in results if r.outcome is not Outcome.PASSED]
    return "; ".join(f"{r.check.id} {r.outcome.value}: {r.seen}" for r in wrong)


def _answered_wrong(
    exercise: Exercise, lab: Lab, solution: Solution, given: Mapping[str, Any]
) -> str:
    """Every answer by itself."""
    for check in exercise.questions:
        changed = {**given, check.id: answers.wrong(check, solution.answers[check.id])}
        (result,) = judging.judge(exercise, lab, changed, checks=[check])
        if result.outcome is not Outcome.FAILED:
            return f"{check.id}: {changed[check.id]!r} {result.outcome.value}"
    return ""


def _notices(exercise: Exercise, lab: Lab, fault: Fault, given: Mapping[str, Any]) -> str:
    """What was not as the fault says; it is undone again."""
    beginning.type_in(lab, fault.do, f"fault {fault.text}")
    if fault.order:
        lab.call("fault", {"order": fault.order})
    results = judging.judge(exercise, lab, {**given, **fault.answers})
    if fault.order:
        in_force = lab.call("fault", {})["in_force"]
        cures = [each["cure"] for each in in_force if each["fault"] == fault.order]
        for cure in cures:
            lab.call("fault", {"order": cure})
    beginning.type_in(lab, fault.undo, f"undoing {fault.text}")
    failed = {r.check.id for r in results if r.outcome is Outcome.FAILED}
    wrong = [f"{name} does not fail" for name in fault.fails if name not in failed]
    wrong += [
        f"{r.check.id} fails, too: {r.seen}"
        for r in results if r.check.id in failed - set(fault.fails)
    ]  # fmt: skip
    return "; ".join([*wrong, *filter(None, [_broken(results)])])


def _broken(results: list[Result]) -> str:
    return "; ".join(
        f"{r.check.id} can't be carried out: {r.seen}"
        for r in results if r.outcome is Outcome.BROKEN
    )  # fmt: skip
