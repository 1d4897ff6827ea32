"""A metric is added in one place: one more row, and it stands wherever figures do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.comparisons import entries, history
from tests.support.records import sample
from xlab import cli
from xlab.experiments import gate
from xlab.experiments.compare import evaluation
from xlab.experiments.compare.journal import Entry, RoundDone
from xlab.record import comparisons, metrics, record
from xlab.record.comparisons import Comparison
from xlab.record.figures import figures, find
from xlab.record.metrics import ChartOfOne, Metric
from xlab.record.record import Measurement, RunRecord
from xlab.report import comparison as wording
from xlab.report import gallery, tables, text

HANDSHAKES = Metric(
    "tls_handshakes_per_second",
    "handshakes",
    higher_is_better=True,
    tolerance=0.2,
    charts=(ChartOfOne("values", "handshakes", "TLS handshakes", "handshakes a second"),),
)


@pytest.fixture(autouse=True)
def one_row_more(monkeypatch: pytest.MonkeyPatch) -> Callable[[Metric], None]:
    """The row behind that of round trips; a test may change it."""
    known = metrics.TABLE

    def put(row: Metric) -> None:
        monkeypatch.setattr(metrics, "TABLE", (known[0], row, *known[1:]))

    put(HANDSHAKES)
    return put


def handshakes(m: Measurement) -> Measurement:
    return dataclasses.replace(m, metric=HANDSHAKES.name, unit="1/s", probe="tls")


def measured() -> RunRecord:
    told = sample("bridge")
    more = [handshakes(m) for m in told.measurements if m.metric == "tcp_bits_per_second"]
    return dataclasses.replace(told, measurements=(*told.measurements, *more))


def compared(noise: float = 0.03) -> Comparison:
    def also(entry: Entry) -> Entry:
        if not isinstance(entry, RoundDone):
            return entry
        more = {
            method: (*found, *(handshakes(m) for m in found if m.metric == "tcp_bits_per_second"))
            for method, found in entry.measurements.items()
        }
        return dataclasses.replace(entry, measurements=more)

    return evaluation.evaluate(history([also(entry) for entry in entries(noise=noise)]))


def test_it_has_its_figure_word_row_and_chart() -> None:
    told = measured()
    figure = find(figures(told), HANDSHAKES.name)
    assert figure is not None
    assert figure.to_baseline is not None
    named = list(dict.fromkeys(f.metric for f in figures(told)))
    assert named[:2] == ["icmp_rtt_ms", HANDSHAKES.name]
    assert text.label(HANDSHAKES.name, 4) == "handshakes ×4"
    assert "handshakes" in [row[0] for row in tables.route_figures(told).rows]
    shown = gallery.exhibits([("bridge", told)])
    assert "TLS handshakes" in shown["handshakes"].in_words()


def test_it_is_compared_the_better_way_round() -> None:
    found = compared()
    slower = next(f for f in found.figures if (f.method, f.metric) == ("weave", HANDSHAKES.name))
    assert slower.higher_is_better
    assert slower.to_baseline is not None
    assert slower.to_baseline.verdict == "slower"
    assert "handshakes, kernel datapath" in [table.title for table in wording.tables(found)]
    assert HANDSHAKES.name in {place.metric for place in found.places}


def test_without_ratios_nothing_is_ranked_by_it(one_row_more: Callable[[Metric], None]) -> None:
    one_row_more(dataclasses.replace(HANDSHAKES, has_ratios=False))
    found = compared()
    own = [figure for figure in found.figures if figure.metric == HANDSHAKES.name]
    assert own
    assert all(figure.value and figure.to_baseline is None for figure in own)
    assert HANDSHAKES.name not in {place.metric for place in found.places}


def test_what_decides_nothing_makes_no_noise(one_row_more: Callable[[Metric], None]) -> None:
    leaping = compared(noise=0.8)
    assert any(HANDSHAKES.name in reason for reason in leaping.noise.reasons)
    one_row_more(dataclasses.replace(HANDSHAKES, decides=False))
    assert not any(HANDSHAKES.name in reason for reason in compared(noise=0.8).noise.reasons)


def test_the_gate_judges_it_by_its_tolerance(
    tmp_path: Path, one_row_more: Callable[[Metric], None], capsys: pytest.CaptureFixture[str]
) -> None:
    comparisons.save(compared(), tmp_path)
    before = gate.summarise(tmp_path)
    kept = {each.tolerance for each in before.ratios if each.metric == HANDSHAKES.name}
    assert kept == {0.2}
    baseline = tmp_path / "baseline.json"
    record.write_document(baseline, record.to_document(before))
    assert cli.main(["check", str(tmp_path), "--baseline", str(baseline), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert HANDSHAKES.name in {line["subject"] for line in lines}
    one_row_more(dataclasses.replace(HANDSHAKES, counted=True))
    assert HANDSHAKES.name not in {each.metric for each in gate.summarise(tmp_path).ratios}


def test_every_row_is_worded_and_no_two_are_of_one_name() -> None:
    names = [row.name for row in metrics.TABLE]
    assert len(set(names)) == len(names)
    assert [row.name for row in metrics.TABLE if row.label in ("", row.name)] == []
