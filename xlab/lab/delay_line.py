"""A link with delay, jitter, loss and a rate, in user space: for kernels without netem.

    uplink ──ring──> Direction: lost? or queued until its time ──send──> port
    uplink <──send── Direction: queued until its time, or lost? <──ring── port

    python -m xlab.lab.delay_line IF_A IF_B [--delay-ms D] [--jitter-ms J] [--loss-ratio L]
           [--rate-bits-per-second R [--queue-bytes Q]] [--frame-bytes F] [--back OPTIONS]

Forwards between two interfaces of its network namespace, which must be up and serve nothing else.
What comes in at IF_B is treated as the options behind --back say, without it like the rest.
Prints "ready" when both are bound, and when it is told to end (SIGTERM) one line of JSON: what has
become of the packets of each side (`Direction.counters`).

Packets carry virtio headers (PACKET_VNET_HDR), so that a segment of up to 64 KB that TCP left to
the hardware to cut passes whole, its checksum still to be filled in.  Two things follow:

- What is lost, delayed or queued is what the interface hands over.  A lost segment is up to 45
  packets of 1,500 bytes lost at once, a 45th as often.  Where loss matters, the end points must
  send packets as they are on a wire: `ethtool -K eth0 tso off gso off gro off`.
- A virtio header says nothing of encapsulation: the kernel drops a tunnel's segments instead of
  handing them over.  The end points must cut them themselves (tx-udp_tnl-segmentation off, ...).

Packets are taken from a ring shared with the kernel (PACKET_RX_RING, TPACKET_V2): no system call
for each, and no bound by net.core.rmem_max.  Where that is large, or we are root, a ring has 5,000
slots for single packets, and segments come by the receive queue.  On stock kernels the queue would
hold six segments (208 KB, thousands of retransmits a second), so the ring has 120 slots for either.

Started as a program of its own, once for each link: this file imports the standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import mmap
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

#: What one direction holds at most, in bytes and packets: 40 ms at 10 Gbit/s, or 200 ms at 100,000
#: packets a second.  What comes beyond is dropped and counted, as in a switch.
LINE_LIMIT_BYTES = 48 * 1024 * 1024
LINE_LIMIT_PACKETS = 20_000

#: struct virtio_net_hdr: flags, gso_type (a byte each), hdr_len, gso_size, csum_start, csum_offset.
_VNET_HEADER = struct.Struct("=BBHHHH")
_VNET_HEADER_BYTES = _VNET_HEADER.size

#: The largest packet: 64 KB of IPv4, in Ethernet.
LARGEST_BYTES = 65535 + 14


class Direction:
    """What happens to the packets of one direction.  Pure: clock and chance come from outside.

    Packets leave in the order they came in.  With jitter each is to leave `delay ± jitter` after
    its arrival, uniformly distributed, but never before the one ahead of it.  A rate serialises
    packets one after another behind the delay; what finds more than `queue_bytes` waiting there is
    dropped.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        loss_ratio: float = 0.0,
        rate_bits_per_second: float | None = None,
        queue_bytes: float = 1e6,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss_ratio = loss_ratio
        self.seconds_per_byte = 8 / rate_bits_per_second if rate_bits_per_second else 0.0
        self.queue_bytes = queue_bytes
        self._chance = chance
        #: When the packet at the end of the queue leaves: nothing behind it leaves earlier.
        self._free_at_s = 0.0
        #: (when it leaves, the packet with its virtio header), in order.
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued_bytes = 0
        self.arrived = 0
        self.departed = 0
        #: Chosen by chance.
        self.lost = 0
        #: No room on the line, or too much waiting for the rate.
        self.overflowed = 0
        #: The kernel could not hand them over: no free slot, or segments of a tunnel.
        self.missed = 0
        #: Refused by the interface they were to leave by.
        self.unsent = 0

    def admit(self, packet: bytes, now_s: float) -> None:
        """A packet, with its virtio header, has arrived: lose it, or queue it until its time."""
        self.arrived += 1
        if self.loss_ratio and self._chance() < self.loss_ratio:
            self.lost += 1
            return
        size = len(packet)
        if self.queued_bytes + size > LINE_LIMIT_BYTES or len(self.queue) >= LINE_LIMIT_PACKETS:
            self.overflowed += 1
            return
        leaves_s = now_s + self.delay_s
        if self.jitter_s:
            leaves_s += self.jitter_s * (2 * self._chance() - 1)
        if leaves_s < self._free_at_s:
            if self._free_at_s - leaves_s > self.queue_bytes * self.seconds_per_byte > 0:
                self.overflowed += 1
                return
            leaves_s = self._free_at_s
        if self.seconds_per_byte:
            leaves_s += self.seconds_per_byte * bytes_on_wire(packet)
        self._free_at_s = leaves_s
        self.queue.append((leaves_s, packet))
        self.queued_bytes += size

    def release(self, now_s: float, send: Callable[[bytes], object]) -> float | None:
        """Send everything whose time has come; when the next one leaves, None if there is none."""
        queue = self.queue
        while queue:
            leaves_s, packet = queue[0]
            if leaves_s > now_s:
                return leaves_s
            queue.popleft()
            self.queued_bytes -= len(packet)
            try:
                send(packet)
                self.departed += 1
            except OSError:
                # ENOBUFS, EAGAIN: no room beyond; ENETDOWN: the interface is down.  A packet lost.
                self.unsent += 1
        return None

    def counters(self) -> dict[str, int]:
        """Packets: `arrived` is the sum of all others but `missed`, which never arrived."""
        return {
            "arrived": self.arrived,
            "departed": self.departed,
            "lost": self.lost,
            "overflowed": self.overflowed,
            "unsent": self.unsent,
            "queued": len(self.queue),
            "missed": self.missed,
        }


def bytes_on_wire(packet: bytes) -> int:
    """What a packet, given with its virtio header, comes to: every segment of it has headers."""
    size = len(packet) - _VNET_HEADER_BYTES
    _, gso_type, header, segment, _, _ = _VNET_HEADER.unpack_from(packet)
    if not gso_type or not segment or size <= header:
        return size
    segments = -(-(size - header) // segment)
    return int(size + (segments - 1) * header)


def with_vlan_tag(packet: bytes, protocol: int, tag: int) -> bytes:
    """Put back the VLAN tag that the kernel keeps beside a packet it hands over."""
    flags, gso_type, header, segment, start, offset = _VNET_HEADER.unpack_from(packet)
    vnet = _VNET_HEADER.pack(
        flags, gso_type, header + 4 if header else 0, segment, start + 4 if start else 0, offset
    )
    addresses, rest = packet[_VNET_HEADER_BYTES:][:12], packet[_VNET_HEADER_BYTES + 12 :]
    return vnet + addresses + struct.pack("!HH", protocol, tag) + rest


# -- interfaces ------------------------------------------------------------------------------------

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_COPY_THRESH, _PACKET_VERSION = 5, 6, 7, 10
_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 15, 23
_TPACKET_V2 = 1
_ETH_P_ALL, _ETH_P_8021Q = 3, 0x8100

#: Status of a slot, linux/if_packet.h: ours to read; too small, so the packet is in the receive
#: queue, whole; a VLAN tag was taken out, and of which protocol.
_USER, _COPY, _VLAN_VALID, _VLAN_PROTOCOL_VALID = 0x1, 0x2, 0x10, 0x40

#: Memory of an interface's ring, halved while the kernel cannot give as much.
_RING_BYTES = 8 * 1024 * 1024
_SMALLEST_RING_BYTES = 1024 * 1024
_BLOCK_BYTES = 1024 * 1024
_ALIGNMENT = 16
#: struct tpacket2_hdr, struct sockaddr_ll and the virtio header lie before the packet in a slot.
_SLOT_OVERHEAD_BYTES = 128
#: The receive queue takes the segments if it is as large as this: some sixty of 64 KB.
_ENOUGH_QUEUE_BYTES = 4 * 1024 * 1024

_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 32 * 1024 * 1024

#: Packets taken from one side before those whose time has come are sent: keeps them punctual.
_BATCH = 16


class Interface:
    """A packet socket that takes what comes in at an interface, and sends out there."""

    def __init__(self, name: str, *, frame_bytes: int, segments: bool) -> None:
        """`frame_bytes`: the largest single packet; `segments`: whether larger ones are common.

        Raises OSError: no such interface, not permitted, or no memory for the ring.
        """
        # Protocol 0: nothing is received before the ring is there.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        set_option = self.socket.setsockopt
        set_option(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        set_option(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        # Without it we would forward our own packets back to where they came from.
        set_option(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        # A packet larger than its slot goes to the receive queue as well, whole.
        set_option(_SOL_PACKET, _PACKET_COPY_THRESH, 1)
        set_option(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        try:
            set_option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            # In a user namespace: net.core.rmem_max is the limit.
            set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        queue_bytes = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        by_queue = not segments or queue_bytes >= _ENOUGH_QUEUE_BYTES
        slot_bytes = _SLOT_OVERHEAD_BYTES + (frame_bytes if by_queue else LARGEST_BYTES)
        self.socket.setblocking(False)
        self._memory, self._slots = self._map_ring(-(-slot_bytes // _ALIGNMENT) * _ALIGNMENT)
        self._words = memoryview(self._memory).cast("I")
        self._next = 0
        self.socket.bind((name, _ETH_P_ALL))

    def fileno(self) -> int:
        return self.socket.fileno()

    def _map_ring(self, slot_bytes: int) -> tuple[mmap.mmap, list[int]]:
        """The shared memory, and where its slots begin: a slot never crosses a block."""
        per_block = _BLOCK_BYTES // slot_bytes
        size = _RING_BYTES
        while True:
            blocks = size // _BLOCK_BYTES
            request = struct.pack("=IIII", _BLOCK_BYTES, blocks, slot_bytes, blocks * per_block)
            try:
                self.socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
                break
            except OSError as error:
                if error.errno != errno.ENOMEM or size <= _SMALLEST_RING_BYTES:
                    raise
                size //= 2
        slots = [
            block * _BLOCK_BYTES + number * slot_bytes
            for block in range(blocks)
            for number in range(per_block)
        ]
        return mmap.mmap(self.fileno(), size), slots

    def receive(self, direction: Direction, clock: Callable[[], float]) -> None:
        """Hand what has come in to `direction`, up to a batch."""
        memory, words, slots = self._memory, self._words, self._slots
        if not words[slots[self._next] >> 2] & _USER:
            # Readable, yet nothing there: the interface went down.  The error stays, and `select`
            # never waits again, until it is asked for.
            self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        for _ in range(_BATCH):
            slot = slots[self._next]
            word = slot >> 2
            # struct tpacket2_hdr: status, len, snaplen (a word each), mac, net (half a word each),
            # sec, nsec, then the VLAN tag and its protocol.
            status = words[word]
            if not status & _USER:
                return
            self._next = (self._next + 1) % len(slots)
            size, captured = words[word + 1], words[word + 2]
            if status & _COPY:
                packet = self._from_receive_queue()
            elif captured == size:
                start = slot + (words[word + 3] & 0xFFFF if _LITTLE else words[word + 3] >> 16)
                packet = memory[start - _VNET_HEADER_BYTES : start + size]
            else:
                packet = b""
            if packet and status & _VLAN_VALID:
                tag, protocol = struct.unpack_from("=HH", memory, slot + 24)
                known = status & _VLAN_PROTOCOL_VALID
                packet = with_vlan_tag(packet, protocol if known else _ETH_P_8021Q, tag)
            words[word] = 0
            if packet:
                direction.admit(packet, clock())
            else:
                direction.missed += 1

    def _from_receive_queue(self) -> bytes:
        try:
            return self.socket.recv(LARGEST_BYTES + _VNET_HEADER_BYTES)
        except OSError:
            return b""

    def dropped(self) -> int:
        """Packets the kernel could not hand over, since the last call (PACKET_STATISTICS)."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[1])


_LITTLE = sys.byteorder == "little"


def forward(a: Interface, b: Interface, from_a: Direction, from_b: Direction) -> NoReturn:
    """Forward between two interfaces until an exception (a signal handler's) ends it."""
    clock, wait = time.monotonic, select.select
    lanes = ((a, from_a, b.socket.send), (b, from_b, a.socket.send))
    sides = [a, b]
    while True:
        now_s = clock()
        next_s = [
            leaves_s
            for _, direction, send in lanes
            if (leaves_s := direction.release(now_s, send)) is not None
        ]
        readable, _, _ = wait(sides, (), (), max(0.0, min(next_s) - clock()) if next_s else None)
        for side, direction, _ in lanes:
            if side in readable:
                side.receive(direction, clock)


# -- the program -----------------------------------------------------------------------------------

_PR_SET_TIMERSLACK = 29


class _Stop(BaseException):
    """Raised by the signal handler, wherever the loop is."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = returning = _parser().parse_args(arguments)
    if options.back is not None:
        returning = _parser().parse_args([options.a, options.b, *options.back])

    def direction(wanted: argparse.Namespace) -> Direction:
        return Direction(
            delay_s=wanted.delay_ms / 1e3,
            jitter_s=wanted.jitter_ms / 1e3,
            loss_ratio=wanted.loss_ratio,
            rate_bits_per_second=wanted.rate_bits_per_second,
            queue_bytes=wanted.queue_bytes,
        )

    def stop(_signum: int, _frame: object) -> None:
        raise _Stop

    from_a, from_b = direction(options), direction(returning)
    # The kernel may wake us 50 microseconds late unless told otherwise, prctl(2).
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)
    try:
        # Where packets are lost, end points cut segments themselves.
        segments = not (options.loss_ratio or returning.loss_ratio)
        a = Interface(options.a, frame_bytes=options.frame_bytes, segments=segments)
        b = Interface(options.b, frame_bytes=options.frame_bytes, segments=segments)
    except OSError as error:
        sys.stderr.write(f"delay_line: {options.a} - {options.b}: {error.strerror}\n")
        return 1
    signal.signal(signal.SIGTERM, stop)
    try:
        _say("ready")
        forward(a, b, from_a, from_b)
    except _Stop:
        from_a.missed += a.dropped()
        from_b.missed += b.dropped()
        _say(json.dumps({options.a: from_a.counters(), options.b: from_b.counters()}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="delay_line", allow_abbrev=False)
    parser.add_argument("a", metavar="IF_A")
    parser.add_argument("b", metavar="IF_B")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--loss-ratio", type=float, default=0.0)
    parser.add_argument("--rate-bits-per-second", type=float)
    parser.add_argument(
        "--queue-bytes", type=float, default=1e6, help="how much may wait for the rate"
    )
    parser.add_argument("--frame-bytes", type=int, default=1518, help="the largest single packet")
    parser.add_argument("--back", nargs=argparse.REMAINDER, help="the same of what returns")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
