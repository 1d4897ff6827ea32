"""`xlab setup`: the script that has come along does it, and then doctor has its say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from xlab import cli
from xlab.cli._findings import Finding
from xlab.kernel import shipped
from xlab.kernel.processes import wait_until


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a wheel, in place of bin/setup: for the test to write."""
    package = tmp_path / "site-packages/xlab"
    (package / "bin").mkdir(parents=True)
    monkeypatch.setattr(shipped, "PACKAGE", package)
    monkeypatch.setattr(
        "xlab.cli._findings.findings", lambda: [Finding("labs", True, "run as root")]
    )
    return package / "bin/setup"


def test_the_script_installs_system_packages_and_doctor_says_what_can_be_done(
    script: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script.write_text('echo "$0 $*" >&2\n')
    assert cli.main(["setup"]) == 0
    told = capfd.readouterr()
    assert told.err == f"{script} --system\n"
    assert told.out.splitlines()[-1] == "Every scenario runs here."


def test_what_the_script_cannot_is_not_examined_further(
    script: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script.write_text("echo 'xlab: missing: iperf3; to install, run: …' >&2\nexit 3\n")
    assert cli.main(["setup"]) == 3
    told = capfd.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_an_installation_without_it_says_so(
    script: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["setup"]) == 1
    assert "bin/setup is missing from this installation" in capfd.readouterr().err
    assert not script.exists()


#: A signal that comes when the script has been started, and before anybody waits for it.
_AT_ONCE = """
import os, signal, subprocess, time
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Popen
"""


@pytest.mark.parametrize("at_once", [True, False])
def test_what_ends_xlab_waits_until_the_script_has_put_its_own_away(
    script: Path, tmp_path: Path, at_once: bool
) -> None:
    begun, put_away = tmp_path / "begun", tmp_path / "put-away"
    script.write_text(
        f"trap 'sleep 0.3; : >{put_away}; exit 143' TERM\n: >{begun}\n"
        "while :; do sleep 0.05; done\n"
    )
    program = (
        "import sys; from pathlib import Path; from xlab.kernel import shipped\n"
        f"shipped.PACKAGE = Path(sys.argv[1])\n{_AT_ONCE if at_once else ''}"
        "from xlab import cli; sys.exit(cli.main(['setup']))"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program, script.parents[1], begun],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        if not at_once:
            wait_until(begun.exists, timeout_s=60.0, awaited="the script to begin")
            command.send_signal(signal.SIGTERM)
        assert command.communicate(timeout=60)[1] == "interrupted by SIGTERM\n"
    assert command.returncode == 143
    assert put_away.exists()
