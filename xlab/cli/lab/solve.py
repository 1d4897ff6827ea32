"""`xlab lab solve`: the solution, typed."""

from __future__ import annotations

import sys

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Running, Task


@command()
def solve(*, word: Running = None, task: Task = None, as_json: AsJson = False) -> int:
    """Type the solution into an exercise's lab, and write its answers; with --task of that task.

    For teachers: students have no solution/.
    """
    from xlab.cli.screens.screen import Screen
    from xlab.exercises import sitting

    with sitting.find(word, verb="solve") as found:
        found.require_task(task or 1)
        typed = found.solve(task)
        lab = found.lab.name
    if as_json:
        print_json({"lab": lab, "tasks": typed})
        return 0
    screen = Screen(sys.stdout)
    screen.said("solved", f"task {', '.join(map(str, typed))}" if typed else "nothing", good=True)
    screen.said("next", f"{COMMAND} lab check")
    return 0
