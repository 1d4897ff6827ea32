"""`xlab top`: what nodes of a lab that stays are doing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._options import Name
from xlab.cli._streams import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from xlab.outside.running_lab import RunningLab
    from xlab.report.tables import Table


@command()
def top(
    *,
    name: Name = None,
    once: Annotated[
        bool, typer.Option("--once", help="One table; so it is, too, where there is no terminal.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
    as_json: AsJson = False,
) -> int:
    """Show what nodes receive, send, drop and use of the CPU, live; Ctrl-C ends it."""
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        looks = _looks(lab, interval)
        if as_json:
            print_json({"name": lab.name, "interval_s": interval, "nodes": next(looks)})
        elif once or not sys.stdout.isatty():
            from xlab.cli.screens.screen import Screen

            Screen(sys.stdout).table(_busy(next(looks)))
        else:
            _watch(lab.name, looks)
    return 0


def _looks(lab: RunningLab, interval_s: float) -> Iterator[list[dict[str, Any]]]:
    """What nodes did during each interval."""
    import time

    from xlab.lab import rates

    before = lab.call("sample", {})
    while True:
        time.sleep(interval_s)
        after = lab.call("sample", {})
        yield rates.rates(before, after)
        before = after


def _watch(name: str, looks: Iterator[list[dict[str, Any]]]) -> None:
    """On the terminal's other screen, until it is interrupted."""
    import io

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from xlab.cli.screens.screen import Screen

    try:
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            for found in looks:
                # As it is printed once: in whatever width there is now.
                lines = io.StringIO()
                screen = Screen(lines)
                screen.headline(name, "Ctrl-C ends")
                screen.table(_busy(found))
                live.update(Text(lines.getvalue(), no_wrap=True), refresh=True)
    except KeyboardInterrupt:
        pass  # the way it is meant to end


def _busy(found: Sequence[Mapping[str, Any]]) -> Table:
    from xlab.report import text
    from xlab.report.tables import Column, Table

    rows = []
    for node in found:
        if "cpu_percent" not in node:
            rows.append((node["name"], *([""] * 5), "" if node["up"] else "down", ""))
            continue
        rows.append(
            (
                node["name"],
                f"{node['cpu_percent']:.0f}",
                text.value("x_bits_per_second", "", node["in_bits_per_second"]),
                f"{node['in_packets_per_second']:.0f}",
                text.value("x_bits_per_second", "", node["out_bits_per_second"]),
                f"{node['out_packets_per_second']:.0f}",
                f"{node['dropped_per_second']:.0f}",
                f"{node['dropped']}",
            )
        )
    titles = ("CPU %", "in", "packets/s", "out", "packets/s", "drops/s", "dropped")
    return Table((Column("node"), *(Column(t, right=True) for t in titles)), tuple(rows))
