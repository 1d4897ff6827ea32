"""A run in virtual time, as the guest does it: build, prove, measure, and tell all of it.

The guest is frozen once all of this is imported, and thawed with a job (`guest.inside`).  Its clock
is the only one there is in it: whatever measures with a clock, here or in a program that it starts,
measures instructions.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, XlabError
from xlab.experiments.recorder import Recorder
from xlab.experiments.runner import Bench
from xlab.kernel import capabilities
from xlab.kernel.environment import environment_facts
from xlab.record import record
from xlab.scenario import blueprint, catalog, scenario
from xlab.scenario.request import Request

Tell = Callable[[dict[str, Any]], None]


def get_ready() -> None:
    """Whatever takes its time and is the same for every job: before the guest is frozen."""
    for name in catalog.names():
        scenario.load(catalog.find(name))
    environment_facts()


def inside(job: Mapping[str, Any], tell: Tell) -> None:
    """Do what `guest_bench.GuestBench` asks for."""
    for path, text in job["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    Path(job["folder"]).mkdir(parents=True, exist_ok=True)
    os.chdir(job["folder"])
    request = record.decode(Request, job["request"], "request")
    try:
        recorder = Recorder(
            blueprint.design(request),
            lambda event: tell(dict(event)),
            # The guest has no numpy.
            intervals=False,
        )
        _run(recorder, job["rounds"], tell)
    except XlabError as error:
        tell({"kind": "refused", "text": str(error), "usage": isinstance(error, UsageError)})


def _run(recorder: Recorder, rounds: Mapping[str, Any] | None, tell: Tell) -> None:
    try:
        recorder.blueprint = blueprint.equip(recorder.design, capabilities.probe())
        with Bench(recorder) as bench:
            bench.build()
            tell({"kind": "built"})
            if rounds is None:
                bench.measure_rounds()
            elif recorder.verdict()[0] == "passed":
                _measure(bench, rounds)
        status, reason = recorder.verdict()
    except UsageError:
        raise
    except XlabError as error:
        status, reason = recorder.broken_by(error)
    tell(
        {
            "kind": "finished",
            "record": recorder.record(status, reason).to_dict(),
            "raw": {name: base64.b64encode(data).decode() for name, data in recorder.raw.items()},
        }
    )


def _measure(bench: Bench, rounds: Mapping[str, Any]) -> None:
    build, numbers = rounds["build"], rounds["numbers"]
    for number in numbers:
        bench.measure(round=number, build=build, probes=rounds["probes"], routes=rounds["routes"])
    bench.disturb(rounds["disturbing"], round=numbers[-1], build=build)
