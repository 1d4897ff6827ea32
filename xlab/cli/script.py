"""`xlab script`: a scenario as a shell script that needs no xlab."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from xlab.cli import _options as options
from xlab.cli._app import STATUSES, Debug, Job, app
from xlab.cli._streams import write
from xlab.scenario.request import Request


@app.command(epilog=STATUSES)
def script(  # noqa: PLR0917 - typer calls it by keyword
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see xlab list), or a path to a scenario file.",
            autocompletion=options.complete_scenario,
        ),
    ],
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Only what is typed at this one real machine: h1."),
    ] = None,
    hosts: options.Hosts = None,
    containers: options.Containers = 2,
    topo: options.Topo = None,
    mtu: options.Mtu = 1500,
    rate: options.Rate = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    loss: options.Loss = None,
    settings: options.Settings = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
    _debug: Debug = False,
) -> Job:
    """Print a scenario as a commented shell script that builds the same network without xlab.

    The script builds it in namespaces of its own, checks the claims, and leaves nothing behind.
    """
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
    return partial(_script, request, host=host, output=output)


def _script(request: Request, *, host: str | None, output: Path | None) -> int:
    from xlab.outside import script as scripts

    write(scripts.write(request, host=host), output)
    return 0
