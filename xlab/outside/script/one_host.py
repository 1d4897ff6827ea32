"""`--host h1`: what is typed at that one real machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xlab.lab.commands import Entry, Stage, Step
from xlab.outside.script import words
from xlab.scenario.blueprint import Blueprint

#: Debian's and Docker's own unit have these; what the tutorial adds stands behind them.
_DOCKERD = "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"
_DROP_IN = "/etc/systemd/system/docker.service.d/xlab.conf"


def script(entries: Sequence[Entry], blueprint: Blueprint, host: str) -> str:
    """A shell script for the real machine `host`, run by root."""
    return "\n".join(_lines(entries, blueprint, host)) + "\n"


def _lines(entries: Sequence[Entry], blueprint: Blueprint, host: str) -> Iterator[str]:
    yield "#!/bin/sh"
    yield from words.title(blueprint)
    yield "#"
    yield from words.wrapped(
        f"This is the part of {host}, a real machine with Docker: run it as root, and whole. "
        "The addresses are those of the scenario. Each of the other hosts has a script of its own."
    )
    yield "# What su has left of a user's PATH may lack the folders of ip and brctl."
    yield 'export PATH="$PATH:/usr/sbin:/sbin"'
    yield "set -eux"
    notes = set[str]()
    own = [
        entry
        for entry in entries
        if isinstance(entry, Stage)
        or (isinstance(entry, Step) and entry.node == host and entry.typed)
    ]
    for entry, towards in words.with_stages(own):
        if towards:
            yield f"\n# {towards}"
        if isinstance(entry, Step):
            if entry.note and entry.note not in notes:
                notes.add(entry.note)
                yield from words.wrapped(entry.note)
            for line in entry.typed:
                yield from _at_a_real_machine(line)


def _at_a_real_machine(line: str) -> list[str]:
    """dockerd is not typed: its options go into docker.service."""
    program, _, options = line.partition(" ")
    if program != "dockerd":
        return [line]
    if not options:
        return ["systemctl start docker"]
    return [
        f"mkdir -p {_DROP_IN.rpartition('/')[0]}",
        f"cat >{_DROP_IN} <<'END'",
        "[Service]",
        "ExecStart=",
        f"ExecStart={_DOCKERD} {options}",
        "END",
        "systemctl daemon-reload",
        "systemctl restart docker",
    ]
