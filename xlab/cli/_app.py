"""The application that commands join, and what all of them share.

typer parses and nothing else: what it calls returns the job that was asked for, the command with
its arguments, and `_main.main` does the job outside of typer, so that errors, interrupts and broken
pipes are met in one place.
"""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

STATUSES = (
    "Exit status: 0 all claims hold; 1 a claim or a check failed; 2 wrong usage; 3 this machine "
    "can't (the message names the remedy); 130 interrupted."
)
#: The exit status of what was measured, by the status that its record has.
STATUS_OF = {"passed": 0, "failed": 1, "skipped": 3}


def _typed() -> str:
    """As bin/xlab says; of a wheel the path that was typed, unless PATH leads to it by name."""
    program = Path(sys.argv[0])
    by_path = program.name == "xlab" and shutil.which("xlab") != str(program)
    return os.environ.pop("XLAB_COMMAND", str(program) if by_path else "xlab")


#: How this command was typed: what xlab offers to be pasted begins with it.
COMMAND = shlex.quote(_typed())

#: The commands of each group in the order of its help, by what they are for.
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "xlab": {
        "Build and prove": ("run", "list", "script"),
        "Labs that stay": (
            *("up", "ps", "status", "down"),
            *("shell", "exec", "cli", "fault"),
            *("capture", "trace", "graph", "top"),
        ),
        "Compare and measure": ("compare", "check", "scale", "sweep", "report"),
        "Teach and learn": ("lab",),
        "This machine": ("setup", "doctor", "help"),
    },
    "lab": {
        "Do an exercise": ("list", "start", "check", "hint", "reset", "solve", "submit"),
        "Teach with them": ("new", "validate", "selftest", "export", "grade"),
    },
}
_OTHERS = "More"

Job = Callable[[], int]
_Command = TypeVar("_Command", bound=Callable[..., int])


@dataclass(slots=True)
class Settings:
    """What `--debug` said, wherever it stood."""

    debug: bool = False


class _Coercion:
    """Before typer's own, by pydantic, which takes 65 ms to import: most values need none."""

    def __init__(self, whole: Callable[[], Any]) -> None:
        self._whole = whole

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if value is param.default:
            return value
        annotation = param.type_descriptor.annotation
        if annotation is str and _is_text(value):
            return value
        if annotation == list[str] and all(map(_is_text, value)):
            return list(value)
        return self._whole().coerce(value, param=param, ctx=ctx)


def _is_text(value: object) -> bool:
    """pydantic refuses what was typed in another encoding than UTF-8, and says so."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def _spared(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        whole = getattr(parameter, "get_runtime_param", None)
        if whole and not isinstance(whole, partial):
            parameter.get_runtime_param = partial(_Coercion, whole)
    return parameters


class _OneCommand(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))


class _Commands(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """As PANELS have them; what is not named there comes last."""
        named = [name for names in PANELS.get(self.name or "", {}).values() for name in names]
        found = super().list_commands(ctx)
        return sorted(found, key=lambda each: named.index(each) if each in named else len(named))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A section a panel, as typer draws with rich; without it, which takes 100 ms to import."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        widest = max(map(len, commands))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, each in commands.items():
            told = each.short_help or (each.help or "").partition("\n\n")[0].replace("\n", " ")
            row = f"{name:<{widest}}", told
            panels.setdefault(getattr(each, "rich_help_panel", None) or _OTHERS, []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


def _group(name: str, told: str, **more: Any) -> typer.Typer:
    return typer.Typer(
        name=name,
        cls=_Commands,
        help=told,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


app = _group(
    "xlab",
    "Build cross-host container networks on one Linux machine, prove which way their packets go, "
    "and measure them.",
    epilog=STATUSES,
)
#: Of commands, by the package whose modules they are.
_groups = {"xlab.cli": app}


def group(package: str, told: str) -> None:
    """Commands of their own below `xlab`: the modules of a package, of the package's name."""
    name = package.rpartition(".")[2]
    _groups[package] = _group(name, told)
    app.add_typer(_groups[package], rich_help_panel=_panel("xlab", name))


def _panel(group: str, command: str) -> str:
    panels = PANELS.get(group, {}).items()
    return next((panel for panel, names in panels if command in names), _OTHERS)


def _remember_debug(context: typer.Context, value: bool) -> None:
    if value and isinstance(context.obj, Settings):
        context.obj.debug = True


def _show_version(value: bool) -> None:
    if value:
        from xlab.record.version import __version__

        print(f"xlab {__version__}")
        raise typer.Exit


# An option that its callback deals with is a parameter nobody reads, named with an underscore.
_Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, help="Show the traceback of an error."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="JSON alone on stdout; everything else goes to stderr.")
]


def no_threads() -> None:
    """Of numpy's: BLAS would start them for intervals, and the next sandbox is forked."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@app.callback()
def _before_any_command(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    _debug: _Debug = False,
) -> None:
    pass


def commands() -> list[str]:
    """What may be typed behind `xlab`: the modules beside this one."""
    found = (each.name for each in iter_modules([str(Path(__file__).parent)]))
    return [name for name in found if not name.startswith("_") and name != "screens"]


@cache
def program(only: str = "") -> Any:
    """What parses that command, or all: to import all takes longer than what most have to do."""
    for name in [only] if only else commands():
        import_module(f"xlab.cli.{name}")
    return typer.main.get_command(app)


def command(**more: Any) -> Callable[[_Command], _Command]:
    """Make a function a command, with the name of its module; it returns the exit status.

    Its parameters are what may be typed; one that is a dataclass stands for the options that its
    fields are.  All commands have --debug.  `more` is for `typer.Typer.command`.
    """

    def join(do: _Command) -> _Command:
        typed: list[inspect.Parameter] = []
        groups: dict[str, Any] = {}
        for each in inspect.signature(do, eval_str=True).parameters.values():
            if is_dataclass(each.annotation):
                groups[each.name] = each.annotation
                hints = get_type_hints(each.annotation, include_extras=True)
                typed += [
                    _option(f.name, hints[f.name], f.default) for f in fields(each.annotation)
                ]
            else:
                typed.append(_option(each.name, each.annotation, each.default))
        typed.append(_option("_debug", _Debug, False))

        def asked(**values: Any) -> Job:
            del values["_debug"]
            for name, group in groups.items():
                values[name] = group(**{f.name: values.pop(f.name) for f in fields(group)})
            return partial(do, **values)

        asked.__doc__ = do.__doc__
        asked.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
        asked.__annotations__ = {}
        package, _, name = do.__module__.rpartition(".")
        panel = _panel(str(_groups[package].info.name), name)
        options = {"cls": _OneCommand, "rich_help_panel": panel, **more}
        _groups[package].command(name, **options)(asked)
        return do

    return join


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
