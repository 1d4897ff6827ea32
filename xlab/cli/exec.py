"""`xlab exec`: a command in a node of a lab that stays, or in all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from xlab.cli._app import command
from xlab.cli._lab_facts import say_if_ended
from xlab.cli._options import Name, complete_node
from xlab.errors import CapabilityError, UsageError


@command(
    context_settings={"allow_interspersed_args": False},
    epilog="Exit status: the command's own; 127 where it is not found; with --all the highest.",
)
def execute(
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE COMMAND...",
            help="h1 -- ip route; with --all no NODE.",
            autocompletion=complete_node,
        ),
    ],
    name: Name = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="In every host and container, one after the other.")
    ] = False,
) -> int:
    """Run a command in a host or a container, on this terminal."""
    # What stands before the node has been taken by the parser, what stands behind it has not.
    node, argv = ("", words) if everywhere else (words[0], words[1:])
    if argv and argv[0] == "--":
        argv = argv[1:]
    if not argv:
        raise UsageError("which command? xlab exec NODE -- COMMAND")
    if everywhere:
        return _execute_everywhere(argv, name)
    from xlab.outside import running_lab
    from xlab.sandbox import entering, sandbox

    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        env, folder = entering.environment(doors), sandbox.current_folder()
        status = entering.run(doors, argv, node=node, folder=folder, env=env)
        say_if_ended(lab, node, status)
        return status


def _execute_everywhere(argv: Sequence[str], name: str | None) -> int:
    from xlab.kernel.processes import shell_status
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
                done = lab.run(node, argv, timeout_s=_LONGEST_S)
            except (CapabilityError, UsageError) as error:
                # No such program, or it is down: then the others are still to come.
                print(error, file=sys.stderr)
                missing = isinstance(error, CapabilityError)
                statuses.append(entering.NOT_FOUND if missing else entering.NOT_ENTERED)
                continue
            sys.stdout.write(done.stdout)
            sys.stdout.flush()
            sys.stderr.write(done.stderr)
            statuses.append(shell_status(done.returncode))
    return max(statuses)


#: A day: whoever waits has Ctrl-C.
_LONGEST_S = 86_400.0
