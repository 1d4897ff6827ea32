"""What both forms of a script have in common."""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from xlab.lab.commands import Entry, Stage, Step
from xlab.record.version import __version__
from xlab.scenario.blueprint import Blueprint

RULE = "# " + "-" * 98


def title(blueprint: Blueprint) -> Iterator[str]:
    """The scenario's own description, picture and all."""
    yield from comment(_description(blueprint))
    yield "#"
    yield from comment(f"Written by xlab {__version__}: {command_line(blueprint)}")


def with_stages(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Every entry, and with the first step on the way to a stage that stage's name, or ""."""
    names = iter([entry.name for entry in entries if isinstance(entry, Stage) and entry.built])
    ahead = next(names, "")
    for entry in entries:
        towards, ahead = (ahead, "") if isinstance(entry, Step) else ("", ahead)
        yield entry, towards
        if isinstance(entry, Stage):
            ahead = next(names, "") if entry.built else ""


def comment(text: str) -> list[str]:
    """Every line behind a "# "; control characters, which could end a comment, left out."""
    clean = "".join(c for c in text if c.isprintable() or c == "\n")
    return [f"# {line}".rstrip() for line in clean.splitlines()]


def wrapped(text: str) -> list[str]:
    return comment("\n".join(textwrap.wrap(text, 97, break_on_hyphens=False)))


def command_line(blueprint: Blueprint) -> str:
    """What was asked for, defaults spelled out where they decide something."""
    design = blueprint.design
    request = design.request
    words = ["xlab", "script", request.scenario]
    words += ["--topo", request.topo] if request.topo else ["--hosts", str(design.size.hosts)]
    words += ["--containers", str(design.size.containers)]
    words += ["--mtu", str(request.mtu)] if request.mtu != 1500 else []
    for option, asked, unit in (
        ("--rate", request.rate_bits_per_second, "bit"),
        ("--delay", request.delay_ms, "ms"),
        ("--jitter", request.jitter_ms, "ms"),
        ("--loss", request.loss_ratio, ""),
    ):
        words += [option, f"{asked:.15g}{unit}"] if asked else []
    for name, value in design.settings.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)


def _description(blueprint: Blueprint) -> str:
    module = inspect.getmodule(blueprint.design.scenario.build)
    found = inspect.getdoc(module) if module else None
    return found or f"{blueprint.design.scenario.name}: {blueprint.design.scenario.summary}"
