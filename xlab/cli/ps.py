"""`xlab ps`: the labs that run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._lab_facts import age, faults
from xlab.cli._streams import print_json

if TYPE_CHECKING:
    from xlab.cli.screens.screen import Screen


@command()
def ps(*, as_json: AsJson = False) -> int:
    """Show the labs that run: hosts, containers, addresses, daemons, since when."""
    from xlab.cli.screens.screen import Screen
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
    since = f"{state} {age(facts['uptime_s'])}"
    until = [f"stopped at {facts['until']!r}"] if facts["until"] else []
    called = [facts["scenario"]] if facts["scenario"] != name else []
    pid = [f"pid {facts['pid']}"] if facts["pid"] else []
    screen.headline(
        name, *called, since, *until, *faults(facts), facts["datapath"], facts["sandbox"], *pid
    )
    rows = tuple(
        (node["name"], "  ".join(_addresses(node)) or "–", "  ".join(_runs(node)))
        for node in facts["nodes"]
    )
    columns = (Column("node"), Column("addresses"), Column("runs", below=True, expendable=1))
    screen.table(Table(columns, rows), indent=2)


def _addresses(node: Mapping[str, Any]) -> list[str]:
    if not node["up"]:
        return ["down"]
    return [f"{device} {address}" for device, address in node["addresses"].items()]


def _runs(node: Mapping[str, Any]) -> Sequence[str]:
    if node["kind"] == "container":
        return [" ".join([node["image"], *node["command"]])]
    daemons = node.get("daemons", {})
    return [daemon if alive else f"{daemon} (dead)" for daemon, alive in daemons.items()]
