"""Comparisons made up: what labs would have told, without labs.

python tests/support/comparisons.py        writes tests/data/comparison anew
"""

from __future__ import annotations

import dataclasses
import functools
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_machine import CLAIM, PATH, machine_with
from xlab.errors import XlabError
from xlab.experiments import runner
from xlab.experiments.compare import evaluation, noise, rounds
from xlab.experiments.compare.journal import (
    Built,
    Ended,
    Entry,
    History,
    Opening,
    RoundDone,
    Session,
)
from xlab.experiments.compare.methods import Method, choose
from xlab.experiments.recorder import Recorder
from xlab.kernel import capabilities
from xlab.record import comparisons, record
from xlab.record.comparisons import ComparisonPlan
from xlab.record.record import Measurement, Route, RunRecord
from xlab.scenario.request import Request

DATA = Path(__file__).parents[1] / "data"
#: Which sample record a scenario's is made of.
_SAMPLES = {"baseline": "baseline", "bridge": "bridge", "ovs-gre": "ovs-gre", "weave": "weave"}
#: RTT in ms, TCP in bit/s, of each method and of the control it has.
_TRUTH: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "baseline": ((0.04, 30e9), (0.04, 30e9)),
    "bridge": ((0.05, 28e9), (0.045, 29e9)),
    "ovs-gre": ((1.1, 0.9e9), (0.95, 1.3e9)),
    "ovs-gre:routes=underlay": ((1.0, 1.2e9), (0.95, 1.3e9)),
    "weave": ((0.4, 1.4e9), (0.04, 30e9)),
    "weave:datapath=fastdp": ((0.07, 17e9), (0.04, 30e9)),
}
START = "2025-01-02T12:00:00.000+00:00"


def plan(names: Sequence[str] = tuple(_TRUTH), **changes: object) -> ComparisonPlan:
    usual = ComparisonPlan(
        methods=tuple(names),
        probes=("rtt", "tcp"),
        duration_s=3.0,
        quick=False,
        rounds=10,
        most_rounds=20,
        rounds_per_build=2,
        least_builds=3,
        precision=0.1,
        seed=7,
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def opening(asked: ComparisonPlan | None = None) -> Opening:
    asked = asked or plan()
    return Opening(START, asked, tuple(choose(asked.methods, Request("baseline"), {})))


def sample(method: Method) -> RunRecord:
    """What a lab of that method told before it was measured."""
    told = _recorded(method.request.scenario)
    settings = {**told.parameters["settings"], **method.request.settings}
    datapath = told.environment.datapath
    if settings.get("datapath") == "fastdp":
        datapath = "weave fastdp equivalent (kernel vxlan)"
    return dataclasses.replace(
        told,
        measurements=(),
        parameters={**told.parameters, "settings": settings},
        environment=dataclasses.replace(told.environment, datapath=datapath),
        status="passed",
        reason="",
    )


@functools.cache
def _recorded(scenario: str) -> RunRecord:
    (folder,) = (DATA / "records").glob(f"*Z-{_SAMPLES[scenario]}")
    return record.load(folder)


def measured(
    metric: str, value: float, *, number: int, build: int, route: Route = "method"
) -> Measurement:
    return Measurement(
        probe="rtt" if metric == "icmp_rtt_ms" else "tcp",
        metric=metric,
        unit="ms" if metric == "icmp_rtt_ms" else "bit/s",
        direction="h1/c1 > h2/c1" if route == "method" else "h1 > h2",
        streams=1,
        round=number,
        build=build,
        started_at=START,
        samples=(value,),
        median=value,
        route=route,
        detail={"raw": []},
    )


def recoveries(number: int, build: int) -> list[Measurement]:
    """What breaking a lab would have told: one flow was gone for a while, one went on."""
    plain = measured("link_flap_recovery_s", 0.1 * build, number=number, build=build)
    detail = {"fault": "link h2 down", "mended_by": "link h2 up", "stopped": True, "mend_s": 0.01}
    flap = dataclasses.replace(plain, probe="recovery", unit="s", detail=detail)
    kill = {"fault": "kill h2 weave", "mended_by": "restart h2 weave"}
    return [
        flap,
        dataclasses.replace(
            flap,
            metric="weave_kill_recovery_s",
            samples=(0.0,),
            median=0.0,
            detail={**kill, "stopped": False, "mend_s": 0.2},
        ),
        dataclasses.replace(
            flap,
            metric="host_reboot_recovery_s",
            samples=(),
            failed_samples=1,
            median=None,
            detail={"fault": "crash h2", "mended_by": "reboot h2", "error": "it did not come back"},
        ),
    ]


def entries(
    asked: ComparisonPlan | None = None, *, seed: int = 1, noise: float = 0.03
) -> list[Entry]:
    """A whole comparison, opening and end included; every figure off the truth by chance."""
    first = opening(asked)
    asked = first.plan
    generator = random.Random(seed)
    found: list[Entry] = [first, Session(START)]
    for number in range(1, asked.rounds + 1):
        build = 1 + (number - 1) // asked.rounds_per_build
        if (number - 1) % asked.rounds_per_build == 0:
            found += [Built(m.name, build, sample(m)) for m in first.methods]
        order = [method.name for method in first.methods]
        generator.shuffle(order)
        # What disturbs a round disturbs all that is measured in it.
        weather = generator.lognormvariate(0, 3 * noise)
        found.append(
            RoundDone(
                number=number,
                build=build,
                started_at=START,
                order=tuple(order),
                seconds=dict.fromkeys(order, 8.0),
                measurements={
                    name: tuple(_figures(name, number, build, weather, generator, noise))
                    for name in order
                },
                load=1.0,
                steal_share=0.001,
                foreign_busy_cores=0.02,
            )
        )
        if number % asked.rounds_per_build == 0 or number == asked.rounds:
            look = evaluation.look(history(found))
            found += [look] if look else []
    return [*found, Ended("2025-01-02T12:20:00.000+00:00", "planned")]


def _figures(
    name: str, number: int, build: int, weather: float, generator: random.Random, noise: float
) -> list[Measurement]:
    found = []
    for route, (rtt_ms, rate) in zip(("method", "control"), _TRUTH[name], strict=True):
        if (name, route) == ("baseline", "control"):
            continue
        for metric, truth, factor in (
            ("icmp_rtt_ms", rtt_ms, weather),
            ("tcp_bits_per_second", rate, 1 / weather),
        ):
            value = truth * factor * generator.lognormvariate(0, noise)
            found.append(
                measured(metric, value, number=number, build=build, route=route)  # type: ignore[arg-type]
            )
    return found


def history(told: Sequence[Entry]) -> History:
    first = told[0]
    assert isinstance(first, Opening)
    found = History(first)
    for entry in told[1:]:
        found.add(entry)
    return found


# -- labs made up ----------------------------------------------------------------------------------


class World:
    """What labs there are, and what becomes of them."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        #: Labs alive at the end of each build.
        self.together: list[list[str]] = []
        #: (round, build, method, routes), as measured.
        self.asked: list[tuple[int, int, str, tuple[str, ...]]] = []
        self.refused: dict[str, XlabError] = {}
        #: Claims that do not hold: (method, build).
        self.broken_claims: set[tuple[str, int]] = set()
        #: What measuring raises: (method, round).
        self.breaking: dict[tuple[str, int], XlabError] = {}
        self.builds: dict[str, int] = {}
        #: (build, method), as something was broken in its lab; what that raises: (method, build).
        self.disturbed: list[tuple[int, str]] = []
        self.not_over_it: dict[tuple[str, int], XlabError] = {}

    @classmethod
    def instead_of_labs(cls, monkeypatch: pytest.MonkeyPatch) -> World:
        """From now on comparisons have made-up labs on a machine that can do everything."""
        return _instead_of_labs(monkeypatch)


def name_of(recorder: Recorder) -> str:
    request = recorder.design.request
    settings = ",".join(f"{key}={value}" for key, value in request.settings.items())
    return f"{request.scenario}:{settings}" if settings else request.scenario


def _instead_of_labs(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    class Bench:
        def __init__(self, recorder: Recorder) -> None:
            assert threading.active_count() == 1, "a sandbox is forked from one thread"
            self.recorder, self.name = recorder, name_of(recorder)
            if self.name in made.refused:
                raise made.refused[self.name]
            made.alive.append(self.name)
            made.builds[self.name] = made.builds.get(self.name, 0) + 1

        def build(self) -> None:
            broken = (self.name, made.builds[self.name]) in made.broken_claims
            self.recorder.tell({**CLAIM, "holds": not broken})
            self.recorder.tell(PATH)
            self.recorder.raw["path.pcap"] = b"packets"

        def measure(self, *, round: int, build: int, probes: list[str], routes: list[Any]) -> None:  # noqa: A002
            if probes == ["recovery"]:
                self._disturb(round, build, routes)
                return
            assert probes[:2] == ["rtt", "tcp"]
            made.asked.append((round, build, self.name, tuple(routes)))
            for route in routes:
                one = measured("icmp_rtt_ms", 1.0 + round, number=round, build=build, route=route)
                self.recorder.tell({"kind": "measurement", **dataclasses.asdict(one)})
            self.recorder.raw[f"b{build}-r{round}-method-ping.txt"] = b"64 bytes"
            if (self.name, round) in made.breaking:
                raise made.breaking[self.name, round]

        disturb = runner.Bench.disturb

        def measure_others(self, probes: Sequence[str], *, round: int, build: int) -> None:  # noqa: A002
            if "first-packet" not in probes:
                return
            self.recorder.tell({"kind": "forking"})
            assert threading.active_count() == 1, "a sandbox is forked from one thread"
            one = measured("first_packet_s", 0.1 * build, number=round, build=build)
            one = dataclasses.replace(one, probe="first-packet", unit="s")
            self.recorder.tell({"kind": "measurement", **dataclasses.asdict(one)})

        def _disturb(self, number: int, build: int, routes: list[Any]) -> None:
            made.disturbed.append((build, self.name))
            assert routes == ["method"]
            for told in recoveries(number, build):
                self.recorder.tell({"kind": "measurement", **dataclasses.asdict(told)})
            if (self.name, build) in made.not_over_it:
                raise made.not_over_it[self.name, build]

        def close(self) -> float:
            if self.name in made.alive:
                made.alive.remove(self.name)
            return 0.0

    monkeypatch.setattr(rounds, "Bench", Bench)
    monkeypatch.setattr(capabilities, "probe", machine_with)
    monkeypatch.setattr(noise, "IDLE_S", 0.0)
    # No lab has processes; those of the machine are many.
    monkeypatch.setattr(noise, "descendants_s", lambda: 0.0)
    return made


if __name__ == "__main__":
    folder = DATA / "comparison"
    folder.mkdir(exist_ok=True)
    comparisons.save(evaluation.evaluate(history(entries())), folder)
