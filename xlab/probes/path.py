"""What fits through a path, and what the method adds to it."""

from __future__ import annotations

from xlab.errors import XlabError
from xlab.lab.path_mtu import SMALLEST_MTU, largest_packet
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe
from xlab.probes.latency import first_contact


@probe(
    Kind.BETWEEN_TWO,
    "path-mtu",
    "the largest packet that passes, and what the method adds to each",
    place=6,
)
def probe_path_mtu(pair: Pair, plan: Plan) -> Sampled:
    """`path_mtu_bytes`, by echoes with DF set; `overhead_bytes` where the proof has seen it."""
    trial = Trial("path-mtu", pair, plan)
    detail: dict[str, object] = {
        "tool": "ICMP echo with DF from a raw socket",
        "link_mtu_bytes": pair.link_mtu,
    }
    try:
        largest = largest_packet(
            pair.source,
            pair.target,
            most=pair.link_mtu,
            guess=pair.path_mtu,
            round_trip_s=first_contact(pair) or 0.0,
        )
        if largest is None:
            raise XlabError(f"not even a packet of {SMALLEST_MTU} bytes was answered")
        found = trial.measurement("path_mtu_bytes", "B", [float(largest)], detail=detail)
    except (XlabError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        found = trial.failure("path_mtu_bytes", "B", said, **detail)
    measurements = [found]
    if pair.overhead_bytes is not None:
        seen = {"tool": "capture on the physical link, see path", "what": "IP in IP, without L2"}
        measurements.append(
            trial.measurement("overhead_bytes", "B", [float(pair.overhead_bytes)], detail=seen)
        )
    return Sampled(tuple(measurements), trial.raw)
