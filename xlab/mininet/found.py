"""A lab of the engine, running, as Mininet's objects; with a scenario built on it or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xlab.kernel.capabilities import probe
from xlab.lab.lab import Lab
from xlab.lab.underlay import GATEWAY, Link
from xlab.mininet import machine as machines
from xlab.mininet.link import FoundLink
from xlab.mininet.net import Mininet
from xlab.mininet.node import Host
from xlab.mininet.switch import Switch
from xlab.record.record import Claim
from xlab.scenario import blueprint
from xlab.scenario.claims import Checks


class FoundSwitch(Switch):
    """A switch of a lab."""

    def start(self, _controllers: Any = ()) -> None:
        self.machine.set_up(self.name)

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: ARG002
        """It stays, and forwards nothing until it is started again."""
        self.machine.set_down(self.name)


class FoundNetwork(Mininet):
    """The hosts, switches and containers of a lab, which the lab goes on to own.

    Interfaces bear Mininet's names: `h1-eth0` is another name of the kernel's for h1's eth0.  The
    gateway is a node, `net["gw"]`, but none of `net.hosts`.
    """

    of_a_lab = True

    def __init__(self, lab: Lab, claims: Sequence[Claim] = ()) -> None:
        super().__init__(build=False)
        self.lab = lab
        #: What was checked when the scenario was built, if one was.
        self.claims = claims
        self.built = True
        self.switches = [FoundSwitch(name, machine=lab.wire) for name in lab.underlay.switches]
        self.hosts = [Host(host.name, machine=host) for host in lab.hosts]
        gateway = Host(GATEWAY, machine=lab.gateway)
        self.nameToNode = {node.name: node for node in (*self.switches, *self.hosts, gateway)}
        for link in (*lab.underlay.uplinks, *lab.underlay.trunks):
            self._find(link)

    def _find(self, link: Link) -> None:
        switch, other = self.nameToNode[link.a.node], self.nameToNode[link.b.node]
        name = link.b.interface
        if not other.forwards:
            name = f"{other.name}-{name}"
            machines.configure(
                other.machine, "ip", "link", "property", "add", "dev", link.b.interface,
                "altname", name,
            )  # fmt: skip
        near, far = (switch, link.a.interface), (other, link.b.interface)
        self.links.append(FoundLink(near, far, names=(link.a.interface, name)))

    def start(self) -> None:
        """It runs."""

    def stop(self) -> None:
        """End the shells; the lab stays."""
        for node in self.values():
            node.terminate()

    def _look_for_loops(self) -> None:
        """A lab has none."""

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield GATEWAY


@contextmanager
def built(design: blueprint.Design) -> Iterator[FoundNetwork]:
    """A network for as long as the context lasts: the lab of the design, its scenario built on it.

    Raises CapabilityError for what this machine can't, and what the scenario's `build` raises.
    """
    equipped = blueprint.equip(design, probe(inside=True))
    lab = machines.inside(equipped.wire)
    checks = Checks(lab, lambda _: None)
    try:
        machines.inside(lambda: equipped.build(lab, checks))
        net = FoundNetwork(lab, checks.claims)
        yield net
        net.stop()
    finally:
        machines.inside(lambda: _close(lab))


def _close(lab: Lab) -> None:
    for node in (*lab.containers, *lab.hosts, lab.gateway, lab.wire):
        node.close()
