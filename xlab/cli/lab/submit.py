"""`xlab lab submit`: what has been done, as a file to hand in."""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli._app import COMMAND, AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Running, short, show_result
from xlab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xlab.cli.screens.screen import Screen
    from xlab.exercises.grading.replay import Part
    from xlab.exercises.grading.submission import Submission
    from xlab.exercises.judging import Result
    from xlab.exercises.sitting import Sitting

_FOLDER = "submission"


@command(
    epilog="Exit status: 0 packed, whatever its points; 1 not packed, as the lab has points that "
    "the scripts do not rebuild; 2 wrong usage."
)
def submit(
    *,
    word: Running = None,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Draft the scripts anew; those before are set aside."),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Pack it even if the lab has points that the scripts lack."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Draft scripts of what was typed, do them again in a fresh lab, and pack them to hand in.

    What was typed in `xlab shell`, and files that were changed, become a script a host, in a folder
    submission/ beside answers.yaml.  Read and change them: next time they are taken as they are.
    """
    from rich.text import Text

    from xlab.cli.screens.screen import Screen
    from xlab.exercises import export, judging, sitting
    from xlab.exercises.grading import submission
    from xlab.exercises.grading.replay import SCRIPT_S, replay
    from xlab.exercises.judging import Outcome
    from xlab.kernel import disk
    from xlab.sandbox import sandbox
    from xlab.sandbox.containment import Limits

    screen = Screen(sys.stderr if as_json else sys.stdout)
    with sitting.find(word, verb="submit") as found:
        exercise = found.exercise
        screen.headline(f"{exercise.number} {exercise.title}", "to hand in")
        folder = found.work / _FOLDER
        given, drafted = _written(found, anew=anew)
        if drafted:
            screen.said("drafted", f"{short(folder)}: {_listed(given.scripts)}")
        else:
            screen.said("scripts", f"{short(folder)}, as they are; --anew drafts them anew")
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
        tell("the lab that stands")
        lost = _lost(word, replayed.results)
    refused = bool(lost) and not anyway
    shown = [result for result in replayed.results if result.check.shown]
    judged = [result for result in shown if result.outcome is not Outcome.UNJUDGED]
    file = found.work / f"{export.folder_name(exercise.student)}-{exercise.name}.tar.gz"
    if not refused:
        with found.entered() as place:
            disk.write(found.work, {file.name: submission.pack(given)}, place=place)
    if as_json:
        print_json({"file": None if refused else str(file), "folder": str(folder),
                    "points": judging.points(judged), "of": sum(r.check.points for r in judged),
                    "cause": replayed.cause or None, "lost": [result.check.id for result in lost],
                    "checks": [result.facts() for result in shown]})  # fmt: skip
        return int(refused)
    _say_parts(screen, replayed.parts)
    for result in shown:
        if result.outcome not in (Outcome.PASSED, Outcome.UNJUDGED):
            show_result(screen, result)
    got, most = judging.points(judged), sum(r.check.points for r in judged)
    left = sum(r.check.points for r in shown if r.outcome is Outcome.UNJUDGED)
    behind = f", {left} for your teacher to judge" if left else ""
    screen.said("result", f"{got} of {most} points of the checks you can see{behind}",
                good=got == most)  # fmt: skip
    if lost:
        _say_lost(screen, lost, folder, drafted=drafted)
    if refused:
        screen.said("packed", "nothing; --anyway packs it as it is", good=False)
        return 1
    screen.said("packed", short(file))
    screen.said("next", f"hand it in; or change {short(folder)}/ and {COMMAND} lab submit again")
    return 0


def _written(found: Sitting, *, anew: bool) -> tuple[Submission, bool]:
    """The scripts and answers in the folder; and whether the scripts were drafted just now."""
    from xlab.exercises.grading import submission
    from xlab.kernel import disk

    with found.entered() as place:
        # Through what is held, whatever has its name meanwhile.
        folder = Path("/proc/self/fd", str(place), _FOLDER)
        if anew and folder.is_dir():
            _set_aside(folder)
        drafted = not any(folder.glob("h*.sh"))
        if drafted:
            with suppress(FileExistsError):
                folder.mkdir()
            files = {f"{_FOLDER}/{host}.sh": text.encode() for host, text in found.draft().items()}
            disk.write(found.work, files, place=place)
        given = submission.Submission(
            submission.read(folder).scripts if any(folder.glob("h*.sh")) else {},
            _text(found.sheet, place),
            student=found.exercise.student,
            exercise=found.exercise.name,
        )
    return given, drafted


def _lost(word: str | None, replayed: Sequence[Result]) -> list[Result]:
    """What holds in the lab that stands, and did not where the scripts were done again."""
    from xlab.exercises import judging, sitting

    lacking = [result.check for result in replayed
               if result.check.shown and result.check.word != "answer"
               and result.outcome is not judging.Outcome.PASSED]  # fmt: skip
    with sitting.find(word, verb="submit") as found:
        standing = judging.judge(found.exercise, found.lab, {}, checks=lacking)
    return [result for result in standing if result.points]


def _say_parts(screen: Screen, parts: Sequence[Part]) -> None:
    """What of the scripts ended with an error, or was stopped."""
    for part in parts:
        failed = [line for line in part.said.splitlines() if line.startswith("status ")]
        for line in [*failed, *([part.stopped] if part.stopped else [])]:
            screen.said(f"{part.host}.sh", f"part {part.number}: {line}")


def _say_lost(screen: Screen, lost: Sequence[Result], folder: Path, *, drafted: bool) -> None:
    """Points of the lab that stands, and how they come into the scripts."""
    from xlab.exercises import judging
    from xlab.report import text

    points = text.count(judging.points(lost), "point")
    names = ", ".join(result.check.id for result in lost)
    screen.said(
        "lost", f"the lab has {points} that the scripts do not rebuild: {names}", good=False
    )
    kept = "what `exec` and `lab solve` do is not recorded"
    if not drafted:
        kept += f", and {short(folder)}/ stays as it was drafted before"
    again = f"{COMMAND} lab submit --anew"
    screen.said("", f"{kept}: type it in `{COMMAND} shell` and then {again}, or write it into "
                    f"{short(folder / 'h1.sh')}, a script a host")  # fmt: skip


def _text(sheet: Path, place: int) -> str:
    """Of answers, if there are any."""
    from xlab.exercises import answers

    try:
        return answers.content(sheet, place=place).decode()
    except UnicodeDecodeError:
        raise UsageError(f"{short(sheet)}: is no UTF-8") from None


def _set_aside(folder: Path) -> None:
    """Under the first name that is free: submission-1, …"""
    number = next(n for n in count(1) if not folder.with_name(f"{folder.name}-{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}-{number}"))


def _listed(scripts: Mapping[str, str]) -> str:
    if not scripts:
        return "nothing was typed in `xlab shell` so far"
    lines = {host: len([each for each in text.splitlines() if each and not each.startswith("#")])
             for host, text in scripts.items()}  # fmt: skip
    return ", ".join(f"{host}.sh ({count} lines)" for host, count in lines.items())
