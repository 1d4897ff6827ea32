"""One place to add a command, and one to add a subcommand of an emulated program.

Each is added to a copy of the package, by one new file or by one function more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.documents import ROOT

_COMMAND = '''
"""`xlab greet`."""
from typing import Annotated
import typer
from xlab.cli._app import command
from xlab.cli._options import Network

@command()
def greet(*, whom: Annotated[str, typer.Argument()], network: Network) -> int:
    """Greet whoever is named."""
    print(f"hello {whom}, of {network.request('bridge').hosts}")
    return 7
'''

#: What is added to a module of xlab/inside/machine/, and what is then typed there.
_SUBCOMMANDS = {
    "docker": """
@_SUBCOMMANDS.named("greet")
def _greet(_: Docker, typist: Typist) -> Outcome:
    options = Options(typist.words, "l loudly")
    typist.out(f"hello {options.rest[0]}{'!' * ('loudly' in options)}")
    return 7
""",
    "weave": """
@_SUBCOMMANDS.named("greet")
def _greet(_: Host, typist: Typist) -> Outcome:
    typist.out(f"hello {typist.words[0]}{'!' * ('-l' in typist.words)}")
    return 7
""",
    "systemd": """
@_SUBCOMMANDS.named("greet")
def _greet(_: Systemd, asked: _Asked) -> Outcome:
    asked.typist.out(f"hello {asked.names[0]}{'!' * ('l' in asked.options)}")
    return 7
""",
}
_TYPED = """
import sys
from types import SimpleNamespace
from xlab.inside.machine import docker, systemd, weave
from xlab.inside.machine.typist import RefusalError, Typist

daemon = SimpleNamespace(is_running=True, in_host_network=lambda: [])
host = SimpleNamespace(docker=daemon)
typist = Typist(sys.argv[2:], False, sys.stdout.write, sys.stderr.write)
try:
    sys.exit({
        "docker": lambda: docker.perform(daemon, typist),
        "weave": lambda: weave.perform(host, typist),
        "systemd": lambda: systemd.Systemd(host, {}).systemctl(typist),
    }[sys.argv[1]]())
except RefusalError as error:
    sys.exit(str(error))
"""

Do = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to add to."""
    shutil.copytree(ROOT / "xlab", tmp_path / "xlab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "xlab"


@pytest.fixture
def python(package: Path) -> Do:
    def run(
        *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            env={**os.environ, "PYTHONPATH": str(package.parent), **(environment or {})},
            capture_output=True,
            check=False,
            text=True,
        )

    return run


def test_a_file_in_cli_is_a_command(package: Path, python: Do) -> None:
    (package / "cli" / "greet.py").write_text(_COMMAND)
    listed = python("-m", "xlab", "--help").stdout
    assert "  greet    Greet whoever is named.\n" in listed
    assert listed.index("  greet ") > listed.index("  doctor ") > listed.index("  run ")
    completing = {
        "_XLAB_COMPLETE": "complete_bash", "COMP_WORDS": "xlab gre", "COMP_CWORD": "1",
    }  # fmt: skip
    assert python("-m", "xlab", environment=completing).stdout.split() == ["greet"]
    done = python("-m", "xlab", "greet", "you", "--hosts", "3", "--debug")
    assert (done.stdout, done.returncode) == ("hello you, of 3\n", 7)
    refused = python("-m", "xlab", "greet", "you", "--hosts", "1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "xlab: --hosts is 1; the range is 2 to 1,000\n"


@pytest.mark.parametrize("module", _SUBCOMMANDS)
def test_a_function_is_a_subcommand(package: Path, python: Do, module: str) -> None:
    with (package / "inside/machine" / f"{module}.py").open("a") as file:
        file.write(_SUBCOMMANDS[module])
    done = python("-c", _TYPED, module, "greet", "you", "-l")
    assert (done.stdout, done.stderr, done.returncode) == ("hello you!", "", 7)
    told = python("-c", _TYPED, module, "help")
    assert "greet" in told.stdout + told.stderr
    refused = python("-c", _TYPED, module, "nonsense")
    assert "'nonsense' is not emulated" in refused.stderr
    assert "greet" in refused.stderr
