"""A lab that stays as Mininet's objects, in a process of the caller's own.

    caller ── goes into the sandbox (its terminal comes along) ── Mininet's command line
                 nodes: namespaces handed over by the lab's controller, sockets of our own in them

What is done here is done to the running lab; the controller is asked who is there.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, cast

from xlab.errors import UsageError
from xlab.kernel import namespaces, reaping, sysctls
from xlab.kernel.namespaces import Namespaces
from xlab.kernel.netlink import Rtnl
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.lab.underlay import GATEWAY, Underlay
from xlab.mininet import machine as machines
from xlab.mininet.found import FoundNetwork
from xlab.outside.running_lab import RunningLab
from xlab.record import record
from xlab.sandbox import sandbox

#: The node that the switches are in.
WIRE = "wire"


def command_line(lab: RunningLab, *, ended: Callable[[int], object] = lambda _: None) -> int:
    """Mininet's command line on a lab, until its user leaves it; returns the exit status.

    What returns is another process than what called: the caller's waits outside, calls `ended` with
    the status and ends with it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    doors = lab.enter("", inhabited=False)
    if doors.limits:
        # A program of a node's would be a child of ours, on our terminal.
        doors.close()
        lab.close()
        raise UsageError(
            f"{lab.name} is a lab of strangers' work: only `xlab shell` and `xlab exec` go in"
        )
    sandbox.go_inside(doors.opened, [sandbox.current_folder()], ended=ended)
    reaping.reap_only_own()
    # Each Ctrl-C is for what runs in a node, and no command of ours ends with the first.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from xlab.mininet.cli import CLI
    from xlab.mininet.replaced import install

    install()
    with AttachedNetwork(cast("Lab", AttachedLab(lab))) as net:
        CLI(net)
    return 0


class AttachedNode(Node):
    """A node whose namespaces the controller holds, and hands over."""

    def __init__(self, lab: RunningLab, name: str, address: str | None = None) -> None:
        self._lab = lab
        super().__init__(name)
        if address is not None:
            self.prefer_address(IPv4Address(address))

    def boot(self) -> None:
        self._take(inhabited=False)
        with namespaces.entered(self.namespaces):
            self._settings = sysctls.open_folder()
            self.rtnl = Rtnl()
        self._address = None
        self._furnished = self._is_on = True
        self._init = None

    def inhabited(self) -> Namespaces:
        """Asked for anew each time: processes and mounts may be others than before."""
        before = self.namespaces
        self._take(inhabited=True)
        before.close()
        return self.namespaces

    def _take(self, *, inhabited: bool) -> None:
        opened = dict(self._lab.enter(self.name, inhabited=inhabited).opened)
        self.namespaces = Namespaces(**{kind: opened.pop(kind) for kind in _NAMESPACES})
        for descriptor in opened.values():
            os.close(descriptor)


_NAMESPACES = ("net", "uts", "mnt", "pid")


class AttachedContainer(AttachedNode):
    """A container while it runs; started again it is another one."""

    def __init__(self, lab: RunningLab, host: AttachedHost, facts: Mapping[str, Any]) -> None:
        super().__init__(lab, facts["name"], facts["address"])
        self.host = host
        self.host_interface = facts["host_interface"]


class AttachedHost(AttachedNode):
    containers: Sequence[AttachedContainer] = ()


class AttachedLab:
    """What Mininet's objects need of a `Lab`."""

    def __init__(self, lab: RunningLab) -> None:
        self._lab = lab
        facts = lab.describe()
        known = {node["name"]: node["address"] for node in facts["nodes"]}
        self.underlay = record.decode(Underlay, facts["underlay"], "underlay")
        self.wire = AttachedNode(lab, WIRE)
        self.gateway = AttachedNode(lab, GATEWAY, known[GATEWAY])
        self.hosts = [AttachedHost(lab, name, known[name]) for name in self.underlay.hosts]
        self._containers: dict[str, AttachedContainer] = {}
        self.look()

    def look(self) -> None:
        """See which containers run now."""
        found = {}
        for facts in self._lab.describe()["nodes"]:
            if facts["kind"] == "container" and facts["up"]:
                found[facts["host_interface"]] = facts
        for gone in self._containers.keys() - found.keys():
            del self._containers[gone]
        owners = {host.name: host for host in self.hosts}
        for interface, facts in found.items():
            if interface not in self._containers:
                host = owners[facts["name"].partition("/")[0]]
                self._containers[interface] = machines.inside(
                    functools.partial(AttachedContainer, self._lab, host, facts)
                )
        for host in self.hosts:
            host.containers = [c for c in self._containers.values() if c.host is host]

    def fault(self, order: str) -> None:
        """See `Verbs.fault`: it is known to all who ask, and mended from anywhere."""
        self._lab.call("fault", {"order": order})


class AttachedNetwork(FoundNetwork):
    """The lab as Mininet's objects."""

    #: An `AttachedLab`.
    lab: Any

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """`link s1 h1 down` is the lab's fault `link h1 down`, and `up` its cure."""
        links = self.lab.underlay
        for link in (*links.uplinks, *links.trunks):
            if {src, dst} == {link.a.node, link.b.node}:
                name = link.b.node if link in links.uplinks else f"{src}-{dst}"
                self.lab.fault(f"link {name} {status}")
                return
        super().configLinkStatus(src, dst, status)  # which says what is wrong

    def _look_for_containers(self) -> None:
        self.lab.look()
        super()._look_for_containers()
