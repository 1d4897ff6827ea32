"""Large labs: every claim holds, whatever the kernel shares out among all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import Run, why_no_open_vswitch
from xlab import record
from xlab.record import RunRecord
from xlab.request import Request

pytestmark = pytest.mark.sandbox

needs_open_vswitch = pytest.mark.skipif(
    bool(why_no_open_vswitch()), reason=why_no_open_vswitch() or "Open vSwitch is there"
)


def built(request: Request, tmp_path: Path, **options: Any) -> RunRecord:
    """The record of a run without measurements, in which all claims held."""
    with Run(request, tmp_path / "results", **options) as run:
        last = run.finish()
    found = record.load(Path(last["folder"]))
    assert found.status == "passed", found.reason
    return found


def observed(found: RunRecord, claim: str) -> str:
    return next(c.observed for c in found.claims if c.id == claim)


def test_a_broadcast_domain_of_several_switches(tmp_path: Path) -> None:
    """Of 150 hosts a switch with all would lose broadcasts, so there are four in a row."""
    found = built(Request("bridge", hosts=150, containers=2), tmp_path)
    (note,) = [event.detail for event in found.events if "in a row" in event.detail]
    assert note.startswith("4 switches")
    assert observed(found, "all-hosts-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "all-containers-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "addresses-never-collide") == "451 different addresses"


@pytest.mark.slow
def test_a_thousand_hosts_with_two_containers_each(tmp_path: Path) -> None:
    found = built(Request("bridge", hosts=1000, containers=2), tmp_path, patience_s=600)
    assert observed(found, "all-containers-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "addresses-never-collide") == "3001 different addresses"


@pytest.mark.slow
@needs_open_vswitch
def test_a_mesh_of_64_open_vswitches(tmp_path: Path) -> None:
    found = built(Request("ovs-gre", hosts=64, containers=1), tmp_path, patience_s=600)
    assert re.fullmatch(
        r"(\d+) of \1 pairs answer", observed(found, "all-containers-reach-each-other")
    )
    assert found.path is not None
    assert found.path.encapsulation == "gre"


@pytest.mark.slow
@pytest.mark.parametrize("datapath", ["sleeve", "fastdp"])
def test_64_weave_routers(tmp_path: Path, datapath: str) -> None:
    request = Request("weave", hosts=64, containers=1, settings={"datapath": datapath})
    found = built(request, tmp_path, patience_s=600)
    assert observed(found, "routers-are-connected") == str(64 * 63)
