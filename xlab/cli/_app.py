"""The application that commands join, and what all of them share.

typer parses and nothing else: each command returns the job it was asked for, and `_main.main` does
the job outside of typer, so that errors, interrupts and broken pipes are met in one place.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

STATUSES = (
    "Exit status: 0 all claims hold; 1 a claim or a check failed; 2 wrong usage; 3 this machine "
    "can't (the message names the remedy); 130 interrupted."
)

#: How this command was typed, as bin/xlab has it: what xlab offers to be pasted begins with it.
COMMAND = shlex.quote(os.environ.pop("XLAB_COMMAND", "xlab"))

Job = Callable[[], int]


@dataclass(slots=True)
class Settings:
    """What `--debug` said, wherever it stood."""

    debug: bool = False


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
    epilog=STATUSES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _remember_debug(context: typer.Context, value: bool) -> None:
    if value and isinstance(context.obj, Settings):
        context.obj.debug = True


def _show_version(value: bool) -> None:
    if value:
        from xlab.record.version import __version__

        print(f"xlab {__version__}")
        raise typer.Exit


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
