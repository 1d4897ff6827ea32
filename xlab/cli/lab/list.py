"""`xlab lab list`: the exercises there are."""

from __future__ import annotations

import sys
from typing import Any

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import facts
from xlab.errors import XlabError


@command()
def list_exercises(*, as_json: AsJson = False) -> int:
    """Show the exercises: how long each takes, what it is worth, and whether it is being done."""
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import catalog, exercise, sitting
    from xlab.exercises.variants import Variant
    from xlab.report.tables import Column, Table

    running = set(sitting.running().values())
    entries: list[dict[str, Any]] = []
    for folder in catalog.folders():
        try:
            entry = facts(exercise.load(folder, Variant("")))
        except XlabError as error:
            entry = {"name": folder.name, "folder": str(folder), "error": str(error)}
        entries.append({**entry, "running": folder in running})
    if as_json:
        print_json(entries)
        return 0
    rows = tuple(
        (
            each["name"],
            each.get("title", each.get("error", "")),
            str(each.get("minutes", "")),
            str(each.get("points", "")),
            "is being done" if each["running"] else "",
        )
        for each in entries
    )
    columns = (
        Column("exercise"),
        Column("about"),
        Column("minutes", right=True),
        Column("points", right=True),
        Column(""),
    )
    screen = Screen(sys.stdout)
    screen.table(Table(columns, rows))
    screen.said("next", f"{COMMAND} lab start {rows[0][0][:2]}" if rows else "there are none")
    return 0
