"""The manual page, xlab(1): what every --help says, as man(1) wants it (man(7)).

A wheel carries it (hatch_build.py); `xlab help --man` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from xlab.cli._app import STATUSES, program
from xlab.record.version import RELEASED, __version__


def page() -> str:
    whole = program()
    return "\n".join(_page(whole, _context(whole, "xlab", None))) + "\n"


def _page(program: Any, context: Any) -> Iterator[str]:
    yield f'.TH XLAB 1 {RELEASED} "xlab {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"xlab \- a testbed for cross-host container networking, on one machine"
    yield ".SH SYNOPSIS"
    yield _bold(context.command_path) + " " + _text(_usage(program, context))
    yield ".SH DESCRIPTION"
    yield _text(program.help)
    yield ".SH OPTIONS"
    yield from _options(program, context)
    panel = ""
    for name in program.list_commands(context):
        each = program.commands[name]
        if each.rich_help_panel != panel:
            panel = each.rich_help_panel
            yield f".SH {_quoted(panel.upper())}"
        yield from _command(each, _context(each, name, context))
    yield ".SH EXIT STATUS"
    yield _text(STATUSES.removeprefix("Exit status: "))
    yield ".SH SEE ALSO"
    yield r".BR ip\-netns (8), ovs\-vsctl (8), docker (1), iperf3 (1), tcpdump (8), mn (1)"


def _command(command: Any, context: Any) -> Iterator[str]:
    yield f".SS {_quoted(f'{context.command_path} {_usage(command, context)}')}"
    for number, paragraph in enumerate(command.help.strip().split("\n\n")):
        if number:
            yield ".PP"
        yield from _paragraph(paragraph)
    yield from _options(command, context)
    if command.epilog and command.epilog != STATUSES:
        yield ".PP"
        yield _text(command.epilog)
    if hasattr(command, "commands"):
        for name in command.list_commands(context):
            yield from _command(
                command.commands[name], _context(command.commands[name], name, context)
            )


def _paragraph(text: str) -> Iterator[str]:
    """One that begins with \\b has its lines as they are."""
    if not text.startswith("\b"):
        yield _text(text)
        return
    yield ".nf"
    yield from (_text(line) if line.strip() else ".sp" for line in text[1:].strip("\n").split("\n"))
    yield ".fi"


def _options(command: Any, context: Any) -> Iterator[str]:
    """Its arguments, too.  What all commands have, the page says once."""
    usual = {"--help", "--debug"} if context.parent else set()
    for each in command.get_params(context):
        record = each.get_help_record(context)
        if record and not usual & set(each.opts):
            yield ".TP"
            yield _bold(record[0])
            yield _text(record[1])


def _usage(command: Any, context: Any) -> str:
    return " ".join(command.collect_usage_pieces(context))


def _context(command: Any, name: str, parent: Any) -> Any:
    return command.context_class(command, info_name=name, parent=parent)


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', r"\(dq") + '"'


def _text(text: str) -> str:
    """On one line, and none of it taken for a request."""
    line = re.sub(r"\s+", " ", text.strip()).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{line}" if line.startswith((".", "'")) else line
