"""`xlab list` and `xlab doctor`: what there is, and what this machine can do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from xlab.cli.app import COMMAND, STATUSES, AsJson, Debug, Job, app
from xlab.cli.streams import print_json
from xlab.errors import XlabError


@app.command("list")
def list_scenarios(as_json: AsJson = False, _debug: Debug = False) -> Job:
    """Show the scenarios and their options, and what can be measured."""
    return partial(_list, as_json=as_json)


@app.command(epilog=STATUSES)
def doctor(as_json: AsJson = False, _debug: Debug = False) -> Job:
    """Show what this machine can do, and the remedy if it can't."""
    return partial(_doctor, as_json=as_json)


def _list(*, as_json: bool) -> int:
    from xlab.scenario import catalog, scenario

    entries: list[dict[str, Any]] = []
    for name in catalog.names():
        file = catalog.find(name)
        entry: dict[str, Any] = {"name": name, "file": str(file), "summary": "", "options": []}
        try:
            loaded = scenario.load(file)
        except XlabError as error:
            entry["error"] = str(error)
        else:
            entry["summary"] = loaded.summary
            entry["stages"] = list(loaded.stages)
            entry["options"] = [
                {
                    "name": option.name,
                    "default": option.default,
                    "choices": list(option.choices or ()),
                    "help": option.help,
                }
                for option in loaded.options
            ]
        entries.append(entry)
    if as_json:
        print_json(entries)
        return 0
    for entry in entries:
        _print_scenario(entry)
    _print_probes()
    return 0


def _print_scenario(entry: Mapping[str, Any]) -> None:
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size((100, 24)).columns, 100)

    def wrapped(first: str, content: str) -> None:
        print(textwrap.fill(content, width, initial_indent=first, subsequent_indent=" " * 12))

    wrapped(f"{entry['name']:<11} ", entry["summary"] or entry["error"])
    for option in entry["options"]:
        values = "|".join(option["choices"]) or "VALUE"
        print(f"    --set {option['name']}={values}")
        default = f" (default: {option['default']})" if option["default"] else ""
        wrapped(" " * 12, f"{option['help']}{default}")
    if entry.get("stages"):
        wrapped("    stages  ", ", ".join(entry["stages"]))


def _print_probes() -> None:
    from xlab.probes.catalog import ALL, USUAL

    print("\nmeasured in every run")
    for name in USUAL:
        print(f"    {name:<15} {ALL[name].about}")
    print(f"and if asked for: {COMMAND} run SCENARIO --probe NAME, or --probe all")
    for name in (name for name in ALL if name not in USUAL):
        print(f"    {name:<15} {ALL[name].about}")


def _doctor(*, as_json: bool) -> int:
    from dataclasses import asdict

    from xlab.cli import doctor as examination

    found = examination.findings()
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        from xlab.cli.screens.run import Screen

        Screen(sys.stdout).diagnosis(found)
    return examination.exit_status(found)
