"""`python -m xlab`: the command line, imported here alone so that importing the package is free."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from xlab.cli import main

    sys.exit(main())
