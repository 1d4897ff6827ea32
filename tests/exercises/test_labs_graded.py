"""The exercises of labs/ handed in: a solution has all points, somebody else's none of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.labs import why_no_open_vswitch, why_no_sandbox
from xlab.exercises import beginning, catalog, exercise
from xlab.exercises.grading import submission
from xlab.exercises.grading.course import Course, Terms
from xlab.exercises.grading.submission import Submission
from xlab.exercises.variants import Variant
from xlab.scenario import blueprint

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

SECRET = b"0123456789abcdef0123456789abcdef"
#: Whose solution does not hang on anybody's values; or may not: of another subnet's range Docker 26
#: takes the host part, and where two have the same plan, that is right (labs/05, `foreign`).
EVERYBODYS = {"05", "10"}


@pytest.mark.parametrize("folder", catalog.folders(), ids=lambda folder: folder.name)
def test_its_solution_is_worth_all_and_somebody_elses_nothing(folder: Path, tmp_path: Path) -> None:
    found = exercise.load(folder, Variant("anna", SECRET))
    needs = blueprint.design(beginning.asked(found).request).scenario.needs
    if missing := why_no_sandbox() or ("Open vSwitch" in needs and why_no_open_vswitch()):
        pytest.skip(str(missing))
    assert found.solution is not None
    right = submission.of_solution(found, found.solution)
    given = {"anna": right, "zoe": Submission(right.scripts, "")}
    for name, each in given.items():
        (tmp_path / f"{name}.tar.gz").write_bytes(submission.pack(each))
    made = Course(Terms(SECRET), tmp_path / "grades")
    anna, zoe = made.grade(made.found(tmp_path, [folder]), jobs=2)
    wrong = [(c.id, c.outcome, c.seen) for c in anna.checks if c.outcome != "passed"]
    assert (anna.status, wrong) == ("graded", [])
    assert anna.points == anna.of
    if found.number not in EVERYBODYS:
        gained = [(check.id, check.seen) for check in zoe.checks if check.points]
        assert (zoe.status, gained) == ("graded", [])
