"""`xlab run`: build, prove and measure scenarios, and write their records."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli import _options as options
from xlab.cli._app import STATUS_OF, STATUSES, AsJson, command, no_threads
from xlab.cli._streams import print_error, print_how_to_set_up, print_json
from xlab.errors import XlabError
from xlab.scenario.request import DEFAULT_ROUNDS, QUICK_ROUNDS, Request, shared_out

if TYPE_CHECKING:
    from xlab.cli.screens.run import RunScreen
    from xlab.record.record import RunRecord

#: With several scenarios the first of these that occurred is the exit status.
_WORST_FIRST = (1, 2, 3, 0)


def _complete_probe() -> list[str]:
    from xlab.probes.catalog import ALL, USUAL

    return [name for name in (*ALL, "all") if name not in USUAL]


@command(epilog=STATUSES)
def run(
    *,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see xlab list), all, or a path to a scenario file.",
            autocompletion=options.complete_scenario,
        ),
    ],
    network: options.Network,
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
    clock: options.Clock = "real",
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> int:
    """Build, prove and measure a scenario, and write its record."""
    usual_rounds = QUICK_ROUNDS if quick else DEFAULT_ROUNDS
    probes: tuple[str, ...] = ()
    if probe:
        # Only who asks for more pays for knowing all there is: some 0.1 s of imports.
        from xlab.probes.catalog import beyond_usual

        probes = beyond_usual(probe)
    request = network.request(
        scenario,
        streams=streams,
        settings=settings,
        duration_s=options.duration_s(duration, quick=quick, clock=clock),
        repeat=usual_rounds if repeat is None else repeat,
        quick=quick,
        probes=probes,
        clock=clock,
    )
    usual = duration is repeat is None
    return _run(request, results=results, as_json=as_json, usual=usual)


def _run(request: Request, *, results: Path, as_json: bool, usual: bool) -> int:
    """`usual`: nobody has said how long it is to take."""
    no_threads()
    from xlab.cli.screens.run import RunScreen
    from xlab.cli.screens.screen import Screen
    from xlab.experiments import pace, runner
    from xlab.scenario import catalog

    several = request.scenario == "all"
    names = catalog.names() if several else [request.scenario]
    requests = _requests(request, names) if several else [request]
    catalog.find(names[0])
    options.require_writable(results)
    is_first = not any(results.glob("*/run.json"))
    screen = RunScreen(Screen(sys.stderr if as_json else sys.stdout), pace.Pace(requests))
    begun, started_at = time.monotonic(), datetime.now(UTC)
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
            statuses.append(STATUS_OF[record.status])
    if several:
        screen.closing(told)
    if as_json:
        data = [record.to_dict() for record in told]
        print_json(data if several else data[0])
    if unwritten:
        raise unwritten[0]
    # The report at the end: in a folder of its own, or beside the only record if that ran.
    from xlab.report import files

    if several and found:
        screen.screen.written(files.together(results, found, started_at))
    elif not several and told[0].status != "skipped":
        screen.screen.written(files.beside(*found.popitem()))
    if is_first and usual and found and sys.stdout.isatty() and not as_json:
        took_s = time.monotonic() - begun
        screen.screen.block("next", _other_length(requests, took_s))
    worst: int = min(statuses, key=_WORST_FIRST.index)
    if worst == STATUS_OF["skipped"]:
        print_how_to_set_up()
    return worst


def _other_length(requests: Sequence[Request], took_s: float) -> str:
    """What --quick changes, or the lack of it, for whoever runs this for the first time."""
    from xlab.cli.screens.screen import roughly
    from xlab.experiments import pace

    quick, clock = requests[0].quick, requests[0].clock
    others = [
        dataclasses.replace(
            each,
            quick=not quick,
            duration_s=options.duration_s(None, quick=not quick, clock=clock),
            repeat=DEFAULT_ROUNDS if quick else QUICK_ROUNDS,
        )
        for each in requests
    ]
    known, other = (_known_s(pace.of_run, each) for each in (requests, others))
    # A busy machine is as slow then as it was now.
    takes = f"takes about {roughly(took_s * other / known)}" if known and other else ""
    if quick:
        return f"without --quick it {takes or 'takes longer'}, and intervals are narrower"
    return f"with --quick it {takes or 'takes less time'}, and intervals are wider"


def _known_s(of_run: Callable[[Request], float | None], requests: Sequence[Request]) -> float:
    """0 where nobody knows it before."""
    return sum(of_run(each) or 0.0 for each in requests)


def _run_one(request: Request, results: Path, screen: RunScreen) -> tuple[RunRecord, Path]:
    from xlab.experiments import runner

    with screen.running():
        try:
            record, folder = runner.run(request, results=results, watch=screen.watch)
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
