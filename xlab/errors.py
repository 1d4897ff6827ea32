"""Every error xlab raises on purpose, on one page.

Library code raises these; only the command line prints them and exits.  Each class fixes the exit
status its message ends with, so that no caller has to decide: "wrong usage" (2), "this machine
can't" (3) and "something broke" (1) stay apart from the bottom up.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class XlabError(Exception):
    """Base of all: `str(error)` is fit for a user, `exit_status` is what the process ends with."""

    exit_status = 1


class UsageError(XlabError):
    """What was asked for makes no sense or cannot fit; nothing was built."""

    exit_status = 2


class CapabilityError(XlabError):
    """This machine cannot do it: names the missing capability and the remedy, if there is one."""

    exit_status = 3

    def __init__(self, missing: str, remedy: str = "") -> None:
        super().__init__(f"{missing}; {remedy}" if remedy else missing)
        self.missing = missing
        self.remedy = remedy


class CommandError(XlabError):
    """A program run inside the lab failed or did not end in time."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        node: str,
        returncode: int | None,
        stderr: str = "",
        timeout_s: float | None = None,
    ) -> None:
        outcome = (
            f"did not end within {timeout_s:g} s"
            if returncode is None
            else f"ended with status {returncode}"
        )
        tail = f": {stderr.strip()[-800:]}" if stderr.strip() else ""
        super().__init__(f"{node}: `{shlex.join(argv)}` {outcome}{tail}")
        self.argv = tuple(argv)
        self.node = node
        self.returncode = returncode
        self.stderr = stderr


class DaemonError(XlabError):
    """A daemon of the lab died or does not answer; carries the tail of its log."""

    def __init__(self, daemon: str, *, node: str, reason: str, log_tail: str = "") -> None:
        tail = f"\n--- last lines of its log\n{log_tail.rstrip()}" if log_tail.strip() else ""
        super().__init__(f"{node}: {daemon} {reason}{tail}")
        self.daemon = daemon
        self.node = node
        self.log_tail = log_tail


class NetlinkError(XlabError):
    """The kernel refused one operation of a netlink batch."""

    def __init__(self, operation: str, errno: int, reason: str) -> None:
        super().__init__(f"netlink: {operation}: {reason} (errno {errno})")
        self.operation = operation
        self.errno = errno


class DockerError(XlabError):
    """What the Docker daemon or client would say, in its words; `exit_code` is Docker's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DeadlineError(XlabError):
    """A condition did not come true in time; says what was awaited."""

    def __init__(self, awaited: str, timeout_s: float) -> None:
        super().__init__(f"waited {timeout_s:g} s in vain for {awaited}")
        self.awaited = awaited


class ClaimError(XlabError):
    """A lab stands, and is not what its scenario says; carries all claims (`record.Claim`)."""

    def __init__(self, message: str, claims: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.claims = tuple(claims)


class SandboxError(XlabError):
    """The lab's sandbox could not be made, or its controller is gone."""


class NoAnswerError(SandboxError):
    """A lab is there, and its controller does not answer."""

    def __init__(self, lab: str, pid: int) -> None:
        """`lab` is empty for one that has no name, `pid` 0 if pid 1's number is not known."""
        number = f" (pid {pid})" if pid else ""
        remedy = f"; `xlab down {lab}` ends it" if lab else ""
        super().__init__(f"{f'lab {lab}' if lab else 'the lab'} does not answer{number}{remedy}")
        self.lab = lab
        self.pid = pid


class LimitError(XlabError):
    """What runs in a lab took more than it may, and was ended; says what and how much."""


class RecordError(XlabError):
    """A run record that cannot be read; names the file and the place in it."""

    exit_status = 2


@contextmanager
def at(place: str) -> Iterator[None]:
    """A UsageError comes out with the place that it is about before it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


#: Characters of a word, and of a file's name, that an error repeats.
_LONGEST_QUOTE, _LONGEST_NAME = 60, 300


def quoted(word: str) -> str:
    """As Python writes it, and no more of it than anyone wants to read again."""
    return repr(word if len(word) <= _LONGEST_QUOTE else f"{word[:_LONGEST_QUOTE]}…")


def shortened(file: object) -> str:
    """A name; one that the system calls too long is so for readers too."""
    name = str(file)
    return name if len(name) <= _LONGEST_NAME else f"{name[:100]}…{name[-100:]}"


def meant(word: str, known: Iterable[str]) -> str:
    """The end of an error about a word that is none of `known`: "; did you mean X?", or nothing."""
    import difflib

    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def line_of(path: Path, error: BaseException) -> int:
    """The last line of a Python file that took part in `error`; 1 if none did.

    However its path was given: the frames of what importlib loads have the absolute one.
    """
    import traceback

    whole = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", as frames may
    if isinstance(error, SyntaxError) and error.lineno and _is(whole, error.filename or whole):
        return error.lineno
    lines = [
        frame.lineno or 1
        for frame in traceback.extract_tb(error.__traceback__)
        if _is(whole, frame.filename)
    ]
    return lines[-1] if lines else 1


def _is(whole: str, name: str) -> bool:
    return os.path.abspath(name) == whole  # noqa: PTH100
