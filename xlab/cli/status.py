"""`xlab status`: whether a lab that stays still is as it was claimed to be."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import COMMAND, STATUSES, AsJson, command
from xlab.cli._lab_facts import age, claims_and_path, faults, judgement, say_how_to_mend
from xlab.cli._options import complete_lab
from xlab.cli._streams import print_json

if TYPE_CHECKING:
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.outside.asking import Status


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
            "--prove", help="Prove the path, too: the method is cut for a moment, and healed."
        ),
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Show what the lab's own process has printed instead.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check a lab's claims: those that must hold at the end, and the path of its packets.

    A lab that was begun with `up --empty` or `--until` is judged stage by stage by what is there,
    whoever typed it and whatever the names: what holds, what is wrong, what comes next, and which
    way the traffic goes. Nothing is changed unless you say --prove. While a fault is in force, the
    command that mends it comes first.
    """
    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        if log:
            from xlab.report import text

            sys.stdout.write(text.plain(lab.log()))
            return 0
        facts, exercise = lab.describe(), lab.call("exercise", {})
        screen = Screen(sys.stderr if as_json else sys.stdout)
        # What a fault does is no riddle: what shows it is left to --json.
        run = RunScreen(screen, evidence=not facts["faults"])
        with run.running():
            since = f"{facts['state']} {age(facts['uptime_s'])}"
            screen.headline(lab.name, since, *faults(facts))
            if facts["faults"]:
                say_how_to_mend(screen, lab, lab.call("fault", {})["in_force"])
            found = lab.status(run.watch, prove=prove)
    dead = found.dead_daemon
    if as_json:
        holds = {"name": lab.name, "holds": found.holds, "dead_daemon": dead or None}
        print_json({**holds, **claims_and_path(found), **judgement(found)})
        return 0 if found.holds else 1
    _say_judgement(screen, found, prove=prove)
    if dead:
        screen.said("daemon", dead, good=False)
    if found.claims or found.path or found.judgement:
        held = sum(claim.holds for claim in found.claims)
        said = f"{held} of {len(found.claims)} claims hold"
        if found.judgement:
            stages = found.judgement.stages
            done = sum(stage.state in ("holds", "passed over") for stage in stages)
            said += f", {done} of {len(stages)} stages are done"
        if not found.holds and facts["faults"]:
            said += f"; in force: {'; '.join(facts['faults'])}"
        screen.block("result", said, mark=_mark_of(found))
    else:
        screen.said("result", "nothing has been built that could be checked again")
    if exercise:
        screen.said("exercise", f"{COMMAND} lab check")
    return 0 if found.holds else 1


def _mark_of(found: Status) -> Text:
    """What is merely still to come is not wrong, whatever the exit status says."""
    from xlab.cli.screens.screen import BAD, GOOD, OPEN

    if found.holds:
        return GOOD
    judged = found.judgement
    if judged is None or any(stage.state == "fails" for stage in judged.stages):
        return BAD
    # Of all that `Status.holds` asks, only that there are stages to come.
    return OPEN if dataclasses.replace(found, judgement=None).holds else BAD


def _say_judgement(screen: Screen, found: Status, *, prove: bool) -> None:
    """Stage by stage, which way the traffic goes, and what to look at next."""
    from xlab.cli.screens.screen import BAD, GOOD, OPEN
    from xlab.report import text

    if found.judgement is None:
        return
    marks = {"holds": GOOD, "fails": BAD}
    for number, stage in enumerate(found.judgement.stages):
        words = [stage.name] if stage.state in marks else [stage.name, stage.state]
        more = f"; and {len(stage.said) - 2} more" if stage.said[2:] else ""
        words += ["; ".join(stage.said[:2]) + more] if stage.said else []
        mark = marks.get(stage.state, OPEN)
        screen.block("" if number else "stages", ": ".join(words), mark=mark)
    carried = found.judgement.carries
    if carried:
        counts = [f"{number} {text.encapsulation(kind)}" for kind, number in carried.seen()]
        said = f"{carried.source} > {carried.target}: {', '.join(counts)} on the physical link"
        screen.said("traffic", said)
    if prove and not found.path:
        screen.said("path", "there is nothing yet whose path could be proved")
    if found.judgement.next:
        screen.said("next", found.judgement.next)
