"""Whether an exercise's files agree with each other: what each says of the others is there."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xlab.errors import UsageError
from xlab.exercises import own_files, variants
from xlab.exercises.document import Document, Problem
from xlab.exercises.model import PART, TASK, Check, Exercise
from xlab.lab import machine_root
from xlab.scenario import catalog

_TITLE = re.compile(r"^# ([0-9]{2}) (.+)$", re.MULTILINE)
_EXTENT = re.compile(
    r"^([0-9]{1,4}) minutes\. ([0-9]{1,4}) points, of which ([0-9]{1,4}) stands? at the start\.$",
    re.MULTILINE,
)
#: Under which keys of a check nodes are named; and what is no name of one.
_NODES = ("from", "to", "of", "at", "all")
_ADDRESS = re.compile(r"[0-9.]+")

#: By name; those with which nothing is wrong by themselves.
Documents = Mapping[str, Document]
#: A file as it is, before values are filled in.
TextOf = Callable[[str], str]


def agreeing(
    found: Exercise, documents: Documents, text_of: TextOf
) -> tuple[Exercise, list[Problem]]:
    """The exercise with what README.md says of it, and all that does not agree."""
    title, extent = _TITLE.search(found.readme), _EXTENT.search(found.readme)
    tasks = {int(each[1]): each[2] for each in TASK.finditer(found.readme)}
    start_points = int(extent[3]) if extent else 0
    found = dataclasses.replace(found, tasks=tasks, start_points=start_points)
    wrong = [
        *_readme_disagrees(found, title, extent),
        *_names_in_texts(found, text_of),
        *_checks_disagree(found, documents),
        *_answers_disagree(found, documents),
        *_hosts_disagree(found, documents),
    ]
    return found, wrong


def _readme_disagrees(
    found: Exercise, title: re.Match[str] | None, extent: re.Match[str] | None
) -> Iterator[Problem]:
    file = found.folder / "README.md"

    def line(at: re.Match[str] | None) -> int:
        return found.readme.count("\n", 0, at.start()) + 1 if at else 1

    if not title or title.groups() != (found.number, found.title):
        text = f"its first heading is to be: # {found.number} {found.title}"
        yield Problem(file, line(title), text)
    if not extent:
        text = "it is to say: N minutes. P points, of which S stand at the start."
        yield Problem(file, 1, text)
    elif (int(extent[1]), int(extent[2])) != (found.minutes, found.points):
        text = f"lab.yaml and checks.yaml make it {found.minutes} minutes, {found.points} points"
        yield Problem(file, line(extent), text)
    if list(found.tasks) != list(range(1, len(found.tasks) + 1)):
        yield Problem(file, 1, "its tasks are to be numbered from 1 on: ## Task 1: …")


def _names_in_texts(found: Exercise, text_of: TextOf) -> Iterator[Problem]:
    """Values that there are not, in README.md and in scripts; parts of tasks there are not."""
    scripts = sorted((found.folder / "solution").rglob("*.sh"))
    for file in (found.folder / "README.md", *scripts):
        lines = text_of(str(file.relative_to(found.folder))).split("\n")
        for number, line in enumerate(lines, 1):
            for name in variants.unknown_in(line, found.values):
                yield Problem(file, number, f"{{{name}}} is no value of lab.yaml")
            part = PART.match(line) if file in scripts else None
            if part and int(part[1]) not in found.tasks:
                yield Problem(file, number, f"README.md has no task {part[1]}")
    if found.solution and not (found.folder / "solution/teacher.md").is_file():
        yield Problem(found.folder / "solution/teacher.md", 1, "is missing")


def _checks_disagree(found: Exercise, documents: Documents) -> Iterator[Problem]:
    before: set[str] = set()
    ids = {check.id for check in found.checks}
    counted = {True: 0, False: 0}
    for check in found.checks:
        source = documents["checks.yaml" if check.shown else "solution/checks.yaml"]
        number = counted[check.shown]
        counted[check.shown] += 1
        if check.id in before:
            yield source.problem((number, "id"), f"{check.id} stands here twice")
        if check.task not in found.tasks:
            yield source.problem(
                (number, "task"), f"{check.id}: README.md has no task {check.task}"
            )
        for name in check.needs:
            if name not in before:
                text = f"{check.id}: needs: {name} is no check before this one"
                yield source.problem((number, "needs"), text)
        hinted = "hints.yaml" not in documents or check.id in found.hints
        if check.word != "answer" and check.shown and not hinted:
            yield source.problem((number,), f"hints.yaml has none for {check.id}")
        if check.word == "answer" and check.shown and f"`{check.id}`" not in found.readme:
            yield source.problem((number,), f"README.md does not ask `{check.id}`")
        before.add(check.id)
    hints, faults = (documents.get(name) for name in ("hints.yaml", "solution/faults.yaml"))
    if hints is not None:
        for name in found.hints.keys() - ids:
            yield hints.problem((name,), f"{name} is no check")
    for place, fault in enumerate(found.faults):
        assert faults is not None
        for name in (*fault.fails, *fault.answers):
            if name not in ids:
                yield faults.problem((place, "fails"), f"{fault.text}: {name} is no check")


def _answers_disagree(found: Exercise, documents: Documents) -> Iterator[Problem]:
    source = documents.get("solution/answers.yaml")
    if found.solution is None or (source is None and not found.questions):
        return
    file = found.folder / "solution/answers.yaml"
    if source is None:
        if not file.exists():
            yield Problem(file, 1, "is missing")
        return
    questions = {check.id: check for check in found.questions}
    for name, check in questions.items():
        given = found.solution.answers.get(name)
        kind = next(word for word in ("number", "choice", "text") if word in check.arguments)
        if given is None:
            yield source.problem((), f"there is none for {name}")
        elif kind not in given:
            yield source.problem((name,), f"{name}: a {kind} is wanted")
        elif kind == "choice" and str(given[kind]) not in map(str, check.arguments["choice"]):
            yield source.problem((name,), f"{name}: {given[kind]} is none of its choices")
    for name in found.solution.answers:
        if name not in questions:
            yield source.problem((name,), f"{name} is no question")


def _hosts_disagree(found: Exercise, documents: Documents) -> Iterator[Problem]:
    """Hosts that there are not; files that are not there; machines said twice."""
    lab = documents["lab.yaml"]
    hosts = [f"h{number}" for number in range(1, found.machines["hosts"] + 1)]
    listed = f"there are {', '.join(hosts)}"
    for key in ("underlay", "first", "openvswitch") if "scenario" in found.machines else ():
        if key in found.machines:
            text = f"{key} goes with machines as they come, and scenario with what it builds"
            yield lab.problem(("machines", key), text)
    scenario = found.machines.get("scenario")
    if scenario is not None and scenario not in catalog.names():
        # To load one is to run it, here and as the caller: whoever made the folder may be anybody.
        text = "machines.scenario: a name that `xlab list` shows is wanted, and no file"
        yield Problem(lab.file, lab.line(("machines", "scenario")), text)
    for host in found.typed_before:
        if host not in hosts:
            yield lab.problem(("typed_before", host), f"no host is called {host}: {listed}")
    for place, file in found.files.items():
        host, is_path, path = place.partition(":/")
        if host not in hosts or not is_path:
            yield lab.problem(("files", place), "HOST:/PATH: FILE is wanted")
        elif (top := _top_level(path)) in machine_root.PEOPLES:
            text = f"files: nothing is put below {top}: it is the machine's, and read-only there"
            yield Problem(lab.file, lab.line(("files", place)), text)
        try:
            own_files.read(found.folder, file)
        except UsageError as error:
            yield Problem(lab.file, lab.line(("files", place)), f"files: {error}")
    for file in (found.folder / "solution").rglob("*.sh"):
        if file.stem not in hosts:
            yield Problem(file, 1, f"no host is called {file.stem}: {listed}")
    faults = documents.get("solution/faults.yaml")
    for number, fault in enumerate(found.faults):
        for host in {*fault.do, *fault.undo} - {*hosts}:
            assert faults is not None
            yield faults.problem((number, "do"), f"no host is called {host}: {listed}")
    counted = {True: 0, False: 0}
    for check in found.checks:
        source = documents["checks.yaml" if check.shown else "solution/checks.yaml"]
        for host in sorted(_hosts_in(check) - {*hosts, "gw"}):
            text = f"{check.id}: no host is called {host}: {listed}"
            yield source.problem((counted[check.shown], check.word), text)
        counted[check.shown] += 1


def _top_level(path: str) -> str:
    """Of a path below "/" what it comes to first: "/home" of "root/../home/anna"."""
    return "/" + posixpath.normpath(f"/{path.lstrip('/')}").split("/")[1]


def _hosts_in(check: Check) -> set[str]:
    """Of the nodes it names: "h1" of "h1/c1" and of "h1 netns red"."""
    if check.word == "answer":
        return set()
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                if key in _NODES or isinstance(each, dict):
                    look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)
        elif isinstance(value, str) and not _ADDRESS.fullmatch(value):
            found.add(re.split("[/ ]", value)[0])

    look(check.arguments if check.arguments != "all" else [])
    return found
