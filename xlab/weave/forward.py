"""Where frames go, and whether they fit: the overlay's decisions, without its sockets.

    captured on the bridge ──> MAC cache ──┬─ known, elsewhere ──> unicast, along the routes
                                           ├─ known, ours      ──> dropped, the bridge had it
                                           └─ unknown, group   ──> broadcast, along our tree
    received from a peer   ──┬─ for another peer ──> relayed, along the routes
                             └─ for us ──> the bridge, and on along the tree of the peer it is from
                                           unless its destination is known to be ours

Nothing goes back to the neighbour that it came from: while views differ, it would go to and fro.

Pure: names, frames and times come in, decisions come out.  Times are seconds of any one clock.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Set
from dataclasses import dataclass, field

from xlab.kernel.packets import checksum
from xlab.weave.routes import Routes
from xlab.weave.sleeve import AMBIGUOUS_MTUS, ETHERNET_HEADER_BYTES, OVERHEAD_BYTES

# -- which way -------------------------------------------------------------------------------------

MAC_AGE_S = 600.0
#: An address that speaks on our bridge is not believed to be elsewhere before it has been silent
#: here for so long (VRRP's backup waits for three seconds of silence, RFC 5798); and one that has
#: gone, not to be back before it has been silent there, longer than what we give our bridge takes
#: to come back.  So who puts another's address into a frame does not cut off all that one sends.
MOVE_S, BACK_S = 1.0, 0.5
#: Ten times what one Linux bridge can have ports, and a bound on what a peer can make us remember.
MOST_MACS = 16384

#: IEEE 802.1D: group addresses that no bridge forwards, spanning tree's among them.
_LINK_LOCAL_GROUP = bytes.fromhex("0180c20000")


@dataclass(slots=True)
class _Seen:
    """Where an address was seen last; changed in place, as each frame is one sight."""

    peer: bytes
    at_s: float
    #: When it was captured on our own bridge, wherever it may be now.
    here_s: float


class MacCache:
    """Behind which peer a MAC address was last seen; forgotten after ten minutes of silence."""

    def __init__(self) -> None:
        self._seen: dict[bytes, _Seen] = {}

    def find(self, mac: bytes, now_s: float) -> bytes | None:
        """The peer behind `mac`, None if it is unknown or was silent for too long."""
        seen = self._seen.get(mac)
        if seen is None or now_s - seen.at_s > MAC_AGE_S:
            return None
        return seen.peer

    def hear(self, mac: bytes, peer: bytes, now_s: float) -> bool:
        """`mac` was seen behind another peer; False, and no word of it, if it speaks here."""
        seen = self._seen.get(mac)
        if seen is None:
            self._add(mac, _Seen(peer, now_s, -math.inf))
        elif now_s - seen.here_s <= MOVE_S:
            return False
        else:
            seen.peer = peer
            seen.at_s = now_s
        return True

    def capture(self, mac: bytes, ours: bytes, now_s: float) -> bool:
        """`mac` was seen on our own bridge; False, and no word of it, if it is elsewhere.

        Where it was here before, and is silent where it was seen since, it is back.
        """
        seen = self._seen.get(mac)
        if seen is None:
            self._add(mac, _Seen(ours, now_s, now_s))
            return True
        if seen.peer != ours and now_s - seen.at_s <= MAC_AGE_S:
            was_here = now_s - seen.here_s <= MAC_AGE_S
            if not was_here or now_s - seen.at_s <= BACK_S:
                return False
        seen.peer = ours
        seen.at_s = seen.here_s = now_s
        return True

    def _add(self, mac: bytes, seen: _Seen) -> None:
        if len(self._seen) < MOST_MACS:
            self._seen[mac] = seen

    def expire(self, now_s: float) -> None:
        """Forget every address that has been silent for too long."""
        self._seen = {
            mac: seen for mac, seen in self._seen.items() if now_s - seen.at_s <= MAC_AGE_S
        }

    def forget_peers_but(self, peers: Set[bytes]) -> None:
        """Forget the addresses behind peers that are no longer there."""
        self._seen = {mac: seen for mac, seen in self._seen.items() if seen.peer in peers}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one frame."""

    #: Hand it to our own bridge.
    inject: bool = False
    #: (neighbour to send it to, peer it is destined to), none or several.
    send: tuple[tuple[bytes, bytes], ...] = ()
    #: It is sent to all, for want of a known destination: it may not be answered with an error.
    broadcast: bool = False
    #: Why it goes nowhere, a counter's name; None when it goes somewhere.
    dropped: str | None = None


#: Most frames' decision; to make another, unchangeable as they are, costs a microsecond.
_INJECT = Decision(inject=True)


@dataclass(slots=True)
class Switch:
    """The decisions of one peer, with what they rest on."""

    name: bytes
    macs: MacCache = field(default_factory=MacCache)
    routes: Routes = field(default_factory=lambda: Routes({}, {}))
    #: Those for frames to one peer, as of these routes.
    _ways: dict[bytes, Decision] = field(default_factory=dict)

    def set_routes(self, routes: Routes) -> None:
        """Addresses behind peers that cannot be reached any more are forgotten."""
        self.routes = routes
        self._ways = {}
        self.macs.forget_peers_but({self.name, *routes.unicast})

    def captured(self, destination_mac: bytes, source_mac: bytes, now_s: float) -> Decision:
        """A frame came out of our own bridge."""
        if source_mac[0] & 1:
            return Decision(dropped="source_is_group")
        if destination_mac.startswith(_LINK_LOCAL_GROUP) and destination_mac[5] < 16:
            return Decision(dropped="link_local")
        if not self.macs.capture(source_mac, self.name, now_s):
            # Our bridge sends back what we gave it, or the address moved here: then it has to fall
            # silent there first.  Forwarding it might go round in circles.
            return Decision(dropped="captured_foreign_source")
        peer = self.macs.find(destination_mac, now_s)
        if peer is None:
            return self._to_all(self.name)
        if peer == self.name:
            return Decision(dropped="captured_local")
        return self._to_peer(peer)

    def received(
        self,
        source: bytes,
        destination: bytes,
        destination_mac: bytes,
        source_mac: bytes,
        now_s: float,
        *,
        sender: bytes,
    ) -> Decision:
        """A frame came from neighbour `sender`, sent by peer `source` to peer `destination`."""
        if source == self.name:
            return Decision(dropped="own_frame_returned")
        if destination != self.name:
            back = self.routes.unicast.get(destination) == sender
            return Decision(dropped="back_to_sender") if back else self._to_peer(destination)
        if source not in self.routes.unicast:
            return Decision(dropped="unknown_source_peer")
        if source_mac[0] & 1:
            return Decision(dropped="source_is_group")
        if not self.macs.hear(source_mac, source, now_s):
            return Decision(dropped="received_local_source")
        if self.macs.find(destination_mac, now_s) == self.name:
            return _INJECT
        # A broadcast is addressed to each neighbour in turn: whether it is one shows only in this,
        # that we do not know its destination as ours.
        onward = tuple(way for way in self._to_all(source).send if way[0] != sender)
        return Decision(inject=True, send=onward, broadcast=True)

    def _to_peer(self, peer: bytes) -> Decision:
        way = self._ways.get(peer)
        if way is None:
            neighbour = self.routes.unicast.get(peer)
            if neighbour is None:
                return Decision(dropped="no_route")
            way = self._ways[peer] = Decision(send=((neighbour, peer),))
        return way

    def _to_all(self, source: bytes) -> Decision:
        neighbours = self.routes.broadcast.get(source, ())
        if not neighbours:
            return Decision(broadcast=True, dropped="nobody_to_broadcast_to")
        return Decision(send=tuple((each, each) for each in neighbours), broadcast=True)


# -- whether it fits -------------------------------------------------------------------------------

_LEAST_MTU = 552
_PROBES = 8
_FIRST_WAIT_S = 0.010


class PathMtu:
    """Search for the largest packet that the overlay can carry to one neighbour.

    The kernel's own idea of the path comes first.  A probe of that size, with DF, must arrive; a
    candidate that eight probes cannot prove is too large, and the search halves the range below.
    All sizes are the overlay's: the underlay's less 62 bytes.
    """

    def __init__(self) -> None:
        #: What fits, as far as is known; the kernel refuses larger datagrams by itself.
        self.effective = 65535 - OVERHEAD_BYTES
        #: Whether the neighbour has confirmed `effective`.
        self.verified = False
        #: When `due` wants to be called; None when nothing is being searched.
        self.deadline_s: float | None = None
        self._good = 0
        self._bad = 0
        self._candidate: int | None = None
        self._sent = 0

    def begin(self, underlay_mtu: int, now_s: float) -> None:
        """The kernel says what the path carries: at the start, now and then, or when it refused a
        datagram.  Nothing happens if that is no news.

        What is proved stays in force until more is.
        """
        # The loopback device says 65536, more than an IPv4 packet can have.
        mtu = max(min(underlay_mtu, 65535) - OVERHEAD_BYTES, ETHERNET_HEADER_BYTES)
        if self._candidate is not None and self._candidate <= mtu < self._bad:
            return
        if self._candidate is None and self.verified and mtu == self.effective:
            return
        if self.verified and mtu > self.effective:
            self._good = self.effective
        else:
            self._good = min(_LEAST_MTU, mtu)
            self.effective, self.verified = mtu, False
        self._bad = mtu + 1
        self._try(mtu, now_s)

    def verify(self, mtu: int, now_s: float) -> None:
        """The neighbour has received the probe of this size."""
        if mtu == self._candidate:
            self._good = self.effective = mtu
            self.verified = True
            self._narrow(now_s)

    def due(self, now_s: float) -> int | None:
        """The size of the probe to send now, if any."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return None
        if self._sent == _PROBES and self._candidate is not None:
            self._bad = self._candidate
            # Until something is proved, only what every network carries.
            self.effective = self._good
            self._narrow(now_s)
        candidate = self._candidate
        if candidate is not None:
            self.deadline_s = now_s + _FIRST_WAIT_S * 2**self._sent
            self._sent += 1
        return candidate

    def _narrow(self, now_s: float) -> None:
        if self._good + 1 >= self._bad:
            self.effective, self.verified = self._good, True
            self._candidate = self.deadline_s = None
        else:
            self._try((self._good + self._bad) // 2, now_s)

    def _try(self, mtu: int, now_s: float) -> None:
        self._candidate = mtu - 1 if mtu in AMBIGUOUS_MTUS else mtu
        self._sent = 0
        self.deadline_s = now_s


def is_ipv4(frame: bytes | memoryview) -> bool:
    """Whether an untagged Ethernet frame carries a whole IPv4 header."""
    return len(frame) >= 34 and frame[12] == 0x08 and frame[13] == 0x00 and 0x45 <= frame[14] < 0x50


def has_df(frame: bytes | memoryview) -> bool:
    """Whether it is IPv4 and must not be fragmented."""
    return is_ipv4(frame) and bool(frame[20] & 0x40)


def too_large(frame: bytes | memoryview, mtu: int) -> bool:
    return len(frame) > mtu + ETHERNET_HEADER_BYTES


_ICMP = 1
_ICMP_ERRORS = (3, 4, 5, 11, 12)


def fragmentation_needed(frame: bytes | memoryview, mtu: int) -> bytes | None:
    """The ICMP error 3/4 (RFC 792, RFC 1191) for an IPv4 frame, as if from its destination.

    None where RFC 1122, 3.2.2 forbids an error: about an ICMP error, about a later fragment, to or
    about a group address.
    """
    if not is_ipv4(frame):
        return None
    header_bytes = (frame[14] & 0x0F) * 4
    ip = bytes(frame[14:])
    if len(ip) < header_bytes + 8 or int.from_bytes(ip[6:8]) & 0x1FFF:
        return None
    if ip[9] == _ICMP and ip[header_bytes] in _ICMP_ERRORS:
        return None
    if frame[0] & 1 or frame[6] & 1 or ip[16] >= 224 or not 0 < ip[12] < 224:
        return None
    quoted = ip[: header_bytes + 8]
    icmp = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, ip[1], 20 + len(icmp), 0, 0, 64, _ICMP, 0, ip[16:20], ip[12:16]
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes(frame[6:12]) + bytes(frame[0:6]) + b"\x08\x00" + head + icmp


#: RFC 791: options with this bit are copied into every fragment.
_COPIED = 0x80


def fragments(frame: bytes | memoryview, mtu: int) -> list[bytes]:
    """Cut an IPv4 frame into fragments of at most `mtu` bytes each (RFC 791, 2.3).

    Empty if it cannot be: not IPv4, malformed, or `mtu` has no room for 8 bytes of data.
    """
    if not is_ipv4(frame):
        return []
    ethernet, ip = bytes(frame[:14]), bytes(frame[14:])
    header_bytes = (ip[0] & 0x0F) * 4
    total = int.from_bytes(ip[2:4])
    if not header_bytes < total <= len(ip):
        return []
    flags, base = ip[6] & 0xE0, (int.from_bytes(ip[6:8]) & 0x1FFF) * 8
    data = ip[header_bytes:total]
    if base + len(data) > 65535:
        return []
    first = ip[:header_bytes]
    others = first[:20] + _copied_options(first[20:])
    others = bytes([0x40 | len(others) // 4]) + others[1:]
    cut: list[bytes] = []
    start = 0
    while start < len(data):
        header = others if start else first
        room = mtu - len(header)
        size = len(data) - start
        if size > room:
            size = room & ~7
            if size < 8:
                return []
        more = start + size < len(data)
        fields = struct.pack(
            "!HHH",
            len(header) + size,
            int.from_bytes(header[4:6]),
            (flags | (0x20 if more else 0)) << 8 | (base + start) // 8,
        )
        header = header[:2] + fields + header[8:10] + b"\0\0" + header[12:]
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        cut.append(ethernet + header + data[start : start + size])
        start += size
    return cut


def _copied_options(options: bytes) -> bytes:
    """Those that later fragments must carry, padded to whole words."""
    kept, position = b"", 0
    while position < len(options):
        kind = options[position]
        if kind == 0:
            break
        length = 1 if kind == 1 else int.from_bytes(options[position + 1 : position + 2])
        if length == 0 or (kind != 1 and length < 2) or position + length > len(options):
            break
        if kind & _COPIED:
            kept += options[position : position + length]
        position += length
    return kept + bytes(-len(kept) % 4)
