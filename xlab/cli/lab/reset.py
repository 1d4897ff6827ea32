"""`xlab lab reset`: the same exercise from its beginning."""

from __future__ import annotations

from xlab.cli._app import AsJson, command
from xlab.cli.lab._shared import Running, Task
from xlab.cli.lab.start import begin


@command()
def reset(*, word: Running = None, task: Task = None, as_json: AsJson = False) -> int:
    """End an exercise's lab and begin it anew, with the same values; answers.yaml stays.

    With --task the tasks before that one are solved already.
    """
    from xlab.exercises import sitting

    with sitting.find(word, verb="reset") as found:
        folder, student = str(found.exercise.folder), found.exercise.student
        found.require_task(task or 1)
        found.lab.down()
    return begin(folder, seed=student, task=task or 1, as_json=as_json, again=True)
