"""`xlab sweep`: a comparison at each point of a matrix of parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli import _options as options
from xlab.cli._app import STATUS_OF, STATUSES, AsJson, command
from xlab.cli._streams import print_how_to_go_on, print_json
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.cli.screens.sweep import SweepScreen
    from xlab.experiments.sweep.outcome import Failure, Folder, Sweep
    from xlab.record.comparisons import Comparison


@command(epilog=STATUSES)
def sweep(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.yaml]",
            help="Methods, and axes: lists of hosts, mtu, rate, delay, loss, flows. Their product "
            "are the points.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler, tcp://HOST:8786, whose workers (one a machine, xlab installed) "
            "measure the points; a worker in this process if not given.",
        ),
    ] = None,
    clock: Annotated[
        str | None,
        typer.Option(
            metavar="real|virtual", help="As compare has it; the file may say it, too (clock:)."
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with a sweep that was interrupted."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare methods at every point of a matrix: hosts × MTU × rate × delay × loss × flows.

    At each point all methods and the baseline are measured on one machine, in interleaved rounds
    as `xlab compare` does it. Kill it at any time: what has ended is kept.
    """
    if (file is None) == (resume is None):
        raise UsageError("a sweep has either FILE.yaml or --resume FOLDER")
    from xlab.experiments.sweep import spec
    from xlab.experiments.sweep.outcome import Folder

    if file is not None:
        asked, content = spec.with_clock(file, clock)
        options.require_writable(results)
        begun = Folder.begin(results, content, asked)
    else:
        assert resume is not None
        begun = Folder.go_on(resume)
    with begun as folder:
        return _sweep(folder, scheduler, as_json=as_json)


def _sweep(folder: Folder, scheduler: str | None, *, as_json: bool) -> int:
    from xlab.cli.screens.screen import Screen
    from xlab.cli.screens.sweep import SweepScreen
    from xlab.report import drawing, files, sweeps

    found = folder.read()
    screen = SweepScreen(Screen(sys.stderr if as_json else sys.stdout))
    with screen.screen.running():
        try:
            outcome = _carry_out(folder, found, scheduler, screen)
            folder.finish(outcome)
            charts = drawing.save(sweeps.charts(outcome), folder.path)
            reports = files.of_sweep(folder.path, outcome)
        except BaseException as error:
            # What a disk refuses has a name; what the terminal does has none.
            if isinstance(error, OSError) and error.filename is not None and found:
                screen.screen.stop()
                screen.outcome(_so_far(folder, found))
            screen.screen.stop()
            kept = len(list((folder.path / "points").glob("*/compare.json")))
            print_how_to_go_on("sweep", folder.path, kept, "point")
            raise
        screen.ends(outcome, folder.path, charts, reports)
    if as_json:
        print_json(outcome.to_dict())
    return STATUS_OF[outcome.status]


def _carry_out(
    folder: Folder, found: dict[str, Comparison], scheduler: str | None, screen: SweepScreen
) -> Sweep:
    """Every point that is not found; each is on the disk before the next is waited for."""
    from contextlib import closing

    from xlab.experiments.sweep import engine, outcome
    from xlab.experiments.sweep.outcome import Failure

    failures: dict[str, Failure] = {}
    left = [point for point in folder.spec.points if point.slug not in found]
    if not left:
        screen.begins(folder.spec, folder.path, list(found.values()), 0)
        return _evaluated(folder, found, failures)
    begun = engine.embedded(folder.path) if scheduler is None else engine.connect(scheduler)
    with begun as client:
        screen.begins(folder.spec, folder.path, list(found.values()), engine.workers(client))
        with closing(engine.carry_out(client, left, waits=screen.waits)) as arriving:
            for point, told in arriving:
                if isinstance(told, Failure):
                    failures[point.slug] = told
                else:
                    found[point.slug] = told
                    folder.keep(point, told)
                screen.arrived(outcome.point_done(point, told), engine.workers(client))
    return _evaluated(folder, found, failures)


def _evaluated(folder: Folder, found: dict[str, Comparison], failures: dict[str, Failure]) -> Sweep:
    from datetime import UTC, datetime

    from xlab.experiments.sweep import outcome

    ended_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return outcome.evaluate(folder.spec, found, failures, ended_at)


def _so_far(folder: Folder, found: dict[str, Comparison]) -> Sweep:
    from xlab.experiments.sweep.outcome import Failure

    points = folder.spec.points
    left = [point.slug for point in points if point.slug not in found]
    return _evaluated(folder, found, dict.fromkeys(left, Failure("skipped", "not measured")))
