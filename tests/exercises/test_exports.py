"""Grades in others' forms, and the teacher's page."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from junitparser import JUnitXml

from tests.support.ordinary import ORDINARY
from xlab.exercises import exercise
from xlab.exercises.grading import exports, outcome
from xlab.exercises.grading.replay import Part, Replayed, without_lab
from xlab.exercises.grading.submission import Submission
from xlab.exercises.judging import Outcome, Result
from xlab.exercises.variants import Variant
from xlab.record import grade, record
from xlab.record.grade import Grade
from xlab.report import grades as page

GIVEN = Submission({"h1": "true"}, "next-hop: the gateway\n", "anna", "21-two-ways")


@pytest.fixture
def one(folder: Path) -> Grade:
    """Of anna, who has solved the half, and said what no page may take for markup."""
    found = exercise.load(folder, Variant("anna"))
    there, back, question = found.checks
    results = [
        Result(there, Outcome.PASSED, "an answer came", 0.2),
        Result(replace(back, shown=False), Outcome.FAILED, "=cmd|'<b>\x01", 1.3),
        Result(question, Outcome.PASSED, "'the gateway'"),
    ]
    part = Part("h1", 1, "<script>alert(1)</script>\x1b[2J", "")
    replayed = Replayed(results, [part], ["a note"], "", {"processes": 9, "memory_bytes": 1})
    return outcome.of_replayed(found, GIVEN, replayed, file="anna.zip", key="k", took_s=4.2)


def test_a_grade_is_read_as_it_was_written(one: Grade, tmp_path: Path) -> None:
    assert (one.points, one.of, one.status) == (3, 4, "graded")
    file = tmp_path / grade.NAME
    file.write_bytes(record.as_bytes(record.to_document(one)))
    assert grade.read(file) == one
    file.write_text("{}")
    assert grade.read(file) is None
    assert grade.read(tmp_path / "none") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is played by root alone")
def test_a_grade_of_somebody_else_s_is_none(one: Grade, tmp_path: Path) -> None:
    """Points are what it says."""
    file = tmp_path / grade.NAME
    file.write_bytes(record.as_bytes(record.to_document(one)))
    os.chown(file, ORDINARY, ORDINARY)
    assert grade.read(file) is None
    theirs = file.rename(tmp_path / "theirs")
    file.symlink_to(theirs)
    assert grade.read(file) is None


def test_gradescope_has_its_results(one: Grade) -> None:
    found = json.loads(exports.beside(one)["gradescope.json"])
    assert (found["score"], found["execution_time"]) == (3, 4)
    assert [test["score"] for test in found["tests"]] == [2, 0, 1]
    assert [test["max_score"] for test in found["tests"]] == [2, 1, 1]
    assert [test["status"] for test in found["tests"]] == ["passed", "failed", "passed"]
    assert [test["visibility"] for test in found["tests"]] == ["visible", "hidden", "visible"]
    assert "a note" in found["output"]


def test_classroom_50_has_integers(one: Grade) -> None:
    found = json.loads(exports.beside(one)["classroom50.json"])
    assert found["schema"] == "classroom50/result/v1"
    assert (found["score"], found["max-score"], found["owner"]) == (3, 4, "anna")
    assert all(type(test[key]) is int for test in found["tests"] for key in ("score", "max-score"))
    assert [test["passed"] for test in found["tests"]] == [True, True, False]


def test_classroom_50_tells_of_hidden_checks_only_what_they_come_to(one: Grade) -> None:
    (there, back, question) = one.checks
    also = replace(back, id="quiet", points=3, of=3, outcome="passed", seen="nothing came")
    made = replace(one, checks=(there, back, also, question), points=6, of=7)
    told = exports.beside(made)["classroom50.json"].decode()
    assert not any(word in told for word in ("back", "quiet", "cmd|", "nothing came"))
    *shown, hidden = json.loads(told)["tests"]
    assert [test["test-name"] for test in shown] == ["there", "next-hop"]
    summed = {"passed": False, "score": 3, "max-score": 4, "said": ""}
    assert hidden == {"test-name": "hidden checks", **summed}
    assert sum(test["score"] for test in (*shown, hidden)) == made.points
    none = replace(one, checks=(there, question))
    assert len(json.loads(exports.beside(none)["classroom50.json"])["tests"]) == 2


def test_students_are_not_told_the_name_of_a_hidden_check_that_breaks(one: Grade) -> None:
    (there, back, question) = one.checks
    broken = (there, replace(back, outcome="broken"), question)
    made = replace(one, status="error", cause="back can't be carried out", checks=broken)
    files = {name: json.loads(text) for name, text in exports.beside(made).items()}
    assert files["classroom50.json"]["cause"] == "a check can't be carried out"
    assert files["gradescope.json"]["output"] == "error: a check can't be carried out\na note"


def test_tables_hold_no_formula_and_say_no_grade_where_there_is_none(one: Grade) -> None:
    lost = replace(one, student="ben", status="error", cause="it broke")
    files = exports.of_all([one, lost], {"anna/21-two-ways": ["the same scripts as ben", "=1"]})
    anna, ben = csv.DictReader(io.StringIO(files["grades.csv"].decode()))
    assert (anna["points"], anna["of"], ben["points"], ben["status"]) == ("3", "4", "", "error")
    assert anna["remarks"] == "a note; the same scripts as ben;' =1"
    checks = list(csv.DictReader(io.StringIO(files["checks.csv"].decode())))
    assert [check["seen"][:2] for check in checks[:3]] == ["an", "'=", "'t"]


def test_junit_is_read_by_what_reads_it(one: Grade) -> None:
    (suite,) = JUnitXml.fromstring(exports.of_all([one], {})["junit.xml"])
    assert (suite.tests, suite.failures, suite.errors) == (3, 1, 0)
    assert suite.name == "anna/21-two-ways"


def test_the_page_says_who_and_what_fails_and_nothing_in_it_acts(one: Grade) -> None:
    told = page.of_grades([one, replace(one, student="<b>ben")], {one.place: ["look here"]})
    assert "<script" not in told
    assert "<b>ben" not in told
    assert "\x1b" not in told
    assert "&lt;script&gt;alert(1)" in told
    assert "look here" in told
    assert "h2 gets no answer from" in told
    assert "2 of 2" in told


#: Half surrogates among them, which no UTF-8 says.
_ANY = st.text(st.characters(exclude_categories=()), max_size=60)


@given(_ANY, _ANY)
@example("\ud800\ufffe", "\udfff")
def test_any_words_of_a_students_are_text(seen: str, said: str) -> None:
    check = grade.GradedCheck("there", 1, 0, 2, "failed", "no.", seen, True, 0.0)
    part = grade.GradedPart("h1", 1, said, "")
    made = Grade("x", "21-two-ways", "Two ways", "graded", "", 0, 2, (check,), (part,), (said,), {},
                 "k", "2026-01-01T00:00:00+00:00", 0.0, {}, {}, {})  # fmt: skip
    JUnitXml.fromstring(exports.of_all([made], {})["junit.xml"])
    assert "<script" not in page.of_grades([made], {}).lower()


def test_where_there_is_no_lab_answers_count(folder: Path) -> None:
    found = exercise.load(folder, Variant("anna"))
    made = without_lab(found, GIVEN, "more than 400 processes at a time")
    assert [result.points for result in made.results] == [0, 0, 1]
    one = outcome.of_replayed(found, GIVEN, made, file="f", key="k", took_s=0.0)
    assert (one.status, one.points) == ("stopped", 1)
