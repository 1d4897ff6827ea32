"""A comparison carried out with labs that are made up: order, failures, and kills at every step."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.comparisons import World, plan
from tests.support.fake_machine import machine_with
from tests.support.ordinary import ORDINARY
from xlab.errors import CapabilityError, DaemonError, XlabError
from xlab.experiments.compare import journal
from xlab.experiments.compare.evaluation import evaluate
from xlab.experiments.compare.journal import Entry, History, Journal, Opening, RoundDone
from xlab.experiments.compare.methods import choose
from xlab.experiments.compare.rounds import Onlooker, carry_out
from xlab.kernel import capabilities, programs
from xlab.kernel.drivers import State
from xlab.record import record, result_files
from xlab.record.comparisons import Comparison
from xlab.scenario.request import Request

NAMES = ("baseline", "bridge", "weave", "weave:datapath=fastdp")


class Killed(BaseException):
    """SIGKILL, as far as a test within one process can have it."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World.instead_of_labs(monkeypatch)


def begin(results: Path, names: Sequence[str] = NAMES, **amount: Any) -> Journal:
    asked = plan(names, **{"rounds": 5, "most_rounds": 5, **amount})
    methods = tuple(choose(names, Request("baseline"), {}))
    return Journal.begin(results, Opening("2025-01-02T12:00:00.000+00:00", asked, methods))


def carried_out(results: Path, names: Sequence[str] = NAMES, **amount: Any) -> Comparison:
    with begin(results, names, **amount) as written:
        carry_out(written, Onlooker())
        return evaluate(written.history)


def folder(results: Path) -> Path:
    (found,) = results.iterdir()
    return found


# -- order -----------------------------------------------------------------------------------------


def test_each_round_has_every_method_once_in_an_order_of_its_own(
    world: World, tmp_path: Path
) -> None:
    comparison = carried_out(tmp_path, rounds=9, most_rounds=9)
    orders = [done.order for done in comparison.rounds]
    assert [sorted(order) for order in orders] == [sorted(NAMES)] * 9
    assert len(set(orders)) > 4
    # The labs were asked in that very order, and what they told is with that round.
    assert [name for _, _, name, _ in world.asked] == [name for order in orders for name in order]
    for point in comparison.points:
        assert point.median == 1.0 + point.round
        assert point.build == 1 + (point.round - 1) // 2
    assert [done.build for done in comparison.rounds] == [1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert set(world.builds.values()) == {5}
    assert world.alive == []


def test_the_same_seed_gives_the_same_orders(world: World, tmp_path: Path) -> None:
    one, other, another = (
        [done.order for done in carried_out(tmp_path / str(n), seed=seed).rounds]
        for n, seed in enumerate((1, 1, 2))
    )
    assert one == other
    assert one != another


def test_every_method_has_its_control_and_the_baseline_is_its_own(
    world: World, tmp_path: Path
) -> None:
    carried_out(tmp_path)
    for _, _, name, routes in world.asked:
        assert routes == (("method",) if name == "baseline" else ("method", "control"))


def test_all_labs_are_up_at_once_while_one_is_measured(world: World, tmp_path: Path) -> None:
    class Look(Onlooker):
        def measuring(self, position: int, method: str) -> None:
            assert sorted(world.alive) == sorted(NAMES)

        def building(self, build: int, methods: Sequence[str]) -> None:
            assert world.alive == []

    with begin(tmp_path) as written:
        carry_out(written, Look())
    assert len(world.asked) == 5 * len(NAMES)


# -- what is on the disk ---------------------------------------------------------------------------


def test_each_build_has_its_run_record_and_raw_output(world: World, tmp_path: Path) -> None:
    comparison = carried_out(tmp_path)
    for method in comparison.methods:
        for build in method.builds:
            found = record.load(folder(tmp_path) / build.folder)
            assert found.status == "passed"
            assert {m.build for m in found.measurements} == {build.number}
            raw = {file.name for file in (folder(tmp_path) / build.folder / "raw").iterdir()}
            measured_in = {f"b{m.build}-r{m.round}-method-ping.txt" for m in found.measurements}
            assert raw == {"path.pcap"} | measured_in
    files = result_files.find([folder(tmp_path)])
    assert len(files) == 3 * len(NAMES)
    assert result_files.load(files)[1] == []


# -- what fails ------------------------------------------------------------------------------------


def test_a_method_whose_claims_fail_is_listed_and_not_measured(
    world: World, tmp_path: Path
) -> None:
    world.broken_claims = {("weave", 1), ("weave", 2)}
    comparison = carried_out(tmp_path)
    weave = comparison.methods[2]
    assert (weave.status, comparison.status) == ("failed", "failed")
    assert "does not hold: expected" in weave.reason
    assert "weave" not in {name for _, _, name, _ in world.asked}
    assert world.builds["weave"] == 2
    assert record.load(folder(tmp_path) / "weave/b1").status == "failed"


def test_a_build_that_fails_is_tried_once_more_which_is_told(world: World, tmp_path: Path) -> None:
    told = []

    class Listening(Onlooker):
        def retried(self, method: str, result: record.RunRecord) -> None:
            told.append((method, result.status, result.reason))

    world.broken_claims = {("weave", 2)}
    with begin(tmp_path) as written:
        carry_out(written, Listening())
        comparison = evaluate(written.history)
    assert comparison.status == "passed"
    assert [sorted(done.order) for done in comparison.rounds] == [sorted(NAMES)] * 5
    (retried,) = journal.read(folder(tmp_path)).retries
    assert (retried.method, retried.build) == ("weave", 2)
    assert [claim.holds for claim in retried.record.claims] == [False]
    assert told == [("weave", "failed", retried.record.reason)]
    builds = comparison.methods[2].builds
    assert [bool(build.first_try) for build in builds] == [False, True, False]
    assert "does not hold" in builds[1].first_try
    (note,) = [note for note in comparison.notes if "weave" in note]
    assert note.startswith("weave was built twice in build 2, for it failed the first time: “h1")
    kept = record.load(folder(tmp_path) / "weave/b2")
    assert kept.status == "passed"
    assert [event.detail for event in kept.events if "built once more" in event.detail]
    raw = {file.name for file in (folder(tmp_path) / "weave/b2/raw").iterdir()}
    assert {"first-try-path.pcap", "path.pcap"} < raw


def test_a_sandbox_that_does_not_start_is_tried_once_more(world: World, tmp_path: Path) -> None:
    world.refused = {"weave": XlabError("no sandbox for now")}
    comparison = carried_out(tmp_path)
    weave = comparison.methods[2]
    assert (weave.status, weave.reason) == ("failed", "no sandbox for now")
    assert len(journal.read(folder(tmp_path)).retries) == 1
    assert len(comparison.rounds) == 5


def test_a_kill_before_the_second_try_loses_nothing(world: World, tmp_path: Path) -> None:
    class Deadly(Onlooker):
        def retried(self, method: str, result: record.RunRecord) -> None:
            raise Killed

    world.broken_claims = {("weave", 1)}
    with begin(tmp_path) as written, pytest.raises(Killed):
        carry_out(written, Deadly())
    assert world.alive == []
    with Journal.go_on(folder(tmp_path)) as again:
        carry_out(again, Onlooker())
        comparison = evaluate(again.history)
    assert comparison.status == "passed"
    assert [sorted(done.order) for done in comparison.rounds] == [sorted(NAMES)] * 5
    assert {done.build for done in comparison.rounds} == {2, 3, 4}


def test_a_method_this_machine_cannot_is_skipped(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refused = {"weave": CapabilityError("no tun", "modprobe tun")}
    assert carried_out(tmp_path / "launched").methods[2].status == "skipped"
    # Or it is known before.
    monkeypatch.setattr(capabilities, "probe", lambda: machine_with(tun=State.NO))
    monkeypatch.setattr(programs, "locate", lambda _: "/bin/true")
    names = ["baseline", "bridge", "ovs-gre:datapath=userspace"]
    comparison = carried_out(tmp_path / "known", names)
    assert [method.status for method in comparison.methods] == ["passed", "passed", "skipped"]
    assert comparison.status == "skipped"
    assert len(comparison.rounds) == 5


def test_a_lab_that_breaks_is_out_and_the_round_goes_on(world: World, tmp_path: Path) -> None:
    world.breaking = {("weave", 3): DaemonError("weaver", node="h1", reason="has ended")}
    comparison = carried_out(tmp_path)
    assert [len(done.order) for done in comparison.rounds] == [4, 4, 3, 3, 3]
    weave = comparison.methods[2]
    assert (weave.status, weave.reason) == ("failed", "h1: weaver has ended")
    assert {point.round for point in comparison.points if point.method == "weave"} == {1, 2}
    assert [build.status for build in weave.builds] == ["passed", "failed"]
    kept = record.load(folder(tmp_path) / "weave/b2")
    assert (kept.status, kept.reason) == ("failed", "h1: weaver has ended")


def test_nothing_is_measured_once_the_baseline_is_alone(world: World, tmp_path: Path) -> None:
    world.broken_claims = {("bridge", 2), ("bridge", 3)}
    comparison = carried_out(tmp_path, ["baseline", "bridge"])
    assert (comparison.ending, len(comparison.rounds)) == ("alone", 2)


@pytest.mark.parametrize("when", ["built", "measured"])
def test_without_the_baseline_it_ends_and_can_go_on(
    when: str, world: World, tmp_path: Path
) -> None:
    if when == "built":
        world.broken_claims = {(name, number) for name in NAMES for number in (2, 3)}
    else:
        world.breaking = {("baseline", 4): DaemonError("xlab", node="h1", reason="has ended")}
    with begin(tmp_path) as written, pytest.raises(XlabError, match="baseline failed, and nothing"):
        carry_out(written, Onlooker())
    kept = len(journal.read(folder(tmp_path)).rounds)
    assert kept == {"built": 2, "measured": 3}[when]
    world.breaking.clear()
    with Journal.go_on(folder(tmp_path)) as written:
        carry_out(written, Onlooker())
        comparison = evaluate(written.history)
    assert comparison.status == "passed"
    assert len(comparison.rounds) == 5
    assert [sorted(done.order) for done in comparison.rounds] == [sorted(NAMES)] * 5
    assert any(note.startswith("Build 2 is void") for note in comparison.notes)


def test_a_tool_that_is_missing_is_not_a_methods_fault(world: World, tmp_path: Path) -> None:
    world.breaking = {(name, 1): CapabilityError("no iperf3", "apt") for name in NAMES}
    with begin(tmp_path) as written, pytest.raises(CapabilityError, match="no iperf3"):
        carry_out(written, Onlooker())
    assert journal.read(folder(tmp_path)).failures == []
    assert world.alive == []


# -- what disturbs ---------------------------------------------------------------------------------

FLAP = "link_flap_recovery_s"


def test_what_disturbs_comes_once_a_build_after_its_rounds(world: World, tmp_path: Path) -> None:
    comparison = carried_out(tmp_path, disturbing=("recovery",))
    assert [build for build, _ in world.disturbed] == [1] * 4 + [2] * 4 + [3] * 4
    assert {
        frozenset(name for b, name in world.disturbed if b == build) for build in (1, 2, 3)
    } == {frozenset(NAMES)}
    assert [done.build for done in comparison.rounds] == [1, 1, 2, 2, 3]
    flaps = [each for each in comparison.recoveries if each.metric == FLAP]
    assert sorted({(each.build, each.recovery_s) for each in flaps}) == [
        (1, 0.1), (2, 0.2), (3, pytest.approx(0.3)),
    ]  # fmt: skip
    assert {(each.fault, each.mended_by, each.stopped, each.mend_s) for each in flaps} == {
        ("link h2 down", "link h2 up", True, 0.01)
    }
    (reboot,) = {
        (each.recovery_s, each.error)
        for each in comparison.recoveries
        if each.metric == "host_reboot_recovery_s"
    }
    assert reboot == (None, "it did not come back")
    kept = record.load(folder(tmp_path) / "weave/b2")
    assert [m.metric for m in kept.measurements if m.probe == "recovery"] == [
        "link_flap_recovery_s", "weave_kill_recovery_s", "host_reboot_recovery_s",
    ]  # fmt: skip


def test_recoveries_have_medians_and_intervals_and_no_ratios(world: World, tmp_path: Path) -> None:
    comparison = carried_out(tmp_path, disturbing=("recovery",))
    figures = {(f.method, f.metric): f for f in comparison.figures}
    flap, kill, reboot = (
        figures["weave", f"{fault}_recovery_s"]
        for fault in ("link_flap", "weave_kill", "host_reboot")
    )
    for figure in (flap, kill, reboot):
        assert (figure.to_baseline, figure.to_control, figure.control) == (None, None, None)
        assert not figure.higher_is_better
    assert flap.value is not None
    assert (flap.value.median, flap.value.rounds, flap.value.builds) == (0.2, 3, 3)
    assert flap.value.ci95 is not None
    assert flap.value.ci95[0] < 0.2 < flap.value.ci95[1]
    assert kill.value is not None
    assert (kill.value.median, kill.value.ci95) == (0.0, (0.0, 0.0))
    assert (reboot.value, reboot.failed_samples) == (None, {"method": 3})
    # Nothing else is changed by them.
    assert {pair.metric for pair in comparison.pairs} == {"icmp_rtt_ms"}
    assert comparison.noise.drifts == carried_out(tmp_path / "plain").noise.drifts


def test_a_lab_that_does_not_get_over_it_is_built_again(world: World, tmp_path: Path) -> None:
    world.not_over_it = {("weave", 1): DaemonError("weaver", node="h2", reason="has ended")}
    comparison = carried_out(tmp_path, disturbing=("recovery",))
    assert comparison.status == "passed"
    assert [len(done.order) for done in comparison.rounds] == [4] * 5
    assert len([b for b, name in world.disturbed if name == "weave"]) == 3
    assert "weave did not get over being disturbed in build 1: h2: weaver has ended" in (
        comparison.notes
    )


@pytest.mark.parametrize("build", [1, 3])
def test_killed_while_it_disturbs_it_makes_up_for_it(
    build: int, world: World, tmp_path: Path
) -> None:
    """After the last round too, when another build is all that is needed."""

    class Deadly(Onlooker):
        def measuring(self, position: int, method: str) -> None:
            if len(world.disturbed) == 4 * (build - 1) + 2:
                raise Killed

    with begin(tmp_path, disturbing=("recovery",)) as written, pytest.raises(Killed):
        carry_out(written, Deadly())
    before = journal.read(folder(tmp_path))
    assert (len(before.disturbed), before.ended) == (build - 1, None)
    with Journal.go_on(folder(tmp_path)) as again:
        carry_out(again, Onlooker())
        comparison = evaluate(again.history)
    assert [done.number for done in comparison.rounds] == [1, 2, 3, 4, 5]
    wanted = len({done.build for done in comparison.rounds})
    flaps = [r for r in comparison.recoveries if (r.method, r.metric) == ("weave", FLAP)]
    assert len({flap.build for flap in flaps}) == len(flaps) == wanted
    assert len(world.alive) == 0


# -- a lab of its own ------------------------------------------------------------------------------


def test_each_build_gives_one_first_packet(world: World, tmp_path: Path) -> None:
    forks = []

    class Listening(Onlooker):
        def forking(self) -> None:
            forks.append(len(world.alive))

    once = ("first-packet", "recovery")
    with begin(tmp_path, NAMES[:2], disturbing=once) as written:
        carry_out(written, Listening())
        comparison = evaluate(written.history)
    points = [point for point in comparison.points if point.metric == "first_packet_s"]
    assert [(point.build, point.median) for point in points] == [
        (build, 0.1 * build) for build in (1, 1, 2, 2, 3, 3)
    ]
    # Nothing is forked while the screen has a thread: for each build, then for both methods in it.
    assert forks == [0, 2, 2] * 3
    figures = {(f.method, f.metric): f for f in comparison.figures}
    found = figures["bridge", "first_packet_s"]
    assert found.to_baseline is not None
    assert (found.to_baseline.median, found.to_baseline.builds) == (1.0, 3)
    assert {each.metric for each in comparison.recoveries} == {
        "link_flap_recovery_s", "weave_kill_recovery_s", "host_reboot_recovery_s",
    }  # fmt: skip


def test_nothing_is_broken_for_a_first_packet(world: World, tmp_path: Path) -> None:
    comparison = carried_out(tmp_path, NAMES[:2], disturbing=("first-packet",))
    assert world.disturbed == []
    assert comparison.recoveries == ()
    assert "first_packet_s" in {figure.metric for figure in comparison.figures}
    # They lie far apart; that says nothing of the machine.
    assert not [reason for reason in comparison.noise.reasons if "first_packet" in reason]
    assert [drift.spread for drift in comparison.noise.drifts if "first_packet" in drift.metric]


# -- kills -----------------------------------------------------------------------------------------


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch, *, written: bool) -> None:
    """Dies with the `step`th entry of the journal: before it is written, or right after."""
    left = [step]
    add = Journal.add

    def dying(self: Journal, entry: Entry) -> None:
        left[0] -= 1
        if left[0] == 0 and not written:
            raise Killed
        add(self, entry)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Journal, "add", dying)


@pytest.mark.parametrize(
    "written", [pytest.param(False, marks=pytest.mark.slow), True], ids=["before", "after"]
)
@pytest.mark.parametrize(
    "names", [NAMES[:2], pytest.param(NAMES[:3], marks=pytest.mark.slow)], ids=len
)
def test_killed_at_any_step_it_goes_on_without_losing_a_round(
    names: Sequence[str], written: bool, world: World, tmp_path: Path
) -> None:
    whole = 1 + 3 * len(names) + 5 + 1  # session, builds, rounds, end
    for step in range(1, whole + 1):
        results = tmp_path / str(step)
        with pytest.MonkeyPatch.context() as patch, begin(results, names) as first:
            kill_at(step, patch, written=written)
            with pytest.raises(Killed):
                carry_out(first, Onlooker())
        assert world.alive == []
        before = journal.read(folder(results))
        world.asked.clear()
        with Journal.go_on(folder(results)) as again:
            if again.history.ended is None:
                carry_out(again, Onlooker())
            comparison = evaluate(again.history)
        assert_whole(comparison, before, world, step, len(names))


def assert_whole(
    comparison: Comparison, before: History, world: World, step: int, methods: int
) -> None:
    """Rounds 1 to 5, all with all methods; those from before the kill as they were."""
    assert [done.number for done in comparison.rounds] == [1, 2, 3, 4, 5], step
    assert {len(done.order) for done in comparison.rounds} == {methods}, step
    kept = [done.number for done in before.rounds]
    again = {number for number, *_ in world.asked}
    assert sorted([*kept, *again]) == [1, 2, 3, 4, 5], step
    # What is measured again is measured in a new build.
    builds = {done.build for done in before.rounds}
    assert not builds & {done.build for done in comparison.rounds if done.number in again}, step
    assert comparison.status == "passed"
    assert len(comparison.points) == 5 * (1 + 2 * (methods - 1))


def test_a_kill_in_the_middle_of_a_round_leaves_nothing_of_it(world: World, tmp_path: Path) -> None:
    """Round 2 is killed at its third method: those before have been measured in vain."""

    class Deadly(Onlooker):
        def measuring(self, position: int, method: str) -> None:
            if (len(written.history.rounds), position) == (1, 3):
                raise Killed

    with begin(tmp_path) as written, pytest.raises(Killed):
        carry_out(written, Deadly())
    raw = [file.name for file in folder(tmp_path).glob("*/b1/raw/*") if "-r2-" in file.name]
    assert len(raw) == 2
    # As SIGKILL leaves it: records are not written any more, and one is half-written.
    (folder(tmp_path) / "bridge/b1/run.json").unlink()
    (folder(tmp_path) / "bridge/b1/.partial-999999999-run.json").write_text("{")
    with Journal.go_on(folder(tmp_path)) as again:
        carry_out(again, Onlooker())
        comparison = evaluate(again.history)
    assert [file.name for file in folder(tmp_path).glob("*/b1/raw/*") if "-r2-" in file.name] == []
    assert [done.build for done in comparison.rounds] == [1, 2, 2, 3, 3]
    kept = record.load(folder(tmp_path) / "bridge/b1")
    assert {m.round for m in kept.measurements} == {1}
    assert list(folder(tmp_path).glob("**/.partial-*")) == []
    assert comparison.sessions == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is played by root alone")
def test_going_on_removes_nothing_through_a_strangers_link(world: World, tmp_path: Path) -> None:
    """Where a group may write among the results."""
    mine = tmp_path / "mine"
    mine.mkdir()
    kept = mine / "b1-r7-bridge.json"
    kept.write_text("{}")
    results = tmp_path / "results"
    with pytest.MonkeyPatch.context() as patch, begin(results) as first:
        kill_at(1 + len(NAMES) + 1, patch, written=True)
        with pytest.raises(Killed):
            carry_out(first, Onlooker())
    raw = folder(results) / "bridge/b1/raw"
    raw.rename(raw.with_name("was"))
    raw.symlink_to(mine)
    os.chown(raw, ORDINARY, ORDINARY, follow_symlinks=False)
    with Journal.go_on(folder(results)) as again, pytest.raises(PermissionError, match="a link"):
        carry_out(again, Onlooker())
    assert kept.exists()


def test_an_interrupt_while_labs_are_built_takes_them_down(world: World, tmp_path: Path) -> None:
    class Deadly(Onlooker):
        def built(self, method: str, result: record.RunRecord) -> None:
            raise KeyboardInterrupt

    with begin(tmp_path) as written, pytest.raises(KeyboardInterrupt):
        carry_out(written, Deadly())
    assert world.alive == []
    assert threading.active_count() == 1


def test_what_a_round_was_like_is_in_the_journal(world: World, tmp_path: Path) -> None:
    carried_out(tmp_path)
    done: RoundDone = journal.read(folder(tmp_path)).rounds[0]
    assert set(done.seconds) == set(NAMES)
    assert done.load >= 0
    assert 0 <= done.steal_share <= 1
