"""xlab: a reproducible testbed for cross-host container networking on one Linux machine.

with xlab.lab("ovs-gre", hosts=3) as lab:
    lab["h1/c1"].run("ping", "-c1", lab["h3/c1"].address)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlab.api import lab as lab

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Nothing is imported before it is asked for: every start of the command line passes here.
    if name == "lab":
        from importlib import import_module

        return import_module("xlab.lab")
    raise AttributeError(f"module 'xlab' has no attribute {name!r}")
