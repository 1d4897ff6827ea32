"""What a journal comes to: figures, places, when to stop, and whether the machine was quiet."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.comparisons import (
    DATA,
    START,
    entries,
    history,
    measured,
    opening,
    plan,
    sample,
)
from xlab.errors import RecordError
from xlab.experiments.compare import noise
from xlab.experiments.compare.evaluation import ending, evaluate, look
from xlab.experiments.compare.journal import (
    Built,
    Ended,
    Entry,
    Failed,
    History,
    RoundDone,
    Session,
)
from xlab.experiments.compare.noise import judge
from xlab.kernel.environment import cpu_ticks
from xlab.record import comparisons, record
from xlab.record.comparisons import Comparison, Figure, Look, Round

RTT, TCP = ("icmp_rtt_ms", 1), ("tcp_bits_per_second", 1)


def upto(told: Sequence[Entry], rounds: int) -> History:
    """The history when so many rounds were done, and nothing after."""
    last = next(
        place
        for place, entry in enumerate(told)
        if isinstance(entry, RoundDone) and entry.number == rounds
    )
    return history(told[: last + 1])


def figure(comparison: Comparison, method: str, key: tuple[str, int] = TCP) -> Figure:
    return next(f for f in comparison.figures if (f.method, (f.metric, f.streams)) == (method, key))


# -- the format ------------------------------------------------------------------------------------


def test_the_sample_is_what_its_journal_comes_to() -> None:
    """`python tests/support/comparisons.py` writes it anew; an old one must stay readable."""
    assert comparisons.load(DATA / "comparison") == evaluate(history(entries()))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    comparison = evaluate(history(entries()))
    file = comparisons.save(comparison, tmp_path)
    assert comparisons.load(file) == comparisons.load(tmp_path) == comparison
    assert next(iter(json.loads(file.read_text()))) == "schema_version"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version: expected 1, found 2"),
        ({"methods": []}, "methods: the baseline is missing"),
        ({"ending": "boredom"}, "ending: expected narrow | planned | bound | alone"),
        ({"noise": None}, "noise: expected an object"),
        ({"rounds": [{}]}, "rounds[0].number: missing"),
    ],
)
def test_a_corrupt_one_is_named_with_the_place(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    data = evaluate(history(entries())).to_dict() | change
    (tmp_path / comparisons.FILE).write_text(json.dumps(data))
    with pytest.raises(RecordError) as caught:
        comparisons.load(tmp_path)
    assert f"{tmp_path / comparisons.FILE}: {said}" in str(caught.value)


# -- figures ---------------------------------------------------------------------------------------


def test_ratios_are_to_the_baseline_and_the_control_of_the_same_round() -> None:
    names = ["baseline", "bridge"]
    asked = plan(names, rounds=3, rounds_per_build=1)
    told: list[Entry] = [opening(asked), Session(START)]
    values = {  # of round, method and route: weather makes each round different
        1: {"baseline": 100.0, "bridge": 50.0, "control": 80.0},
        2: {"baseline": 10.0, "bridge": 6.0, "control": 8.0},
        3: {"baseline": 1000.0, "bridge": 400.0, "control": 1000.0},
    }
    for number, of_round in values.items():
        told += [Built(m.name, number, sample(m)) for m in opening(asked).methods]
        told.append(
            RoundDone(
                number=number,
                build=number,
                started_at=START,
                order=("bridge", "baseline"),
                seconds=dict.fromkeys(names, 1.0),
                measurements={
                    "baseline": (
                        measured(TCP[0], of_round["baseline"], number=number, build=number),
                    ),
                    "bridge": (
                        measured(TCP[0], of_round["bridge"], number=number, build=number),
                        measured(
                            TCP[0], of_round["control"], number=number, build=number,
                            route="control",
                        ),
                    ),
                },
                load=1.0,
                steal_share=0.0,
                foreign_busy_cores=0.0,
            )
        )  # fmt: skip
    comparison = evaluate(history([*told, Ended(START, "planned")]))
    bridge, baseline = figure(comparison, "bridge"), figure(comparison, "baseline")
    assert bridge.to_baseline is not None
    assert bridge.to_control is not None
    assert bridge.to_baseline.median == 0.5  # of 0.5, 0.6 and 0.4
    assert bridge.to_control.median == 0.625  # of 0.625, 0.75 and 0.4
    assert (baseline.to_baseline, baseline.to_control) == (None, None)
    assert baseline.value is not None
    assert baseline.value.median == 100.0
    assert [done.order for done in comparison.rounds] == [("bridge", "baseline")] * 3


def test_methods_have_places_within_their_class_of_datapaths_alone() -> None:
    comparison = evaluate(history(entries(noise=0.001)))
    places = {
        (p.datapath_class, p.method): (p.place, p.of)
        for p in comparison.places
        if p.metric == TCP[0]
    }
    assert places == {
        ("kernel", "bridge"): (1, 2),
        ("kernel", "weave:datapath=fastdp"): (2, 2),
        ("userspace", "weave"): (1, 3),
        ("userspace", "ovs-gre:routes=underlay"): (2, 3),
        ("userspace", "ovs-gre"): (3, 3),
    }
    for pair in comparison.pairs:
        kinds = {
            m.datapath_class for m in comparison.methods if m.name in (pair.method, pair.other)
        }
        assert kinds == {pair.datapath_class}


def test_methods_that_cannot_be_told_apart_share_a_place() -> None:
    comparison = evaluate(history(entries(noise=1.5)))
    shared = {
        p.place for p in comparison.places if (p.datapath_class, p.metric) == ("kernel", RTT[0])
    }
    assert shared == {1}


def test_a_failed_method_is_listed_and_has_no_place() -> None:
    told = entries()
    told.insert(6 + 3, Failed("weave", 1, "the router ended"))
    for number, entry in enumerate(told):
        if isinstance(entry, RoundDone) and entry.number > 1:
            order = tuple(name for name in entry.order if name != "weave")
            told[number] = dataclasses.replace(
                entry, order=order, measurements={name: entry.measurements[name] for name in order}
            )
    comparison = evaluate(history(told))
    weave = next(method for method in comparison.methods if method.name == "weave")
    assert (weave.status, weave.reason) == ("failed", "the router ended")
    assert (comparison.status, comparison.reason) == ("failed", "weave failed: the router ended")
    assert "weave" not in {place.method for place in comparison.places}
    # What was found out before stays.
    assert figure(comparison, "weave").to_baseline is not None


def test_failed_samples_are_counted_and_in_no_median() -> None:
    told = entries(plan(["baseline", "bridge"]))
    for number, entry in enumerate(told):
        if isinstance(entry, RoundDone) and entry.number == 2:
            spoilt = tuple(
                dataclasses.replace(m, median=None, samples=(), failed_samples=3)
                for m in entry.measurements["bridge"]
            )
            told[number] = dataclasses.replace(
                entry, measurements={**entry.measurements, "bridge": spoilt}
            )
    bridge = figure(evaluate(history(told)), "bridge")
    assert bridge.failed_samples == {"method": 3, "control": 3}
    assert bridge.value is not None
    assert bridge.value.rounds == 9


# -- when to stop ----------------------------------------------------------------------------------


def at(done: int, *, noise: float, **changes: object) -> tuple[str | None, int]:
    """How it ends after so many rounds, and how often anyone has looked."""
    asked = plan(["baseline", "bridge", "weave"], **changes)
    told = entries(dataclasses.replace(asked, rounds=20, most_rounds=40), noise=noise)
    looked = asked.most_rounds > asked.rounds
    kept = upto([entry for entry in told if looked or not isinstance(entry, Look)], done)
    kept.opening = dataclasses.replace(kept.opening, plan=asked)
    kept.looks += [last for last in [look(kept)] if last]
    return ending(kept), len(kept.looks)


def test_narrow_intervals_end_it_but_not_before_three_builds() -> None:
    assert at(2, noise=0.001) == (None, 0)
    assert at(4, noise=0.001) == (None, 0)
    assert at(6, noise=0.001) == ("narrow", 1)


def test_wide_intervals_go_on_to_the_bound_and_no_further() -> None:
    assert at(6, noise=0.5) == (None, 1)
    assert at(10, noise=0.5) == (None, 3)
    assert at(20, noise=0.5) == ("bound", 8)
    assert at(20, noise=0.001)[0] == "narrow"


def test_a_settled_number_of_rounds_is_measured_without_a_look() -> None:
    settled = {"rounds": 5, "most_rounds": 5, "rounds_per_build": 1}
    assert at(4, noise=0.001, **settled) == (None, 0)
    assert at(5, noise=0.5, **settled) == ("planned", 0)


def test_a_look_says_which_interval_is_the_widest() -> None:
    told = entries(plan(["baseline", "bridge", "weave"], rounds=6))
    (seen,) = history(told).looks
    assert (seen.rounds, seen.builds) == (6, 3)
    assert seen.widest is not None
    widths = [
        max(f.to_baseline.median - low, high - f.to_baseline.median) / f.to_baseline.median
        for f in evaluate(history(told)).figures
        if f.to_baseline and f.to_baseline.ci95
        for low, high in [f.to_baseline.ci95]
    ]
    assert seen.widest == pytest.approx(max(widths))
    assert seen.whose.split(", ")[0] in ("bridge", "weave")


def test_what_never_gives_a_figure_is_not_waited_for() -> None:
    told = entries(plan(["baseline", "bridge"], rounds=6), noise=0.001)
    for number, entry in enumerate(told):
        if isinstance(entry, RoundDone):
            tcp_failed = tuple(
                dataclasses.replace(m, median=None) if m.metric == TCP[0] else m
                for m in entry.measurements["bridge"]
            )
            told[number] = dataclasses.replace(
                entry, measurements={**entry.measurements, "bridge": tcp_failed}
            )
    kept = upto(told, 6)
    found = look(kept)
    assert found is not None
    kept.looks.append(found)
    assert (ending(kept), found.whose) == ("narrow", "bridge, icmp_rtt_ms")


def test_a_baseline_alone_is_not_measured_on() -> None:
    told = history([opening(plan(["baseline", "bridge"])), Session(START)])
    assert ending(told) is None
    for method in told.opening.methods:
        status: record.Status = "skipped" if method.name == "bridge" else "passed"
        told.add(Built(method.name, 1, dataclasses.replace(sample(method), status=status)))
    assert ending(told) == "alone"
    told.add(Ended(START, "alone"))
    comparison = evaluate(told)
    assert (comparison.status, comparison.rounds, comparison.figures) == ("skipped", (), ())


def test_a_void_build_is_told_of() -> None:
    asked = plan(["baseline", "bridge"], rounds=3, rounds_per_build=1)
    told = entries(asked)
    (last,) = [
        n
        for n, e in enumerate(told)
        if isinstance(e, Built) and (e.method, e.build) == ("baseline", 3)
    ]
    built = told[last]
    assert isinstance(built, Built)
    broken = dataclasses.replace(built.record, status="failed", reason="no host answers")
    told[last] = dataclasses.replace(built, record=broken)
    comparison = evaluate(history(told))
    assert comparison.status == "passed"
    assert "Build 3 is void, for the baseline failed in it: no host answers" in comparison.notes
    assert [build.status for build in comparison.baseline.builds] == ["passed", "passed", "failed"]


def test_few_builds_are_said_to_be_few() -> None:
    told = entries(plan(["baseline", "bridge"], rounds=2))
    (note,) = evaluate(history(told)).notes
    assert "1 builds are too few for intervals" in note


# -- noise -----------------------------------------------------------------------------------------


def a_round(number: int = 1, *, steal: float = 0.0, foreign: float = 0.0) -> Round:
    return Round(number, number, START, 10.0, ("baseline",), 1.0, steal, foreign)


STEADY = [1.0, 1.02, 0.99, 1.01, 1.0, 0.98, 1.0]


def test_a_quiet_machine() -> None:
    found = judge([a_round(n) for n in range(1, 8)], {RTT: STEADY}, cores=2)
    assert (found.verdict, found.reasons) == ("quiet", ())
    (drift,) = found.drifts
    assert abs(drift.change) < 0.05


def test_steal_is_the_worst_rounds_and_foreign_work_the_usual() -> None:
    rounds = [a_round(1, steal=0.09, foreign=2.0), a_round(2, foreign=0.5), a_round(3, foreign=0.4)]
    found = judge(rounds, {}, cores=2)
    assert found.verdict == "noisy"
    assert (found.steal_share, found.foreign_busy_cores) == (0.09, 0.5)
    assert "up to 9% of a round's CPU time" in found.reasons[0]
    assert "somebody else kept 0.5 of 2 processors busy" in found.reasons[1]


def test_a_baseline_that_drifts_is_told_from_one_that_leaps() -> None:
    rising = [1.0, 1.03, 1.05, 1.08, 1.1, 1.12, 1.15]
    (reason,) = judge([a_round()], {RTT: rising}, cores=2).reasons
    assert reason.startswith("the baseline drifted by +14% in icmp_rtt_ms (trend test: p = 0.0004")
    leaping = [1.0, 2.0, 1.1, 1.9, 1.0, 2.1, 1.5]
    (reason,) = judge([a_round()], {RTT: leaping}, cores=2).reasons
    assert "rounds lie" in reason
    # Differences of CPU times always leap.
    assert judge([a_round()], {("cpu_seconds_per_gigabyte", 1): leaping}, cores=2).reasons == ()


def test_ticks_of_a_real_machine() -> None:
    stat = "cpu  10132153 290696 3084719 46828483 16683 0 25195 175628 0 0\ncpu0 1 2 3\n"
    total, stolen = cpu_ticks(stat)
    assert stolen == 175628
    assert total == 10132153 + 290696 + 3084719 + 46828483 + 16683 + 25195 + 175628
    for wrong in ("", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n"):
        with pytest.raises(ValueError, match="not the beginning of /proc/stat"):
            cpu_ticks(wrong)


def test_our_own_processes_are_told_from_others() -> None:
    """A shell and its child, busy both: the child's work is ours, too."""
    before = noise.descendants_s()
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    argv = ["sh", "-c", '"$0" -c "$1"; exit', sys.executable, busy]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        used = noise.descendants_s() - before
        shell.communicate(b"\n")
    assert used >= 0.25
    # Nobody is our descendant any more.
    assert noise.descendants_s() <= before + 0.01


def test_a_watch_sees_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "IDLE_S", 0.05)
    watch = noise.Watch.begin()
    assert 0.0 <= watch.steal_share() <= 1.0
    assert watch.foreign_busy_cores >= 0.0
    assert watch.load >= 0.0
