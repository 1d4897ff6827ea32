"""Whoever typed a command in a host: what was typed, and a way to answer."""

from __future__ import annotations

import getopt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from xlab.sandbox.console import Attachable


@dataclass(frozen=True, slots=True)
class Typist:
    words: Sequence[str]
    #: Whether standard input is a terminal.
    terminal: bool
    out: Callable[[str], None]
    err: Callable[[str], None]
    #: RefusalError once the host has been switched off since: no more is begun then.
    require_host: Callable[[], None] = lambda: None

    def having_typed(self, words: Sequence[str]) -> Typist:
        """The same person with other words."""
        return replace(self, words=words)


@dataclass(frozen=True, slots=True)
class Attached:
    """The command goes on as the terminal of a program: who is to be told, and may type."""

    program: Attachable
    descriptors: Sequence[int]
    interactive: bool


#: An exit status, None for 0, or what to attend to instead.
Outcome = int | Attached | None


class RefusalError(Exception):
    """A command line that makes no sense, or asks for what is not emulated."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Options:
    """The options at the beginning of a command line, or anywhere in it, and the words left over.

    Each of `known` is all names of one, the last of which is what it is called here, and "=" if it
    takes a value: "e env=".  Those of `instead` are refused, with what can be done instead.
    """

    def __init__(
        self,
        words: Sequence[str],
        *known: str,
        instead: Mapping[str, str] | None = None,
        anywhere: bool = True,
    ) -> None:
        short, long, same = "", [], {}
        instead = instead or {}
        for each in (*known, *instead):
            names = each.removesuffix("=").split()
            for name in names:
                same[name] = names[-1]
                if len(name) == 1:
                    short += f"{name}:" if each.endswith("=") else name
                else:
                    long.append(f"{name}=" if each.endswith("=") else name)
        parse = getopt.gnu_getopt if anywhere else getopt.getopt
        try:
            found, self.rest = parse(list(words), short, long)
        except getopt.GetoptError as error:
            raise RefusalError(_told(error, known)) from error
        self._given: dict[str, list[str]] = {}
        for name, value in found:
            self._given.setdefault(same[name.lstrip("-")], []).append(value)
        for each, advice in instead.items():
            name = each.removesuffix("=").split()[-1]
            if name in self._given:
                raise RefusalError(f"{_dashed(name)} is not emulated: {advice}")

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def value(self, name: str, default: str | None = None) -> str | None:
        """What was given last."""
        return self._given.get(name, [default])[-1]

    def values(self, name: str) -> list[str]:
        return self._given.get(name, [])


def _told(error: getopt.GetoptError, known: Sequence[str]) -> str:
    if "requires argument" in error.msg:
        return f"flag needs an argument: {_dashed(error.opt)}"
    there = ", ".join(_dashed(each.removesuffix("=").split()[0]) for each in known) or "none"
    return f"unknown flag, or one that is not emulated: {_dashed(error.opt)}; there are {there}"


def _dashed(name: str) -> str:
    return f"--{name}" if len(name) > 1 else f"-{name}"


_Do = TypeVar("_Do", bound=Callable[..., Outcome])


class Subcommands(dict[str, _Do]):
    """What may be typed after a command: the function for each name, which `named` adds."""

    def __init__(self) -> None:
        super().__init__()
        #: Those that help and refusals tell of.
        self.listed: list[str] = []

    def named(self, *names: str, unlisted: Sequence[str] = ()) -> Callable[[_Do], _Do]:
        """The function that follows is typed by any of these."""

        def add(do: _Do) -> _Do:
            self.update(dict.fromkeys((*names, *unlisted), do))
            self.listed += names
            return do

        return add

    def __str__(self) -> str:
        return ", ".join(self.listed)
