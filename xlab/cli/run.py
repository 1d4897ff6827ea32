"""`xlab run`: build, prove and measure scenarios, and write their records."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli import options
from xlab.cli.app import STATUSES, AsJson, Debug, Job, app
from xlab.cli.streams import DisplayError, print_error, print_json
from xlab.errors import XlabError
from xlab.scenario.request import DEFAULT_ROUNDS, QUICK_ROUNDS, Request, shared_out

if TYPE_CHECKING:
    from xlab.cli.screens.run import Screen
    from xlab.record.record import RunRecord

#: With several scenarios the first of these that occurred is the exit status.
_WORST_FIRST = (1, 2, 3, 0)


def _complete_probe(incomplete: str) -> list[str]:
    from xlab.probes.catalog import ALL, USUAL

    return [name for name in (*ALL, "all") if name not in USUAL and name.startswith(incomplete)]


@app.command(epilog=STATUSES)
def run(  # noqa: PLR0917 - typer calls it by keyword
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see xlab list), all, or a path to a scenario file.",
            autocompletion=options.complete_scenario,
        ),
    ],
    hosts: options.Hosts = None,
    containers: options.Containers = 2,
    topo: options.Topo = None,
    mtu: options.Mtu = 1500,
    rate: options.Rate = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    loss: options.Loss = None,
    duration: options.Duration = None,
    repeat: options.Repeat = None,
    streams: options.Streams = None,
    quick: Annotated[bool, typer.Option("--quick", help="A scenario in under 15 s.")] = False,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this, too (xlab list says what there is, all is all of it); repeatable.",
            autocompletion=_complete_probe,
        ),
    ] = None,
    settings: options.Settings = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Build, prove and measure a scenario, and write its record."""
    usual_rounds = QUICK_ROUNDS if quick else DEFAULT_ROUNDS
    request = options.request(
        scenario,
        hosts=hosts,
        containers=containers,
        topo=topo,
        mtu=mtu,
        rate=rate,
        delay=delay,
        jitter=jitter,
        loss=loss,
        streams=streams,
        settings=settings,
        duration_s=options.duration_s(duration, quick=quick),
        repeat=usual_rounds if repeat is None else repeat,
        quick=quick,
        probes=_beyond_usual(probe) if probe else (),
    )
    return partial(_run, request, results=results, as_json=as_json)


def _beyond_usual(asked: Sequence[str]) -> tuple[str, ...]:
    # Only who asks for more pays for knowing all there is: some 0.1 s of imports.
    from xlab.probes.catalog import beyond_usual

    return beyond_usual(asked)


def _run(request: Request, *, results: Path, as_json: bool) -> int:
    # numpy's BLAS would start threads when intervals are computed, and the next sandbox is forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from xlab.cli.screens.run import Screen
    from xlab.experiments import runner
    from xlab.scenario import catalog

    several = request.scenario == "all"
    names = catalog.names() if several else [request.scenario]
    requests = _requests(request, names) if several else [request]
    catalog.find(names[0])
    options.require_writable(results)
    screen = Screen(sys.stderr if as_json else sys.stdout)
    started_at = datetime.now(UTC)
    found: dict[Path, RunRecord] = {}
    told: list[RunRecord] = []
    unwritten: list[OSError] = []
    statuses = []
    for each in requests:
        try:
            record, folder = _run_one(each, results, screen)
        except runner.UnwrittenError as error:
            told.append(error.finished)
            unwritten.append(error)
        except XlabError as error:
            if not several:
                raise
            print_error(f"xlab: {each.scenario}: {error}")
            statuses.append(error.exit_status)
        else:
            found[folder / "run.json"] = record
            told.append(record)
            statuses.append({"passed": 0, "failed": 1, "skipped": 3}[record.status])
    if several:
        screen.closing(told)
    if as_json:
        data = [record.to_dict() for record in told]
        print_json(data if several else data[0])
    if unwritten:
        raise unwritten[0]
    _write_page(found, screen, together=(results, started_at) if several else None)
    return min(statuses, key=_WORST_FIRST.index)


def _write_page(
    found: Mapping[Path, RunRecord], screen: Screen, *, together: tuple[Path, datetime] | None
) -> None:
    """The report at the end: in a folder of its own, or beside the only record if that ran."""
    from xlab.report import files

    if together and found:
        results, started_at = together
        screen.written(files.together(results, found, started_at))
    elif not together:
        for file, record in found.items():
            if record.status != "skipped":
                screen.written(files.beside(file, record))


def _run_one(request: Request, results: Path, screen: Screen) -> tuple[RunRecord, Path]:
    from xlab.experiments import runner

    def watch(event: Mapping[str, Any]) -> None:
        try:
            screen.watch(event)
        except OSError as error:
            raise DisplayError(error) from error

    with screen.running():
        try:
            record, folder = runner.run(request, results=results, watch=watch)
        except runner.UnwrittenError as error:
            screen.finished(error.finished, None)
            raise
        screen.finished(record, folder)
    return record, folder


def _requests(request: Request, names: Sequence[str]) -> list[Request]:
    """One request a scenario; each gets the settings it knows, and every one must be known once."""
    if not request.settings:
        return [request.for_scenario(name, {}) for name in names]
    from xlab.scenario import catalog, scenario

    known = {
        name: [option.name for option in scenario.load(catalog.find(name)).options]
        for name in names
    }
    shares = shared_out(request.settings, known)
    return [request.for_scenario(name, shares[name]) for name in names]
