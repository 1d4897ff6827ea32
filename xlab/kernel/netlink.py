"""rtnetlink, batched: the one module that packs kernel messages by hand.

pyroute2 takes 4 to 9 ms a host because it sends and parses one message at a time.  Here the
operations of a batch lie end to end in one buffer, the kernel runs them in order in one system
call, and only the last one asks for an acknowledgement: failures report themselves without being
asked.  What is not hot (dumps, queueing disciplines, bridge-port flags) goes through `ip`,
`bridge` and `tc` instead.

Layouts: linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h; rtnetlink(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from xlab.errors import NetlinkError
from xlab.kernel.clock import Deadline

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_DUMP = 0x200, 0x400, 0x300

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_TXQLEN, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_NET_NS_FD = 13, 16, 18, 27, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_MCAST_SNOOPING = 1, 5, 23
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
#: "up", and "dormant", which it is if somebody wants it so (`ip link set mode dormant`).
_OPER_SETTLED = b"\6", b"\5"
_RTNH_F_ONLINK = 4
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255

_SOL_NETLINK, _NETLINK_EXT_ACK, _NETLINK_CAP_ACK = 270, 11, 10
_NLMSGERR_ATTR_MSG = 1
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_SIOCGIFINDEX = 0x8933

#: Below the default send buffer (net.core.wmem_default, 212,992 bytes) with room to spare.
_FLUSH_AT_BYTES = 64 * 1024
#: Each failure is an answer of its own in the receive buffer; 300 of them overflow the default.
_FLUSH_AT_MESSAGES = 128

_LOOK_AGAIN_AFTER_S = 0.001


class Rtnl:
    """An rtnetlink socket of the network namespace its creating thread is in; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        # From now on the kernel takes no message for it from anybody but itself: root of a node may
        # send to any socket of the namespace (netlink_getsockbyportid, net/netlink/af_netlink.c).
        self._socket.connect((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sequence = 0
        self._lock = threading.Lock()
        #: Told of each operation that a batch has done, as the line for iproute2.
        self.tell: Callable[[str], None] | None = None

    def close(self) -> None:
        self._socket.close()

    def index(self, name: str) -> int:
        """The interface's index; raises NetlinkError(ENODEV) where there is none of that name."""
        request = struct.pack("16sI20x", os.fsencode(name), 0)
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, request)
        except OSError as error:
            raise NetlinkError(
                f"look up {name}", error.errno or 0, os.strerror(error.errno or 0)
            ) from None
        return int(struct.unpack_from("16xI", answer)[0])

    def has(self, name: str) -> bool:
        """Whether an interface of that name exists in this namespace."""
        try:
            self.index(name)
        except NetlinkError:
            return False
        return True

    def remove_link(self, name: str) -> None:
        """Delete an interface, if there is one.

        One end of a veth goes with the other, and that with its namespace, whenever the kernel
        comes to freeing it: to look first would not do.
        """
        try:
            self.now.delete_link(name)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise

    def forget_neighbours(self, *, by_hand: bool = False) -> None:
        """Delete the dynamic ARP entries of this namespace, `ip neigh flush all`.

        Those that somebody has made `by_hand`, too, if that is said: permanent or NOARP, which may
        be the kernel's own (of groups, say) and is made again when it is needed.
        """
        with self._lock:
            found = self._dump_neighbours()
        gone = []
        for index, state, address in found:
            if by_hand or not state & (_NUD_PERMANENT | _NUD_NOARP):
                body = struct.pack("=BxxxiHBB", socket.AF_INET, index, 0, 0, 0)
                body += _attribute(_NDA_DST, address)
                gone.append((_RTM_DELNEIGH, 0, body, f"ip neigh del {IPv4Address(address)}"))
        if gone:
            try:
                self.exchange(gone)
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # it expired by itself meanwhile
                    raise

    def _dump_neighbours(self) -> list[tuple[int, int, bytes]]:
        """(interface index, state, IPv4 address) of every ARP entry."""
        body = struct.pack("=BxxxiHBB", socket.AF_INET, 0, 0, 0, 0)
        found: list[tuple[int, int, bytes]] = []
        for message in self._dump(_RTM_GETNEIGH, body):
            if len(message) < 28:
                continue
            index, state = struct.unpack_from("=4xiH", message, 16)
            address = attributes_in(message[28:]).get(_NDA_DST, b"")
            if len(address) == 4:
                found.append((index, state, address))
        return found

    def wait_until_active(self, deadline: Deadline) -> None:
        """Wait until all veths here that have a carrier take packets, or until the deadline.

        The carrier is there as soon as the other end is up.  But the interface drops what is sent,
        and its bridge what comes in, until linkwatch_event has run: a work item that waits for a
        processor and for the lock of all links (net/core/link_watch.c).  Since Linux 6.8 it is done
        at once for an interface that one asks about (rtnl_getlink).  All are asked about, as the
        operational state is of the last time: of a link that went down and came up again since, it
        says nothing (and on an older kernel nothing does).
        """
        asked = list(self._veths_with_carrier())
        while True:
            for index in asked:
                with suppress(NetlinkError):  # it has gone meanwhile
                    self.exchange(
                        [(_RTM_GETLINK, 0, _ifinfo(index=index), f"ip link show {index}")]
                    )
            asked = self.inactive()
            if not asked or deadline.passed():
                return
            time.sleep(_LOOK_AGAIN_AFTER_S)

    def inactive(self) -> list[int]:
        """The indexes of veths here that are up and have a carrier, and of which the kernel tells
        another operational state yet, be it "unknown", as at first, or "down".
        """
        states = self._veths_with_carrier()
        return [index for index, state in states.items() if state not in _OPER_SETTLED]

    def _veths_with_carrier(self) -> dict[int, bytes | None]:
        """Their operational states, by index."""
        with self._lock:
            links = self._dump(_RTM_GETLINK, _ifinfo())
        return dict(found for link in links if (found := _veth_with_carrier(link)))

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        """The messages, with their headers, that answer a request for all there is of a kind."""
        self._sequence += 1
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        found: list[bytes] = []
        while True:
            for answer, flags, sequence, message in messages_in(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue  # of a dump that was interrupted
                if answer == _NLMSG_ERROR:
                    raise NetlinkError("list what there is", *error_in(message, flags))
                if answer == _NLMSG_DONE:
                    return found
                found.append(message)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Collect operations and run them on leaving; NetlinkError for the first that failed.

        The kernel goes on after a failed message: operations behind it have been tried as well.
        """
        batch = Batch(self)
        yield batch
        batch.flush()

    @property
    def now(self) -> Batch:
        """One operation, run at once: `rtnl.now.set_up("lo")`; NetlinkError if it fails."""
        return _AtOnce(self)

    def exchange(self, messages: list[tuple[int, int, bytes, str]]) -> None:
        """Send (type, flags, body, command) messages at once and wait until all have run."""
        # Threads that build hosts side by side share the socket of the switches' namespace.
        with self._lock:
            self._exchange(messages)

    def _exchange(self, messages: list[tuple[int, int, bytes, str]]) -> None:
        first = self._sequence + 1
        buffer = bytearray()
        last = len(messages) - 1
        for i, (kind, flags, body, _) in enumerate(messages):
            flags |= _NLM_F_REQUEST | (_NLM_F_ACK if i == last else 0)
            buffer += struct.pack("=IHHII", 16 + len(body), kind, flags, first + i, 0) + body
        self._sequence += len(messages)
        self._socket.send(buffer)
        failure: NetlinkError | None = None
        while True:
            for kind, flags, sequence, message in messages_in(self._socket.recv(65536)):
                if kind != _NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                code, reason = error_in(message, flags)
                if code and failure is None:
                    failure = NetlinkError(messages[sequence - first][3], code, reason)
                if sequence == self._sequence:
                    if failure:
                        raise failure
                    return


class Batch:
    """Operations waiting to be sent; interfaces are named, indexes are looked up when needed.

    Each knows the `ip` command that does the same: errors name it, and `Rtnl.tell` is told.
    """

    def __init__(self, rtnl: Rtnl) -> None:
        self._rtnl = rtnl
        self._messages: list[tuple[int, int, bytes, str]] = []
        self._bytes = 0

    def flush(self) -> None:
        """Run what has been collected so far."""
        messages, self._messages, self._bytes = self._messages, [], 0
        if messages:
            self._rtnl.exchange(messages)
        if self._rtnl.tell:
            for _, _, _, command in messages:
                self._rtnl.tell(command)

    # -- links -------------------------------------------------------------------------------------

    def add_veth(
        self,
        name: str,
        peer: str,
        *,
        peer_namespace: int | None = None,
        mtu: int | None = None,
        mac: str | None = None,
        peer_mac: str | None = None,
        master: str | None = None,
        group: int = 0,
        index: int = 0,
    ) -> None:
        """A veth pair: `name` here, up, and `peer` here or in `peer_namespace`.

        Where both ends happen to have the same number in their namespaces, the kernel takes up to a
        second to notice that the link is up (linkwatch_urgent_event): `index`, if not 0, is the
        number of `name`.
        The peer stays down: brought up while it is made, it has no other end yet (ENOTCONN).
        """
        size = b"" if mtu is None else _u32(_IFLA_MTU, mtu)
        # Both ends go into one message: the kernel makes the pair at once.
        far = _ifinfo() + _text(_IFLA_IFNAME, peer) + size + _ONE_QUEUE
        if peer_mac:
            far += _attribute(_IFLA_ADDRESS, _mac(peer_mac))
        if peer_namespace is not None:
            far += _u32(_IFLA_NET_NS_FD, peer_namespace)
        body = _ifinfo(index=index, up=True) + _text(_IFLA_IFNAME, name) + size + _ONE_QUEUE
        if mac:
            body += _attribute(_IFLA_ADDRESS, _mac(mac))
        if group:
            body += _u32(_IFLA_GROUP, group)
        if master:
            body += _u32(_IFLA_MASTER, self._index(master))
        body += _link_info("veth", _attribute(_VETH_INFO_PEER, far))
        command = _words(
            f"ip link add {name} up",
            ("address", mac),
            ("mtu", mtu),
            ("group", group),
            ("index", index),
            ("master", master),
            f"type veth peer name {peer}",
            ("address", peer_mac),
            ("mtu", mtu),
            ("netns", _path(peer_namespace)),
        )
        self._add(_RTM_NEWLINK, body, command, create=True)

    def add_bridge(
        self, name: str, *, mac: str | None = None, group: int = 0, up: bool = True
    ) -> None:
        """A Linux bridge without STP, forwarding at once, multicast flooded (no snooping)."""
        options = (
            _u32(_IFLA_BR_FORWARD_DELAY, 0)
            + _u32(_IFLA_BR_STP_STATE, 0)
            + _attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
        )
        body = _ifinfo(up=up) + _text(_IFLA_IFNAME, name)
        if mac:
            body += _attribute(_IFLA_ADDRESS, _mac(mac))
        if group:
            body += _u32(_IFLA_GROUP, group)
        command = _words(
            f"ip link add {name}",
            ("up", up),
            ("address", mac),
            ("group", group),
            "type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        )
        self._add(_RTM_NEWLINK, body + _link_info("bridge", options), command, create=True)

    def delete_link(self, name: str) -> None:
        self._add(_RTM_DELLINK, _ifinfo() + _text(_IFLA_IFNAME, name), f"ip link del {name}")

    def delete_group(self, group: int) -> None:
        """Delete all interfaces of a group at once.

        One by one each waits until no CPU can still be using it: 20 ms, a hundred of them 2 s.
        """
        self._add(_RTM_DELLINK, _ifinfo() + _u32(_IFLA_GROUP, group), f"ip link del group {group}")

    def set_up(self, name: str) -> None:
        self._add(
            _RTM_SETLINK, _ifinfo(up=True) + _text(_IFLA_IFNAME, name), f"ip link set {name} up"
        )

    def set_down(self, name: str) -> None:
        self._add(
            _RTM_SETLINK, _ifinfo(up=False) + _text(_IFLA_IFNAME, name), f"ip link set {name} down"
        )

    def set_mtu(self, name: str, mtu: int) -> None:
        self._set(name, _u32(_IFLA_MTU, mtu), f"ip link set {name} mtu {mtu}")

    def set_queue_length(self, name: str, packets: int) -> None:
        """How many packets may wait to be sent, `ip link set NAME txqueuelen PACKETS`."""
        self._set(name, _u32(_IFLA_TXQLEN, packets), f"ip link set {name} txqueuelen {packets}")

    def set_mac(self, name: str, mac: str) -> None:
        self._set(name, _attribute(_IFLA_ADDRESS, _mac(mac)), f"ip link set {name} address {mac}")

    def set_group(self, name: str, group: int) -> None:
        self._set(name, _u32(_IFLA_GROUP, group), f"ip link set {name} group {group}")

    def set_master(self, name: str, bridge: str | None) -> None:
        """Make `name` a port of `bridge`, or of none."""
        index = self._index(bridge) if bridge else 0
        to = f"master {bridge}" if bridge else "nomaster"
        self._set(name, _u32(_IFLA_MASTER, index), f"ip link set {name} {to}")

    def rename(self, name: str, new_name: str) -> None:
        """Older kernels rename an interface only while it is down."""
        body = _ifinfo(index=self._index(name)) + _text(_IFLA_IFNAME, new_name)
        self._add(_RTM_SETLINK, body, f"ip link set {name} name {new_name}")
        self.flush()

    def move(self, name: str, namespace: int, *, new_name: str | None = None) -> None:
        """Move an interface to the namespace of that descriptor, perhaps under a new name."""
        body = _ifinfo(index=self._index(name)) + _u32(_IFLA_NET_NS_FD, namespace)
        if new_name:
            body += _text(_IFLA_IFNAME, new_name)
        where = ("netns", _path(namespace))
        command = _words(f"ip link set {name}", where, ("name", new_name))
        self._add(_RTM_SETLINK, body, command)
        self.flush()

    # -- addresses, routes, neighbours -------------------------------------------------------------

    def add_address(self, name: str, address: IPv4Interface) -> None:
        broadcast = ("brd +", address.network.prefixlen < 31)
        command = _words(f"ip addr add {address}", broadcast, f"dev {name}")
        self._address(_RTM_NEWADDR, name, address, command, create=True)

    def delete_address(self, name: str, address: IPv4Interface) -> None:
        self._address(_RTM_DELADDR, name, address, f"ip addr del {address} dev {name}")

    def add_route(
        self,
        destination: IPv4Network,
        *,
        via: IPv4Address | None = None,
        device: str | None = None,
        onlink: bool = False,
    ) -> None:
        """As `ip route add DESTINATION [via VIA] [dev DEVICE] [onlink]`."""
        command = _words("ip route add", _route_text(destination, via, device), ("onlink", onlink))
        self._route(_RTM_NEWROUTE, destination, via, device, onlink, command, create=True)

    def delete_route(
        self,
        destination: IPv4Network,
        *,
        via: IPv4Address | None = None,
        device: str | None = None,
    ) -> None:
        command = _words("ip route del", _route_text(destination, via, device))
        self._route(_RTM_DELROUTE, destination, via, device, False, command)

    def add_neighbour(self, name: str, address: IPv4Address, mac: str) -> None:
        """A permanent ARP entry: exempt from the machine-wide limit on neighbours (gc_thresh3)."""
        body = struct.pack(
            "=BxxxiHBB", socket.AF_INET, self._index(name), _NUD_PERMANENT, 0, _RTN_UNICAST
        )
        body += _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, _mac(mac))
        command = f"ip neigh add {address} lladdr {mac} nud permanent dev {name}"
        self._add(_RTM_NEWNEIGH, body, command, create=True)

    # -- plumbing ----------------------------------------------------------------------------------

    def _address(
        self, kind: int, name: str, address: IPv4Interface, command: str, *, create: bool = False
    ) -> None:
        body = struct.pack(
            "=BBBBI", socket.AF_INET, address.network.prefixlen, 0, 0, self._index(name)
        )
        body += _attribute(_IFA_LOCAL, address.ip.packed)
        body += _attribute(_IFA_ADDRESS, address.ip.packed)
        if create and address.network.prefixlen < 31:
            body += _attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
        self._add(kind, body, command, create=create)

    def _route(
        self,
        kind: int,
        destination: IPv4Network,
        via: IPv4Address | None,
        device: str | None,
        onlink: bool,
        command: str,
        *,
        create: bool = False,
    ) -> None:
        scope = _RT_SCOPE_UNIVERSE if via else _RT_SCOPE_LINK
        if not create:
            scope = _RT_SCOPE_NOWHERE  # whatever it is, as iproute2 asks for it
        body = struct.pack(
            "=BBBBBBBBI",
            socket.AF_INET,
            destination.prefixlen,
            0,
            0,
            _RT_TABLE_MAIN,
            _RTPROT_BOOT if create else 0,
            scope,
            _RTN_UNICAST,
            _RTNH_F_ONLINK if onlink else 0,
        )
        if destination.prefixlen:
            body += _attribute(_RTA_DST, destination.network_address.packed)
        if via:
            body += _attribute(_RTA_GATEWAY, via.packed)
        if device:
            body += _u32(_RTA_OIF, self._index(device))
        self._add(kind, body, command, create=create)

    def _set(self, name: str, attributes: bytes, command: str) -> None:
        self._add(_RTM_SETLINK, _ifinfo() + _text(_IFLA_IFNAME, name) + attributes, command)

    def _add(self, kind: int, body: bytes, command: str, *, create: bool = False) -> None:
        flags = _NLM_F_CREATE | _NLM_F_EXCL if create else 0
        body += bytes(-len(body) % 4)
        self._messages.append((kind, flags, body, command))
        self._bytes += 16 + len(body)
        if self._bytes > _FLUSH_AT_BYTES or len(self._messages) >= _FLUSH_AT_MESSAGES:
            self.flush()

    def _index(self, name: str) -> int:
        """Look `name` up; an interface that this very batch makes exists once it was sent."""
        try:
            return self._rtnl.index(name)
        except NetlinkError:
            if not self._messages:
                raise
        self.flush()
        return self._rtnl.index(name)


class _AtOnce(Batch):
    """Sends what it is given, and waits."""

    def _add(self, kind: int, body: bytes, command: str, *, create: bool = False) -> None:
        super()._add(kind, body, command, create=create)
        self.flush()


def _ifinfo(*, index: int = 0, up: bool | None = None) -> bytes:
    change = 0 if up is None else _IFF_UP
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, change)


def _veth_with_carrier(link: bytes) -> tuple[int, bytes | None] | None:
    """Index and operational state, if what the kernel describes is a veth that has a carrier."""
    if len(link) < 32:
        return None
    index, flags = struct.unpack_from("=4xiI", link, 16)
    if flags & (_IFF_UP | _IFF_LOWER_UP) != _IFF_UP | _IFF_LOWER_UP:
        return None
    found = attributes_in(link[32:])
    kind = attributes_in(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    return (index, found.get(_IFLA_OPERSTATE)) if kind.rstrip(b"\0") == b"veth" else None


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


#: By default the kernel gives either end of a veth pair a queue for every CPU, and each queue its
#: folders in /sys: a third of what a pair costs on two CPUs, nearly all of it on many.  Packets
#: pass no queue without NAPI, which a veth has only where GRO is asked for (drivers/net/veth.c).
_ONE_QUEUE = _u32(_IFLA_NUM_TX_QUEUES, 1) + _u32(_IFLA_NUM_RX_QUEUES, 1)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, os.fsencode(value) + b"\0")


def _link_info(kind: str, data: bytes) -> bytes:
    return _attribute(
        _IFLA_LINKINFO, _text(_IFLA_INFO_KIND, kind) + _attribute(_IFLA_INFO_DATA, data)
    )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _words(*parts: str | tuple[str, object]) -> str:
    """A command: texts, and pairs of an option and its value; True for one that takes none."""
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(part)
        elif part[1]:
            found.append(part[0] if part[1] is True else f"{part[0]} {part[1]}")
    return " ".join(found)


def _path(namespace: int | None) -> str:
    """What `ip` takes for a namespace that is held by a descriptor."""
    return "" if namespace is None else f"/proc/self/fd/{namespace}"


def _route_text(destination: IPv4Network, via: IPv4Address | None, device: str | None) -> str:
    where = "default" if destination.prefixlen == 0 else str(destination)
    return _words(where, ("via", via), ("dev", device))


# -- what the kernel answers -----------------------------------------------------------------------


def messages_in(answer: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, message with its header) of each that is there as a whole."""
    offset = 0
    while offset + 16 <= len(answer):
        length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", answer, offset)
        if length < 16 or offset + length > len(answer):
            return
        yield kind, flags, sequence, answer[offset : offset + length]
        offset += (length + 3) & ~3


def attributes_in(data: bytes) -> dict[int, bytes]:
    """The attributes of a message, by type."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        # The two highest bits say "nested" and "in network order" (linux/netlink.h).
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def error_in(message: bytes, flags: int) -> tuple[int, str]:
    """(errno, reason) of an NLMSG_ERROR: the kernel's own sentence (extended ACK) if it sent one;
    errno 0 is an acknowledgement.
    """
    if len(message) < 20:
        return errno.EIO, "the kernel's answer is cut off"
    code = -struct.unpack_from("=i", message, 16)[0]
    text = b""
    if flags & _NLM_F_ACK_TLVS and len(message) >= 24:
        # Behind the error number stands the header of our request, its body left out (CAP_ACK).
        length = 16 if flags & _NLM_F_CAPPED else struct.unpack_from("=I", message, 20)[0]
        text = attributes_in(message[20 + length :]).get(_NLMSGERR_ATTR_MSG, b"")
    return code, text.rstrip(b"\0").decode(errors="replace") or os.strerror(code)
