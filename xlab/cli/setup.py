"""`xlab setup`: what bin/setup does for a checkout, by the same script; then what doctor finds."""

from __future__ import annotations

import subprocess

from xlab.cli._app import command
from xlab.errors import XlabError


@command(
    epilog="Exit status: 0 every scenario runs here; 3 this machine can't, or something is missing "
    "and can't be installed now."
)
def setup() -> int:
    """Install what labs need of this system, and show what it can then do.

    That is, packages of Debian or Ubuntu, by apt-get, and no service of theirs is started.  Without
    root the line to paste is printed.
    """
    from xlab.cli.doctor import doctor
    from xlab.kernel import shipped

    script = shipped.find("bin/setup")
    if script is None:
        raise XlabError(f"bin/setup is missing from this installation ({shipped.PACKAGE})")
    status = _ended(subprocess.Popen(["/bin/sh", script, "--system"], stdin=subprocess.DEVNULL))
    return doctor() if status == 0 else status


def _ended(script: subprocess.Popen[bytes]) -> int:
    """Its status; whatever ends xlab waits until the script has put away what is its own."""
    try:
        return script.wait()
    except BaseException:
        script.terminate()
        script.wait()
        raise
