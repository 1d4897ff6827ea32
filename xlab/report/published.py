"""What others measured for these methods: context beside a figure of ours, never a yardstick.

Ratios to plain host networking, between real machines mostly; those of one kernel need not agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlab.record.figures import datapath_class
from xlab.record.record import RunRecord

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Published:
    """The range of what was published on a method."""

    throughput: Range
    latency: Range | None
    #: What was measured, where that is not quite the method.
    subject: str
    source: str
    #: Whether it tells nothing of the same method through a datapath in user space.
    kernel_only: bool = False


_BRIDGE = Published(
    (0.87, 0.98), (1.0, 1.2), "Docker bridge", "moby #33115; container network benchmarks; qperf"
)
#: No figure for Open vSwitch with GRE that could be verified was found.
_OVS_TUNNEL = Published(
    (0.65, 0.92),
    (1.4, 1.9),
    "Open vSwitch's kernel datapath with Geneve, not GRE",
    "Antrea on Linux 5.14 to 6.8; ONCache; infraBuilder 2024",
    kernel_only=True,
)
_WEAVE_FASTDP = Published(
    (0.49, 0.98),
    (1.85, 1.85),
    "Weave fast datapath, MTU 1376 to 8916",
    "Slim, NSDI 2019; infraBuilder 2020",
)
_WEAVE_SLEEVE = Published(
    (0.06, 0.2), (4.05, 4.05), "Weave sleeve", "a benchmark of 2015; a later user report"
)

_KNOWN = {
    ("bridge", "none"): _BRIDGE,
    ("ovs-gre", "gre"): _OVS_TUNNEL,
    ("weave", "vxlan"): _WEAVE_FASTDP,
    ("weave", "sleeve"): _WEAVE_SLEEVE,
}


def published(record: RunRecord) -> Published | None:
    """What there is on the method of a record whose path is proved."""
    if record.path is None or not record.path.proved:
        return None
    found = _KNOWN.get((record.scenario, record.path.encapsulation))
    if found and found.kernel_only and datapath_class(record) == "userspace":
        return None
    return found


def in_words(range_: Range) -> str:
    """A range as it was published: "0.87–0.98", or one figure."""
    return "–".join(dict.fromkeys(f"{end:g}" for end in range_))
