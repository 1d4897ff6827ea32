"""What a lab that stands answers to who is outside."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.labs import sandboxed
from xlab.errors import UsageError, XlabError
from xlab.inside.verbs import Verbs
from xlab.lab import underlay
from xlab.lab.lab import Lab

pytestmark = pytest.mark.sandbox


@sandboxed
def test_a_node_that_nobody_can_enter_keeps_nothing_open() -> None:
    lab = Lab(underlay.describe(None, hosts=2))
    testbed: Any = SimpleNamespace(lab=lab, stands=True)
    verbs = Verbs(testbed, "lab")
    lab.hosts[1].close()

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for name in ("nobody", "h2"):
        with pytest.raises((UsageError, XlabError)):
            verbs.enter({"node": name}, lambda _: None)
    assert open_files() == before
