"""What several commands tell of a lab that stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlab.experiments.recorder import Recorder
    from xlab.outside.asking import Status


def faults(facts: Mapping[str, Any]) -> list[str]:
    return [f"fault: {fault}" for fault in facts["faults"]]


def age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def claims_and_path(told: Recorder | Status) -> dict[str, Any]:
    """As `--json` has them."""
    from dataclasses import asdict

    return {
        "claims": [asdict(claim) for claim in told.claims],
        "path": asdict(told.path) if told.path else None,
    }
