"""The exercises of labs/: right in every file, and done as their solutions do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.documents import ROOT
from tests.support.labs import why_no_open_vswitch
from xlab.exercises import (
    beginning,
    catalog,
    document,
    exercise,
    judging,
    selftest,
    variants,
)
from xlab.exercises.judging import Outcome
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant
from xlab.scenario import blueprint

FOLDERS = catalog.folders()
SECTIONS = ["What you can do afterwards", "The picture", "Your values", "Predict", "Questions"]
#: Those that are done whenever the tests run, half a minute altogether; the others by `--all`.
OFTEN = {"01", "03", "11", "13", "15"}
#: Whose values `--all` reads the files with; and whose exercises `--all` does with every fault.
MORE_SEEDS = ["anna", "ben", "carla"]
DONE_BY = "anna"
#: Of an exercise whose fault is drawn: each fault is somebody's.
MANY = {"fault-hunt": 40, "unknown-capture": 20}

every_exercise = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def needs_open_vswitch(found: Exercise) -> bool:
    return "Open vSwitch" in blueprint.design(beginning.asked(found).request).scenario.needs


def require_possible(found: Exercise) -> None:
    if needs_open_vswitch(found) and (missing := why_no_open_vswitch()):
        pytest.skip(missing)


def test_there_is_a_course_of_them() -> None:
    numbers = [folder.name[:2] for folder in FOLDERS]
    assert numbers == [f"{number:02}" for number in range(1, len(numbers) + 1)]
    assert len(numbers) >= 14


@pytest.mark.parametrize(
    "seed", ["", *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE_SEEDS)]
)
@every_exercise
def test_nothing_is_wrong_with_its_files_whoever_has_it(folder: Path, seed: str) -> None:
    assert exercise.problems(folder, Variant(seed)) == []
    found = exercise.load(folder, Variant(seed))
    blueprint.design(beginning.asked(found).request)
    assert variants.unknown_in(re.sub(r"\{print\}", "", found.readme), {}) == []


@every_exercise
def test_it_has_the_form_of_all(folder: Path) -> None:
    found = exercise.load(folder, Variant("anna"))
    _, *headings = documents.headings(folder / "README.md")
    tasks = [f"Task {number}: {title}" for number, title in found.tasks.items()]
    assert headings == [*SECTIONS[:-1], *tasks, SECTIONS[-1]]
    assert len(found.checks) >= 4
    # What has been done counts at least as much as what has been understood, or nearly.
    assert 0 < sum(check.points for check in found.questions) <= 0.6 * found.points
    # Whoever does nothing gains nothing.
    assert found.start_points == 0
    assert found.other is not None
    assert (
        (folder / "solution/teacher.md").read_text().startswith(f"# {found.number} {found.title}")
    )
    planted = {name for fault in found.faults for name in fault.fails}
    unplanted = {c.id for c in found.checks if c.word != "answer"} - planted
    assert unplanted == set(), "a fault for each check"


@every_exercise
def test_no_two_students_have_the_same_values(folder: Path) -> None:
    wanted = document.read(folder / "lab.yaml").value["variants"]
    keys = [Variant(f"student {i}").key(folder.name) for i in range(60)]
    found = {str(variants.drawn(wanted, key)) for key in keys}
    assert len(found) > 50 or folder.name[3:] in MANY


@every_exercise
def test_its_index_names_it_and_how_long_it_takes(folder: Path) -> None:
    found = exercise.load(folder, Variant(""))
    row = f"| {found.number} | [{found.title}]({folder.name}/README.md) | {found.minutes} |"
    assert row in (ROOT / "labs/README.md").read_text()


@every_exercise
def test_every_value_is_used(folder: Path) -> None:
    """One that is drawn and stands nowhere was forgotten."""
    texts = "\n".join(
        file.read_text() for file in folder.rglob("*") if file.suffix in (".md", ".yaml", ".sh")
    )
    for name in exercise.load(folder, Variant("")).values:
        assert len(re.findall(rf"\b{re.escape(name)}\b", texts)) > 1, name


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(each, marks=() if each.name[:2] in OFTEN else pytest.mark.slow, id=each.name)
        for each in FOLDERS
    ],
)
def test_it_begins_with_nothing_and_its_solution_solves_it(folder: Path) -> None:
    found = exercise.load(folder, Variant("selftest"))
    require_possible(found)
    tried = selftest.selftest(found, faults=False)
    assert {each.tried: each.wrong for each in tried} == {"as it begins": "", "solved": ""}


@pytest.mark.sandbox
@pytest.mark.slow
@every_exercise
def test_its_checks_notice_every_fault_and_no_other(folder: Path) -> None:
    found = exercise.load(folder, Variant(DONE_BY))
    require_possible(found)
    assert {each.tried: each.wrong for each in selftest.selftest(found) if each.wrong} == {}


@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.parametrize("slug", MANY)
def test_every_fault_that_can_be_drawn_is_solved(slug: str) -> None:
    folder = catalog.find(slug)
    found = [exercise.load(folder, Variant(str(i))) for i in range(MANY[slug])]
    kinds = {str(each.solution.answers) if each.solution else "": each for each in found}
    assert len(kinds) >= 6
    for each in kinds.values():
        require_possible(each)
        tried = selftest.selftest(each, faults=False)
        assert [one.wrong for one in tried] == ["", ""], (each.student, tried)


@pytest.mark.sandbox
@pytest.mark.slow
def test_rules_that_come_while_a_connection_is_pending_are_waited_for_as_well() -> None:
    found = exercise.load(catalog.find("partition-and-relay"), Variant(DONE_BY))
    require_possible(found)
    assert found.other
    no_frames = f"iptables -I INPUT -s {found.values['h3']} -p udp -j DROP"
    with beginning.begun(found) as lab:
        # As if the rules had come between the routers' handshake and their first datagrams.
        beginning.type_in(lab, {"h1": no_frames}, "the first rule")
        beginning.solve(lab, found.other)
        results = judging.judge(found, lab, beginning.right_answers(found.other))
    assert {r.check.id: r.seen for r in results if r.outcome is not Outcome.PASSED} == {}
