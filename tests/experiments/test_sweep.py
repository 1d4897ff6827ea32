"""Sweeps: what a file asks for, what is kept when one is killed, and what it comes to."""

from __future__ import annotations

import csv
import dataclasses
import errno
import fcntl
import functools
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import Refusal, attempt
from tests.support.reports import HOSTILE, Page
from xlab import cli
from xlab.cli.screens.screen import Screen
from xlab.cli.screens.sweep import SweepScreen
from xlab.errors import RecordError, UsageError
from xlab.experiments.sweep import engine, outcome, spec
from xlab.experiments.sweep.outcome import Failure
from xlab.experiments.sweep.spec import Point, Spec
from xlab.kernel import disk
from xlab.record import comparisons, record
from xlab.record.comparisons import Comparison, Estimate, Figure, Ratio
from xlab.report import drawing, sweeps, virtual
from xlab.report.forms import csv as rows
from xlab.report.forms import html, markdown
from xlab.report.links import GUIDE
from xlab.report.sweeps import Swept

pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

DATA = Path(__file__).parents[1] / "data" / "comparison"
EXAMPLE = Path(__file__).parents[2] / "docs" / "sweep.yaml"
FOUR = b"methods: [bridge]\naxes: {mtu: [1500, 9000], delay: [none, 5ms]}\nquick: true\nrepeat: 3\n"


# -- what a file asks for --------------------------------------------------------------------------


def test_points_are_the_product_of_the_axes_in_the_units_of_requests() -> None:
    found = spec.parse(
        b"methods: [bridge, 'weave:datapath=fastdp']\n"
        b"axes:\n  hosts: [2, 3]\n  mtu: 9000\n  rate: [none, 100mbit]\n  delay: [0ms, 5 ms]\n"
        b"  loss: [none, 1%]\n  flows: [1, 8]\n"
        b"jitter: 1ms\nquick: yes\nrepeat: 4\nprobe: rr\nset: {docker: 28}\n"
    )
    assert len(found.points) == 2 * 1 * 2 * 2 * 2 * 2
    assert found.numbers("rate") == {"none": None, "100mbit": 1e8}
    assert found.numbers("loss") == {"none": 0.0, "1%": 0.01}
    (plain,) = (
        p for p in found.points if set(p.values.values()) == {"2", "9000", "none", "0ms", "1"}
    )
    assert plain.request.rate_bits_per_second is None
    assert plain.request.delay_ms == 0
    assert plain.request.jitter_ms is None
    assert plain.probes == ("rr",)
    wanted = {"3", "9000", "100mbit", "5 ms", "1%", "8"}
    (full,) = (p for p in found.points if set(p.values.values()) == wanted)
    assert full.slug == "hosts=3,mtu=9000,rate=100mbit,delay=5ms,loss=1%,flows=8"
    assert (full.request.hosts, full.request.mtu, full.request.streams) == (3, 9000, 8)
    assert (full.request.rate_bits_per_second, full.request.delay_ms) == (1e8, 5)
    assert (full.request.loss_ratio, full.request.jitter_ms) == (0.01, 1)
    assert (full.request.quick, full.request.duration_s) == (True, 1.0)
    methods, plan = full.comparison()
    assert [method.name for method in methods] == ["baseline", "bridge", "weave:datapath=fastdp"]
    assert methods[1].request.settings == {"docker": "28"}
    assert plan.rounds == 4
    # One stream is measured anyway; eight are for having said so.
    assert {"rr", "tcp-parallel"} <= set(plan.probes)


def test_without_axes_there_is_one_point_with_all_methods() -> None:
    (only,) = spec.parse(b"quick: true").points
    assert only.slug == "only"
    assert len(only.comparison()[0]) > 4


def test_the_order_is_mixed_and_always_the_same() -> None:
    content = b"methods: bridge\naxes: {mtu: [1000, 1100, 1200, 1300, 1400, 1500, 1600, 1700]}"
    first, again = (spec.parse(content).points for _ in range(2))
    turned = spec.parse(content.replace(b"1000, 1100, 1200", b"1200, 1100, 1000")).points
    slugs = [point.slug for point in first]
    assert slugs == [point.slug for point in again] == [point.slug for point in turned]
    assert slugs != sorted(slugs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a", "a mapping is wanted"),
        ("", "a mapping is wanted"),
        ("axis: {}", "there is no 'axis'; did you mean axes?"),
        ("axes: {mut: [1500]}", "axes: there is no 'mut'; did you mean mtu?"),
        ("axes: {colour: [red]}", "axes: there is no 'colour'; there are hosts, mtu"),
        ("axes: [mtu]", "axes: a mapping is wanted"),
        ("axes: {mtu: []}", "axes.mtu: a list is wanted"),
        ("axes: {mtu: [1500, [9000]]}", "axes.mtu[1]: a value is wanted"),
        ("axes: {mtu: [1500, 9000, 100]}", "axes.mtu[2]: --mtu is 100; the range is 576"),
        ("axes: {mtu: [1500, big]}", "axes.mtu[1]: 'big' is no whole number"),
        ("axes: {hosts: [2, 3, 02]}", "axes.hosts[2]: 02 stands there already"),
        ("axes: {delay: [5]}", "axes.delay[0]: '5' is not a time"),
        ("axes: {delay: [5ms, 5000us]}", "axes.delay[1]: 5000us stands there already"),
        ("axes: {rate: [none, fast]}", "axes.rate[1]: 'fast' is not a rate"),
        ("axes: {loss: [none, 5]}", "axes.loss[1]: loss is 5"),
        ("axes: {flows: [0]}", "axes.flows[0]: --streams is 0"),
        (f"axes: {{mtu: [{'1' * 500}]}}", "axes.mtu[0]: more than 100 characters"),
        ("axes: {mtu: [1500]}\naxes: {}", "line 2: 'axes' stands here twice"),
        ("axes: {mtu: [1500}", "line 1: "),
        ("axes: {mtu: *x}", "line 1: found undefined alias"),
        ("methods: [bridgee]\naxes: {hosts: 3}", "methods[0]: no scenario is called 'bridgee'"),
        ("methods: [bridge]\naxes: {hosts: 3}\nrepeat: 2", "at hosts=3: --repeat is 2"),
        ("methods: [bridge]\nprobe: [nonsense]", "at the only point: --probe nonsense"),
        ("methods: [bridge]\nset: {colour: red}", "--set colour: no scenario has an option"),
        ("methods: [bridge]\nset: [a]", "set: a mapping is wanted"),
        ("methods: [ovs-gre]\naxes: {hosts: 1000}", "at hosts=1000: "),
        ("methods: [bridge]\njitter: 1ms", "jitter: it varies a delay"),
        ("methods: [bridge]\naxes: {delay: 1ms}\njitter: 2ms", "at delay=1ms: --jitter is 2"),
        ("quick: perhaps", "quick: 'perhaps' is neither true nor false"),
        ("containers: 0", "containers: --containers is 0"),
        ("precision: much", "precision: 'much' is no share"),
        (
            f"axes: {{mtu: {list(range(1000, 1040))}, hosts: {list(range(2, 42))}}}",
            "axes: 40 hosts × 40 mtu make 1,600 points; at most 1,000",
        ),
        ("\x00", "no YAML: "),
        ("[" * 1000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as refused:
        spec.load(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)


def test_a_file_of_any_kind_is_named(tmp_path: Path) -> None:
    for name, make in (
        ("nowhere", str),
        ("folder", Path.mkdir),
        ("pipe", os.mkfifo),
        ("large", lambda file: file.write_bytes(b"# " * (1 << 20))),
        ("latin", lambda file: file.write_bytes(b"methods: \xff")),
    ):
        make(tmp_path / name)
        with pytest.raises(UsageError, match=name):
            spec.load(tmp_path / name)


_SCALAR = st.sampled_from(
    ["1500", "9000", "576", "none", "5ms", "1%", "0.5%", "100mbit", "2", "8", "bridge", "true", "x"]
) | st.text(max_size=6)
_ANY = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SCALAR, inner, max_size=3),
    max_leaves=6,
)
_KEYED = st.dictionaries(
    st.sampled_from(["axes", "quick", "repeat", "jitter", "set", "probe", "duration", "most"]), _ANY
)
_AXES = st.dictionaries(st.sampled_from(list(spec.AXES)), st.lists(_SCALAR, max_size=3) | _SCALAR)


@settings(deadline=None)
@given(
    content=st.binary(max_size=60)
    | _KEYED.map(lambda found: json.dumps({"methods": "bridge", **found}).encode())
    | _AXES.map(lambda axes: json.dumps({"methods": "bridge", "axes": axes}).encode())
)
@example(b"a: &a [*a]")
@example(b"axes: &a {mtu: *a}")
@example(b"? [a]\n: b")
@example(b"<<: {quick: true}")
@example(b"!!python/object/apply:os.system ['true']")
def test_any_file_is_points_apart_from_each_other_or_refused(content: bytes) -> None:
    found = attempt(lambda: spec.parse(content), UsageError)
    if isinstance(found, Refusal):
        return
    folders = [point.slug for point in found.points]
    assert len(set(folders)) == len(folders) > 0
    assert all(name and "/" not in name and not name.startswith(".") for name in folders)
    for point in found.points:
        # It goes to a worker as JSON, and is the same there.
        told = json.loads(json.dumps(dataclasses.asdict(point)))
        assert record.decode(Point, told, "") == point


def test_the_example_is_one() -> None:
    assert len(spec.load(EXAMPLE).points) > 1


# -- what is kept ----------------------------------------------------------------------------------


@functools.cache
def sample() -> Comparison:
    return comparisons.load(DATA)


def compared(point: Point, tcp: float = 0.5) -> Comparison:
    """What comparing a point would have told."""
    told = sample()
    methods, plan = point.comparison()
    of = {method.name: method for method in told.methods}
    ratios = {
        streams: Ratio(median, (0.9 * median, 1.1 * median), 3, 3, "slower")
        for streams, median in ((1, 0.03), (point.request.streams, tcp))
    }
    value = Estimate(1e9, (0.9e9, 1.1e9), 3, 3)
    return dataclasses.replace(
        told,
        plan=plan,
        methods=tuple(
            dataclasses.replace(
                of[method.name],
                parameters=json.loads(json.dumps(dataclasses.asdict(method.request))),
            )
            for method in methods
        ),
        figures=tuple(
            Figure(
                "bridge", "tcp_bits_per_second", streams, "bit/s", True, value, None, ratio, None,
                {},
            )
            for streams, ratio in ratios.items()
        ),
    )  # fmt: skip


class Workers:
    """Stand in for a cluster: points are done at once, until it is cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.cut_after: int | None = None
        #: Who measures on this machine before.
        self.other = ""
        self.tells: dict[str, Failure] = {}
        monkeypatch.setattr(engine, "embedded", self._embedded)
        monkeypatch.setattr(engine, "carry_out", self._carry_out)
        monkeypatch.setattr(engine, "workers", lambda _: 1)

    @contextmanager
    def _embedded(self, folder: Path) -> Iterator[None]:
        yield

    def _carry_out(
        self, _: None, points: Sequence[Point], waits: Callable[[str], object]
    ) -> Iterator[tuple[Point, Any]]:
        if self.other:
            waits(self.other)
        for number, point in enumerate(points):
            if number == self.cut_after:
                raise KeyboardInterrupt
            self.asked.append(point.slug)
            yield point, self.tells.get(point.slug) or compared(point)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workers:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "asked.yaml").write_bytes(FOUR)
    return Workers(monkeypatch)


def the_folder() -> Path:
    (folder,) = Path("results").iterdir()
    return folder


SLUGS = {f"mtu={mtu},delay={delay}" for mtu in (1500, 9000) for delay in ("none", "5ms")}


@pytest.mark.parametrize("cut_after", range(4))
def test_cut_anywhere_it_goes_on_with_what_is_missing(
    workers: Workers, capsys: pytest.CaptureFixture[str], cut_after: int
) -> None:
    workers.cut_after = cut_after
    assert cli.main(["sweep", "asked.yaml"]) == 130
    folder = the_folder()
    kept = f"{cut_after} point{' is' if cut_after == 1 else 's are'} kept"
    assert f"{kept}; to go on: xlab sweep --resume {folder}\n" in capsys.readouterr().err
    assert not (folder / outcome.FILE).exists()
    before = {file: file.read_bytes() for file in folder.glob("points/*/compare.json")}
    assert len(before) == cut_after
    # As a kill in the middle of writing leaves it.
    torn = folder / "points" / workers.asked[0] if workers.asked else folder
    (torn / ".partial-999999999-compare.json").write_text('{"half')

    done, workers.asked, workers.cut_after = set(workers.asked), [], None
    assert cli.main(["sweep", "--resume", str(folder)]) == 0
    assert set(workers.asked) == SLUGS - done
    assert {file: file.read_bytes() for file in before} == before
    assert not list(folder.rglob(".partial*"))
    found = outcome.load(folder)
    assert [point.slug for point in found.points] == [
        "mtu=1500,delay=none", "mtu=1500,delay=5ms", "mtu=9000,delay=none", "mtu=9000,delay=5ms",
    ]  # fmt: skip
    assert (found.status, found.reason) == ("passed", "")
    assert (folder / outcome.SPEC_FILE).read_bytes() == FOUR
    assert {file.name for file in folder.glob("*.svg")} == {"mtu.svg", "delay.svg"}
    assert (folder / "report.html").is_file()

    # Once all is there nothing is measured any more.
    workers.asked = []
    assert cli.main(["sweep", "--resume", str(folder)]) == 0
    assert workers.asked == []


@pytest.mark.parametrize("kept", [1, 4])
def test_a_full_disk_loses_no_table(
    workers: Workers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    """Be it a point that has no room any more, or what it all came to."""
    keep, points = outcome.Folder.keep, iter(range(4))

    def full(folder: outcome.Folder, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.path))

    def keep_some(folder: outcome.Folder, point: Point, told: Comparison) -> None:
        (keep if next(points) < kept else full)(folder, point, told)

    monkeypatch.setattr(outcome.Folder, "keep", keep_some)
    monkeypatch.setattr(outcome.Folder, "finish", full)
    assert cli.main(["sweep", "asked.yaml"]) == 1
    told = capsys.readouterr()
    table = told.out[told.out.index("RTT") :]
    # The point without room has been measured as well.
    assert table.count("not measured") == max(0, 4 - kept - 1), told.out
    assert told.err.endswith(f"{the_folder()}: No space left on device\n")


@pytest.mark.parametrize(
    ("statuses", "ends_with"),
    [(["skipped"], 3), (["failed"], 1), (["skipped", "failed"], 1)],
)
def test_a_point_that_fails_is_kept_as_failed_and_tried_again(
    workers: Workers, capsys: pytest.CaptureFixture[str], statuses: list[Any], ends_with: int
) -> None:
    names = sorted(SLUGS)[: len(statuses)]
    workers.tells = {
        name: Failure(status, "the dog ate it")
        for name, status in zip(names, statuses, strict=True)
    }
    assert cli.main(["sweep", "asked.yaml", "--json"]) == ends_with
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said == json.loads((the_folder() / outcome.FILE).read_text())
    assert set(workers.asked) == SLUGS
    assert {p["slug"] for p in said["points"] if p["status"] != "passed"} == set(names)
    assert said["status"] == ("failed" if "failed" in statuses else "skipped")
    assert "the dog ate it" in said["reason"]
    assert f"{names[0].replace(',', ' ')} {statuses[0]}: the dog ate it" in captured.err

    workers.tells, workers.asked = {}, []
    assert cli.main(["sweep", "--resume", str(the_folder())]) == 0
    assert set(workers.asked) == set(names)


@pytest.mark.parametrize("place", [outcome.POINTS, f"{outcome.POINTS}/mtu=1500"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda place: place.symlink_to("/tmp")])
def test_nothing_is_measured_where_nothing_can_be_kept(
    make: Callable[[Path], object], place: str, tmp_path: Path
) -> None:
    (tmp_path / outcome.SPEC_FILE).write_text("methods: [bridge]\naxes: {mtu: [1500, 9000]}\n")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    make(tmp_path / place)
    with (
        pytest.raises(UsageError, match=f"{place}: not a folder of this sweep's own"),
        outcome.Folder.go_on(tmp_path),
    ):
        pass


def test_what_is_gone_on_with_is_what_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders may be exchanged by whoever may write to the one above them."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    for each, method in ((folder, "bridge"), (other, "baseline")):
        (each / outcome.POINTS).mkdir(parents=True)
        (each / outcome.SPEC_FILE).write_text(f"methods: [{method}]\naxes: {{mtu: [1500]}}\n")
    is_trusted = disk.is_trusted

    def late(found: os.stat_result) -> bool:
        if (tmp_path / "other").exists():
            folder.rename(tmp_path / "looked at")
            other.rename(folder)
        return is_trusted(found)

    monkeypatch.setattr(disk, "is_trusted", late)
    with outcome.Folder.go_on(folder) as begun:
        (point,) = begun.spec.points
    assert tuple(point.methods) == ("bridge",)


def test_a_strangers_is_not_gone_on_with(tmp_path: Path) -> None:
    """It says which programs are run, with our rights."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / outcome.SPEC_FILE).write_text("methods: [baseline]\n")
    for strange in (tmp_path / outcome.SPEC_FILE, tmp_path):
        os.chown(strange, 12345, 12345)
        with (
            pytest.raises(UsageError, match=r"somebody else's sweep \(uid 12345\)"),
            outcome.Folder.go_on(tmp_path),
        ):
            pass
        os.chown(strange, 0, 0)


def test_what_is_in_the_folder_must_be_what_the_file_asks_for(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "asked.yaml"]) == 0
    folder = the_folder()
    edited = folder / outcome.SPEC_FILE
    for old, new, said in (
        (b"[bridge]", b"[weave]", "it compares baseline, bridge; sweep.yaml asks for"),
        (b"repeat: 3", b"repeat: 4", "rounds is 3; sweep.yaml asks for 4"),
        (b"quick: true", b"duration: 1", "quick is True; sweep.yaml asks for False"),
        (b"repeat: 3", b"repeat: 3\ncontainers: 3", "containers is 2; sweep.yaml asks for 3"),
    ):
        edited.write_bytes(FOUR.replace(old, new))
        assert cli.main(["sweep", "--resume", str(folder)]) == 2
        assert said in capsys.readouterr().err
    edited.write_bytes(FOUR)
    (damaged, *_) = folder.glob("points/*/compare.json")
    damaged.write_text("{")
    assert cli.main(["sweep", "--resume", str(folder)]) == 2
    assert f"{damaged}:1:2: not JSON" in capsys.readouterr().err
    assert damaged.read_text() == "{"


def test_two_do_not_go_on_with_one_sweep(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = spec.parse(FOUR)
    with outcome.Folder.begin(Path("results"), FOUR, asked) as folder:
        assert cli.main(["sweep", "--resume", str(folder.path)]) == 2
    said = capsys.readouterr().err
    assert re.search(r"is being measured right now( by process \d+)?\n", said)
    assert "kept" not in said
    reader = os.open(folder.path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX)  # which asks for no right to write
    with outcome.Folder.go_on(folder.path):
        pass
    os.close(reader)


def test_a_sweep_that_waits_for_another_says_so_on_the_screen(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.other = "process 4711 measures a sweep on here"
    assert cli.main(["sweep", "asked.yaml"]) == 0
    before, _, after = capsys.readouterr().out.partition("  waits    process 4711 measures")
    assert "each point" in before
    assert "1/4" in after


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either FILE.yaml or --resume FOLDER"),
        (["asked.yaml", "--resume", "x"], "either FILE.yaml or --resume FOLDER"),
        (["nowhere.yaml"], "nowhere.yaml: No such file or directory"),
        (["--resume", "nowhere"], "nowhere/sweep.yaml: No such file or directory"),
    ],
)
def test_wrong_usage(
    workers: Workers, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.main(["sweep", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path("results").exists()


# -- what it comes to ------------------------------------------------------------------------------


def swept(content: bytes, slower: float = 1.0) -> tuple[Spec, outcome.Sweep]:
    asked = spec.parse(content)
    found = {
        point.slug: compared(point, tcp=0.1 + slower * point.request.streams / 100)
        for point in asked.points
    }
    return asked, outcome.evaluate(asked, found, {}, "2025-01-02T13:00:00.000+00:00")


def test_tables_have_a_row_a_point_and_method_with_the_streams_of_the_point() -> None:
    _, sweep = swept(b"methods: bridge\naxes: {mtu: [1500, 9000], flows: [1, 8]}\nrepeat: 3")
    (table,) = sweeps.tables(sweep)
    titles = [column.title for column in table.columns]
    tcp = titles.index("TCP")
    assert titles[:3] == ["mtu", "flows", "method"]
    assert [(*row[:3], *row[tcp : tcp + 2]) for row in table.rows] == [
        (mtu, flows, "bridge", middle, interval)
        for mtu in ("1500", "9000")
        for flows, middle, interval in (
            ("1", "0.110", "0.099–0.121"),
            ("8", "0.180", "0.162–0.198"),
        )
    ]


def test_a_chart_an_axis_shows_ratios_where_the_other_axes_begin(tmp_path: Path) -> None:
    _, sweep = swept(
        b"methods: bridge\nrepeat: 3\n"
        b"axes: {mtu: 1500, rate: [none, 1gbit, 10mbit], flows: [1, 2, 8, 16]}"
    )
    charts = sweeps.charts(sweep)
    # One MTU makes no line, and no limit is no rate; the first rate of all is none.
    assert set(charts) == {"rate", "flows"}
    (plot,) = charts["flows"].plots
    assert charts["flows"].note == "at mtu 1500, rate none"
    (line,) = plot.lines
    assert list(line.x) == [1, 2, 8, 16]
    assert list(line.y) == pytest.approx([0.11, 0.12, 0.18, 0.26])
    assert line.said == "0.110 to 0.26"
    assert list(charts["rate"].plots[0].lines[0].x) == [1e7, 1e9]
    files = drawing.save(charts, tmp_path)
    assert sorted(file.name for file in files) == ["flows.png", "flows.svg", "rate.png", "rate.svg"]
    drawn = (tmp_path / "rate.svg").read_text()
    assert "10 Mbit/s" in drawn
    assert "95 % interval" in drawn
    assert "0.110" in charts["flows"].in_words()


@pytest.mark.parametrize(
    ("took", "left", "at_once", "running_s", "estimate"),
    [
        ([], 3, 1, 0, None),
        ([10, 20, 60], 3, 1, 0, 60),
        ([20], 3, 1, 5, 55),
        ([20], 3, 1, 500, 40),
        ([20], 3, 2, 0, 40),
        ([20], 3, 0, 0, 60),
        ([20], 0, 1, 5, 0),
    ],
)
def test_what_is_left_is_estimated_from_what_has_ended(
    took: list[float], left: int, at_once: int, running_s: float, estimate: float | None
) -> None:
    assert outcome.left_s(took, left, at_once, running_s) == estimate


@pytest.mark.parametrize(
    ("points", "after_s", "said"),
    [
        (0, 0, "about 3 min left"),
        (0, 600, "at least 2 min left"),
        (1, 0, "about 60 min left"),
        (1, 600, "about 50 min left"),
        (1, 1500, "at least 40 min left"),
        (3, 600, "about 10 min left"),
        (3, 1500, "longer than the others"),
    ],
)
def test_the_estimate_says_when_a_point_takes_longer_than_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, points: int, after_s: float, said: str
) -> None:
    asked = spec.parse(FOUR)
    done = [compared(point) for point in asked.points[:points]]
    screen = SweepScreen(Screen(io.StringIO()))
    screen.begins(asked, tmp_path, done, 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + after_s)
    assert screen.left() == said


def test_of_what_nobody_knows_before_there_is_no_estimate_until_a_point_has_ended(
    tmp_path: Path,
) -> None:
    asked = spec.parse(FOUR + b"clock: virtual\n")
    screen = SweepScreen(Screen(io.StringIO()))
    screen.begins(asked, tmp_path, [], 1)
    assert screen.left() == "no estimate yet"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=50) | st.sampled_from([b"{}", b"[]", b'{"schema_version": 1}']))
def test_a_damaged_outcome_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / outcome.FILE).write_bytes(content)
    found = attempt(lambda: outcome.load(tmp_path), RecordError)
    assert isinstance(found, Refusal)
    assert outcome.FILE in found


def test_a_report_tells_a_sweep_again(
    workers: Workers, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["sweep", "asked.yaml"]) == 0
    folder = str(the_folder())
    first = capsys.readouterr().out
    assert cli.main(["report", folder]) == 0
    again = capsys.readouterr().out
    table = again[: again.index("\n\n")]
    assert table.count("bridge") == 4
    assert table in first
    assert cli.main(["report", folder, "--json"]) == 0
    kept = the_folder() / outcome.FILE
    assert json.loads(capsys.readouterr().out) == json.loads(kept.read_text())
    assert cli.main(["report", folder, "--output", "again.txt"]) == 0
    assert table in Path("again.txt").read_text()
    assert cli.main(["report", folder, "--charts", "drawn"]) == 0
    assert {file.name for file in Path("drawn").iterdir()} == {
        "mtu.svg", "mtu.png", "delay.svg", "delay.png",
    }  # fmt: skip
    for name in ("report.html", "report.md"):
        assert cli.main(["report", folder, "--output", f"{folder}/again-{name}"]) == 0
        kept = the_folder() / name
        assert (the_folder() / f"again-{name}").read_text() == kept.read_text()
    assert cli.main(["report", folder, "--output", "again.csv"]) == 0
    assert len(Path("again.csv").read_text().splitlines()) > 4
    assert cli.main(["report", folder, "--output", "again.xml"]) == 2
    said = capsys.readouterr().err
    assert said == "xlab: of a sweep there is no junit: there are text, csv, html, json, markdown\n"


# -- a page, Markdown, CSV -------------------------------------------------------------------------


def hostile(sweep: outcome.Sweep) -> outcome.Sweep:
    """A sweep out of a file that means no good, with a point that failed."""
    first, *others = sweep.points
    broken = dataclasses.replace(
        first, status="failed", reason=HOSTILE, methods=(), figures=(), seconds=None, noise=None
    )
    methods = tuple(dataclasses.replace(m, name=f"{m.name}{HOSTILE}") for m in others[0].methods)
    renamed = dataclasses.replace(others[0], methods=methods, slug=f"../../{HOSTILE}")
    return dataclasses.replace(sweep, points=(broken, renamed, *others[1:]), notes=(HOSTILE,))


def test_the_page_has_every_point_chart_and_file(tmp_path: Path) -> None:
    _, sweep = swept(b"methods: bridge\naxes: {mtu: [1500, 9000], delay: [none, 5ms]}\nrepeat: 3")
    page = Page(html.of_sweep(Swept(sweep, tmp_path), tmp_path))
    (heading,) = page.all("h1")
    assert heading.text == "4 points (mtu × delay): bridge beside plain hosts."
    assert len([e for e in page.all("svg") if e.attributes.get("class") == "chart"]) == 2
    links = [href for href in page.attributes("href") if href.endswith((".json", ".yaml"))]
    assert links == [
        "sweep.json",
        "sweep.yaml",
        *(f"points/{quote(point.slug)}/compare.json" for point in sweep.points),
    ]
    assert page.text.count("mtu=9000 delay=5ms") == 1
    alone = html.of_sweep(Swept(sweep, tmp_path, linked=False), tmp_path)
    assert not [href for href in Page(alone).attributes("href") if href.endswith(".json")]


def test_nothing_in_a_sweep_becomes_markup_or_leads_out_of_its_folder(tmp_path: Path) -> None:
    _, sweep = swept(b"methods: bridge\naxes: {mtu: [1500, 9000], flows: [1, 8]}\nrepeat: 3")
    source = html.of_sweep(Swept(hostile(sweep), tmp_path), tmp_path)
    page = Page(source)
    assert not {"script", "img", "iframe"} & {element.name for element in page.elements}
    targets = [href for href in page.attributes("href") if not href.endswith(GUIDE)]
    assert not [href for href in targets if ".." in href]
    assert "1 of 4 points failed" in page.text or "3 of 4 points passed" in page.text
    said = markdown.of_sweep(Swept(hostile(sweep), tmp_path), tmp_path)
    assert not re.search(r"(?<!\\)<", said)
    assert "..](" not in said.replace(f"{GUIDE})", "")


def test_csv_has_a_line_a_figure_and_one_for_what_has_none() -> None:
    _, sweep = swept(b"methods: bridge\naxes: {mtu: [1500, 9000], rate: [none, 1gbit]}\nrepeat: 3")
    found = list(csv.DictReader(io.StringIO(rows.of_sweep(Swept(sweep, Path()), Path()))))
    told = [row for row in found if row["method"] == "bridge"]
    assert [
        (row["mtu_number"], row["rate"], row["rate_number"], row["streams"]) for row in told
    ] == [
        (mtu, rate, number, streams)
        for mtu in ("1500", "9000")
        for rate, number in (("none", ""), ("1gbit", "1000000000.0"))
        for streams in ("1", "4")
    ]
    assert {row["metric"] for row in told} == {"tcp_bits_per_second"}
    assert float(told[0]["value"]) == 1e9
    assert float(told[0]["to_baseline"]) == 0.03
    assert [float(told[0][f"to_baseline_ci95_{end}"]) for end in ("low", "high")] == pytest.approx(
        [0.027, 0.033]
    )
    assert {row["verdict"] for row in told} == {"slower"}
    # The baseline has no figures in this one, and says so once a point.
    assert len([row for row in found if row["method"] == "baseline" and not row["metric"]]) == 4
    told_badly = Swept(hostile(sweep), Path())
    broken = list(csv.DictReader(io.StringIO(rows.of_sweep(told_badly, Path()))))
    assert [row["status"] for row in broken if not row["method"]] == ["failed"]
    assert not any(cell.startswith(("=", "+", "@")) for row in broken for cell in row.values())
    named_badly = dataclasses.replace(
        sweep, axes=(dataclasses.replace(sweep.axes[0], name="=cmd"),)
    )
    heading, *_ = rows.of_sweep(Swept(named_badly, Path()), Path()).splitlines()
    assert heading.startswith("point,'=cmd,'=cmd_number,method")


# -- the clock -------------------------------------------------------------------------------------


def test_the_file_says_the_clock_or_whoever_starts_it(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("methods: [bridge]\naxes:\n  mtu: [1500, 9000]\nclock: virtual\n")
    found, content = spec.with_clock(file, None)
    assert {point.request.clock for point in found.points} == {"virtual"}
    assert {point.request.duration_s for point in found.points} == {1.0}
    assert content == file.read_bytes()
    other, content = spec.with_clock(file, "real")
    assert {point.request.clock for point in other.points} == {"real"}
    assert spec.parse(content) == other, "who goes on with it has the same clock"
    with pytest.raises(UsageError, match="it is real or virtual"):
        spec.with_clock(file, "sun")


def test_a_sweep_in_virtual_time_says_so_wherever_it_shows_figures() -> None:
    content = b"methods: [bridge]\naxes:\n  mtu: [1500, 9000]\nclock: virtual\n"
    _, told = swept(content)
    assert told.clock == "virtual"
    assert all("virtual time" in table.title for table in sweeps.tables(told))
    assert virtual.MEANING in Swept(told, Path()).verdict.findings
    assert all("virtual time" in chart.title for chart in sweeps.charts(told).values())
