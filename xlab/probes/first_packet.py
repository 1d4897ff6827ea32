"""How long it takes from nothing to the first packet across: a lab of its own, built for that.

    sandbox ── build, no claim checked ── echo every 5 ms ── first reply
    └──────────────────────── first_packet_s ───────────────────────┘

In a lab that is checked while it is built nobody can tell: claims wait until they hold, and their
packets teach every switch and neighbour on the way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from xlab.errors import XlabError
from xlab.faults.recovery import Train
from xlab.kernel.processes import wait_until
from xlab.probes.kinds import Kind, probe
from xlab.record import record
from xlab.record.record import Measurement
from xlab.sandbox.launching import run_inside
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.claims import Unchecked

#: Routers that dial into the void try again after 1, 3 and 7 s.
_PATIENCE_S = 60.0
_INTERVAL_S = 0.005


@probe(
    Kind.OF_ANOTHER_LAB,
    "first-packet",
    "seconds from nothing until the first packet across, with nothing checked",
    doing="another lab, until its first packet is across",
)
def probe_first_packet(blueprint: Blueprint, round: int, build: int) -> Measurement:  # noqa: A002
    """`first_packet_s`; a lab that could not be built, or stayed silent, is a failed sample.

    This process is forked, which is sound only while it has one thread.
    """
    started_at = record.now()
    samples: tuple[float, ...] = ()
    direction = "the whole lab"
    try:
        done = run_inside(lambda: _build(blueprint))
        found = {"sandbox_s": done.started_s, **done.result}
        direction = found.pop("direction")
        samples = (done.started_s + found["build_s"] + found["first_reply_s"],)
    except XlabError as error:
        found = {"error": str(error)}
    return Measurement(
        probe="first-packet",
        metric="first_packet_s",
        unit="s",
        direction=direction,
        streams=1,
        round=round,
        build=build,
        started_at=started_at,
        samples=samples,
        failed_samples=0 if samples else 1,
        median=samples[0] if samples else None,
        detail={"tool": f"ICMP echo every {1000 * _INTERVAL_S:g} ms, no claim checked", **found},
    )


def _build(blueprint: Blueprint) -> Mapping[str, Any]:
    """Build it and send: how long each took, in seconds, and between whom."""
    begun = time.monotonic()
    lab = blueprint.wire()
    with lab.blaming_daemons():
        flow = blueprint.build(lab, Unchecked(lab))
        built = time.monotonic()
        train = Train(
            flow.source,
            flow.target.address,
            interval_s=_INTERVAL_S,
            silent=lambda: None,
            silent_after_s=_PATIENCE_S,
            silent_every_s=_PATIENCE_S,
        )
        try:
            wait_until(
                lambda: _first_answer(train) is not None,
                timeout_s=_PATIENCE_S,
                awaited=f"a first reply from {flow.target} to {flow.source}",
            )
            answered = _first_answer(train)
        finally:
            train.stop()
    assert answered is not None
    return {
        "build_s": built - begun,
        "first_reply_s": answered - built,
        "direction": f"{flow.source} > {flow.target}",
    }


def _first_answer(train: Train) -> float | None:
    return min((at for at in train.answers if at is not None), default=None)
