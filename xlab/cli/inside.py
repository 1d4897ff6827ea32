"""`xlab shell`, `exec`, `cli` and `fault`: in a lab that stays."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlab.cli import _options as options
from xlab.cli._app import COMMAND, AsJson, Debug, Job, app
from xlab.errors import UsageError

if TYPE_CHECKING:
    from xlab.outside.running_lab import Standing

Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which lab; may be left out while there is one.",
        autocompletion=options.complete_lab,
    ),
]
Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="A host (h1), a container (h1/c1), or the gateway (gw).",
        autocompletion=options.complete_node,
    ),
]


@app.command()
def shell(node: Node, name: Name = None, _debug: Debug = False) -> Job:
    """Open a shell in a host or a container; its prompt says where."""
    return partial(_shell, node, name)


@app.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    epilog="Exit status: the command's own; 127 where it is not found; with --all the highest.",
)
def execute(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE COMMAND...",
            help="h1 -- ip route; with --all no NODE.",
            autocompletion=options.complete_node,
        ),
    ],
    name: Name = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="In every host and container, one after the other.")
    ] = False,
    _debug: Debug = False,
) -> Job:
    """Run a command in a host or a container, on this terminal."""
    # What stands before the node has been taken by the parser, what stands behind it has not.
    node, command = ("", words) if everywhere else (words[0], words[1:])
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        raise UsageError("which command? xlab exec NODE -- COMMAND")
    if everywhere:
        return partial(_execute_everywhere, command, name)
    return partial(_execute, node, command, name)


@app.command()
def cli(name: Name = None, _debug: Debug = False) -> Job:
    """Mininet's command line on a lab: pingall, h1 ip a, iperf, link s1 h1 down, dump, net."""
    return partial(_cli, name)


@app.command(
    epilog="link h1 down|up; crash h2, reboot h2; kill h1 ovs-vswitchd, restart h1 ovs-vswitchd; "
    "partition h1 '|' h2, heal.",
)
def fault(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAULT]...", help="What is to go wrong, or to be mended."),
    ] = None,
    name: Name = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the network does what is to be expected then.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> Job:
    """Let something go wrong, or mend it; alone: what is wrong now."""
    return partial(_fault, " ".join(words or []), name, wait=wait, as_json=as_json)


def _shell(node: str, name: str | None) -> int:
    from xlab.outside import running_lab

    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        place = node if name is None else f"{name}:{node}"
        file = os.memfd_create("xlab-shell")
        os.write(file, _STARTUP.format(place=place, file=file).encode())
        argv = ["bash", "--rcfile", f"/proc/self/fd/{file}"]
        from xlab.sandbox import entering

        env = entering.environment(rootless=doors.rootless)
        status = entering.run(doors, argv, node=node, folder=Path("/root"), env=env, inherit=[file])
        _say_if_ended(lab, node, status)
        return status


#: What bash reads first: what it would have read, then the prompt.
_STARTUP = """\
[ -r /etc/bash.bashrc ] && . /etc/bash.bashrc
[ -r ~/.bashrc ] && . ~/.bashrc
PS1='{place}:\\w\\$ '
unset PROMPT_COMMAND
exec {file}<&-
"""


def _execute(node: str, command: Sequence[str], name: str | None) -> int:
    from xlab.outside import running_lab
    from xlab.sandbox import entering, sandbox

    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        env, folder = entering.environment(rootless=doors.rootless), sandbox.current_folder()
        status = entering.run(doors, command, node=node, folder=folder, env=env)
        _say_if_ended(lab, node, status)
        return status


def _execute_everywhere(command: Sequence[str], name: str | None) -> int:
    from xlab.errors import CapabilityError
    from xlab.lab.underlay import GATEWAY
    from xlab.outside import running_lab
    from xlab.sandbox import entering

    statuses = [0]
    with running_lab.find(name) as lab:
        for node in lab.node_names():
            if node == GATEWAY:
                continue
            print(f"{node}:", flush=True)
            try:
                done = lab.run(node, command, timeout_s=_LONGEST_S)
            except (CapabilityError, UsageError) as error:
                # No such program, or it is down: then the others are still to come.
                print(error, file=sys.stderr)
                missing = isinstance(error, CapabilityError)
                statuses.append(entering.NOT_FOUND if missing else entering.NOT_ENTERED)
                continue
            sys.stdout.write(done.stdout)
            sys.stdout.flush()
            sys.stderr.write(done.stderr)
            code = done.returncode
            statuses.append(code if code >= 0 else 128 - code)
    return max(statuses)


#: A day: whoever waits has Ctrl-C.
_LONGEST_S = 86_400.0


def _cli(name: str | None) -> int:
    from xlab.outside import mininet_cli, running_lab

    lab = running_lab.find(name)
    return mininet_cli.command_line(lab, ended=lambda status: _say_if_ended(lab, "its lab", status))


def _fault(order: str, name: str | None, *, wait: bool, as_json: bool) -> int:
    from xlab.cli._streams import print_json
    from xlab.cli.screens.run import Screen
    from xlab.outside import running_lab
    from xlab.report import text
    from xlab.sandbox import registry

    with running_lab.find(name) as lab:
        found = lab.call("fault", {"order": order, "wait": wait})
    if as_json:
        print_json({"name": lab.name, **found})
        return 0
    screen = Screen(sys.stdout)
    for number, each in enumerate(found["in_force"]):
        screen.said("" if number else "in force", each["fault"])
    if not found["in_force"]:
        screen.said("in force", "no fault")
    if found["cut"]:
        pairs = [f"{a} > {b}" for a, b in found["cut"]]
        more = f" and {len(pairs) - 12} more" if len(pairs) > 12 else ""
        screen.said("cut off", f"{', '.join(pairs[:12])}{more}")
    if found["waited_s"] is not None:
        screen.said("", f"as is to be expected after {text.seconds(found['waited_s'])}")
    if not order:
        screen.said("faults", "; ".join(found["grammar"]))
    for number, each in enumerate(found["in_force"]):
        cure = f"{COMMAND} fault{registry.option(lab.name)} --wait {each['cure']}"
        screen.said("" if number else "to mend", cure)
    return 0


def _say_if_ended(lab: Standing, node: str, status: int) -> None:
    """A program that was killed may have been killed with its lab, or with its host."""
    import signal

    from xlab.cli._streams import print_error

    if status != 128 + signal.SIGKILL:
        return
    if lab.has_ended():
        print_error(f"xlab: lab {lab.name} has ended")
    else:
        print_error(f"xlab: killed, with all of {node} perhaps: switched off, or rebooted")
