"""The benchmark of the engine: its arithmetic, the floor's messages, and one small run of it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import build, floor
from benchmarks.build import Timing
from xlab.errors import CapabilityError, SandboxError
from xlab.sandbox.sandbox import kind


def timing(up_s: float, down_s: float = 0.001, freed_s: float = 0.1) -> Timing:
    return Timing(up_s=up_s, down_s=down_s, freed_s=freed_s)


# -- figures ---------------------------------------------------------------------------------------


def test_every_contestant_begins_equally_often() -> None:
    names = ["a", "b", "c"]
    orders = [build.rotated(names, number) for number in range(6)]
    assert [order[0] for order in orders] == ["a", "b", "c", "a", "b", "c"]
    assert all(sorted(order) == names for order in orders)


def test_ratios_are_those_of_the_same_round() -> None:
    """The machine is twice as slow in the second round: that is no difference between the two."""
    timings = {
        "xlab": [timing(0.1), timing(0.2), timing(0.1)],
        "mininet": [timing(1.2), timing(2.4), timing(1.2)],
        "floor": [timing(0.08), timing(0.16), timing(0.08)],
    }
    found = build.ratios(timings)
    ratio = found["build, Mininet / xlab"]
    assert ratio.rounds == 3
    assert [ratio.median, *(ratio.ci95 or ())] == pytest.approx([12.0, 12.0, 12.0])
    assert found["build, xlab / floor"].median == pytest.approx(1.25)


def test_what_was_not_measured_has_no_ratio() -> None:
    found = build.ratios({"xlab": [timing(0.1)], "floor": [timing(0.1)]})
    assert "build, xlab / floor" in found
    assert not any("Mininet" in text for text in found)


@pytest.mark.parametrize(
    ("mininet_s", "floor_s", "freed_s", "verdict"),
    [
        (1.0, 0.05, 0.2, ["met", "met", "met"]),
        (0.99, 0.05, 0.2, ["MISSED", "met", "met"]),
        (1.0, 0.049, 0.2, ["met", "MISSED", "met"]),
        (1.0, 0.05, 0.201, ["met", "met", "MISSED"]),
    ],
)
def test_a_missed_target_is_said_to_be_missed(
    mininet_s: float, floor_s: float, freed_s: float, verdict: list[str]
) -> None:
    timings = {
        "xlab": [timing(0.1, freed_s=freed_s)],
        "mininet": [timing(mininet_s)],
        "floor": [timing(floor_s)],
    }
    text = build.verdicts(timings, hosts=200)
    assert [line.rpartition(": ")[2] for line in text.splitlines() if ": " in line] == verdict
    # The targets are for large labs.
    assert ": " not in build.verdicts(timings, hosts=20)


def test_the_table_is_in_milliseconds_a_host() -> None:
    rows = build.table({"xlab": [timing(0.128), timing(0.256), timing(0.192)]}, 128).splitlines()
    assert rows[0].split()[:6] == ["ms", "a", "host", "up", "min", "max"]
    assert rows[1].split()[:4] == ["xlab", "1.500", "1.00", "2.00"]


def test_growth_is_told_by_size() -> None:
    sizes = [10, 100]
    timings = {
        "xlab 10": [Timing(0.01, 0.001, 0.02, 102_400, 20_480, cpu_s=0.008)],
        "xlab 100": [Timing(0.1, 0.001, 0.2, 1_024_000, 204_800, cpu_s=0.08)],
        "floor 10": [timing(0.005)],
        "floor 100": [timing(0.05)],
    }
    rows = [row.split() for row in build.growth_table(sizes, timings).splitlines()]
    rest = ["2.000", "0.500", "10.0", "2.0"]
    assert rows[2] == ["10", "0.010", "1.000", "0.008", "0.800", "0.020", *rest]
    assert rows[3] == ["100", "0.100", "1.000", "0.080", "0.800", "0.200", *rest]
    assert build.exponents(sizes, timings)["xlab, up"] == pytest.approx(1.0)
    del timings["floor 100"]
    assert set(build.exponents(sizes, timings)) == {"xlab, up", "xlab, processor", "xlab, freed"}


@pytest.mark.parametrize(
    "arguments",
    [["--hosts", "1"], ["--rounds", "0"], ["--growth", "64"], ["--growth", "1,2,3"], ["--hosts=x"]],
)
def test_nonsense_is_refused_before_anything_is_built(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        build.main(arguments)
    assert refused.value.code == 2
    assert arguments[0].partition("=")[0] in capsys.readouterr().err


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "build.json"
    build.save({"hosts": 128}, path)
    with pytest.raises(TypeError):
        build.save({"hosts": object()}, path)
    assert json.loads(path.read_text()) == {"hosts": 128}
    assert list(tmp_path.iterdir()) == [path]


# -- the floor's messages --------------------------------------------------------------------------


def messages(buffer: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of each message of a buffer, which they must fill."""
    offset = 0
    while offset < len(buffer):
        length, kind_, flags = struct.unpack_from("=IHH", buffer, offset)
        assert length % 4 == 0
        assert 16 < length <= len(buffer) - offset
        yield kind_, flags, bytes(buffer[offset + 16 : offset + length])
        offset += length


def test_only_the_last_message_of_a_buffer_asks_for_an_answer() -> None:
    buffer, _ = floor.veth_buffer(range(5, 12))
    assert [bool(flags & 0x4) for _, flags, _ in messages(buffer)] == [False] * 6 + [True]
    addresses = floor.address_buffer(floor.address(0))
    assert [(kind_, bool(flags & 0x4)) for kind_, flags, _ in messages(addresses)] == [
        (20, False),
        (19, True),
    ]


def test_each_veth_pair_gets_its_own_namespace() -> None:
    buffer, places = floor.veth_buffer(range(3))
    for place, descriptor in zip(places, (71, 72, 73), strict=True):
        struct.pack_into("=I", buffer, place, descriptor)
    for number, (_, _, body) in enumerate(messages(buffer)):
        assert f"s1-h{number + 1}\0".encode() in body
        # IFLA_NET_NS_FD, linux/if_link.h
        assert body.endswith(struct.pack("=HHI", 8, 28, 71 + number))


@given(count=st.integers(0, 500), most=st.integers(1, 200))
def test_chunks_are_everything_once_and_in_order(count: int, most: int) -> None:
    found = floor.chunks(count, most)
    assert [number for chunk in found for number in chunk] == list(range(count))
    assert all(0 < len(chunk) <= most for chunk in found)


# -- really ----------------------------------------------------------------------------------------


@pytest.mark.sandbox
def test_a_small_run_measures_all_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "build.json"
    assert build.main(["--hosts", "3", "--rounds", "2", "--output", str(path)]) == 0
    result = json.loads(path.read_text())
    missing = build.why_no_mininet()
    expected = {"xlab", "floor"} | (set() if missing else {"mininet"})
    assert set(result["figures"]) == expected
    for of_one in result["figures"].values():
        assert len(of_one) == 2
        for figures in of_one:
            assert figures["up_s"] > 0
            assert 0 < figures["down_s"] <= figures["freed_s"]
    assert result["ratios"]["build, xlab / floor"]["rounds"] == 2
    assert result["environment"]["sandbox"] == kind()
    out = capsys.readouterr().out
    assert (f"Mininet: not measured: {missing}" in out) == bool(missing)


@pytest.mark.sandbox
def test_growth_builds_the_bridge_scenario_too(tmp_path: Path) -> None:
    path = tmp_path / "growth.json"
    arguments = ["--growth", "2,3,4", "--containers", "1", "--rounds", "1", "--output", str(path)]
    assert build.main(arguments) == 0
    result = json.loads(path.read_text())
    assert set(result["figures"]) == {"xlab 2", "xlab 3", "xlab 4"}
    assert set(result["exponents"]) == {"xlab, up", "xlab, processor", "xlab, freed"}


@pytest.mark.sandbox
def test_a_network_that_does_not_work_has_no_figures() -> None:
    with pytest.raises(SandboxError, match="broken: the first host does not reach the last"):
        build._measure("broken", lambda: {"up_s": 0.1, "works": False})


@pytest.mark.sandbox
def test_the_floor_reports_what_the_kernel_refuses() -> None:
    def refused() -> dict[str, object]:
        packed = floor.Floor(1)
        packed._veths *= 2  # the same pair again
        packed.build()
        return {}

    with pytest.raises(SandboxError, match="File exists"):
        build._measure("floor", refused)


def test_installing_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "why_no_mininet", lambda: "it needs root")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CapabilityError, match="needs root"):
        build.install_mininet()
