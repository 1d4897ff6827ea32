"""`xlab trace`: one ping through a lab that stays, hop by hop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._options import Name, complete_node
from xlab.cli._streams import print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from xlab.report.tables import Table


@command(epilog="Exit status: 0 if the answer came back, else 1.")
def trace(
    *,
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="A node: h1/c1.", autocompletion=complete_node),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="A node, or an address.", autocompletion=complete_node),
    ],
    name: Name = None,
    as_json: AsJson = False,
) -> int:
    """Follow one ping hop by hop: encapsulation, table entries, and where and why it stops."""
    from xlab.cli.screens.screen import Screen
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        found = lab.call("trace", {"source": source, "target": target})
    status = 0 if found["answered"] else 1
    if as_json:
        print_json({"name": lab.name, **found})
        return status
    screen = Screen(sys.stdout)
    screen.headline(f"{found['source']} > {found['target']}", found["address"])
    for label, hops in (("there", "there"), ("back", "back"), ("its ARP request", "arp")):
        if found[hops]:
            screen.said("", label)
            screen.table(_hops(found[hops]), indent=2)
    if found["answered"]:
        screen.said("result", "arrived, and its answer came back", good=True)
    else:
        what = "it arrived; its answer stopped" if found["arrived"] else "it stopped"
        screen.said("result", f"{what} at {found['stopped']}", good=False)
        for reason in found["reasons"] or ["no table and no counter says why"]:
            screen.said("", reason)
    return status


def _hops(hops: Sequence[Mapping[str, Any]]) -> Table:
    from xlab.report.tables import Column, Table

    rows = []
    for hop in hops:
        around = [hop["encapsulation"], " > ".join(hop["outer"])] if hop["outer"] else ["–"]
        if hop["peers"]:
            around.insert(1, f"{' > '.join(hop['peers'])},")
        place = f"{hop['node']}:{hop['device']}"
        rows.append(
            (
                f"{hop['time_us']:.0f}",
                f"{place} {'out' if hop['outgoing'] else 'in'}",
                " ".join(around),
                hop["decision"],
            )
        )
    columns = (
        Column("µs", right=True),
        Column("seen at"),
        Column("carried in"),
        Column("what decides", below=True),
    )
    return Table(columns, tuple(rows))
