"""FILE.xml: JUnit's claims.

The format in which test results are handed on: claims of records, lines of the gate.

Written with junitparser, in the form that CI servers read: a suite a scenario, a case a claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from xlab.experiments.gate import Change
from xlab.record.record import Claim, PathProof, RunRecord
from xlab.report.content import Content
from xlab.report.text import label, plain


def of_results(told: Content, _base: Path) -> str:
    """A suite a record; in a comparison that is one a method and build."""
    return _text(
        _suite(f"{part.name} b{number}" if part.builds else record.scenario, record)
        for part in told.parts
        # Of a method whose records are not there, what compare.json says.
        for number, record in enumerate(part.files.values() or [part.record], 1)
    )


def _suite(name: str, record: RunRecord) -> TestSuite:
    """A case for each claim and two for the proof of the path."""
    suite = TestSuite(plain(name))
    suite.timestamp = plain(record.started_at)
    cases = [_of_claim(record, claim) for claim in record.claims]
    if record.path:
        cases += _of_path(record, record.path)
    if record.status == "skipped":
        cases.append(_case(record.scenario, "run", Skipped(plain(record.reason))))
    elif record.status == "failed" and all(case.is_passed for case in cases):
        # It broke before anything could fail.
        cases.append(_case(record.scenario, "run", Error(plain(record.reason))))
    suite.add_testcases(cases)
    return suite


def of_lines(lines: Iterable[Change], name: str, *, strict: bool = False) -> str:
    """One suite, with a case for each line of the gate; of a `strict` one unclear is a failure."""
    suite = TestSuite(plain(name))
    for line in lines:
        outcome: Failure | Skipped | None = None
        if line.fails(strict=strict):
            outcome = Failure(plain(_told(line)), type_=line.verdict)
        elif line.verdict == "unclear":
            outcome = Skipped(plain(_told(line)))
        suite.add_testcase(_case(line.method, label(line.subject, line.streams), outcome))
    return _text([suite])


def _of_claim(record: RunRecord, claim: Claim) -> TestCase:
    case = _case(f"{record.scenario}.{claim.stage}", claim.text, None)
    if not claim.holds:
        failure = Failure(plain(f"expected {claim.expected}, observed {claim.observed}"), claim.id)
        failure.text = plain(claim.evidence)
        case.result = [failure]
    return case


def _of_path(record: RunRecord, path: PathProof) -> list[TestCase]:
    took = f"every packet of the flow took {path.encapsulation}"
    proved = None if path.proved else Failure(plain(path.evidence), "path")
    control = None if path.negative_control else Failure(plain(path.control_detail), "control")
    return [
        _case(f"{record.scenario}.path", took, proved),
        _case(f"{record.scenario}.path", "the negative control", control),
    ]


def _case(where: str, name: str, outcome: Failure | Error | Skipped | None) -> TestCase:
    case = TestCase(plain(name), plain(where))
    if outcome is not None:
        case.result = [outcome]
    return case


def _told(line: Change) -> str:
    change = "" if line.change is None else f" ({line.change:+.1%})"
    remark = f": {line.remark}" if line.remark else ""
    return f"{line.verdict}: {line.before} before, {line.now} now{change}{remark}"


def _text(suites: Iterable[TestSuite]) -> str:
    document = JUnitXml()
    for suite in suites:
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    written: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return written.decode()
