"""`xlab lab selftest`: whether an exercise's checks are right."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from xlab.cli._app import AsJson, command
from xlab.cli._streams import print_json
from xlab.cli.lab._shared import Words, folders


@command(epilog="Exit status: 0 all is as it is to be; 1 something is not; 2 wrong usage.")
def selftest(
    *,
    words: Words = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only how it begins, and its solution.")
    ] = False,
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", metavar="SEED", help="With these values; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Do exercises as their solutions do, plant their faults, and see that the checks notice.

    As it begins an exercise has the points that its README says; solved, and solved by other
    commands, all of them; each planted fault fails its checks and no others.
    """
    import time

    from xlab.cli.screens.screen import Screen
    from xlab.exercises import exercise
    from xlab.exercises import selftest as trying
    from xlab.exercises.variants import Variant
    from xlab.report import text

    screen = Screen(sys.stderr if as_json else sys.stdout)
    entries: list[dict[str, Any]] = []
    for folder in folders(words):
        for each in seed or ["selftest"]:
            found = exercise.load(folder, Variant(each))
            screen.headline(f"{found.number} {found.title}", f"values of {each}")
            begun = time.monotonic()

            def say(finding: trying.Finding) -> None:
                screen.said("", finding.tried, good=not finding.wrong)
                if finding.wrong:
                    screen.said("", f"  {finding.wrong}")

            findings = trying.selftest(found, faults=not quick, tell=say)
            wrong = [each for each in findings if each.wrong]
            took_s = time.monotonic() - begun
            screen.said("", f"{len(findings)} tried, {len(wrong)} wrong", text.seconds(took_s))
            entries.append(
                {
                    "name": found.name,
                    "seed": each,
                    "holds": not wrong,
                    "took_s": round(took_s, 1),
                    "tried": [{"tried": f.tried, "wrong": f.wrong} for f in findings],
                }
            )
    if as_json:
        print_json(entries)
    return 0 if all(entry["holds"] for entry in entries) else 1
