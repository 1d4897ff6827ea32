"""What each check comes to: what needs another, what breaks, what nobody here can judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xlab.errors import NoAnswerError, XlabError
from xlab.exercises import exercise, judging
from xlab.exercises.judging import Outcome
from xlab.exercises.model import Check, Exercise
from xlab.exercises.variants import Variant


class Answers:
    """In the place of a lab: answers what it was told to, or raises it."""

    def __init__(self, *found: bool | Exception) -> None:
        self.found = list(found)
        self.asked: list[str] = []

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        assert verb == "check"
        self.asked.append(arguments["arguments"]["to"])
        answer = self.found.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"holds": answer, "seen": "this"}


def checks(*needs: tuple[str, ...]) -> tuple[Check, ...]:
    return tuple(
        Check(
            f"c{i}", 1, i, "reaches", {"from": "h1", "to": f"h{i}"}, needed, None,
            f"c{i} holds.", f"c{i} does not.", "Look there.", True,
        )
        for i, needed in enumerate(needs, 1)
    )  # fmt: skip


@pytest.fixture
def sample(folder: Path) -> Exercise:
    return exercise.load(folder, Variant("anna"))


def outcomes(sample: Exercise, lab: Answers, *needs: tuple[str, ...]) -> list[str]:
    found = dataclasses.replace(sample, checks=checks(*needs))
    return [str(result.outcome) for result in judging.judge(found, lab, {})]


def test_what_needs_one_that_did_not_pass_is_skipped(sample: Exercise) -> None:
    lab = Answers(False, True)
    assert outcomes(sample, lab, (), ("c1",), ("c2",), ()) == [
        "failed", "skipped", "skipped", "passed"
    ]  # fmt: skip
    assert lab.asked == ["h1", "h4"]


def test_what_needs_an_answer_is_asked_once_there_is_one(sample: Exercise) -> None:
    """Who judges it is another matter."""
    question = next(check for check in sample.checks if check.id == "next-hop")
    (other,) = checks(("next-hop",))
    handed = dataclasses.replace(sample, solution=None, checks=(question, other))
    for given, expected in (({}, "skipped"), ({"next-hop": "The gateway"}, "passed")):
        _, result = judging.judge(handed, Answers(True), given)
        assert str(result.outcome) == expected


def test_what_cant_be_carried_out_is_no_pass_and_no_failure(sample: Exercise) -> None:
    lab = Answers(XlabError("the exercise names no such node"), True)
    assert outcomes(sample, lab, (), ("c1",), ()) == ["broken", "skipped", "passed"]


def test_a_lab_that_does_not_answer_ends_it(sample: Exercise) -> None:
    with pytest.raises(NoAnswerError):
        outcomes(sample, Answers(NoAnswerError("x", 1)), (), ())


def test_points_are_those_of_what_passed(sample: Exercise) -> None:
    found = dataclasses.replace(sample, checks=checks((), (), ()))
    results = judging.judge(found, Answers(True, False, True), {})
    assert judging.points(results) == 1 + 3
    facts = [result.facts() for result in results]
    assert [(each["points"], each["of"]) for each in facts] == [(1, 1), (0, 2), (3, 3)]
    assert [each["text"] for each in facts] == ["c1 holds.", "c2 does not.", "c3 holds."]
    # What to look at is for those that need it.
    assert [each["look"] for each in facts] == ["", "Look there.", ""]


def test_an_answer_is_judged_where_the_right_one_is_known(sample: Exercise) -> None:
    question = sample.questions

    def judged(given: dict[str, Any], of: Exercise) -> Outcome:
        (result,) = judging.judge(of, Answers(), given, checks=question)
        return result.outcome

    assert judged({}, sample) is Outcome.FAILED
    assert judged({"next-hop": "h2"}, sample) is Outcome.FAILED
    assert judged({"next-hop": "The gateway"}, sample) is Outcome.PASSED
    handed = dataclasses.replace(sample, solution=None)
    assert judged({"next-hop": "The gateway"}, handed) is Outcome.UNJUDGED
    assert judged({}, handed) is Outcome.FAILED
