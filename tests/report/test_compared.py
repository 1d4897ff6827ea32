"""Reports on a comparison, in every form, from its files alone."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flent.resultset import ResultSet
from hypothesis import given
from hypothesis import strategies as st
from junitparser import JUnitXml

from tests.support.comparisons import DATA
from tests.support.reports import HOSTILE, Page, compared, everything
from xlab import cli
from xlab.errors import RecordError
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, Pair
from xlab.record.figures import figures, find
from xlab.report import comparison as wording
from xlab.report import content, drawing, gallery, lines, links
from xlab.report.content import Content
from xlab.report.forms import csv as rows
from xlab.report.forms import flent, html, junit, markdown

pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

SAMPLE = Path(__file__).parent.parent.parent / "results" / "sample"
CHARTS = [
    "throughput-ratio",
    "rtt-ratio",
    "rtt",
    "rtt-distribution",
    "rtt-over-time",
    "loaded-rtt-distribution",
    "message-sizes",
    "streams",
    "cpu",
    "recovery",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results") / "a-compare"
    compared(made)
    return made


@pytest.fixture(scope="module")
def told(folder: Path) -> Content:
    found, errors = content.of_comparison(comparisons.load(folder), folder)
    assert errors == []
    return found


@pytest.fixture(scope="module")
def shown(told: Content, folder: Path) -> Page:
    return Page(html.of_results(told, folder))


# --------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("with_records", [True, False])
def test_the_figures_of_its_records_are_those_of_the_comparison(
    folder: Path, tmp_path: Path, with_records: bool
) -> None:
    """By other code, from other files: medians, ratios and intervals are the same to the digit."""
    outcome = comparisons.load(folder)
    told, _ = content.of_comparison(outcome, folder if with_records else tmp_path)
    compared_figures = 0
    for part in told.parts:
        found = figures(part.record)
        for expected in (f for f in outcome.figures if f.method == part.name):
            figure = find(found, expected.metric, expected.streams)
            assert figure is not None
            for mine, theirs in (
                (figure.method, expected.value),
                (figure.control, expected.control),
                (figure.to_control, expected.to_control),
                (figure.to_baseline, expected.to_baseline),
            ):
                if theirs is None:
                    continue
                assert mine is not None
                assert math.isclose(mine.median, theirs.median)
                assert mine.ci95 is not None
                assert mine.ci95 == pytest.approx(theirs.ci95)
                compared_figures += 1
    assert compared_figures > 50


# ------------------------------------------------------------------------------------------ page


def test_the_page_begins_with_who_is_first_and_whether_to_believe_it(shown: Page) -> None:
    (heading,) = shown.all("h1")
    assert heading.text == ("Fastest here: bridge, in the kernel.")
    after = shown.text.partition(heading.text)[2]
    assert after.startswith("Which is fastest here?bridge carries most TCP: 0.9")
    assert "How sure is that?The machine was noisy (" in after


def test_the_page_has_every_section_and_chart(shown: Page, folder: Path) -> None:
    titles = [e.text for e in shown.all("h2")]
    methods = [m.name for m in comparisons.load(folder).methods]
    assert titles == [
        "Summary",
        "Charts",
        "Overhead and MTU",
        *methods,
        "All figures",
        "Environment",
        "How it was measured",
        "Raw data",
    ]
    drawn = [e for e in shown.all("svg") if e.attributes["class"] == "chart"]
    assert len(drawn) == len(CHARTS)
    assert len([e for e in shown.all("svg") if e.attributes["class"] == "picture"]) == len(methods)
    assert all(e.attributes["aria-label"] for e in drawn)
    assert "5 builds: every claim (1) held" in shown.text
    targets = shown.attributes("href")
    assert "compare.json" in targets
    assert "weave%2Bdatapath%3Dfastdp/b5/run.json" in targets
    assert len([t for t in targets if t.endswith("/run.json")]) == 5 * len(methods)
    for target in targets:
        if not target.startswith(("#", "data:")) and "/raw/" not in target:
            assert (folder / target.replace("%2B", "+").replace("%3D", "=")).exists()


def test_what_was_not_measured_is_named_with_the_probe_that_measures_it(tmp_path: Path) -> None:
    compared(tmp_path, probes=False)
    told, _ = content.of_comparison(comparisons.load(tmp_path), tmp_path)
    found = Page(html.of_results(told, tmp_path))
    for probe in ("loaded-rtt", "message-sizes", "flows"):
        assert f"xlab compare … --probe {probe}" in found.text
    assert "xlab compare … --probe recovery" in found.text
    assert gallery.missing(told.subjects)
    measured = Page(html.of_results(content.of_records(everything()), tmp_path)).text
    assert "xlab run … --probe loaded-rtt" in measured


def test_without_its_records_the_outcome_alone_makes_a_page(tmp_path: Path) -> None:
    shutil.copy(DATA / "comparison" / "compare.json", tmp_path)
    told, errors = content.of_comparison(comparisons.load(tmp_path), tmp_path)
    assert errors == []
    found = Page(html.of_results(told, tmp_path))
    assert list(gallery.exhibits(told.subjects)) == [
        "throughput-ratio",
        "rtt-ratio",
        "rtt",
    ]
    assert "the records of its runs are not beside it" in found.text
    # What each method is, and the way that its packets were proved to take, are in it all the same.
    pictures = [e for e in found.all("svg") if e.attributes.get("class") == "picture"]
    assert len(pictures) == len(told.parts)
    assert "Proved: h1/c1 → br0 → obr0 → gre0 → eth0 → the wire (GRE" in found.text
    assert "0 of 0 packets" not in found.text
    assert "the commands they ran" not in found.text
    assert "Nothing was proved of it" not in found.text
    assert "published 0.06–0.2" in found.text
    assert markdown.of_results(told, tmp_path).startswith("# ✓ Fastest here: bridge")


def test_without_its_records_recoveries_are_told_as_with_them(tmp_path: Path) -> None:
    found = comparisons.load(DATA / "comparison")
    name = found.methods[1].name
    told = comparisons.Recovery(
        name, 1, "link_flap_recovery_s", "link h2 down", "link h2 up", "", 0.2, True, 0.01
    )
    point = dataclasses.replace(
        found.points[0], method=name, route="method", metric=told.metric, unit="s", median=0.2,
        round=1, build=1,
    )  # fmt: skip
    both = dataclasses.replace(found, points=(*found.points, point), recoveries=(told,))
    subjects = content.of_comparison(both, tmp_path)[0].subjects
    chart = gallery.exhibits(subjects)["recovery"]
    assert "link flap 200 ms" in chart.in_words()
    assert ("mended", "mending is done") in chart.key()


def test_noise_is_told_by_the_names_of_tables(tmp_path: Path) -> None:
    found = comparisons.load(DATA / "comparison")
    drifts = tuple(
        comparisons.Drift(metric, streams, change=0.5, p_value=0.01, spread=0.5)
        for metric, streams in (("tcp_bits_per_second", 1), ("tcp_bits_per_second", 4))
    )
    reasons = ("apart in tcp_bits_per_second; x", "apart in tcp_bits_per_second, 4 streams")
    noisy = dataclasses.replace(found.noise, verdict="noisy", reasons=reasons, drifts=drifts)
    said = wording.how(dataclasses.replace(found, noise=noisy))[-1]
    assert said == "Noise: apart in TCP 1 stream; x; apart in TCP 4 streams."


def test_a_corrupt_record_is_named_and_the_others_are_shown(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "bridge" / "b2" / "run.json").write_text("{", encoding="utf-8")
    told, (error,) = content.of_comparison(comparisons.load(copy), copy)
    assert "bridge/b2/run.json:1:2: not JSON" in str(error)
    assert len(told.parts[1].files) == 4


def test_no_file_is_read_from_outside_the_comparison(folder: Path) -> None:
    outcome = comparisons.load(folder)
    bridge = outcome.methods[1]
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    places = ["../a-compare/bridge/b1", str(folder / "bridge/b2"), "\0", "x" * 999, ""]
    outside = tuple(
        dataclasses.replace(build, folder=place)
        for build, place in zip(bridge.builds, places, strict=True)
    )
    evil = dataclasses.replace(
        outcome, methods=(outcome.methods[0], dataclasses.replace(bridge, builds=outside))
    )
    told, errors = content.of_comparison(evil, elsewhere)
    assert errors == []
    assert told.parts[1].files == {}
    (elsewhere / "link").symlink_to(folder / "bridge" / "b1")
    linked = dataclasses.replace(bridge, builds=(dataclasses.replace(outside[0], folder="link"),))
    told, _ = content.of_comparison(
        dataclasses.replace(evil, methods=(outcome.methods[0], linked)), elsewhere
    )
    assert told.parts[1].files == {}


def test_hostile_text_stays_text(folder: Path, tmp_path: Path) -> None:
    outcome = comparisons.load(folder)
    evil: Comparison = dataclasses.replace(
        outcome,
        notes=(HOSTILE,),
        methods=tuple(
            dataclasses.replace(m, name=f"{m.name}{HOSTILE}", status="failed", reason=HOSTILE)
            for m in outcome.methods
        ),
        noise=dataclasses.replace(outcome.noise, reasons=(HOSTILE,)),
    )
    told, _ = content.of_comparison(evil, tmp_path)
    found = Page(html.of_results(told, tmp_path))
    assert not {e.name for e in found.elements} & {"script", "img"}
    assert "\x1b" not in found.source
    assert "\x1b" not in markdown.of_results(told, tmp_path)
    assert "\x1b" not in rows.of_results(told, Path())


# ------------------------------------------------------------------------------------------ words


def _alike(pair: Pair) -> Pair:
    ratio = dataclasses.replace(
        pair.ratio, median=1.0, ci95=(0.9, 1.1), verdict="indistinguishable"
    )
    return dataclasses.replace(pair, ratio=ratio)


def test_a_tie_too_few_builds_and_a_failure_are_said_as_such(folder: Path) -> None:
    outcome = comparisons.load(folder)
    tie = dataclasses.replace(outcome, pairs=tuple(map(_alike, outcome.pairs)))
    assert wording.outcome(tie).headline == (
        "Fastest here: bridge and weave:datapath=fastdp, in the kernel; no difference could be "
        "measured between them"
    )
    few = wording.outcome(dataclasses.replace(outcome, pairs=()))
    assert few.headline == "Too little was measured to say which method is fastest here"
    base, bridge, fastdp, *others = (
        next(m for m in outcome.methods if m.name == name)
        for name in ("baseline", "bridge", "weave:datapath=fastdp", "ovs-gre", "weave")
    )
    alone = wording.outcome(dataclasses.replace(outcome, methods=(base, bridge)))
    assert re.fullmatch(r"bridge carries 0\.\d\d × the TCP of plain hosts", alone.headline)
    lost = dataclasses.replace(bridge, status="failed", reason="it broke")
    failed = wording.outcome(
        dataclasses.replace(outcome, status="failed", methods=(base, lost, fastdp, *others))
    )
    assert failed.mark == "✗"
    assert failed.headline.startswith("3 of 4 methods passed; ")
    assert failed.findings[0] == "bridge failed: it broke"


# ------------------------------------------------------------------------------------ other forms


def test_csv_has_a_line_a_measurement_each_once(told: Content, folder: Path) -> None:
    found = list(csv.DictReader(io.StringIO(rows.of_results(told, Path()))))
    points = comparisons.load(folder).points
    assert len(found) == len(points)
    expected = sorted((p.method, p.route, p.metric, p.streams, p.round, p.median) for p in points)
    assert expected == sorted(
        (x["name"], x["route"], x["metric"], int(x["streams"]), int(x["round"]), float(x["median"]))
        for x in found
    )
    assert tuple(found[0]) == rows.COLUMNS


def test_csv_makes_no_formula_of_what_a_record_says(told: Content) -> None:
    part = told.parts[1]
    first = dataclasses.replace(
        part.record.measurements[0], median=None, detail={"error": "=cmd|' /C calc'!A0\nx"}
    )
    evil = dataclasses.replace(
        part, record=dataclasses.replace(part.record, measurements=(first,), scenario="@x")
    )
    (line,) = csv.DictReader(
        io.StringIO(rows.of_results(dataclasses.replace(told, parts=(evil,)), Path()))
    )
    assert line["error"] == "'=cmd|' /C calc'!A0 x"
    assert line["scenario"] == "'@x"
    assert line["median"] == ""


def test_junit_has_a_suite_a_method_and_build(told: Content, folder: Path) -> None:
    document = JUnitXml.fromstring(junit.of_results(told, Path()))
    names = [suite.name for suite in document]
    assert len(names) == 5 * len(comparisons.load(folder).methods)
    assert {"baseline b1", "weave:datapath=fastdp b5"} <= set(names)
    assert document.failures == document.errors == 0
    assert document.tests > len(names)


def test_a_real_flent_opens_its_file(told: Content, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.flent.gz"
    assert cli.main(["report", str(folder), "--output", str(file)]) == 0
    opened = ResultSet.load_file(str(file))
    methods = [part.name for part in told.parts]
    assert set(opened.series_names) == {
        f"{kind}{name}" for kind in ("Ping (ms) ", "TCP upload ") for name in methods
    }
    assert opened.x_values[:3] == [0.0, 0.1, 0.2]
    ping = opened.series("Ping (ms) bridge")
    assert len(ping) == len(opened.x_values)
    # Idle, then loaded: ten times as much.
    assert 9 < ping[5] / ping[1] < 11
    raw = list(opened.raw_series("Ping (ms) bridge"))
    assert len(raw) == 99, "the echo that had no reply is not there"
    assert 0 <= raw[0][0] < 0.01
    meta = opened.series_meta("Ping (ms) bridge")
    assert (meta["UNITS"], meta["LOAD_SINCE"]) == ("ms", 0.3)
    rate = opened.series_meta("TCP upload bridge")["MEAN_VALUE"]
    assert 20_000 < rate < 40_000
    assert opened.meta("TIME").isoformat().startswith("2025-01-02T12:00:00")


@pytest.mark.parametrize(
    "odd", ["", "x", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2025-01-02"]
)
def test_flent_opens_its_file_whenever_that_was(told: Content, odd: str) -> None:
    written = flent.of_results(dataclasses.replace(told, started_at=(odd,)), Path())
    opened = ResultSet.loads(gzip.decompress(written).decode())
    assert opened.meta("TIME").year in (1, 1970, 2025, 9999)


def test_flents_own_command_prints_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.flent.gz"
    assert cli.main(["report", str(folder), "--output", str(file)]) == 0
    subprocess.run(
        [sys.executable, "-m", "flent", "-f", "csv", "-o", "out.csv", "-i", str(file)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=True,
    )
    printed = (tmp_path / "out.csv").read_text(encoding="utf-8")
    header, first, *_ = csv.reader(io.StringIO(printed))
    assert header[0] == "tcp_1up"
    assert {"Ping (ms) weave", "TCP upload weave"} <= set(header)
    with gzip.open(file) as opened:
        data = json.load(opened)
    column = header.index("Ping (ms) weave")
    assert float(first[column]) == data["results"]["Ping (ms) weave"][0]


def test_of_one_record_flent_opens_a_file_with_its_own_names(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.flent.gz"
    assert cli.main(["report", str(folder / "bridge" / "b1"), "--output", str(file)]) == 0
    opened = ResultSet.load_file(str(file))
    assert opened.series_names == ["Ping (ms) ICMP", "TCP upload"]


@pytest.mark.slow
def test_of_one_record_flents_own_plots_find_the_series(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.flent.gz"
    assert cli.main(["report", str(folder / "bridge" / "b1"), "--output", str(file)]) == 0
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [sys.executable, "-m", "flent", "-p", "totals", "-o", "out.svg", "-i", str(file)],
        env={**environment, "MPLBACKEND": "svg"},
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert "<svg" in (tmp_path / "out.svg").read_text(encoding="utf-8")


def test_without_a_course_over_time_there_is_nothing_for_flent(tmp_path: Path) -> None:
    shutil.copy(DATA / "comparison" / "compare.json", tmp_path)
    told, _ = content.of_comparison(comparisons.load(tmp_path), tmp_path)
    with pytest.raises(RecordError, match="--probe loaded-rtt"):
        flent.of_results(told, Path())


# --------------------------------------------------------------------------------- command line


def test_each_form_goes_by_the_name_of_its_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, start in (
        ("a.html", "<!doctype html>"),
        ("a.md", "# ✓ Fastest here"),
        ("a.csv", "scenario,name,"),
        ("a.xml", "<testsuites"),
        ("a.txt", "RTT, kernel datapath"),
    ):
        assert cli.main(["report", str(folder), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start), name
    capsys.readouterr()
    assert cli.main(["report", str(folder / "compare.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (folder / "compare.json").read_text(encoding="utf-8")
    )


def test_a_page_to_be_handed_on_has_no_links_but_within(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    assert cli.main(["report", str(folder), "--alone", "--output", str(file)]) == 0
    found = Page(file.read_text(encoding="utf-8"))
    targets = found.attributes("href")
    assert len(targets) > 5
    assert all(target.startswith("#") or target == "data:," for target in targets)
    assert "were not handed on" in found.text
    assert "✓ sleeve 20/20" in found.text
    assert cli.main(["report", str(folder), "--alone", "--output", str(tmp_path / "a.md")]) == 0
    assert "](" not in (tmp_path / "a.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "names", [CHARTS[:3], pytest.param(CHARTS, marks=pytest.mark.slow)], ids=len
)
def test_charts_are_written_as_files_of_their_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str]
) -> None:
    charts = tmp_path / "charts"
    of = folder if names == CHARTS else DATA / "comparison"
    assert cli.main(["report", str(of), "--charts", str(charts)]) == 0
    written = capsys.readouterr().out.split()
    assert sorted(written) == sorted(map(str, charts.iterdir()))
    assert {Path(file).stem for file in written} == set(names)
    for name in names:
        assert (charts / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        picture = (charts / f"{name}.svg").read_text(encoding="utf-8")
        assert "<svg" in picture
    # What the page says around a chart is in its file.
    ratio = (charts / "throughput-ratio.svg").read_text(encoding="utf-8")
    assert "TCP throughput" in ratio
    assert "├─┤: 95 % interval" in ratio


# ---------------------------------------------------------------------------------- the sample


def test_the_sample_is_small_and_stands_by_itself() -> None:
    outcome = comparisons.load(SAMPLE)
    assert len(outcome.methods) > 3
    files = [file for file in SAMPLE.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_800_000
    found = Page((SAMPLE / "report.html").read_text(encoding="utf-8"))
    assert all(method.name in found.text for method in outcome.methods)
    assert outcome.started_at[:16].replace("T", " ") in found.text
    targets = found.attributes("href")
    assert [t for t in targets if not t.startswith("#")] == ["data:,", f"../../{links.GUIDE}"]


# ----------------------------------------------------------------------------------------- courses


def test_a_course_shows_every_column_the_load_and_what_was_lost(told: Content) -> None:
    chart = lines.course(told.subjects)
    assert chart is not None
    assert [plot.title for plot in chart.plots] == [part.name for part in told.parts]
    assert all(plot.load == (0.3, 0.9) and plot.lost == (0.7,) for plot in chart.plots)
    assert [kind for kind, _ in chart.key()] == ["load", "lost"]
    drawn = Page(drawing.embedded(chart, "x"))
    marks = [str(e.attributes["d"]).count("M") for e in drawn.all("path")]
    assert marks.count(99) == len(told.parts), "an echo each, but the one without a reply"
    assert re.search(r" weave: idle \d+ µs, loaded \d\.\d+ ms\.", chart.in_words())


ODD = st.none() | st.booleans() | st.text(max_size=3) | st.floats(-1e100, 1e100) | st.integers()


@given(
    st.lists(st.tuples(ODD, ODD) | st.tuples(st.floats(0, 2), st.floats(0, 1e3)) | ODD, max_size=9),
    ODD,
    ODD,
)
def test_any_course_that_a_record_may_tell_is_drawn_or_left_out(
    series: list[object], since: object, until: object
) -> None:
    plain = next(r for r in everything().values() if r.scenario == "weave")
    first = dataclasses.replace(
        plain.measurements[0],
        metric="loaded_rtt_ms",
        route="method",
        detail={
            "series": [list(e) if isinstance(e, tuple) else e for e in series],
            "load_since_s": since,
            "load_until_s": until,
            "idle_median_ms": since,
        },
    )
    chart = lines.course([("x", dataclasses.replace(plain, measurements=(first,)))])
    if chart:
        assert drawing.embedded(chart, "x").startswith("<svg")
