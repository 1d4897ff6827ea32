"""`xlab up`, `ps`, `status` and `down`: labs that stay."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli import _options as options
from xlab.cli._app import COMMAND, STATUSES, AsJson, Debug, Job, app
from xlab.cli._streams import DisplayError, print_json
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.cli.screens.run import Screen
    from xlab.experiments.recorder import Recorder
    from xlab.scenario.request import Request

Lab = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Which lab; may be left out while there is one.",
        autocompletion=options.complete_lab,
    ),
]


@app.command(epilog=STATUSES)
def up(  # noqa: PLR0917 - typer calls it by keyword
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see xlab list), or a path to a scenario file.",
            autocompletion=options.complete_scenario,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the lab; else as the scenario.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Stop building where this stage begins (xlab list shows them); a part will do.",
            autocompletion=options.complete_stage,
        ),
    ] = None,
    empty: Annotated[
        bool,
        typer.Option("--empty", help="Machines as they come, for you to type what is to be built."),
    ] = False,
    hosts: options.Hosts = None,
    containers: options.Containers = 2,
    topo: options.Topo = None,
    mtu: options.Mtu = 1500,
    rate: options.Rate = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    loss: options.Loss = None,
    settings: options.Settings = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Build a scenario and leave it standing; returns when its claims have been checked."""
    if scenario == "all":
        raise UsageError("one scenario at a time: a lab has one method")
    if empty and until is not None:
        raise UsageError("--empty builds nothing of the scenario: leave --until out")
    request = options.request(
        scenario,
        hosts=hosts,
        containers=containers,
        topo=topo,
        mtu=mtu,
        rate=rate,
        delay=delay,
        jitter=jitter,
        loss=loss,
        settings=settings,
    )
    return partial(_up, request, name=name, until=until, empty=empty, as_json=as_json)


@app.command()
def ps(as_json: AsJson = False, _debug: Debug = False) -> Job:
    """Show the labs that run: hosts, containers, addresses, daemons, since when."""
    return partial(_ps, as_json=as_json)


@app.command(epilog=STATUSES)
def status(
    lab: Lab = None,
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
    _debug: Debug = False,
) -> Job:
    """Check a lab's claims again: those that must hold at the end, and the path of its packets."""
    return partial(_status, lab, prove=prove, log=log, as_json=as_json)


@app.command()
def down(
    labs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Which labs; may be left out while there is one.",
            autocompletion=options.complete_lab,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All labs that run.")] = False,
    _debug: Debug = False,
) -> Job:
    """End a lab; returns when nothing of it is left."""
    if everything and labs:
        raise UsageError("--all ends every lab: leave the names out")
    return partial(_down, labs or [], everything=everything)


# -- up --------------------------------------------------------------------------------------------


def _up(
    request: Request, *, name: str | None, until: str | None, empty: bool, as_json: bool
) -> int:
    import time

    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab

    begun = time.monotonic()
    screen = Screen(sys.stderr if as_json else sys.stdout)
    watch = _shown_on(screen, empty=empty)
    with screen.running():
        told = running_lab.up(request, name=name, until=until, empty=empty, watch=watch)
    name = name or told.design.scenario.name
    with running_lab.find(name) as lab:
        facts = lab.describe()
    whole = not (empty or until)
    reason = told.verdict()[1] if whole else _broken(told)
    if as_json:
        print_json({**facts, **_told(told), "holds": not reason, "reason": reason})
    else:
        _say_up(screen, facts, told, reason, time.monotonic() - begun)
    return 1 if reason else 0


def _say_up(
    screen: Screen, facts: Mapping[str, Any], told: Recorder, reason: str, seconds: float
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
    several = registry.option(name)
    nodes = [node["name"] for node in facts["nodes"] if node["kind"] != "gateway"]
    inner = next((node for node in nodes if "/" in node), nodes[0])
    screen.said("next", f"{COMMAND} shell{several} {inner}")
    screen.said("", f"{COMMAND} exec{several} {nodes[0]} -- ip route")
    screen.said("", f"{COMMAND} cli{several}")
    which = f" {name}" if several else ""
    screen.said("", f"{COMMAND} status{which}")
    screen.said("", f"{COMMAND} down{which}")


def _told(told: Recorder) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "claims": [asdict(claim) for claim in told.claims],
        "path": asdict(told.path) if told.path else None,
    }


def _broken(told: Recorder) -> str:
    broken = [claim.id for claim in told.claims if not claim.holds]
    if not broken:
        return ""
    return f"{len(broken)} of {len(told.claims)} claims do not hold: {broken[0]} …"


def _shown_on(screen: Screen, *, empty: bool = False) -> Any:
    def watch(event: Mapping[str, Any]) -> None:
        if empty and event["kind"] == "started":
            # Containers are for somebody to run, and settings are of what is not built.
            event = {**event, "containers": 0, "settings": {}}
        try:
            screen.watch(event)
        except OSError as error:
            raise DisplayError(error) from error

    return watch


# -- ps --------------------------------------------------------------------------------------------


def _ps(*, as_json: bool) -> int:
    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab

    labs = running_lab.describe_all()
    if as_json:
        print_json(labs)
        return 0
    screen = Screen(sys.stdout)
    if not labs:
        screen.said("", f"no lab is running; `{COMMAND} up SCENARIO` starts one")
    for facts in labs:
        _show_lab(screen, facts)
    return 0


def _show_lab(screen: Screen, facts: Mapping[str, Any]) -> None:
    from xlab.report.tables import Column, Table

    name, state = facts["name"], facts["state"]
    if "scenario" not in facts:
        seen = f"{state}, pid {facts['pid']}" if facts["pid"] else state
        screen.headline(name, seen, f"`{COMMAND} down {name}` ends it")
        return
    since = f"{state} {_age(facts['uptime_s'])}"
    until = [f"stopped at {facts['until']!r}"] if facts["until"] else []
    called = [facts["scenario"]] if facts["scenario"] != name else []
    pid = [f"pid {facts['pid']}"] if facts["pid"] else []
    screen.headline(
        name, *called, since, *until, *_faults(facts), facts["datapath"], facts["sandbox"], *pid
    )
    rows = tuple(
        (node["name"], "  ".join(_addresses(node)) or "–", "  ".join(_runs(node)))
        for node in facts["nodes"]
    )
    columns = (Column("node"), Column("addresses"), Column("runs", below=True, expendable=1))
    screen.table(Table(columns, rows), indent=2)


def _faults(facts: Mapping[str, Any]) -> list[str]:
    return [f"fault: {fault}" for fault in facts["faults"]]


def _addresses(node: Mapping[str, Any]) -> list[str]:
    if not node["up"]:
        return ["down"]
    return [f"{device} {address}" for device, address in node["addresses"].items()]


def _runs(node: Mapping[str, Any]) -> Sequence[str]:
    if node["kind"] == "container":
        return [" ".join([node["image"], *node["command"]])]
    daemons = node.get("daemons", {})
    return [daemon if alive else f"{daemon} (dead)" for daemon, alive in daemons.items()]


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# -- status, down ----------------------------------------------------------------------------------


def _status(name: str | None, *, prove: bool, log: bool, as_json: bool) -> int:
    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab
    from xlab.record import record

    with running_lab.find(name) as lab:
        if log:
            from xlab.report import text

            sys.stdout.write(text.plain(lab.log()))
            return 0
        facts = lab.describe()
        screen = Screen(sys.stderr if as_json else sys.stdout)
        claims: list[record.Claim] = []
        path: list[record.PathProof] = []

        def watch(event: Mapping[str, Any]) -> None:
            _shown_on(screen)(event)
            fields = {key: value for key, value in event.items() if key != "kind"}
            if event["kind"] == "claim":
                claims.append(record.decode(record.Claim, fields, "claim"))
            elif event["kind"] == "path":
                path.append(record.decode(record.PathProof, fields, "path"))

        with screen.running():
            since = f"{facts['state']} {_age(facts['uptime_s'])}"
            screen.headline(lab.name, since, *_faults(facts))
            dead = str(lab.status(watch, prove=prove)["dead_daemon"])
    held = sum(claim.holds for claim in claims)
    good = held == len(claims) and all(p.proved and p.negative_control for p in path) and not dead
    if as_json:
        from dataclasses import asdict

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


def _down(labs: Sequence[str], *, everything: bool) -> int:
    import time

    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab
    from xlab.report import text
    from xlab.sandbox import registry

    screen = Screen(sys.stdout)
    wanted: Sequence[str | None] = registry.running() if everything else labs or [None]
    if not wanted:
        screen.said("", "no lab is running")
    # All are looked up before the first is ended: a wrong name among them changes nothing.
    for lab in [running_lab.find(name) for name in wanted]:
        begun = time.monotonic()
        with lab:
            lab.down()
        screen.said("down", lab.name, text.seconds(time.monotonic() - begun))
    return 0
