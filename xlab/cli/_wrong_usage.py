"""What typer refuses, said as everything else that xlab refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from xlab.errors import UsageError, meant

#: What typer raises for wrong usage; older versions have it from click, newer ones from within.
ClickError: type[Any] = typer.BadParameter.__mro__[2]

_LONGEST_VALUE = 40
_LONGEST_WORD = 100
_LONGEST = 300


def refusal(error: Any, program: Any, arguments: Sequence[str]) -> UsageError:
    """Says what is wrong with `arguments`, and which help of `program` shows what is right."""
    typed, group = _command(program, arguments)
    remedy = f"`{' '.join(['xlab help', *typed])}` shows what may be typed"
    return UsageError(f"{_abridged(_wrong(error, group))}; {remedy}".replace("?; ", "? "))


def _command(program: Any, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words that name a command, and the commands that may stand behind them."""
    typed: list[str] = []
    for word in arguments:
        if word in (commands := getattr(program, "commands", {})):
            typed.append(word)
            program = commands[word]
        elif not word.startswith("-"):
            break
    return typed, getattr(program, "commands", {})


def _wrong(error: Any, commands: dict[str, Any]) -> str:
    said = str(error.message).rstrip(".")
    match type(error).__name__:
        case "NoSuchOption":
            name = error.option_name
            return f"no option is called {name}{meant(name, error.possibilities or ())}"
        case "MissingParameter":
            return f"{_named(error.param)} is missing"
        case "BadParameter" if error.param is not None:
            return _bad_value(error, said)
    if found := re.match(r"No such command (['\"])(.*?)\1", said, re.DOTALL):
        return f"no command is called '{found[2]}'{meant(found[2], commands)}"
    if found := re.match(r"Got unexpected extra argument\S* \((.*)\)", said, re.DOTALL):
        return f"too many arguments: {found[1]}"
    return said[:1].lower() + said[1:]


def _abridged(said: str) -> str:
    """With no more of what was typed than anyone reads."""
    said = re.sub(rf"(\S{{{_LONGEST_WORD}}})\S+", r"\1…", said)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


def _bad_value(error: Any, said: str) -> str:
    """pydantic keeps the value apart from what it says of it; click quotes it."""
    try:
        (found, *_) = error.__cause__.errors()
    except AttributeError:
        return f"{_named(error.param)}: {said}"
    value = repr(str(found["input"])[:_LONGEST_VALUE])
    wanted = found["msg"].partition(", unable")[0].replace("Input should", "it should")
    return f"{_named(error.param)} is {value}: {wanted[:1].lower()}{wanted[1:]}"


def _named(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar or parameter.name.upper())
