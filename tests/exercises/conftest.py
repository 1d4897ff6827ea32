"""An exercise to try things on: the draft of `xlab lab new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.exercises import drafting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return drafting.draft("21-two-ways", tmp_path)


@pytest.fixture
def hasty(folder: Path) -> Path:
    """The same, whose checks are told at once that they don't hold: it is waited for often."""
    checks = folder / "checks.yaml"
    checks.write_text(checks.read_text().replace("  reaches:", "  wait: 0.7\n  reaches:"))
    return folder
