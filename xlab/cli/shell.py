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
    from xlab.lab.machine_root import TYPED
    from xlab.outside import running_lab
    from xlab.sandbox import entering

    with running_lab.find(name) as lab:
        doors = lab.enter(node)
        place = node if name is None else f"{name}:{node}"
        file = os.memfd_create("xlab-shell")
        # What an exercise is done by can be handed in (`xlab lab submit`).
        keeping = _KEEPING.replace("@TYPED@", TYPED) if lab.call("exercise", {}) else ""
        os.write(file, _STARTUP.format(place=place, file=file, keeping=keeping).encode())
        argv = ["bash", "--rcfile", f"/proc/self/fd/{file}"]
        env = entering.environment(doors)
        status = entering.run(doors, argv, node=node, folder=Path("/root"), env=env, inherit=[file])
        say_if_ended(lab, node, status)
        return status


#: What bash reads first: what it would have read, then the prompt.
_STARTUP = """\
[ -r /etc/bash.bashrc ] && . /etc/bash.bashrc
[ -r ~/.bashrc ] && . ~/.bashrc
PS1='{place}:\\w\\$ '
unset PROMPT_COMMAND
{keeping}
exec {file}<&-
"""

#: Each command with its status, once the next prompt is to come; what was typed before is known.
_KEEPING = """\
HISTCONTROL=
__xlab_last=none
__xlab_typed() {
    local status=$? number= text= said
    said=$(HISTTIMEFORMAT= builtin history 1)
    if [[ $said =~ ^[[:space:]]*([0-9]+)[*]?[[:space:]]+(.*)$ ]]; then
        number=${BASH_REMATCH[1]} text=${BASH_REMATCH[2]}
    fi
    if [ "$__xlab_last" != none ] && [ "$number" != "$__xlab_last" ]; then
        printf '%s %s %s\\0' "$EPOCHREALTIME" "$status" "$text" >>@TYPED@
    fi
    __xlab_last=$number
    return "$status"
}
PROMPT_COMMAND=__xlab_typed
"""
