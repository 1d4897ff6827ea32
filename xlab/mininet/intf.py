"""Mininet's interfaces on the lab's engine; what is set goes to the kernel by netlink.

Options of a Topo's link (bw, delay, jitter, loss, max_queue_size) hold whatever its class is;
Mininet itself looks at them in a TCLink alone.  As there, those of an interface are about what
leaves by it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from ipaddress import IPv4Interface
from typing import Any

from xlab.errors import CapabilityError, UsageError
from xlab.lab.conditions import LinkConditions, from_mininet
from xlab.mininet import machine as machines
from xlab.mininet.original import link as original

#: What a condition is called in Mininet.  Its use_hfsc, use_tbf and use_htb choose the means, and
#: that is the engine's choice here.
CONDITIONS = ("bw", "delay", "jitter", "loss", "max_queue_size", "latency_ms")
#: What a queue does with packets, which no other means does.
_QUEUE_DISCIPLINES = ("enable_ecn", "enable_red")
#: Mininet's options that switch an offload, and what ethtool calls it.
_OFFLOADS = {"gro": "gro", "txo": "tx", "rxo": "rx"}

#: Of every interface.
MTU = 1500


class Intf(original.Intf):
    """An interface; what is set goes to the kernel by netlink."""

    #: Of the attributes that Mininet's __init__ sets.
    name: str
    node: Any
    link: Any
    ip: str | None
    prefixLen: int | None
    mac: str | None

    def __init__(self, name: str, node: Any = None, port: int | None = None, **params: Any) -> None:
        self.conditions = LinkConditions()
        super().__init__(name, node=node, port=port, **params)

    @property
    def device(self) -> str:
        """What the kernel knows it by."""
        return self.name

    @property
    def port_name(self) -> str:
        """What is made a port of a switch: not the interface itself where its link has a joint."""
        imposed = self.link.imposed if self.link is not None else None
        return imposed.port if imposed and self.link.near is self else self.device

    # -- setting -----------------------------------------------------------------------------------

    def setIP(self, ipstr: str, prefixLen: int | None = None) -> str:
        """Give it this address instead of the one it has, and switch it on."""
        address, _, length = ipstr.partition("/")
        if not length and prefixLen is None:
            raise UsageError(f"{self.name}: no prefix length is set for the address {ipstr}")
        try:
            wanted = IPv4Interface(f"{address}/{length or prefixLen}")
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from error
        node = self.node.machine
        before = machines.address_of(node, self.device)
        with node.rtnl.batch() as batch:
            if before != wanted:
                if before is not None:
                    batch.delete_address(self.device, before)
                batch.add_address(self.device, wanted)
            batch.set_up(self.device)
        if not self.node.forwards and node is not machines.root():
            node.prefer_address(wanted.ip)
        self.ip, self.prefixLen = str(wanted.ip), wanted.network.prefixlen
        return ""

    def setMAC(self, macstr: str) -> str:
        refuse_malformed(self.name, macstr)
        self.node.machine.rtnl.now.set_mac(self.device, macstr)
        self.mac = macstr
        return ""

    def isUp(self, setUp: bool = False) -> bool:
        """Whether it is switched on; with `setUp`, switch it on."""
        if setUp:
            if self.node.machine is machines.root() and self.status() == "MISSING":
                raise CapabilityError(
                    f"{self.name}: no interface of the machine's is inside a sandbox"
                )
            self.node.machine.set_up(self.device)
            return True
        return machines.is_up(self.node.machine, self.device)

    def rename(self, newname: str) -> str:
        """Give it another name, which the node knows it by from now on."""
        node = self.node.machine
        with node.rtnl.batch() as batch:
            batch.set_down(self.device)
            batch.rename(self.device, newname)
            batch.set_up(newname)
        if self.node.nameToIntf.pop(self.name, None) is not None:
            self.node.nameToIntf[newname] = self
        self.name = newname
        return ""

    def ifconfig(self, *args: Any) -> str:
        """`ifconfig NAME …`; what it prints.  "up" and "down" need no such program."""
        words = " ".join(str(word) for word in args).split()
        if words == ["up"]:
            self.node.machine.set_up(self.device)
        elif words == ["down"]:
            self.node.machine.set_down(self.device)
        else:
            out, errors, _ = self.node.pexec(["ifconfig", self.device, *words])
            return str(out + errors)
        return ""

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ifconfig: str | None = None,
        up: bool | None = True,
        **params: Any,
    ) -> dict[str, Any]:
        """Set what is given; conditions among it replace those it has."""
        wanted = _wanted(self, params)
        results: dict[str, Any] = {}
        self.setParam(results, "setMAC", mac=mac)
        self.setParam(results, "setIP", ip=ip)
        # A link is made with both ends up.
        if up and self.device != "lo" and (self.link is None or self.link.complete):
            self.setParam(results, "isUp", up=True)
        elif up is False:
            self.node.machine.set_down(self.device)
        self.setParam(results, "ifconfig", ifconfig=ifconfig)
        self._switch_offloads(params)
        if wanted is not None:
            self.conditions = wanted
            if self.link is not None and self.link.complete:
                self.link.impose()
        return results

    def _switch_offloads(self, params: Mapping[str, Any]) -> None:
        for option, feature in _OFFLOADS.items():
            if params.get(option) is not None:
                state = "on" if params[option] else "off"
                complaint = machines.configure(
                    self.node.machine, "ethtool", "-K", self.device, feature, state
                )
                if complaint:
                    raise CapabilityError(f"{self.name}: {option}={params[option]}: {complaint}")

    def delete(self) -> None:
        """Take it away, and the other end of its link with it."""
        self.node.delIntf(self)
        if self.link is not None and self.link.gone:
            return
        if self.node.alive:
            self.node.machine.rtnl.remove_link(self.device)

    # -- asking ------------------------------------------------------------------------------------

    def updateIP(self) -> str | None:
        """The address the kernel has."""
        found = machines.address_of(self.node.machine, self.device)
        self.ip = str(found.ip) if found else None
        return self.ip

    def updateMAC(self) -> str | None:
        self.mac = machines.mac_of(self.node.machine, self.device)
        return self.mac

    def updateAddr(self) -> tuple[str | None, str | None]:
        return self.updateIP(), self.updateMAC()

    def status(self) -> str:
        """ "OK" if the kernel has it, else "MISSING"."""
        return "OK" if self.node.machine.rtnl.has(self.device) else "MISSING"


def refuse_malformed(interface: str, mac: object) -> None:
    """UsageError for a hardware address that is none; None asks for any."""
    if mac is not None and not re.fullmatch("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", str(mac)):
        raise UsageError(f"{interface}: {mac!r} is no hardware address such as 00:00:00:00:00:01")


def _wanted(intf: Intf, params: Mapping[str, Any]) -> LinkConditions | None:
    """The conditions among an interface's options; None without any.

    UsageError for what makes no sense, CapabilityError for a queue that no means here makes.
    """
    for discipline in _QUEUE_DISCIPLINES:
        if params.get(discipline):
            raise CapabilityError(f"{intf.name}: {discipline}: no such queue is made here")
    options = {key: params[key] for key in CONDITIONS if params.get(key) is not None}
    latency_ms = options.pop("latency_ms", None)
    if not options:
        return None
    if params.get("speedup") and intf.node.forwards:
        # Mininet's way to keep a rate of the host's end alone.
        options["bw"] = params["speedup"]
    wanted = from_mininet(options, str(intf.name))
    if latency_ms is None or not wanted.rate_bits_per_second:
        return wanted
    # How long the last packet in the queue may wait, tc-tbf(8).
    waiting_bytes = wanted.rate_bits_per_second / 8 * float(latency_ms) / 1e3
    return dataclasses.replace(wanted, max_queue_packets=max(1, round(waiting_bytes / MTU)))


class TCIntf(Intf):
    """Mininet's interface with conditions; every interface takes them here."""


class OVSIntf(Intf):
    """An end of a patch between two switches; a veth here as all others."""


class FoundIntf(Intf):
    """An interface that a lab has made, and takes away.

    `name` is Mininet's; the kernel's may be another.
    """

    def __init__(self, name: str, node: Any, *, device: str, link: Any = None) -> None:
        self._device = device
        super().__init__(name, node=node, link=link, moveIntfFn=lambda *_: None)

    @property
    def device(self) -> str:
        return self._device

    def config(self, *settings: Any, **params: Any) -> dict[str, Any]:
        """Addresses may be set; conditions are the lab's."""
        if any(params.get(key) is not None for key in CONDITIONS):
            raise UsageError(f"{self.name}: the conditions of this link belong to the lab")
        if len(settings) < 4:  # all of mac, ip, ifconfig and up
            params.setdefault("up", None)
        return super().config(*settings, **params)

    def IP(self) -> str | None:
        return self.updateIP()

    def MAC(self) -> str | None:
        return self.updateMAC()

    def updateIP(self) -> str | None:
        """The kernel's; of a host's first interface what the host is reached by.

        Docker on a bridge moves the host's address there, weave gives containers a second one.
        """
        reached: str | None = None if self.node.forwards else self.node.machine_address()
        if reached is not None and self.node.defaultIntf() is self:
            self.ip = reached
            return reached
        return super().updateIP()

    def delete(self) -> None:
        self.node.delIntf(self)
