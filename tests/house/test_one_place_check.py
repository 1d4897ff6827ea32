"""A new kind of check is one class: in checks.yaml, in its schema, validated, carried out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from xlab.exercises import drafting

#: The one class, then what a user of it does, in a Python of its own.
_PROGRAM = '''
import sys
from types import SimpleNamespace
from xlab.inside.checks import kinds
from xlab.inside.checks.kinds import Kind, Seen

class Named(Kind, word="named"):
    """A host has that name."""

    shape = {"type": "object", "properties": {"host": {"type": "string"}, "so": {"type": "string"}},
             "required": ["host", "so"], "additionalProperties": False}

    def look(self, lab):
        found = next(host.hostname for host in lab.hosts if host.name == self.given["host"])
        return Seen(found == self.given["so"], f"it is called {found}")

if sys.argv[1] == "examine":
    host = SimpleNamespace(name="h1", hostname="anna", require_daemons=lambda: None)
    lab = SimpleNamespace(hosts=[host], nodes=[])
    for so in ("anna", "ben"):
        seen = kinds.examine("named", {"host": "h1", "so": so}, lab, None, wait_s=0)
        print(seen.holds, seen.text)
else:
    from xlab.cli import main
    sys.exit(main(sys.argv[1:]))
'''


def said(*words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout


def test_it_is_carried_out() -> None:
    assert said("examine") == "True it is called anna\nFalse it is called anna\n"


def test_it_is_in_the_schema() -> None:
    schema = json.loads(said("lab", "validate", "--schema", "checks.yaml"))
    assert schema["items"]["properties"]["named"]["required"] == ["host", "so"]
    # And may be what another asks under a fault.
    assert "named" in schema["$defs"]["asked"]["properties"]


@pytest.mark.parametrize(
    ("written", "status", "told"),
    [
        ("named: {host: h1, so: anna}", 0, "✓ two-ways"),
        ("named: {host: h1}", 1, "checks.yaml:4: there: named: 'so' is missing"),
    ],
)
def test_it_is_written_and_validated(tmp_path: Path, written: str, status: int, told: str) -> None:
    folder = drafting.draft("21-two-ways", tmp_path)
    checks = folder / "checks.yaml"
    text = checks.read_text()
    checks.write_text(text.replace('reaches: {from: h1, to: "{own2}"}', written))
    assert told in said("lab", "validate", str(folder), status=status)
