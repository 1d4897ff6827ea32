"""What several of these commands have: which exercise, and how one is shown."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli._app import COMMAND
from xlab.errors import XlabError

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.exercises.judging import Result
    from xlab.exercises.model import Exercise
    from xlab.exercises.sitting import Sitting


def complete_exercise() -> list[str]:
    from xlab.exercises import catalog

    try:
        return [folder.name for folder in catalog.folders()]
    except XlabError:
        return []


Word = Annotated[
    str,
    typer.Argument(
        metavar="EXERCISE",
        help="Its number, its name (see xlab lab list), or its folder.",
        autocompletion=complete_exercise,
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[EXERCISE]...",
        help="Numbers, names or folders; all of them if left out.",
        autocompletion=complete_exercise,
    ),
]
Running = Annotated[
    str | None,
    typer.Argument(
        metavar="[EXERCISE]",
        help="Which, if several have been started: its number or its name.",
        autocompletion=complete_exercise,
    ),
]
Task = Annotated[int | None, typer.Option("--task", metavar="N", help="Of README.md.")]


def folders(words: list[str] | None) -> list[Path]:
    """Those that were named, or all."""
    from xlab.exercises import catalog

    return [catalog.find(word) for word in words] if words else catalog.folders()


def facts(exercise: Exercise) -> dict[str, Any]:
    """As `--json` has them."""
    return {
        "name": exercise.name,
        "title": exercise.title,
        "minutes": exercise.minutes,
        "points": exercise.points,
        "start_points": exercise.start_points,
        "folder": str(exercise.folder),
    }


def say_start(screen: Screen, sitting: Sitting, task: int) -> None:
    """The exercise's lab stands: what to do first, and what to type."""
    from xlab.exercises.sitting import running

    found = sitting.exercise
    readme = short(sitting.work / "README.md")
    screen.headline(
        f"{found.number} {found.title}", f"{found.minutes} minutes", f"{found.points} points"
    )
    screen.said("read", f"{readme}: the picture, your values, all {len(found.tasks)} tasks")
    screen.blank()
    screen.text(found.task_text(task))
    screen.blank()
    hosts = [node["name"] for node in sitting.lab.describe()["nodes"] if node["kind"] == "host"]
    screen.said("type", f"{COMMAND} shell {hosts[0]}" + (f", … {hosts[-1]}" if hosts[1:] else ""))
    screen.said("", f"{COMMAND} lab check")
    screen.said("", f"{COMMAND} lab hint")
    kept = ", with what you wrote before" if sitting.resumed else ""
    screen.said("answers", short(sitting.work / "answers.yaml") + kept)
    others = [f"{each.name[:2]} is still up: {COMMAND} down {name}"
              for name, each in running().items() if name != sitting.lab.name]  # fmt: skip
    for other in others:
        screen.said("note", other)


def show_result(screen: Screen, result: Result) -> None:
    """What a check came to."""
    from xlab.cli.screens.screen import LABEL_WIDTH
    from xlab.exercises.judging import Outcome

    good = {Outcome.PASSED: True, Outcome.FAILED: False}.get(result.outcome)
    check = result.check
    screen.said("", result.text, f"{result.points} of {check.points}", good=good)
    if good is not True:
        screen.block("", f"{check.id}: {result.seen}", label_width=LABEL_WIDTH + 2)
    if good is False and check.look:
        screen.block("", check.look, label_width=LABEL_WIDTH + 2)


def short(path: Path) -> str:
    """From where one is, if it lies below."""
    found = os.path.relpath(path)
    return str(path) if found.startswith("..") else found


def sitting_facts(sitting: Sitting) -> Mapping[str, Any]:
    return {
        **facts(sitting.exercise),
        "lab": sitting.lab.name,
        "work": str(sitting.work),
        "student": sitting.exercise.student,
        "values": dict(sitting.exercise.values),
    }
