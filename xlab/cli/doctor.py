"""`xlab doctor`: what this machine can do."""

from __future__ import annotations

import sys

from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._streams import print_json


@command(epilog=STATUSES)
def doctor(*, as_json: AsJson = False) -> int:
    """Show what this machine can do, and the remedy if it can't."""
    from dataclasses import asdict

    from xlab.cli import _findings

    found = _findings.findings()
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        from xlab.cli.screens.run import Screen

        Screen(sys.stdout).diagnosis(found)
    return _findings.exit_status(found)
