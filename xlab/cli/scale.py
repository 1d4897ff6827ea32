"""`xlab scale`: how the cost of a scenario grows with its hosts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from xlab.cli import _options as options
from xlab.cli._app import STATUSES, AsJson, command
from xlab.cli._streams import DisplayError, print_json
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.experiments.scale import Failure, Sample, ScalePlan, ScaleRecord

_DEFAULT_SIZES = "2,4,8,16"


@command(epilog=STATUSES)
def scale(
    *,
    scenario: options.Scenario,
    hosts: Annotated[
        str, typer.Option(metavar="N,N,N,...", help="Sizes to build, three or more.")
    ] = _DEFAULT_SIZES,
    containers: options.Containers = 2,
    settings: options.Settings = None,
    repeat: Annotated[int, typer.Option(help="Builds of each size.")] = 3,
    rest: Annotated[
        float,
        typer.Option(
            help="Seconds for which a lab at rest is watched; weave's heartbeats come every 10 and "
            "30 s."
        ),
    ] = 10.0,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> int:
    """Measure what a scenario costs at several sizes, and fit how that grows."""
    from xlab.experiments import scale as scaling
    from xlab.report import drawing, growth

    plan = scaling.ScalePlan(
        scenario, _sizes(hosts), containers, options.parse_settings(settings), repeat, rest
    )
    options.require_writable(results)
    out = sys.stderr if as_json else sys.stdout
    finished = scaling.measure(plan, watch=_Progress(plan, out).watch)
    chart = growth.chart(finished)
    pictures = drawing.pictures(chart, "scale") if chart else {}
    files = {f"scale{ending}": found for ending, found in pictures.items()}
    refused: OSError | None = None
    folder: Path | None = None
    try:
        folder = scaling.save(finished, results, files)
    except OSError as error:
        refused = error
    _show(finished, folder, out, chart=bool(files))
    if as_json:
        print_json(finished.to_dict())
    if refused is not None:
        raise refused
    return 0 if finished.passed else 1


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        wanted = f"it takes numbers, such as {_DEFAULT_SIZES}"
        raise UsageError(f"--hosts {text[:60]}: {wanted}") from None


def _show(finished: ScaleRecord, folder: Path | None, out: TextIO, *, chart: bool) -> None:
    import shutil
    import textwrap

    from xlab.report import growth

    columns = min(shutil.get_terminal_size((100, 24)).columns, 100)
    table = growth.table(finished)
    print(file=out)
    if max(map(len, table.splitlines())) <= columns:
        print(table, file=out)
    else:
        from xlab.cli.screens.screen import Screen

        Screen(out).table(growth.narrow_table(finished))
    print(file=out)
    for said in growth.words(finished):
        print(textwrap.fill(said, columns, initial_indent="- ", subsequent_indent="  "), file=out)
    print(f"\nresult   {'passed' if finished.passed else 'failed'}", file=out)
    if folder is None:
        return
    print(f"record   {folder / 'scale.json'}", file=out)
    if chart:
        print(f"chart    {folder / 'scale.svg'}", file=out)


class _Progress:
    """A line that is written over on a terminal; elsewhere a line a build."""

    def __init__(self, plan: ScalePlan, out: TextIO) -> None:
        self._builds = len(plan.builds())
        self._done = 0
        self._out = out
        self._terminal = out.isatty()
        asked = f"{', '.join(map(str, plan.hosts))} hosts, {plan.containers} containers each"
        self._write(f"scale {plan.scenario}   {asked}, {plan.repeat} builds of each\n")

    def watch(self, hosts: int, _: int, what: Sample | Failure | None) -> None:
        from xlab.experiments.scale import Failure

        if what is None:
            self._done += 1
            if self._terminal:
                self._write(f"\r\033[K  build {self._done}/{self._builds}: {hosts:,} hosts …")
            return
        if isinstance(what, Failure):
            said = f"FAILED: {what.reason}"
        else:
            said = f"built in {what.build_s:.2f} s, {what.answered} of {what.pairs} pairs answer"
        if self._terminal:
            self._write("\r\033[K")
        if not self._terminal or isinstance(what, Failure):
            self._write(f"  build {self._done}/{self._builds}: {hosts:,} hosts: {said}\n")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError as error:
            raise DisplayError(error) from error
