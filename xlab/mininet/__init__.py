"""Mininet's API on the lab's engine: in a sandbox, without root, controller-less.

    python -m xlab.mininet script.py                a Mininet script, as it is

    with xlab.mininet.network(topo) as net:         any Topo, built and started
        net["h1"].cmd("ip address")
        net.pingAll()

    with xlab.mininet.scenario("weave", hosts=3) as net:
        net["h1/c1"].cmd("ping -c1", net["h3/c1"].IP())

    net = xlab.mininet.of_lab(lab)                  a lab of the engine, in its sandbox

Whatever is imported from here runs inside a sandbox; `network` and `scenario` move the caller into
one.
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
    with Mininet(topo, **options) as net:
        net.start()
        yield net


@contextmanager
def scenario(name: str, *, keep: Sequence[Path] = (), **asked: Any) -> Iterator[FoundNetwork]:
    """A scenario's lab, built and checked, as Mininet's objects; containers are hosts, "h1/c1".

    `name` is one of the catalog's or a scenario file; `asked` are fields of
    `xlab.scenario.request.Request`, such as hosts, containers, topo, delay_ms.  `net.claims` says
    what held when it was built.  Raises UsageError for what makes no sense, CapabilityError for
    what this machine can't.

    Outside of a sandbox the program goes on inside one, as with `network`.
    """
    from xlab.mininet import inside
    from xlab.scenario import blueprint
    from xlab.scenario.request import Request

    design = blueprint.design(Request(name, **asked))
    inside.enter(keep=keep)
    from xlab.mininet.found import built
    from xlab.mininet.replaced import install

    install()
    with built(design) as net:
        yield net


def of_lab(lab: Lab) -> FoundNetwork:
    """A running lab as Mininet's objects; containers are hosts, "h1/c1", while they run.

    The lab stays the caller's: `stop()` ends the shells that were started.
    """
    from xlab.mininet.found import FoundNetwork
    from xlab.mininet.replaced import install

    install()
    return FoundNetwork(lab)
