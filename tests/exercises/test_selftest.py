"""The selftest of exercises notices whatever an exercise may have wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.exercises import exercise, selftest
from xlab.exercises.variants import Variant

pytestmark = pytest.mark.sandbox


def wrong(hasty: Path, *, faults: bool = True) -> dict[str, str]:
    found = selftest.selftest(exercise.load(hasty, Variant("anna")), faults=faults)
    return {each.tried: each.wrong for each in found if each.wrong}


def change(hasty: Path, file: str, before: str, after: str) -> None:
    text = (hasty / file).read_text()
    assert before in text
    (hasty / file).write_text(text.replace(before, after))


def test_a_draft_has_nothing_wrong_in_it(hasty: Path) -> None:
    found = selftest.selftest(exercise.load(hasty, Variant("anna")))
    assert [each.tried for each in found] == [
        "as it begins",
        "solved",
        "answered wrong",
        "with a fault: h1 has lost its route",
        "with a fault: h1 has lost the address of its own network",
        "without them again",
        "solved by other commands",
    ]
    assert [each.wrong for each in found] == [""] * 7


@pytest.mark.slow
def test_points_for_doing_nothing_are_noticed(hasty: Path) -> None:
    change(hasty, "checks.yaml", '{from: h1, to: "{own2}"}', "{from: h1, to: h2}")
    found = wrong(hasty)
    assert found["as it begins"] == "2 points (there); README.md says 0"
    # And so is a fault that it does not see.
    assert found["with a fault: h1 has lost its route"] == "there does not fail"


@pytest.mark.slow
def test_a_solution_that_solves_nothing_is_noticed(hasty: Path) -> None:
    change(hasty, "solution/h2.sh", "ip route", "true ip route")
    found = wrong(hasty)
    assert found["solved"].startswith("back failed: no answer from")
    assert "solved by other commands" not in found


def test_a_check_that_cant_be_carried_out_is_noticed(hasty: Path) -> None:
    """Which faults there are only the lab knows."""
    reaches = 'reaches: {from: h1, to: "{own2}"}'
    change(hasty, "checks.yaml", reaches, f"survives: {{fault: melt h1, then: {{{reaches}}}}}")
    found = wrong(hasty, faults=False)
    assert found["as it begins"].startswith("there can't be carried out: 'melt h1' is no fault")
    assert found["solved"].startswith("there broken: 'melt h1' is no fault")


def test_a_script_that_breaks_is_told_with_what_it_said(hasty: Path) -> None:
    change(hasty, "solution/h1.sh", "ip route add", "ip rout add nonsense")
    (found,) = wrong(hasty, faults=False).values()
    assert "the solution of task 1: on h1 it ended with status" in found
