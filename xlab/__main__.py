"""`python -m xlab`: the command line, imported here alone so that importing the package is free."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Do what the process's arguments ask; returns its exit status."""
    # Before and after the command line has its own say an interrupt ends the program without a
    # traceback.  bin/xlab holds it off until here: while Python starts it would show one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from xlab.cli import main as do

    return do()


if __name__ == "__main__":
    sys.exit(main())
