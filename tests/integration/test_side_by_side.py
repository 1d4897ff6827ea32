"""Labs of the same names and addresses at the same time, by root and by an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE_S, Run, machine, namespaces_of, why_no_open_vswitch
from xlab import record
from xlab.request import Request

pytestmark = pytest.mark.sandbox

_ROOT = Path(__file__).parents[2]

#: nobody: an ordinary user as far as the kernel is concerned.
ORDINARY = 65534


@pytest.mark.usefixtures("open_vswitch")
def test_two_runs_of_ovs_gre_at_once_both_pass(tmp_path: Path) -> None:
    request = Request("ovs-gre", quick=True)
    # The same results folder, in the same second as like as not.
    with Run(request, tmp_path / "results") as first, Run(request, tmp_path / "results") as second:
        for ours, others in ((first, second), (second, first)):
            next(event for event in ours if event["kind"] == "started")
            assert ours.first_process() != others.first_process()
        net = [namespaces_of(run.first_process() or 0) for run in (first, second)]
        assert not {n for n in net[0] & net[1] if n.startswith(("net:", "mnt:", "pid:"))}
        ends = [run.finish() for run in (first, second)]
    assert [end["status"] for end in ends] == ["passed", "passed"]
    folders = {Path(end["folder"]) for end in ends}
    assert len(folders) == 2
    for folder in folders:
        found = record.load(folder)
        assert found.path is not None
        assert (found.path.encapsulation, found.path.proved) == ("gre", True)


@pytest.mark.usefixtures("open_vswitch")
def test_different_scenarios_at_once(tmp_path: Path) -> None:
    with (
        Run(Request("baseline", quick=True), tmp_path / "baseline") as baseline,
        Run(Request("bridge", quick=True), tmp_path / "bridge") as bridge,
        Run(Request("ovs-gre", quick=True), tmp_path / "ovs-gre") as ovs_gre,
    ):
        runs = (baseline, bridge, ovs_gre)
        assert [run.finish()["status"] for run in runs] == ["passed"] * 3


# -- without root ----------------------------------------------------------------------------------

#: Started as root in a mount namespace of its own: /dev/net/tun as a stock udev has it, then for
#: good the ordinary user, and what the arguments say.
_BECOME_ORDINARY = f"""
import os, sys
from xlab import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
if os.path.exists("/dev/net/tun"):
    os.mkdir(sys.argv[1] + "/dev")
    syscalls.mount("tmpfs", sys.argv[1] + "/dev", "tmpfs", 0, "mode=755")
    os.mknod(sys.argv[1] + "/dev/tun", 0o20666, os.makedev(10, 200))
    os.chmod(sys.argv[1] + "/dev/tun", 0o666)
    syscalls.mount(sys.argv[1] + "/dev/tun", "/dev/net/tun", flags=syscalls.MS_BIND)
os.setgroups([])
os.setresgid({ORDINARY}, {ORDINARY}, {ORDINARY})
os.setresuid({ORDINARY}, {ORDINARY}, {ORDINARY})
os.environ.update(HOME=sys.argv[1], USER="nobody")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """What to start Python with so that an ordinary user runs it, and a folder that is theirs."""
    if os.geteuid() != 0:
        yield [sys.executable], tmp_path
        return
    # Not below pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="xlab-ordinary-") as name:
        folder = Path(name)
        os.chown(folder, ORDINARY, ORDINARY)
        python = python_for_all(folder)
        yield [sys.executable, "-P", "-c", _BECOME_ORDINARY, name, *python], folder


#: `python THIS … -c CODE` is Python with our packages, warnings being errors.
_OUR_PACKAGES = """
import site, sys, warnings
site.addsitedir({packages!r})
sys.dont_write_bytecode = True
warnings.simplefilter("error")
exec(sys.argv[sys.argv.index("-c") + 1])
"""


def python_for_all(folder: Path) -> list[str]:
    """A Python that the ordinary user may run, with the packages of xlab; skips if there is none.

    Our own environment's, or the system's with our packages if that is of the same version.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wrapper = folder / "python.py"
    wrapper.write_text(_OUR_PACKAGES.format(packages=sysconfig.get_path("purelib")))
    refused = ""
    for python in (sys.executable, f"/usr/bin/python{version}", "/usr/bin/python3"):
        refused = why_not([python, str(wrapper)])
        if not refused:
            return [python, str(wrapper)]
    pytest.skip(f"an ordinary user can't use this environment: {refused}")


def why_not(python: list[str]) -> str:
    """What keeps the ordinary user from importing xlab with `python`; empty if nothing."""
    try:
        trial = subprocess.run(
            [*python, "-c", "import pyroute2, mininet.topo, typer, xlab.runner"],
            env={"PYTHONPATH": str(_ROOT), "PATH": os.environ["PATH"]},
            user=ORDINARY, group=ORDINARY, extra_groups=[], cwd="/",
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return "" if trial.returncode == 0 else trial.stderr.splitlines()[-1]


@pytest.mark.parametrize("scenario", ["baseline", "bridge", "ovs-gre"])
def test_an_ordinary_user_needs_no_root(scenario: str, ordinary: tuple[list[str], Path]) -> None:
    argv, folder = ordinary
    if scenario == "ovs-gre" and not (machine().tun.usable and not why_no_open_vswitch()):
        pytest.skip(why_no_open_vswitch() or machine().tun.detail)
    with Run(Request(scenario, quick=True), folder / "results", argv=argv) as run:
        ended = run.finish()
        assert run.stderr() == ""
        found = record.load(Path(ended["folder"]))
    assert (found.status, found.reason) == ("passed", "")
    assert found.environment.sandbox == "rootless"
    assert all(claim.holds for claim in found.claims)
    if os.geteuid() == 0:
        assert Path(ended["folder"]).stat().st_uid == ORDINARY


def test_inside_a_rootless_sandbox_it_is_known_to_be_rootless(
    ordinary: tuple[list[str], Path],
) -> None:
    """Pid 1 is root there, in a user namespace that has no rights over the machine."""
    argv, _ = ordinary
    asked = subprocess.run(
        [*argv, "-c", _ASK_INSIDE],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        cwd="/", capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (asked.stdout, asked.stderr) == ("0 rootless\nrootless\n", "")


_ASK_INSIDE = """
import os
from xlab import controller, sandbox

def ask(arguments, emit):
    return f"{os.geteuid()} {sandbox.kind()}"

with sandbox.launch(lambda channel, _: controller.serve({"ask": ask}, channel, None)) as lab:
    client = controller.Client(lab.channel)
    print(client.call("ask", {}))
    client.close()
print(sandbox.kind())
"""


def test_without_a_usable_tun_ovs_gre_is_skipped_and_says_what_to_do(
    ordinary: tuple[list[str], Path],
) -> None:
    """The datapath of last resort needs /dev/net/tun: the message names it and the remedy."""
    if machine().ovs_datapath.live or why_no_open_vswitch() or os.geteuid() != 0:
        pytest.skip("needs root, Open vSwitch, and a kernel without its datapath")
    argv, folder = ordinary
    hidden = [part.replace("0o666", "0o600").replace("0o20666", "0o20600") for part in argv]
    with Run(Request("ovs-gre", quick=True), folder / "results", argv=hidden) as run:
        ended = run.finish()
        assert run.wait() == 3
    assert ended["status"] == "skipped"
    assert "/dev/net/tun" in ended["reason"]
    assert "chmod" in ended["reason"]
