"""Open vSwitch in Mininet's "root": started when a program asks for it, and not before.

A switch forwards as a bridge of the kernel.  When a script, or who types at the command line,
comes to `ovs-vsctl` or `dpctl`, the daemons are started, and every OVSSwitch becomes what it is
called: its ports keep their numbers.  Where the kernel has no Open vSwitch it runs in user space.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import socket
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError
from xlab.inside.machine import tools
from xlab.kernel import processes
from xlab.kernel.capabilities import probe
from xlab.kernel.programs import locate, remedy
from xlab.lab.ovs import OpenVSwitch
from xlab.mininet import machine as machines
from xlab.scenario import blueprint

#: Where Open vSwitch's own tools look.
_FOLDER = Path("/run/openvswitch")
#: In user space only: a new bridge must be told so.
_WRAPPER = machines.COMMANDS / "ovs-vsctl"

#: A word of a command that talks to the daemons.
_CLIENT = re.compile(r"(?<![\w.-])(?:ovs-(?:vsctl|ofctl|appctl|dpctl)|ovsdb-client)(?![\w.-])")
#: A command of the OpenFlow reference implementation, or a controller.  Mininet's examples start
#: them by hand, and what then waits to be connected waits for ever where there are none.
_OPENFLOW = re.compile(
    r"(?:^|[;&|(\n])\s*(?:(?:exec|nohup|sudo)\s+)*"
    r"((?:ovs-|test-|ovs-test)?controller|ofdatapath|ofprotocol)(?=[\s;&|)]|$)"
)


#: Switches that run, and become Open vSwitch's (`become_real`) when the daemons do.
followers: weakref.WeakSet[Any] = weakref.WeakSet()

_provided = False


def see_to(command: str | Sequence[Any]) -> None:
    """See to it that a command in the "root" or a host finds what it needs.

    Raises CapabilityError for a program of OpenFlow's that is not installed, and if this machine
    can have no Open vSwitch.
    """
    line = command if isinstance(command, str) else " ".join(map(str, command))
    for program in _OPENFLOW.findall(line):
        _require(program, line)
    if _CLIENT.search(line):
        provide()


def _require(program: str, line: str) -> None:
    if program == "controller" and locate(program) is None and locate(_TEST_CONTROLLER):
        tools.write(machines.COMMANDS / program, _CONTROLLER)
    elif locate(program) is None:
        raise CapabilityError(
            f"`{line.strip()}`: `{program}` is not installed, and what is to be connected to it "
            "would wait for ever",
            f"sudo apt-get install openvswitch-{_TEST_CONTROLLER.removeprefix('ovs-')}"
            if program.endswith("controller")
            else "Debian has none; switches that Mininet() makes forward without",
        )
    # Those of Open vSwitch end if they cannot make a socket there.
    _FOLDER.mkdir(parents=True, exist_ok=True)


_TEST_CONTROLLER = "ovs-testcontroller"
#: Under the name that Mininet's examples have for one.
_CONTROLLER = f"""#!/bin/sh
# The reference controller listens on port 6633 unless told, Open vSwitch's on 6653.
for word; do
    shift
    [ "$word" != ptcp: ] || word=ptcp:6633
    set -- "$@" "$word"
done
exec {_TEST_CONTROLLER} "$@"
"""


def is_provided() -> bool:
    """Whether the switches of this program are Open vSwitch's."""
    return _provided


def provide() -> None:
    """Start the daemons if no other program in the same "root" has, and take over the switches.

    Raises CapabilityError, with the remedy, if the machine can't.
    """
    global _provided
    if _provided:
        return
    machines.inside(_start)
    if in_user_space():
        os.environ["PATH"] = f"{machines.COMMANDS}:{os.environ.get('PATH', os.defpath)}"
    _provided = True
    for switch in list(followers):
        switch.become_real()


def clean_up() -> None:
    """Take away all bridges, whoever made them."""
    if machines.inside(_listens):
        for bridge in vsctl("list-br").split():
            vsctl("--if-exists", "del-br", bridge)


def vsctl(*words: str) -> str:
    """`ovs-vsctl WORDS`: what it prints.  CommandError if Open vSwitch refuses."""
    return _run(_vsctl(), *words)


def appctl(*words: str) -> str:
    """`ovs-appctl WORDS`: what it prints."""
    return _run("ovs-appctl", *words)


def settle() -> None:
    """Wait until the datapath does what flows, ports and learnt addresses say now.

    ovs-vswitchd answers as soon as it knows; what has been decided for packets like those that came
    before it looks through some milliseconds later.
    """
    appctl("revalidator/wait")


def _run(program: str, *words: str) -> str:
    argv = [program, "--timeout=30", *words]
    return machines.inside(lambda: machines.root().run(argv, timeout_s=40)).stdout


def in_user_space() -> bool:
    """Whether the daemons have no datapath but netdev."""
    return _WRAPPER.exists()


def _start() -> None:
    if _listens():
        return
    datapath = blueprint.ovs_datapath(probe(inside=True), "auto")
    if datapath == "userspace":
        tools.write_vsctl(_WRAPPER, real=_vsctl())
    daemons = OpenVSwitch(machines.root(), datapath)
    daemons.start()
    # What it is told from now on it does at once.
    daemons.restart("ovs-vswitchd")
    atexit.register(daemons.stop)


def _listens() -> bool:
    """Whether another program in the same "root" has started them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        # Where the queue is full connect(2) waits, for ever without a limit, unix(7).
        client.setblocking(False)
        return client.connect_ex(str(_FOLDER / "db.sock")) in (0, errno.EAGAIN)


def _vsctl() -> str:
    """The machine's own."""
    folders = processes.search_path().split(":")
    path = ":".join(folder for folder in folders if folder != str(machines.COMMANDS))
    found = shutil.which("ovs-vsctl", path=path)
    if found is None:
        raise CapabilityError("`ovs-vsctl` is not installed", remedy("ovs-vswitchd"))
    return found
