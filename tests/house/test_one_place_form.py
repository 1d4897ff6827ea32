"""A form of report is added by adding its module: everything else finds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT

YAML = '''"""FILE.yaml, FILE.yml: what came of it, for other programs."""

def of_results(told, base):
    return f"results: {len(told.parts)}\\nbelow: {base.name}\\n"
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more form, and nothing else that is new."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "xlab", folder / "xlab", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "xlab" / "report" / "forms" / "yaml.py").write_text(YAML)
    return folder


def report(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "xlab", "report", *words],
        cwd=ROOT,
        env={"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_first_line_is_in_the_help(copy: Path) -> None:
    words = " ".join(report(copy, "--help").stdout.split())
    assert "FILE.yaml what came of it, for other programs, FILE.txt or FILE tables" in words


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_a_file_called_like_it_is_written_in_it(copy: Path, tmp_path: Path, ending: str) -> None:
    written = tmp_path / f"told.{ending}"
    done = report(copy, "results/sample", "--output", str(written))
    assert (done.returncode, done.stderr) == (0, "")
    assert written.read_text() == f"results: 6\nbelow: {tmp_path.name}\n"


def test_it_is_among_the_forms_that_are_offered_and_contradicts_an_option(copy: Path) -> None:
    assert ".yaml, .yml, .txt" in report(copy, ".", "--output", "r.pdf").stderr
    refused = report(copy, ".", "--json", "--output", "r.yml")
    assert (refused.returncode, "the name says yaml" in refused.stderr) == (2, True)
