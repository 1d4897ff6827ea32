"""An exercise's checks, carried out in a lab, and what each came to.

A check that needs another which did not pass is skipped; one that can't be carried out is the
grader's error and earns nothing; and so is an answer that only the teacher can judge, which is
enough for those that need it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from xlab.errors import LimitError, NoAnswerError, XlabError
from xlab.exercises import answers
from xlab.exercises.model import Check, Exercise


class Lab(Protocol):
    """One that stands: `RunningLab`, or the API's `LabHandle`."""

    def call(self, verb: str, arguments: Mapping[str, Any], /) -> Any: ...


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    #: What it needs did not pass.
    SKIPPED = "skipped"
    #: It is given, and what is right is not known here.
    UNJUDGED = "unjudged"
    #: It could not be carried out.
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    outcome: Outcome
    #: What there was.
    seen: str
    took_s: float = 0.0

    @property
    def points(self) -> int:
        return self.check.points if self.outcome is Outcome.PASSED else 0

    @property
    def text(self) -> str:
        """The sentence for a student."""
        asked = self.check.arguments
        if self.check.word == "answer":
            return str(asked["question"])
        if self.outcome is Outcome.SKIPPED:
            return f"{self.check.id} was not asked."
        return self.check.passed if self.outcome is Outcome.PASSED else self.check.failed

    def facts(self) -> dict[str, Any]:
        """As `--json` has them."""
        return {
            "id": self.check.id,
            "task": self.check.task,
            "outcome": self.outcome.value,
            "points": self.points,
            "of": self.check.points,
            "text": self.text,
            "seen": self.seen,
            "look": self.check.look if self.outcome is Outcome.FAILED else "",
            "shown": self.check.shown,
            "took_s": round(self.took_s, 3),
        }


def judge(
    exercise: Exercise,
    lab: Lab,
    given: Mapping[str, Any],
    *,
    checks: Sequence[Check] | None = None,
    tell: Callable[[Result], object] = lambda _: None,
    looks: int = 1,
    strict: bool = False,
) -> list[Result]:
    """Carry out `checks`, or all, in their order; `given` are the answers.

    `tell` hears of each as it is known.  What does not hold is asked again until there were so many
    `looks`; `strict` is as in `checks.kinds.examine`.  NoAnswerError if the lab does not answer.
    """
    results: dict[str, Result] = {}
    for check in exercise.checks if checks is None else checks:
        for _ in range(looks):
            result = _judged(exercise, check, lab, given, results, strict=strict)
            if result.outcome is not Outcome.FAILED or check.word == "answer":
                break
        results[check.id] = result
        tell(result)
    return list(results.values())


def points(results: Sequence[Result]) -> int:
    return sum(result.points for result in results)


def _judged(
    exercise: Exercise,
    check: Check,
    lab: Lab,
    given: Mapping[str, Any],
    before: Mapping[str, Result],
    *,
    strict: bool = False,
) -> Result:
    lacking = [
        name for name in check.needs
        if name in before and before[name].outcome not in (Outcome.PASSED, Outcome.UNJUDGED)
    ]  # fmt: skip
    if lacking:
        return Result(check, Outcome.SKIPPED, f"it needs {' and '.join(lacking)}")
    if check.word == "answer":
        return _answered(exercise, check, given)
    begun = time.monotonic()
    try:
        asked = {"word": check.word, "arguments": check.arguments, "wait_s": check.wait_s,
                 "strict": strict}  # fmt: skip
        found = lab.call("check", asked)
    except NoAnswerError:
        raise
    except LimitError as error:
        return Result(check, Outcome.FAILED, str(error), time.monotonic() - begun)
    except XlabError as error:
        return Result(check, Outcome.BROKEN, str(error), time.monotonic() - begun)
    outcome = Outcome.PASSED if found["holds"] else Outcome.FAILED
    return Result(check, outcome, str(found["seen"]), time.monotonic() - begun)


def _answered(exercise: Exercise, check: Check, given: Mapping[str, Any]) -> Result:
    if check.id not in given:
        return Result(check, Outcome.FAILED, f"no answer yet in {answers.NAME}")
    if amiss := answers.amiss(check, given[check.id]):
        return Result(check, Outcome.FAILED, amiss)
    if exercise.solution is None or check.id not in exercise.solution.answers:
        return Result(check, Outcome.UNJUDGED, f"{given[check.id]!r}: your teacher judges it")
    holds, taken = answers.judged(given[check.id], exercise.solution.answers[check.id])
    return Result(check, Outcome.PASSED if holds else Outcome.FAILED, taken)
