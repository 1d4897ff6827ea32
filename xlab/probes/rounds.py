"""A round of measurement.

    measure_round(pairs, plan, generator, probes)
       idle window ─ h1/c1 > h2/c1: tcp ─ h1 > h2: rr ─ h1/c1 > h2/c1: udp ─ ...

Every probe between every pair once, in random order: what disturbs the machine for a while then
meets all pairs alike (Abedi & Brecht, ICPE 2017).  A path that lets nothing through gives failed
samples in bounded time.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from xlab.probes.catalog import ALL, BETWEEN_TWO, OF_LAB
from xlab.probes.cpu import measure_idle
from xlab.probes.facts import Pair, Plan, Sampled
from xlab.probes.kinds import Kind, Site

#: Of the programs of a probe, and their end; on two processors that have other things to do, too.
START_S = 0.15


def measure_round(
    pairs: Sequence[Pair],
    plan: Plan,
    generator: random.Random,
    probes: Sequence[str],
    *,
    starting: Callable[[str, Pair], None] = lambda *_: None,
) -> Iterator[Sampled]:
    """One round: yields what each probe found as soon as it has ended; `starting` hears of each.

    Only probes between two ends: see `measure_lab` for those of the lab.

    Raises CapabilityError if a tool is missing; whatever else goes wrong is a failed sample.
    """
    probes = [probe for probe in probes if probe in BETWEEN_TWO]
    if not probes:
        return
    idle = measure_idle(plan.idle_s)
    earlier: list[dict[str, Sampled]] = [{} for _ in pairs]
    for number, probe in shuffled(len(pairs), probes, generator):
        starting(probe, pairs[number])
        known = dataclasses.replace(plan, idle=idle, earlier=earlier[number])
        earlier[number][probe] = BETWEEN_TWO[probe].measure(pairs[number], known)
        yield earlier[number][probe]


def steps_of(probes: Collection[str], pairs: int) -> int:
    """How often something begins in a round: the machine left alone is one of them."""
    return 1 + sum(pairs if probe in BETWEEN_TWO else probe in OF_LAB for probe in probes)


def seconds_of(probes: Collection[str], plan: Plan, pairs: int) -> float | None:
    """What they take by themselves, programs' starts included; None where nobody knows before."""
    if plan.virtual:
        return None
    total = plan.idle_s
    for probe in probes:
        takes = ALL[probe].takes
        if takes is None:
            return None
        total += pairs * (takes(plan) + START_S)
    return total


def shuffled(pairs: int, probes: Sequence[str], generator: random.Random) -> list[tuple[int, str]]:
    """Every probe of every pair (by number) in random order, but after the one it draws on."""
    order = [(number, probe) for number in range(pairs) for probe in probes]
    generator.shuffle(order)
    for number in range(pairs):
        for probe in probes:
            first, then = (number, BETWEEN_TWO[probe].after), (number, probe)
            if first in order and order.index(then) < order.index(first):
                i, j = order.index(then), order.index(first)
                order[i], order[j] = first, then
    return order


def measure_lab(
    site: Site,
    plan: Plan,
    probes: Collection[str],
    *,
    disturbing: Iterable[int] = (1,),
    starting: Callable[[str], None] = lambda _: None,
) -> Iterator[Sampled]:
    """Those of `probes` that are of the lab as a whole, one after the other; as `measure_round`.

    Those that break something are done last, once for each of the rounds `disturbing`.
    """
    for probe in OF_LAB.values():
        if probe.name not in probes:
            continue
        rounds = disturbing if probe.kind is Kind.DISTURBING else (plan.round,)
        for number in rounds:
            starting(probe.name)
            yield from probe.measure(site, dataclasses.replace(plan, round=number))
