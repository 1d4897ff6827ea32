"""Markdown as a reader meets it: links to follow, commands to type, output to expect.

```console
$ bin/xlab run bridge --quick       typed
✓ all hosts reach each other        … and then seen, in this order, with anything in between;
id …, seq 1                         an ellipsis stands for any text, any space for any spaces
```
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from xlab.cli import _app
from xlab.cli.run import run
from xlab.scenario import catalog, scenario
from xlab.scenario.request import Request
from xlab.scenario.scenario import Size

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"\s*```(\w*)")
#: Brackets within code do not end the text of a link.
_LINK = re.compile(r"\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str
    #: The language of the fenced block it is in, "" for one without; None in the text itself.
    block: str | None


@dataclass(frozen=True, slots=True)
class Link:
    #: "docs/tutorial.md:12", for messages.
    place: str
    text: str
    target: str

    @property
    def code(self) -> str:
        """What the text of the link quotes in backticks; empty if nothing."""
        return "".join(re.findall(r"`([^`]*)`", self.text))


@dataclass(frozen=True, slots=True)
class Command:
    place: str
    text: str
    shown: tuple[str, ...]

    @property
    def argv0(self) -> str:
        return self.text.split()[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    returncode: int
    output: str


def lines(document: Path) -> list[Line]:
    """The lines of a document but the fences themselves."""
    found = []
    block: str | None = None
    for number, text in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(text)
        if fence:
            block = fence[1] if block is None else None
        else:
            found.append(Line(number, text, block))
    assert block is None, f"{document}: a fenced block does not end"
    return found


def links(document: Path) -> list[Link]:
    return [
        Link(_place(document, line.number), *match.groups())
        for line in lines(document)
        if line.block is None
        for match in _LINK.finditer(line.text)
    ]


def headings(document: Path) -> list[str]:
    """The text of all headings, in order."""
    return [
        line.text.lstrip("#").strip()
        for line in lines(document)
        if line.block is None and line.text.startswith("#")
    ]


def anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands(document: Path) -> list[Command]:
    """What the console blocks of a document have one type, with the output they show."""
    found: list[tuple[int, str, list[str]]] = []
    for line in lines(document):
        if line.block != "console":
            continue
        if line.text.startswith("$ "):
            found.append((line.number, line.text[2:], []))
        else:
            assert found, f"{_place(document, line.number)}: output before any command"
            found[-1][2].append(line.text)
    return [Command(_place(document, n), text, tuple(shown)) for n, text, shown in found]


def programs(document: Path) -> dict[str, str]:
    """The Python of a document, by the name in the first line of each block: "# pair.py: …"."""
    found: dict[str, str] = {}
    name, before = "", 0
    for line in lines(document):
        if line.block != "python":
            continue
        if line.number != before + 1:
            name = line.text.removeprefix("# ").partition(":")[0]
            found[name] = ""
        found[name] += f"{line.text}\n"
        before = line.number
    return found


def workplace(folder: Path) -> Path:
    """A folder that looks like the top of the checkout; `bin/xlab`, `bin/setup`: this Python."""
    (folder / "bin").mkdir(parents=True)
    xlab = folder / "bin" / "xlab"
    xlab.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m xlab "$@"\n')
    xlab.chmod(0o755)
    setup = folder / "bin" / "setup"
    setup.write_text(f"#!/bin/sh\necho {sys.executable}\n")
    setup.chmod(0o755)
    (folder / "scenarios").symlink_to(ROOT / "scenarios")
    (folder / "tmp").mkdir()
    return folder


def type_in(place: Path, typed: Sequence[Command], *, timeout_s: float) -> list[Outcome]:
    """Type the commands one after the other into one shell at `place`.

    /tmp of the text is a folder of `place`.  Runs are quick ones; the rest is as typed.
    """
    mark = f"--- {uuid.uuid4()}"
    script = "".join(f'{_quick(c.text, place)}\necho "\n{mark} $?"\n' for c in typed)
    shell = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        # As wide as the screen's lines can be: what is shown breaks where it would on a terminal.
        env={**os.environ, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    parts = re.split(rf"{mark} (\d+)\n", shell.stdout)
    assert len(parts) == 2 * len(typed) + 1, shell.stdout[-2000:]
    return [Outcome(int(parts[i + 1]), parts[i]) for i in range(0, 2 * len(typed), 2)]


def first_missing(shown: Sequence[str], output: str) -> str | None:
    """The first line of `shown` that `output` does not have after the one before; None if all."""
    seen = " ".join(output.split())
    start = 0
    for line in shown:
        words = " ".join(line.split())
        if words in {"", "…"}:
            continue
        match = re.compile(pattern(words)).search(seen, start)
        if not match:
            return line
        start = match.end()
    return None


def pattern(text: str) -> str:
    """A regular expression for `text`, whose ellipses stand for anything, spaces included."""
    return re.sub(r"(\\ )?…(\\ )?", ".*?", re.escape(text))


def asked(command: Command) -> Request | None:
    """What a `bin/xlab run` line asks for, by xlab's own parser; None for another xlab command."""
    program, *arguments = shlex.split(command.text)
    assert program == "bin/xlab", command.place
    job = _app.program().main(arguments, prog_name="xlab", standalone_mode=False)
    assert isinstance(job, functools.partial), f"{command.place}: {job}"
    if job.func is not run:
        return None
    with mock.patch("xlab.cli.run._run", lambda request, **_: request):
        request = job()
    assert isinstance(request, Request)
    return request


def require_known(request: Request) -> None:
    """UsageError if the scenario, its settings or its size make no sense."""
    loaded = scenario.load(catalog.find(request.scenario))
    size = Size(hosts=request.hosts, containers=request.containers)
    loaded.plan(size, loaded.settings(request.settings))


def _quick(text: str, place: Path) -> str:
    text = text.replace("/tmp/", f"{place}/tmp/")
    if text.startswith("bin/xlab run ") and "--quick" not in text:
        text = f"{re.sub(r' --(duration|repeat) [0-9.]+', '', text)} --quick"
    return text


def _place(document: Path, number: int) -> str:
    return f"{document.relative_to(ROOT)}:{number}"
