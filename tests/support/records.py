"""The sample records."""

from __future__ import annotations

from pathlib import Path

from xlab.record import record
from xlab.record.record import RunRecord

RECORDS = Path(__file__).parents[1] / "data" / "records"


def sample(name: str) -> RunRecord:
    (folder,) = RECORDS.glob(f"*Z-{name}")
    return record.load(folder)
