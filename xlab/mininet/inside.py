"""Moving a program into a sandbox while it runs.

A Mininet script may start another, and the two share the "root" as they do on a machine: a program
that one inside has started stays where it is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from xlab.errors import XlabError
from xlab.kernel import namespaces, reaping
from xlab.sandbox import sandbox
from xlab.sandbox.launching import launch

#: In the environment of what runs inside: "rootless net:[4026532334]", the kind of the sandbox and
#: its network namespace.  A mark that has strayed names another than its finder's: no matter.
_MARK = "XLAB_INSIDE"


def enter(*, keep: Sequence[Path] = ()) -> None:
    """The program goes on inside a sandbox of its own, if it is not in one already.

    What goes on is a child with the same terminal; the caller's process waits for it and ends with
    its status.  Private inside are the network, process numbers, /tmp and /run; of the latter two
    `keep`, the working directory and the folders of sys.path stay visible.

    Raises XlabError in a program that has several threads (only one would go on), CapabilityError
    if the kernel allows no such namespaces.
    """
    if namespaces.inside():
        return
    kind, _, network = os.environ.get(_MARK, "").partition(" ")
    if network and network == _own_network():
        sandbox.settle(rootless=kind == "rootless")
        reaping.reap_only_own()
        return
    if threading.active_count() > 1:
        others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
        raise XlabError(
            f"a program can move into a sandbox before it has other threads ({', '.join(others)})"
        )
    # What is buffered would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    visible = [*keep, sandbox.current_folder()]
    folders = [entry.name for entry in Path("/run").iterdir() if entry.is_dir()]
    # Pid 1 does nothing but reap: the program beside it makes and owns the network.
    sandbox.join(launch(dict, keep=visible), visible)
    reaping.reap_only_own()
    # Daemons want a folder of theirs that the machine's start has made: sshd, /run/sshd.
    for name in folders:
        Path("/run", name).mkdir(exist_ok=True)
    os.environ[_MARK] = f"{sandbox.kind()} {_own_network()}"


def _own_network() -> str:
    return str(Path("/proc/self/ns/net").readlink())
