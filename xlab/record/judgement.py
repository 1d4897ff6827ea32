"""What was found of a lab that somebody else built than its scenario: stage by stage, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from xlab.record.record import UnderlayPackets

#: "passed over": what it is about does not apply to what is there, which is right all the same.
State = Literal["holds", "fails", "not yet", "after that", "passed over"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the scenario, as far as it has come."""

    name: str
    state: State
    #: What is wrong, what is missing, or why it is passed over.
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Carried:
    """Which way the traffic goes: marked packets of a flow, as seen on the physical link."""

    source: str
    target: str
    packets: UnderlayPackets

    def seen(self) -> list[tuple[str, int]]:
        """Encapsulations and how many packets went in each, where any did."""
        counts = dataclasses.asdict(self.packets)
        del counts["stray"]
        return [(kind, number) for kind, number in counts.items() if number]


@dataclass(frozen=True, slots=True)
class Judgement:
    stages: tuple[Stage, ...]
    #: None until something can be sent.
    carries: Carried | None = None
    #: What to look at next; "" if all is well.
    next: str = ""

    @property
    def holds(self) -> bool:
        return all(stage.state in ("holds", "passed over") for stage in self.stages)
