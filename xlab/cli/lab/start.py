"""`xlab lab start`: an exercise begins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Task, Word, say_start, sitting_facts

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.experiments.recorder import Watch

Seed = Annotated[
    str | None,
    typer.Option(
        metavar="SEED",
        help="Whose values: the same SEED gives the same; else those you began with, or new ones.",
    ),
]


@command(epilog="Exit status: 0 it has begun; 1 it can't; 2 wrong usage; 3 this machine can't.")
def start(*, word: Word, seed: Seed = None, task: Task = None, as_json: AsJson = False) -> int:
    """Build an exercise's lab, write README.md with your values to work/, and show the first task.

    With --task the tasks before that one are solved already.
    """
    from xlab.exercises import catalog

    return begin(str(catalog.find(word)), seed=seed, task=task or 1, as_json=as_json)


def begin(folder: str, *, seed: str | None, task: int, as_json: bool, again: bool = False) -> int:
    """Start it, and say so."""
    from pathlib import Path

    from xlab.cli.screens.screen import Screen
    from xlab.exercises import sitting

    screen = Screen(sys.stderr if as_json else sys.stdout)
    with screen.running():
        _, begun = sitting.start(Path(folder), seed=seed, task=task, watch=_steps_on(screen))
    with begun.lab:
        if as_json:
            print_json({**sitting_facts(begun), "task": task})
        else:
            say_start(screen, begun, task)
            if again:
                screen.said("note", "shells in its hosts have ended: open them again")
    return 0


def _steps_on(screen: Screen) -> Watch:
    """What is done now; what was found is for the student to find."""
    from rich.text import Text

    doing = ["building"]

    def line() -> Text:
        return screen.moving(Text(f"{screen.frame()} {doing[0]}"), "")

    def watch(event: Mapping[str, Any]) -> None:
        if event["kind"] == "forking":  # and there must be no thread but the main one
            screen.stop()
            return
        if event["kind"] == "step":
            doing[0] = str(event["text"])
        elif event["kind"] == "note":
            screen.said("note", str(event["text"]))
        screen.refresh(line)

    return watch
