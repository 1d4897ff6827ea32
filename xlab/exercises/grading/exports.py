"""Grades in others' forms.

    GRADES/grades.csv  checks.csv  junit.xml                of all
    GRADES/ANNA/05-…/gradescope.json  classroom50.json      of one

Gradescope: the autograder's results.json (its specifications, "Output format"): points as numbers,
`visibility` hidden for what students don't see.  Classroom 50: `classroom50/result/v1`, points as
integers; further fields are kept by it.  It hides nothing from students, so that hidden checks are
one test of it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from xlab.record import record, spreadsheet
from xlab.record.grade import Grade, GradedCheck

#: All but XML 1.0's Char.
_UNSAYABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def beside(made: Grade) -> dict[str, bytes]:
    """What lies beside a grade, by the file's name."""
    return {
        "gradescope.json": record.as_bytes(_gradescope(made)),
        "classroom50.json": record.as_bytes(_classroom50(made)),
    }


def of_all(grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """The same of all of them; `remarks` are for the teacher, by student and exercise."""
    return {
        "grades.csv": _grades(grades, remarks),
        "checks.csv": _checks(grades),
        "junit.xml": _junit(grades).encode(),
    }


def _gradescope(made: Grade) -> dict[str, object]:
    return {
        "score": made.points,
        "execution_time": round(made.took_s),
        "output": "\n".join([_said(made), *made.notes]),
        "tests": [
            {
                "name": check.id,
                "number": str(check.task),
                "score": check.points,
                "max_score": check.of,
                "status": "passed" if check.outcome == "passed" else "failed",
                "output": f"{check.text}\n{check.seen}".strip(),
                "visibility": "visible" if check.shown else "hidden",
            }
            for check in made.checks
        ],
    }


def _classroom50(made: Grade) -> dict[str, object]:
    shown = [check for check in made.checks if check.shown]
    hidden = [check for check in made.checks if not check.shown]
    return {
        "schema": "classroom50/result/v1",
        "assignment": made.exercise,
        "owner": made.student,
        "datetime": made.graded_at,
        "score": made.points,
        "max-score": made.of,
        "tests": [
            *(_classroom50_test(check.id, [check], said=check.seen) for check in shown),
            *([_classroom50_test("hidden checks", hidden, said="")] if hidden else []),
        ],
        "status": made.status,
        "cause": _cause(made),
    }


def _classroom50_test(name: str, checks: Sequence[GradedCheck], *, said: str) -> dict[str, object]:
    return {
        "test-name": name,
        "passed": all(check.outcome == "passed" for check in checks),
        "score": sum(check.points for check in checks),
        "max-score": sum(check.of for check in checks),
        "said": said,
    }


def _grades(grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> bytes:
    return _csv(
        ["student", "exercise", "points", "of", "status", "cause", "remarks"],
        [
            [g.student, g.exercise, "" if g.status == "error" else g.points, g.of, g.status,
             g.cause, "; ".join([*g.notes, *remarks.get(g.place, ())])]
            for g in grades
        ],
    )  # fmt: skip


def _checks(grades: Sequence[Grade]) -> bytes:
    return _csv(
        ["student", "exercise", "check", "task", "points", "of", "outcome", "seen"],
        [
            [g.student, g.exercise, c.id, c.task, c.points, c.of, c.outcome, c.seen]
            for g in grades
            for c in g.checks
        ],
    )


def _csv(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(heading)
    for row in rows:
        writer.writerow([spreadsheet.harmless(cell) for cell in row])
    return written.getvalue().encode(errors="backslashreplace")


def _junit(grades: Sequence[Grade]) -> str:
    suites = JUnitXml()
    for made in grades:
        suite = TestSuite(_plain(made.place))
        suite.timestamp = made.graded_at
        suite.add_testcases([_case(made, check) for check in made.checks])
        suites.add_testsuite(suite)
    written: bytes = suites.tostring()  # type: ignore[no-untyped-call]
    return written.decode()


def _case(made: Grade, check: GradedCheck) -> TestCase:
    case = TestCase(check.id, made.exercise, check.took_s)
    said = _plain(f"{check.text} {check.seen}")
    if made.status == "error" or check.outcome == "broken":
        case.result = [Error(said)]
    elif check.outcome == "failed":
        case.result = [Failure(said)]
    elif check.outcome in ("skipped", "unjudged"):
        case.result = [Skipped(said)]
    return case


def _plain(text: str) -> str:
    """Without what XML 1.0 has no way to say."""
    return _UNSAYABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _said(made: Grade) -> str:
    cause = _cause(made)
    return f"{made.status}: {cause}" if cause else made.status


def _cause(made: Grade) -> str:
    """As students may read it: an error's has the names of checks."""
    hidden = any(check.outcome == "broken" and not check.shown for check in made.checks)
    return "a check can't be carried out" if made.status == "error" and hidden else made.cause
