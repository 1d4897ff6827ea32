"""The command line with a runner that measures nothing: sample records told as events.

    python tests/support/fake_run.py run all              to look at, at a pace one can follow
    python tests/support/fake_run.py --fast run ovs-gre --json

Tests use `events` and `run`; the script is for whoever works on how things look.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.records import sample
from xlab import cli
from xlab.record import record
from xlab.record.record import RunRecord
from xlab.scenario.request import Request

#: Which sample a scenario of the catalog is told as; any other scenario is told as "bridge".
SAMPLES = {"baseline": "baseline", "ovs-gre": "ovs-gre", "weave": "ovs-gre-skipped"}

Watch = Callable[[Mapping[str, Any]], None]


def run(
    request: Request, *, results: Path, watch: Watch, pause_s: float = 0.0
) -> tuple[RunRecord, Path]:
    """Like xlab.experiments.runner.run; settings "sample=NAME" chooses the record."""
    name = request.settings.get("sample") or SAMPLES.get(request.scenario, "bridge")
    told = sample(name)
    for event in events(told):
        time.sleep(pause_s * (0.2 if event["kind"] == "measurement" else 1))
        watch(event)
    folder = results / f"2025-01-02T090000Z-{len(list(results.glob('*')))}-{told.scenario}"
    record.save(told, folder, {"ping.txt": b"made up"})
    return told, folder


def events(told: RunRecord) -> Iterator[dict[str, Any]]:
    """The events of a run that ended with this record."""
    if told.status == "skipped":
        return
    yield {
        "kind": "started",
        "scenario": told.scenario,
        "hosts": told.parameters["hosts"],
        "containers": told.parameters["containers"],
        "datapath": told.environment.datapath,
        "sandbox": told.environment.sandbox,
        "settings": told.parameters["settings"],
    }
    for event in told.events:
        yield {"kind": "note", "text": event.detail}
    for text in ("2 hosts", "br0 on h1", "br0 on h2"):
        yield {"kind": "step", "phase": "build", "text": text}
    stage = told.claims[0].stage
    for claim in told.claims:
        if claim.stage != stage:
            stage = claim.stage
            yield {"kind": "step", "phase": "build", "text": stage}
        yield {"kind": "claim", **dataclasses.asdict(claim)}
    yield phase("build", told.timings_s.build)
    yield phase("verify", told.timings_s.verify)
    if told.path:
        yield {"kind": "step", "phase": "path", "text": "20 marked packets"}
        yield {"kind": "path", **dataclasses.asdict(told.path)}
        yield phase("path", 0.8)
    for measurement in told.measurements:
        text = f"round {measurement.round}: {measurement.probe} {measurement.direction}"
        yield {"kind": "step", "phase": "measure", "text": text}
        yield {"kind": "measurement", **dataclasses.asdict(measurement)}
    yield phase("measure", told.timings_s.measure)
    yield phase("teardown", told.timings_s.teardown)


def phase(name: str, seconds: float) -> dict[str, Any]:
    return {"kind": "phase", "phase": name, "seconds": seconds}


def main() -> int:
    arguments = sys.argv[1:]
    pause_s = 0.4
    if arguments[:1] == ["--fast"]:
        arguments, pause_s = arguments[1:], 0.0
    from xlab.experiments import runner
    from xlab.scenario import catalog

    def paced(request: Request, *, results: Path, watch: Watch) -> tuple[RunRecord, Path]:
        return run(request, results=results, watch=watch, pause_s=pause_s)

    with (
        mock.patch.object(runner, "run", paced),
        mock.patch.object(
            catalog, "names", return_value=["baseline", "bridge", "ovs-gre", "weave"]
        ),
        mock.patch.object(catalog, "find", Path),
    ):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
