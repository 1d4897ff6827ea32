"""Mininet's switches, and controllers.

A switch is a learning bridge of the kernel, whatever it is called: it needs no controller.  An
OVSSwitch becomes a real one where a program asks for what only that can (see `openvswitch`).
"""

from __future__ import annotations

import re
from typing import Any

from xlab.errors import CapabilityError
from xlab.mininet import machine as machines
from xlab.mininet import openvswitch
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
        self.machine.rtnl.now.add_bridge(self.name, group=group, up=False)
        if self.stp:
            self._switch_stp_on()
        with self.machine.rtnl.batch() as batch:
            for intf in self._data_ports():
                if intf not in self.spare:
                    batch.set_master(intf.port_name, self.name)
            batch.set_up(self.name)

    def stop(self, deleteIntfs: bool = True) -> None:
        """Take the bridge away."""
        if self._bridged:
            self.machine.rtnl.remove_link(self.name)
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

    def leave_out(self, intf: Any, spare: bool) -> bool:
        """Unplug an interface that is spare, plug in one that is not; whether that is a change."""
        if spare is (intf in self.spare):
            return False
        if spare:
            self.spare.add(intf)
        else:
            self.spare.discard(intf)
        self.replug(intf)
        return True

    def release(self, intf: Any) -> None:
        """What is a port is about to be cut: nothing to a bridge of the kernel."""

    def _plug(self, intf: Any, bridge: str | None) -> None:
        self.machine.rtnl.now.set_master(intf.port_name, bridge)

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
    """Forwards as a standalone Open vSwitch would, and is one once a program asks for that.

    Of Mininet's parameters `stp` and `protocols` count; whatever `failMode` says it forwards by
    itself.
    """

    OVSVersion = "2.0"

    def __init__(self, name: str, *arguments: Any, **params: Any) -> None:
        #: Open vSwitch's ports by our interfaces; None while it is a bridge of the kernel.
        self._real_ports: dict[Any, str] | None = None
        super().__init__(name, *arguments, **params)

    @classmethod
    def isOldOVS(cls) -> bool:
        return False

    def start(self, controllers: Any = ()) -> None:
        if openvswitch.is_provided():
            if not self._bridged:
                self._bridged = True
                self._add_real_bridge()
        else:
            super().start(controllers)
            openvswitch.followers.add(self)

    def stop(self, deleteIntfs: bool = True) -> None:
        openvswitch.followers.discard(self)
        if self._real_ports is not None:
            self._real_ports = None
            self._bridged = False
            openvswitch.vsctl("--if-exists", "del-br", self.name)
        super().stop(deleteIntfs)

    def become_real(self) -> None:
        """Open vSwitch takes the place of the kernel's bridge, with its address if it has one."""
        if not self._bridged or self._real_ports is not None:
            return
        address = machines.address_of(self.machine, self.name)
        self.machine.rtnl.now.delete_link(self.name)
        self._add_real_bridge()
        with self.machine.rtnl.batch() as batch:
            if address is not None:
                batch.add_address(self.name, address)
            batch.set_up(self.name)

    def dpctl(self, *arguments: Any) -> str:
        """`ovs-ofctl VERB SWITCH …`; CapabilityError if the machine has no Open vSwitch.

        What `del-flows` takes is learnt again, as with the controller that this switch does
        without: MAC addresses are forgotten, and the flow by which it learns is there again.
        """
        verb, *words = (str(word) for word in arguments)
        openvswitch.provide()
        said = self.cmd("ovs-ofctl", *self._protocols("-O"), verb, self.name, *words)
        if verb == "del-flows" and not words:
            self.forget_macs()
            said += self.cmd(
                "ovs-ofctl", *self._protocols("-O"), "add-flow", self.name,
                "priority=0,actions=NORMAL",
            )  # fmt: skip
        openvswitch.settle()
        return str(said)

    def connected(self) -> bool:
        if self._real_ports is None or not self.stp:
            return super().connected()
        shown = openvswitch.vsctl(
            "--bare", "--columns=status", "list", "port", *self._real_ports.values()
        )
        return "stp_state=listening" not in shown and "stp_state=learning" not in shown

    def forget_macs(self) -> None:
        if self._real_ports is None:
            super().forget_macs()
        else:
            openvswitch.appctl("fdb/flush", self.name)

    def release(self, intf: Any) -> None:
        """Let a port go before it is made a port of something else: two do not share one."""
        if self._real_ports is not None:
            self._plug(intf, None)

    def _plug(self, intf: Any, bridge: str | None) -> None:
        if self._real_ports is None:
            super()._plug(intf, bridge)
            return
        # A script may have added it by itself.
        words = ["--if-exists", "del-port", self._real_ports.pop(intf, intf.port_name)]
        if bridge is not None:
            words += ["--", *self._adding(intf)]
            self._real_ports[intf] = intf.port_name
        openvswitch.vsctl(*words)
        openvswitch.settle()

    def _add_real_bridge(self) -> None:
        settings = ["fail_mode=standalone", f"other_config:datapath-id={self.dpid}"]
        if openvswitch.in_user_space():
            settings.append("datapath_type=netdev")
        settings += self._protocols("protocols=")
        if self.stp:
            # The shortest there are, ovs-vswitchd.conf.db(5).
            settings += ["stp_enable=true", "other_config:stp-forward-delay=4",
                         "other_config:stp-hello-time=1", "other_config:stp-max-age=6"]  # fmt: skip
            settings += [f"other_config:stp-priority={self.prio}"] if self.prio else []
        words = ["--if-exists", "del-br", self.name, "--", "add-br", self.name]
        words += ["--", "set", "bridge", self.name, *settings]
        self._real_ports = {}
        for intf in self._data_ports():
            if intf not in self.spare:
                words += ["--", *self._adding(intf)]
                self._real_ports[intf] = intf.port_name
        openvswitch.vsctl(*words)
        self.machine.set_up(self.name)

    def _adding(self, intf: Any) -> list[str]:
        number, name = self.ports.get(intf), intf.port_name
        request = ["--", "set", "interface", name, f"ofport_request={number}"] if number else []
        return ["add-port", self.name, name, *request]

    def _protocols(self, option: str) -> list[str]:
        """ "OpenFlow13" and so on behind an option, if the switch was told which to speak."""
        protocols = self.params.get("protocols")
        return [f"{option}{protocols}"] if protocols else []


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

    _as_in_mininet = original.Controller.__init__

    def __init__(
        self, name: str, inNamespace: bool = False, *arguments: Any, **params: Any
    ) -> None:
        names = ("command", "cargs", "cdir", "ip", "port", "protocol")
        given = dict(zip(names, arguments, strict=False))
        super().__init__(name, inNamespace=inNamespace, **given, **params)

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
