"""A lab in which root is the only user there is, and what must not become another there.

An ordinary user's namespace has one user, and no setgroups(2) (user_namespaces(7)).  tcpdump, as
distributions build it, becomes the user "tcpdump" as soon as it listens, and ends if it can't.  So
every node of such a lab has another one, which the search path names first:

    /run/xlab/bin/tcpdump     exec /usr/bin/tcpdump -Z root "$@"

Not in the real one's place: AppArmor confines whatever is executed under that name, a script, too.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

FOLDER = Path("/run/xlab/bin")

_TCPDUMP = """#!/bin/sh
# Root is the only user here, and tcpdump must not become another.
exec {real} -Z root "$@"
"""


def applies() -> bool:
    """Whether the calling process is in a user namespace of that kind."""
    try:
        return Path("/proc/self/setgroups").read_text() == "deny\n"
    except FileNotFoundError:
        return False  # a kernel without user namespaces


def provide(search_path: str) -> None:
    """Fill the folder in an empty /run, the calling thread's, if there is need of it."""
    real = shutil.which("tcpdump", path=search_path) if applies() else None
    if real:
        FOLDER.mkdir(parents=True)
        program = FOLDER / "tcpdump"
        program.write_text(_TCPDUMP.format(real=shlex.quote(real)))
        program.chmod(0o755)
