"""Nodes as checks name them, and the addresses by which they are reached now."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from xlab.errors import XlabError, quoted
from xlab.kernel.namespaces import Namespaces
from xlab.kernel.netlink import Rtnl
from xlab.lab.docker import Container
from xlab.lab.lab import OUTSIDE, Host, Lab
from xlab.lab.node import Node

#: Of `ip netns`, ip-netns(8).
_NAMED = Path("/run/netns")
_IN_NETNS = re.compile(r"(\S+) netns (\S+)")
#: Docker's own bridge, which is not what a host is reached by.
_DOCKER0 = "docker0"
#: What says something of this process, and nothing of what it looked for.
_OUT_OF_MEANS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class AbsentError(XlabError):
    """What a check is about is not there: whoever was to make it has not."""


class NamedNamespace(Node):
    """What `ip netns add NAME` has made in a host; good for sockets, runs no programs."""

    def __init__(self, host: Host, name: str) -> None:  # it has its namespaces already
        self.name = self.hostname = f"{host.name} netns {name}"
        host.inhabited()
        try:
            with host.entered():
                # A pipe of that name would be waited for, a terminal become ours.
                how = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                opened = os.open(_NAMED / name, how)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in _OUT_OF_MEANS:
                raise
            raise AbsentError(f"there is no network namespace {name} in {host}") from error
        self.namespaces: Namespaces = dataclasses.replace(host.namespaces, net=opened)
        self._is_on = True
        self._address: IPv4Address | None = None
        try:
            with self.entered():
                self.rtnl = Rtnl()
        except OSError as error:
            os.close(opened)
            if error.errno in _OUT_OF_MEANS:
                raise
            raise AbsentError(f"{_NAMED / name} of {host} is no network namespace") from error

    def close(self) -> None:
        """Let go of it; it stays."""
        self.rtnl.close()
        os.close(self.namespaces.net)


def in_netns(arguments: Any) -> set[str]:
    """The names of such namespaces in what a check is given."""
    if isinstance(arguments, str):
        return {arguments} if _IN_NETNS.fullmatch(arguments) else set()
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    return set().union(*map(in_netns, arguments)) if isinstance(arguments, list) else set()


def find(lab: Lab, name: str, stack: ExitStack) -> Node:
    """The node of that name, its `address` being what it is reached by now, until `stack` ends.

    AbsentError if somebody was to make it; XlabError if no lab can have it.
    """
    if inside := _IN_NETNS.fullmatch(name):
        node: Node = stack.enter_context(closing(NamedNamespace(_host(lab, inside[1]), inside[2])))
    else:
        host, _, container = name.partition("/")
        try:
            node = lab[name]
        except KeyError:
            if not container:
                raise XlabError(f"no node is called {quoted(name)}") from None
            _host(lab, host)
            raise AbsentError(f"no container {container} runs on {host}") from None
    if not node.is_on:
        raise AbsentError(f"{name} is switched off")
    _settle(node)
    return node


def target(lab: Lab, name: str, stack: ExitStack) -> Node | IPv4Address:
    """The same, or an address."""
    with suppress(AddressValueError):
        return IPv4Address(name)
    node = find(lab, name, stack)
    require_address(node)
    return node


def owners(lab: Lab, address: IPv4Address) -> list[Node]:
    """Who has that address, on whichever interface; of the outside's none but the gateway."""
    if address == OUTSIDE:
        return [lab.gateway]
    return [node for node in lab.nodes if node.is_on and has(node, address)]


def has(node: Node, address: IPv4Address) -> bool:
    found = node.listed(["ip", "-json", "-4", "address", "show"])
    return any(each.get("local") == str(address)
               for device in found for each in device.get("addr_info", ()))  # fmt: skip


def require_address(node: Node) -> IPv4Address:
    """AbsentError if it has none."""
    try:
        return node.address
    except XlabError:
        raise AbsentError(f"{node} has no address") from None


def addresses(node: Node) -> dict[str, IPv4Address]:
    """The first of each interface but lo, in the kernel's order."""
    found = {}
    for device in node.interfaces():
        try:
            own = node.device_address(device) if device != "lo" else None
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            continue  # deleted a moment ago
        if own is not None:
            found[device] = own.ip
    return found


def _host(lab: Lab, name: str) -> Host:
    for host in lab.hosts:
        if host.name == name:
            return host
    raise XlabError(f"no host is called {quoted(name)}")


def _settle(node: Node) -> None:
    """What the node is reached by is what its interfaces have now, not what it was once given."""
    found = addresses(node)
    with suppress(XlabError):
        if node.address in found.values():
            return
    first = "ethwe" if isinstance(node, Container) else "eth0"
    usual = [found[first]] if first in found else []
    others = [own for device, own in found.items() if device != _DOCKER0]
    chosen = next(iter([*usual, *others]), None)
    if chosen is not None:
        node.prefer_address(chosen)
