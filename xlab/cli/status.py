"""`xlab status`: whether a lab that stays still is as it was claimed to be."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._lab_facts import age, claims_and_path, faults
from xlab.cli._options import complete_lab
from xlab.cli._streams import print_json


@command(epilog=STATUSES)
def status(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Which lab; may be left out while there is one.",
            autocompletion=complete_lab,
        ),
    ] = None,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Prove the path anew: the method is cut for a moment, and healed."
        ),
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Show what the lab's own process has printed instead.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check a lab's claims again: those that must hold at the end, and the path of its packets."""
    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        if log:
            from xlab.report import text

            sys.stdout.write(text.plain(lab.log()))
            return 0
        facts = lab.describe()
        screen = Screen(sys.stderr if as_json else sys.stdout)
        run = RunScreen(screen)
        with run.running():
            since = f"{facts['state']} {age(facts['uptime_s'])}"
            screen.headline(lab.name, since, *faults(facts))
            found = lab.status(run.watch, prove=prove)
    dead = found.dead_daemon
    if as_json:
        holds = {"name": lab.name, "holds": found.holds, "dead_daemon": dead or None}
        print_json({**holds, **claims_and_path(found)})
        return 0 if found.holds else 1
    if dead:
        screen.said("daemon", dead, good=False)
    if found.claims or found.path:
        held = sum(claim.holds for claim in found.claims)
        screen.said("result", f"{held} of {len(found.claims)} claims hold", good=found.holds)
    else:
        screen.said("result", "nothing has been built that could be checked again")
    return 0 if found.holds else 1
