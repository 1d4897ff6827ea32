"""`xlab compare`: methods side by side, measured in interleaved rounds."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlab.cli import options
from xlab.cli.app import COMMAND, STATUSES, AsJson, Debug, Job, app
from xlab.cli.streams import print_error, print_json
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.experiments.compare.journal import Journal
    from xlab.experiments.compare.methods import Method
    from xlab.scenario.request import Request

_STATUS = {"passed": 0, "failed": 1, "skipped": 3}
#: What may stand beside --resume.
_OF_ANY = ("resume", "as_json", "_debug")


def _complete_probe(incomplete: str) -> list[str]:
    from xlab.probes.catalog import ALL

    return [name for name in (*ALL, "all") if name.startswith(incomplete)]


@app.command(epilog=STATUSES)
def compare(  # noqa: PLR0917 - typer calls it by keyword
    context: typer.Context,
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SCENARIO[:KEY=VALUE,...]]...",
            help="A scenario, or a variant of one: weave:datapath=fastdp, bridge:mtu=9000, "
            "ovs-gre:routes=underlay,delay=1ms. A KEY is an option of the scenario, hosts, "
            "containers, mtu, rate, delay, jitter or loss. All methods if none is named.",
            autocompletion=options.complete_scenario,
        ),
    ] = None,
    hosts: options.Hosts = None,
    containers: options.Containers = 2,
    topo: options.Topo = None,
    mtu: options.Mtu = 1500,
    rate: options.Rate = None,
    delay: options.Delay = None,
    jitter: options.Jitter = None,
    loss: options.Loss = None,
    duration: options.Duration = None,
    repeat: Annotated[
        int | None, typer.Option(help="Rounds of measurement; 10, 5 with --quick.")
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            help="Rounds at most, while intervals are wide; twice --repeat, no more than that "
            "with --quick."
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="Stop when the interval of no ratio reaches further than this."
        ),
    ] = "10%",
    streams: options.Streams = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this, too (xlab list says what there is, all is all of it; recovery and "
            "first-packet once a build); repeatable.",
            autocompletion=_complete_probe,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="All methods in under 4 minutes.")] = False,
    settings: options.Settings = None,
    results: options.Results = options.DEFAULT_RESULTS,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with a comparison that was interrupted."),
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Measure methods side by side, in rounds, each beside its control and the baseline.

    All labs are up at once. In each round every method is measured once, in random order, and set
    against the baseline of the same round.
    """
    if resume is not None:
        for name in context.params:
            source = context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE" and name not in _OF_ANY:
                raise UsageError("--resume goes on with what was asked for then: give nothing else")
        return partial(_go_on, resume, as_json=as_json)
    common = options.request(
        "baseline",
        hosts=hosts,
        containers=containers,
        topo=topo,
        mtu=mtu,
        rate=rate,
        delay=delay,
        jitter=jitter,
        loss=loss,
        streams=streams,
        duration_s=options.duration_s(duration, quick=quick),
        quick=quick,
    )
    probes = [*(probe or []), *(["tcp-parallel"] if streams not in (None, 1) else [])]
    amount = {"probes": probes, "rounds": repeat, "most_rounds": most}
    return partial(
        _begin,
        methods or [],
        common,
        options.parse_settings(settings),
        amount,
        precision=precision,
        results=results,
        as_json=as_json,
    )


def _begin(
    names: list[str],
    common: Request,
    settings: Mapping[str, str],
    amount: Mapping[str, Any],
    *,
    precision: str,
    results: Path,
    as_json: bool,
) -> int:
    _no_threads()
    from xlab.experiments.compare import methods, plan
    from xlab.experiments.compare.journal import Journal, Opening
    from xlab.kernel import disk

    chosen = methods.choose(names, common, settings)
    try:
        share = plan.share(precision)
    except UsageError as error:
        raise UsageError(f"--precision: {error}") from error
    wanted = plan.make(chosen, precision=share, **amount)
    _require_possible(chosen)
    options.require_writable(results)
    disk.sweep(results)
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with Journal.begin(results, Opening(started_at, wanted, tuple(chosen))) as journal:
        return _compare(journal, resumed=False, as_json=as_json)


def _go_on(folder: Path, *, as_json: bool) -> int:
    _no_threads()
    from xlab.experiments.compare.journal import Journal

    with Journal.go_on(folder) as journal:
        return _compare(journal, resumed=True, as_json=as_json)


def _compare(journal: Journal, *, resumed: bool, as_json: bool) -> int:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.experiments.compare import evaluation, rounds
    from xlab.record import comparisons
    from xlab.report import files

    screen = CompareScreen(sys.stderr if as_json else sys.stdout)
    with screen.running():
        screen.begins(journal.folder, journal.history, resumed=resumed)
        try:
            if journal.history.ended is None:
                rounds.carry_out(journal, screen)
            else:
                rounds.tidy(journal.folder, journal.history)
            outcome = evaluation.evaluate(journal.history)
            comparisons.save(outcome, journal.folder)
            reports = files.of_comparison(journal.folder, outcome)
        except BaseException as error:
            # What a disk refuses has a name; what the terminal does has none.
            if isinstance(error, OSError) and error.filename is not None:
                _show_what_there_is(journal, screen, as_json=as_json)
            _tell_how_to_go_on(journal, screen)
            raise
        screen.ends(outcome, journal.folder, reports)
    if as_json:
        print_json(outcome.to_dict())
    return _STATUS[outcome.status]


def _show_what_there_is(journal: Journal, screen: CompareScreen, *, as_json: bool) -> None:
    """Of a comparison whose folder could not be written to any more."""
    from xlab.experiments.compare import evaluation
    from xlab.experiments.compare.journal import Ended

    history = journal.history
    if history.ended:
        outcome = evaluation.evaluate(history)
        screen.ends(outcome, None)
        if as_json:
            print_json(outcome.to_dict())
    elif history.rounds:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        screen.broken_off(evaluation.evaluate(history, Ended(now, "bound")))


def _tell_how_to_go_on(journal: Journal, screen: CompareScreen) -> None:
    done = len(journal.history.rounds)
    line = f"{COMMAND} compare --resume {shlex.quote(str(journal.folder))}"
    screen.forking()
    kept = "1 round is" if done == 1 else f"{done} rounds are"
    print_error(f"{kept} kept; to go on: {line}")


def _require_possible(chosen: list[Method]) -> None:
    """Every method makes sense, and the baseline can be; before there is a folder of results."""
    from xlab.kernel import capabilities
    from xlab.scenario import blueprint

    designs = [blueprint.design(method.request) for method in chosen]
    blueprint.equip(designs[0], capabilities.probe())


def _no_threads() -> None:
    # numpy's BLAS would start threads when intervals are computed, and the next sandbox is forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
