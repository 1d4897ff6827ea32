"""`xlab shell`: a shell in a node of a lab that stays."""

from __future__ import annotations

import os
from pathlib import Path

from xlab.cli._app import command
from xlab.cli._lab_facts import say_if_ended
from xlab.cli._options import Name, Node


@command()
def shell(*, node: Node, name: Name = None) -> int:
    """Open a shell in a host or a container; its prompt says where."""
    from xlab.outside import running_lab
    from xlab.sandbox import entering

    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        place = node if name is None else f"{name}:{node}"
        file = os.memfd_create("xlab-shell")
        os.write(file, _STARTUP.format(place=place, file=file).encode())
        argv = ["bash", "--rcfile", f"/proc/self/fd/{file}"]
        env = entering.environment(rootless=doors.rootless)
        status = entering.run(doors, argv, node=node, folder=Path("/root"), env=env, inherit=[file])
        say_if_ended(lab, node, status)
        return status


#: What bash reads first: what it would have read, then the prompt.
_STARTUP = """\
[ -r /etc/bash.bashrc ] && . /etc/bash.bashrc
[ -r ~/.bashrc ] && . ~/.bashrc
PS1='{place}:\\w\\$ '
unset PROMPT_COMMAND
exec {file}<&-
"""
