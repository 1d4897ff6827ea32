"""Answers: asked for on a sheet, read back as they were meant, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlab.errors import UsageError
from xlab.exercises import answers, exercise
from xlab.exercises.variants import Variant


@pytest.mark.parametrize(
    ("given", "expected", "right"),
    [
        (38, {"number": 38}, True),
        ("38 bytes", {"number": 38}, True),
        ("about 38,5", {"number": 38, "tolerance": 0.5}, True),
        (39, {"number": 38}, False),
        (109, {"number": 100, "within": "10 %"}, True),
        (111, {"number": 100, "within": "10 %"}, False),
        (-3, {"number": 3}, False),
        ("none", {"number": 0}, False),
        ("GRE", {"choice": "gre"}, True),
        ("gre ", {"choice": "gre"}, True),
        ("It goes there.", {"choice": "it goes there"}, True),
        ("0x040a", {"number": 1034}, True),
        ("0x" + 300 * "f", {"number": 1034}, False),
        ("gre or not", {"choice": "gre"}, False),
        ("it is masqueraded", {"text": "masquerad"}, True),
        ("Masquerading", {"text": "masquerad"}, True),
        ("routed", {"text": "masquerad"}, False),
        ("", {"text": "masquerad"}, False),
    ],
)
def test_an_answer_is_right_or_not(given: Any, expected: dict[str, Any], right: bool) -> None:
    assert answers.judged(given, expected)[0] is right


def test_what_is_called_right_and_wrong_is(folder: Path) -> None:
    found = exercise.load(folder, Variant("anna"))
    question = found.questions[0]
    assert found.solution
    expected = found.solution.answers[question.id]
    assert answers.judged(answers.right(expected), expected)[0]
    assert not answers.judged(answers.wrong(question, expected), expected)[0]
    for number in (-17 / 2, -8.5, 0, 1, 1e6):
        assert not answers.judged(answers.wrong(question, {"number": number}), {"number": number})[
            0
        ]


def test_a_sheet_asks_every_question_and_is_read_back(folder: Path, tmp_path: Path) -> None:
    found = exercise.load(folder, Variant("anna"))
    file = tmp_path / answers.NAME
    file.write_text(answers.sheet(found))
    assert answers.read(file) == {}
    assert "\n#     the gateway\n#     h2\n#     nobody\n" in file.read_text()
    for said in ("it's: #1 'of' \"them\"", "the gateway", "- x", "{a: b}", "yes"):
        file.write_text(answers.sheet(found, {"next-hop": said}))
        assert answers.read(file) == {"next-hop": said}
    for number in (38, 1.5):
        file.write_text(answers.sheet(found, {"next-hop": number}))
        assert answers.read(file) == {"next-hop": number}


def test_an_answer_is_no_longer_than_somebody_writes(folder: Path) -> None:
    """The pattern of the question may take the time of its square, and no limit ends it."""
    found = exercise.load(folder, Variant("anna"))
    (question,) = found.questions
    assert answers.amiss(question, "h2") == ""
    assert answers.amiss(question, "h2" * 501) == "an answer has at most 1000 characters"


def test_no_file_is_no_answer_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / answers.NAME
    assert answers.read(file) == {}
    file.write_text("a: 1\nb: [1, 2]\n")
    with pytest.raises(UsageError, match=r"answers\.yaml:2: b: one answer is wanted"):
        answers.read(file)
    file.write_text("- a\n")
    with pytest.raises(UsageError, match=r"answers\.yaml:1: ID: ANSWER"):
        answers.read(file)
