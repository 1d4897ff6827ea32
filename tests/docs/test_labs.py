"""Labs can be followed as they stand: one form, commands that exist, and output that comes.

The fast tests hand every command line to xlab's own parser and to the scenario it names; the slow
one types each lab from top to bottom, and compares.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from tests.support import documents
from tests.support.documents import ROOT, Command, Outcome, asked, require_known
from tests.support.labs import why_no_open_vswitch
from xlab.errors import UsageError
from xlab.scenario import catalog, scenario

LABS = sorted(path.parent for path in (ROOT / "labs").glob("*/README.md"))
SECTIONS = [
    "Objectives",
    "The picture",
    "Predict",
    "Run",
    "Read the proof",
    "Break it on purpose",
    "Questions",
]
#: What a lab may have one type besides bin/xlab: on every Debian, or installed by bin/setup.
TOOLS = {"tcpdump", "grep", "sed", "head", "cat", "last=$(ls"}

every_lab = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)


def typed(lab: Path) -> list[Command]:
    return documents.commands(lab / "README.md")


def test_there_is_a_lab_for_every_method_of_the_catalog() -> None:
    assert [lab.name.partition("-")[2] for lab in LABS] == catalog.names()


@every_lab
def test_a_lab_has_the_form_of_all_labs(lab: Path) -> None:
    title, *sections = documents.headings(lab / "README.md")
    assert title.startswith(f"Lab {lab.name[:2]}: ")
    assert sections == SECTIONS

    text = (lab / "README.md").read_text(encoding="utf-8")
    questions = text.partition("## Questions")[2]
    shown, fold, answers = questions.partition("<details>\n<summary>Answers</summary>\n\n")
    assert fold, "answers are folded away, with the empty line that lets them be formatted"
    assert answers.endswith("</details>\n"), "nothing stands after the answers"
    assert numbered(answers) == numbered(shown), "every question has an answer"
    assert numbered(shown)


def numbered(text: str) -> list[str]:
    return re.findall(r"(?m)^(\d+)\. ", text)


@every_lab
def test_its_index_names_it(lab: Path) -> None:
    targets = [link.target for link in documents.links(ROOT / "labs" / "README.md")]
    assert f"{lab.name}/README.md" in targets


@every_lab
def test_commands_of_a_lab_exist_and_make_sense(lab: Path, tmp_path: Path) -> None:
    place = documents.workplace(tmp_path / "checkout")
    runs = 0
    for command in typed(lab):
        if command.argv0 == "bin/xlab":
            request = asked(command)
            if request and not request.scenario.startswith("/tmp/"):
                require_known(request)
                runs += 1
        else:
            assert command.argv0 in TOOLS, f"{command.place}: {command.argv0}"
            assert shutil.which(command.argv0.partition("$(")[2] or command.argv0)
            check = subprocess.run(
                ["bash", "-n", "-c", command.text], capture_output=True, check=False
            )
            assert check.returncode == 0, f"{command.place}: {check.stderr!r}"
        if command.argv0 == "sed":
            require_effect(place, command)
    assert runs >= 2, "a lab has one run, and one that goes wrong on purpose"


def require_effect(place: Path, command: Command) -> None:
    """A `sed … scenarios/X.py > /tmp/Y.py` finds what it changes, and leaves a scenario."""
    (outcome,) = documents.type_in(place, [command], timeout_s=10)
    assert outcome.returncode == 0, f"{command.place}: {outcome.output}"
    *_, source, _, target = shlex.split(command.text)
    changed = place / target.removeprefix("/")
    assert changed.read_bytes() != (ROOT / source).read_bytes(), f"{command.place}: nothing changed"
    assert scenario.load(changed).name


def test_a_command_with_an_unknown_option_scenario_or_setting_would_be_found() -> None:
    with pytest.raises(typer.BadParameter.__mro__[2]):
        asked(Command("here", "bin/xlab run bridge --fast", ()))
    for wrong in ("brigde", "bridge --set fixed-cidr=most", "ovs-gre --hosts 500"):
        request = asked(Command("here", f"bin/xlab run {wrong}", ()))
        assert request is not None
        with pytest.raises(UsageError):
            require_known(request)


def test_a_command_that_goes_otherwise_than_shown_would_be_found() -> None:
    fails = Command("here", "bin/xlab run bridge", ("✗ a reaches b", "result failed"))
    output = "  claims   ✗ a reaches b\n  result   failed   1 of 5 claims"
    assert what_differs(fails, Outcome(1, output)) == ""
    assert what_differs(fails, Outcome(0, output)) == "exit status 0"
    assert what_differs(fails, Outcome(1, "  result   failed")).endswith("✗ a reaches b")


def test_output_must_come_in_the_order_shown() -> None:
    output = "  claims   ✓ a reaches b\n           ✗ b reaches c   0.2 s\n"
    assert documents.first_missing(["✓ a reaches b", "✗ b reaches c … s"], output) is None
    assert documents.first_missing(["✗ b reaches c", "✓ a reaches b"], output) == "✓ a reaches b"
    assert documents.first_missing(["✓ b reaches c"], output) == "✓ b reaches c"


@pytest.mark.slow
@pytest.mark.sandbox
@every_lab
def test_a_lab_can_be_followed_from_top_to_bottom(lab: Path, tmp_path: Path) -> None:
    if why_no_open_vswitch() and any("ovs-gre" in c.text for c in typed(lab)):
        pytest.skip(why_no_open_vswitch())
    place = documents.workplace(tmp_path / "checkout")
    outcomes = documents.type_in(place, typed(lab), timeout_s=600)
    wrong = [
        f"{command.place}: $ {command.text}\n{outcome.output}\n--> {reason}"
        for command, outcome in zip(typed(lab), outcomes, strict=True)
        if (reason := what_differs(command, outcome))
    ]
    assert not wrong, "\n\n".join(wrong)


def what_differs(command: Command, outcome: Outcome) -> str:
    """How a command went other than its lab shows; empty if it went so."""
    missing = documents.first_missing(command.shown, outcome.output)
    if missing is not None:
        return f"not seen, or not in this place: {missing}"
    # A run that goes wrong on purpose says so in its last line.
    fails = any(line.strip().startswith("result failed") for line in command.shown)
    if outcome.returncode != int(fails):
        return f"exit status {outcome.returncode}"
    return ""
