"""`xlab fault`: what goes wrong in a lab that stays, on purpose."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._lab_facts import say_how_to_mend
from xlab.cli._options import Name, complete_fault
from xlab.cli._streams import print_json
from xlab.faults.kinds import Fault


@command(
    epilog="; ".join(kind.example for kind in Fault.kinds) + ".",
)
def fault(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FAULT]...",
            help="What is to go wrong, or to be mended.",
            autocompletion=complete_fault,
        ),
    ] = None,
    name: Name = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the network does what is to be expected then.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Let something go wrong, or mend it; alone: what is wrong now."""
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab
    from xlab.report import text

    order = " ".join(words or [])
    with running_lab.find(name) as lab:
        found = lab.call("fault", {"order": order, "wait": wait})
    if as_json:
        print_json({"name": lab.name, **found})
        return 0
    screen = Screen(sys.stdout)
    for number, each in enumerate(found["in_force"]):
        screen.said("" if number else "in force", each["fault"])
    if not found["in_force"]:
        screen.said("in force", "no fault")
    if found["cut"]:
        pairs = [f"{a} > {b}" for a, b in found["cut"]]
        more = f" and {len(pairs) - 12} more" if len(pairs) > 12 else ""
        screen.said("cut off", f"{', '.join(pairs[:12])}{more}")
    if found["waited_s"] is not None:
        took = text.seconds(found["waited_s"])
        screen.said("network", f"does what is to be expected now, after {took}")
    if not order:
        screen.said("faults", "; ".join(found["grammar"]))
    say_how_to_mend(screen, lab, found["in_force"])
    return 0
