"""`xlab lab new`: a draft of an exercise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import short


@command()
def new(
    *,
    name: Annotated[
        str, typer.Argument(metavar="NN-NAME", help="A number and words: 21-two-ways-out.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="The folder it is made in.")
    ] = Path("labs"),
    as_json: AsJson = False,
) -> int:
    """Write a small, whole exercise, which is valid and passes its selftest, to be changed."""
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import drafting

    folder = drafting.draft(name, into)
    if as_json:
        print_json({"folder": str(folder)})
        return 0
    screen = Screen(sys.stdout)
    where = short(folder)
    where = where if "/" in where else f"./{where}"
    screen.said("written", where)
    screen.said("next", f"{COMMAND} lab validate {where}")
    screen.said("", f"{COMMAND} lab selftest {where}")
    screen.said("", f"{COMMAND} lab start {where}")
    return 0
