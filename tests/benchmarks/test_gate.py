"""The benchmark of the regression gate: runs drawn from rounds, and a loss that is planted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate as benchmark
from tests.support.comparisons import DATA
from xlab.errors import XlabError
from xlab.experiments import gate
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, ComparisonPlan

PLAIN = ("bridge", "ovs-gre", "weave")


def stored(folder: Path) -> Path:
    """The sample comparison, of plain scenarios alone."""
    folder.mkdir()
    comparisons.save(told(PLAIN), folder)
    return folder


def told(methods: Sequence[str]) -> Comparison:
    """The sample comparison, of these methods; of a path, as that scenario would have made it."""
    names = {"baseline": "baseline"} | {_plain(method): method for method in methods}
    sample = comparisons.load(DATA / "comparison")

    def renamed(facts: Sequence[Any], field: str) -> Any:
        return tuple(
            dataclasses.replace(each, **{field: names[getattr(each, field)]})
            for each in facts
            if getattr(each, field) in names
        )

    slower = {name: benchmark.PLANTED for name, method in names.items() if method != name}
    points = [
        dataclasses.replace(point, median=slower.get(point.method, 1.0) * point.median)
        if point.metric == benchmark.METRIC and point.median
        else point
        for point in sample.points
    ]
    return dataclasses.replace(
        sample,
        methods=renamed(sample.methods, "name"),
        points=renamed(points, "method"),
        figures=renamed(sample.figures, "method"),
    )


def _plain(method: str) -> str:
    return Path(method).stem.replace("_", "-") if method.endswith(".py") else method


class Runs:
    """Stands in for `xlab compare`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.scenarios: list[str] = []
        self.breaks = False
        monkeypatch.setattr(benchmark, "_compare", self)

    def __call__(self, methods: Sequence[str], plan: ComparisonPlan, results: Path) -> Path:
        self.asked.append(list(methods))
        assert plan.quick == comparisons.load(DATA / "comparison").plan.quick
        self.scenarios += [Path(name).read_text() for name in methods if name.endswith(".py")]
        if self.breaks:
            raise XlabError("a comparison ended with status 1 and without an outcome")
        made = results / f"{len(self.asked)}-compare"
        made.mkdir()
        comparisons.save(told(methods), made)
        return made


def test_a_loss_that_is_planted_is_caught_and_nothing_else_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored(tmp_path / "stored")
    runs = Runs(monkeypatch)
    found = list(benchmark.live(comparisons.load(folder), gate.summarise(folder), 3, tmp_path))
    benchmark.print_live(found)
    assert len(runs.asked) == 6
    assert [each["failed"] for each in found if each["planted"] is None] == [[]] * 3
    caught = {each["planted"]: each["caught"] for each in found if each["planted"]}
    assert caught == dict.fromkeys(PLAIN, True)
    assert "3 with a loss planted: 3 caught" in capsys.readouterr().out
    for text in runs.scenarios:
        compile(text, "scenario", "exec")
    # From its JSON the same is found once more.
    told = json.loads(json.dumps(found))
    assert list(benchmark.again(told, gate.summarise(folder), tmp_path)) == found


def test_runs_drawn_from_steady_rounds_raise_no_alarm_and_a_loss_is_caught(tmp_path: Path) -> None:
    folder = stored(tmp_path / "stored")
    rates = benchmark.resampled(gate.summarise(folder), 3, builds=2)
    assert rates.runs == 3
    assert rates.any_alarm == 0
    assert set(rates.caught) == set(PLAIN)
    assert all(share == 1 for share in rates.caught.values())


def test_a_comparison_that_breaks_is_told_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored(tmp_path / "stored")
    runs = Runs(monkeypatch)
    runs.breaks = True
    found = list(benchmark.live(comparisons.load(folder), gate.summarise(folder), 2, tmp_path))
    benchmark.print_live(found)
    assert len(found) == 4
    assert all("without an outcome" in each["error"] for each in found)
    assert "4 were not measured" in capsys.readouterr().out
