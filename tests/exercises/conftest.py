"""An exercise to try things on: the draft of `xlab lab new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.exercises import drafting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return drafting.draft("21-two-ways", tmp_path)
