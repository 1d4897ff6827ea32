"""The process that holds a lab for a program that uses it (api.py); started by that program.

Standard input carries nothing.  The arguments are two descriptors: a socket, on which one request
comes and one answer goes, with a socket to the lab's pid 1; and a pidfd of the program.  It takes
the lab down when the program says so (the socket hangs up) or ends, `kill -9` included.  A copy of
the socket that a fork of the program has changes nothing about that.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from xlab.inside.verbs import launch_lab
from xlab.kernel import capabilities
from xlab.sandbox import controller
from xlab.sandbox.containment import Limits
from xlab.sandbox.sandbox import Sandbox
from xlab.scenario import blueprint
from xlab.scenario.request import Request


def main() -> NoReturn:
    control, program = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    with control.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        os._exit(0)
    try:
        facts, lab = _launch(json.loads(line)["arguments"])
    except Exception as error:  # noqa: BLE001 - the program gets it, whatever it is
        _answer(control, {"error": controller.described(error)})
        os._exit(1)
    _answer(control, {"result": facts}, lab.channel)
    # Whoever else had it open could keep pid 1 from seeing that the program has hung up.
    lab.channel.close()
    poller = select.poll()
    poller.register(control, select.POLLIN | select.POLLHUP)
    poller.register(program, select.POLLIN)
    poller.poll()
    lab.close()
    os._exit(0)


def _launch(asked: Mapping[str, Any]) -> tuple[dict[str, Any], Sandbox]:
    """Plan the lab and launch its sandbox, in which nothing has been built yet."""
    design = blueprint.design(Request(**asked["request"]))
    until = asked["until"]
    if until is not None:
        until = design.scenario.stage(until)
    equipped = blueprint.equip(design, capabilities.probe())
    keep = [Path(folder) for folder in asked["keep"]]
    limits = Limits(**asked["limits"]) if asked["limits"] else None
    lab = launch_lab(
        equipped, keep=keep, machines=asked["machines"], guarded=asked["guarded"], limits=limits
    )
    facts = {"until": until, "datapath": equipped.datapath, "notes": list(equipped.notes)}
    return {**facts, "pid": lab.pid}, lab


def _answer(
    control: socket.socket, answer: Mapping[str, Any], channel: socket.socket | None = None
) -> None:
    data = json.dumps(answer, default=str).encode() + b"\n"
    try:
        if channel is not None:
            data = data[socket.send_fds(control, [data], [channel.fileno()]) :]
        control.sendall(data)
    except OSError:
        os._exit(1)  # the program is gone, and with us the lab
