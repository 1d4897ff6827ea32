"""Mininet's own tests, unchanged, on xlab.mininet: which pass, and what the others say.

    python tests/support/mininets_tests.py SOURCE [PATTERN...]

SOURCE is Mininet's source tree: the package that pip installs has the examples, but no tests.
PATTERN picks tests whose name contains it.  They need pexpect; what else one of them needs
(sshd, iperf, wget, vconfig) is looked for where it looks itself.

Each test has a sandbox of its own, and `python` and `mn` are xlab.mininet's for what it starts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

#: tree1024 makes half a million pairs known to each other; treeping64 sends 8,064 pings by shells.
_PATIENCE_S = 900

_LIST = """
import sys, unittest
def tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests(test)
        else:
            print(test.id().partition(".")[2])
            yield test
sys.path.insert(0, sys.argv[1])
list(tests(unittest.defaultTestLoader.loadTestsFromName(sys.argv[2])))
"""

#: What a test starts as `python …`: a Mininet program goes through xlab.mininet.
_PYTHON = """#!/bin/sh
case "$1 $2" in
"-m mininet"*) exec {python} -W ignore -m xlab.mininet "$@" ;;
esac
exec {python} "$@"
"""
_MN = """#!/bin/sh
exec {python} -W ignore -m xlab.mininet mn "$@"
"""


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write(__doc__ or "")
        return 2
    source, patterns = Path(sys.argv[1]).resolve(), sys.argv[2:]
    # Not below /tmp, which a sandbox has its own of.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        runner = Runner(Path(folder))
        for file in sorted(source.glob("mininet/test/test_*.py")) + sorted(
            source.glob("examples/test/test_*.py")
        ):
            for test in runner.tests_in(file):
                name = f"{file.stem}.{test}"
                if not patterns or any(pattern in name for pattern in patterns):
                    begun = time.monotonic()
                    outcome = runner.outcome_of(file, test)
                    line = f"{name:70} {time.monotonic() - begun:6.1f} s  {outcome}\n"
                    sys.stdout.write(line)
                    sys.stdout.flush()
    return 0


class Runner:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in (("python", _PYTHON), ("mn", _MN)):
            program = folder / name
            program.write_text(text.format(python=sys.executable))
            program.chmod(0o755)
        (folder / "list.py").write_text(_LIST)
        repository = Path(__file__).resolve().parents[2]
        self._environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": f"{repository}:{os.environ.get('PYTHONPATH', '')}",
        }

    def tests_in(self, file: Path) -> Iterator[str]:
        """Class.method of each test of a file; its error instead if it cannot be loaded."""
        yield from self._run(self._folder / "list.py", str(file.parent), file.stem).split()

    def outcome_of(self, file: Path, test: str) -> str:
        """ "passed", or the line that says why it did not."""
        output = self._run(file, "-v", "-k", f"*.{test}")
        last = output.rstrip().rpartition("\n")[2]
        if last == "OK":
            return "passed"
        skipped = re.search(r"skipped ['\"](.*)['\"]", output)
        if skipped and last.startswith("OK"):
            return f"skipped: {skipped[1]}"
        reasons = re.findall(r"^(?:\w+\.)*\w*(?:Error|EOF|TIMEOUT)\b.*$", output, re.MULTILINE)
        said = re.findall(r"^before \(last 100 chars\): (.*)$", output, re.MULTILINE)
        return " | ".join(["failed", *reasons[:1], *said[:1]]) if reasons else f"failed: {last}"

    def _run(self, script: Path, *arguments: str) -> str:
        argv = [sys.executable, "-W", "ignore", "-m", "xlab.mininet", str(script), *arguments]
        try:
            done = subprocess.run(
                argv,
                cwd=script.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"TimeoutError: no end after {_PATIENCE_S} s"
        return done.stdout


if __name__ == "__main__":
    sys.exit(main())
