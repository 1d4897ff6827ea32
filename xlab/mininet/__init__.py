"""Mininet's API on the lab's engine: in a sandbox, without root, controller-less.

    python -m xlab.mininet script.py                a Mininet script, as it is

    with xlab.mininet.network(topo) as net:         any Topo, built and started
        net["h1"].cmd("ip address")
        net.pingAll()

    net = xlab.mininet.of_lab(lab)                  a lab of the engine as Mininet's objects

Whatever is imported from here runs inside a sandbox; `network` moves the caller into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlab.lab.lab import Lab
    from xlab.mininet.found import FoundNetwork
    from xlab.mininet.net import Mininet


@contextmanager
def network(topo: Any, *, keep: Sequence[Path] = (), **options: Any) -> Iterator[Mininet]:
    """A running network made of a Mininet `Topo`; `options` are those of Mininet's `Mininet`.

    Outside of a sandbox the program goes on inside one from here to its end (see `inside.enter`).
    """
    from xlab.mininet import inside

    inside.enter(keep=keep)
    from xlab.mininet.net import Mininet
    from xlab.mininet.replaced import install

    install()
    net = Mininet(topo, **options)
    try:
        net.start()
        yield net
    finally:
        net.stop()


def of_lab(lab: Lab) -> FoundNetwork:
    """A running lab as Mininet's objects; containers are hosts, "h1/c1", while they run.

    The lab stays the caller's: `stop()` ends the shells that were started.
    """
    from xlab.mininet.found import FoundNetwork
    from xlab.mininet.replaced import install

    install()
    return FoundNetwork(lab)
