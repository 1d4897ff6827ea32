"""The Vagrantfile, as far as it can be checked without starting a machine.

`vagrant validate` knows the options of Vagrant and of a provider, but neither whether a box exists
nor the options of rsync; those are compared here.  Nothing is written to the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VAGRANTFILE = ROOT / "Vagrantfile"

#: VirtualBox's answer to --version is all that validation asks of it.
VBOXMANAGE = "#!/bin/sh\necho 7.0.20r163906\n"

#: plugins/synced_folders/rsync of Vagrant, which takes any name without a word.
RSYNC_OPTIONS = {
    *("rsync__args", "rsync__auto", "rsync__chown", "rsync__exclude"),
    *("rsync__rsync_ownership", "rsync__rsync_path", "rsync__verbose"),
}


def require(program: str) -> str:
    found = shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed")
    return found


def validate(
    vagrantfile: str, folder: Path, *, provider: str = ""
) -> subprocess.CompletedProcess[str]:
    """`vagrant validate` of this text, with the settings of `provider`, or of none."""
    vagrant = require("vagrant")
    folder.mkdir(exist_ok=True)
    (folder / "Vagrantfile").write_text(vagrantfile)
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "VBoxManage").write_text(VBOXMANAGE)
    (programs / "VBoxManage").chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_CWD": str(folder),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "VAGRANT_HOME": str(folder / "home"),
    }
    argv = [vagrant, "validate", *([] if provider else ["--ignore-provider"])]
    return subprocess.run(
        argv, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def require_provider(provider: str, folder: Path) -> None:
    """Skips where Vagrant knows no such provider: libvirt's is a plugin."""
    configuration = f'Vagrant.configure("2") {{ |c| c.vm.box = "x"; c.vm.provider :{provider} }}'
    result = validate(configuration, folder / "empty", provider=provider)
    if result.returncode:
        pytest.skip(f"vagrant has no provider {provider}: {result.stderr.split('.')[0]}")


def text() -> str:
    return VAGRANTFILE.read_text(encoding="utf-8")


def provisioned() -> list[str]:
    """The commands that provisioning gives a shell, in order."""
    steps = re.findall(
        r'config\.vm\.provision .*?inline: (?:"(.*?)"|<<~SHELL\n(.*?)\n  SHELL)', text(), re.DOTALL
    )
    return [line.strip() for step in steps for line in (step[0] or step[1]).splitlines()]


def test_vagrant_accepts_it(tmp_path: Path) -> None:
    result = validate(text(), tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "validated successfully" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_vagrant_accepts_what_it_says_to_a_provider(provider: str, tmp_path: Path) -> None:
    require_provider(provider, tmp_path)
    result = validate(text(), tmp_path, provider=provider)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("provider", "right", "wrong"),
    [
        ("", 'type: "shell"', 'type: "shel"'),
        pytest.param("", "config.vm.hostname", "config.vm.hostnam", marks=pytest.mark.slow),
        pytest.param("libvirt", "libvirt.memory", "libvirt.memry", marks=pytest.mark.slow),
        pytest.param("virtualbox", "virtualbox.memory", "virtualbox.memry", marks=pytest.mark.slow),
    ],
)
def test_a_slip_would_be_found(provider: str, right: str, wrong: str, tmp_path: Path) -> None:
    if provider:
        require_provider(provider, tmp_path)
    assert right in text()
    result = validate(text().replace(right, wrong), tmp_path, provider=provider)
    assert result.returncode != 0, f"{wrong} was accepted"


def test_ruby_reads_it_without_a_warning() -> None:
    result = subprocess.run(
        [require("ruby"), "-wc", VAGRANTFILE], capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.stderr) == ("Syntax OK\n", "")


def test_each_provider_has_a_box_of_debian_13() -> None:
    boxes = re.findall(r'provider :(\w+) do .*?\n +override\.vm\.box = "([^"]+)"', text())
    assert dict(boxes) == {"libvirt": "debian/trixie64", "virtualbox": "bento/debian-13"}


def test_options_of_rsync_are_such_and_keep_the_guests_own_things() -> None:
    options = set(re.findall(r"\brsync__\w+", text()))
    assert options
    assert options <= RSYNC_OPTIONS
    # rsync deletes what the checkout has not, unless it is excluded.
    excluded = re.search(r"rsync__exclude: \[(.*?)\]", text())
    assert excluded
    assert {".venv/", "results/"} <= set(re.findall(r'"(.*?)"', excluded[1]))


def test_provisioning_is_bin_setup_and_ends_in_doctor() -> None:
    steps = provisioned()
    assert "/vagrant/bin/setup --system" in steps
    assert steps[-1] == "/vagrant/bin/xlab doctor"
    for step in steps:
        assert "apt" not in step, "what is installed is for bin/setup to say"
        if step.startswith("/vagrant/"):
            program = ROOT / step.split()[0].removeprefix("/vagrant/")
            assert os.access(program, os.X_OK), program
        check = subprocess.run(["sh", "-n", "-c", step], capture_output=True, check=False)
        assert check.returncode == 0, f"{step}: {check.stderr!r}"
