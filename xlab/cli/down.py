"""`xlab down`: the end of a lab that stays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from xlab.cli._app import command
from xlab.cli._options import complete_lab
from xlab.errors import UsageError


@command()
def down(
    *,
    labs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Which labs, or the numbers of exercises; may be left out while there is one.",
            autocompletion=complete_lab,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All labs that run.")] = False,
) -> int:
    """End a lab; returns when nothing of it is left."""
    import time

    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab
    from xlab.report import text
    from xlab.sandbox import registry

    if everything and labs:
        raise UsageError("--all ends every lab: leave the names out")
    screen = Screen(sys.stdout)
    wanted: Sequence[str | None] = registry.running() if everything else labs or [None]
    if not wanted:
        screen.said("", "no lab is running")
    # All are looked up before the first is ended: a wrong name among them changes nothing.
    for lab in [running_lab.find(_lab_named(name)) for name in wanted]:
        begun = time.monotonic()
        with lab:
            lab.down()
        screen.said("down", lab.name, text.seconds(time.monotonic() - begun))
    return 0


def _lab_named(name: str | None) -> str | None:
    """The name itself, or of the lab of the exercise that is called so."""
    from xlab.sandbox import registry

    if name is None or name in registry.running():
        return name
    from xlab.exercises import sitting

    return sitting.lab_of(name)
