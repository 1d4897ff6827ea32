"""`xlab lab check`: how far an exercise has been done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Running, Task, short, show_result, sitting_facts

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.exercises.judging import Result
    from xlab.exercises.sitting import Sitting


@command(epilog="Exit status: 0 all checks pass; 1 one does not; 2 wrong usage.")
def check(
    *,
    word: Running = None,
    task: Task = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All tasks in full, not only the first unfinished one.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Carry out an exercise's checks: points, what was seen, and what to look at next."""
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.exercises import judging, sitting
    from xlab.exercises.judging import Outcome

    screen = Screen(sys.stderr if as_json else sys.stdout)
    with sitting.find(word) as found:
        found.require_task(task or 1)
        screen.headline(f"{found.exercise.number} {found.exercise.title}", f"lab {found.lab.name}")
        known = 0

        def tell(_: Result | None) -> None:
            nonlocal known
            known += 1
            screen.refresh(lambda: screen.moving(Text(f"{screen.frame()} check {known}"), ""))

        with screen.running():
            tell(None)
            results = found.check(task=task, tell=tell)
        judged = [r for r in results if r.outcome is not Outcome.UNJUDGED]
        got, most = judging.points(results), sum(r.check.points for r in judged)
        if as_json:
            print_json(
                {**sitting_facts(found), "points": got, "of": most, "hints_cost": found.cost,
                 "answers_error": found.answers_error or None,
                 "checks": [result.facts() for result in results]}
            )  # fmt: skip
        else:
            _show(screen, found, results, in_full=everything or task is not None)
            _say_result(screen, found, results, got, most)
    return 0 if all(map(_is_done, results)) else 1


def _is_done(result: Result) -> bool:
    from xlab.exercises.judging import Outcome

    return result.outcome in (Outcome.PASSED, Outcome.UNJUDGED)


def _show(screen: Screen, sitting: Sitting, results: Sequence[Result], *, in_full: bool) -> None:
    """Task by task; beyond the first unfinished one only how many points there are."""
    from xlab.exercises import judging

    shut = False
    for number, title in sitting.exercise.tasks.items():
        found = [result for result in results if result.check.task == number]
        if not found:
            continue
        most = sum(result.check.points for result in found)
        screen.said(f"task {number}", title, f"{judging.points(found)} of {most}")
        if not shut or in_full:
            for result in found:
                show_result(screen, result)
        shut = shut or not all(map(_is_done, found))


def _say_result(
    screen: Screen, sitting: Sitting, results: Sequence[Result], got: int, most: int
) -> None:
    from xlab.exercises.judging import Outcome

    sees_all = len(sitting.exercise.checks) == len(sitting.exercise.shown)
    whole = sees_all and sitting.exercise.solution is not None
    said = f"{got} of {most} {'points' if whole else 'points of the checks you can see'}"
    if left := sum(r.check.points for r in results if r.outcome is Outcome.UNJUDGED):
        said += f", {left} for your teacher to judge"
    if sitting.cost:
        said += f"; {max(got - sitting.cost, 0)} after {sitting.cost} for hints"
    done = got == most
    screen.said("result", said, good=done)
    sheet = sitting.work / "answers.yaml"
    if sitting.answers_error:
        screen.said("answers", sitting.answers_error.replace(str(sheet), short(sheet)), good=False)
    elif any(r.outcome is Outcome.FAILED and r.check.word == "answer" for r in results):
        screen.said("answers", short(sheet))
    unfinished = [r for r in results if not _is_done(r)]
    if unfinished:
        readme = short(sitting.work / "README.md")
        screen.said("next", f"task {min(r.check.task for r in unfinished)} of {readme}")
    hinted = [r.check.id for r in unfinished if r.check.id in sitting.exercise.hints]
    if hinted:
        screen.said("", f"{COMMAND} lab hint {hinted[0]}")
    elif done:
        screen.said("next", f"{COMMAND} down {sitting.lab.name}")
