"""`xlab compare` as a person meets it: lines while it runs, tables, exit statuses, how to go on."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.comparisons import DATA, World, entries, history, opening, plan
from xlab import cli
from xlab.cli.screens.compare import CompareScreen
from xlab.cli.screens.screen import Screen
from xlab.errors import CapabilityError, XlabError
from xlab.experiments.compare import journal, rounds
from xlab.experiments.compare.evaluation import evaluate
from xlab.experiments.compare.journal import Failed, RoundDone
from xlab.experiments.compare.rounds import Onlooker
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, Look, Noise
from xlab.report import comparison as wording

pytestmark = pytest.mark.usefixtures("same_charts_drawn_once")

FOLDER = Path("results/2025-01-02T120000Z-compare")


@pytest.fixture
def comparison() -> Comparison:
    return comparisons.load(DATA / "comparison")


def shown(comparison: Comparison, width: int = 120) -> str:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        screen = CompareScreen(Screen(stream))
        screen.begins(FOLDER, history(entries()), resumed=False)
        screen.ends(comparison, FOLDER)
    return stream.getvalue()


# -- tables ----------------------------------------------------------------------------------------


def test_a_table_a_class_and_metric_with_the_baseline_above(comparison: Comparison) -> None:
    tables = wording.tables(comparison)
    assert [table.title for table in tables] == [
        "RTT, kernel datapath",
        "TCP 1 stream, kernel datapath",
        "RTT, userspace datapath",
        "TCP 1 stream, userspace datapath",
    ]
    for table in tables:
        assert table.rows[0][0] == "baseline"
    names = [[row[0] for row in table.rows[1:]] for table in tables]
    # The better first.
    assert names[0] == ["bridge", "weave:datapath=fastdp"]
    assert names[3] == ["weave", "ovs-gre:routes=underlay", "ovs-gre"]


def test_a_row_has_ratio_interval_and_verdict_in_words(comparison: Comparison) -> None:
    rows = {row[0]: row for row in wording.tables(comparison)[1].rows}
    figure = next(
        f for f in comparison.figures if (f.method, f.metric) == ("bridge", "tcp_bits_per_second")
    )
    assert figure.to_baseline is not None
    assert figure.to_baseline.ci95 is not None
    low, high = figure.to_baseline.ci95
    assert rows["bridge"][3:6] == (
        f"{figure.to_baseline.median:.2f}",
        f"{low:.2f}–{high:.2f}",
        "slower",
    )
    assert rows["bridge"][-1] == "1 of 2"
    assert rows["baseline"][5] == "the yardstick"


def test_verdicts_in_words(comparison: Comparison) -> None:
    figure = next(f for f in comparison.figures if f.to_baseline)
    assert figure.to_baseline is not None
    told = {
        verdict: wording.verdict(dataclasses.replace(figure.to_baseline, verdict=verdict))
        for verdict in ("faster", "slower", "indistinguishable", "unknown")
    }
    assert told == {
        "faster": "faster",
        "slower": "slower",
        "indistinguishable": "≈ indistinguishable",
        "unknown": "too few builds to tell",
    }


def test_the_end_says_what_to_think_of_it(comparison: Comparison) -> None:
    noisy = Noise("noisy", ("the hypervisor gave up to 9%",), 0.09, 0.1, ())
    said = shown(dataclasses.replace(comparison, noise=noisy))
    assert "machine  noisy   the hypervisor gave up to 9%" in said
    assert "rounds   10 rounds in 5 builds: as many as were asked for" in said
    assert "95 % intervals by bootstrap over 5 builds" in said
    assert f"{FOLDER}/compare.json" in said


def test_why_it_ended(comparison: Comparison) -> None:
    narrow = dataclasses.replace(comparison, ending="narrow")
    assert wording.closing(narrow).endswith("every interval is within ±10%")
    look = Look(10, 5, 0.31, "weave, icmp_rtt_ms")
    bound = dataclasses.replace(comparison, ending="bound", looks=(look,))
    assert wording.closing(bound).endswith("(the widest: weave, icmp_rtt_ms, ±31%)")


def test_a_failed_method_is_named_with_the_reason() -> None:
    told = entries()
    told.insert(-1, Failed("weave", 5, "the router \x1b[31m ended"))
    said = shown(evaluate(history(told)))
    assert "weave failed: the router \N{REPLACEMENT CHARACTER}[31m ended" in said
    assert "weave (failed)" in said


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_the_width_there_is(width: int, comparison: Comparison) -> None:
    said = shown(comparison, width)
    assert "bridge" in said
    if width == 40:
        assert "  × baseline     " in said, "each figure with its name beside it"
    else:
        assert max(map(len, said.splitlines())) <= width


# -- while it runs ---------------------------------------------------------------------------------


def test_a_round_is_a_line_with_its_ratios() -> None:
    stream = io.StringIO()
    screen = CompareScreen(Screen(stream))
    told = entries(plan(["baseline", "bridge"], rounds=3))
    screen.begins(FOLDER, history([opening(plan(["baseline", "bridge"]))]), resumed=False)
    done = next(entry for entry in told if isinstance(entry, RoundDone))
    screen.round_begins(1, ["bridge", "baseline"])
    screen.measuring(1, "bridge")
    screen.step("bridge", "round 1/3: tcp, method h1/c1 > h2/c1")
    screen.round_done(done)
    line = stream.getvalue().splitlines()[-1]
    rtt, tcp = (
        done.measurements["bridge"][i].samples[0] / done.measurements["baseline"][j].samples[0]
        for i, j in ((0, 0), (1, 1))
    )
    assert line.startswith("  round 1")
    assert f"bridge {rtt:.2f}, {tcp:.2f}"[:-1] in line


def test_the_time_left_counts_rounds_and_builds() -> None:
    screen = CompareScreen(Screen(io.StringIO()))
    screen.begins(FOLDER, history([opening(plan(["baseline", "bridge"]))]), resumed=False)
    screen.building(1, ["baseline", "bridge"])
    # From what probes are known to take, before anything was measured.
    assert screen.left() == "about 3 min left"
    screen.all_built(1, 30.0)
    screen.round_begins(1, ["baseline", "bridge"])
    screen._round_seconds.append(100.0)
    # Ten rounds of 100 s, and four builds of 30 s: 1120 s.
    assert screen.left() == "about 19 min left"


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def xlab(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World.instead_of_labs(monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["weaver"], "did you mean weave?"),
        (["baseline"], "baseline alone is no comparison"),
        (["weave:datapath=pigeon"], "datapath=pigeon: one of sleeve, fastdp is wanted"),
        (["bridge", "--precision", "fine"], "--precision: 'fine' is no share such as 10% or 0.1"),
        (["bridge", "--probe", "smell"], "--probe smell: no such probe"),
        (["bridge", "--repeat", "2"], "--repeat is 2; the range is 3"),
        (["bridge", "--streams", "129"], "--streams is 129; the range is 1 to 128 TCP streams"),
        (["bridge", "--topo", "single,2", "--hosts", "2"], "--topo says how many hosts"),
        (["bridge", "--resume", "results/x"], "--resume goes on with what was asked for then"),
        (["--quick", "--resume", "results/x"], "--resume goes on with what was asked for then"),
        (["--resume", "results/nowhere"], "journal.jsonl: No such file"),
    ],
)
def test_wrong_usage(
    arguments: Sequence[str], said: str, xlab: Run, world: World, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, out, err = xlab(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_it_measures_and_tells(xlab: Run, world: World, tmp_path: Path) -> None:
    status, out, _ = xlab("bridge", "weave", "--quick", "--results", tmp_path)
    assert status == 0
    assert "compare    3 methods, 5 rounds in 5 builds   rtt, tcp, loaded-rtt" in out
    assert "build 5" in out
    assert "round 5" in out
    assert "RTT, kernel datapath" in out
    (folder,) = tmp_path.iterdir()
    assert comparisons.load(folder).status == "passed"
    page = folder / "report.html"
    assert "2 methods beside the baseline.</span></h1>" in page.read_text(encoding="utf-8")
    assert f"report{page}" in "".join(out.split()), "wherever the line is broken"


def test_several_streams_are_measured_where_a_number_is_asked_for(
    xlab: Run, world: World, tmp_path: Path
) -> None:
    usual = ("rtt", "tcp", "loaded-rtt")
    for streams, probes in (("8", (*usual, "tcp-parallel")), ("1", usual)):
        results = tmp_path / streams
        asked = ("bridge", "--quick", "--streams", streams, "--results", results)
        status, _, _ = xlab(*asked)
        assert status == 0
        (folder,) = results.iterdir()
        told = comparisons.load(folder)
        assert told.plan.probes == probes
        assert {str(method.parameters["streams"]) for method in told.methods} == {streams}


def test_recovery_is_told_once_a_build(xlab: Run, world: World, tmp_path: Path) -> None:
    world.not_over_it = {("bridge", 2): XlabError("its cable is torn")}
    asked = ("bridge", "--quick", "--repeat", "3", "--probe", "recovery", "--results", tmp_path)
    status, out, _ = xlab(*asked)
    assert status == 0
    assert "rtt, tcp, loaded-rtt, recovery" in out
    assert len([line for line in out.splitlines() if line.startswith("  recovery base")]) == 3
    assert "baseline link flap 200 ms, weave kill 0 µs, host reboot –" in " ".join(out.split())
    assert "bridge: its cable is torn" in out
    rows = [" ".join(line.split()) for line in out.splitlines() if line.startswith("link flap")]
    assert len(rows) == 2
    assert rows[0].startswith("link flap baseline 200 ms")
    assert rows[0].endswith("stopped")
    assert any(line.startswith("weave kill") and "went on" in line for line in out.splitlines())
    assert any(line.startswith("host reboot") and "not back" in line for line in out.splitlines())
    assert "bridge, build 2, after `crash h2`: it did not come back" in " ".join(out.split())


def test_first_packets_are_told_once_a_build(xlab: Run, world: World, tmp_path: Path) -> None:
    asked = ("bridge", "--quick", "--repeat", "3", "--probe", "first-packet", "--results", tmp_path)
    status, out, _ = xlab(*asked)
    assert status == 0
    assert "rtt, tcp, loaded-rtt, first-packet" in out
    lines = [" ".join(line.split()) for line in out.splitlines() if line.startswith("  after  ")]
    assert len(lines) == 3
    assert lines[1].startswith("after baseline first packet 200 ms bridge first packet 200 ms")
    assert any(line.startswith("first packet") for line in out.splitlines()), "in the table"


def test_json_alone_on_stdout(xlab: Run, world: World, tmp_path: Path) -> None:
    status, out, err = xlab("bridge", "--quick", "--results", tmp_path, "--json")
    assert status == 0
    (folder,) = tmp_path.iterdir()
    assert comparisons.from_dict(json.loads(out)) == comparisons.load(folder)
    assert "round 5" in err


def test_exit_statuses(xlab: Run, world: World, tmp_path: Path) -> None:
    world.refused = {"weave": CapabilityError("no tun", "modprobe tun")}
    asked = ("bridge", "weave", "weave:datapath=fastdp", "--quick", "--results", tmp_path)
    status, out, _ = xlab(*asked)
    assert status == 3
    assert "weave skipped: no tun; modprobe tun" in out
    # 1 outranks 3.
    world.broken_claims = {("weave:datapath=fastdp", number) for number in (6, 7)}
    status, out, _ = xlab(*asked)
    assert status == 1
    assert (
        "weave:datapath=fastdp failed, and is built once more: “h1 reaches h2” (hosts) does not"
        in out
    )
    assert "weave:datapath=fastdp failed: “" in out


def test_a_full_disk_at_the_very_end_says_how_to_go_on(
    xlab: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Comparison, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / comparisons.FILE))

    with monkeypatch.context() as patch:
        patch.setattr(comparisons, "save", full)
        status, out, err = xlab("bridge", "--quick", "--results", tmp_path)
    assert status == 1
    (folder,) = tmp_path.iterdir()
    # All has been measured, and is told.
    assert "the yardstick" in out
    assert "rounds   5 rounds in 5 builds: as many as were asked for" in out
    assert "result passed" in " ".join(out.split())
    assert str(comparisons.FILE) not in out
    assert f"5 rounds are kept; to go on: xlab compare --resume {folder}" in err
    assert f"{comparisons.FILE}: No space left on device" in err

    assert xlab("--resume", folder)[0] == 0
    assert len(comparisons.load(folder).rounds) == 5


def test_a_disk_that_is_full_in_between_loses_no_table(
    xlab: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, told: journal.History) -> None:
        if len(told.rounds) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "bridge"))

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "write_records", full)
        status, out, err = xlab("bridge", "--quick", "--results", tmp_path)
    assert status == 1
    assert "the yardstick" in out
    assert "3 rounds: broken off" in out
    assert "result" not in out
    assert "3 rounds are kept; to go on: xlab compare --resume " in err
    assert err.endswith("bridge: No space left on device\n")


def test_an_interrupt_says_how_to_go_on(
    xlab: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Onlooker, done: RoundDone) -> None:
        if done.number == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CompareScreen, "round_done", interrupt)
        status, _, err = xlab("bridge", "--quick", "--results", tmp_path)
    assert status == 130
    (folder,) = tmp_path.iterdir()
    assert f"3 rounds are kept; to go on: xlab compare --resume {folder}" in err
    assert not (folder / comparisons.FILE).exists()

    status, out, _ = xlab("--resume", folder)
    assert status == 0
    assert "goes on  3 rounds are in the journal" in out
    assert len(comparisons.load(folder).rounds) == 5
    assert len(journal.read(folder).sessions) == 2
