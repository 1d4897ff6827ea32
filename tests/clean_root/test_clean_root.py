"""`bin/xlab` on a bare machine: a minimal root without Python, and nothing prepared."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from xlab.scenario import catalog

pytestmark = pytest.mark.slow

RUN = Path(__file__).with_name("run")


@pytest.mark.parametrize("options", [(), ("--user",)], ids=["root", "ordinary-user"])
def test_every_scenario_passes_on_a_bare_machine(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [RUN, *options, "--", "bin/xlab", "run", "all", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 3 and "clean root: can't" in done.stderr:
        pytest.skip(done.stderr.partition("clean root: can't: ")[2].strip())
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [(record["scenario"], record["status"]) for record in records] == [
        (name, "passed") for name in catalog.names()
    ]
