"""The teacher's page: who has how many points, and what most people could not do.

One file, as every page of ours: no script, nothing fetched; what students wrote is text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from xlab.record.grade import Grade, GradedCheck
from xlab.report import parts
from xlab.report.markup import Child, Html, join, tag
from xlab.report.tables import Column, Table

_MARKS = {"passed": "✓", "failed": "✗", "skipped": "·", "unjudged": "?", "broken": "!"}


def of_grades(grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> str:
    """The page; `remarks` are what a teacher may want to look at, by student and exercise."""
    by_exercise = [
        (name, list(found))
        for name, found in groupby(sorted(grades, key=lambda g: (g.exercise, g.student.casefold())),
                                   key=lambda g: g.exercise)
    ]  # fmt: skip
    return parts.document(
        f"{len(grades)} grades · xlab",
        _header(grades, remarks),
        [_exercise(name, found, remarks) for name, found in by_exercise],
        _how(grades),
    )


def _header(grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> Html:
    counts = Counter(grade.status for grade in grades)
    bad = counts["error"]
    said = [f"{counts['graded']} graded"]
    said += [f"{counts[each]} {each}" for each in ("stopped", "refused", "error") if counts[each]]
    looked = sum(map(bool, remarks.values()))
    findings: list[Child] = [f"To look at: {looked}."] if looked else []
    return tag(
        "header",
        tag("p", "Exercises, graded", class_="kicker"),
        tag(
            "div",
            tag("span", "✗" if bad else "✓", class_="mark", aria_hidden="true"),
            tag("h1", tag("span", f"{', '.join(said)}.")),
            class_=f"verdict {'failed' if bad else 'passed'}",
        ),
        parts.listed(findings, "findings") if findings else None,
    )


def _exercise(name: str, grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> Html:
    counted = [grade for grade in grades if grade.status != "error"]
    points = sorted(grade.points for grade in counted)
    middle = f"; the median is {points[len(points) // 2]}" if points else ""
    of = f"{len(grades)} submissions, {grades[0].of} points{middle}."
    return parts.section(
        f"{name[:2]} {grades[0].title}",
        name,
        tag("p", of),
        tag("h3", "Who"),
        _people(grades, remarks),
        tag("h3", "What fails most"),
        parts.table(_failing(counted)),
        parts.details("Each submission in full", [_one(grade, remarks) for grade in grades]),
    )


def _people(grades: Sequence[Grade], remarks: Mapping[str, Sequence[str]]) -> Html:
    checks = [check.id for check in grades[0].checks]
    columns = [Column("who"), Column("points", right=True), Column("checks"), Column("remarks")]
    rows = []
    for grade in sorted(grades, key=lambda each: (-each.points, each.student.casefold())):
        passed = sum(check.outcome == "passed" for check in grade.checks)
        marks = " ".join([f"{passed}", *(_MARKS.get(c.outcome, "?") for c in grade.checks)])
        said = [f"{grade.status}: {grade.cause}"] if grade.cause else []
        said += [*grade.notes, *remarks.get(grade.place, ())]
        said += [f"{part.host}, part {part.number}: {part.stopped}" for part in grade.parts
                 if part.stopped]  # fmt: skip
        number = "none" if grade.status == "error" else f"{grade.points}"
        rows.append((grade.student, number, marks, "; ".join(said)))
    legend = "How many checks passed; and each, in their order: " + ", ".join(checks) + (
        ". ✓ passed, ✗ failed, · not asked, since another that it needs did not pass, "
        "? for you to judge."
    )  # fmt: skip
    return join(parts.table(Table(tuple(columns), tuple(rows))), parts.small(legend))


def _failing(grades: Sequence[Grade]) -> Table:
    """Checks by how often they fail, with the sentence that most of them met."""
    columns = (
        Column("check"), Column("fails", right=True), Column("not asked", right=True),
        Column("the sentence"), Column("seen most often"),
    )  # fmt: skip
    rows = []
    for index, check in enumerate(grades[0].checks if grades else ()):
        found = [grade.checks[index] for grade in grades if index < len(grade.checks)]
        failed = [each for each in found if each.outcome == "failed"]
        if failed:
            skipped = sum(each.outcome == "skipped" for each in found)
            rows.append((len(failed), check.id, skipped, *_most(failed)))
    rows.sort(key=lambda row: -row[0])
    return Table(
        columns,
        tuple((name, f"{count} of {len(grades)}", str(skipped), text, seen)
              for count, name, skipped, text, seen in rows),
    )  # fmt: skip


def _most(failed: Sequence[GradedCheck]) -> tuple[str, str]:
    (text, _), *_ = Counter(check.text for check in failed).most_common(1)
    (seen, _), *_ = Counter(check.seen for check in failed).most_common(1)
    return text, seen


def _one(grade: Grade, remarks: Mapping[str, Sequence[str]]) -> Html:
    columns = (Column("check"), Column("points", right=True), Column("what was seen"))
    rows = tuple(
        (f"{_MARKS.get(c.outcome, '?')} {c.id}{'' if c.shown else ' (hidden)'}",
         f"{c.points} of {c.of}", f"{c.text} {c.seen}".strip())
        for c in grade.checks
    )  # fmt: skip
    said = [*([f"{grade.status}: {grade.cause}"] if grade.cause else []), *grade.notes,
            *remarks.get(grade.place, ())]  # fmt: skip
    values = ", ".join(f"{key} {value}" for key, value in grade.values.items())
    scripts = "\n".join(
        f"{part.host}, part {part.number}: {part.stopped} {part.said}".strip()
        for part in grade.parts if part.stopped or part.said.strip()
    )  # fmt: skip
    return tag(
        "div",
        tag("h4", f"{grade.student}: {grade.points} of {grade.of}"),
        parts.listed(said) if said else None,
        parts.table(Table(columns, rows)),
        parts.small(f"Values: {values}") if values else None,
        tag("pre", scripts) if scripts else None,
        parts.small(f"{grade.submission.get('file', '')}, {grade.took_s:.0f} s, graded at "
                    f"{grade.graded_at}"),
    )  # fmt: skip


def _how(grades: Sequence[Grade]) -> Html:
    versions = grades[0].versions if grades else {}
    return parts.section(
        "How this came about",
        "how",
        tag("p", "Each submission was carried out in a lab of its own, of the student's values, "
                 "and judged from outside of it: by packets that the lab's first process sends and "
                 "looks for, and by what the kernel says. No program in it was asked."),
        parts.small(", ".join(f"{name} {found}" for name, found in versions.items())),
    )  # fmt: skip
