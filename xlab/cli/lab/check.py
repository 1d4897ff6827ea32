"""`xlab lab check`: how far an exercise has been done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._options import Name
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Task, short, sitting_facts

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.exercises.judging import Result
    from xlab.exercises.sitting import Sitting


@command(epilog="Exit status: 0 all checks pass; 1 one does not; 2 wrong usage.")
def check(*, name: Name = None, task: Task = None, as_json: AsJson = False) -> int:
    """Carry out an exercise's checks: points, what was seen, and what to look at next."""
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import judging, sitting
    from xlab.exercises.judging import Outcome

    screen = Screen(sys.stderr if as_json else sys.stdout)
    with sitting.find(name) as found:
        found.require_task(task or 1)
        show = _Shown(screen, found)
        with screen.running():
            results = found.check(task=task, tell=show.result)
        judged = [r for r in results if r.outcome is not Outcome.UNJUDGED]
        got, most = judging.points(results), sum(r.check.points for r in judged)
        if as_json:
            print_json(
                {**sitting_facts(found), "points": got, "of": most, "hints_cost": found.cost,
                 "checks": [result.facts() for result in results]}
            )  # fmt: skip
        else:
            _say_result(screen, found, results, got, most)
    return 0 if all(r.outcome in (Outcome.PASSED, Outcome.UNJUDGED) for r in results) else 1


class _Shown:
    """Results as they come, task by task."""

    def __init__(self, screen: Screen, sitting: Sitting) -> None:
        self._screen = screen
        self._exercise = sitting.exercise
        self._task = 0
        screen.headline(
            f"{self._exercise.number} {self._exercise.title}", f"lab {sitting.lab.name}"
        )

    def result(self, result: Result) -> None:
        from xlab.exercises.judging import Outcome

        check = result.check
        if check.task != self._task:
            self._task = check.task
            self._screen.said(f"task {check.task}", self._exercise.tasks[check.task])
        good = {Outcome.PASSED: True, Outcome.FAILED: False}.get(result.outcome)
        skipped = "" if good is not None else f"{result.outcome}: "
        self._screen.said(
            "", f"{skipped}{result.text}", f"{result.points} of {check.points}", good=good
        )
        if good is not True:
            self._screen.said("", f"  {check.id}: {result.seen}")
        if good is False and check.look:
            self._screen.said("", f"  {check.look}")


def _say_result(
    screen: Screen, sitting: Sitting, results: Sequence[Result], got: int, most: int
) -> None:
    from xlab.exercises.judging import Outcome

    sees_all = len(sitting.exercise.checks) == len(sitting.exercise.shown)
    whole = sees_all and sitting.exercise.solution is not None
    of: Any = "points" if whole else "points of the checks you can see"
    left = sum(r.check.points for r in results if r.outcome is Outcome.UNJUDGED)
    of += f", {left} for your teacher to judge" if left else ""
    cost = f", {sitting.cost} less for hints" if sitting.cost else ""
    done = got == most
    screen.said("result", f"{got} of {most} {of}{cost}", good=done)
    if any(r.outcome is Outcome.FAILED and r.check.word == "answer" for r in results):
        screen.said("answers", short(sitting.work / "answers.yaml"))
    hinted = [r.check.id for r in results
              if r.outcome is Outcome.FAILED and r.check.id in sitting.exercise.hints]  # fmt: skip
    if hinted:
        screen.said("next", f"{COMMAND} lab hint {hinted[0]}")
    elif done:
        screen.said("next", f"{COMMAND} down {sitting.lab.name}")
