"""`xlab lab hint`: a little help."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json


def complete_check() -> list[str]:
    from xlab.errors import XlabError
    from xlab.exercises import sitting

    try:
        with sitting.find(None) as found:
            return list(found.exercise.hints)
    except XlabError:
        return []


@command()
def hint(
    *,
    check: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHECK]",
            help="On which check; the first that has not passed if left out.",
            autocompletion=complete_check,
        ),
    ] = None,
    exercise: Annotated[
        str | None,
        typer.Option("--exercise", metavar="EXERCISE", help="Which, if several have been started."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Show the next hint on a check: where to think, where to look, what to type.

    The second and the third cost a point each, in practice; a grade does not count them.
    """
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import sitting

    # As the other commands have it, `lab hint 09`: a number alone is an exercise's.
    if check is not None and check.isdecimal() and exercise is None:
        check, exercise = None, check
    verb = f"hint {check} --exercise" if check else "hint"
    with sitting.find(exercise, verb=verb) as found:
        check, level, text = found.hint(check)
        most = len(found.exercise.hints[check])
    if as_json:
        print_json({"check": check, "level": level, "of": most, "text": text})
        return 0
    screen = Screen(sys.stdout)
    screen.headline(check, f"hint {level} of {most}")
    screen.wrapped(text, indent=2)
    if level < most:
        screen.said("next", f"{COMMAND} lab hint {check}   (a point less, in practice)")
    return 0
