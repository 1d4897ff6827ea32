"""The proof of the path: which way the packets of a flow went, and that it was no accident.

    1. Send pings whose payload bears a token nobody else knows, and listen on the physical link.
       Every one must pass there, once each way, in the encapsulation that the method promises.
    2. Cut the mechanism: the flow must stop (or, for an inverted control, go on).  Heal it: back.
    3. Find the largest packet that passes whole, and the bytes the encapsulation adds.

Packets are matched by the token in the innermost payload, so address translation on the way does
not matter; whatever else is on the link is counted as stray.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from xlab.capture import Sightings, follow_pings
from xlab.lab.node import Node
from xlab.lab.reachability import ping_until_answered
from xlab.packets import write_pcap
from xlab.processes import Completed, command_line
from xlab.record import Encapsulation, PathProof, UnderlayPackets
from xlab.scenario import Flow

PINGS = 10

#: How long a healed flow may take to be back.
_PATIENCE_S = 10.0

#: ip(7); DF on every packet whatever the path MTU cache says.
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_SMALLEST_MTU = 576


@dataclass(frozen=True, slots=True)
class Proved:
    proof: PathProof
    #: Files for raw/, by name.
    raw: dict[str, bytes]


def prove(
    flow: Flow,
    wire: Node,
    interface: str,
    *,
    mtu: int,
    lossy: bool = False,
    round_trip_s: float = 0,
    require_daemons: Callable[[], None],
) -> Proved:
    """Run the proof of `flow` with a capture on `interface` of `wire`, the physical link.

    `mtu` is the physical link's, `lossy` and `round_trip_s` its conditions; `require_daemons`
    raises where a dead daemon explains a failure.  Leaves the method healed.
    """
    sightings = follow_pings(flow.source, flow.target, wire=wire, interface=interface, count=PINGS)
    if not sightings.all_took(flow.encapsulation, lossy=lossy):
        require_daemons()
    overhead = _overhead(sightings, flow.encapsulation)
    largest = _effective_mtu(flow, mtu, overhead or 0, round_trip_s)
    control, control_detail, control_raw = _negative_control(
        flow, round_trip_s=round_trip_s, lossy=lossy
    )
    packets = UnderlayPackets(
        none=sightings.count("none"),
        gre=sightings.count("gre"),
        vxlan=sightings.count("vxlan"),
        geneve=sightings.count("geneve"),
        sleeve=sightings.count("sleeve"),
        stray=sightings.stray,
    )
    proof = PathProof(
        encapsulation=flow.encapsulation,
        underlay_packets=packets,
        proved=sightings.all_took(flow.encapsulation, lossy=lossy),
        negative_control=control,
        overhead_bytes=overhead,
        effective_mtu=largest,
        packets_sent=2 * PINGS,
        control_detail=control_detail,
        evidence=f"raw/path.pcap: {len(sightings.frames)} frames on {interface}, "
        f"{sightings.dropped} dropped",
    )
    return Proved(
        proof,
        {
            "path.pcap": write_pcap(sightings.frames),
            "path-ping.txt": sightings.transcript.encode(),
            "control-ping.txt": control_raw.encode(),
        },
    )


def _overhead(sightings: Sightings, encapsulation: Encapsulation) -> int | None:
    """Outer IP length less inner IP length of the first packet seen as promised, in bytes."""
    for sighting in sightings.seen:
        if sighting.decoded.encapsulation != encapsulation:
            continue
        if encapsulation == "none":
            return 0
        outer, inner = sighting.decoded.outer, sighting.packet
        if outer and outer.total_length and inner.total_length:
            return outer.total_length - inner.total_length
    return None


def _effective_mtu(flow: Flow, mtu: int, overhead: int, round_trip_s: float) -> int | None:
    """The largest IP packet, in bytes, that crosses with DF set; None if not even 576 does."""
    with flow.source.entered():
        pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with pinger:
        pinger.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        pinger.connect((str(flow.target.address), 0))
        passes = _probe_of(pinger, round_trip_s)
        # Nearly always the link's MTU, or that less the overhead, is the answer: ask these first.
        if passes(mtu):
            return mtu
        low, high = _SMALLEST_MTU, mtu
        guess = mtu - overhead
        if low < guess < high:
            if passes(guess):
                low = guess
                if not passes(guess + 1):
                    return guess
            else:
                high = guess
        elif not passes(low):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return low


def _probe_of(pinger: socket.socket, round_trip_s: float) -> Callable[[int], bool]:
    """A function that tells whether a packet of so many bytes gets an echo reply."""
    identifier = int.from_bytes(os.urandom(2), "big")
    sequence = 0

    def passes(size: int) -> bool:
        nonlocal sequence
        for timeout_s in (round_trip_s + 0.3, round_trip_s + 0.6):
            sequence += 1
            # Sum of zeros aside, the Internet checksum is that of the three words (RFC 1071).
            total = 0x0800 + identifier + sequence
            checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            header = struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence)
            try:
                pinger.send(header + bytes(size - 20 - len(header)))
            except OSError:
                return False  # EMSGSIZE: larger than the source's own interface takes
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                pinger.settimeout(left)
                try:
                    reply = pinger.recv(65535)
                except TimeoutError:
                    break
                except OSError:
                    return False  # a router's "fragmentation needed" (RFC 1191)
                kind, _, _, got_id, got_sequence = struct.unpack_from("!BBHHH", reply, 20)
                if (kind, got_id, got_sequence) == (0, identifier, sequence):
                    return True
        return False

    return passes


def _negative_control(flow: Flow, *, round_trip_s: float, lossy: bool) -> tuple[bool, str, str]:
    """Cut, look, heal, look: whether all went as predicted, in words, and the raw pings."""
    transcript: list[str] = []

    def replies(result: Completed) -> int:
        transcript.append(f"{flow.source}$ {command_line(result.argv)}\n{result.stdout}")
        return result.stdout.count("time=")

    address = flow.target.address
    flow.cut()
    transcript.append(f"--- cut: {flow.cut_text}")
    try:
        argv = ["ping", "-n", "-c5", "-i0.1", f"-W{0.4 + 1.5 * round_trip_s:g}", str(address)]
        during = replies(flow.source.run(argv, check=False, timeout_s=30))
    finally:
        flow.heal()
        transcript.append("--- healed")
    after = replies(ping_until_answered(flow.source, address, timeout_s=_PATIENCE_S))
    went_as_predicted = during == 0 if flow.cut_stops_traffic else during >= (1 if lossy else 5)
    effect = "stops" if during == 0 else f"{during} of 5 replies"
    back = "back" if after else "NOT back"
    detail = f"{flow.cut_text}: {effect}; healed: {back}"
    return went_as_predicted and after > 0, detail, "\n".join(transcript)
