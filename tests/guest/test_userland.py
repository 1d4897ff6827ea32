"""The archive that the virtual clock's guest boots from: the same bytes for everybody."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlab.guest import userland


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userland, "_compile", lambda *_: None)


@pytest.fixture
def archived(tmp_path: Path) -> Callable[[str], bytes]:
    """The archive of a small tree, made below a folder of that name."""

    def make(name: str) -> bytes:
        tree, ours = tmp_path / name / "tree", tmp_path / name / "code"
        for folder in ("usr/bin", "tmp", "opt"):
            (tree / folder).mkdir(parents=True)
        ours.mkdir()
        program = tree / "usr/bin/program"
        program.write_bytes(b"#!/bin/sh\n")
        program.chmod(0o700)
        (tree / "usr/bin/sh").symlink_to("program")
        (tree / "odd").write_bytes(b"12345")
        source = tmp_path / name / "module.py"
        source.write_text("x = 1\n")
        out = io.BytesIO()
        userland.write_archive(tree, [("xlab/module.py", source)], ours, out)
        return out.getvalue()

    return make


def entries(archive: bytes) -> dict[str, dict[str, Any]]:
    """As the kernel's early-userspace documentation has the format "newc"."""
    found: dict[str, dict[str, Any]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        start = (at + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = {
            "mode": fields[1],
            "owner": tuple(fields[2:4]),
            "time": fields[5],
            "content": archive[start : start + size],
        }
        at = (start + size + 3) // 4 * 4


def test_an_archive_has_every_file_as_roots(archived: Callable[[str], bytes]) -> None:
    found = entries(archived("one"))
    assert list(found) == sorted(found)
    assert {name: each["content"] for name, each in found.items() if each["content"]} == {
        "odd": b"12345",
        "opt/xlab/module.py": b"x = 1\n",
        "usr/bin/program": b"#!/bin/sh\n",
        "usr/bin/sh": b"program",
    }
    assert found["usr/bin/program"]["mode"] == 0o100755
    assert found["usr/bin/sh"]["mode"] == 0o120777
    assert (found["tmp"]["mode"], found["usr"]["mode"]) == (0o41777, 0o40755)
    assert {each["owner"] for each in found.values()} == {(0, 0)}
    assert {each["time"] for each in found.values()} == {0}


def test_whoever_makes_it_the_bytes_are_the_same(archived: Callable[[str], bytes]) -> None:
    first = archived("one")
    before = os.umask(0o077)
    try:
        assert archived("two") == first
    finally:
        os.umask(before)


def test_all_that_the_work_in_a_guest_imports_is_there() -> None:
    script = (
        "import sys; from xlab.experiments import virtual; virtual.get_ready();"
        "import xlab.weave.__main__, xlab.probes.catalog, xlab.guest.inside;"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'xlab'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    there = {file for _, file in userland.our_files()}
    assert {Path(name) for name in done.stdout.split()} - there == set()


def test_other_code_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("x = 1\n")
    before = userland.digest_of([("xlab/module.py", file)])
    assert userland.digest_of([("xlab/module.py", file)]) == before
    file.write_text("x = 2\n")
    assert userland.digest_of([("xlab/module.py", file)]) != before
