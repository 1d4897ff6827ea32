"""From what a student types to the teacher's table: start, a shell, submit, grade."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.support.world import World, usual_signals, world
from xlab.exercises import exercise
from xlab.exercises.variants import Variant

pytestmark = pytest.mark.sandbox

_FIXTURES = (world, usual_signals)
WORK = "work/21-two-ways"


@pytest.mark.slow
def test_what_was_typed_is_handed_in_and_graded(world: World, hasty: Path) -> None:
    found = exercise.load(hasty, Variant("anna"))
    values = found.values
    route = f"ip route add {values['net2']} via {values['h2']}"
    assert world.say("lab", "start", str(hasty), "--seed", "anna").status == 0
    with world.terminal([*world.xlab, "shell", "h1"], size=(40, 132)) as shell:
        shell.expect("# ")
        shell.line("ip rote add 10.99.0.0/16 dev lo", "# ")
        shell.line(route, "# ")
        shell.line(f"ping -c1 -W1 {values['h2']}", "# ")
        shell.line("echo hello >/etc/motd", "# ")
        shell.type("exit\n")
        shell.end()
    sheet = world.folder / WORK / "answers.yaml"
    sheet.write_text(sheet.read_text().replace("next-hop:", "next-hop: the gateway"))
    said = world.say("lab", "submit", "--json")
    assert said.status == 0, said.stderr
    told = json.loads(said.stdout)
    # Of this exercise the solution is at hand, so answers are judged, too.
    assert (told["points"], told["of"], told["cause"]) == (3, 4, None)
    script = (world.folder / WORK / "submission/h1.sh").read_text()
    commands = [line for line in script.splitlines() if line and not line.startswith("# 21")]
    number, failed, *others = commands
    assert (number, others) == ("# part 1", [route, "echo hello >/etc/motd"])
    assert failed.startswith("# status ")
    assert failed.endswith(": ip rote add 10.99.0.0/16 dev lo")

    # What stands there is taken as it is, and can be changed.
    back = f"ip route add {values['net1']} via {values['h1']}"
    (world.folder / WORK / "submission/h2.sh").write_text(f"{back}\n")
    told = json.loads(world.say("lab", "submit", "--json").stdout)
    assert told["points"] == 4
    assert world.say("lab", "submit", "--anew").status == 0
    assert not (world.folder / WORK / "submission/h2.sh").exists()
    assert (world.folder / WORK / "submission-1/h2.sh").exists()

    box = world.folder / "handed-in"
    box.mkdir()
    shutil.copy(told["file"], box)
    # A practice variant is drawn from the name alone.
    said = world.say("lab", "grade", "handed-in", "--exercise", str(hasty))
    assert said.status == 0, said.stderr
    assert "3 of 4" in said.stdout
    with (world.folder / "grades/grades.csv").open(newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert (row["student"], row["points"], row["status"]) == ("anna", "3", "graded")
    assert "anna" in (world.folder / "grades/index.html").read_text()
    again = world.say("lab", "grade", "handed-in", "--exercise", str(hasty))
    assert "1 graded, 1 of them before" in again.stdout


@pytest.mark.slow
def test_points_that_no_script_rebuilds_are_not_lost_unnoticed(world: World, hasty: Path) -> None:
    """What `exec` does is recorded nowhere: packed, it would be graded as if never done."""
    values = exercise.load(hasty, Variant("anna")).values
    assert world.say("lab", "start", str(hasty), "--seed", "anna").status == 0
    route = ["ip", "route", "add", str(values["net2"]), "via", str(values["h2"])]
    assert world.say("exec", "h1", "--", *route).status == 0
    said = world.say("lab", "submit")
    assert said.status == 1, said.stderr
    assert "the lab has 2 points that the scripts do not rebuild: there" in said.stdout
    assert "`exec`" in said.stdout
    assert not list((world.folder / WORK).glob("*.tar.gz"))
    told = json.loads(world.say("lab", "submit", "--anyway", "--json").stdout)
    assert (told["points"], told["lost"]) == (0, ["there"])
    assert Path(told["file"]).exists()
    # Written where the message says, it is there.
    (world.folder / WORK / "submission/h1.sh").write_text(" ".join(route) + "\n")
    done = world.say("lab", "submit", "--json")
    told = json.loads(done.stdout)
    assert (done.status, told["points"], told["lost"]) == (0, 2, [])


def test_words_that_make_no_sense(world: World, hasty: Path) -> None:
    (world.folder / "in").mkdir()
    for words, said in (
        (["nowhere"], "no folder of submissions"),
        (["in"], "has no submission in it"),
        (["in", "--secret", "none"], "no such course secret"),
        (["in", "--keep"], "name whose with --one NAME"),
    ):
        done = world.say("lab", "grade", *words)
        assert (done.status, done.stdout) == (2, "")
        assert said in done.stderr
    assert "no exercise has been started" in world.say("lab", "submit").stderr
