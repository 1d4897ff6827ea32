"""Can the figures be trusted?  What the machine did meanwhile that was not ours.

A hypervisor that gives our processors to others (steal), somebody else's processes (how busy the
machine is while all labs are left alone), and a baseline that drifts or leaps from round to round
though nothing about it changed.  Pairing by round takes much of it out of the ratios; what is left
is in their intervals.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

from xlab.kernel.environment import cpu_ticks
from xlab.probes.cpu import measure_idle
from xlab.probes.parse import parse_process_s
from xlab.record import intervals, metrics
from xlab.record.comparisons import Drift, Noise, Round

#: Before each round all labs are left alone for so long.
IDLE_S = 0.5

STEAL_SHARE = 0.02
#: Of all processors.
FOREIGN_SHARE = 0.1
DRIFT_SHARE, DRIFT_P_VALUE = 0.05, 0.05
SPREAD_SHARE = 0.25


@dataclass(slots=True)
class Watch:
    """The machine during one round."""

    load: float
    foreign_busy_cores: float
    #: As `cpu_ticks` has them.
    _begun: tuple[int, int]

    @classmethod
    def begin(cls) -> Watch:
        """Leave the machine alone for a moment, then look on."""
        load = os.getloadavg()[0]
        labs_s = descendants_s()
        idle = measure_idle(IDLE_S)
        # Labs that nobody measures are not quite at rest: daemons poll, routers greet each other.
        labs_share = (descendants_s() - labs_s) / idle.elapsed_s
        return cls(load, max(0.0, idle.busy_share - labs_share), _ticks())

    @classmethod
    def emulated(cls) -> Watch:
        """Of guests whose clock counts instructions: what the machine does meanwhile is nothing."""
        return cls(os.getloadavg()[0], 0.0, (0, 0))

    def steal_share(self) -> float:
        """Of the CPU time since the beginning."""
        if self._begun == (0, 0):
            return 0.0
        passed, stolen = (now - begun for now, begun in zip(_ticks(), self._begun, strict=True))
        return max(0, stolen) / passed if passed > 0 else 0.0


def _ticks() -> tuple[int, int]:
    return cpu_ticks(Path("/proc/stat").read_text(encoding="ascii"))


def descendants_s() -> float:
    """CPU seconds of all processes that descend from this one, which is all processes of its labs.

    Those of their PID namespaces are in our /proc as well, pid_namespaces(7).
    """
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended
            # The command's name, in brackets, may hold anything; state and parent stand behind it.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
            seconds[int(entry.name)] = parse_process_s(stat)[1]
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return sum(seconds[pid] for pid in found)


def is_disturbed(done: Round, *, cores: int) -> bool:
    """Whether others had more of the machine in a round, or just before it, than may be."""
    return done.steal_share > STEAL_SHARE or done.foreign_busy_cores > FOREIGN_SHARE * cores


def judge(
    rounds: Sequence[Round],
    baseline: Mapping[tuple[str, int], Sequence[float]],
    *,
    cores: int,
) -> Noise:
    """The verdict; `baseline` has by (metric, streams) what the rounds gave, in their order."""
    steal = max((done.steal_share for done in rounds), default=0.0)
    busy = median_high([done.foreign_busy_cores for done in rounds] or [0.0])
    drifts = tuple(
        _drift(metric, streams, series)
        for (metric, streams), series in baseline.items()
        if metrics.of(metric).has_ratios and series
    )
    reasons = []
    if steal > STEAL_SHARE:
        reasons.append(
            f"the hypervisor gave up to {steal:.0%} of a round's CPU time to others (steal)"
        )
    if busy > FOREIGN_SHARE * cores:
        reasons.append(
            f"somebody else kept {busy:.1f} of {cores} processors busy while no lab was measured"
        )
    reasons += _unsteady(drifts)
    return Noise("noisy" if reasons else "quiet", tuple(reasons), steal, busy, drifts)


def _drift(metric: str, streams: int, series: Sequence[float]) -> Drift:
    middle = median_high(series)
    change = intervals.slope(series) * (len(series) - 1)
    return Drift(
        metric,
        streams,
        change=change / middle if middle else 0.0,
        p_value=intervals.trend_p_value(series),
        spread=intervals.spread(series),
    )


def _unsteady(drifts: Iterable[Drift]) -> Iterable[str]:
    for drift in drifts:
        if not metrics.of(drift.metric).decides:
            continue
        what = drift.metric + (f", {drift.streams} streams" if drift.streams > 1 else "")
        if abs(drift.change) > DRIFT_SHARE and drift.p_value < DRIFT_P_VALUE:
            yield (
                f"the baseline drifted by {drift.change:+.0%} in {what} "
                f"(trend test: p = {drift.p_value:.2g})"
            )
        elif drift.spread > SPREAD_SHARE:
            yield f"the baseline's rounds lie {drift.spread:.0%} apart in {what}"
