"""`xlab list`: the scenarios and probes there are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json, width_of
from xlab.errors import XlabError


@command()
def list_scenarios(*, as_json: AsJson = False) -> int:
    """Show the scenarios and their options, and what can be measured."""
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
    wrapped = partial(_wrapped, indent=12)
    wrapped(f"{entry['name']:<11} ", entry["summary"] or entry["error"])
    for option in entry["options"]:
        values = "|".join(option["choices"]) or "VALUE"
        print(f"    --set {option['name']}={values}")
        default = f" (default: {option['default']})" if option["default"] else ""
        wrapped(" " * 12, f"{option['help']}{default}")
    if entry.get("stages"):
        wrapped("    stages  ", ", ".join(entry["stages"]))


def _wrapped(first: str, content: str, indent: int) -> None:
    import textwrap

    # What is typed (--fixed-cidr, ovs-gre) stays whole.
    print(
        textwrap.fill(
            content,
            width_of(sys.stdout),
            initial_indent=first,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
    )


def _print_probes() -> None:
    from xlab.probes.catalog import ALL, USUAL

    print("\nmeasured in every run")
    for name in USUAL:
        _wrapped(f"    {name:<15} ", ALL[name].about, indent=20)
    asked = f"{COMMAND} run SCENARIO --probe NAME, or --probe all"
    _wrapped("and if asked for: ", asked, indent=4)
    for name in (name for name in ALL if name not in USUAL):
        _wrapped(f"    {name:<15} ", ALL[name].about, indent=20)
