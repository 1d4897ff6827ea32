"""`xlab compare`: methods side by side, measured in interleaved rounds."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli import _options as options
from xlab.cli._app import STATUS_OF, STATUSES, AsJson, command, no_threads
from xlab.cli._streams import print_how_to_go_on, print_json
from xlab.errors import UsageError, at

if TYPE_CHECKING:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.experiments.compare.journal import Journal

#: What may stand beside --resume.
_OF_ANY = ("resume", "as_json", "_debug")


def _complete_probe() -> list[str]:
    from xlab.probes.catalog import ALL

    return [*ALL, "all"]


@command(epilog=STATUSES)
def compare(
    *,
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
    network: options.Network,
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
    clock: options.Clock = "real",
    results: options.Results = options.DEFAULT_RESULTS,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with a comparison that was interrupted."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Measure methods side by side, in rounds, each beside its control and the baseline.

    All labs are up at once. In each round every method is measured once, in random order, and set
    against the baseline of the same round.
    """
    no_threads()
    from xlab.experiments.compare import methods as catalog
    from xlab.experiments.compare import plan
    from xlab.experiments.compare.journal import Journal, Opening
    from xlab.guest import packages
    from xlab.kernel import capabilities
    from xlab.scenario import blueprint

    if resume is not None:
        for name in context.params:
            source = context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE" and name not in _OF_ANY:
                raise UsageError("--resume goes on with what was asked for then: give nothing else")
        with Journal.go_on(resume) as journal:
            return _compare(journal, resumed=True, as_json=as_json)
    common = network.request(
        "baseline",
        streams=streams,
        duration_s=options.duration_s(duration, quick=quick, clock=clock),
        quick=quick,
        clock=clock,
    )
    chosen = catalog.choose(methods or [], common, options.parse_settings(settings))
    probes = [*(probe or []), *(["tcp-parallel"] if streams not in (None, 1) else [])]
    with at("--precision"):
        share = plan.share(precision)
    wanted = plan.make(chosen, precision=share, probes=probes, rounds=repeat, most_rounds=most)
    # Every method makes sense, and the baseline can be; before there is a folder of results.
    designs = [blueprint.design(method.request) for method in chosen]
    if clock == "virtual":
        packages.require_able()
    else:
        blueprint.equip(designs[0], capabilities.probe())
    options.require_writable(results)
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    with Journal.begin(results, Opening(started_at, wanted, tuple(chosen))) as journal:
        return _compare(journal, resumed=False, as_json=as_json)


def _compare(journal: Journal, *, resumed: bool, as_json: bool) -> int:
    from xlab.cli.screens.compare import CompareScreen
    from xlab.cli.screens.screen import Screen
    from xlab.experiments.compare import evaluation, rounds
    from xlab.record import comparisons
    from xlab.report import files

    screen = CompareScreen(Screen(sys.stderr if as_json else sys.stdout))
    with screen.screen.running():
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
            screen.forking()
            print_how_to_go_on("compare", journal.folder, len(journal.history.rounds), "round")
            raise
        screen.ends(outcome, journal.folder, reports)
    if as_json:
        print_json(outcome.to_dict())
    return STATUS_OF[outcome.status]


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
