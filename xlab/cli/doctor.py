"""`xlab doctor`: what this machine can do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._streams import print_how_to_set_up, print_json

if TYPE_CHECKING:
    from xlab.cli._findings import Finding


@command(epilog=STATUSES)
def doctor(*, as_json: AsJson = False) -> int:
    """Show what this machine can do, and the remedy if it can't."""
    from dataclasses import asdict

    from xlab.cli import _findings

    found = _findings.findings()
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        _show(found)
        print_how_to_set_up()
    return _findings.exit_status(found)


#: Below it what was found has a line of its own.
_LEAST_WIDTH = 60


def _show(found: Sequence[Finding]) -> None:
    """What this machine can do; a remedy stands on a line of its own, to be pasted."""
    from rich.cells import cell_len
    from rich.text import Text

    from xlab.cli.screens.screen import GOOD, Screen
    from xlab.report import text

    width = 4 + max(cell_len(finding.name) for finding in found)
    marks = {True: GOOD, None: Text("! ", "yellow"), False: Text("✗ ", "red")}
    screen = Screen(sys.stdout)
    for finding in found:
        name = f"{text.plain(finding.name):<{width - 2}}"
        body = Text(text.plain(finding.detail))
        if finding.ok is not True and finding.needed_for:
            body.append(f"\nfor {text.plain(finding.needed_for)}", "dim")
        if finding.risk:
            body.append(f"\nThe line below changes that; its risk: {text.plain(finding.risk)}.")
        head = marks[finding.ok] + Text(name, "" if finding.ok is True else "bold")
        if screen.width < _LEAST_WIDTH:
            head.rstrip()
            screen.line(head)
            screen.block("", body, indent=0, label_width=4)
        else:
            screen.block("", body, mark=head, indent=0, label_width=0)
        # Whole, however narrow it is: it is to be pasted.
        for line in text.plain(finding.remedy).splitlines():
            screen.line(Text(" " * (width + 2) + line, "yellow"))
    impossible = [finding.needed_for for finding in found if finding.ok is False]
    screen.blank()
    if impossible:
        what = ", ".join(dict.fromkeys(impossible))
        screen.wrapped(f"Not possible here: {text.plain(what)}", "bold red")
    elif any(finding.ok is None for finding in found):
        screen.wrapped("Every scenario runs here; ! marks what runs with a limit.", "bold")
    else:
        screen.wrapped("Every scenario runs here.", "bold green")
