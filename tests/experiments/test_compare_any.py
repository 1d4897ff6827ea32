"""Comparisons, journals and baselines out of damaged files: read, or refused with the place."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from xlab.errors import RecordError, UsageError
from xlab.experiments import gate
from xlab.experiments.compare import journal
from xlab.record import comparisons

TOLD = Path(__file__).parents[1] / "data" / "comparison"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "\ud800", "x" * 500]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def places(data: Any) -> Iterator[tuple[str | int, ...]]:
    steps: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(data, dict):
        steps = iter(data.items())
    elif isinstance(data, list):
        steps = iter(list(enumerate(data))[:3])
    for step, inner in steps:
        yield (step,)
        yield from ((step, *path) for path in places(inner))


def put(data: Any, path: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(data)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


COMPARED = json.loads((TOLD / comparisons.FILE).read_text(encoding="utf-8"))
PLACES = list(places(COMPARED))
BASELINE = json.loads(json.dumps({"schema_version": 1, **dataclasses.asdict(gate.summarise(TOLD))}))
#: One ratio will do: its interval takes a while.
BASELINE["ratios"] = BASELINE["ratios"][:1]
NOW = gate.summarise(TOLD)
BASELINE_PLACES = list(places(BASELINE))
LINES = st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode())
#: Every example has the same folder, and writes its file anew.
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(file: Path, data: Any) -> Path:
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


@ONE_FOLDER
@given(place=st.sampled_from(PLACES), value=JSON)
@example(("schema_version",), [10**400] * 3)
@example(("methods",), [])
@example(("figures", 1, "streams"), 10**400)
@example(("methods", 1, "parameters"), {"x": math.inf})
def test_a_damaged_comparison_is_read_or_refused_by_name(
    tmp_path: Path, place: tuple[str | int, ...], value: Any
) -> None:
    file = written(tmp_path / comparisons.FILE, put(COMPARED, place, value))
    found = attempt(lambda: comparisons.load(tmp_path), RecordError)
    if isinstance(found, Refusal):
        assert found.startswith(str(file))
        return
    assert comparisons.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


@ONE_FOLDER
@given(place=st.sampled_from(PLACES), value=JSON | st.sampled_from([0, 0.0, 1e308, 5e-324, -1.0]))
@example(("points", 0, "median"), 5e-324)
@example(("points", 0, "median"), 1e308)
def test_a_damaged_comparison_can_be_a_baseline_or_is_refused(
    tmp_path: Path, place: tuple[str | int, ...], value: Any
) -> None:
    written(tmp_path / comparisons.FILE, put(COMPARED, place, value))
    summary = attempt(lambda: gate.summarise(tmp_path), RecordError, UsageError)
    if isinstance(summary, Refusal):
        return
    baseline = tmp_path / "baseline.json"
    baseline.unlink(missing_ok=True)
    # It may be left without a round that counts, on no processor say.
    if not isinstance(attempt(lambda: gate.update(baseline, summary), UsageError), Refusal):
        assert gate.load(baseline) == summary


@ONE_FOLDER
@given(
    place=st.sampled_from(BASELINE_PLACES),
    value=JSON | st.sampled_from([0, 0.0, 1e308, 5e-324, -1.0]),
)
@example(("schema_version",), [10**400] * 3)
@example(("ratios", 0, "builds"), [[0.0]])
@example(("ratios", 0, "builds"), [[-1.0]])
@example(("ratios", 0, "metric"), "")
@example(("facts", 0, "method"), "")
@example(("experiments", 0, "parameters", "hosts"), (1 << 64) - 1)
@example(("experiments", 0, "parameters", "settings"), None)
def test_a_damaged_baseline_is_held_against_a_result_or_refused_by_name(
    tmp_path: Path, place: tuple[str | int, ...], value: Any
) -> None:
    file = written(tmp_path / "baseline.json", put(BASELINE, place, value))
    before = attempt(lambda: gate.load(file), RecordError)
    if isinstance(before, Refusal):
        assert before.startswith(str(file))
        return
    lines = attempt(lambda: gate.check(NOW, before), UsageError)
    if isinstance(lines, Refusal):
        assert place[0] == "experiments"
        assert lines.startswith("comparison is another experiment than the baseline: ")
        return
    assert len(lines) >= len(before.ratios) + len(before.facts)
    json.dumps([dataclasses.asdict(line) for line in lines], allow_nan=False)


@ONE_FOLDER
@given(lines=st.lists(LINES, max_size=3))
@example([b'{"kind": "session"}'])
@example([b'{"kind": []}'])
@example([b"[" * 100_000, b""])
def test_any_journal_is_refused_by_name(tmp_path: Path, lines: list[bytes]) -> None:
    (tmp_path / journal.FILE).write_bytes(b"\n".join(lines))
    with pytest.raises(RecordError, match=journal.FILE):
        journal.read(tmp_path)
