"""`xlab setup`: what bin/setup does for a checkout, by the same script; then what doctor finds."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence

from xlab.cli._app import command
from xlab.errors import XlabError
from xlab.kernel import signals


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
    status = _run(["/bin/sh", str(script), "--system"])
    return doctor() if status == 0 else status


def _run(argv: Sequence[str]) -> int:
    """Its status; whatever ends xlab waits until the script has put away what is its own."""
    script: subprocess.Popen[bytes] | None = None
    try:
        # Or a signal could come when it has been started and nobody knows of it yet.
        with signals.held_off() as mask:
            script = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),  # noqa: PLW1509 - no other thread
            )
        return script.wait()
    except BaseException:
        if script is not None:
            script.terminate()
            script.wait()
        raise
