"""A probe is one module: with nothing else changed it is listed, completed, named and measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT

MODULE = """
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe


@probe(Kind.BETWEEN_TWO, "distance", "metres as the crow flies", compared=True)
def probe_distance(pair: Pair, plan: Plan) -> Sampled:
    trial = Trial("distance", pair, plan)
    return Sampled((trial.measurement("distance_m", "m", [2.5], detail={}),), trial.raw)
"""
MEASURE = """
import random
from types import SimpleNamespace
from xlab.probes.facts import Pair, Plan
from xlab.probes.rounds import measure_round
pair = Pair(SimpleNamespace(name="h1"), SimpleNamespace(name="h2"), "method")
plan = Plan(0)
for sampled in measure_round([pair], plan, random.Random(1), ["distance", "no-probe"]):
    for measured in sampled.measurements:
        print(measured.probe, measured.metric, measured.median)
"""
COMPARE = """
from xlab.experiments.compare import plan
from xlab.experiments.compare.methods import Method
from xlab.scenario.request import Request
print(*plan.make([Method("weave", "weave", Request("weave"))]).probes)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more module."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("xlab", "scenarios"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "xlab/probes/distance.py").write_text(MODULE)
    return folder


def python(copy: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_listed(copy: Path) -> None:
    listed = python(copy, "-m", "xlab", "list").stdout
    # The last of its kind.
    assert "\n    distance        metres as the crow flies\n    first-packet " in listed


@pytest.mark.parametrize("command", ["run bridge", "compare"])
def test_it_is_completed(copy: Path, command: str) -> None:
    typed = f"xlab {command} --probe d"
    done = python(
        copy,
        "-m",
        "xlab",
        _XLAB_COMPLETE="complete_bash",
        COMP_WORDS=typed,
        COMP_CWORD=str(typed.count(" ")),
    )
    assert done.stdout.split() == ["distance"]


def test_a_wrong_name_is_told_of_it(copy: Path) -> None:
    done = python(copy, "-m", "xlab", "run", "bridge", "--probe", "distant")
    assert done.returncode == 2
    assert "path-mtu, distance, first-packet," in " ".join(done.stderr.split())


def test_a_round_and_a_comparison_measure_it(copy: Path) -> None:
    done = python(copy, "-c", MEASURE)
    assert done.stdout == "distance distance_m 2.5\n", done.stderr
    done = python(copy, "-c", COMPARE)
    assert done.stdout == "rtt tcp loaded-rtt distance\n", done.stderr
