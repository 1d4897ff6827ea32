"""Was the machine quiet while a run was measured?  Judged as `xlab compare` does, from one record.

Plain hosts are measured in every round though nothing about them changes: how far their rounds lie
apart is what the machine did.  Before each round the lab is left alone; whoever is busy then is
somebody else, but for what its daemons do at rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from xlab.experiments.compare import noise
from xlab.record import intervals, stats
from xlab.record.comparisons import Noise
from xlab.record.figures import by_metric
from xlab.record.record import Route, RunRecord
from xlab.report import text

#: Below so many rounds nobody can say how far they lie apart.
LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Literal["quiet", "noisy", "unknown"]
    #: In words; why noisy, or why unknown.
    reasons: tuple[str, ...]


def judged(record: RunRecord) -> Judgement | None:
    """The verdict; None where nothing was measured, and where the machine has no part in it."""
    if not record.measurements or record.environment.clock == "virtual":
        return None
    cores = record.environment.cores
    why = list(_busy(record, cores))
    plain = _plain(record)
    rounds = max((len(values) for values in plain.values()), default=0)
    if rounds >= LEAST_ROUNDS:
        found = noise.judge((), plain, cores=max(cores, 1))
        why += reasons(found)
    if why:
        return Judgement("noisy", tuple(why))
    if rounds < LEAST_ROUNDS:
        few = text.count(rounds, "round")
        return Judgement("unknown", (f"{few} of plain hosts can't say; `--repeat 5` would",))
    return Judgement("quiet", ())


def reasons(noise: Noise) -> Iterator[str]:
    """Why a machine was called noisy; with metrics by the names that they have in tables."""
    return (text.with_labels(text.plain(reason)) for reason in noise.reasons)


def in_words(found: Judgement) -> str:
    """A sentence."""
    if found.verdict == "quiet":
        return "The machine was quiet: nothing speaks against the figures."
    first, *more = found.reasons
    if found.verdict == "unknown":
        return f"Whether the machine was quiet nobody can say: {first}."
    others = f", and {text.count(len(more), 'more reason')}" if more else ""
    return f"The machine was noisy ({first}{others}): take differences for hints."


def _plain(record: RunRecord) -> dict[tuple[str, int], list[float]]:
    """What plain hosts gave by metric and streams, round by round."""
    route: Route = "method" if record.scenario == "baseline" else "baseline"
    told = [m for m in record.measurements if m.route == route]
    found = {}
    for key, chosen in by_metric(told).items():
        values = intervals.by_round(chosen)
        found[key] = [values[number] for number in sorted(values)]
    return found


def _busy(record: RunRecord, cores: int) -> Iterator[str]:
    shares = [
        busy / elapsed
        for m in record.measurements
        for busy, elapsed in [(m.detail.get("idle_busy_s"), m.detail.get("elapsed_s"))]
        # Nobody has checked a measurement's detail when the record was read.
        if isinstance(busy, int | float)
        and isinstance(elapsed, int | float)
        and 0 <= busy < 1e9
        and 1e-3 < elapsed < 1e9
    ]
    busy = stats.median(shares)
    if busy is not None and busy > noise.FOREIGN_SHARE * cores:
        yield f"{busy:.1f} of {cores} processors were busy while nothing was measured"
