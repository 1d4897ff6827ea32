"""What imposes conditions is one module: with nothing else changed it is used and told of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT

MODULE = """
from xlab.kernel.capabilities import Capability, Machine
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.joint import Discipline


class Snail(Discipline):
    name, place, words = "snail", 0, "delays by a snail"

    def can(self, wanted: LinkConditions) -> bool:
        return not wanted.loss_ratio

    def needs(self, machine: Machine) -> Capability:
        return machine.veth

    def arguments(self, conditions: LinkConditions, *, mtu: int) -> str:
        return f"snail {conditions.delay_ms}ms"


IMPOSER = Snail()
"""
ASK = """
from tests.support.fake_machine import machine_with
from xlab.cli._findings import diagnose
from xlab.experiments.recorder import Recorder
from xlab.kernel.drivers import State
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.chooser import choose
from xlab.scenario import blueprint
from xlab.scenario.request import Request

machine = machine_with(netem=State.NO)
for asked in (LinkConditions(delay_ms=1.0), LinkConditions(loss_ratio=0.1)):
    print(choose(asked, machine))
recorder = Recorder(blueprint.design(Request("baseline", delay_ms=5.0)))
recorder.blueprint = blueprint.equip(recorder.design, machine)
print(recorder.record("passed", "").conditions.backend, recorder.blueprint.notes)
(found,) = (each for each in diagnose(machine, {}, {}) if each.name == "link conditions")
print(found.ok, found.detail)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more module."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("xlab", "scenarios"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "xlab/lab/imposers/snail.py").write_text(MODULE)
    return folder


def test_it_is_asked_in_its_place_put_on_links_recorded_and_told_by_doctor(copy: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": f"{copy}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "snail",
        # What it cannot do the next one does.
        "delay-line",
        "snail ()",
        "True snail (veth is yes)",
    ], done.stderr
