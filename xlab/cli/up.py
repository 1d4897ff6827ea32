"""`xlab up`: a lab that stays."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli._app import COMMAND, STATUSES, AsJson, command
from xlab.cli._lab_facts import claims_and_path
from xlab.cli._options import Network, Scenario, Settings, complete_stage
from xlab.cli._streams import print_json
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen
    from xlab.experiments.recorder import Recorder
    from xlab.scenario.request import Request


@command(epilog=STATUSES)
def up(
    *,
    scenario: Scenario,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the lab; else as the scenario.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Stop building where this stage begins (xlab list shows them); a part will do.",
            autocompletion=complete_stage,
        ),
    ] = None,
    empty: Annotated[
        bool,
        typer.Option("--empty", help="Machines as they come, for you to type what is to be built."),
    ] = False,
    network: Network,
    settings: Settings = None,
    as_json: AsJson = False,
) -> int:
    """Build a scenario and leave it standing; returns when its claims have been checked."""
    if scenario == "all":
        raise UsageError("one scenario at a time: a lab has one method")
    if empty and until is not None:
        raise UsageError("--empty builds nothing of the scenario: leave --until out")
    request = network.request(scenario, settings=settings)
    return _up(request, name=name, until=until, empty=empty, as_json=as_json)


def _up(
    request: Request, *, name: str | None, until: str | None, empty: bool, as_json: bool
) -> int:
    import time

    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab, starting

    begun = time.monotonic()
    screen = RunScreen(Screen(sys.stderr if as_json else sys.stdout))

    def watch(event: Mapping[str, Any]) -> None:
        if empty and event["kind"] == "started":
            # Containers are for somebody to run, and settings are of what is not built.
            event = {**event, "containers": 0, "settings": {}}
        screen.watch(event)

    with screen.running():
        told = starting.up(request, name=name, until=until, empty=empty, watch=watch)
    name = name or told.design.scenario.name
    with running_lab.find(name) as lab:
        facts = lab.describe()
    _, reason = told.verdict(whole=not (empty or until))
    if as_json:
        print_json({**facts, **claims_and_path(told), "holds": not reason, "reason": reason})
    else:
        took_s = time.monotonic() - begun
        _say_up(screen.screen, facts, told, reason, took_s, empty=empty)
    return 1 if reason else 0


def _say_up(
    screen: Screen,
    facts: Mapping[str, Any],
    told: Recorder,
    reason: str,
    seconds: float,
    *,
    empty: bool,
) -> None:
    from xlab.report import text
    from xlab.sandbox import registry

    name = facts["name"]
    held = sum(claim.holds for claim in told.claims)
    said = [f"{name} stands"]
    if told.claims:
        said.append(f"{held} of {len(told.claims)} claims hold")
    screen.said("up", "   ".join(said), text.seconds(seconds), good=not reason)
    if facts["until"]:
        screen.said("", f"stopped at {facts['until']!r}, whose claims are not checked")
    if reason:
        screen.said("", reason)
    if empty:
        screen.said("", "nothing is built: type it, as docs/tutorial.md has it")
    several = registry.option(name)
    nodes = [node["name"] for node in facts["nodes"] if node["kind"] != "gateway"]
    inner = next((node for node in nodes if "/" in node), nodes[0])
    screen.said("next", f"{COMMAND} shell{several} {inner}")
    screen.said("", f"{COMMAND} exec{several} {nodes[0]} -- ip route")
    screen.said("", f"{COMMAND} cli{several}")
    which = f" {name}" if several else ""
    what = "   what of it is right, and what comes next" if empty else ""
    screen.said("", f"{COMMAND} status{which}{what}")
    screen.said("", f"{COMMAND} down{which}")
