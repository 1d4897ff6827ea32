"""Tests that are killed leave no lab behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xlab.kernel.processes import wait_until

ROOT = Path(__file__).parents[2]
_TEST = """
import os, subprocess, time

def test_it():
    stays = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open(os.environ["TOLD"], "w").write(f"{stays.pid}\\n")
    time.sleep(1000)
"""


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_what_stands_by_itself_ends_with_tests_that_are_killed(
    signum: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    (tmp_path / "test_it.py").write_text(_TEST)
    told = tmp_path / "told"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    tests = subprocess.Popen(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOLD": str(told)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"), timeout_s=60,
                   awaited="the test")  # fmt: skip
        stays = Path("/proc", told.read_text().strip())
        assert stays.exists()
        tests.send_signal(signum)
        wait_until(lambda: not _runs(stays), timeout_s=60, awaited="the end of what it left")
    finally:
        tests.kill()
        tests.wait()


def _runs(process: Path) -> bool:
    """A zombie's new parent may take its time."""
    try:
        return b") Z" not in (process / "stat").read_bytes()
    except OSError:
        return False
