"""`python -m xlab`: the command line, imported here alone so that importing the package is free."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    # Before and after `main` has its own say an interrupt ends the program without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from xlab.cli import main

    sys.exit(main())
