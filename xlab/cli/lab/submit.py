"""`xlab lab submit`: what has been done, as a file to hand in."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Running, short, show_result
from xlab.errors import UsageError

_FOLDER = "submission"


@command(
    epilog="Exit status: 0 packed, whatever its points; 1 it can't be done again; 2 wrong usage."
)
def submit(
    *,
    word: Running = None,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Draft the scripts anew; those before are set aside."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Draft scripts of what was typed, do them again in a fresh lab, and pack them to hand in.

    What was typed in `xlab shell`, and files that were changed, become a script a host, in a folder
    submission/ beside answers.yaml.  Read and change them: next time they are taken as they are.
    """
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.exercises import answers, export, judging, sitting
    from xlab.exercises.grading import submission
    from xlab.exercises.grading.replay import SCRIPT_S, replay
    from xlab.exercises.judging import Outcome
    from xlab.kernel import disk
    from xlab.sandbox import sandbox
    from xlab.sandbox.containment import Limits

    screen = Screen(sys.stderr if as_json else sys.stdout)
    with sitting.find(word) as found:
        exercise = found.exercise
        screen.headline(f"{exercise.number} {exercise.title}", "to hand in")
        folder = found.work / _FOLDER
        if anew and folder.is_dir():
            _set_aside(folder)
        if not folder.is_dir():
            scripts = found.draft()
            disk.make_folder(folder)
            disk.write(folder, {f"{host}.sh": text.encode() for host, text in scripts.items()})
            screen.said("drafted", f"{short(folder)}: {_listed(scripts)}")
        else:
            screen.said("scripts", f"{short(folder)}, as they are; --anew drafts them anew")
        sheet = found.work / answers.NAME
        given = submission.Submission(
            submission.read(folder).scripts if any(folder.glob("h*.sh")) else {},
            _text(sheet),
            student=exercise.student,
            exercise=exercise.name,
        )
    with screen.running():
        step = ""

        def tell(said: str) -> None:
            nonlocal step
            step = said
            screen.refresh(lambda: screen.moving(Text(f"{screen.frame()} {step}"), ""))

        tell("a fresh lab")
        # Root's labs can't be contained, and need not: it is one's own work.
        limits = Limits() if sandbox.kind() == "rootless" else None
        replayed = replay(exercise, given, limits=limits, script_s=SCRIPT_S, tell=tell)
    shown = [result for result in replayed.results if result.check.shown]
    judged = [result for result in shown if result.outcome is not Outcome.UNJUDGED]
    file = found.work / f"{export.folder_name(exercise.student)}-{exercise.name}.tar.gz"
    disk.write_whole(file, submission.pack(given))
    if as_json:
        print_json({"file": str(file), "folder": str(folder), "points": judging.points(judged),
                    "of": sum(r.check.points for r in judged), "cause": replayed.cause or None,
                    "checks": [result.facts() for result in shown]})  # fmt: skip
        return 0
    for part in replayed.parts:
        failed = [line for line in part.said.splitlines() if line.startswith("status ")]
        for line in [*failed, *([part.stopped] if part.stopped else [])]:
            screen.said(f"{part.host}.sh", f"part {part.number}: {line}")
    for result in shown:
        if result.outcome not in (Outcome.PASSED, Outcome.UNJUDGED):
            show_result(screen, result)
    got, most = judging.points(judged), sum(r.check.points for r in judged)
    left = sum(r.check.points for r in shown if r.outcome is Outcome.UNJUDGED)
    behind = f", {left} for your teacher to judge" if left else ""
    screen.said("result", f"{got} of {most} points of the checks you can see{behind}",
                good=got == most)  # fmt: skip
    screen.said("packed", short(file))
    screen.said("next", f"hand it in; or change {short(folder)}/ and {COMMAND} lab submit again")
    return 0


def _text(sheet: Path) -> str:
    """Of answers, if there are any."""
    from xlab.record import record

    try:
        return record.read_bytes(sheet).decode() if sheet.exists() else ""
    except UnicodeDecodeError:
        raise UsageError(f"{short(sheet)}: is no UTF-8") from None


def _set_aside(folder: Path) -> None:
    """Under the first name that is free: submission-1, …"""
    number = next(n for n in count(1) if not folder.with_name(f"{folder.name}-{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}-{number}"))


def _listed(scripts: dict[str, str]) -> str:
    if not scripts:
        return "nothing was typed in `xlab shell` so far"
    lines = {host: len([each for each in text.splitlines() if each and not each.startswith("#")])
             for host, text in scripts.items()}  # fmt: skip
    return ", ".join(f"{host}.sh ({count} lines)" for host, count in lines.items())
