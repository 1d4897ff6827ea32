"""bin/setup on checkouts of its own: whole environments only, few words, and one line to paste.

The lock files here are empty, so nothing is fetched.  Installing system packages is proved in a
bare root (tests/clean_root).  Most of the time of making an environment is that of unpacking pip:
one test has it done, the others get these tests' own pip.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xlab.guest import view
from xlab.kernel.processes import wait_until
from xlab.kernel.programs import TOOLS as TOOLS_OF_LABS
from xlab.kernel.programs import TYPED

BIN = Path(__file__).parents[2] / "bin"
#: What bin/setup itself, and what it asks the machine for.
TOOLS = (
    "sh bash dash busybox id cat cp mv rm ls mkdir cmp cksum sed grep flock mktemp tail readlink"
    " env date"
)
NEEDED = "ip ping ovs-vswitchd iperf3 tcpdump iptables ethtool catatonit ps"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XLAB_PYTHON", str(python_that_shares_its_pip(tmp_path)))
    return tmp_path / "cache" / "xlab"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder, so that what this machine has is for the test to say."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    for name in NEEDED.split():
        program(programs / name, "exit 0")
    # An ordinary user's, whoever runs the tests: nothing may be installed here.
    program(programs / "id", "echo 1000")
    monkeypatch.setenv("PATH", str(programs))
    return programs


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with bin/, and lock files that ask for nothing, at a path that needs quoting."""
    folder = tmp_path / "it's a checkout"
    shutil.copytree(BIN, folder / "bin")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (folder / lock).write_text("# nothing\n")
    return folder


def program(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def python_that_shares_its_pip(folder: Path) -> Path:
    """This Python, but that a link to its own pip is in the environments it makes."""
    packages = "lib/python{}.{}/site-packages".format(*sys.version_info)
    # Whoever imports pip, or looks for its module, takes distutils from others (setuptools' hook).
    pip = importlib.metadata.distribution("pip").locate_file("pip")
    made = folder / "python-that-shares-its-pip"
    program(
        made,
        f"""[ "$1 $2 $3" = "-I -m venv" ] || exec {sys.executable} "$@"
        exec {sys.executable} -I -c "
import os, sys, venv
venv.create(sys.argv[1], symlinks=True)
os.symlink('{pip}', sys.argv[1] + '/{packages}/pip')
" "$4" """,
    )
    return made


def obeying_modes(machine: Path) -> str:
    """A shell that may not write where the mode of a folder forbids it, root's as well."""
    if os.geteuid() != 0:
        return "sh"
    (machine / "setpriv").symlink_to(shutil.which("setpriv", path="/usr/bin") or "")
    return "setpriv --bounding-set -dac_override sh"


def setup(
    checkout: Path, *arguments: str, shell: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [*shell.split(), str(checkout / "bin" / "setup"), *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder with a file for every module there might be; one that is run writes into `ran`."""
    folder = tmp_path / "a stranger's"
    folder.mkdir()
    for name in {*sys.stdlib_module_names, "pip", "sitecustomize", "usercustomize"}:
        told = f"open({str(folder / 'ran')!r}, 'a').write({name!r} + ' ')"
        (folder / f"{name}.py").write_text(f"{told}\nraise SystemExit(0)\n")
    return folder


@pytest.mark.parametrize("user", [0, 1000])
def test_no_file_of_the_current_folder_is_taken_for_a_module_of_pythons(
    checkout: Path, machine: Path, strangers: Path, user: int
) -> None:
    program(machine / "id", f"echo {user}")
    done = setup(checkout, cwd=strangers)
    assert not (strangers / "ran").exists(), (strangers / "ran").read_text()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{checkout}/.venv/bin/python\n"


def test_nor_where_python_is_only_looked_for(
    checkout: Path, machine: Path, strangers: Path
) -> None:
    """As by `sudo bin/setup --system`: whether python3 is to be installed is for it to say."""
    program(machine / "id", "echo 0")
    assert setup(checkout, "--system", cwd=strangers).returncode == 0
    assert not (strangers / "ran").exists(), (strangers / "ran").read_text()


@pytest.mark.slow
def test_the_first_run_makes_the_environment_and_the_next_finds_it(
    checkout: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLAB_PYTHON", sys.executable)
    first = setup(checkout, cwd=strangers)
    assert not (strangers / "ran").exists(), (strangers / "ran").read_text()
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{checkout}/.venv/bin/python\n", "stdout is the path and nothing else"
    assert "making the Python environment" in first.stderr

    program(checkout / ".venv/bin/python", "exit 9")
    again = setup(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")


def test_the_environment_finds_the_package_of_its_own_checkout(checkout: Path) -> None:
    (checkout / "xlab").mkdir()
    (checkout / "xlab/__init__.py").write_text("")
    python = setup(checkout).stdout.strip()
    shown = subprocess.run(
        [python, "-P", "-c", "import xlab; print(xlab.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == f"{checkout}/xlab/__init__.py"


@pytest.mark.slow
def test_a_changed_lock_file_and_a_moved_checkout_make_it_anew(checkout: Path) -> None:
    setup(checkout)
    (checkout / "requirements.lock").write_text("# nothing else\n")
    assert "making" in setup(checkout).stderr
    assert setup(checkout).stderr == ""

    moved = checkout.rename(checkout.with_name("moved"))
    assert "making" in setup(moved).stderr
    assert setup(moved).stderr == ""


@pytest.mark.slow
def test_development_packages_are_added_to_what_is_there(checkout: Path) -> None:
    setup(checkout)
    kept = checkout / ".venv/kept"
    kept.touch()
    assert setup(checkout, "--dev").returncode == 0
    assert kept.exists(), "xlab may be running from that environment"
    assert setup(checkout, "--dev").stderr == ""
    assert setup(checkout).stderr == "", "an environment for the tests serves xlab too"


def test_an_interrupted_set_up_is_not_taken_for_a_finished_one(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This Python says when it has been asked to make the environment, and then takes for ever.
    asked = tmp_path / "asked"
    slow = tmp_path / "python-that-hangs"
    program(
        slow,
        f"""[ "$2" = -m ] || exec {sys.executable} "$@"
        {sys.executable} "$@" --without-pip
        touch {asked}
        exec sleep 1000""",
    )
    (tmp_path / "programs/sleep").symlink_to(shutil.which("sleep", path="/usr/bin") or "")
    (tmp_path / "programs/touch").symlink_to(shutil.which("touch", path="/usr/bin") or "")
    usual = os.environ["XLAB_PYTHON"]
    monkeypatch.setenv("XLAB_PYTHON", str(slow))
    killed = subprocess.Popen(
        [checkout / "bin/setup"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(asked.exists, timeout_s=60.0, awaited="the environment to be begun")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (checkout / ".venv/bin/python").exists(), "it looks like an environment"

    monkeypatch.setenv("XLAB_PYTHON", usual)
    assert "making the Python environment" in setup(checkout).stderr
    assert setup(checkout).stderr == ""


def test_whose_an_environment_is_that_is_being_made_is_not_asked_before_it_is_made(
    checkout: Path,
) -> None:
    folder = os.open(checkout, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    (checkout / ".venv").mkdir()
    with subprocess.Popen(
        [checkout / "bin/setup"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stderr is not None
        assert second.stderr.readline().startswith("xlab: waiting: another process has locked")
        (checkout / ".venv/checkout").write_text(f"{checkout}\n")
        os.close(folder)
        assert second.communicate()[0] == f"{checkout}/.venv/bin/python\n"


@pytest.mark.slow
def test_two_first_runs_at_once_make_one_environment(checkout: Path) -> None:
    runs = [
        subprocess.Popen(
            [checkout / "bin/setup"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outcomes = [(*run.communicate(), run.returncode) for run in runs]
    assert [(out, status) for out, _, status in outcomes] == [
        (f"{checkout}/.venv/bin/python\n", 0)
    ] * 3
    assert sum("making" in err for _, err, _ in outcomes) == 1


def test_somebody_elses_environment_is_left_alone(checkout: Path, cache: Path) -> None:
    theirs = checkout / ".venv"
    theirs.mkdir()
    (theirs / "pyvenv.cfg").write_text("theirs")
    done = setup(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{cache}/venv-")
    assert [file.name for file in theirs.iterdir()] == ["pyvenv.cfg"]
    assert setup(checkout).stderr == ""


def test_a_checkout_that_cannot_be_written_gets_its_environment_in_the_cache(
    checkout: Path, cache: Path, machine: Path
) -> None:
    shell = obeying_modes(machine)
    checkout.chmod(0o555)
    try:
        done = setup(checkout, shell=shell)
    finally:
        checkout.chmod(0o755)
    assert done.stdout.startswith(f"{cache}/venv-"), done.stderr


def test_without_root_missing_packages_are_one_line_to_paste(checkout: Path, machine: Path) -> None:
    for name in ("iperf3", "catatonit"):
        (machine / name).unlink()
    done = setup(checkout)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    missing, paste = done.stderr.split("; to install, run: ")
    assert missing == "xlab: missing: iperf3 catatonit"

    # The line survives a shell, whatever the checkout is called: as "root" it would install.
    program(machine / "sudo", 'for word; do echo "<$word>"; done')
    words = subprocess.run(["sh", "-c", paste], capture_output=True, text=True, check=True).stdout
    assert words == f"<{checkout}/bin/setup>\n<--system>\n"


def test_worth_having_is_no_reason_to_fail(checkout: Path, machine: Path) -> None:
    done = setup(checkout, "--system")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("xlab: nothing is missing; worth having: netperf")
    assert done.stderr.count("\n") == 1
    program(machine / "id", "echo 0")
    done = setup(checkout, "--system")  # without apt-get
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("xlab: nothing is missing; worth having: netperf")
    for name in ("netperf", "ifup", "brctl", "ifconfig"):
        program(machine / name, "exit 0")
    assert setup(checkout, "--system").stderr == ""


def test_in_a_wheel_it_is_for_system_packages_alone(machine: Path, tmp_path: Path) -> None:
    """No lock file is beside it, and whoever installed the wheel had a Python."""
    package = tmp_path / "site-packages/xlab"
    shutil.copytree(BIN, package / "bin")
    (machine / "iperf3").unlink()
    done = setup(package)
    assert (done.returncode, done.stdout) == (3, "")
    paste = f"; to install, run: sudo {package}/bin/setup --system\n"
    assert done.stderr == f"xlab: missing: iperf3{paste}"
    program(machine / "iperf3", "exit 0")
    assert setup(package).returncode == 0
    assert [each.name for each in package.iterdir()] == ["bin"]


def test_its_packages_are_those_that_doctor_and_the_guest_ask_for() -> None:
    rows = re.findall(r"(?m)^(\S+) +(\S+)  +\S.*$", (BIN / "setup").read_text())
    package_of = dict(rows)
    for tool in (*TOOLS_OF_LABS, *TYPED):
        assert tool.package in package_of.values(), tool
        assert package_of.get(tool.name, tool.package) == tool.package
    for name, package in view.PROGRAMS.items():
        assert package_of.get(name, "util-linux") == package


#: In a mount namespace, for what a package manager would write to.  $PROGRAMS are the machine's.
_AS_ROOT = r"""
set -e
mount -n -t tmpfs -o mode=755 none /var/lib/dpkg
: >/var/lib/dpkg/lock
chmod 640 /var/lib/dpkg/lock
"""
#: An ordinary user holds whatever lock that user may.
_BESIDE_A_STRANGER = r"""
for place in /var/lib/dpkg /var/lib/dpkg/lock; do
    setpriv --reuid 65534 --regid 65534 --clear-groups flock "$place" sleep 1000 2>/dev/null &
done
until ! flock -n /var/lib/dpkg true; do sleep 0.02; done
"""
_SET_UP = r"""
mount -n -t tmpfs none /usr/sbin
PATH=$PROGRAMS "$@"
"""


def set_up_by_root(
    checkout: Path, machine: Path, *arguments: str, shell: str = "sh", beside: str = ""
) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("root's folders can be covered by root alone")
    program(machine / "id", "echo 0")
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c"]
    argv = [*shell.split(), str(checkout / "bin/setup"), *arguments]
    return subprocess.run(
        [*alone, _AS_ROOT + beside + _SET_UP, "bash", *argv],
        env={**os.environ, "PATH": os.defpath + ":/usr/sbin", "PROGRAMS": str(machine)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_no_lock_of_an_ordinary_user_keeps_root_waiting(checkout: Path, machine: Path) -> None:
    setup(checkout)
    (machine / "iperf3").unlink()
    program(machine / "apt-get", f"for last; do :; done; [ $last = update ] || : >{machine}/iperf3")
    done = set_up_by_root(checkout, machine, beside=_BESIDE_A_STRANGER)
    assert done.returncode == 0, done.stderr
    assert " system packages by apt-get (a minute or two; no service is started)\n" in done.stderr
    assert "xlab:   iperf3              throughput\n" in done.stderr
    assert "waiting" not in done.stderr


def lacks_netperf(machine: Path) -> None:
    """And only that, and apt-get can't get it."""
    for name in ("ifup", "brctl", "ifconfig"):
        program(machine / name, "exit 0")
    program(machine / "apt-get", "exit 100")


@pytest.mark.parametrize("arguments", [(), ("--system",)])
def test_what_is_worth_having_is_tried_once_by_root(
    checkout: Path, machine: Path, arguments: tuple[str, ...]
) -> None:
    """Of an ordinary user's environment: that user's runs have tried nothing."""
    lacks_netperf(machine)
    assert setup(checkout).returncode == 0
    assert setup(checkout).stderr == ""
    tried = set_up_by_root(checkout, machine, *arguments)
    assert tried.returncode == 0, tried.stderr
    assert "not installed (xlab goes on without it): netperf\n" in tried.stderr
    again = set_up_by_root(checkout, machine)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize("by", ["root", "a user"])
def test_an_environment_that_cannot_be_written_serves_all_the_same(
    checkout: Path, machine: Path, by: str
) -> None:
    """As of a checkout that many use.  netperf is missing, and can't be noted as tried."""
    lacks_netperf(machine)
    setup(checkout)
    (checkout / ".venv/requirements.lock.tried").unlink(missing_ok=True)
    shell = obeying_modes(machine)
    (checkout / ".venv").chmod(0o555)
    try:
        if by == "root":
            done = set_up_by_root(checkout, machine, shell=shell)
        else:
            done = setup(checkout, shell=shell)
    finally:
        (checkout / ".venv").chmod(0o755)
    # apt-get would be asked by each command.
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{checkout}/.venv/bin/python\n"


def test_it_says_what_it_is_waiting_for(checkout: Path) -> None:
    folder = os.open(checkout, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with subprocess.Popen(
        ["/usr/bin/timeout", "60", checkout / "bin/setup"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as waiting:  # fmt: skip
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert said.startswith(f"xlab: waiting: another process has locked {checkout}, to make")
        os.close(folder)
        assert "making the Python environment" in waiting.communicate()[1]
    assert waiting.returncode == 0


def test_root_without_apt_is_told_what_is_missing(checkout: Path, machine: Path) -> None:
    (machine / "ps").unlink()
    program(machine / "id", "echo 0")
    done = setup(checkout)
    assert done.returncode == 3
    assert "missing: procps" in done.stderr
    assert "no apt-get" in done.stderr


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_of_another_version_is_passed_over(
    checkout: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    other = machine / "other-python"
    # It claims that version wherever it is asked to judge itself, and is sound otherwise.
    program(
        other,
        f"""[ "$2" = -c ] || exec {sys.executable} "$@"
        exec {sys.executable} "$1" -c "import sys; sys.version_info = ({version.replace(".", ",")})
$3" """,
    )
    monkeypatch.setenv("XLAB_PYTHON", str(other))
    done = setup(checkout)
    assert done.returncode == 3
    assert "3.11, 3.12 or 3.13" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param("dash", marks=pytest.mark.slow),
        pytest.param("bash --posix", marks=pytest.mark.slow),
        "busybox sh",
    ],
)
def test_any_posix_shell_will_do(checkout: Path, shell: str) -> None:
    program_name, _, _ = shell.partition(" ")
    if shutil.which(program_name) is None:
        pytest.skip(f"{program_name} is not installed")
    done = setup(checkout, shell=shell)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{checkout}/.venv/bin/python\n"


def test_wrong_usage(checkout: Path) -> None:
    assert setup(checkout, "--help").returncode == 2


def test_the_command_passes_arguments_and_status_on_and_shadows_no_module(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "xlab").mkdir()
    (checkout / "xlab/__init__.py").write_text("")
    (checkout / "xlab/__main__.py").write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.environ['PATH'].split(':')[-2:]]))\n"
        "sys.exit(4)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('the wrong json')")
    link = tmp_path / "xlab-link"
    link.symlink_to(checkout / "bin/xlab")
    for command in (checkout / "bin/xlab", link):
        done = subprocess.run(
            [command, "run", "a b", ""], cwd=elsewhere, capture_output=True, text=True, check=False
        )
        assert done.returncode == 4, done.stderr
        assert done.stdout == '[["run", "a b", ""], ["/usr/sbin", "/sbin"]]\n'


def test_what_is_offered_to_be_pasted_begins_as_the_command_was_typed(
    checkout: Path, machine: Path, tmp_path: Path
) -> None:
    (checkout / "xlab").mkdir()
    (checkout / "xlab/__init__.py").write_text("")
    (checkout / "xlab/__main__.py").write_text(
        "import os\nprint(os.environ.get('XLAB_COMMAND', 'xlab'))\n"
    )

    def told(command: str) -> str:
        done = subprocess.run([command], cwd=checkout, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert told("bin/xlab") == "bin/xlab"
    (machine / "xlab").symlink_to(checkout / "bin/xlab")
    assert told(str(checkout / "bin/xlab")) == f"{checkout}/bin/xlab"
    assert told("xlab") == "xlab"
