"""The proof of the path: which way the packets of a flow went, and that it was no accident.

    1. Send pings whose payload bears a token nobody else knows, and listen on the physical link.
       Every one must pass there, once each way, in the encapsulation that the method promises.
    2. Cut the mechanism: the flow must stop (or, for an inverted control, go on).  Heal it: back.
    3. Find the largest packet that passes whole, and the bytes the encapsulation adds.

Packets are matched by the token in the innermost payload, so address translation on the way does
not matter; whatever else is on the link is counted as stray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from xlab.kernel.clock import Deadline
from xlab.kernel.packets import Encapsulation, write_pcap
from xlab.kernel.processes import Completed, command_line
from xlab.lab.capture import Sightings, follow_pings
from xlab.lab.node import Node
from xlab.lab.path_mtu import largest_packet
from xlab.lab.reachability import ping_until_answered
from xlab.record.record import PathProof, UnderlayPackets
from xlab.scenario.scenario import Flow

PINGS = 10

#: How long a healed flow may take to be back.
_PATIENCE_S = 10.0
#: What the control sends while the mechanism is cut.
_CONTROL_PINGS, _BETWEEN_S = 5, 0.1
#: How long an answer is waited for that is to stay away; and how late all may come, together, that
#: are to come: packets may have to pass a daemon, which the machine lets stand still for a while.
_SILENCE_S, _LATE_S = 0.4, 2.0


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
    largest = largest_packet(
        flow.source,
        flow.target,
        most=mtu,
        guess=mtu - (overhead or 0),
        round_trip_s=round_trip_s,
    )
    control, control_detail, control_raw = _negative_control(
        flow, round_trip_s=round_trip_s, lossy=lossy
    )
    by_kind = {kind: sightings.count(kind) for kind in get_args(Encapsulation)}
    proof = PathProof(
        encapsulation=flow.encapsulation,
        underlay_packets=UnderlayPackets(**by_kind, stray=sightings.stray),
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


def _negative_control(flow: Flow, *, round_trip_s: float, lossy: bool) -> tuple[bool, str, str]:
    """Cut, look, heal, look: whether all went as predicted, in words, and the raw pings."""
    transcript: list[str] = []

    def replies(result: Completed) -> int:
        transcript.append(f"{flow.source}$ {command_line(result.argv)}\n{result.stdout}")
        return result.stdout.count("time=")

    def ping(count: int, patience_s: float) -> int:
        waits = f"-W{round(patience_s + 1.5 * round_trip_s, 2):g}"
        argv = ["ping", "-n", f"-c{count}", f"-i{_BETWEEN_S:g}", waits, str(address)]
        return replies(flow.source.run(argv, check=False, timeout_s=30))

    def ping_one_by_one() -> Iterator[int]:
        # -W is for the first reply alone.  After that ping waits for twice the longest round trip,
        # or the interval (iputils, __schedule_exit): of five, an ovs-vswitchd that stood still for
        # 0.35 s had lost three.
        late = Deadline(_LATE_S)
        for _ in range(_CONTROL_PINGS):
            yield ping(1, max(_SILENCE_S, late.left_s()))
            time.sleep(_BETWEEN_S)

    address = flow.target.address
    flow.cut()
    transcript.append(f"--- cut: {flow.cut_text}")
    try:
        if flow.cut_stops_traffic:
            during = ping(_CONTROL_PINGS, _SILENCE_S)
        else:
            during = sum(ping_one_by_one())
    finally:
        flow.heal()
        transcript.append("--- healed")
    after = replies(ping_until_answered(flow.source, address, timeout_s=_PATIENCE_S))
    least = 1 if lossy else _CONTROL_PINGS
    went_as_predicted = during == 0 if flow.cut_stops_traffic else during >= least
    effect = "stops" if during == 0 else f"{during} of {_CONTROL_PINGS} replies"
    back = "back" if after else "NOT back"
    detail = f"{flow.cut_text}: {effect}; healed: {back}"
    return went_as_predicted and after > 0, detail, "\n".join(transcript)
