"""What comes with xlab and is no module of it: scenarios, exercises, the set-up script.

A checkout keeps these beside the package, where a reader looks for them; a wheel carries them
inside it, by the same names (pyproject.toml).  Whichever is there is used, the wheel's first: what
lies beside an installed package is somebody else's.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def find(name: str) -> Path | None:
    """By its path below the top of a checkout, "bin/setup" say; None if it has not come along."""
    for parent in (PACKAGE, PACKAGE.parent):
        if (parent / name).exists():
            return parent / name
    return None
