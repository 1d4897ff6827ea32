"""Listening on a link of the lab, and finding a flow's own packets in what was heard."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from xlab.errors import DeadlineError
from xlab.kernel.packets import Decoded, Packet, decode, find_echoes
from xlab.kernel.processes import command_line, wait_until
from xlab.lab.node import Node
from xlab.lab.reachability import ECHO_REPLY, echo_request, echo_socket, echoes_in

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER = 26
#: Classic BPF, socket(7): "ret #0", no frame passes.
_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
_RECEIVE_BUFFER_BYTES = 4 << 20

#: Longer than what any link takes is what TCP hands over in one piece (GSO): its beginning is kept.
_LONGEST_BYTES, _BEGINNING_BYTES = 16 << 10, 256
#: ld len; jgt #LONGEST, it, not; ret #0; ret #-1: what is longer does not pass.
_NONE_LONGER = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x80, 0, 0, 0), (0x25, 0, 1, _LONGEST_BYTES), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
    )
)  # fmt: skip
#: What one capture keeps altogether, and what a frame comes to beside its bytes.
_MOST_BYTES, _FRAME_BYTES = 256 << 20, 200

#: How long the last packets of a flow may take to reach the link once the sender has ended.
_SETTLE_S = 2.0
#: Between two echoes; each is seen by itself.
_BETWEEN_S = 0.02


class Capture:
    """Frames on one interface of a node, both ways, while the context lasts.

    A packet socket rather than tcpdump: it listens from the moment it is bound, and the kernel says
    how many frames it dropped.  So are counted those beyond 256 MiB: whoever is in a host may send
    as fast as he likes.
    """

    def __init__(self, node: Node, interface: str, *, long_ones: bool = True) -> None:
        """Without `long_ones` what TCP hands over in one piece is left out, and counted as nothing.

        Of a flow of small packets none is as long, and beside traffic at full speed it could not be
        followed.
        """
        self.frames: list[tuple[float, bytes]] = []
        self.dropped = 0
        self._room = Room()
        with node.entered():
            # Without a protocol it hears nothing until it is bound, packet(7).
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            if not long_ones:
                let_no_long_ones_in(self._socket)
            self._socket.bind((interface, _ETH_P_ALL))
        self._socket.settimeout(0.05)
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._reader.join()
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.dropped += struct.unpack("II", statistics)[1]
        self._socket.close()

    def _read(self) -> None:
        """Until told to stop, then what had arrived by then: a busy link never falls silent."""
        while not self._stopping.is_set():
            try:
                self._keep_one()
            except TimeoutError:
                continue
        let_nothing_in(self._socket)
        self._socket.setblocking(False)
        while True:
            try:
                self._keep_one()
            except BlockingIOError:
                return

    def _keep_one(self) -> None:
        frame = self._room.kept(self._socket.recv(65535))
        if frame:
            self.frames.append((time.time(), frame))
        else:
            self.dropped += 1


class Room:
    """For so many frames as one capture may keep, in bytes."""

    def __init__(self, size_bytes: int = _MOST_BYTES) -> None:
        self._left_bytes = size_bytes

    def kept(self, frame: bytes) -> bytes:
        """What is to be kept of a frame; nothing if there is no room left."""
        kept = frame if len(frame) <= _LONGEST_BYTES else frame[:_BEGINNING_BYTES]
        if self._left_bytes < len(kept) + _FRAME_BYTES:
            return b""
        self._left_bytes -= len(kept) + _FRAME_BYTES
        return kept


def _let_in(channel: socket.socket, program: bytes) -> None:
    """From now on, what a classic BPF program says; what has come in by now can be read."""
    held = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions and where they are.
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(held))
    channel.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def let_nothing_in(channel: socket.socket) -> None:
    """From now on; what has come in by now can be read."""
    _let_in(channel, _NOTHING)


def let_no_long_ones_in(channel: socket.socket) -> None:
    """From now on nothing that is longer than what a link takes."""
    _let_in(channel, _NONE_LONGER)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One frame on the link that carried a packet of the flow."""

    decoded: Decoded
    #: The packet itself: the innermost one.
    packet: Packet


@dataclass(frozen=True, slots=True)
class Sightings:
    """What a capture saw of a flow of `sent` pings, in the order of their passing."""

    sent: int
    seen: tuple[Sighting, ...]
    frames: tuple[tuple[float, bytes], ...]
    #: Frames that the kernel could not keep: with any, nothing is proved.
    dropped: int
    #: Pings that were answered.
    answered: int
    transcript: str

    def lacking(self) -> str:
        """What is to be said of frames that the kernel could not keep; "" where there are none."""
        return f"{self.dropped:,} frames were lost: the link is too busy" if self.dropped else ""

    def count(self, encapsulation: str) -> int:
        return sum(s.decoded.encapsulation == encapsulation for s in self.seen)

    @property
    def stray(self) -> int:
        """Frames on the link that belong to something else."""
        # Weave's sleeve puts several packets into one frame while it is busy.
        return len(self.frames) - len({id(sighting.decoded) for sighting in self.seen})

    def different(self, encapsulation: str) -> int:
        """How many packets they were, each counted once: who forwards has it on its link twice."""
        found = [s.packet for s in self.seen if s.decoded.encapsulation == encapsulation]
        return len({(packet.icmp_type, packet.icmp_sequence) for packet in found})

    def all_took(self, encapsulation: str, *, lossy: bool = False) -> bool:
        """Each request and each reply passed once, in that encapsulation; nothing was missed."""
        return self.all_were_in(encapsulation, lossy=lossy) and self.count(encapsulation) == (
            self.different(encapsulation)
        )

    def all_were_in(self, encapsulation: str, *, lossy: bool = False) -> bool:
        """Each request and each reply passed, in that encapsulation and no other.

        On links that lose packets on purpose, some replies may be missing, as ping missed them;
        ping misses those as well that come late.
        """
        least = self.sent + self.answered if lossy and self.answered else 2 * self.sent
        in_it, different = self.count(encapsulation), self.different(encapsulation)
        whole = least <= different <= 2 * self.sent
        return in_it == len(self.seen) and whole and not self.dropped


def follow_pings(
    source: Node, target: Node, *, wire: Node, interface: str, count: int = 10
) -> Sightings:
    """Ping `target` from `source` with a payload nobody else sends, listening on `interface`."""
    token = os.urandom(16)
    argv = [
        "ping",
        "-n",
        f"-c{count}",
        "-i0.02",
        f"-W{_SETTLE_S:g}",
        "-p",
        token.hex(),
        str(target.address),
    ]
    with Capture(wire, interface, long_ones=False) as capture:
        result = source.run(argv, check=False, timeout_s=60)
        seen: list[Sighting] = []
        read = 0

        def all_seen() -> bool:
            nonlocal read
            fresh, read = capture.frames[read:], len(capture.frames)
            seen.extend(_sightings(fresh, token))
            return len(seen) >= 2 * count

        with suppress(DeadlineError):  # fewer than were sent: the figures say so
            wait_until(all_seen, timeout_s=_SETTLE_S, awaited="the flow's packets on the link")
    # Frames that came after the last look, duplicates above all, count as well.
    return Sightings(
        sent=count,
        seen=tuple(_sightings(capture.frames, token)),
        frames=tuple(capture.frames),
        dropped=capture.dropped,
        answered=result.stdout.count("time="),
        transcript=f"{source}$ {command_line(argv)}\n{result.stdout}{result.stderr}",
    )


def follow_echoes(
    source: Node,
    target: Node | IPv4Address,
    *,
    wire: Node,
    interface: str,
    round_trip_s: float = 0.0,
    count: int = 10,
) -> Sightings:
    """The same with echoes that we send ourselves: no program of the node's takes part.

    One goes before them, which finds ways and neighbours out.
    """
    address = str(target.address if isinstance(target, Node) else target)
    patience_s = _SETTLE_S + 2 * round_trip_s
    identifier = int.from_bytes(os.urandom(2), "big")
    token = os.urandom(16)
    answered: set[int] = set()

    def send(sequence: int, data: bytes) -> None:
        # No route, or a full queue: as good as lost.
        with suppress(OSError):
            channel.sendto(echo_request(identifier, sequence, data=data), (address, 0))

    def hear() -> set[int]:
        found = echoes_in(channel, identifier)
        answered.update(number for kind, number in found if kind == ECHO_REPLY)
        return answered

    with closing(echo_socket(source)) as channel:
        send(0, b"")
        with suppress(DeadlineError):
            wait_until(lambda: 0 in hear(), timeout_s=patience_s, awaited="the first answer")
        with Capture(wire, interface, long_ones=False) as capture:
            for number in range(1, count + 1):
                send(number, token)
                time.sleep(_BETWEEN_S)
            with suppress(DeadlineError):  # fewer than were sent: the figures say so
                wait_until(
                    lambda: (
                        len(hear() - {0}) == count
                        and len(_sightings(capture.frames, token)) >= 2 * count
                    ),
                    timeout_s=patience_s,
                    awaited="the flow's packets on the link",
                )
    return Sightings(
        sent=count,
        seen=tuple(_sightings(capture.frames, token)),
        frames=tuple(capture.frames),
        dropped=capture.dropped,
        answered=len(answered - {0}),
        transcript=f"{count} echo requests from {source} to {address}",
    )


def _sightings(frames: list[tuple[float, bytes]], token: bytes) -> list[Sighting]:
    read = (decode(frame) for _, frame in frames)
    return [Sighting(each, packet) for each in read for packet in find_echoes(each, token)]
