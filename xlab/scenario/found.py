"""What is there on a host, whatever it is called and whoever made it.

    kernel        interfaces, their bridges and addresses, routes     by netlink
    Open vSwitch  bridges and ports                                   by OVSDB, over its socket
    Docker        bridge, range, containers that run                  from the daemon
    weave         who it is connected with                            from the router's report

No program of the host's own is asked: what it has under /usr is up to whoever is root there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from xlab.errors import XlabError
from xlab.lab import network
from xlab.lab.docker import DEFAULT_BRIDGE, Container
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.lab.ovs import Bridge, Port

#: A device as `network.devices` has it.
Device = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table."""

    destination: IPv4Network
    #: None of what is on the device's own network.
    via: IPv4Address | None
    #: "" of one that leads nowhere.
    device: str
    #: As `ip route` has it.
    text: str

    @property
    def is_default(self) -> bool:
        return self.destination.prefixlen == 0


@dataclass(frozen=True, slots=True)
class There:
    """A host as it is now."""

    host: Host
    #: What the cable is plugged into.
    nic: str
    devices: Mapping[str, Device]
    routes: Sequence[Route]
    #: Of Open vSwitch, but the one that is the network card of the userspace datapath.
    switches: Sequence[Bridge]
    #: Why there is nothing to be seen: it is down, a daemon of it is dead.
    trouble: str = ""

    def __str__(self) -> str:
        return self.host.name

    @property
    def addresses(self) -> dict[IPv4Address, str]:
        """Its addresses, and which device has each, the last if several have it."""
        return {
            IPv4Interface(own).ip: name
            for name, device in self.devices.items()
            for own in device["addresses"]
        }

    @property
    def address(self) -> IPv4Address | None:
        """What the other hosts know it by: the one it came with, wherever that is now.

        If nobody has that, the first of its network card or of the bridge the card is a port of.
        """
        with suppress(XlabError):
            if self.host.address in self.addresses:
                return self.host.address
        own = (self.bridge_of(self.nic), self.nic)
        return next((each for name in own for each in self.addresses_of(name)), None)

    def addresses_of(self, device: str) -> list[IPv4Address]:
        return [IPv4Interface(own).ip for own in self.devices.get(device, {}).get("addresses", ())]

    def is_up(self, device: str) -> bool:
        return bool(self.devices.get(device, {}).get("up"))

    def bridge_of(self, port: str) -> str:
        """The Linux bridge that it is a port of; "" without one."""
        master = str(self.devices.get(port, {}).get("bridge") or "")
        return master if self.devices.get(master, {}).get("kind") == "bridge" else ""

    def ports_of(self, bridge: str) -> list[str]:
        return [name for name in self.devices if bridge and self.bridge_of(name) == bridge]

    # -- Docker ------------------------------------------------------------------------------------

    @property
    def docker_bridge(self) -> str:
        """Where Docker plugs containers in; "" if it was never started."""
        return self.host.docker.bridge

    @property
    def docker_is_as_it_came(self) -> bool:
        return self.docker_bridge in ("", DEFAULT_BRIDGE) and not self.host.docker.options.bip

    def containers(self, interface: str) -> dict[Container, IPv4Interface]:
        """Those that run and have an address on that interface, which they are reached by."""
        found: dict[Container, IPv4Interface] = {}
        for container in self.host.containers if self.devices else ():
            with suppress(XlabError, OSError):  # it ends just now, or has no such interface
                own = container.device_address(interface)
                if own is not None:
                    found[container] = own
        return found

    # -- Open vSwitch ------------------------------------------------------------------------------

    def tunnels(self, kind: str) -> list[tuple[Bridge, Port]]:
        return [(each, port) for each in self.switches for port in each.ports if port.type == kind]

    def joints(self, switch: Bridge) -> dict[str, list[str]]:
        """The Linux bridges that a bridge of Open vSwitch is joined to, and by which devices.

        Its own port, or another of it, is a port there; or a veth leads from one to the other.
        """
        plugged = {port.name for port in switch.ports}
        found: dict[str, list[str]] = {}
        for name, device in self.devices.items():
            bridge, far = self.bridge_of(name), device["peer_here"]
            if bridge and (name in plugged or far in plugged):
                found[bridge] = [name] if name in plugged else [name, str(far)]
        return found

    # -- routes ------------------------------------------------------------------------------------

    def route_to(self, address: IPv4Address) -> Route | None:
        """The narrowest of its routes to an address."""
        fitting = [route for route in self.routes if address in route.destination]
        return max(fitting, key=lambda route: route.destination.prefixlen, default=None)


def look(lab: Lab, host: Host) -> There:
    """What is there on a host now; never raises for what its root may have done to it."""
    nic = lab.underlay.uplink_of(host.name).b.interface
    if not host.is_on:
        return There(host, nic, {}, (), (), trouble=f"{host} is down")
    try:
        devices = {device["name"]: device for device in network.devices(host)}
        switches = host.ovs.bridges() if host.runs_ovs else []
        own = [switch for switch in switches if switch.name != nic]
        return There(host, nic, devices, routes(host), own)
    except XlabError as error:
        return There(host, nic, {}, (), (), trouble=str(error))


def routes(node: Node) -> list[Route]:
    """Those of the main table, IPv4's."""
    shown = node.listed(["ip", "-4", "-j", "route", "show"])
    return [route for raw in shown for route in _routes(raw)]


def _routes(raw: Mapping[str, Any]) -> list[Route]:
    """One, or one a next hop."""
    to = str(raw.get("dst", ""))
    try:
        destination = IPv4Network("0.0.0.0/0" if to == "default" else to)
    except ValueError:
        return []
    kind = f"{raw['type']} " if raw.get("type", "unicast") != "unicast" else ""
    found = []
    for hop in raw.get("nexthops") or [raw]:
        device, gateway = str(hop.get("dev", "")), hop.get("gateway")
        said = [f"{kind}{to}"]
        said += [f"via {gateway}"] if gateway else []
        said += [f"dev {device}"] if device else []
        via = None
        with suppress(ValueError):
            via = IPv4Address(gateway) if gateway else None
        found.append(Route(destination, via, "" if kind else device, " ".join(said)))
    return found
