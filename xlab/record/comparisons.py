"""The outcome of a comparison, as plain data: `compare.json`.

    results/2026-11-24T220000Z-compare/
        compare.json                  all that is here; written whole, when the comparison has ended
        journal.jsonl                 what it was made from: a killed comparison goes on from there
        bridge/b1/                    run.json and raw/ of the first build of that method
        weave+datapath=fastdp/b3/     run.json and raw/ of the third build of that variant

Like a run record it is versioned and additive: a reader ignores fields it does not know, and fields
are never renamed or removed.  Absent figures are None, never zero.  `Comparison` is the whole file;
each class below says what its fields are, and a field without a comment is what its name says.

A figure is identified by (method, metric, streams): metrics have the names of run records.  A value
of a round is the median of the probe's samples in it; a ratio is taken within a round, and only
then summed up over the rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xlab.errors import RecordError
from xlab.kernel.packets import Encapsulation
from xlab.record import record
from xlab.record.record import Clock, DatapathClass, Environment, Route, Status
from xlab.record.stats import Spread

SCHEMA_VERSION = 1
FILE = "compare.json"

#: In the direction that is good for the metric: a lower RTT and a higher rate are both "faster".
#: "unknown": too few builds for an interval.
Verdict = Literal["faster", "slower", "indistinguishable", "unknown"]
#: Why a comparison ended: every interval was narrow enough; the rounds asked for were done, and
#: no more were allowed; the bound on the rounds was reached with some interval still too wide;
#: nothing was left to set beside the baseline.
Ending = Literal["narrow", "planned", "bound", "alone"]


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What was asked for."""

    #: As given on the command line, "weave:datapath=fastdp" say; the baseline is always the first.
    methods: tuple[str, ...]
    probes: tuple[str, ...]
    #: Of each throughput probe.
    duration_s: float
    quick: bool
    #: Rounds to be measured if nothing is said by the widths of intervals, and the bound on them.
    rounds: int
    most_rounds: int
    #: After so many rounds every lab is built anew.
    rounds_per_build: int
    #: Before so many builds of each lab nobody looks at the intervals.
    least_builds: int
    #: Narrow enough: the interval of a ratio to the baseline is within ± this part of its median.
    precision: float
    #: Of the order within each round.
    seed: int
    #: Once a build, when its rounds are done: probes after which a lab is not what it was, and
    #: those of another lab, built for that alone.
    disturbing: tuple[str, ...] = ()
    clock: Clock = "real"


@dataclass(frozen=True, slots=True)
class Build:
    """One lab of a method, from its building to its end."""

    number: int
    #: Where its run.json is, relative to the folder of the comparison.
    folder: str
    status: Status
    reason: str
    claims: int
    claims_held: int
    #: Every packet of the proof took the way it must, and cutting that way had the effect it must.
    path_proved: bool
    #: To build it, check its claims and prove its path, while other labs were being built.
    seconds: float
    #: Why its first try failed, if it is the second.
    first_try: str = ""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """A scenario with its options: what is compared."""

    name: str
    scenario: str
    #: Every option of the scenario.
    settings: dict[str, str]
    #: hosts, containers, mtu, link conditions …: as in a run record.
    parameters: dict[str, Any]
    #: Holds b1/, b2/ …, relative to the folder of the comparison.
    folder: str
    #: "failed": a claim did not hold, the path was not proved, or it broke: not measured from then
    #: on.  "skipped": this machine can't.
    status: Status
    reason: str
    #: e.g. "ovs 3.5.0 userspace (netdev)".
    datapath: str
    #: Methods are ranked within a class only.
    datapath_class: DatapathClass
    encapsulation: Encapsulation | None
    #: Largest IP packet that crosses whole.
    effective_mtu: int | None
    builds: tuple[Build, ...]
    #: What the method adds to each IP packet on the wire; None where nothing was seen.
    overhead_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """Every method once."""

    number: int
    build: int
    started_at: str
    seconds: float
    #: Names of the methods, in the order in which they were measured.
    order: tuple[str, ...]
    #: Of the last minute, when the round began; our own work is in it.
    load: float
    #: Of the CPU time of the round, what the hypervisor gave to others.
    steal_share: float
    #: Processors busy while the machine was left alone before the round, less what the labs used.
    foreign_busy_cores: float


@dataclass(frozen=True, slots=True)
class Point:
    """One metric of one method in one round."""

    method: str
    #: "method": between its containers (its hosts, for the baseline); "control": host to host
    #: through the same datapath, in the same lab.
    route: Route
    metric: str
    streams: int
    unit: str
    round: int
    build: int
    #: Of the samples; None if all failed.
    median: float | None
    samples: int
    failed_samples: int
    #: What the probe said of a failure.
    error: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One thing that broke in one build of a method, and was mended; its rounds were done then."""

    method: str
    build: int
    #: link_flap_recovery_s, say; there is a figure of that name over all builds.
    metric: str
    #: As a person types it: "link h2 down", and "link h2 up".
    fault: str
    mended_by: str
    started_at: str
    #: From when mending began until no answer was missing any more; None if that did not happen.
    recovery_s: float | None
    #: Whether the flow stopped at all.
    stopped: bool | None
    #: How long mending took by itself.
    mend_s: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Estimate(Spread):
    """A spread whose interval is by build; None: too few builds."""

    builds: int


@dataclass(frozen=True, slots=True)
class Ratio(Estimate):
    """An estimate of the rounds' ratios."""

    #: Of what is above the line against what is below it.
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one method, over all rounds; None where nothing was found out."""

    method: str
    metric: str
    streams: int
    unit: str
    higher_is_better: bool
    value: Estimate | None
    #: The control of the same lab; the baseline has none, being its own.
    control: Estimate | None
    #: value / the baseline's value of the same round; None for the baseline itself.
    to_baseline: Ratio | None
    #: value / control of the same round.
    to_control: Ratio | None
    #: Samples that failed, by route; they are in no median.
    failed_samples: dict[Route, int]


def find(figures: Iterable[Figure], method: str, metric: str, streams: int = 1) -> Figure | None:
    """The figure of that method and metric with that many streams, if there is one."""
    key = (method, metric, streams)
    return next((f for f in figures if (f.method, f.metric, f.streams) == key), None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods of one datapath class; `ratio` is method / other, round by round."""

    datapath_class: DatapathClass
    metric: str
    streams: int
    method: str
    other: str
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Place:
    """Where a method stands among those of its datapath class, the baseline not counted."""

    datapath_class: DatapathClass
    metric: str
    streams: int
    method: str
    #: One more than the number of methods that are faster than it; several may share a place.
    place: int
    #: Of how many.
    of: int


@dataclass(frozen=True, slots=True)
class Drift:
    """Whether the baseline changed in the course of the rounds (Mann-Kendall's trend test)."""

    metric: str
    streams: int
    #: From the first round to the last along the median slope (Theil-Sen), as a part of the median.
    change: float
    p_value: float
    #: How far its rounds are apart: from the 10th to the 90th percentile, as a part of the median.
    spread: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Whether the machine was quiet enough for the figures to be trusted."""

    verdict: Literal["quiet", "noisy"]
    #: In words; empty when quiet.
    reasons: tuple[str, ...]
    #: The worst round's.
    steal_share: float
    #: The median round's.
    foreign_busy_cores: float
    drifts: tuple[Drift, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the intervals, after a full set of builds."""

    rounds: int
    builds: int
    #: The widest interval of a ratio to the baseline: half of it, as a part of the ratio; None if
    #: some ratio has no interval.
    widest: float | None
    #: Whose it is: "weave, icmp_rtt_ms" say.
    whose: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """`compare.json`."""

    started_at: str
    ended_at: str
    #: "failed" if any method failed, else "skipped" if any was skipped, else "passed".
    status: Status
    reason: str
    plan: ComparisonPlan
    #: When the baseline was first built; its `datapath` is the baseline's.
    environment: Environment
    #: The baseline first.
    methods: tuple[MethodResult, ...]
    rounds: tuple[Round, ...]
    points: tuple[Point, ...]
    figures: tuple[Figure, ...]
    pairs: tuple[Pair, ...]
    places: tuple[Place, ...]
    noise: Noise
    looks: tuple[Look, ...]
    ending: Ending
    #: How many times it was started: 1, and one more each time it went on after a kill.
    sessions: int = 1
    #: What a reader must know, in words.
    notes: tuple[str, ...] = field(default=())
    #: In the order in which they were measured; none unless the plan has such a probe.
    recoveries: tuple[Recovery, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def baseline(self) -> MethodResult:
        return self.methods[0]

    def to_dict(self) -> dict[str, Any]:
        return record.to_document(self)


def load(path: Path) -> Comparison:
    """Read `compare.json`, given the file or its folder; RecordError names the file and place."""
    return record.load_document(path, from_dict, inside=FILE)


def from_dict(data: object) -> Comparison:
    """A comparison from decoded JSON; RecordError names the place, "rounds[3].order" say."""
    comparison = record.from_document(Comparison, data)
    if not comparison.methods:
        raise RecordError("methods: the baseline is missing")
    return comparison


def save(comparison: Comparison, folder: Path, *, below: Path | None = None) -> Path:
    """Write `folder`/compare.json as `record.write_document` does; returns it.  Raises OSError."""
    file = folder / FILE
    record.write_document(file, comparison.to_dict(), below=below)
    return file
