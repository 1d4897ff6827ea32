"""What is measured between whom, and what comes back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xlab.errors import CapabilityError
from xlab.probes.cpu import NO_USAGE, Usage
from xlab.record import record, stats
from xlab.record.record import Measurement, Route

if TYPE_CHECKING:
    from xlab.lab.node import Node


@dataclass(frozen=True, slots=True)
class Pair:
    """Two end points; data flows from `source` to `target`."""

    source: Node
    target: Node
    route: Route
    #: Largest IP packet that crosses whole; UDP datagrams are made to fit.
    path_mtu: int = 1500
    #: MTU of the physical network, in bytes.
    link_mtu: int = 1500
    #: What the proof saw an encapsulation add to each packet; None where nothing was looked for.
    overhead_bytes: int | None = None

    @property
    def direction(self) -> str:
        return f"{self.source.name} > {self.target.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each probe of a round takes, in seconds, and which round it is."""

    #: Of a probe of throughput; the others' times follow from it.
    duration_s: float
    #: In virtual time less is enough, and a sample is a whole course of it.
    virtual: bool = False
    #: Some take less: three pairs are measured in 9 seconds.
    quick: bool = False
    round: int = 1
    build: int = 1
    parallel_streams: int = 4
    #: Daemons that move packets in user space: their own CPU time is told apart.
    daemon_pids: Sequence[int] = ()
    #: What the machine did when left alone, before the round.
    idle: Usage = NO_USAGE
    #: What other probes have found in this round between the same two, by their names.
    earlier: Mapping[str, Sampled] = field(default_factory=dict)

    @property
    def tcp_parallel_s(self) -> float:
        # iperf3 that is told to stop may lose what it knows (a longjmp out of malloc): seldom, but
        # with the virtual clock again and again.  Whole seconds end by themselves.
        return (0.5 if self.quick and not self.virtual else 1.0) * self.duration_s

    @property
    def udp_s(self) -> float:
        return (0.5 if self.quick else 1.0) * self.duration_s

    @property
    def rtt_s(self) -> float:
        # Where the clock leaps from echo to echo they are cheap.
        return (
            3 * self.duration_s
            if self.virtual
            else (0.2 if self.quick else 1 / 3) * self.duration_s
        )

    @property
    def transactions_s(self) -> float:
        """One after the other: requests and replies, or connections opened and closed."""
        return (0.3 if self.quick else 1 / 3) * self.duration_s

    @property
    def transactions(self) -> int:
        """Where their number is fixed."""
        return round(1000 * self.duration_s)

    @property
    def varied_s(self) -> float:
        """Each transfer of a probe that makes several."""
        return 0.5 * self.duration_s

    @property
    def idle_s(self) -> float:
        """The machine left alone, to know what of its load is not ours."""
        return (0.3 if self.quick else 1.0) * self.duration_s

    @property
    def at_rest_s(self) -> float:
        """Links watched while nobody sends: a router's heartbeats may be ten seconds apart."""
        return max(10.0, self.duration_s)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one probe found out: a measurement or several, and what the tools printed."""

    measurements: tuple[Measurement, ...]
    #: File name, unique within a run, and content.
    raw: Mapping[str, bytes]


@dataclass(slots=True)
class Trial:
    """One probe while it runs, and what its measurements have in common."""

    probe: str
    pair: Pair
    plan: Plan
    streams: int = 1
    #: Which of several runs of the probe in this round.
    variant: str = ""
    started_at: str = field(default_factory=record.now)
    raw: dict[str, bytes] = field(default_factory=dict)

    def keep(self, what: str, content: str) -> None:
        """Keep a tool's output; `what` ends in the file's extension."""
        if content:
            ends = self.pair.direction.replace("/", ".").replace(" > ", "-")
            build_round = f"b{self.plan.build}-r{self.plan.round}"
            run = f"{self.probe}-{self.variant}" if self.variant else self.probe
            name = f"{build_round}-{self.pair.route}-{ends}-{run}-{what}"
            self.raw[name] = content.encode()

    def measurement(
        self,
        metric: str,
        unit: str,
        samples: Sequence[float],
        *,
        failed_samples: int = 0,
        detail: Mapping[str, Any],
    ) -> Measurement:
        return Measurement(
            probe=self.probe,
            metric=metric,
            unit=unit,
            direction=self.pair.direction,
            streams=self.streams,
            round=self.plan.round,
            build=self.plan.build,
            started_at=self.started_at,
            samples=tuple(samples),
            failed_samples=failed_samples,
            median=stats.median(samples),
            route=self.pair.route,
            detail={**detail, "raw": sorted(self.raw)},
        )

    def failed(self, error: Exception, metrics: Mapping[str, str], **detail: Any) -> Sampled:
        """No measurement of a probe came about: `metrics` are all of them, with their units.

        Raises CapabilityError as it is: a tool that is not installed is not a failed sample, this
        machine can't measure that.
        """
        if isinstance(error, CapabilityError):
            raise error
        found = (self.failure(name, unit, str(error), **detail) for name, unit in metrics.items())
        return Sampled(tuple(found), self.raw)

    def failure(self, metric: str, unit: str, reason: str, **detail: Any) -> Measurement:
        """A measurement that did not come about: one failed sample, and why."""
        return self.measurement(
            metric, unit, (), failed_samples=1, detail={**detail, "error": reason}
        )


def two_cores(streams: int = 1) -> str:
    """ "client,server" on two processors, as iperf3 -A and netperf -T take it.

    "" where pinning would only constrain.  Left to the scheduler, both ends share a core at times
    and at times don't, and a request/response takes 16 or 60 us accordingly.
    """
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2 or (streams > 1 and len(processors) > 2):
        return ""
    return f"{processors[0]},{processors[1]}"
