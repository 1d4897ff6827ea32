"""The router's end of the weave bridge: a TAP device, or a veth where there is none.

With virtio headers the kernel hands over frames whose checksum it left to the hardware, and TCP
segments of 64 KB that the hardware would cut; and it takes the like.  `complete_checksum` does the
one for single frames, `xlab.weave.segments` the other.

Layouts: linux/virtio_net.h, linux/if_tun.h, linux/if_packet.h; packet(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple

from xlab.errors import CapabilityError, NetlinkError, XlabError
from xlab.kernel.netlink import Rtnl
from xlab.kernel.packets import checksum
from xlab.weave.udp import enlarge_buffers

# -- the device ------------------------------------------------------------------------------------

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x4000, 0x8000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02

#: The device itself never limits a packet: what fits is decided for each neighbour.
_LARGEST_MTU = 65521
#: Frames waiting to be read; 1000, the default, would be 64 MB of TCP segments.
_QUEUE_FRAMES = 256

#: The largest packet: a virtio header before 64 KB of IPv4 in Ethernet, with a VLAN tag or two.
LARGEST_PACKET_BYTES = 10 + 14 + 8 + 65535
#: What buffers must hold: the largest packet, filled up to whole pieces of any size.
BUFFER_BYTES = 2 * LARGEST_PACKET_BYTES


def open_device(name: str) -> Tap | Veth:
    """A TAP device `name`, or a veth where none can be had, in the caller's network namespace.

    `read_into` gives the size of the next packet and raises BlockingIOError when nothing waits,
    XlabError when the device was deleted; `write` raises OSError when the kernel refuses a packet.
    All packets begin with a virtio header.

    Raises CapabilityError if neither can be had, XlabError if `name` is taken.
    """
    try:
        return Tap(name)
    except CapabilityError as error:
        try:
            return Veth(name)
        except CapabilityError as second:
            raise CapabilityError(f"{error.missing}, and {second.missing}") from error


class Tap:
    """A TAP device with virtio headers; it exists as long as it is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise CapabilityError(f"/dev/net/tun does not open ({error.strerror})") from error
        try:
            self._set_up()
        except OSError as error:
            os.close(self.descriptor)
            if error.errno in (errno.EPERM, errno.EACCES):
                raise CapabilityError(f"no TAP device {name} ({error.strerror})") from error
            raise XlabError(f"no TAP device {name}: {error.strerror}") from error

    def _set_up(self) -> None:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(self.descriptor, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
        fcntl.ioctl(self.descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
        # By netlink: the ioctl for the queue's length asks for a capability of the real root.
        with closing(Rtnl()) as rtnl, rtnl.batch() as batch:
            batch.set_mtu(self.name, _LARGEST_MTU)
            batch.set_queue_length(self.name, _QUEUE_FRAMES)
            batch.set_up(self.name)

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        try:
            return os.readv(self.descriptor, buffers)
        except BlockingIOError:
            raise
        except OSError as error:
            # It stays readable for ever, and nothing comes any more.
            raise XlabError(f"the TAP device {self.name} is gone: {error.strerror}") from error

    def write(self, packet: bytes | memoryview) -> int:
        return os.write(self.descriptor, packet)

    def close(self) -> None:
        os.close(self.descriptor)


_SOL_PACKET, _ETH_P_ALL = 263, 3
_PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 8, 15, 23
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_NOARP = 0x8913, 0x8914, 0x80
#: struct tpacket_auxdata: status, len, snaplen, mac, net, then the VLAN tag and its protocol.
_AUXDATA = struct.Struct("=IIIHHHH")
_AUXDATA_BYTES = socket.CMSG_SPACE(_AUXDATA.size)
_TP_STATUS_VLAN_VALID = 0x10

#: Segments that a virtio header cannot describe, or that are not cut here.  The kernel then cuts
#: them itself, before they get into the veth.
_FOREIGN_SEGMENTATION = (
    "tx-tcp-ecn-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation",
    "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-gre-segmentation",
    "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
    "tx-sctp-segmentation", "tx-gso-list",
)  # fmt: skip


class Veth:
    """A veth with a packet socket on its far end: a TAP device for who may not open /dev/net/tun.

    bridge ── NAME ── veth ── NAMEr ── packet socket with virtio headers (PACKET_VNET_HDR)

    Slower than a TAP device under load: what waits to be read is bounded by the receive buffer,
    where rmem_max is small to some six segments.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._far = f"{name}r"
        try:
            self._make_pair()
            self._socket = self._open_socket()
        except NetlinkError as error:
            if error.errno == errno.EPERM:
                raise CapabilityError(f"no veth {name} ({os.strerror(errno.EPERM)})") from error
            raise XlabError(f"no veth {name}: {error}") from error
        except OSError as error:
            self._delete()
            reason = f"no packet socket on {self._far} ({error.strerror})"
            raise CapabilityError(reason) from error
        self.descriptor = self._socket.fileno()

    def _make_pair(self) -> None:
        with closing(Rtnl()) as rtnl:
            # Unlike a TAP device it survives a router that was killed.
            if rtnl.has(self.name) and rtnl.has(self._far):
                rtnl.remove_link(self.name)
            rtnl.now.add_veth(self.name, self._far, mtu=_LARGEST_MTU)
            rtnl.now.set_up(self._far)
        switch_off = [word for feature in _FOREIGN_SEGMENTATION for word in (feature, "off")]
        # Without ethtool such segments are dropped, and counted.
        with suppress(FileNotFoundError):
            subprocess.run(
                ["ethtool", "-K", self.name, *switch_off],
                env={**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"},
                capture_output=True,
                check=False,
            )

    def _open_socket(self) -> socket.socket:
        # Protocol 0: nothing is received before all options are set.
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            for option in (_PACKET_VNET_HDR, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING):
                packets.setsockopt(_SOL_PACKET, option, 1)
            enlarge_buffers(packets)
            # Else the host answers ARP requests for its own addresses at this end, too.
            name = self._far.encode()
            answer = fcntl.ioctl(packets, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
            flags = struct.unpack_from("16xH", answer)[0] | _IFF_NOARP
            fcntl.ioctl(packets, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))
            packets.bind((self._far, _ETH_P_ALL))
        except OSError:
            packets.close()
            raise
        return packets

    def read_into(self, buffers: Sequence[memoryview]) -> int:
        try:
            size, ancillary, _, _ = self._socket.recvmsg_into(buffers, _AUXDATA_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            # ENETDOWN is said once, also when an end goes down and comes up again.
            if error.errno == errno.ENETDOWN and self._exists():
                raise BlockingIOError from error
            raise XlabError(f"the veth {self.name} is gone: {error.strerror}") from error
        for level, kind, data in ancillary:
            if level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(data) == _AUXDATA.size:
                status, *_, tag, protocol = _AUXDATA.unpack(data)
                if status & _TP_STATUS_VLAN_VALID:
                    return insert_vlan_tag(buffers[0], size, tag, protocol)
        return size

    def write(self, packet: bytes | memoryview) -> int:
        return self._socket.send(packet)

    def close(self) -> None:
        self._socket.close()
        self._delete()

    def _exists(self) -> bool:
        with closing(Rtnl()) as rtnl:
            return rtnl.has(self._far)

    def _delete(self) -> None:
        with closing(Rtnl()) as rtnl:
            rtnl.remove_link(self.name)


def insert_vlan_tag(packet: memoryview, size: int, tag: int, protocol: int) -> int:
    """Put back, in place, the tag that the kernel keeps beside a packet it hands over."""
    addresses_end = VNET_HEADER_BYTES + 12
    packet[addresses_end + 4 : size + 4] = bytes(packet[addresses_end:size])
    packet[addresses_end : addresses_end + 4] = struct.pack("!HH", protocol or 0x8100, tag)
    header = read_vnet_header(packet)
    if not is_plain(packet):
        packet[:VNET_HEADER_BYTES] = header._replace(
            header_bytes=header.header_bytes + 4, checksum_start=header.checksum_start + 4
        ).pack()
    return size + 4


# -- virtio headers --------------------------------------------------------------------------------

VNET_HEADER_BYTES = 10
_VNET_HEADER = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
_GSO_NONE, GSO_TCPV4 = 0, 1

#: Says that a frame is complete as it stands.
PLAIN = bytes(VNET_HEADER_BYTES)


class VnetHeader(NamedTuple):
    """struct virtio_net_hdr; positions count from the start of the frame behind it."""

    flags: int
    gso_type: int
    header_bytes: int
    gso_bytes: int
    checksum_start: int
    checksum_offset: int

    def pack(self) -> bytes:
        return _VNET_HEADER.pack(*self)

    @property
    def is_segment(self) -> bool:
        """It stands for several packets."""
        return self.gso_type != _GSO_NONE

    @property
    def needs_checksum(self) -> bool:
        return bool(self.flags & NEEDS_CSUM)


def is_plain(packet: bytes | memoryview) -> bool:
    """Nothing is left to do about the frame: no flags, no segmentation."""
    return packet[0] == 0 and packet[1] == _GSO_NONE


def read_vnet_header(packet: bytes | bytearray | memoryview) -> VnetHeader:
    return VnetHeader._make(_VNET_HEADER.unpack_from(packet))


def complete_checksum(frame: bytes, header: VnetHeader) -> bytes | None:
    """Fill in what the kernel left for the hardware to compute; None if the header is nonsense.

    The field holds the pseudo-header's sum already, so the sum goes over everything from
    `checksum_start` on, the field included.
    """
    start, place = header.checksum_start, header.checksum_start + header.checksum_offset
    if start < 14 or place + 2 > len(frame):
        return None
    value = checksum(frame[start:])
    if value == 0 and header.checksum_offset == 6:
        # Both spell zero.  UDP, whose field is at 6, uses the one as "no checksum" (RFC 768).
        value = 65535
    return b"".join((frame[:place], value.to_bytes(2), frame[place + 2 :]))
