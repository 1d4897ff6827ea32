"""Reports on whatever records may say: each is written, in time, and nothing in it acts.

Records come from other machines, and quote what tools print.  Here any few of their values are
replaced by others of the same kind, and every form of a report is made of what can be read.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.counting import Counted
from tests.support.fuzzing import Refusal, attempt, one_in
from tests.support.records import RECORDS
from tests.support.reports import HOSTILE, Page
from xlab.cli.screens.compare import CompareScreen
from xlab.cli.screens.run import RunScreen
from xlab.cli.screens.screen import Screen
from xlab.errors import RecordError
from xlab.experiments import gate
from xlab.record import comparisons, record
from xlab.record.figures import figures
from xlab.record.record import ROUTES, RunRecord
from xlab.report import charts, content, links, machine
from xlab.report.forms import csv, flent, html, junit, markdown
from xlab.report.forms import json as json_data

pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

Path_ = tuple[str | int, ...]
FILES = sorted(RECORDS.glob("*/run.json"))
TOLD = {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in FILES}


def leaves(data: Any) -> Iterator[tuple[Path_, Any]]:
    """Every value that holds no other, and the way to it."""
    if isinstance(data, dict | list):
        steps = data.items() if isinstance(data, dict) else enumerate(data)
        for step, inner in steps:
            yield from (((step, *path), value) for path, value in leaves(inner))
    else:
        yield (), data


TEXTS = st.text(max_size=30) | st.sampled_from(
    [HOSTILE, "", "\ud800", "\r\n# x", "- x", "1. x", "<b>", "https://x.y/", "---", "无" * 300]
)
NUMBERS = st.floats(-1e100, 1e100) | st.sampled_from([1.1e-200, 9e99, -9e99])
WHOLE = st.sampled_from([0, 1, -1, 2, 10**6, 2**64 - 1, -(2**64) + 1]) | st.integers(-9, 9)
BY_KIND: dict[type, st.SearchStrategy[Any]] = {
    str: TEXTS, float: NUMBERS | WHOLE, int: WHOLE, bool: st.booleans()
}  # fmt: skip
Change = tuple[Path_, Any]


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[Change]]:
    """The name of a sample, and some of its values with others in their place."""
    name = draw(st.sampled_from(sorted(TOLD)))
    places = draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=8))
    return name, [(path, draw(BY_KIND.get(kind, st.none()))) for path, kind in places]


PLACES = {name: [(path, type(value)) for path, value in leaves(TOLD[name])] for name in TOLD}


def made(name: str, changed: list[Change]) -> RunRecord:
    """The sample so changed, if it can still be read; otherwise as it is."""
    data = copy.deepcopy(TOLD[name])
    for path, value in changed:
        place = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    read = attempt(lambda: record.from_dict(data), RecordError)
    return record.from_dict(TOLD[name]) if isinstance(read, Refusal) else read


(BRIDGE,) = (name for name in TOLD if name.endswith("Z-bridge"))
FAILED = [(("status",), "failed"), (("reason",), HOSTILE), (("scenario",), HOSTILE)]


def acts(content: str) -> set[str]:
    """Characters that a terminal obeys, or that cannot be written at all."""
    return {c for c in set(content) if unicodedata.category(c).startswith("C") and c not in "\n\t"}


def inline(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from inline(token.children or [])


@given(changes())
@example((BRIDGE, [(("parameters",), {"hosts": -1, "containers": 2**64 - 1, "mtu": 1e308})]))
@example((BRIDGE, [(("scenario",), "\ud800"), (("started_at",), "9" * 5000)]))
@example((BRIDGE, [(("timings_s",), {"total": 1e99, "build": -1e99})]))
@example((BRIDGE, [(("measurements", 28, "median"), 2.225073858507203e-309)]))
@example((BRIDGE, [(("measurements", 28, "median"), 1.1e-200)]))
def test_tables_and_data_of_any_record(changed: tuple[str, list[Change]]) -> None:
    told = made(*changed)
    screen = io.StringIO()
    RunScreen(Screen(screen)).report([told, told])
    assert acts(screen.getvalue()) == set()
    data = json_data.to_data(Path("x/run.json"), told)
    json.loads(json.dumps(data, allow_nan=False))


@given(changes())
@example((BRIDGE, FAILED))
@example((BRIDGE, [*FAILED, (("reason",), "# x\n- y")]))
def test_markdown_of_any_record_holds_no_markup_of_its_own(
    changed: tuple[str, list[Change]],
) -> None:
    """As a reader of GitHub's dialect takes it: links lead to files, and nothing is HTML."""
    told = made(*changed)
    written = markdown.of_results(content.of_records({Path("x/run.json"): told}), Path())
    assert acts(written) == set()
    tokens = list(inline(MarkdownIt("commonmark").enable("table").parse(written)))
    assert {token.type for token in tokens} & {"html_inline", "html_block", "image"} == set()
    for token in tokens:
        if token.type == "link_open":
            assert str(token.attrs["href"]).startswith(("x/", links.GUIDE))
    # The report's own headings, and no other.
    titles = [token.content for token in tokens if token.type == "inline" and token.level == 1]
    assert titles
    assert not [line for line in written.splitlines() if line.strip() == "# x"]


@given(st.lists(changes(), min_size=1, max_size=2))
@example([(BRIDGE, FAILED)])
@example([(BRIDGE, [(("path", "effective_mtu"), 0)])])
@one_in(4)
def test_a_page_of_any_records_holds_no_markup_of_theirs(
    changed: list[tuple[str, list[Change]]],
) -> None:
    named = {Path(f"{number}/run.json"): made(*each) for number, each in enumerate(changed)}
    found = Page(html.of_results(content.of_records(named), Path()))
    assert acts(found.source) == set()
    assert {element.name for element in found.elements} & {"script", "img", "x"} == set()
    assert not [name for e in found.elements for name in e.attributes if name.startswith("on")]
    for target in found.attributes("href"):
        assert target == "data:," or target.startswith(("#", "0/", "1/", links.GUIDE))


def _compared() -> dict[str, Any]:
    """The sample comparison with two of its methods, to be quick."""
    file = RECORDS.parent / "comparison" / "compare.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    kept = ("baseline", "bridge")
    for name in ("methods", "points", "figures", "pairs", "places"):
        key = "name" if name == "methods" else "method"
        data[name] = [each for each in data[name] if each[key] in kept]
    return data


COMPARED = _compared()
COMPARED_PLACES = [(path, type(value)) for path, value in leaves(COMPARED)]


@st.composite
def changes_of_comparison(draw: st.DrawFn) -> list[Change]:
    places = draw(st.lists(st.sampled_from(COMPARED_PLACES), min_size=1, max_size=8))
    return [(path, draw(BY_KIND.get(kind, st.none()))) for path, kind in places]


@given(changes_of_comparison())
@example([(("methods", 1, "builds", 0, "folder"), "../../.."), (("started_at",), "9999-12-31")])
@example([(("methods", 1, "builds", 0, "folder"), "\0" + "x" * 5000)])
@example([(("methods", 1, "name"), HOSTILE), (("notes", 0), HOSTILE), (("reason",), HOSTILE)])
@one_in(5)
def test_reports_on_any_comparison_are_written_and_nothing_in_them_acts(
    changed: list[Change],
) -> None:
    data = copy.deepcopy(COMPARED)
    for path, value in changed:
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    read = attempt(lambda: comparisons.from_dict(data), RecordError)
    if isinstance(read, Refusal):
        return
    told, _ = content.of_comparison(read, Path("nowhere"))
    found = Page(html.of_results(told, Path("nowhere")))
    assert {element.name for element in found.elements} & {"script", "img", "x"} == set()
    assert all(
        t.startswith("#") or t in ("data:,", "compare.json", f"../{links.GUIDE}")
        for t in found.attributes("href")
    )
    screen = io.StringIO()
    CompareScreen(Screen(screen)).outcome(read)
    for written in (
        found.source, screen.getvalue(),
        *(form.of_results(told, Path()) for form in (csv, junit, markdown)),
    ):  # fmt: skip
        assert acts(written) == set()
    attempt(lambda: flent.of_results(told, Path()), RecordError)


@pytest.mark.parametrize("length", [1 << 18])
def test_long_texts_take_no_longer_than_they_are_long(length: int) -> None:
    """A tool that printed a lot must not hold up its report."""
    told = TOLD[next(folder for folder in TOLD if folder.endswith("Z-bridge-failed"))]
    data = copy.deepcopy(told)
    for claim in data["claims"]:
        claim["observed"] = claim["evidence"] = "x y" * (length // 3)
    data["reason"] = "z" * length
    read = record.from_dict(data)
    begun = time.process_time()
    RunScreen(Screen(io.StringIO())).report([read])
    markdown.of_results(content.of_records({Path("x/run.json"): read}), Path())
    html.of_results(content.of_records({Path("x/run.json"): read}), Path())
    assert time.process_time() - begun < 20


def of_recovery(told: RunRecord) -> object:
    return charts.recovery([("bridge", told)])


def of_the_gate(told: RunRecord) -> object:
    return list(gate._ratios_of("bridge", [told]))


@pytest.mark.parametrize("work_out", [figures, machine.judged, of_recovery, of_the_gate])
def test_work_does_not_grow_by_the_square_of_the_metrics(
    work_out: Callable[[RunRecord], object],
) -> None:
    """A record may name as many as it has measurements: here 1,000, with a million pairs."""
    told = record.from_dict(TOLD[BRIDGE])
    one = told.measurements[0]
    measured = tuple(
        dataclasses.replace(one, metric=Counted(f"{number}_recovery_s"), route=route)
        for number in range(1000)
        for route in ROUTES
    )
    Counted.compared = 0
    assert work_out(dataclasses.replace(told, measurements=measured)) is not None
    assert Counted.compared < 100_000
