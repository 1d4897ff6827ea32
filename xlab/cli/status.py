"""`xlab status`: whether a lab that stays still is as it was claimed to be."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._options import complete_lab
from xlab.cli._streams import print_json
from xlab.cli.ps import age, faults


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
    from dataclasses import asdict

    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab
    from xlab.record import record

    with running_lab.find(name) as lab:
        if log:
            from xlab.report import text

            sys.stdout.write(text.plain(lab.log()))
            return 0
        facts = lab.describe()
        screen = Screen(sys.stderr if as_json else sys.stdout)
        run = RunScreen(screen)
        claims: list[record.Claim] = []
        path: list[record.PathProof] = []

        def watch(event: Mapping[str, Any]) -> None:
            run.watch(event)
            fields = {key: value for key, value in event.items() if key != "kind"}
            if event["kind"] == "claim":
                claims.append(record.decode(record.Claim, fields, "claim"))
            elif event["kind"] == "path":
                path.append(record.decode(record.PathProof, fields, "path"))

        with run.running():
            since = f"{facts['state']} {age(facts['uptime_s'])}"
            screen.headline(lab.name, since, *faults(facts))
            dead = str(lab.status(watch, prove=prove)["dead_daemon"])
    held = sum(claim.holds for claim in claims)
    good = held == len(claims) and all(p.proved and p.negative_control for p in path) and not dead
    if as_json:
        print_json(
            {
                "name": lab.name,
                "holds": good,
                "dead_daemon": dead or None,
                "claims": [asdict(claim) for claim in claims],
                "path": asdict(path[0]) if path else None,
            }
        )
        return 0 if good else 1
    if dead:
        screen.said("daemon", dead, good=False)
    if claims or path:
        screen.said("result", f"{held} of {len(claims)} claims hold", good=good)
    else:
        screen.said("result", "nothing has been built that could be checked again")
    return 0 if good else 1
