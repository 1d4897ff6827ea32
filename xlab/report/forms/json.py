"""FILE.json: JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlab.record.figures import figures
from xlab.record.record import RunRecord
from xlab.report.content import Content
from xlab.report.sweeps import Swept


def of_results(told: Content, _base: Path) -> Any:
    """A comparison as its file has it; else the record, or a list of them."""
    if told.comparison:
        return told.comparison.to_dict()
    several = [to_data(file, record) for part in told.parts for file, record in part.files.items()]
    return several if len(several) > 1 else several[0]


def of_sweep(told: Swept, _base: Path) -> dict[str, Any]:
    return told.sweep.to_dict()


def to_data(file: Path, source: RunRecord) -> dict[str, Any]:
    """What a report says about a record, as JSON-ready data."""
    return {
        "file": str(file),
        "scenario": source.scenario,
        "status": source.status,
        "reason": source.reason,
        "started_at": source.started_at,
        "datapath": source.environment.datapath,
        "datapath_class": source.environment.datapath_class,
        "claims": {
            "held": sum(claim.holds for claim in source.claims),
            "total": len(source.claims),
            "broken": [asdict(claim) for claim in source.claims if not claim.holds],
        },
        "path": asdict(source.path) if source.path else None,
        "figures": [asdict(figure) for figure in figures(source)],
    }
