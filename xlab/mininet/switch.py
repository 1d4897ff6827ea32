"""Mininet's switches, and controllers.

A switch is a learning bridge of the kernel, whatever it is called: it needs no controller.
"""

from __future__ import annotations

import re
from typing import Any

from xlab.errors import CapabilityError
from xlab.mininet import machine as machines
from xlab.mininet.intf import Intf
from xlab.mininet.node import Node
from xlab.mininet.original import log
from xlab.mininet.original import node as original


class Switch(Node, original.Switch):
    """A learning bridge of the kernel.

    With `stp=True` it speaks the kernel's spanning tree protocol, and its ports open after 4 s.
    """

    forwards = True

    def __init__(
        self,
        name: str,
        dpid: str | None = None,
        opts: str = "",
        listenPort: int | None = None,
        **params: Any,
    ) -> None:
        super().__init__(name, **{"inNamespace": False, **params})
        self.stp = bool(params.get("stp", False))
        self.prio = params.get("prio")
        self.opts = opts
        self.listenPort = listenPort
        self.dpid = self.defaultDpid(dpid)
        self.controlIntf = None if self.inNamespace else Intf("lo", self, port=0)
        self._bridged = False
        #: Interfaces that stay unplugged: another way leads where they lead.
        self.spare: set[Any] = set()

    def start(self, _controllers: Any = ()) -> None:
        """Make the bridge, with all interfaces but those that have an address as its ports."""
        if self._bridged:
            return
        self._bridged = True
        group = next((i.link.group for i in self._data_ports() if i.link is not None), 0)
        with self.machine.rtnl.batch() as batch:
            batch.add_bridge(self.name, group=group, up=False)
        if self.stp:
            self._switch_stp_on()
        with self.machine.rtnl.batch() as batch:
            for intf in self._data_ports():
                if intf not in self.spare:
                    batch.set_master(intf.port_name, self.name)
            batch.set_up(self.name)

    def stop(self, deleteIntfs: bool = True) -> None:
        """Take the bridge away."""
        if self._bridged and self.machine.rtnl.has(self.name):
            with self.machine.rtnl.batch() as batch:
                batch.delete_link(self.name)
        self._bridged = False
        if deleteIntfs:
            self.deleteIntfs()

    def attach(self, intf: Any) -> None:
        """Make an interface, or the one of that name, a port."""
        self._plug(self.intf(intf), self.name)
        self.machine.set_up(str(self.intf(intf)))

    def detach(self, intf: Any) -> None:
        """The opposite of `attach`."""
        self._plug(self.intf(intf), None)

    def replug(self, intf: Any) -> None:
        """See to it that an interface is a port if it should be: its link has changed."""
        if self._bridged and intf in self._data_ports():
            self._plug(intf, None if intf in self.spare else self.name)

    def _plug(self, intf: Any, bridge: str | None) -> None:
        with self.machine.rtnl.batch() as batch:
            batch.set_master(intf.port_name, bridge)

    def connected(self) -> bool:
        """Whether it forwards: at once, or with STP when every port has found its role."""
        if not self.stp:
            return True
        shown = machines.inside(lambda: self.machine.configure(["bridge", "link", "show"]))
        ports = [line for line in shown.stdout.splitlines() if f" master {self.name} " in line]
        return all(
            re.search("state (forwarding|blocking)|NO-CARRIER|,DOWN", line) for line in ports
        )

    def forget_macs(self) -> None:
        """Forget which hosts are behind which port."""
        if self._bridged:
            machines.configure(
                self.machine, "ip", "link", "set", "dev", self.name, "type", "bridge", "fdb_flush"
            )

    def dpctl(self, *arguments: Any) -> str:
        """OpenFlow: CapabilityError."""
        raise CapabilityError(
            f"{self.name}: dpctl {' '.join(map(str, arguments))}: a switch is a learning bridge of "
            "the kernel here, without flows"
        )

    def _data_ports(self) -> list[Any]:
        return [i for i in self.intfList() if i.name != "lo" and not i.IP()]

    def _switch_stp_on(self) -> None:
        options = ["stp_state", "1", "forward_delay", "200", "hello_time", "100", "max_age", "600"]
        if self.prio:
            options += ["priority", str(self.prio)]
        complaint = machines.configure(
            self.machine, "ip", "link", "set", "dev", self.name, "type", "bridge", *options
        )
        if complaint:
            log.error(f"*** {self.name}: STP: {complaint}\n")


class LinuxBridge(Switch):
    """Mininet's name for what every switch is here."""


class OVSSwitch(Switch):
    """As a standalone Open vSwitch would forward; OpenFlow it does not speak."""

    OVSVersion = "2.0"

    @classmethod
    def isOldOVS(cls) -> bool:
        return False


OVSKernelSwitch = OVSSwitch


class OVSBridge(OVSSwitch):
    """A standalone Open vSwitch."""


class UserSwitch(Switch):
    """The reference user switch."""


class IVSSwitch(Switch):
    """The Indigo Virtual Switch."""


# -- controllers -----------------------------------------------------------------------------------


class Controller(Node, original.Controller):
    """Stands for a learning controller; there is nothing for it to do, so none is started."""

    def __init__(
        self,
        name: str,
        inNamespace: bool = False,
        command: str = "controller",
        ip: str = "127.0.0.1",
        port: int = 6653,
        protocol: str = "tcp",
        **params: Any,
    ) -> None:
        address, _, number = ip.partition(":")
        self.command = command
        self.ip = address
        self.port = int(number) if number else port
        self.protocol = protocol
        super().__init__(name, inNamespace=inNamespace, ip=address, **params)

    def checkListening(self) -> None:
        """Nothing listens."""

    def start(self) -> None:
        log.info("(not started: switches learn by themselves) ")

    def stop(self, *_: Any, **__: Any) -> None:
        self.terminate()

    @classmethod
    def isAvailable(cls) -> bool:
        return True


class OVSController(Controller):
    """Open vSwitch's test controller, a learning one."""


class RemoteController(Controller):
    """Refused: what it would decide is not known here, and bridges would do otherwise."""

    def __init__(self, name: str, *_: Any, **__: Any) -> None:
        raise CapabilityError(
            f"{name}: switches here are learning bridges, which no controller can program",
            "use controller=None if plain forwarding is what is wanted",
        )


class NOX(RemoteController):
    """Refused, as RemoteController."""


class Ryu(RemoteController):
    """Refused, as RemoteController."""


def default_controller(name: str, *_: Any, **params: Any) -> Controller:
    """Mininet's DefaultController."""
    return Controller(name, **params)
