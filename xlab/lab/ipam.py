"""The address allocator of Docker's default bridge: which address the next container gets.

    subnet      10.211.55.0/24   from the bridge's address, else --fixed-cidr, else 172.17.0.0/16
    range       .64 ... .127     --fixed-cidr, else the whole subnet
    reserved    .0 .255          network and broadcast address of the *subnet*, not of the range
                .3               the bridge itself
                .1               --default-gateway

The lowest free address of the range comes next, so a freed address is handed out again at once.
Pure: neither asks the kernel nor probes the wire, exactly like Docker, which hands out an address
that another machine of the segment already uses.

Measured on dockerd 26.1.5: tests/data/docker-ipam.json holds every case.  Where version 28 differs
its source says so (getDefaultBridgeIPAMConf and GenerateRandomMAC in moby).
"""

from __future__ import annotations

import heapq
import random
import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal

from xlab.errors import DockerError

Version = Literal[26, 28]

DEFAULT_BRIDGE = IPv4Interface("172.17.0.1/16")

_START = "failed to start daemon: "
_CONTROLLER = f"{_START}Error initializing network controller: "
_DEFAULT_NETWORK = f'{_CONTROLLER}error creating default "bridge" network: '


class BridgePool:
    """The addresses of one bridge.  Not for use by two threads at once."""

    def __init__(
        self,
        bridge: IPv4Interface | None,
        *,
        fixed_cidr: str | None = None,
        default_gateway: str | None = None,
        version: Version = 26,
    ) -> None:
        """The pool that dockerd makes at start, from its options as typed.

        `bridge` is the address found on the bridge, or --bip; None when the bridge has none: then
        `bridge_address` is what Docker assigns to it.  Raises DockerError in dockerd's own words.
        """
        allocatable = _parse_fixed_cidr(fixed_cidr)
        if bridge is None:
            subnet = allocatable or DEFAULT_BRIDGE.network
            first_usable = subnet[1 if _ends(subnet) else 0]
            bridge = IPv4Interface((first_usable, subnet.prefixlen))
        elif allocatable and version >= 28 and not _lies_in(fixed_cidr, bridge.network):
            allocatable = None
        self.bridge_address = bridge
        #: Its prefix length, not the fixed-cidr's, is what a container's address comes with.
        self.subnet = bridge.network
        #: What containers use as their default route.
        self.gateway = _parse_gateway(default_gateway, bridge)
        # libnetwork keeps one bitmap for the subnet and addresses it by host part, so a range that
        # lies outside becomes an offset into the subnet, and a larger one the whole of it.
        laid_over = allocatable or self.subnet
        base, host_mask = int(self.subnet.network_address), int(self.subnet.hostmask)
        self.first = IPv4Address(base | int(laid_over.network_address) & host_mask)
        self.last = IPv4Address(base | int(laid_over.broadcast_address) & host_mask)
        self._reserved = {int(bridge.ip), int(self.gateway)} | _ends(self.subnet)
        self._held: set[int] = set()
        # Every address below `_next` is held, reserved, or in the heap of released ones: the lowest
        # free address is the top of the heap, and without one it is found by moving on.
        self._next = int(self.first)
        self._released: list[int] = []

    def allocate(self, network_id: str) -> IPv4Address:
        """Hand out the lowest free address; O(log n).

        Raises DockerError (exit code 125) when none is left; `network_id`, the bridge network's 64
        hexadecimal digits, is part of its text.
        """
        if self._released:
            number = heapq.heappop(self._released)
        else:
            while self._next in self._reserved:
                self._next += 1
            if self._next > int(self.last):
                raise DockerError(
                    "Error response from daemon: no available IPv4 addresses on this network's "
                    f"address pools: bridge ({network_id})",
                    exit_code=125,
                )
            number = self._next
            self._next += 1
        self._held.add(number)
        return IPv4Address(number)

    def release(self, address: IPv4Address) -> None:
        """Take back what `allocate` gave; ValueError for any other address.

        Docker does this when the container stops, exits or is killed, not when it is removed.
        """
        number = int(address)
        if number not in self._held:
            raise ValueError(f"{address} is not held")
        self._held.remove(number)
        heapq.heappush(self._released, number)


def mac_address(address: IPv4Address) -> str:
    """The MAC that Docker before 28 gives a container: 10.211.55.64 has 02:42:0a:d3:37:40."""
    return (b"\x02\x42" + address.packed).hex(":")


def random_mac(generator: random.Random) -> str:
    """The MAC that Docker from 28 on gives a container: random, unicast, locally administered."""
    octets = bytearray(generator.randbytes(6))
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")


def run_error(error: DockerError) -> DockerError:
    """The daemon's refusal as `docker run` prints it (`docker start` prints it bare)."""
    return DockerError(f"docker: {error}.", exit_code=125)


def missing_bridge(name: str) -> DockerError:
    """`-b NAME` for an interface that does not exist."""
    return DockerError(
        f"{_DEFAULT_NETWORK}bridge device with non default name {name} must be created manually"
    )


def bridge_and_bip() -> DockerError:
    """`-b` together with `--bip`."""
    return DockerError(
        f"{_START}You specified -b & --bip, mutually exclusive options. Please specify only one"
    )


def parse_bip(text: str) -> IPv4Interface:
    """The value of --bip, `ADDRESS/LENGTH`; raises DockerError as dockerd words it."""
    address, length = _split_cidr(text)
    if not isinstance(address, IPv4Address):
        raise DockerError(f"{_CONTROLLER}invalid CIDR address: {text}")
    return IPv4Interface((address, length))


def _parse_fixed_cidr(text: str | None) -> IPv4Network | None:
    """Host bits are masked: 10.211.55.70/26 is the range from .64."""
    if not text:
        return None
    network = ip_network(_split_cidr(text), strict=False)
    if isinstance(network, IPv6Network):
        raise DockerError(
            f"{_DEFAULT_NETWORK}pool and subpool are of incompatible address families"
        )
    return network


def _split_cidr(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Go's net.ParseCIDR: always a decimal length, never a netmask or a zone."""
    address, slash, length = text.partition("/")
    try:
        if not slash or "%" in address or not re.fullmatch("[0-9]{1,8}", length):
            raise ValueError
        parsed = ip_address(address)
        if int(length) > parsed.max_prefixlen:
            raise ValueError
    except ValueError:
        raise DockerError(f"{_CONTROLLER}invalid CIDR address: {text}") from None
    return parsed, int(length)


def _parse_gateway(text: str | None, bridge: IPv4Interface) -> IPv4Address:
    if not text:
        return bridge.ip
    try:
        gateway = ip_address(text)
    except ValueError:
        raise DockerError(
            f'invalid argument "{text}" for "--default-gateway" flag: failed to parse IP: "{text}"'
        ) from None
    if not isinstance(gateway, IPv4Address) or gateway not in bridge.network:
        raise DockerError(
            f"{_DEFAULT_NETWORK}auxiliary address: (DefaultGatewayIPv4:{gateway}) must belong to "
            f"the master pool: {bridge.network}"
        )
    # Not among the measured cases: from ipamAllocateVersion in libnetwork, which reserves the
    # bridge's own address first.
    if int(gateway) in {int(bridge.ip)} | _ends(bridge.network):
        raise DockerError(
            f"{_DEFAULT_NETWORK}failed to allocate secondary ip address "
            f"(DefaultGatewayIPv4:{gateway}): Address already in use"
        )
    return gateway


def _lies_in(fixed_cidr: str | None, subnet: IPv4Network) -> bool:
    """Version 28's test, on the address as typed: outside or larger, the range is dropped."""
    address, length = _split_cidr(fixed_cidr or "")
    return address in subnet and length >= subnet.prefixlen


def _ends(subnet: IPv4Network) -> set[int]:
    """Network and broadcast address; a /31 or /32 has neither (newPoolData in libnetwork)."""
    if subnet.prefixlen >= 31:
        return set()
    return {int(subnet.network_address), int(subnet.broadcast_address)}
