"""The guest's runner: output and status come through, and nothing of the guest gets out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "xlab.guest", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def guest() -> Runner:
    """`run`, where this machine can."""
    asked = run("--check")
    if asked.returncode == 3:
        pytest.skip(asked.stderr.strip())
    assert asked.returncode == 0, asked.stderr
    return run


def test_output_status_and_working_folder_come_through(guest: Runner, tmp_path: Path) -> None:
    place = tmp_path / "a folder"
    place.mkdir()
    (place / "here").write_text("seen")
    done = guest("--", "sh", "-c", "pwd; cat here; echo bad >&2; exit 7", cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{place}\nseen", "bad\n")


def test_nothing_written_gets_out_and_there_is_no_network_card(
    guest: Runner, tmp_path: Path
) -> None:
    script = "echo x > new && cat new && ls /sys/class/net/*/device 2>/dev/null | wc -l"
    done = guest("--", "sh", "-c", script, cwd=tmp_path)
    assert done.stdout.split() == ["x", "0"]
    assert not (tmp_path / "new").exists()


def test_a_crashed_guest_is_not_taken_for_a_result(guest: Runner) -> None:
    done = guest("--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60")
    assert done.returncode == 70
    assert "ended without a result" in done.stderr
    assert "sysrq triggered crash" in done.stderr, "the console's last lines are shown"


def test_the_limit_ends_a_guest_that_hangs(guest: Runner) -> None:
    done = guest("--limit", "8", "--", "sleep", "1000")
    assert done.returncode == 124
    assert "not done within 8 s" in done.stderr


def test_without_qemu_the_machine_cannot_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("--check")
    assert done.returncode == 3
    assert "qemu-system-x86_64 (package qemu-system-x86)" in done.stderr
