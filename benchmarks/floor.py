"""The least that a lab of hosts on one switch can cost: the kernel's own work and nothing else.

    s1 ── s1-h1/eth0 ── a network namespace, 10.0.0.1/16
       └─ s1-h2/eth0 ── another,             10.0.0.2/16 …

For each host: unshare(2), a veth pair, an address, both ends up.  Every message is packed before
the clock starts, interface indexes are chosen by us so that nothing is looked up, many veth pairs
share one buffer, and only the last message of a buffer asks for an answer.  What is known to be
dear is left out: queues for every CPU, multicast snooping, a bridge that is up while ports join.
No name, no route, no setting, no `lo`: what a person would miss in a lab is missing here.

Layouts: linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h.  This module packs its own messages
rather than xlab's, so that it stays a yardstick for them.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Address

from xlab.kernel import syscalls

PREFIX_LENGTH = 16
_FIRST_ADDRESS = IPv4Address("10.0.0.1")

_NLMSG_ERROR = 2
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEWLINK, _SETLINK, _NEWADDR = 16, 19, 20
_IFNAME, _MASTER, _LINKINFO, _NET_NS_FD = 3, 10, 18, 28
_TX_QUEUES, _RX_QUEUES, _SNOOPING = 31, 32, 23
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_LOCAL, _ADDRESS = 2, 1
_UP = 1

#: Beyond any that a new namespace has by itself (lo, and tunnels' fallback devices).
_INDEX = 1000
#: Messages a buffer: well inside the default send buffer.
_BUFFERED = 128


class Floor:
    """The messages for `hosts` hosts, and what comes of sending them."""

    def __init__(self, hosts: int) -> None:
        self._bridge = message(_NEWLINK, _bridge(), create=True, last=True)
        self._bridge_up = message(_SETLINK, link(_INDEX, _UP), last=True)
        self._veths = [veth_buffer(chunk) for chunk in chunks(hosts, _BUFFERED)]
        self._addresses = [address_buffer(address(i)) for i in range(hosts)]
        #: Descriptors of the hosts' network namespaces.
        self.namespaces: list[int] = []

    def build(self) -> float:
        """Make all of it from the calling thread; returns seconds.

        Raises OSError with the kernel's error for the first message that it refused.
        """
        begun = time.monotonic()
        wire = _socket()
        home = _namespace()
        sockets = []
        for _ in self._addresses:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            self.namespaces.append(_namespace())
            sockets.append(_socket())
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        exchange(wire, self._bridge)
        first = 0
        for buffer, places in self._veths:
            for place, namespace in zip(places, self.namespaces[first:], strict=False):
                struct.pack_into("=I", buffer, place, namespace)
            exchange(wire, buffer)
            first += len(places)
        exchange(wire, self._bridge_up)
        for own, messages in zip(sockets, self._addresses, strict=True):
            exchange(own, messages)
        took_s = time.monotonic() - begun
        for own in (wire, *sockets):
            own.close()
        os.close(home)
        return took_s


def address(host: int) -> IPv4Address:
    """The address of a host, counted from 0."""
    return _FIRST_ADDRESS + host


def chunks(count: int, most: int) -> list[range]:
    """0 to `count` in ranges of at most `most`."""
    return [range(start, min(start + most, count)) for start in range(0, count, most)]


def veth_buffer(hosts: Sequence[int]) -> tuple[bytearray, list[int]]:
    """The veth pairs of `hosts` in one buffer, and where each namespace's descriptor belongs."""
    buffer, places = bytearray(), []
    for host in hosts:
        body, place = _veth(host)
        # 16 bytes of header stand before the body.
        places.append(len(buffer) + 16 + place)
        buffer += message(_NEWLINK, body, create=True, last=host == hosts[-1])
    return buffer, places


def address_buffer(own: IPv4Address) -> bytes:
    """eth0 gets `own` and comes up."""
    body = struct.pack("=BBBBI", socket.AF_INET, PREFIX_LENGTH, 0, 0, _INDEX)
    body += attribute(_LOCAL, own.packed) + attribute(_ADDRESS, own.packed)
    return message(_NEWADDR, body, create=True) + message(_SETLINK, link(_INDEX, _UP), last=True)


def _bridge() -> bytes:
    options = attribute(_INFO_DATA, attribute(_SNOOPING, b"\0"))
    return (
        link(_INDEX)
        + attribute(_IFNAME, b"s1\0")
        + attribute(_LINKINFO, attribute(_INFO_KIND, b"bridge\0") + options)
    )


def _veth(host: int) -> tuple[bytes, int]:
    one = struct.pack("=I", 1)
    queues = attribute(_TX_QUEUES, one) + attribute(_RX_QUEUES, one)
    far = link(_INDEX) + attribute(_IFNAME, b"eth0\0") + queues + attribute(_NET_NS_FD, bytes(4))
    # The kernel takes the far end's index only together with one for the near end.
    near = link(_INDEX + 1 + host, _UP) + attribute(_IFNAME, f"s1-h{host + 1}\0".encode())
    near += queues + attribute(_MASTER, struct.pack("=I", _INDEX))
    body = near + attribute(
        _LINKINFO,
        attribute(_INFO_KIND, b"veth\0") + attribute(_INFO_DATA, attribute(_VETH_PEER, far)),
    )
    # The descriptor is the last thing in the last attribute of all.
    return body, len(body) - 4


def message(kind: int, body: bytes, *, create: bool = False, last: bool = False) -> bytes:
    """One netlink message; failures are answered with or without `last`, success only with it."""
    flags = _REQUEST | (_CREATE | _EXCL if create else 0) | (_ACK if last else 0)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def link(index: int, flags: int = 0) -> bytes:
    """struct ifinfomsg: `flags` are those to switch on."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def attribute(kind: int, payload: bytes) -> bytes:
    """struct nlattr, padded to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def exchange(netlink: socket.socket, buffer: bytes | bytearray) -> None:
    """Send the messages of `buffer` and wait for the answer to the last; OSError if one failed."""
    netlink.send(buffer)
    kind, code = struct.unpack_from("=4xH10xi", netlink.recv(8192))
    if kind != _NLMSG_ERROR or code:
        raise OSError(-code, os.strerror(-code))


def _socket() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )


def _namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
