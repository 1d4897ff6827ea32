"""Whoever typed a command in a host: what was typed, and a way to answer."""

from __future__ import annotations

import getopt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from xlab.sandbox.console import Attachable


@dataclass(frozen=True, slots=True)
class Typist:
    words: Sequence[str]
    #: Whether standard input is a terminal.
    terminal: bool
    out: Callable[[str], None]
    err: Callable[[str], None]

    def having_typed(self, words: Sequence[str]) -> Typist:
        """The same person with other words."""
        return replace(self, words=words)


@dataclass(frozen=True, slots=True)
class Attached:
    """The command goes on as the terminal of a program: who is to be told, and may type."""

    program: Attachable
    descriptors: Sequence[int]
    interactive: bool


#: An exit status, or what to attend to instead.
Outcome = int | Attached


class RefusalError(Exception):
    """A command line that makes no sense, or asks for what is not emulated."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Options:
    """The options at the beginning of a command line, or anywhere in it, and the words left over.

    `short` and `long` are getopt(3)'s, with one name for each meaning: `same` maps the others.
    """

    def __init__(
        self,
        words: Sequence[str],
        short: str = "",
        long: Sequence[str] = (),
        *,
        same: Mapping[str, str] | None = None,
        anywhere: bool = True,
    ) -> None:
        parse = getopt.gnu_getopt if anywhere else getopt.getopt
        try:
            found, self.rest = parse(list(words), short, list(long))
        except getopt.GetoptError as error:
            raise RefusalError(_told(error)) from error
        same = same or {}
        self._given: dict[str, list[str]] = {}
        for name, value in found:
            self._given.setdefault(same.get(name, name), []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def value(self, name: str, default: str | None = None) -> str | None:
        """What was given last."""
        return self._given.get(name, [default])[-1]

    def values(self, name: str) -> list[str]:
        return self._given.get(name, [])


def _told(error: getopt.GetoptError) -> str:
    dashes = "--" if len(error.opt) > 1 else "-"
    if "requires argument" in error.msg:
        return f"flag needs an argument: {dashes}{error.opt}"
    return f"unknown flag, or one that is not emulated: {dashes}{error.opt}"
