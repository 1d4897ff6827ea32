"""The scenario weave, told from outside: sleeve and fastdp, a mesh of five, a router that dies."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import Run, machine
from xlab.scenario.request import Request

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not machine().tun.usable, reason=machine().tun.detail),
]


def run(results: Path, **asked: Any) -> dict[str, Any]:
    with Run(Request("weave", **asked), results) as going:
        last = going.finish()
    record: dict[str, Any] = json.loads(Path(last["folder"], "run.json").read_text())
    return record


def broken(record: dict[str, Any]) -> list[str]:
    return [claim["id"] for claim in record["claims"] if not claim["holds"]]


@pytest.mark.parametrize(
    ("datapath", "encapsulation", "overhead", "mtu"),
    [("sleeve", "sleeve", 62, 1438), ("fastdp", "vxlan", 50, 1376)],
)
def test_frames_take_the_datapath_that_was_asked_for(
    tmp_path: Path, datapath: str, encapsulation: str, overhead: int, mtu: int
) -> None:
    record = run(tmp_path / "results", settings={"datapath": datapath})
    assert (record["status"], broken(record)) == ("passed", [])
    path = record["path"]
    assert path["underlay_packets"][encapsulation] == path["packets_sent"] == 20
    assert (path["proved"], path["negative_control"]) == (True, True)
    assert (path["overhead_bytes"], path["effective_mtu"]) == (overhead, mtu)


def test_five_routers_told_of_one_make_a_mesh(tmp_path: Path) -> None:
    record = run(tmp_path / "results", hosts=5, containers=2)
    assert (record["status"], broken(record)) == ("passed", [])
    claims = {claim["id"]: claim for claim in record["claims"]}
    # Ten connections, each seen from both ends.
    assert claims["routers-are-connected"]["observed"] == "20"
    assert claims["all-containers-reach-each-other"]["observed"] == "90 of 90 pairs answer"


def test_a_dead_router_ends_the_run_with_its_name(tmp_path: Path) -> None:
    with Run(Request("weave"), tmp_path / "results") as going:
        for event in going:
            if event["kind"] == "claim" and event["id"] == "weave-is-a-container":
                router = next(
                    pid
                    for pid in going.processes()
                    if b"xlab.weave" in Path(f"/proc/{pid}/cmdline").read_bytes()
                )
                os.kill(router, signal.SIGKILL)
        last = going.events[-1]
    assert last["status"] == "failed"
    assert "the weave router has ended (status -9)" in last["reason"]
