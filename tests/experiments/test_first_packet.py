"""From nothing to the first packet: a lab of its own, in a sandbox of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.labs import machine, why_no_sandbox
from xlab.probes import first_packet
from xlab.record.record import Measurement
from xlab.scenario import blueprint
from xlab.scenario.request import Request

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(why_no_sandbox()), reason=why_no_sandbox()),
]

SILENT = """
from ipaddress import IPv4Network
from xlab.scenario.scenario import Flow, Scenario

def build(lab, plan, size, settings, check):
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    h1, h2 = lab.hosts
    check.reaches(h1, h2)
    h2.set_down("eth0")
    nothing = lambda: None
    return Flow(h1, h2, (h1, h2), "none", h1, nothing, nothing, "")

SCENARIO = Scenario("silent", "nobody answers", (), lambda size, settings: None, build)
"""


def measured(scenario: str) -> Measurement:
    equipped = blueprint.equip(blueprint.design(Request(scenario)), machine())
    return first_packet.probe_first_packet(equipped, 2, 1)


def test_the_first_packet_comes_when_all_is_built() -> None:
    found = measured("baseline")
    detail = found.detail
    assert found.failed_samples == 0, detail
    assert (found.metric, found.round) == ("first_packet_s", 2)
    assert found.direction == "h1 > h2"
    parts = (detail["sandbox_s"], detail["build_s"], detail["first_reply_s"])
    assert min(parts) > 0
    assert list(found.samples) == [pytest.approx(sum(parts))]
    assert found.median == found.samples[0]


def test_a_lab_that_stays_silent_is_a_failed_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_packet, "_PATIENCE_S", 0.3)
    (tmp_path / "silent.py").write_text(SILENT)
    found = measured(str(tmp_path / "silent.py"))
    assert (found.samples, found.median, found.failed_samples) == ((), None, 1)
    assert "in vain for a first reply from h2 to h1" in found.detail["error"]
