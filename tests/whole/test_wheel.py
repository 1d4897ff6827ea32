"""The wheel: what is in it and what is not, and that all works from it, however it is installed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from tests.support.wheels import built_wheel
from xlab.cli._app import PANELS
from xlab.guest import view
from xlab.record.version import RELEASED, __version__
from xlab.scenario import catalog

#: Of what is downloaded and installed, beside other work.
_PATIENCE_S = 900.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def inside(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def shared(archive: zipfile.ZipFile, place: str) -> str:
    return archive.read(f"xlab_testbed-{__version__}.data/data/share/{place}").decode()


# ------------------------------------------------------------------------------- what is in it


def test_its_name_is_free_in_the_index_and_its_command_is_xlab(
    wheel: Path, inside: zipfile.ZipFile
) -> None:
    assert wheel.name == f"xlab_testbed-{__version__}-py3-none-any.whl"
    facts = f"xlab_testbed-{__version__}.dist-info"
    assert "xlab = xlab.__main__:main" in inside.read(f"{facts}/entry_points.txt").decode()
    tops = {name.split("/")[0] for name in inside.namelist()}
    assert tops == {"xlab", facts, f"xlab_testbed-{__version__}.data"}


def test_it_carries_scenarios_labs_and_the_set_up_script(inside: zipfile.ZipFile) -> None:
    shipped = [
        file.relative_to(ROOT)
        for top in ("scenarios", "labs")
        for file in (ROOT / top).rglob("*")
        if file.is_file() and not {"__pycache__", "solution"} & set(file.parts)
    ]
    assert len(shipped) > 60
    names = set(inside.namelist())
    assert {f"xlab/{file}" for file in shipped} <= names
    assert {"xlab/guest/lock.json", "xlab/guest/view_init.sh", "xlab/py.typed"} <= names
    script = inside.getinfo("xlab/bin/setup")
    assert inside.read(script) == (ROOT / "bin/setup").read_bytes()
    assert script.external_attr >> 16 & stat.S_IXUSR, "the line to paste starts it"


def test_no_solution_and_no_hidden_check_is_inside(inside: zipfile.ZipFile) -> None:
    """They are a teacher's, who has a checkout."""
    assert not [name for name in inside.namelist() if "solution" in name]
    kept = {
        hashlib.sha256(file.read_bytes()).digest(): file
        for file in ROOT.glob("labs/*/solution/**/*")
        if file.is_file()
    }
    assert len(kept) > 60
    for name in inside.namelist():
        found = kept.get(hashlib.sha256(inside.read(name)).digest())
        assert found is None, f"{name} is {found}"


def test_the_manual_page_has_every_command_and_no_slip(inside: zipfile.ZipFile) -> None:
    page = shared(inside, "man/man1/xlab.1")
    assert page.startswith(f'.TH XLAB 1 {RELEASED} "xlab {__version__}"')
    headings = re.findall(r'(?m)^\.SS "xlab (lab [a-z]+|[a-z]+) ', page)
    assert set(headings) == {
        *(name for names in PANELS["xlab"].values() for name in names),
        *(f"lab {name}" for names in PANELS["lab"].values() for name in names),
    }
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    checked = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning"], input=page, capture_output=True, text=True, check=False
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)


def test_a_slip_in_the_manual_page_would_be_found() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    page = ".TH XLAB 1 2026-01-01\n.SH NAME\nxlab \\- it\n.NO SUCH REQUEST\n"
    checked = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning"], input=page, capture_output=True, text=True, check=False
    )
    assert checked.returncode != 0


def test_it_has_completion_for_three_shells(inside: zipfile.ZipFile) -> None:
    assert "complete -o default -F" in shared(inside, "bash-completion/completions/xlab")
    zsh = shared(inside, "zsh/site-functions/_xlab")
    assert zsh.startswith("#compdef xlab\n")
    assert zsh.endswith('\n_xlab_completion "$@"\n'), "completes when it is first wanted, too"
    assert "complete --command xlab" in shared(inside, "fish/vendor_completions.d/xlab.fish")


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[:2] == ["[Unreleased]", f"[{__version__}] - {RELEASED}"]


# ---------------------------------------------------------------------------------- installed


@dataclass(frozen=True, slots=True)
class Installed:
    """xlab as somebody has installed it, in an empty home."""

    home: Path
    environment: Mapping[str, str]
    #: What is typed to start it, and the Python that it is installed in.
    xlab: list[str]
    python: list[str]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.attempted([*self.xlab, *words], more)

    def said(self, *words: str, **more: str) -> str:
        """What `xlab WORDS` prints, which succeeds."""
        return self.succeeding([*self.xlab, *words], more).stdout

    def succeeding(
        self, argv: Sequence[str | Path], more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = self.attempted(argv, more or {})
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def attempted(
        self, argv: Sequence[str | Path], more: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=self.home, env={**self.environment, **more}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=_PATIENCE_S,
        )  # fmt: skip


@pytest.fixture
def nobodys(tmp_path: Path) -> Installed:
    """Not installed yet; nothing of this checkout's environment is seen."""
    strange = ("PYTHON", "XDG_", "VIRTUAL_ENV", "XLAB_", "UV_", "PIPX_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    certificates = os.environ.get("PIP_CERT")
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "UV_PYTHON": sys.executable,
        "PIPX_DEFAULT_PYTHON": sys.executable,
        **({"SSL_CERT_FILE": certificates} if certificates else {}),
    }
    # The guest's kernel need not be fetched again.
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/xlab").symlink_to(view.cache_folder())
    return Installed(tmp_path, environment, [], [])


def installed_by(installer: str, wheel: Path, nobodys: Installed) -> Installed:
    home = nobodys.home
    nobodys.succeeding([sys.executable, "-m", "venv", home / "venv"])
    pip = [str(home / "venv/bin/pip"), "install", "--quiet"]
    if installer == "pip":
        nobodys.succeeding([*pip, wheel])
        program = home / "venv/bin/xlab"
    else:
        got = nobodys.attempted([*pip, installer], {})
        if got.returncode:
            pytest.skip(f"{installer} can't be had: {got.stderr.strip().splitlines()[-1]}")
        if installer == "uv":
            uvx = [str(home / "venv/bin/uvx"), "--from", str(wheel)]
            return replace(nobodys, xlab=[*uvx, "xlab"], python=[*uvx, "python"])
        nobodys.succeeding([home / "venv/bin/pipx", "install", wheel])
        program = home / ".local/bin/xlab"
    python = program.resolve().with_name("python")
    return replace(nobodys, xlab=[str(program)], python=[str(python)])


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.parametrize("installer", ["pip", "pipx", "uv"])
def test_it_works_however_it_is_installed(installer: str, wheel: Path, nobodys: Installed) -> None:
    there = installed_by(installer, wheel, nobodys)
    assert there.said("--version") == f"xlab {__version__}\n"
    assert "Usage: xlab lab start" in there.said("help", "lab", "start")

    scenarios = json.loads(there.said("list", "--json"))
    assert [each["name"] for each in scenarios] == catalog.names()
    assert not [each["file"] for each in scenarios if str(ROOT) in each["file"]]
    exercises = json.loads(there.said("lab", "list", "--json"))
    assert [each["name"] for each in exercises] == sorted(
        file.parent.name for file in ROOT.glob("labs/*/lab.yaml")
    )
    assert "has no solution/ here" in there.run("lab", "selftest", "07").stderr

    doctor = {row["name"]: row for row in json.loads(there.run("doctor", "--json").stdout)}
    assert doctor["labs"]["ok"]
    guest = there.attempted([*there.python, "-m", "xlab.guest", "--check"], {})
    assert guest.returncode == (0 if can_have_guests() else 3), guest.stderr

    words = {"_XLAB_COMPLETE": "complete_bash", "COMP_WORDS": "xlab run ov", "COMP_CWORD": "2"}
    assert there.said(**words).split() == ["ovs-gre"]
    xlab = " ".join(there.xlab)
    # Which shell it is says the process that started it: bash must not become its last command.
    completion = f"{xlab} --show-completion && {xlab} --install-completion; exit $?"
    shown = there.succeeding(["bash", "-c", completion]).stdout
    assert "_XLAB_COMPLETE=complete_bash" in shown
    assert "xlab" in (there.home / ".bashrc").read_text()
    if installer != "uv":  # uvx keeps nothing
        prefix = Path(there.xlab[0]).parent.parent
        assert (prefix / "share/man/man1/xlab.1").read_text().startswith(".TH XLAB 1")
        # bash-completion looks beside the program that the link leads to.
        prefix = Path(there.xlab[0]).resolve().parent.parent
        assert (prefix / "share/bash-completion/completions/xlab").is_file()

    record = json.loads(there.said("run", "bridge", "--quick", "--json"))
    assert (record["status"], record["environment"]["xlab"]) == ("passed", __version__)
    assert list(there.home.glob("results/*/report.html"))


def can_have_guests() -> bool:
    """As this checkout's own environment finds."""
    argv = [sys.executable, "-P", "-m", "xlab.guest", "--check"]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, check=False).returncode == 0
