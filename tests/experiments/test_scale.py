"""`xlab scale`: what is asked for, what is recorded, and what is said and drawn of it."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ET
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xlab.cli import main
from xlab.cli import scale as showing
from xlab.errors import SandboxError, UsageError
from xlab.experiments import scale
from xlab.experiments.scale import Capacity, Failure, Sample, ScalePlan, ScaleRecord
from xlab.lab.docker import Container
from xlab.lab.lab import Host
from xlab.record import record
from xlab.record.record import Environment
from xlab.report import drawing, growth

ENVIRONMENT = Environment(
    kernel="6.12", cpu_model="a processor", cores=2, load=(0.0, 0.0, 0.0), xlab="1", tools={},
    datapath="linux bridge", container_runtime="emulated", sandbox="root",
    congestion_control="cubic",
)  # fmt: skip


def sample(hosts: int, repeat: int = 1, **changes: Any) -> Sample:
    """One of a lab whose costs grow by the book: 10 ms and 1 MB a host, a mesh of tunnels."""
    figures = Sample(
        hosts=hosts, repeat=repeat, switches=1, containers=2 * hosts, build_s=0.01 * hosts,
        teardown_s=0.001, freed_s=0.02 * hosts, kernel_bytes=900_000 * hosts,
        process_bytes=100_000 * hosts, processes=0, descriptors=12 * hosts,
        tunnels=hosts * (hosts - 1), build_packets=3 * hosts**2, build_bytes=300 * hosts**2,
        rest_packets=10 * hosts, rest_bytes=1000 * hosts, rest_s=10.0, pairs=12, answered=12,
    )  # fmt: skip
    return dataclasses.replace(figures, **changes)


def recorded(*samples: Sample, failures: tuple[Failure, ...] = ()) -> ScaleRecord:
    samples = samples or tuple(sample(size, n) for size in (2, 4, 8, 16) for n in (1, 2))
    return ScaleRecord(
        scenario="bridge", started_at="2026-11-24T15:16:17.000+00:00",
        parameters={"hosts": [2, 4, 8, 16], "containers": 2, "settings": {"docker": "26"},
                    "repeat": 2, "rest_s": 10.0},
        environment=ENVIRONMENT, capacity=Capacity(16_000_000_000, 20_000, 252),
        samples=samples, failures=failures,
    )  # fmt: skip


# -- the plan --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hosts": (2, 4)}, "at least 3 different sizes"),
        ({"hosts": (2, 8, 4)}, "ascending"),
        ({"hosts": (2, 4, 4, 8)}, "each size once"),
        ({"rest_s": 0.5}, "--rest is 0.5; the range is 1 to 3,600 seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        ScalePlan("bridge", **{"hosts": (2, 4, 8), **arguments})


def test_every_size_comes_once_before_any_comes_again() -> None:
    plan = ScalePlan("bridge", (2, 4, 8, 16, 32), repeat=3)
    builds = plan.builds()
    for number in (1, 2, 3):
        of_round = builds[5 * (number - 1) : 5 * number]
        assert sorted(of_round) == [(size, number) for size in plan.hosts]
    orders = {tuple(size for size, n in builds if n == number) for number in (1, 2, 3)}
    assert len(orders) > 1
    assert plan.builds() == builds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hosts", "2,x,8"], "--hosts 2,x,8: it takes numbers"),
        (["--hosts", "2,4"], "at least 3 different sizes"),
        (["--hosts", "1,2,4"], "--hosts is 1; the range is 2 to 1,000"),
        (["--hosts", "2,4,300"], "room for 252 hosts"),
        (["--repeat", "0"], "1 to 1,000 rounds"),
        (["--set", "colour=red"], "weave has no option 'colour'"),
    ],
)
def test_a_size_that_is_refused_is_so_before_anything_is_built(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(scale, "_measure_one", lambda *_: pytest.fail("something was built"))
    assert main(["scale", "weave", "--results", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- measuring, without a lab ----------------------------------------------------------------------


def test_a_build_that_fails_is_a_failure_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one(equipped: Any, number: int, _: float) -> Sample:
        size = equipped.design.size.hosts
        if (size, number) == (4, 2):
            raise SandboxError("it broke")
        return sample(size, number)

    monkeypatch.setattr(scale, "_measure_one", one)
    told: list[Any] = []
    found = scale.measure(
        ScalePlan("bridge", (2, 4, 8), repeat=2), watch=lambda *what: told.append(what)
    )
    assert [(s.hosts, s.repeat) for s in found.samples] == [(2, 1), (2, 2), (4, 1), (8, 1), (8, 2)]
    assert found.failures == (Failure(4, 2, "it broke"),)
    assert not found.passed
    assert len(told) == 12
    assert (4, 2, found.failures[0]) in told
    assert any("NOT built: 4 hosts: it broke" in said for said in growth.words(found))


def test_the_plan_of_addresses_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_measure_one", lambda it, n, _: sample(it.design.size.hosts, n))
    assert scale.measure(ScalePlan("weave", (2, 4, 8), repeat=1)).capacity.hosts == 252
    assert scale.measure(ScalePlan("bridge", (2, 4, 8), repeat=1)).capacity.hosts == 1000


def test_a_lab_in_which_a_pair_is_silent_has_not_passed() -> None:
    found = recorded(sample(2), sample(4, answered=11), sample(8))
    assert not found.passed
    assert any("NOT whole: with 4 hosts 11 of 12 pairs" in said for said in growth.words(found))
    assert recorded().passed


def test_a_lab_in_which_nobody_was_asked_has_not_passed() -> None:
    found = recorded(sample(2), sample(4), sample(8, pairs=0, answered=0))
    assert not found.passed
    assert any("NOT whole: with 8 hosts 0 of 0 pairs" in said for said in growth.words(found))


@pytest.mark.parametrize("about", ["hosts", "containers"])
def test_asked_is_whoever_the_method_joins(about: str) -> None:
    """Without a method, hosts: there a container has the address of another host's."""
    lab: Any = SimpleNamespace(
        hosts=[object.__new__(Host) for _ in range(2)],
        containers=[object.__new__(Container) for _ in range(3)],
    )
    nodes = getattr(lab, about)
    flow: Any = SimpleNamespace(source=nodes[0])
    assert scale._sample(lab, flow) == list(permutations(nodes, 2))


# -- the record ------------------------------------------------------------------------------------


def test_the_record_as_json(tmp_path: Path) -> None:
    folder = scale.save(recorded(), tmp_path, {"scale.svg": b"<svg/>"})
    assert folder.name == "2026-11-24T151617Z-scale-bridge"
    assert sorted(path.name for path in folder.iterdir()) == ["scale.json", "scale.svg"]
    data = json.loads((folder / "scale.json").read_text())
    assert next(iter(data)) == "schema_version"
    assert set(data) == {
        "schema_version", "scenario", "started_at", "parameters", "environment", "capacity",
        "samples", "failures", "notes", "laws",
    }  # fmt: skip
    law = data["laws"]["build_s"]
    assert set(law) == {"factor", "exponent", "ci95", "points"}
    assert (law["factor"], law["exponent"]) == pytest.approx((0.01, 1.0))
    assert set(data["samples"][0]) == {field.name for field in dataclasses.fields(Sample)}
    # Nothing is lost on the way.
    laws = data.pop("laws")
    assert record.decode(ScaleRecord, data, "") == recorded()
    assert set(laws) == {m.name for m in scale.METRICS if m.name != "processes"}


def test_records_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folders = [scale.save(recorded(), tmp_path) for _ in range(3)]
    assert len({folder.name for folder in folders}) == 3
    assert sorted(tmp_path.iterdir()) == sorted(folders)


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        scale.save(recorded(), tmp_path, {"scale.svg": None})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_others_memory_does_not_spoil_the_law_of_memory() -> None:
    found = recorded(sample(2, kernel_bytes=-5_000_000), *(sample(n) for n in (2, 4, 8)))
    law = found.laws()["memory_bytes"]
    assert law.points == 3
    assert law.exponent == pytest.approx(1.0)
    assert any("memory: " in said and "1 build left out" in said for said in growth.words(found))


# -- in words --------------------------------------------------------------------------------------


def test_each_cost_has_its_exponent_in_words() -> None:
    said = growth.words(recorded())
    assert "build: hosts^1.00 (1.00–1.00), no faster than the hosts." in said
    assert "control plane, build (B): hosts^2.00 (2.00–2.00), faster than the hosts." in said
    assert "None at any size: processes." in said


def test_scatter_makes_a_verdict_uncertain() -> None:
    noisy = [sample(n, build_s=0.01 * n * factor) for n, factor in ((2, 1), (4, 3), (8, 1))]
    (said,) = [text for text in growth.words(recorded(*noisy)) if text.startswith("build:")]
    assert "too uncertain to say" in said


def test_what_ends_it_first() -> None:
    limits = growth.what_limits(recorded())
    # 12 descriptors a host, of 20,000; 1 MB a host, of 16 GB; 10 ms a host, of ten minutes.
    assert limits == (
        "what ends it first is the plan of addresses, 252 hosts; then the controller's "
        "descriptors (20,000) at about 1,700, this machine's memory (16 GB) at about 16,000, "
        "patience with a build (600 s) at about 60,000."
    )


def test_the_table_has_medians_a_host() -> None:
    slow = sample(2, 3, build_s=5.0)
    rows = growth.table(recorded(sample(2), sample(2, 2), slow, sample(4), sample(8))).splitlines()
    assert len(rows) == 2 + 3
    assert rows[2].split()[:5] == ["2", "20.0", "ms", "10.0", "ms"]
    assert "1.00 MB" in rows[2]


@pytest.mark.parametrize("columns", [40, 80])
def test_where_the_table_does_not_fit_it_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    record = recorded(sample(2), sample(4), sample(8))
    showing._show(record, None, stream, chart=False)
    said = stream.getvalue()
    assert max(map(len, said.splitlines())) <= columns
    for part in ("2 hosts", "build a host 10.0 ms", "memory a host 1.00 MB", "at rest a host"):
        assert part in " ".join(said.split())


@pytest.mark.parametrize(
    ("unit", "number", "said"),
    [
        ("s", 0.0000123, "12.3 µs"), ("s", 75.0, "75.0 s"), ("s", 0.0, "0 µs"),
        ("B", 0.0, "0 B"), ("B", 999.0, "999 B"), ("B", 1_250_000.0, "1.25 MB"),
        ("B/s", 1500.0, "1.50 kB/s"), ("packets", 1234.4, "1,234 packets"), ("", 2.0, "2"),
        ("packets/s", 0.25, "0.25 packets/s"), ("B", -5_000_000.0, "-5.00 MB"),
    ],
)  # fmt: skip
def test_amounts(unit: str, number: float, said: str) -> None:
    assert growth.amount(unit, number) == said


# -- the chart -------------------------------------------------------------------------------------


def test_the_chart_tells_what_is_measured_from_what_is_not() -> None:
    shown = growth.chart(recorded())
    assert shown is not None
    assert [plot.title for plot in shown.plots] == [
        "build", "take down, until all is freed", "memory", "ends of tunnels",
        "control plane, build", "control plane, at rest",
    ]  # fmt: skip
    for plot in shown.plots:
        law, beyond = plot.lines
        assert (law.x, beyond.x) == ((2, 16), (16, 64))
        assert (law.y[1], beyond.label) == (beyond.y[0], "extrapolated, not measured")
        # Every build is there.
        assert (len(law.dots), law.said) == (len(recorded().samples), "8 builds")
    assert shown.plots[0].lines[0].label == "hosts^1.00 (1.00–1.00)"
    svg = drawing.pictures(shown, "scale")[".svg"].decode()
    texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]
    assert {"bridge: cost against hosts", "hosts", "64", "100 ms", "10 MB", "10 kB"} <= set(texts)


def test_noise_does_not_look_like_growth() -> None:
    shown = growth.chart(recorded(*(sample(n, build_s=1.0 + n / 1000) for n in (2, 4, 8))))
    assert shown is not None
    low, high = shown.plots[0].reach or (1, 1)
    assert high / low == pytest.approx(10)


def test_one_size_has_no_chart() -> None:
    assert growth.chart(recorded(sample(4), sample(4, 2))) is None


def test_a_scale_is_no_record_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scale.save(recorded(), tmp_path)
    assert main(["report", str(folder)]) == 2
    assert "name the folders of the records" in capsys.readouterr().err
