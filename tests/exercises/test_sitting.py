"""An exercise as a student does it: started, checked, helped, solved, begun anew."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.ordinary import ORDINARY
from tests.support.world import World, usual_signals, world
from xlab.errors import NoAnswerError, UsageError
from xlab.exercises import answers, beginning, drafting, exercise, sitting
from xlab.exercises.variants import Variant
from xlab.kernel import disk
from xlab.lab import machine_root
from xlab.outside import running_lab
from xlab.sandbox import registry

pytestmark = pytest.mark.sandbox

_FIXTURES = (world, usual_signals)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user is played by root alone")


@pytest.fixture
def begun(world: World, hasty: Path) -> World:
    said = world.say("lab", "start", str(hasty), "--seed", "anna")
    assert (said.status, said.stderr) == (0, "")
    assert "## Task 1: a way there and a way back" in said.stdout
    return world


def told(world: World, *words: str) -> tuple[int, Any]:
    said = world.say("lab", *words, "--json")
    return said.status, json.loads(said.stdout)


def test_an_exercise_from_its_start_to_all_its_points(begun: World) -> None:
    work = begun.folder / "work/21-two-ways"
    assert "xlab lab check" in begun.say("status").stdout
    own2 = told(begun, "check")[1]["values"]["own2"]
    assert f"Let h1 reach `{own2}`" in (work / "README.md").read_text()

    said = begun.say("lab", "check")
    assert said.status == 1
    assert f"✗ h1 gets no answer from {own2}." in said.stdout
    assert f"`xlab trace h1 {own2}` shows where the ping stops." in said.stdout
    assert "0 of 4 points" in said.stdout

    values = told(begun, "check")[1]["values"]
    for host, net, via in (("h1", "net2", "h2"), ("h2", "net1", "h1")):
        typed = ("ip", "route", "add", values[net], "via", values[via])
        assert begun.say("exec", host, "--", *typed).status == 0
    status, found = told(begun, "check")
    assert (status, found["points"], found["of"]) == (1, 3, 4)
    assert [each["outcome"] for each in found["checks"]] == ["passed", "passed", "failed"]

    sheet = work / answers.NAME
    sheet.write_text(sheet.read_text().replace("next-hop:", "next-hop: the gateway"))
    said = begun.say("lab", "check")
    assert said.status == 0
    assert "4 of 4 points" in said.stdout


#: Of a host: those of people's folders in which something could be written.
_WRITABLE = """
import os, sys
print(*(f for f in sys.argv[1:] if os.path.isdir(f) and not os.statvfs(f).f_flag & os.ST_RDONLY))
"""


def test_no_host_of_an_exercise_writes_people_s_files(begun: World, hasty: Path) -> None:
    """Whoever made the folder has written what is typed there."""
    argv = [sys.executable, "-P", "-c", _WRITABLE, *machine_root.PEOPLES]
    said = begun.say("exec", "h1", "--", *argv)
    assert (said.status, said.stdout) == (0, "\n")
    # Where the selftest tries it, and a submission is done again.
    with beginning.begun(exercise.load(hasty, Variant("anna"))) as lab:
        done = lab.call("run", {"node": "h1", "argv": argv, "stdin": ""})
    assert (done["returncode"], done["stdout"]) == (0, "\n")


@pytest.mark.slow
def test_hints_come_one_by_one_and_cost(begun: World) -> None:
    said = [begun.say("lab", "hint").stdout for _ in range(4)]
    assert ["hint 1 of 3" in said[0], "hint 2 of 3" in said[1]] == [True, True]
    assert ["hint 3 of 3" in said[2], "hint 3 of 3" in said[3]] == [True, True]
    assert "ip route add" not in said[0] + said[1]
    assert "ip route add" in said[2]
    assert told(begun, "check")[1]["hints_cost"] == 2
    assert "; 0 after 2 for hints" in begun.say("lab", "check").stdout
    refused = begun.say("lab", "hint", "nothing")
    assert refused.status == 2
    assert "there are no hints on 'nothing'; there are on: there" in refused.stderr


@pytest.mark.slow
def test_what_was_solved_is_gone_after_a_reset_and_the_values_stay(begun: World) -> None:
    before = told(begun, "check")[1]["values"]
    assert begun.say("lab", "solve").status == 0
    assert told(begun, "check")[0] == 0
    assert begun.say("lab", "reset").status == 0
    _, found = told(begun, "check")
    assert found["values"] == before
    # What was answered is a student's own file.
    assert [each["outcome"] for each in found["checks"]] == ["failed", "failed", "passed"]
    assert begun.say("down").status == 0
    assert begun.say("lab", "start", found["folder"]).status == 0
    assert told(begun, "check")[1]["values"] == before
    # Of other values the old answers are none.
    assert begun.say("down").status == 0
    assert begun.say("lab", "start", found["folder"], "--seed", "ben").status == 0
    assert [each["outcome"] for each in told(begun, "check")[1]["checks"]] == ["failed"] * 3
    kept = begun.folder / "work/21-two-ways/answers-anna.yaml"
    assert answers.read(kept) == {"next-hop": "the gateway"}


@pytest.mark.parametrize("seed", ["a/../../b", "\x1b]0;mine\a", "x" * 300])
def test_answers_to_any_seed_are_set_aside_where_they_lie(seed: str, tmp_path: Path) -> None:
    """Whoever made the folder wrote its seed."""
    sheet = tmp_path / "work/answers.yaml"
    sheet.parent.mkdir()
    sheet.write_text("mine")
    with disk.held(sheet.parent) as place:
        sitting._set_aside(place, seed)
    (kept,) = sheet.parent.iterdir()
    assert kept.read_text() == "mine"
    assert re.fullmatch(r"answers-[\w.-]+\.yaml", kept.name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "is no UTF-8"),
        (b"x" * 1025, "longer than 1,024 bytes"),
        (None, "not a regular file"),
    ],
)
def test_a_seed_that_is_none_is_refused(
    content: bytes | None, told: str, world: World, folder: Path
) -> None:
    file = world.folder / "work/21-two-ways/.seed"
    file.parent.mkdir(parents=True)
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    said = world.say("lab", "start", str(folder))
    assert (said.status, said.stdout) == (2, "")
    assert f"{file}: {told}; without that file values are new" in said.stderr
    file.unlink()
    assert sitting.seed_in(file.parent) is None
    file.write_text("anna\n")
    assert sitting.seed_in(file.parent) == "anna"


def _a_folder(place: Path, mine: Path) -> None:
    (place / "work/21-two-ways").mkdir(parents=True)
    (place / "work/21-two-ways/.seed").symlink_to(mine / "secret")


def _a_link_in_a_folder(place: Path, mine: Path) -> None:
    (place / "work").mkdir()
    (place / "work/21-two-ways").symlink_to(mine)


def _a_link(place: Path, mine: Path) -> None:
    (place / "work").symlink_to(mine)


def _a_link_in_a_folder_of_theirs_alone(place: Path, mine: Path) -> None:
    _a_link(place, mine)
    place.chmod(0o755)
    os.chown(place, ORDINARY, ORDINARY)


def test_one_s_own_links_lead_to_where_one_works(world: World, hasty: Path) -> None:
    """The folder, on another disk say, but no file in it: what is in that goes to others."""
    (world.folder / "disk").mkdir()
    (world.folder / "work").symlink_to("disk")
    (world.folder / "secret").write_text("next-hop: a secret\n")
    assert world.say("lab", "start", str(hasty), "--seed", "anna").status == 0
    work = world.folder / "disk/21-two-ways"
    assert (work / ".seed").read_text() == "anna\n"
    sheet = work / answers.NAME
    sheet.unlink()
    sheet.symlink_to(world.folder / "secret")
    refusal = "work/21-two-ways/answers.yaml: not a file of"
    assert refusal in world.say("lab", "check").stdout
    said = world.say("lab", "submit")
    assert said.status == 2
    assert refusal in said.stderr
    assert not list(work.glob("*.tar.gz"))
    assert (world.folder / "secret").read_text() == "next-hop: a secret\n"
    sheet.unlink()
    assert world.say("lab", "solve").status == 0
    assert answers.read(sheet) == {"next-hop": "the gateway"}


@needs_root
def test_whose_folder_is_worked_in(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """That of who called sudo; any that is handed out, being named: its scripts are typed, too."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    theirs = tmp_path / "work/21-two-ways"
    theirs.mkdir(parents=True)
    (theirs / ".seed").write_text("anna")
    assert sitting.seed_in(theirs) == "anna"
    for path in (theirs, theirs.parent):
        os.chown(path, ORDINARY, ORDINARY)
    with pytest.raises(UsageError, match=r"somebody else's folder \(uid 65534\)"):
        sitting.seed_in(theirs)
    assert sitting.seed_in(theirs, named=True) == "anna"
    monkeypatch.setenv("SUDO_UID", str(ORDINARY))
    assert sitting.seed_in(theirs) == "anna"
    (tmp_path / "secret").write_text("a secret")
    (theirs / ".seed").unlink()
    (theirs / ".seed").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="not a file of"):
        sitting.seed_in(theirs, named=True)


@needs_root
@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_a_folder, "work/21-two-ways: somebody else's folder (uid 65534): begin it in"),
        (_a_link_in_a_folder, "work/21-two-ways: a link of somebody else's is on the way"),
        (_a_link, "work/21-two-ways: a link of somebody else's is on the way"),
        (_a_link_in_a_folder_of_theirs_alone, "a link of somebody else's is on the way"),
    ],
    ids=["a folder", "a link in a folder", "a link", "a link where they alone write"],
)
def test_nothing_is_read_or_written_by_a_work_folder_of_somebody_else_s(
    plant: Callable[[Path, Path], None], told: str, world: World, folder: Path
) -> None:
    """Who was first where anybody may write."""
    mine = world.folder / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("as it was")
    (mine / "secret").write_text("a secret")
    world.folder.chmod(0o1777)
    plant(world.folder, mine)
    for path in ("work", "work/21-two-ways", "work/21-two-ways/.seed"):
        with suppress(FileNotFoundError):
            os.chown(world.folder / path, ORDINARY, ORDINARY, follow_symlinks=False)
    said = world.say("lab", "start", str(folder))
    assert (said.status, said.stdout) == (2, "")
    assert told in said.stderr
    assert {path.name: path.read_text() for path in mine.iterdir()} == {
        "README.md": "as it was", "secret": "a secret",
    }  # fmt: skip
    assert world.labs() == []


@pytest.mark.slow
def test_one_at_a_time_and_none_that_is_none(begun: World, hasty: Path) -> None:
    again = begun.say("lab", "start", str(hasty))
    assert again.status == 2
    assert "two-ways has begun: `xlab lab check` tells" in again.stderr
    assert begun.say("up", "baseline", "--empty").status == 0
    # There is one exercise still, whatever other labs there are.
    for words in ((), ("21",), ("two-ways",), ("21-two-ways",)):
        assert told(begun, "check", *words)[1]["lab"] == "two-ways"
    refused = begun.say("lab", "check", "07")
    assert refused.status == 2
    assert "exercise 07 has not been started; started: 21-two-ways" in refused.stderr
    assert begun.say("down", "--all").status == 0
    nothing = begun.say("lab", "check")
    assert nothing.status == 2
    assert "no exercise has been started" in nothing.stderr


@pytest.mark.slow
def test_of_two_each_is_named_by_its_number(begun: World, hasty: Path) -> None:
    other = drafting.draft("22-two-more", hasty.parent)
    assert begun.say("lab", "start", str(other)).status == 0
    for typed, remedy in (
        (["hint"], "hint 22"),
        (["hint", "9"], ""),
        (["hint", "there"], "hint there --exercise 22"),
        (["solve"], "solve 22"),
        (["submit"], "submit 22"),
    ):
        refused = begun.say("lab", *typed)
        assert refused.status == 2
        expected = f"`xlab lab {remedy}`" if remedy else "exercise 9 has not been started"
        assert expected in refused.stderr
    assert "hint 1 of 3" in begun.say("lab", "hint", "22").stdout
    assert begun.say("down", "22", "two-ways").status == 0
    assert begun.say("ps", "--json").stdout.strip() == "[]"
    wrong = begun.say("down", "22")
    assert wrong.status == 2
    assert "no lab named '22' is running" in wrong.stderr


def test_a_lab_that_does_not_answer_may_be_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is said to: whoever hears that nothing has begun would begin it anew."""

    def find(name: str) -> None:
        raise NoAnswerError(name, 8)

    monkeypatch.setattr(registry, "running", lambda: ["two-ways"])
    monkeypatch.setattr(running_lab, "find", find)
    for word in (None, "21"):
        with pytest.raises(NoAnswerError, match="xlab down two-ways"), sitting.find(word):
            pass
    assert sitting.running() == {}


@pytest.mark.slow
def test_what_was_handed_out_is_done_where_it_lies(world: World, hasty: Path) -> None:
    said = world.say(
        "lab", "export", str(hasty), "--student", "anna", "--secret", "key", "-o", "out"
    )
    assert (said.status, said.stderr) == (0, "")
    there = "out/anna/21-two-ways"
    assert world.say("lab", "start", f"./{there}").status == 0
    assert not (world.folder / "work").exists()
    assert world.say("lab", "solve").status == 2
    sheet = world.folder / there / answers.NAME
    sheet.write_text(sheet.read_text().replace("next-hop:", "next-hop: h2"))
    said = world.say("lab", "check")
    assert "0 of 3 points of the checks you can see, 1 for your teacher to judge" in said.stdout
    sheet.write_text(sheet.read_text().replace(": h2", ": my mother"))
    assert "'my mother' is none of: the gateway, h2, nobody" in world.say("lab", "check").stdout


def test_a_lab_that_cant_be_prepared_does_not_stay(world: World, hasty: Path) -> None:
    lab = hasty / "lab.yaml"
    lab.write_text(lab.read_text().replace("h1: ip address add", "h1: ip addrezz add"))
    said = world.say("lab", "start", str(hasty))
    assert said.status == 1
    assert "typed_before: on h1 it ended with status" in said.stderr
    assert world.labs() == []


def test_a_sheet_that_cant_be_read_stops_no_other_check(begun: World) -> None:
    sheet = begun.folder / "work/21-two-ways" / answers.NAME
    sheet.write_text("next-hop the gateway\nb: 1\n")
    said = begun.say("lab", "check")
    assert said.status == 1
    assert "h1 gets no answer from" in said.stdout
    assert "answers.yaml:2: " in said.stdout


@pytest.mark.slow
def test_only_the_first_unfinished_task_is_shown_in_full(world: World, hasty: Path) -> None:
    readme, checks = hasty / "README.md", hasty / "checks.yaml"
    readme.write_text(readme.read_text().replace("## Questions", "## Task 2: more\n\n## Questions"))
    text, last = checks.read_text().split("- id: back\n  task: 1")
    checks.write_text(f"{text}- id: back\n  task: 2{last}")
    assert world.say("lab", "start", str(hasty)).status == 0
    said = world.say("lab", "check").stdout
    assert "h1 gets no answer" in said
    assert "h2 gets no answer" not in said
    assert "task 2   more" in said
    for more in (("--all",), ("--task", "2")):
        assert "h2 gets no answer" in world.say("lab", "check", *more).stdout
