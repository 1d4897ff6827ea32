"""Checks checked: an exercise done as its teacher would, and broken on purpose.

as it begins              the points that README.md says, and no check that can't be carried out
solved                    all points, the hidden ones too
a fault planted in that   exactly the checks it is said to fail, and all of them again without
solved by other commands  all points
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xlab.errors import UsageError, XlabError
from xlab.exercises import answers, beginning, judging
from xlab.exercises.beginning import begun
from xlab.exercises.judging import Lab, Outcome, Result
from xlab.exercises.model import Exercise, Fault, Solution


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
        return f"{got} points{names and f' ({names})'}; README.md says {exercise.start_points}"
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
    """What was not as the fault says; it is undone again, and what failed passes then."""
    try:
        beginning.type_in(lab, fault.do, "do")
        if fault.order:
            lab.call("fault", {"order": fault.order})
        results = judging.judge(exercise, lab, {**given, **fault.answers})
        for each in lab.call("fault", {})["in_force"] if fault.order else ():
            if each["fault"] == fault.order:
                lab.call("fault", {"order": each["cure"]})
        beginning.type_in(lab, fault.undo, "undo")
    except XlabError as error:
        return str(error)
    by_id = {result.check.id: result for result in results}
    wrong = [_unnoticed(by_id[name]) for name in fault.fails]
    wrong += [
        f"{name} fails, too: {result.seen}" for name, result in by_id.items()
        if result.outcome is Outcome.FAILED and name not in fault.fails
    ]  # fmt: skip
    wrong.append(_broken(results))
    failed = [check for check in exercise.checks if check.id in fault.fails]
    if undone := _all_pass(judging.judge(exercise, lab, given, checks=failed)):
        wrong.append(f"once it is undone: {undone}")
    return "; ".join(filter(None, wrong))


def _unnoticed(result: Result) -> str:
    """Of a check that was to fail; nothing if it did."""
    match result.outcome:
        case Outcome.FAILED:
            return ""
        case Outcome.SKIPPED:
            return f"{result.check.id} is skipped, since {result.seen}: name that one"
    return f"{result.check.id} does not fail"


def _broken(results: list[Result]) -> str:
    return "; ".join(
        f"{r.check.id} can't be carried out: {r.seen}"
        for r in results if r.outcome is Outcome.BROKEN
    )  # fmt: skip
