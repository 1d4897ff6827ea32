"""The command line: what `xlab` understands, and the only place that prints errors and exits.

typer parses and nothing else: each command returns the job it was asked for, and `main` does the
job outside of typer, so that errors, interrupts and broken pipes are met in one place.

Start-up is a promise (`xlab --help` under 0.15 s), so the modules that do the work are imported by
the jobs, not here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from xlab.errors import UsageError, XlabError
from xlab.request import (
    DEFAULT_DURATION_S,
    DEFAULT_ROUNDS,
    QUICK_DURATION_S,
    QUICK_ROUNDS,
    Request,
)

if TYPE_CHECKING:
    from xlab.record import RunRecord
    from xlab.screen import Screen

#: A shell reports a process that a signal ended as 128 + its number; so does xlab.
_SIGNALLED = 128
#: With several scenarios the first of these that occurred is the exit status.
_WORST_FIRST = (1, 2, 3, 0)
#: What typer raises for wrong usage; older versions have it from click, newer ones from within.
_ClickError: type[Any] = typer.BadParameter.__mro__[2]

_STATUSES = (
    "Exit status: 0 all claims hold; 1 a claim or a check failed; 2 wrong usage; 3 this machine "
    "can't (the message names the remedy); 130 interrupted."
)

Job = Callable[[], int]


@dataclass(slots=True)
class _Settings:
    """What `--debug` said, wherever it stood."""

    debug: bool = False


class _DisplayError(Exception):
    """Progress can no longer be shown; not an OSError, which the runner would take for its own."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP in the main thread: everything is taken down as on Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments (by default the process's own) ask; returns the exit status.

    No exception leaves this function.
    """
    settings = _Settings()
    _prepare_streams()
    try:
        with _signals_raise():
            status = _perform(arguments, settings)
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT
        suffix = f" by {interrupt}" if isinstance(interrupt, _Terminated) else ""
        _say(f"interrupted{suffix}", interrupt, settings)
        status = _SIGNALLED + number
    except XlabError as error:
        _say(f"xlab: {error}", error, settings)
        status = error.exit_status
    except (OSError, _DisplayError) as error:
        status = _end_on_os_error(error, settings)
    except Exception as error:  # noqa: BLE001 - a bug of ours; still no traceback unless asked for
        hint = "" if settings.debug else " (a bug in xlab; --debug shows where)"
        _say(f"xlab: {type(error).__name__}: {error}{hint}", error, settings)
        status = 1
    return status


def _end_on_os_error(error: OSError | _DisplayError, settings: _Settings) -> int:
    reason = error.reason if isinstance(error, _DisplayError) else error
    _discard_stdout()
    if isinstance(reason, BrokenPipeError):
        # Whoever read has gone: end as quietly as a program without a handler for SIGPIPE.
        return _SIGNALLED + signal.SIGPIPE
    names = [str(name) for name in (reason.filename, reason.filename2) if name is not None]
    _say(f"xlab: {': '.join([*names, reason.strerror or str(reason)])}", error, settings)
    return 1


def _perform(arguments: Sequence[str] | None, settings: _Settings) -> int:
    command = typer.main.get_command(app)
    try:
        # A job, or the status with which --help, --version and completion end.
        asked: Job | int | None = command.main(
            arguments, prog_name="xlab", standalone_mode=False, obj=settings
        )
    except _ClickError as error:
        error.show()
        return 2
    except typer.Abort:
        return _SIGNALLED + signal.SIGINT
    return asked() if callable(asked) else asked or 0


# --------------------------------------------------------------------------------------- commands


class _Commands(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        """typer's own flags default to None, and None is coerced by pydantic: 50 ms of imports."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if parameter.default is None and getattr(parameter, "is_bool_flag", False):
                parameter.default = False
        return parameters


app = typer.Typer(
    name="xlab",
    cls=_Commands,
    help="Build cross-host container networks on one Linux machine, prove which way their packets "
    "go, and measure them.",
    epilog=_STATUSES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _remember_debug(context: typer.Context, value: bool) -> None:
    if value and isinstance(context.obj, _Settings):
        context.obj.debug = True


def _show_version(value: bool) -> None:
    if value:
        from xlab import __version__

        print(f"xlab {__version__}")
        raise typer.Exit


def _complete_scenario(incomplete: str) -> list[str]:
    from xlab import catalog

    try:
        names = ["all", *catalog.names()]
    except XlabError:
        return []
    return [name for name in names if name.startswith(incomplete)]


# An option that its callback deals with is a parameter nobody reads, named with an underscore.
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, help="Show the traceback of an error."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="JSON alone on stdout; everything else goes to stderr.")
]


@app.callback()
def _before_any_command(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    _debug: Debug = False,
) -> None:
    pass


@app.command(epilog=_STATUSES)
def run(  # noqa: PLR0917 - typer calls it by keyword
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="A name (see xlab list), all, or a path to a scenario file.",
            autocompletion=_complete_scenario,
        ),
    ],
    hosts: Annotated[int | None, typer.Option(help="Docker hosts; 2 unless --topo says.")] = None,
    containers: Annotated[int, typer.Option(help="Containers on each host.")] = 2,
    topo: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Mininet topology of the physical network: single,3 | linear,4 | "
            "tree,depth=2,fanout=2 | file.py:Class",
        ),
    ] = None,
    mtu: Annotated[int, typer.Option(help="MTU of the physical network, in bytes.")] = 1500,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Rate of each link: 100mbit, 1gbit.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delay of each link, each way: 10ms.")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option(metavar="TIME", help="How far the delay varies: 2ms.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Loss of each link, each way: 1%.")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds of each throughput probe; {DEFAULT_DURATION_S:g}, "
            f"{QUICK_DURATION_S:g} with --quick."
        ),
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(help=f"Rounds of measurement; {DEFAULT_ROUNDS}, {QUICK_ROUNDS} with --quick."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A scenario in under 15 s.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of the scenario; repeatable."),
    ] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Where records are written.")] = Path(
        "results"
    ),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Build, prove and measure a scenario, and write its record."""
    if topo is not None and hosts is not None:
        raise UsageError("--topo says how many hosts there are: leave --hosts out")
    links = _link_conditions(rate=rate, delay=delay, jitter=jitter, loss=loss)
    request = Request(
        scenario=scenario,
        hosts=2 if hosts is None else hosts,
        containers=containers,
        topo=topo,
        mtu=mtu,
        **links,
        settings=_parse_settings(options or []),
        duration_s=_first(duration, QUICK_DURATION_S if quick else DEFAULT_DURATION_S),
        repeat=int(_first(repeat, QUICK_ROUNDS if quick else DEFAULT_ROUNDS)),
        quick=quick,
    )
    return partial(_run, request, results=results, as_json=as_json)


@app.command("list")
def list_scenarios(as_json: AsJson = False, _debug: Debug = False) -> Job:
    """Show the scenarios and their options."""
    return partial(_list, as_json=as_json)


@app.command(epilog=_STATUSES)
def doctor(as_json: AsJson = False, _debug: Debug = False) -> Job:
    """Show what this machine can do, and the remedy if it can't."""
    return partial(_doctor, as_json=as_json)


@app.command()
def report(
    result: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", help="Folders of records, folders of those, or run.json files."
        ),
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write there instead of to stdout: FILE.html is a page with charts, FILE.md "
            "Markdown, FILE.json JSON, anything else tables.",
        ),
    ] = None,
    _debug: Debug = False,
) -> Job:
    """Redo tables, charts and the page from records, and compare several."""
    form = _report_form(markdown=markdown, as_json=as_json, output=output)
    return partial(_report, result, form=form, output=output)


_FORMS = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}


def _report_form(*, markdown: bool, as_json: bool, output: Path | None) -> str:
    """What a report is written as: what an option says, or the name of its file."""
    if markdown and as_json:
        raise UsageError("--markdown and --json exclude each other")
    named = _FORMS.get(output.suffix.lower()) if output else None
    asked = "markdown" if markdown else "json" if as_json else None
    if asked and named and asked != named:
        raise UsageError(f"--{asked} does not go with {output}: the name says {named}")
    return asked or named or "text"


# -------------------------------------------------------------------------------------------- run


def _run(request: Request, *, results: Path, as_json: bool) -> int:
    # numpy's BLAS would start threads when intervals are computed, and the next sandbox is forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from xlab import catalog
    from xlab.screen import Screen

    several = request.scenario == "all"
    names = catalog.names() if several else [request.scenario]
    requests = _requests(request, names) if several else [request]
    catalog.find(names[0])
    _require_writable(results)
    screen = Screen(sys.stderr if as_json else sys.stdout)
    started_at = datetime.now(UTC)
    found: dict[Path, RunRecord] = {}
    statuses = []
    for each in requests:
        try:
            record, folder = _run_one(each, results, screen)
        except XlabError as error:
            if not several:
                raise
            _print_error(f"xlab: {each.scenario}: {error}")
            statuses.append(error.exit_status)
        else:
            found[folder / "run.json"] = record
            statuses.append({"passed": 0, "failed": 1, "skipped": 3}[record.status])
    if several:
        screen.closing(list(found.values()))
    if as_json:
        data = [record.to_dict() for record in found.values()]
        _print_json(data if several else data[0])
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
    from xlab import runner

    def watch(event: Mapping[str, Any]) -> None:
        try:
            screen.watch(event)
        except OSError as error:
            raise _DisplayError(error) from error

    with screen.running(request.scenario):
        record, folder = runner.run(request, results=results, watch=watch)
        screen.finished(record, folder)
    return record, folder


def _requests(request: Request, names: Sequence[str]) -> list[Request]:
    """One request a scenario; each gets the settings it knows, and every one must be known once."""
    if not request.settings:
        return [request.for_scenario(name, {}) for name in names]
    from xlab import catalog, scenario

    known = {
        name: {option.name for option in scenario.load(catalog.find(name)).options}
        for name in names
    }
    for setting in request.settings:
        if not any(setting in options for options in known.values()):
            there_are = sorted(set().union(*known.values()))
            listed = f"; there are {', '.join(there_are)}" if there_are else ""
            raise UsageError(f"--set {setting}: no scenario has an option of that name{listed}")
    return [
        request.for_scenario(name, {k: v for k, v in request.settings.items() if k in known[name]})
        for name in names
    ]


def _link_conditions(
    *, rate: str | None, delay: str | None, jitter: str | None, loss: str | None
) -> dict[str, Any]:
    """The fields of a request that describe its links; raises UsageError for unreadable text."""
    if rate is delay is jitter is loss is None:
        return {}
    from xlab.lab.conditions import parse_delay, parse_loss, parse_rate

    return {
        "rate_bits_per_second": None if rate is None else parse_rate(rate),
        "delay_ms": None if delay is None else parse_delay(delay),
        "jitter_ms": None if jitter is None else parse_delay(jitter),
        "loss_ratio": None if loss is None else parse_loss(loss),
    }


def _parse_settings(options: Sequence[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {option}: it takes NAME=VALUE")
        if name in settings:
            raise UsageError(f"--set {name} is given twice")
        settings[name] = value
    return settings


def _require_writable(results: Path) -> None:
    """Find out before a run whether its record can be kept."""
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--results {results}: {error.strerror}") from error
    if not os.access(results, os.W_OK | os.X_OK):
        raise UsageError(f"--results {results}: cannot be written to")


def _first(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given


# ------------------------------------------------------------------------- list, doctor, report


def _list(*, as_json: bool) -> int:
    from xlab import catalog, scenario

    entries: list[dict[str, Any]] = []
    for name in catalog.names():
        file = catalog.find(name)
        entry: dict[str, Any] = {"name": name, "file": str(file), "summary": "", "options": []}
        try:
            loaded = scenario.load(file)
        except XlabError as error:
            entry["error"] = str(error)
        else:
            entry["summary"] = loaded.summary
            entry["options"] = [
                {
                    "name": option.name,
                    "default": option.default,
                    "choices": list(option.choices or ()),
                    "help": option.help,
                }
                for option in loaded.options
            ]
        entries.append(entry)
    if as_json:
        _print_json(entries)
        return 0
    for entry in entries:
        _print_scenario(entry)
    return 0


def _print_scenario(entry: Mapping[str, Any]) -> None:
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size((100, 24)).columns, 100)

    def wrapped(first: str, content: str) -> None:
        print(textwrap.fill(content, width, initial_indent=first, subsequent_indent=" " * 12))

    wrapped(f"{entry['name']:<11} ", entry["summary"] or entry["error"])
    for option in entry["options"]:
        values = "|".join(option["choices"]) or "VALUE"
        print(f"    --set {option['name']}={values}")
        default = f" (default: {option['default']})" if option["default"] else ""
        wrapped(" " * 12, f"{option['help']}{default}")


def _doctor(*, as_json: bool) -> int:
    from dataclasses import asdict

    from xlab import doctor as examination

    found = examination.findings()
    if as_json:
        _print_json([asdict(finding) for finding in found])
    else:
        from xlab.screen import Screen

        Screen(sys.stdout).diagnosis(found)
    return examination.exit_status(found)


def _report(results: Sequence[Path], *, form: str, output: Path | None) -> int:
    from xlab import report

    records, errors = report.load(report.find(results))
    for error in errors:
        _print_error(f"xlab: {error}")
    if records:
        shown = list(records.values())
        if form == "json":
            data = [report.to_data(file, record) for file, record in records.items()]
            _write(_json_text(data if len(data) > 1 else data[0]), output)
        elif form in ("markdown", "html"):
            from xlab.report import markdown, page

            render = markdown.render if form == "markdown" else page.render
            _write(render(records, base=output.parent if output else Path()), output)
        else:
            _write_tables(shown, output)
    return errors[0].exit_status if errors else 0


def _write_tables(records: Sequence[RunRecord], output: Path | None) -> None:
    import io

    from xlab.screen import Screen

    if output is None:
        Screen(sys.stdout).report(records)
        return
    text = io.StringIO()
    Screen(text).report(records)
    _write(text.getvalue(), output)


def _write(content: str, output: Path | None) -> None:
    """To stdout, or whole or not at all to a file."""
    if output is None:
        sys.stdout.write(content)
        return
    partial_name = output.with_name(f".partial-{os.getpid()}-{output.name}")
    try:
        partial_name.write_text(content, encoding="utf-8", errors="backslashreplace")
        partial_name.replace(output)
    except BaseException:
        partial_name.unlink(missing_ok=True)
        raise


# ------------------------------------------------------------------------------ streams and signals


def _prepare_streams() -> None:
    """Make stdout and stderr take any text, whatever their encoding, and be there at all."""
    import codecs

    codecs.register_error("xlab", _encodable)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller closed it; the next file opened would take its number
            descriptor = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="xlab")


_LOOKALIKES = str.maketrans("✓✗×≈–µ…“”", '+!x~-u.""')


def _encodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written in place of characters that the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    similar = unencodable.translate(_LOOKALIKES)
    return similar.encode("ascii", "backslashreplace").decode("ascii"), error.end


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise in the main thread; one that is ignored (nohup) stays ignored."""

    def terminate(number: int, _frame: object) -> NoReturn:
        raise _Terminated(number)

    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before: Mapping[int, Any] = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(message: str, error: BaseException, settings: _Settings) -> None:
    if settings.debug:
        import traceback

        _print_error("".join(traceback.format_exception(error)).rstrip())
    _print_error(message)


def _print_error(message: str) -> None:
    """To stderr, without control characters: messages quote tools and other people's files."""
    from xlab.report.text import plain

    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    try:
        print(plain(message), file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to tell


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain while it ends."""
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # a stream without a descriptor has nothing to lose


def _print_json(data: object) -> None:
    sys.stdout.write(_json_text(data))


def _json_text(data: object) -> str:
    readable = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    return json.dumps(data, indent=2, ensure_ascii=not readable, allow_nan=False) + "\n"
