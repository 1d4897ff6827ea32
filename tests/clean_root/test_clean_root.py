"""`bin/xlab` on a bare machine: a minimal root without Python, and nothing prepared."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT
from tests.support.wheels import built_wheel
from xlab.scenario import catalog

pytestmark = pytest.mark.slow

RUN = Path(__file__).with_name("run")


def on_a_bare_machine(*words: str | Path) -> Any:
    """What the command, which prints JSON, says there."""
    done = subprocess.run([RUN, *words], capture_output=True, text=True, check=False)
    if done.returncode == 3 and "clean root: can't" in done.stderr:
        pytest.skip(done.stderr.partition("clean root: can't: ")[2].strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


USERS = pytest.mark.parametrize("options", [(), ("--user",)], ids=["root", "ordinary-user"])


@USERS
def test_every_scenario_passes_on_a_bare_machine(options: tuple[str, ...]) -> None:
    records = on_a_bare_machine(*options, "--", "bin/xlab", "run", "all", "--quick", "--json")
    assert [(record["scenario"], record["status"]) for record in records] == [
        (name, "passed") for name in catalog.names()
    ]


@USERS
def test_three_commands_lead_from_a_wheel_to_a_method_that_is_proved(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """apt-get and xlab setup are those of inside.sh; then what the README has one type."""
    wheel = built_wheel(tmp_path)
    command = f"pipx run --spec ./{wheel.name} xlab run ovs-gre"
    assert f"\n{command}\n" in (ROOT / "README.md").read_text()
    record = on_a_bare_machine(
        *options, "--wheel", wheel, "--", *command.split(), "--quick", "--json"
    )
    assert (record["scenario"], record["status"]) == ("ovs-gre", "passed")
