"""The tutorial says what the code does: its links lead to the lines they quote, its records repeat.

The slow test makes every run that the tutorial cites, without measuring, and compares what it says
was observed with what is.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import documents
from tests.support.documents import ROOT, Link, asked, require_known
from tests.support.labs import Run, why_no_open_vswitch
from xlab.scenario import catalog, scenario

TUTORIAL = ROOT / "docs" / "tutorial.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("labs/**/*.md")])

_LINE_ANCHOR = re.compile(r"L(\d+)")


def target_of(document: Path, link: Link) -> tuple[Path, str]:
    path, _, anchor = link.target.partition("#")
    return (document.parent / path).resolve() if path else document, anchor


def what_is_wrong(document: Path, link: Link) -> str:
    """Why a relative link leads nowhere or not to what it quotes; empty if it is right."""
    target, anchor = target_of(document, link)
    if not target.is_relative_to(ROOT) or not target.exists():
        return "no such file"
    line = _LINE_ANCHOR.fullmatch(anchor)
    if not line:
        known = map(documents.anchor, documents.headings(target)) if anchor else [anchor]
        return "" if anchor in known else "no such heading"
    if not link.code:
        return "a link to a line quotes its code"
    content = target.read_text(encoding="utf-8").splitlines()
    number = int(line[1])
    if number <= len(content) and link.code in content[number - 1]:
        return ""
    found = [str(n) for n, text in enumerate(content, 1) if link.code in text]
    return f"the code is at L{' and L'.join(found)}" if found else "the code is nowhere in the file"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_what_they_name(document: Path) -> None:
    wrong = [
        f"{link.place}: {link.target}: {reason}"
        for link in documents.links(document)
        if "://" not in link.target and (reason := what_is_wrong(document, link))
    ]
    assert not wrong, "\n".join(wrong)


def test_wrong_links_would_be_found() -> None:
    def reason(text: str, target: str) -> str:
        return what_is_wrong(TUTORIAL, Link("here", text, target))

    scenarios = "../scenarios/bridge.py"
    assert reason("bridge", "../scenarios/brigde.py") == "no such file"
    assert reason("bridge", f"{scenarios}#L2") == "a link to a line quotes its code"
    assert reason("`no_such_code()`", f"{scenarios}#L2") == "the code is nowhere in the file"
    elsewhere = reason("`show_drawbacks(lab, check)`", f"{scenarios}#L1")
    assert re.fullmatch(r"the code is at L\d+", elsewhere)
    assert reason("faults", "#corrections-of-ours") == "no such heading"
    assert reason("faults", "#corrections") == ""


def test_every_step_of_the_tutorial_links_to_the_line_that_does_it() -> None:
    steps: dict[str, set[str]] = {}
    step = ""
    links = [link for link in documents.links(TUTORIAL) if "#L" in link.target]
    for line in documents.lines(TUTORIAL):
        if line.block is None and line.text.startswith("#"):
            step = line.text.lstrip("# ")
            if re.match(r"\d\.\d ", step):
                steps[step] = set()
        for link in links:
            if step in steps and link.place == f"docs/tutorial.md:{line.number}":
                steps[step].add(target_of(TUTORIAL, link)[0].stem)
    # Downloading is the one step that there is nothing to do for.
    methods = {"1": {"bridge"}, "2": {"ovs_gre"}, "3": {"weave"}}
    assert len(steps) == 14
    for name, scenarios in steps.items():
        assert scenarios == (set() if name == "3.1 Download" else methods[name[0]]), name


def test_the_minutes_of_an_afternoon_are_those_of_its_exercises() -> None:
    text = " ".join((ROOT / "docs/teaching.md").read_text(encoding="utf-8").split())
    files = sorted(ROOT.glob("labs/*/lab.yaml"))
    minutes = [int(re.findall(r"(?m)^minutes: (\d+)", file.read_text())[0]) for file in files]
    told = re.search(r"of (\d+) to (\d+) minutes: (\d+), (\d+) and (\d+) minutes in all", text)
    assert told
    sums = [sum(minutes[at : at + 5]) for at in (0, 5, 10)]
    assert list(map(int, told.groups())) == [min(minutes), max(minutes), *sums]


def test_corrections_are_numbered_and_each_reference_has_one() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"(?m)^- \*\*C(\d+)\. ", text)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    assert {int(n) for n in re.findall(r"\(C(\d+)\)", text)} <= set(numbers)


# ---------------------------------------------------------------------------- what was observed


@dataclass(frozen=True, slots=True)
class Cited:
    """One statement about a record: of a claim, or of a field of its path."""

    command: str
    #: A claim's id, or "path.effective_mtu".
    subject: str
    holds: bool | None
    text: str


_RECORD = re.compile(r"\*Record\* of `bin/(xlab run [^`]+)`")
_STATEMENT = re.compile(
    r"`([\w-]+)` (holds|does not hold), observed `([^`]*)`|`(path\.[\w.]+)` is `([^`]*)`"
)


#: A row of the table that sets the methods side by side.
_ROW = re.compile(r"\|[^|]+\| `bin/(xlab run [^`]+)` \| (\d+) (\w+) \| (\d+) \| (\d+) \|")


def citations() -> list[Cited]:
    found = []
    for line in documents.lines(TUTORIAL):
        if row := _ROW.fullmatch(line.text.strip()):
            run, packets, kind, added, largest = row.groups()
            in_row = {
                f"path.underlay_packets.{'none' if kind == 'plain' else kind}": packets,
                "path.overhead_bytes": added,
                "path.effective_mtu": largest,
            }
            found += [Cited(f"bin/{run}", field, None, value) for field, value in in_row.items()]
        _, *parts = _RECORD.split(line.text)
        for command, told in zip(parts[::2], parts[1::2], strict=True):
            statements = list(_STATEMENT.finditer(told))
            assert statements, f"docs/tutorial.md:{line.number}: says nothing of the record"
            for claim, verdict, observed, field, value in (m.groups() for m in statements):
                holds = None if field else verdict == "holds"
                found.append(Cited(f"bin/{command}", field or claim, holds, value or observed))
    return found


def commands() -> list[str]:
    return sorted({cited.command for cited in citations()})


def test_the_methods_stand_side_by_side_in_figures_of_their_records() -> None:
    sides = [cited for cited in citations() if cited.subject == "path.overhead_bytes"]
    assert [cited.command.removeprefix("bin/xlab run ") for cited in sides] == [
        "bridge",
        "ovs-gre",
        "ovs-gre --set routes=underlay",
        "weave",
        "weave --set datapath=fastdp",
    ]


def test_the_runs_that_the_tutorial_cites_exist() -> None:
    typed = [documents.Command("docs/tutorial.md", command, ()) for command in commands()]
    assert {shlex.split(c.text)[2] for c in typed} == set(catalog.names()) - {"baseline"}
    for command in typed:
        request = asked(command)
        assert request is not None
        require_known(request)


def test_where_pytest_is_typed_it_has_been_set_up() -> None:
    """bin/setup alone sets up what xlab needs, and no more."""
    users = []
    for document in DOCUMENTS:
        typed = [command.text for command in documents.commands(document)]
        for number, text in enumerate(typed):
            if "-m pytest" in text:
                users.append(document.name)
                (latest,) = [line for line in typed[:number] if "bin/setup" in line][-1:]
                assert "bin/setup --dev" in latest, document
    assert users == ["python.md"]


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.parametrize("command", commands())
def test_what_the_tutorial_says_was_observed_is_observed(command: str, tmp_path: Path) -> None:
    request = asked(documents.Command("docs/tutorial.md", command, ()))
    assert request is not None
    needs = scenario.load(catalog.find(request.scenario)).needs
    if "Open vSwitch" in needs and why_no_open_vswitch():
        pytest.skip(why_no_open_vswitch())
    with Run(request, tmp_path / "results") as run:
        folder = Path(run.finish()["folder"])
    record = json.loads((folder / "run.json").read_text())
    claims = {claim["id"]: claim for claim in record["claims"]}
    for cited in citations():
        if cited.command != command:
            continue
        if cited.holds is None:
            seen: Any = record
            for name in cited.subject.split("."):
                seen = seen[name]
        else:
            claim = claims[cited.subject]
            assert claim["holds"] is cited.holds, claim
            seen = claim["observed"]
        assert re.fullmatch(documents.pattern(cited.text), str(seen)), f"{cited.subject}: {seen}"
