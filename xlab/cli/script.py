"""`xlab script`: a scenario as a shell script that needs no xlab."""

from __future__ import annotations

from typing import Annotated

import typer

from xlab.cli._app import STATUSES, command
from xlab.cli._options import Network, Output, Scenario, Settings
from xlab.cli._streams import write


@command(epilog=STATUSES)
def script(
    *,
    scenario: Scenario,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Only what is typed at this one real machine: h1."),
    ] = None,
    network: Network,
    settings: Settings = None,
    output: Output = None,
) -> int:
    """Print a scenario as a commented shell script that builds the same network without xlab.

    The script builds it in namespaces of its own, checks the claims, and leaves nothing behind.
    """
    from xlab.outside import script as scripts

    write(scripts.write(network.request(scenario, settings=settings), host=host), output)
    return 0
