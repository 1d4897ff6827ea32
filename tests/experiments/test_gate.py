"""The regression gate: what fails, what does not, and how often it errs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from junitparser import JUnitXml

from xlab import cli
from xlab.errors import RecordError, UsageError
from xlab.experiments import gate
from xlab.experiments.gate import Change, Experiment, Fact, Provenance, Ratios, Summary
from xlab.record import comparisons, record, stats
from xlab.record.record import Clock, Environment, VirtualMachine

DATA = Path(__file__).parent.parent / "data"
RECORDS = DATA / "records"
MACHINE = Environment(
    kernel="6.12",
    cpu_model="a CPU",
    cores=2,
    load=(0.5, 0.5, 0.5),
    xlab="0.1",
    tools={"iperf3": "3.18"},
    datapath="linux bridge",
    container_runtime="emulated",
    sandbox="root",
    congestion_control="cubic",
)


def summary(
    *ratios: Ratios, facts: tuple[Fact, ...] = (), asked: tuple[Experiment, ...] | None = None
) -> Summary:
    provenance = Provenance("2026-01-01T00:00:00+00:00", "2026-01-01", "a", 9, MACHINE)
    return Summary(provenance, ratios, facts, (experiment(),) if asked is None else asked)


def experiment(
    method: str = "bridge", datapath: str = "ovs 3.5.0 userspace (netdev)", **parameters: Any
) -> Experiment:
    return Experiment(method, ASKED | parameters, datapath)


ASKED = {
    "scenario": "bridge",
    "hosts": 2,
    "mtu": 1500,
    "delay_ms": None,
    "settings": {"routes": "tunnel"},
    "duration_s": 1.0,
    "quick": True,
    "repeat": 10,
    "probes": [],
}


def tcp(*builds: tuple[float, ...], method: str = "bridge", tolerance: float = 0.11) -> Ratios:
    return Ratios(method, "tcp_bits_per_second", 1, True, builds, tolerance)


def rtt(*builds: tuple[float, ...], tolerance: float = 0.3) -> Ratios:
    return Ratios("bridge", "icmp_rtt_ms", 1, False, builds, tolerance)


def only(lines: list[Change]) -> Change:
    (line,) = lines
    return line


STEADY = ((0.80, 0.81, 0.79), (0.82, 0.80, 0.80), (0.79, 0.81, 0.80))
SCATTERED = ((0.60, 0.95, 0.70), (1.20, 0.65, 0.75), (0.50, 1.00, 0.68))


def scaled(builds: tuple[tuple[float, ...], ...], by: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(ratio * by for ratio in build) for build in builds)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (tcp(*STEADY), "ok"),
        (tcp(*scaled(STEADY, 0.95)), "ok"),
        (tcp(*scaled(STEADY, 0.8)), "regressed"),
        (tcp(*scaled(STEADY, 1.3)), "improved"),
        (tcp(*SCATTERED), "unclear"),
        (tcp((0.4, 0.4)), "unclear"),
    ],
)
def test_a_rate_that_falls_by_more_than_its_tolerance_has_regressed(
    now: Ratios, verdict: str
) -> None:
    line = only(gate.check(summary(now), summary(tcp(*STEADY))))
    assert line.verdict == verdict
    assert line.failed == (verdict == "regressed")


def test_a_time_that_grows_has_regressed_and_one_that_falls_has_improved() -> None:
    before = summary(rtt(*STEADY))
    assert only(gate.check(summary(rtt(*scaled(STEADY, 1.5))), before)).verdict == "regressed"
    assert only(gate.check(summary(rtt(*scaled(STEADY, 0.5))), before)).verdict == "improved"
    assert only(gate.check(summary(rtt(*scaled(STEADY, 1.2))), before)).verdict == "ok"


def test_the_change_and_its_interval_are_those_of_the_medians() -> None:
    line = only(gate.check(summary(tcp(*scaled(STEADY, 0.8))), summary(tcp(*STEADY))))
    assert line.change == pytest.approx(-0.2)
    assert line.ci90 is not None
    assert line.ci90[0] < -0.2 < line.ci90[1] < -0.15


def test_of_a_single_build_the_other_sides_builds_say_how_they_differ() -> None:
    """Three rounds of one build tell how rounds differ, and nothing of builds."""
    single = tcp((0.60, 0.61, 0.62))
    line = only(gate.check(summary(single), summary(tcp(*STEADY))))
    assert line.verdict == "regressed"
    wide = tcp((0.60,), (0.85,), (1.2,), (0.70,))
    line = only(gate.check(summary(single), summary(wide)))
    assert (line.verdict, line.failed) == ("unclear", False)
    line = only(gate.check(summary(single), summary(tcp((0.8, 0.81, 0.8)))))
    assert line.verdict == "unclear"
    assert line.remark == "beyond the tolerance, but neither side has 3 builds"


def test_where_rounds_scatter_beyond_the_tolerance_it_is_as_wide_as_they_scatter() -> None:
    """Plain hosts that answer now in 6 us and now in 80 must not raise an alarm."""
    wild = tuple((0.1 * 3**power,) for power in (0, 1, 2, 3) * 3)
    before = summary(rtt(*wild))
    line = only(gate.check(summary(rtt(*scaled(wild, 4))), before))
    assert (line.verdict, line.failed) == ("unclear", False)
    assert line.tolerance is not None
    assert line.tolerance > 9
    assert "lie so far apart that up to" in line.remark
    # What is far beyond even that is seen.
    assert only(gate.check(summary(rtt(*scaled(wild, 200))), before)).verdict == "regressed"
    # A rate has nowhere to fall to, so that it is never more than unclear.
    fallen = only(gate.check(summary(tcp(*scaled(wild, 0.5))), summary(tcp(*wild))))
    assert fallen.verdict == "unclear"
    steady = only(gate.check(summary(rtt(*scaled(STEADY, 1.5))), summary(rtt(*STEADY))))
    assert steady.tolerance == rtt(*STEADY).tolerance


def test_the_echoes_before_a_load_do_not_count_beside_a_ping() -> None:
    idle = dataclasses.replace(rtt(*STEADY), metric="idle_rtt_ms")
    slow = dataclasses.replace(idle, builds=scaled(STEADY, 2.0))
    (line,) = gate.check(summary(rtt(*STEADY), slow), summary(rtt(*STEADY), idle))
    assert (line.subject, line.verdict) == ("icmp_rtt_ms", "ok")
    assert only(gate.check(summary(slow), summary(idle))).verdict == "regressed"


def test_what_is_no_longer_measured_is_missed() -> None:
    before = summary(tcp(*STEADY), tcp(*STEADY, method="weave"))
    lines = gate.check(summary(tcp(*STEADY)), before)
    assert [(line.method, line.verdict) for line in lines] == [
        ("bridge", "ok"), ("weave", "missing")
    ]  # fmt: skip
    assert lines[1].failed


@pytest.mark.parametrize("name", ["effective_mtu", "overhead_bytes", "path_mtu_bytes"])
def test_what_is_counted_must_not_change(name: str) -> None:
    before = summary(tcp(*STEADY), facts=(Fact("bridge", name, "1462"),))
    for value, verdict in (("1462", "ok"), ("1461", "regressed"), ("1463", "regressed")):
        now = summary(tcp(*STEADY), facts=(Fact("bridge", name, value),))
        line = gate.check(now, before)[1]
        assert (line.subject, line.before, line.now) == (name, "1462", value)
        assert (line.verdict, line.failed) == (verdict, value != "1462")
    assert gate.check(summary(tcp(*STEADY)), before)[1].verdict == "missing"


def test_what_was_a_ratio_and_is_a_fact_is_not_missed() -> None:
    old = dataclasses.replace(tcp(*STEADY), metric="path_mtu_bytes")
    line = only(gate.check(summary(tcp(*STEADY)), summary(tcp(*STEADY), old)))
    assert line.subject == "tcp_bits_per_second"


def test_another_machine_is_told_of() -> None:
    there = dataclasses.replace(MACHINE, kernel="5.10", tools={"iperf3": "3.9"})
    now = summary(tcp(*STEADY))
    moved = dataclasses.replace(now.provenance, environment=there, noise=("steal 12 %",))
    assert gate.differences(now, now) == []
    assert gate.differences(dataclasses.replace(now, provenance=moved), now) == [
        "the baseline is of kernel 6.12, this is 5.10",
        "the baseline is of iperf3 3.18, this is 3.9",
        "the machine was noisy: steal 12 %",
    ]


# -- one experiment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (experiment(hosts=4), "hosts is 4, was 2 (bridge)"),
        (experiment(mtu=9000), "mtu is 9,000, was 1,500 (bridge)"),
        (experiment(delay_ms=0.5), "delay_ms is 0.5, was unset (bridge)"),
        (
            experiment(settings={"routes": "underlay"}),
            "--set routes is underlay, was tunnel (bridge)",
        ),
        (experiment(duration_s=3.0), "duration_s is 3, was 1 (bridge)"),
        (experiment(quick=False), "quick is no, was yes (bridge)"),
        (
            experiment(datapath="ovs 3.5.0 kernel"),
            "the datapath is ovs kernel, was ovs userspace (netdev) (bridge)",
        ),
    ],
)
def test_a_result_of_another_experiment_is_refused(now: Experiment, told: str) -> None:
    before = summary(tcp(*STEADY))
    with pytest.raises(UsageError) as raised:
        gate.check(summary(tcp(*STEADY), asked=(now,)), before)
    assert str(raised.value) == f"a is another experiment than the baseline: {told}"


def test_what_differs_for_all_methods_is_said_once() -> None:
    before = summary(tcp(*STEADY), asked=(experiment(), experiment("weave")))
    now = summary(tcp(*STEADY), asked=(experiment(hosts=4, mtu=900), experiment("weave", hosts=4)))
    with pytest.raises(UsageError, match=r": hosts is 4, was 2 \(bridge, weave\); mtu is 900"):
        gate.check(now, before)


@pytest.mark.parametrize(
    "now",
    [
        experiment(repeat=30, probes=["flows"], scenario="my/bridge.py"),
        experiment(duration_s=1),
        experiment(datapath="ovs 3.6.1 userspace (netdev)"),
        experiment(settings={"routes": "tunnel", "new-option": "7"}),
        experiment("weave", hosts=4),
    ],
    ids=["more rounds and probes", "JSON's numbers", "a newer OVS", "a newer xlab", "no baseline"],
)
def test_what_does_not_change_ratios_may_differ(now: Experiment) -> None:
    before = summary(tcp(*STEADY))
    assert only(gate.check(summary(tcp(*STEADY), asked=(now,)), before)).verdict == "ok"


def test_a_baseline_that_does_not_say_what_it_is_of_holds_as_before(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    gate.update(file, summary(tcp(*STEADY)))
    data = json.loads(file.read_text())
    del data["experiments"]
    file.write_text(json.dumps(data))
    old, now = gate.load(file), summary(tcp(*STEADY), asked=(experiment(hosts=4),))
    assert only(gate.check(now, old)).verdict == "ok"
    (told,) = gate.differences(now, old)
    assert told.startswith("the baseline does not say with which options it was measured")


def test_comparisons_and_records_say_what_was_asked() -> None:
    comparison = gate.summarise(DATA / "comparison")
    told = {each.method: (each.parameters, each.datapath) for each in comparison.experiments}
    methods = comparisons.load(DATA / "comparison").methods
    assert told == {m.name: (m.parameters, m.datapath) for m in methods if m.status == "passed"}
    assert told
    (folder,) = RECORDS.glob("*Z-ovs-gre")
    ran = record.load(folder)
    assert gate.summarise(folder).experiments == (
        Experiment("ovs-gre", ran.parameters, ran.environment.datapath),
    )


def test_builds_on_different_datapaths_are_no_result(tmp_path: Path) -> None:
    for name in ("*Z-ovs-gre", "*Z-ovs-gre-kernel"):
        (folder,) = RECORDS.glob(name)
        (tmp_path / folder.name).symlink_to(folder)
    with pytest.raises(UsageError, match="ovs-gre was run on several datapaths; check one of"):
        gate.summarise(tmp_path)


def test_the_baseline_that_is_kept_can_be_read() -> None:
    kept = gate.load(DATA.parent.parent / "results" / "baseline" / "quick.json")
    assert not any(line.failed for line in gate.check(kept, kept))


# -- error rates -----------------------------------------------------------------------------------


def drawn(generator: np.random.Generator, builds: int, rounds: int, level: float) -> Ratios:
    """Rounds that scatter by 5 %, builds by 2 %."""
    return tcp(
        *(
            tuple(level * np.exp(generator.normal(generator.normal(0, 0.02), 0.05, size=rounds)))
            for _ in range(builds)
        )
    )


#: How often an error rate is tried: 1 of 100 is the least that can be told.
TIMES = pytest.mark.parametrize("times", [100, pytest.param(300, marks=pytest.mark.slow)])


def share_that_fails(level: float, times: int) -> float:
    generator = np.random.default_rng(4)
    before = summary(drawn(generator, 12, 4, 0.8))
    failed = [
        gate.check(summary(drawn(generator, 3, 4, level)), before)[0].failed for _ in range(times)
    ]
    return sum(failed) / times


@TIMES
def test_false_alarms_are_rare(times: int) -> None:
    assert share_that_fails(0.8, times) < 0.01


@TIMES
def test_a_fifth_less_is_caught(times: int) -> None:
    assert share_that_fails(0.8 * 0.8, times) >= 0.99


def test_builds_are_what_is_drawn() -> None:
    """Rounds of a build that repeat it exactly tell no more than the build itself."""
    wide = stats.clustered_medians([(1.0,) * 50, (2.0,) * 50, (3.0,) * 50])
    assert set(wide) >= {1.0, 2.0, 3.0}
    generator = np.random.default_rng(1)
    groups = [tuple(generator.normal(10, 1, size=n)) for n in (3, 9, 6)]
    medians = stats.clustered_medians(groups)
    assert medians.shape == (stats.RESAMPLES,)
    assert min(map(min, groups)) <= np.min(medians) < np.max(medians) <= max(map(max, groups))
    for bad in ([], [(1.0,), ()]):
        with pytest.raises(ValueError, match="without values"):
            stats.clustered_medians(bad)


# -- files -----------------------------------------------------------------------------------------


def test_a_baseline_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    written = summary(tcp(*STEADY), facts=(Fact("bridge", "effective_mtu", "1500"),))
    gate.update(file, written)
    assert gate.load(file) == written


def test_tolerances_in_the_file_outlive_an_update(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    gate.update(file, summary(tcp(*STEADY)))
    data = json.loads(file.read_text())
    data["ratios"][0]["tolerance"] = 0.05
    file.write_text(json.dumps(data))
    gate.update(file, summary(tcp(*STEADY), rtt(*STEADY)))
    assert [each.tolerance for each in gate.load(file).ratios] == [0.05, 0.3]


def spoil(data: dict[str, object], what: Callable[[dict[str, object]], object]) -> str:
    what(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda data: data.update(schema_version=9), "schema_version"),
        (lambda data: data["ratios"][0].update(builds=[]), "ratios of bridge"),
        (lambda data: data["ratios"][0].update(builds="many"), "ratios[0].builds"),
        (lambda data: data["ratios"][0].update(tolerance=0), "ratios of bridge"),
        (lambda data: data.pop("provenance"), "provenance"),
    ],
)
def test_a_spoilt_baseline_is_named_with_the_place(
    tmp_path: Path, change: Callable[[dict[str, object]], object], place: str
) -> None:
    file = tmp_path / "baseline.json"
    gate.update(file, summary(tcp(*STEADY)))
    file.write_text(spoil(json.loads(file.read_text()), change))
    with pytest.raises(RecordError) as raised:
        gate.load(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert place in str(raised.value)


# -- results ---------------------------------------------------------------------------------------


def test_run_records_have_ratios_and_facts() -> None:
    (folder,) = RECORDS.glob("*Z-ovs-gre")
    found = gate.summarise(folder)
    told = record.load(folder)
    assert {each.method for each in found.ratios} == {"ovs-gre"}
    assert {each.metric for each in found.ratios} >= {"icmp_rtt_ms", "tcp_bits_per_second"}
    assert all(len(each.builds) == 1 for each in found.ratios)
    assert told.path is not None
    assert Fact("ovs-gre", "effective_mtu", str(told.path.effective_mtu)) in found.facts


def values(found: Summary, name: str) -> dict[str, str]:
    return {fact.method: fact.value for fact in found.facts if fact.name == name}


def test_what_a_method_adds_to_a_packet_is_a_fact_of_records(tmp_path: Path) -> None:
    """And if one build adds more than the others, that is a change, too."""
    (folder,) = RECORDS.glob("*Z-ovs-gre")
    told = record.load(folder)
    assert told.path is not None
    assert values(gate.summarise(folder), "overhead_bytes") == {"ovs-gre": "38"}
    more = dataclasses.replace(told.path, overhead_bytes=42)
    record.save(told, tmp_path / "1", {})
    record.save(dataclasses.replace(told, path=more), tmp_path / "2", {})
    both = gate.summarise(tmp_path)
    assert values(both, "overhead_bytes") == {"ovs-gre": "38 or 42"}
    assert values(both, "effective_mtu") == {"ovs-gre": "1462"}
    failed = [line for line in gate.check(both, gate.summarise(folder)) if line.failed]
    assert [line.subject for line in failed] == ["overhead_bytes"]


def test_what_a_method_adds_to_a_packet_is_a_fact_of_comparisons(tmp_path: Path) -> None:
    told = comparisons.load(DATA / "comparison")
    before = gate.summarise(DATA / "comparison")
    assert values(before, "overhead_bytes") == {
        method.name: str(method.overhead_bytes)
        for method in told.methods
        if method.status == "passed"
    }
    assert values(before, "overhead_bytes").items() >= {("ovs-gre", "38"), ("bridge", "0")}

    def adding(overhead: int | None) -> Summary:
        methods = tuple(
            dataclasses.replace(method, overhead_bytes=overhead)
            if method.name == "ovs-gre"
            else method
            for method in told.methods
        )
        comparisons.save(dataclasses.replace(told, methods=methods), tmp_path)
        return gate.summarise(tmp_path)

    for overhead, shown in ((42, "42"), (None, "nothing")):
        failed = [line for line in gate.check(adding(overhead), before) if line.failed]
        assert [(line.method, line.subject, line.before, line.now) for line in failed] == [
            ("ovs-gre", "overhead_bytes", "38", shown)
        ]
    assert not any(line.failed for line in gate.check(before, adding(None))), "an older baseline"


def test_the_mtu_that_a_probe_found_is_a_fact_and_no_ratio(tmp_path: Path) -> None:
    """The largest that passed: an echo that is lost makes it seem less."""
    told = comparisons.load(DATA / "comparison")
    names = [method.name for method in told.methods]

    def probed(largest: float) -> Summary:
        rtts = [point for point in told.points if point.metric == "icmp_rtt_ms"]
        points = [
            dataclasses.replace(
                point,
                metric="path_mtu_bytes",
                unit="B",
                median=1100.0 if point.round == 3 else largest,
            )
            for point in rtts
            if point.route == "method"
        ]
        (figure,) = (
            figure
            for figure in told.figures
            if (figure.method, figure.metric) == (names[1], "icmp_rtt_ms")
        )
        figure = dataclasses.replace(figure, metric="path_mtu_bytes")
        outcome = dataclasses.replace(
            told, points=(*told.points, *points), figures=(*told.figures, figure)
        )
        comparisons.save(outcome, tmp_path)
        return gate.summarise(tmp_path)

    before = probed(1462.0)
    assert "path_mtu_bytes" not in {each.metric for each in before.ratios}
    assert values(before, "path_mtu_bytes")[names[1]] == "1462"
    failed = [line for line in gate.check(probed(1461.0), before) if line.failed]
    assert {(line.subject, line.now) for line in failed} == {("path_mtu_bytes", "1461")}


def test_records_that_did_not_pass_are_no_result() -> None:
    (folder,) = RECORDS.glob("*Z-ovs-gre-skipped")
    with pytest.raises(UsageError, match="no record has passed"):
        gate.summarise(folder)


def test_rounds_in_which_others_kept_the_machine_busy_do_not_count(tmp_path: Path) -> None:
    told = comparisons.load(DATA / "comparison")
    quiet = gate.summarise(DATA / "comparison")
    assert quiet.provenance.left_out == 0

    def busy(*numbers: int) -> Summary:
        rounds = tuple(
            dataclasses.replace(each, foreign_busy_cores=0.5 * told.environment.cores)
            if each.number in numbers
            else each
            for each in told.rounds
        )
        comparisons.save(dataclasses.replace(told, rounds=rounds), tmp_path)
        return gate.summarise(tmp_path)

    some = busy(1, 4)
    assert (some.provenance.rounds, some.provenance.left_out) == (8, 2)
    assert {each.rounds for each in some.ratios} == {8}
    assert len(some.ratios) == len(quiet.ratios)
    assert "2 of 10 rounds do not count: others kept the machine busy in them" in (
        gate.differences(some, quiet)
    )
    none = busy(*range(1, 11))
    lines = gate.check(none, quiet)
    assert {line.verdict for line in lines if line.change is None and line.streams} <= {
        "unclear", "ok",
    }  # fmt: skip
    assert len([line for line in lines if line.verdict == "unclear"]) == len(quiet.ratios)
    assert not any(line.failed for line in lines)
    with pytest.raises(UsageError, match="is no baseline: 10 of 10 rounds do not count"):
        gate.update(tmp_path / "baseline.json", none)


@pytest.mark.parametrize("times", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_a_detectable_change_is_found_by_almost_every_run(times: int) -> None:
    """Rounds drawn as the baseline's were, and worse by as much as that."""
    generator = np.random.default_rng(2)

    def drawn(builds: int, by: float = 1.0) -> tuple[tuple[float, ...], ...]:
        return tuple((float(by * generator.lognormal(0, 0.08)),) for _ in range(builds))

    before = summary(tcp(*drawn(40)), rtt(*drawn(40)))
    changes = gate.detectable_changes(before)
    less, more = changes["tcp_bits_per_second", 1]["bridge"], changes["icmp_rtt_ms", 1]["bridge"]
    assert 0.11 < less < 0.3 < more < 0.6
    runs = [
        gate.check(summary(tcp(*drawn(10, 1 - less)), rtt(*drawn(10, 1 + more))), before)
        for _ in range(times)
    ]
    assert sum(line.failed for lines in runs for line in lines) >= 0.97 * 2 * times


def test_on_a_noisy_machine_only_larger_changes_are_detectable() -> None:
    wide = summary(tcp(*SCATTERED), tcp(*STEADY, method="weave"))
    changes = gate.detectable_changes(wide)["tcp_bits_per_second", 1]
    assert changes["weave"] < 0.2
    assert 0.4 < changes["bridge"] < 1
    assert gate.detectable_changes(summary(tcp(*STEADY[:2]))) == {}


# -- the command -----------------------------------------------------------------------------------


def test_the_command_updates_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = map(str, RECORDS.glob("*Z-ovs-gre"))
    file, xml = tmp_path / "baseline.json", tmp_path / "gate.xml"
    assert cli.main(["check", folder, "--baseline", str(file)]) == 2, "there is no baseline yet"
    assert str(file) in capsys.readouterr().err
    assert cli.main(["check", folder, "--baseline", str(file), "--update"]) == 0
    assert "too few builds to say" in capsys.readouterr().out
    assert cli.main(["check", folder, "--baseline", str(file), "--junit", str(xml)]) == 0
    shown = capsys.readouterr().out
    assert "TCP 1 stream" in shown
    suite = next(iter(JUnitXml.fromfile(str(xml))))
    assert suite.failures == 0
    assert suite.tests == len(gate.load(file).ratios) + len(gate.load(file).facts)


@pytest.fixture
def unclear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed to check a result of which one ratio is worse, in too few builds to say so."""
    monkeypatch.setenv("COLUMNS", "80")
    (folder,) = map(str, RECORDS.glob("*Z-ovs-gre"))
    file = tmp_path / "baseline.json"
    assert cli.main(["check", folder, "--baseline", str(file), "--update"]) == 0
    data = json.loads(file.read_text())
    (tcp,) = (
        r for r in data["ratios"] if (r["metric"], r["streams"]) == ("tcp_bits_per_second", 1)
    )
    tcp["builds"] = [[ratio * 2 for ratio in build] for build in tcp["builds"]]
    file.write_text(json.dumps(data))
    return ["check", folder, "--baseline", str(file)]


def test_one_line_says_what_came_of_it(
    unclear: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(unclear) == 0
    shown = capsys.readouterr().out
    result = " ".join(shown[shown.index("  result ") :].split())
    found = re.fullmatch(
        r"result passed none of (\d+) lines fails: (\d+) ok, 1 unclear; .*", result
    )
    assert found, result
    assert int(found[1]) == int(found[2]) + 1
    assert result.endswith("unclear is no failure without --strict")


def test_strict_takes_what_is_unclear_for_a_failure(
    unclear: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xml = tmp_path / "gate.xml"
    assert cli.main([*unclear, "--strict", "--junit", str(xml)]) == 1
    assert re.search(r"result +failed +1 of \d+ lines fail: ", capsys.readouterr().out)
    assert next(iter(JUnitXml.fromfile(str(xml)))).failures == 1
    assert cli.main([*unclear, "--junit", str(xml)]) == 0
    suite = next(iter(JUnitXml.fromfile(str(xml))))
    assert (suite.failures, suite.skipped) == (0, 1)
    capsys.readouterr()
    assert cli.main([*unclear, "--strict", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["strict"]) == ("failed", True)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_any_width_and_keep_what_they_say(
    unclear: list[str],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    capsys.readouterr()
    assert cli.main(unclear) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    for said in ("? unclear", "-50.0%", "± 11% allowed", "effective MTU", "1462 → 1462"):
        assert said in words


def test_the_command_refuses_another_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = map(str, RECORDS.glob("*Z-ovs-gre"))
    file, xml = tmp_path / "baseline.json", tmp_path / "gate.xml"
    assert cli.main(["check", folder, "--baseline", str(file), "--update"]) == 0
    data = json.loads(file.read_text())
    data["experiments"][0]["parameters"]["hosts"] = 16
    file.write_text(json.dumps(data))
    capsys.readouterr()
    arguments = ["check", folder, "--baseline", str(file), "--junit", str(xml)]
    assert cli.main([*arguments, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    told = f"{Path(folder).name} is another experiment than the baseline: hosts is 2, was 16"
    assert shown.err == f"xlab: {told} (ovs-gre)\n"
    assert not xml.exists()


def test_the_command_fails_for_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = map(str, RECORDS.glob("*Z-ovs-gre"))
    file, xml = tmp_path / "baseline.json", tmp_path / "gate.xml"
    assert cli.main(["check", folder, "--baseline", str(file), "--update"]) == 0
    data = json.loads(file.read_text())
    (mtu,) = (fact for fact in data["facts"] if fact["name"] == "effective_mtu")
    mtu["value"] = "9000"
    file.write_text(json.dumps(data))
    arguments = ["check", folder, "--baseline", str(file)]
    assert cli.main([*arguments, "--junit", str(xml)]) == 1
    assert "✗ regressed" in capsys.readouterr().out
    assert next(iter(JUnitXml.fromfile(str(xml)))).failures == 1
    assert cli.main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [line["subject"] for line in told["lines"] if line["verdict"] == "regressed"] == [
        "effective_mtu"
    ]


def test_the_command_takes_one_tolerance_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = map(str, RECORDS.glob("*Z-ovs-gre"))
    file, table = tmp_path / "baseline.json", tmp_path / "gate.md"
    arguments = ["check", folder, "--baseline", str(file)]
    assert cli.main([*arguments, "--update", "--tolerance", "7%"]) == 0
    assert {each.tolerance for each in gate.load(file).ratios} == {0.07}
    assert cli.main([*arguments, "--update"]) == 0
    assert {each.tolerance for each in gate.load(file).ratios} == {0.07}, "it is kept"
    capsys.readouterr()
    assert cli.main([*arguments, "--tolerance", "0.09", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {line["tolerance"] for line in told["lines"]} == {0.09, None}
    for wrong in ("0", "100%", "-3%", "much"):
        assert cli.main([*arguments, f"--tolerance={wrong}"]) == 2
        assert "tolerance" in capsys.readouterr().err
    assert cli.main([*arguments, "--markdown", str(table)]) == 0
    first, *_, last = table.read_text().splitlines()
    assert first.startswith(f"## ✓ {Path(folder).name}: none of ")
    assert last == "" or last.startswith(("|", "- "))
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ovs-gre")]
    assert len(rows) == len(told["lines"])
    assert any("effective MTU" in row and "ok" in row for row in rows)


# -- the virtual clock -----------------------------------------------------------------------------


def virtual(*ratios: Ratios, identity: str = "a", clock: Clock = "virtual") -> Summary:
    guest = VirtualMachine(identity, "max", "10.0", {}, {}, ("libc6 2, not 1",))
    machine = dataclasses.replace(MACHINE, clock=clock, virtual=guest)
    told = summary(*ratios, asked=(experiment(clock=clock),))
    return dataclasses.replace(
        told, provenance=dataclasses.replace(told.provenance, environment=machine)
    )


@pytest.mark.parametrize(
    ("now", "verdict"), [(0.80, "ok"), (0.79, "ok"), (0.77, "regressed"), (0.83, "improved")]
)
def test_in_virtual_time_one_build_of_each_side_decides(now: float, verdict: str) -> None:
    before = virtual(tcp((0.80,), tolerance=0.02))
    line = only(gate.check(virtual(tcp((now,), tolerance=0.02)), before))
    assert (line.verdict, line.ci90) == (verdict, None)


def test_the_two_clocks_are_never_held_against_each_other() -> None:
    real = summary(tcp(*STEADY))
    with pytest.raises(UsageError, match="clock is virtual, was real"):
        gate.check(virtual(tcp((0.8,))), real)
    with pytest.raises(UsageError, match="clock is real, was virtual"):
        gate.check(summary(tcp(*STEADY), asked=(experiment(clock="real"),)), virtual(tcp((0.8,))))


def test_figures_of_another_guest_are_no_experiment_of_this_one() -> None:
    with pytest.raises(UsageError, match=r"its guest is b, was a \(libc6 2, not 1\)"):
        gate.check(virtual(tcp((0.8,)), identity="b"), virtual(tcp((0.8,))))
