"""Charts from records of any kind: what they show, and that drawing them never fails."""

from __future__ import annotations

import functools
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.records import sample
from tests.support.reports import HOSTILE, Page, everything, hostile
from xlab.record import metrics
from xlab.record.record import Measurement, Route, RunRecord
from xlab.report import charts, drawing, tables
from xlab.report.charts import Chart, Subject

ROOT = Path(__file__).parent.parent.parent


def named(*records: RunRecord) -> list[Subject]:
    return list(zip(tables.names(records), records, strict=True))


def throughput(subjects: Sequence[Subject]) -> Chart | None:
    row = metrics.of("tcp_bits_per_second")
    return charts.ratios(subjects, row.name, row.charts[0])


def latency(subjects: Sequence[Subject]) -> Chart | None:
    row = metrics.of("icmp_rtt_ms")
    return charts.values(subjects, row.name, row.charts[1])


def both(*records: RunRecord) -> tuple[Chart, Chart]:
    ratio, rtt = throughput(named(*records)), latency(named(*records))
    assert ratio is not None
    assert rtt is not None
    return ratio, rtt


def drawn(chart: Chart, name: str = "x") -> Page:
    return Page(drawing.embedded(chart, name))


def measured(
    route: Route, number: int, samples: tuple[float, ...], metric: str = "icmp_rtt_ms"
) -> Measurement:
    middle = sorted(samples)[len(samples) // 2] if samples else None
    return Measurement(
        probe="p", metric=metric, unit="u", direction="a > b", streams=1, round=number, build=1,
        started_at="", samples=samples, median=middle, route=route,
        failed_samples=0 if samples else 1,
    )  # fmt: skip


def colours_of(page: Page) -> set[str]:
    styles = " ".join(page.attributes("style"))
    return set(re.findall(r"var\((--[a-z-]+),", styles))


# ---------------------------------------------------------------------------------- what is shown


def test_each_method_stands_beside_its_control_in_the_panel_of_its_class() -> None:
    ratio, rtt = both(*(sample(name) for name in ("bridge", "ovs-gre", "baseline", "weave")))
    for chart in (ratio, rtt):
        assert [(p.title, [g.heading for g in p.groups]) for p in chart.panels] == [
            ("kernel datapath", ["bridge", "baseline"]),
            ("userspace datapath", ["ovs-gre", "weave"]),
        ]
        for panel in chart.panels:
            for group in panel.groups:
                assert [bar.route for bar in group.bars] == ["method", "control"]
    labels = [g.bars[0].label for panel in ratio.panels for g in panel.groups]
    assert labels == [
        "linux bridge",
        "linux bridge",
        "ovs 3.5.0 userspace (netdev)",
        "weave sleeve userspace",
    ]


def test_a_chart_shows_the_datapath_the_figure_and_every_round() -> None:
    ratio, _ = both(sample("bridge"))
    found = drawn(ratio)
    words = [e.text for e in found.all("text")]
    assert {"bridge", "linux bridge", "control, host to host", "published 0.87–0.98"} <= set(words)
    assert any(re.fullmatch(r"0\.\d\d \(0\.\d\d–0\.\d\d\)", word) for word in words)
    # Two bars of three rounds; a marker is drawn by reference.
    rounds = [e for e in found.all("use") if "--card" in str(e.attributes.get("style"))]
    assert len(rounds) == 6


def test_samples_are_all_there_and_none_is_drawn_for_ratios() -> None:
    ratio, rtt = both(sample("bridge"))
    assert all(not b.points.samples for p in ratio.panels for g in p.groups for b in g.bars)
    (method, control) = rtt.panels[0].groups[0].bars
    assert len(method.points.samples) == len(control.points.samples) == 30
    ticks = [e for e in drawn(rtt).all("path") if str(e.attributes["d"]).count("M") > 10]
    assert len(ticks) == 2, "the samples of a bar are one path"


def test_samples_far_out_are_counted_so_that_bars_can_be_read() -> None:
    told = replace(
        sample("bridge"),
        measurements=(
            measured("method", 1, (1.0, 1.1, 1.2, 500.0, 90.0)),
            measured("control", 1, (1.0, 1.0, 1.0)),
        ),
    )
    chart = latency(named(told))
    assert chart is not None
    found = drawn(chart)
    words = [e.text for e in found.all("text")]
    assert "2 samples beyond, up to 500 ms" in words
    ticks = [float(w) for w in words if re.fullmatch(r"[\d.]+", w)]
    assert max(ticks) < 10


def test_an_interval_without_end_leaves_the_chart_so_that_bars_can_be_read() -> None:
    rounds = [measured("method", n, (rtt,)) for n, rtt in enumerate((1.0, 1.1, 1.2), 1)]
    chart = latency(named(replace(sample("bridge"), measurements=tuple(rounds))))
    assert chart is not None
    ((group,),) = ((*panel.groups,) for panel in chart.panels)
    bar = group.bars[0]
    assert bar.points.spread is not None
    endless = replace(bar.points.spread, ci95=(0.9, 688.0))
    wide = replace(bar, points=replace(bar.points, spread=endless))
    panel = replace(chart.panels[0], groups=(replace(group, bars=(wide,)),))
    words = [e.text for e in drawn(replace(chart, panels=(panel,))).all("text")]
    assert "1.10 ms (0.900–688)" in words
    ticks = [float(w) for w in words if re.fullmatch(r"[\d.]+", w)]
    assert max(ticks) < 5


def test_a_recovery_tells_until_when_answers_were_missing_and_mending_took() -> None:
    def broken(metric: str, build: int, *, stopped: bool, **detail: float) -> Measurement:
        seconds = 0.1 * build if stopped else 0.0
        one = measured("method", 1, (seconds,), metric)
        return replace(one, build=build, detail={"stopped": stopped, **detail})

    told = replace(
        sample("bridge"),
        measurements=(
            *(broken("link_flap_recovery_s", n, stopped=True, mend_s=0.02) for n in (1, 2, 3)),
            *(broken("weave_kill_recovery_s", n, stopped=False, mend_s=2.0) for n in (1, 2, 3)),
            replace(measured("method", 1, (), "host_reboot_recovery_s"), detail={"mend_s": "?"}),
        ),
    )
    chart = charts.recovery(named(told))
    assert chart is not None
    bars = chart.panels[0].groups[0].bars
    assert [(bar.label, bar.mended) for bar in bars] == [
        ("link flap", 0.02), ("weave kill: went on", 2.0), ("host reboot", None),
    ]  # fmt: skip
    assert chart.in_words().endswith("host reboot it was not back.")
    assert dict(chart.key()) == {
        "method": "no answers", "broken": "the fault is in force", "mended": "mending is done",
        "round": "a build", "interval": "95 % interval",
    }  # fmt: skip
    words = [e.text for e in drawn(chart).all("text")]
    assert "it was not back" in words
    # When mending was done is seen, however late.
    assert max(float(w) for w in words if re.fullmatch(r"[\d.]+", w)) >= 1.5


def test_what_was_not_measured_says_why_beside_what_was() -> None:
    told = sample("bridge-failed")
    assert told.path is None
    lost = replace(told, path=replace(sample("bridge").path, proved=False))  # type: ignore[type-var]
    ratio, _ = both(sample("baseline"), lost)
    words = [e.text for e in drawn(ratio).all("text")]
    assert words.count("not measured: the path is not proved") == 2
    assert "bridge" in words


@pytest.mark.parametrize("names", [["bridge-failed"], ["ovs-gre-skipped"], []])
def test_nothing_measured_is_no_chart(names: list[str]) -> None:
    records = [sample(name) for name in names]
    assert throughput(named(*records)) is None
    assert latency(named(*records)) is None


def test_a_single_sample_of_a_single_round_is_a_chart_without_an_interval() -> None:
    told = replace(
        sample("bridge"),
        measurements=(
            measured("method", 1, (0.5,)),
            measured("method", 1, (5e8,), "tcp_bits_per_second"),
            measured("baseline", 1, (1e9,), "tcp_bits_per_second"),
        ),
    )
    for chart in both(told):
        found = drawn(chart)
        assert "no figure" in [e.text for e in found.all("text")], "the control's"
        assert len([e for e in found.all("use") if "--card" in str(e.attributes.get("style"))]) == 1


# ------------------------------------------------------------------------------------ any record


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("method", "control", "baseline")),
            st.integers(1, 3),
            st.lists(st.floats(0, 1e308), max_size=4).map(tuple),
            st.sampled_from(("icmp_rtt_ms", "tcp_bits_per_second")),
        ),
        max_size=8,
    )
)
@example([("method", n, (figure,), "icmp_rtt_ms") for n, figure in enumerate((1e308, 0.0, 0.0), 1)])
@example(
    [
        ("method", n, (figure,), "icmp_rtt_ms")
        for n, figure in ((1, 0.0), (2, 0.0), (3, 9e307), (3, 9.1e307))
    ]
)
def test_any_figures_are_drawn(
    rounds: list[tuple[Route, int, tuple[float, ...], str]],
) -> None:
    told = replace(sample("bridge"), measurements=tuple(measured(*each) for each in rounds))
    for chart in (throughput(named(told)), latency(named(told))):
        if chart:
            assert drawn(chart).all("svg")


def test_hostile_text_is_drawn_as_text() -> None:
    for chart in both(hostile(), sample("bridge")):
        found = drawn(chart)
        (said, *_) = (e.text for e in found.all("text") if "script" in e.text)
        assert said.startswith("</style></svg><script>")
        assert "$" in HOSTILE, "matplotlib would take it for a formula"
        assert not found.all("script")


def test_negative_and_enormous_figures_are_left_out_of_the_axis() -> None:
    told = replace(
        sample("bridge"),
        measurements=(
            measured("method", 1, (-5.0, 1.0, 1e300)),
            measured("control", 1, (1e300,)),
        ),
    )
    chart = latency(named(told))
    assert chart is not None
    method, control = chart.panels[0].groups[0].bars
    assert method.points.samples == (1.0,)
    assert control.points.spread is None
    drawn(chart)


# ------------------------------------------------------------------------------------ in a page


@functools.cache
def of_everything() -> list[Page]:
    """A chart of ratios and one of figures, of all samples."""
    return [drawn(chart) for chart in both(*everything().values())]


def test_charts_take_their_colours_from_the_page() -> None:
    css = (ROOT / "xlab" / "report" / "page.css").read_text(encoding="utf-8")
    light, dark = css.split("prefers-color-scheme: dark", 1)
    used: set[str] = set()
    for found in of_everything():
        used |= colours_of(found)
        styles = " ".join(found.attributes("style"))
        bare = re.sub(r"var\(--[a-z-]+,#[0-9a-f]{6}\)", "", styles)
        assert not re.findall(r"#[0-9a-f]{6}", bare), "a colour that no scheme can change"
    assert {"--method", "--control", "--ink", "--dim", "--published"} <= used
    for variable in used:
        assert f"{variable}:" in light
        assert f"{variable}:" in dark


def test_two_charts_of_a_page_have_no_id_in_common() -> None:
    ratio, rtt = both(sample("bridge"))
    first, second = drawn(ratio, "ratio"), drawn(rtt, "rtt")
    assert set(first.attributes("id")).isdisjoint(second.attributes("id"))
    for page in (first, second):
        ids = page.attributes("id")
        references = [h[1:] for h in page.attributes("href")]
        references += re.findall(r"url\(#([^)]+)\)", " ".join(page.source.split()))
        assert references
        assert set(references) <= set(ids)


def test_the_same_records_give_the_same_chart() -> None:
    ratio, _ = both(sample("bridge"))
    assert drawing.embedded(ratio, "x") == drawing.embedded(ratio, "x")


def test_a_chart_is_as_narrow_as_a_phone_and_its_text_is_large_enough() -> None:
    for page in of_everything():
        (svg,) = page.all("svg")
        width = float(str(svg.attributes["viewbox"]).split()[2])
        assert width <= 336, "what a screen of 360 px leaves inside a card"
        styles = " ".join(page.attributes("style"))
        sizes = [float(size) for size in re.findall(r"([\d.]+)px", styles)]
        assert sizes
        assert min(sizes) >= 9


def test_matplotlib_is_imported_only_to_draw() -> None:
    program = (
        "import sys\n"
        "from xlab.report import charts, files, picture\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.slow
def test_a_home_that_cannot_be_written_to_is_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = (
        "from tests.support.records import sample\n"
        "from xlab.report import drawing, gallery\n"
        "shown = gallery.exhibits([('bridge', sample('bridge'))])\n"
        "drawing.embedded(next(iter(shown.values())), 'x')\n"
    )
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(nowhere / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert logging.getLogger("matplotlib").level in (logging.NOTSET, logging.ERROR)
