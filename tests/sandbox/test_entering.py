"""What a program that goes into a lab takes along of its caller's."""

from __future__ import annotations

import pytest

from xlab.sandbox import entering
from xlab.sandbox.entering import Doors


def test_the_callers_environment_but_for_what_is_different_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "LANG": "C.UTF-8",
        "HOME": "/home/somebody",
        "TMPDIR": "/home/somebody/tmp",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }.items():
        monkeypatch.setenv(name, value)
    there = entering.environment(Doors({}, rootless=False))
    assert (there["LANG"], there["HOME"], there["USER"]) == ("C.UTF-8", "/root", "root")
    assert not {"TMPDIR", "XDG_RUNTIME_DIR"} & set(there)
