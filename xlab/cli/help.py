"""`xlab help`: what a command does, as its --help says it; and the manual page."""

from __future__ import annotations

from typing import Annotated

import typer

from xlab.cli._app import PANELS, Settings, command


def _complete(context: typer.Context) -> list[str]:
    typed = context.params.get("words") or []
    panels = PANELS.get("xlab" if not typed else typed[0], {}) if len(typed) < 2 else {}
    return [name for names in panels.values() for name in names]


@command()
def help_on(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="A command, such as run, or lab start; all of them if left out.",
            autocompletion=_complete,
        ),
    ] = None,
    man: Annotated[bool, typer.Option("--man", help="The manual page, for: man -l -")] = False,
) -> int:
    """Show what a command does, as its --help does."""
    if man:
        from xlab.cli import _manual

        print(_manual.page(), end="")
        return 0
    from xlab.cli import _main

    return _main.perform([*(words or []), "--help"], Settings())
