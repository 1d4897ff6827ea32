"""`xlab lab validate`: whether an exercise's files are as they are to be."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Words, folders, short


@command(epilog="Exit status: 0 nothing is wrong; 1 something is; 2 wrong usage.")
def validate(
    *,
    words: Words = None,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Print the JSON schema of a file, lab.yaml say, instead."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Read exercises' files and say what is wrong with them, with file and line."""
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.errors import UsageError
    from xlab.exercises import exercise, schemas
    from xlab.exercises.variants import Variant

    if schema is not None:
        if schema not in schemas.BY_FILE:
            raise UsageError(f"--schema {schema}: there are {', '.join(schemas.BY_FILE)}")
        print_json(schemas.BY_FILE[schema])
        return 0
    chosen = folders(words)
    found = {folder: exercise.problems(folder, Variant("")) for folder in chosen}
    listed = [problem for problems in found.values() for problem in problems]
    if as_json:
        print_json([{"file": str(p.file), "line": p.line, "text": p.text} for p in listed])
        return 1 if listed else 0
    screen = Screen(sys.stdout)
    for folder, problems in found.items():
        screen.said(folder.name[:2], folder.name[3:], good=not problems)
        for problem in problems:
            # As editors know it, on one line.
            screen.line(Text(f"{short(problem.file)}:{problem.line}: {problem.text}"))
    return 1 if listed else 0
