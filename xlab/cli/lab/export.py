"""`xlab lab export`: exercises to hand out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Words, folders, short
from xlab.errors import UsageError, shortened


@command()
def export(
    *,
    words: Words = None,
    student: Annotated[
        list[str] | None,
        typer.Option("--student", metavar="NAME", help="For whom; repeatable."),
    ] = None,
    students: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For all whose names are lines of it.")
    ] = None,
    secret: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The course secret, made if it is not there. Keep it."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where folders are made.")
    ] = Path("export"),
    as_json: AsJson = False,
) -> int:
    """Write each student's exercises: their own values, no solutions, no hidden checks."""
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import export as exporting
    from xlab.exercises.variants import Variant

    names = [*(student or []), *(_listed(students) if students else [])]
    if not names:
        raise UsageError("for whom? --student NAME, or --students FILE with a name a line")
    exporting.require_distinct(names)
    key = exporting.secret_in(secret)
    chosen = folders(words)
    whose = [Variant(name, key) for name in names]
    exporting.require_possible(chosen, whose, output)
    made = [
        {"student": each.student, "folder": str(exporting.export(folder, each, output))}
        for each in whose
        for folder in chosen
    ]
    if as_json:
        print_json(made)
        return 0
    screen = Screen(sys.stdout)
    each = f"{len(chosen)} exercise{'s' if len(chosen) > 1 else ''}"
    screen.said("written", f"{each} for each of {len(names)} students, in {short(output)}")
    screen.said("secret", f"{short(secret)}: with it the same values are drawn again; keep it")
    return 0


def _listed(file: Path) -> list[str]:
    from xlab.record import record

    try:
        lines = record.read_bytes(file).decode().splitlines()
    except OSError as error:
        raise UsageError(f"{shortened(file)}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is no UTF-8") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
