"""A small comparison of real labs: measured in rounds, killed, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.labs import PATIENCE_S, all_pids, environment_of, kill
from xlab.errors import RecordError
from xlab.experiments.compare import journal
from xlab.kernel.processes import wait_until
from xlab.record import comparisons, record, result_files
from xlab.record.comparisons import Comparison

pytestmark = pytest.mark.sandbox

_ROOT = Path(__file__).parents[2]
#: A round of two methods takes some ten seconds; a guest is slower.
_PATIENCE_S = 5 * PATIENCE_S


class Command:
    """`xlab compare` in a process group of its own; all its descendants bear its mark."""

    def __init__(self, *arguments: str, errors: Path) -> None:
        self.mark = f"XLAB_TEST_RUN={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self._errors = errors.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-m", "xlab", "compare", "--json", *arguments],
            cwd=_ROOT,
            env={**os.environ, name: value, "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def alive(self) -> list[int]:
        return [pid for pid in all_pids() if self.mark.encode() in environment_of(pid)]

    def finish(self) -> tuple[int, str]:
        """Its status, and what it said on stdout."""
        said, _ = self.process.communicate(timeout=_PATIENCE_S)
        return self.process.returncode, said

    def end(self) -> None:
        kill(self.process.pid)
        self.process.communicate()
        self._errors.close()


@contextmanager
def compare(*arguments: str, errors: Path) -> Iterator[Command]:
    command = Command(*arguments, errors=errors)
    try:
        yield command
    finally:
        command.end()


def rounds_in(results: Path) -> int:
    """Rounds in the journal of the only comparison; 0 while there is none."""
    try:
        return sum(len(journal.read(folder).rounds) for folder in results.glob("*-compare"))
    except RecordError:
        return 0


ONCE_A_BUILD = ("--probe", "recovery", "--probe", "first-packet")


@pytest.mark.slow
@pytest.mark.parametrize("once_a_build", [(), ONCE_A_BUILD])
def test_killed_after_its_second_round_it_goes_on_at_the_third(
    tmp_path: Path, once_a_build: tuple[str, ...]
) -> None:
    results, errors = tmp_path / "results", tmp_path / "stderr"
    # At full speed its transfers alone would take both processors for half a minute.
    asked = ("bridge", "--quick", "--repeat", "3", "--rate", "50mbit", "--results", str(results))
    with compare(*asked, *once_a_build, errors=errors) as first:
        wait_until(
            lambda: rounds_in(results) >= 2 or first.process.poll() is not None,
            timeout_s=_PATIENCE_S,
            awaited="the second round",
        )
        assert first.process.poll() is None, errors.read_text()
        os.kill(first.process.pid, signal.SIGKILL)
        wait_until(
            lambda: not first.alive(), timeout_s=PATIENCE_S, awaited="the end of all its labs"
        )
    (folder,) = results.iterdir()
    assert not (folder / comparisons.FILE).exists()
    before = journal.read(folder)
    assert len(before.rounds) == 2

    with compare("--resume", str(folder), errors=errors) as second:
        status, said = second.finish()
        assert status == 0, errors.read_text()
        wait_until(
            lambda: not second.alive(), timeout_s=PATIENCE_S, awaited="the end of all its labs"
        )
    comparison = comparisons.from_dict(json.loads(said))
    assert comparison == comparisons.load(folder)
    assert journal.read(folder).rounds[:2] == before.rounds
    assert_whole(comparison, folder)
    if once_a_build:
        assert_recovered(comparison)
        assert_first_packets(comparison)
    assert comparison.sessions == 2

    # Once it has ended there is nothing to go on with: it says the same again.
    (folder / comparisons.FILE).unlink()
    with compare("--resume", str(folder), errors=errors) as third:
        assert third.finish() == (0, said)


def assert_whole(comparison: Comparison, folder: Path) -> None:
    assert [done.number for done in comparison.rounds] == [1, 2, 3]
    for done in comparison.rounds:
        assert sorted(done.order) == ["baseline", "bridge"]
    for name, route in (("baseline", "method"), ("bridge", "method"), ("bridge", "control")):
        for metric in ("icmp_rtt_ms", "tcp_bits_per_second", "loaded_rtt_ms"):
            points = [
                point
                for point in comparison.points
                if (point.method, point.route, point.metric) == (name, route, metric)
            ]
            assert [point.round for point in points] == [1, 2, 3]
            # On a starved machine a second of streams both ways may bring nothing; that is told.
            assert [point for point in points if point.median is not None][1:], points
            assert all(point.error for point in points if point.median is None), points
    bridge = next(
        f for f in comparison.figures if (f.method, f.metric) == ("bridge", "tcp_bits_per_second")
    )
    assert bridge.to_baseline is not None
    measured = [
        {
            point.round
            for point in comparison.points
            if (point.method, point.route, point.metric) == (name, "method", "tcp_bits_per_second")
            and point.median is not None
        }
        for name in ("baseline", "bridge")
    ]
    rounds = len(set.intersection(*measured))
    assert (bridge.to_baseline.rounds, bridge.to_baseline.builds) == (rounds, rounds)
    assert (bridge.to_baseline.ci95 is not None) == (rounds == 3)
    # Each build of each method has its proof and its record, and `xlab report` finds them.
    for method in comparison.methods:
        for build in method.builds:
            found = record.load(folder / build.folder)
            assert found.path is not None
            assert found.path.proved
            raw = {file.name for file in (folder / build.folder / "raw").iterdir()}
            named = {name for m in found.measurements for name in m.detail.get("raw", ())}
            assert named <= raw
    assert len(result_files.find([folder])) == sum(len(m.builds) for m in comparison.methods)


def assert_recovered(comparison: Comparison) -> None:
    """Each method from each fault, once for each build that had rounds, if not in that build."""
    for method in ("baseline", "bridge"):
        for fault in ("link_flap", "host_reboot"):
            metric = f"{fault}_recovery_s"
            key = (method, metric)
            found = [r for r in comparison.recoveries if (r.method, r.metric) == key]
            assert len({each.build for each in found}) == len(found) == 3
            assert [each.error for each in found] == [""] * 3
            assert all(each.stopped for each in found)
            (figure,) = (f for f in comparison.figures if (f.method, f.metric) == key)
            assert figure.value is not None
            assert 0 < figure.value.median < 10
            assert figure.value.ci95 is not None
            assert (figure.to_baseline, figure.to_control) == (None, None)


def assert_first_packets(comparison: Comparison) -> None:
    """One of each build that had rounds, of both methods; that of plain hosts is the yardstick."""
    found = {f.method: f for f in comparison.figures if f.metric == "first_packet_s"}
    for method in ("baseline", "bridge"):
        value = found[method].value
        assert value is not None
        assert (value.rounds, value.builds) == (3, 3)
        assert 0.01 < value.median < 30
    ratio = found["bridge"].to_baseline
    assert ratio is not None
    assert ratio.ci95 is not None


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    results, errors = tmp_path / "results", tmp_path / "stderr"
    asked = ("bridge", "--quick", "--repeat", "3", "--results", str(results))
    with compare(*asked, errors=errors) as command:
        wait_until(
            lambda: (
                bool(list(results.glob("*-compare/*/b1"))) or command.process.poll() is not None
            ),
            timeout_s=_PATIENCE_S,
            awaited="the first build",
        )
        os.kill(command.process.pid, signal.SIGINT)
        status, said = command.finish()
        assert (status, said) == (128 + signal.SIGINT, "")
        wait_until(
            lambda: not command.alive(), timeout_s=PATIENCE_S, awaited="the end of all its labs"
        )
    (folder,) = results.iterdir()
    assert f"to go on: xlab compare --resume {folder}" in errors.read_text()
    assert journal.read(folder).ended is None
