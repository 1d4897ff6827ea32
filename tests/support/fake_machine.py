"""A machine that can do everything, and what is told of a lab on it."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.drivers import State
from xlab.record.record import PathProof, UnderlayPackets

CLAIM = {"kind": "claim", "id": "h1-reaches-h2", "stage": "hosts", "text": "h1 reaches h2",
         "expected": "a reply", "observed": "a reply", "holds": True, "evidence": ""}  # fmt: skip
PROOF = PathProof(
    encapsulation="none",
    underlay_packets=UnderlayPackets(none=20),
    proved=True,
    negative_control=True,
    overhead_bytes=0,
    effective_mtu=1500,
    packets_sent=20,
    control_detail="cable: stops; healed: back",
)
PATH = {"kind": "path", **dataclasses.asdict(PROOF)}


def capability(name: str, state: State = State.YES) -> Capability:
    return Capability(name, state, f"{name} is {state}", "apt-get install it")


def machine_with(**states: State) -> Machine:
    """A machine that has everything, except where said otherwise."""
    fields: dict[str, Any] = {
        field.name: capability(field.name, states.get(field.name, State.YES))
        for field in dataclasses.fields(Machine)
    }
    fields |= {"kernel": "6.1", "sandbox": "rootless", "open_files": 4096, "neighbours": 1024}
    fields["waited_s"] = 0.0
    return Machine(**fields)
