"""The whole network as one bash script: builds it in namespaces of its own, and proves the claims.

Nodes are named namespaces (`ip netns`), h1/c1 is h1:c1; each has a /run of its own.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import resources

from xlab.lab.commands import (
    Born,
    Call,
    Command,
    Entry,
    Remark,
    Stage,
    Step,
    as_line,
    in_script,
)
from xlab.lab.node import SYSCTLS
from xlab.outside.script import words
from xlab.scenario.blueprint import Blueprint

#: These take the node's name by themselves.
_WITH_NAME = ("ip", "bridge", "tc")
#: These say that all went well.
_TALKATIVE = ("ovsdb-tool", "ovs-appctl")
#: Docker's and Weave's names for the host's end of a container's interface.
_BY_CHANCE = re.compile(r"\b(vethwe|veth)[0-9a-f]{7,8}\b")


def script(
    entries: Sequence[Entry],
    blueprint: Blueprint,
    *,
    round_trip_s: float = 0.0,
    silence_s: float = 0.4,
    lossy: bool = False,
) -> str:
    """Its text, the same for the same network.

    Links' delays add `round_trip_s` to an answer, none within `silence_s` is none at all, and if
    links are `lossy` answers may be missing.
    """
    wanted = {
        "SETTINGS": " ".join(f"{name}={value}" for name, value in SYSCTLS),
        "ROUND_TRIP": str(math.ceil(round_trip_s)),
        "SILENCE": f"{silence_s:g}",
        "LOSSY": str(int(lossy)),
    }
    functions = resources.files("xlab.outside.script").joinpath("functions.sh").read_text()
    for name, value in wanted.items():
        functions = functions.replace(f"@{name}@", value)
    text = "\n".join(_lines(entries, blueprint, functions)) + "\n"
    numbered: dict[str, str] = {}
    return _BY_CHANCE.sub(
        lambda found: numbered.setdefault(found[0], f"{found[1]}{len(numbered) + 1}"), text
    )


def _lines(entries: Sequence[Entry], blueprint: Blueprint, functions: str) -> Iterator[str]:
    yield "#!/bin/bash"
    yield from words.title(blueprint)
    yield functions.rstrip()
    remarks = set[str]()
    for entry, towards in words.with_stages(entries):
        if towards:
            yield f"\n{words.RULE}\n# {towards}"
        match entry:
            case Step():
                yield from _step(entry)
            case Stage(name):
                yield f"\nstage {shlex.quote(name)}"
            case Remark(text):
                if text not in remarks:
                    remarks.add(text)
                    yield from words.wrapped(text)
            case Call(argv):
                yield shlex.join(argv)
    yield '\nfinish "$@"'


def _step(step: Step) -> Iterator[str]:
    yield from words.wrapped(step.note)
    commands = [what.line() for what in step.did if isinstance(what, Command)]
    if list(step.typed) != commands:
        for line in step.typed:
            text = line if line.startswith("#") else f"{step.node}$ {line}"
            yield from words.comment(text.removeprefix("# "))
    for what in step.did:
        yield f"node {in_script(what.name)}" if isinstance(what, Born) else _command(what)


def _command(command: Command) -> str:
    name = in_script(command.node)
    program, *arguments = command.argv
    if "netns" in arguments:
        place = arguments.index("netns") + 1
        arguments[place] = in_script(arguments[place])
    argv = [program, "-n", name] if program in _WITH_NAME else ["on", name, program]
    log = f"/run/node/{name}/{program.rpartition('/')[2]}.log" if command.daemon else ""
    line = as_line([*argv, *arguments], stdin=command.stdin, daemon=command.daemon, log=log)
    if command.awaits:
        line += "\n" + shlex.join(["until_there", name, command.awaits])
    return f"{line} >/dev/null" if program in _TALKATIVE else line
