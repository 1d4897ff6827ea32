"""A lab in a guest, seen from outside: what it is asked for, and what is made of what it tells."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.records import sample
from xlab.errors import CapabilityError, UsageError, XlabError
from xlab.experiments import runner
from xlab.experiments.compare import methods, plan, rounds
from xlab.experiments.compare.evaluation import evaluate
from xlab.experiments.compare.journal import Journal, Opening
from xlab.guest import frozen, packages
from xlab.guest.frozen import Frozen
from xlab.record import record
from xlab.record.record import RunRecord
from xlab.scenario.request import Request

REQUEST = Request("bridge", duration_s=1.0, repeat=1, quick=True, clock="virtual")


#: The sample is of the time when they were called after their tools.
_PROBES = {"tcp_bits_per_second": "tcp", "icmp_rtt_ms": "rtt"}


class Guests:
    """In place of QEMU: what each was asked for, and the record it comes back with."""

    def __init__(self, told: RunRecord) -> None:
        self.told = told
        self.jobs: list[Mapping[str, Any]] = []
        self.alive = 0
        self.instead: list[Mapping[str, Any]] = []

    def work(self, _: Frozen, job: Mapping[str, Any], *, limit_s: float) -> Iterator[Any]:
        assert limit_s > 0
        self.jobs.append(job)
        self.alive += 1
        try:
            yield from self.instead or self._events(job)
        finally:
            self.alive -= 1

    def _events(self, job: Mapping[str, Any]) -> Iterator[Any]:
        yield {"kind": "started", "scenario": job["request"]["scenario"], "hosts": 2}
        for claim in self.told.claims:
            yield {"kind": "claim", **dataclasses.asdict(claim)}
        assert self.told.path is not None
        yield {"kind": "path", **dataclasses.asdict(self.told.path)}
        yield {"kind": "built"}
        asked = job["rounds"] or {"numbers": [1], "build": 1}
        for number in asked["numbers"]:
            for m in self.told.measurements:
                if m.round == 1 and m.metric in _PROBES:
                    numbered = dataclasses.replace(
                        m, probe=_PROBES[m.metric], round=number, build=asked["build"]
                    )
                    yield {"kind": "measurement", **dataclasses.asdict(numbered)}
        raw = {"ping.txt": base64.b64encode(b"64 bytes").decode()}
        yield {"kind": "finished", "record": self.told.to_dict(), "raw": raw}


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> Guests:
    made = Guests(sample("bridge"))
    machine = Frozen(packages.locked(), Path("vmlinuz"), Path("frozen"))
    monkeypatch.setattr(frozen, "ready", lambda _: machine)
    monkeypatch.setattr(frozen, "work", made.work)
    return made


def test_a_run_is_recorded_as_the_guest_told_it(guests: Guests, tmp_path: Path) -> None:
    found, folder = runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    assert (found.status, found.environment.clock) == ("passed", "virtual")
    assert found.environment.virtual is not None
    assert found.environment.virtual.identity == packages.locked().identity
    assert found.environment.virtual.differences == ()
    assert found.environment.kernel == guests.told.environment.kernel
    assert found.claims == guests.told.claims
    assert found.started_at != guests.told.started_at, "when it was is not the guest's to know"
    assert record.load(folder) == found
    assert (folder / "raw/ping.txt").read_bytes() == b"64 bytes"
    assert guests.alive == 0


def test_only_what_matters_is_in_a_job(
    guests: Guests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    (job,) = guests.jobs
    assert (job["seed"], job["folder"], job["files"]) == (1, "/", {})
    assert job["request"]["clock"] == "virtual"


def test_files_that_the_guest_has_not_come_along(guests: Guests, tmp_path: Path) -> None:
    topo = tmp_path / "mine.py"
    topo.write_text(
        "from mininet.topo import Topo\n"
        "class Two(Topo):\n"
        "    def build(self):\n"
        "        switch = self.addSwitch('s1')\n"
        "        for name in ('h1', 'h2'):\n"
        "            self.addLink(self.addHost(name), switch)\n"
    )
    request = dataclasses.replace(REQUEST, topo=f"{topo}:Two")
    runner.run(request, results=tmp_path / "results", watch=lambda _: None)
    assert guests.jobs[0]["files"] == {str(topo): topo.read_text()}
    assert guests.jobs[0]["folder"] == str(Path.cwd())


def test_what_the_guest_refuses_is_refused(guests: Guests, tmp_path: Path) -> None:
    guests.instead = [{"kind": "refused", "text": "--mtu is no good", "usage": True}]
    with pytest.raises(UsageError, match="no good"):
        runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    assert guests.alive == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "raw", "expected"),
    [
        ("skipped", {}, ("skipped", "it can't")),
        ("failed", {"error.txt": base64.b64encode(b"it can't").decode()}, ("failed", "it can't")),
    ],
)
def test_a_run_that_does_not_come_to_its_end_says_why(
    guests: Guests, tmp_path: Path, status: record.Status, raw: dict[str, str], expected: object
) -> None:
    told = dataclasses.replace(guests.told, status=status, reason="it can't").to_dict()
    guests.instead = [{"kind": "finished", "record": told, "raw": raw}]
    found, _ = runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    assert (found.status, found.reason) == expected


def test_a_guest_that_ends_too_soon_is_a_failed_run(
    guests: Guests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any, **__: Any) -> Iterator[Any]:
        yield {"kind": "step", "phase": "build", "text": "h1"}
        raise XlabError("the guest ended before its work was done")

    monkeypatch.setattr(frozen, "work", dying)
    found, _ = runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    assert (found.status, found.reason) == ("failed", "the guest ended before its work was done")
    assert guests.jobs == []


def test_where_there_can_be_no_guest_a_run_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(_: object) -> Frozen:
        raise CapabilityError("no QEMU", "sudo apt-get install qemu-system-x86")

    monkeypatch.setattr(frozen, "ready", unable)
    found, _ = runner.run(REQUEST, results=tmp_path, watch=lambda _: None)
    assert (found.status, found.reason) == (
        "skipped",
        "no QEMU; sudo apt-get install qemu-system-x86",
    )


# -- comparisons -----------------------------------------------------------------------------------


def compared(folder: Path, *, repeat: int | None = None) -> tuple[Any, Any]:
    common = dataclasses.replace(REQUEST, scenario="baseline")
    chosen = methods.choose(["bridge"], common, {})
    wanted = plan.make(chosen, rounds=repeat)
    with Journal.begin(folder, Opening(record.now(), wanted, tuple(chosen))) as journal:
        rounds.carry_out(journal, rounds.Onlooker())
        return wanted, evaluate(journal.history)


def test_a_quick_comparison_has_one_build_in_guests_and_a_verdict(
    guests: Guests, tmp_path: Path
) -> None:
    wanted, found = compared(tmp_path)
    assert (wanted.clock, wanted.rounds, wanted.probes) == ("virtual", 1, ("rtt", "tcp", "rr"))
    assert (found.status, found.environment.clock) == ("passed", "virtual")
    assert sorted(job["request"]["scenario"] for job in guests.jobs) == ["baseline", "bridge"]
    routes = {job["request"]["scenario"]: job["rounds"]["routes"] for job in guests.jobs}
    assert routes == {"baseline": ("method",), "bridge": ("method", "control")}
    verdicts = {f.metric: f.to_baseline.verdict for f in found.figures if f.to_baseline}
    assert verdicts["tcp_bits_per_second"] == "indistinguishable", "the same records, the same"
    assert "the same digits again" in " ".join(found.notes)
    assert guests.alive == 0


def test_each_build_has_its_own_seed(guests: Guests, tmp_path: Path) -> None:
    _, found = compared(tmp_path, repeat=3)
    assert sorted(job["seed"] for job in guests.jobs) == [1, 1, 2, 2, 3, 3]
    assert [done.build for done in found.rounds] == [1, 2, 3]
    assert {p.round for p in found.points} == {1, 2, 3}


def test_all_is_more_in_virtual_time() -> None:
    real, virtual = (
        {m.name for m in methods.choose([], Request("baseline", clock=clock), {})}
        for clock in ("real", "virtual")
    )
    assert virtual - real == {"ovs-gre:datapath=userspace"}
