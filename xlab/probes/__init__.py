"""Probes: what is measured between two nodes of a lab.

    measure_round(pairs, plan, generator)
       idle window ─ h1/c1 > h2/c1: tcp ─ h1 > h2: rr ─ h1/c1 > h2/c1: udp ─ ...

Every probe between every pair once, in random order: what disturbs the machine for a while then
meets all pairs alike (Abedi & Brecht, ICPE 2017).  A path that lets nothing through gives failed
samples in bounded time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from xlab.probes.connections import probe_connections
from xlab.probes.cpu import Usage, measure_idle
from xlab.probes.facts import Pair, Plan, Sampled
from xlab.probes.latency import probe_rr, probe_rtt
from xlab.probes.loaded import probe_loaded_rtt
from xlab.probes.path import probe_path_mtu
from xlab.probes.throughput import probe_tcp, probe_tcp_parallel, probe_udp
from xlab.probes.varied import probe_flows, probe_message_sizes, probe_small_packets
from xlab.scenario import probe_names

__all__ = ["MORE_PROBES", "PROBES", "Pair", "Plan", "Sampled", "measure_round"]

#: What needs nothing but the two ends.
_BETWEEN_TWO: dict[str, Callable[[Pair, Plan], Sampled]] = {
    "rtt": probe_rtt,
    "rr": probe_rr,
    "tcp-parallel": probe_tcp_parallel,
    "loaded-rtt": probe_loaded_rtt,
    "connections": probe_connections,
    "small-packets": probe_small_packets,
    "message-sizes": probe_message_sizes,
    "flows": probe_flows,
    "path-mtu": probe_path_mtu,
}

#: Those of every run.
PROBES = tuple(probe_names.USUAL)
#: And those that must be asked for.
MORE_PROBES = (*probe_names.BETWEEN_TWO, *probe_names.OF_LAB)


def measure_round(
    pairs: Sequence[Pair],
    plan: Plan,
    generator: random.Random,
    probes: Sequence[str] = PROBES,
    *,
    starting: Callable[[str, Pair], None] | None = None,
) -> Iterator[Sampled]:
    """One round: yields what each probe found as soon as it has ended; `starting` hears of each.

    Only probes between two ends: see `whole.measure_lab` for the others.

    Raises CapabilityError if a tool is missing; whatever else goes wrong is a failed sample.
    """
    probes = [p for p in probes if p in probe_names.USUAL or p in probe_names.BETWEEN_TWO]
    if not probes:
        return
    idle = measure_idle(plan.idle_s)
    tcp_medians: dict[int, float | None] = {}
    for number, probe in shuffled(len(pairs), probes, generator):
        if starting:
            starting(probe, pairs[number])
        sampled = _run(probe, pairs[number], plan, idle, tcp_medians.get(number))
        if probe == "tcp":
            tcp_medians[number] = sampled.measurements[0].median
        yield sampled


def shuffled(pairs: int, probes: Sequence[str], generator: random.Random) -> list[tuple[int, str]]:
    """Every probe of every pair (by number) in random order, but for each pair TCP before UDP."""
    order = [(number, probe) for number in range(pairs) for probe in probes]
    generator.shuffle(order)
    for number in range(pairs):
        tcp, udp = (number, "tcp"), (number, "udp")
        if tcp in order and udp in order and order.index(udp) < order.index(tcp):
            i, j = order.index(udp), order.index(tcp)
            order[i], order[j] = tcp, udp
    return order


def _run(
    probe: str, pair: Pair, plan: Plan, idle: Usage, tcp_bits_per_second: float | None
) -> Sampled:
    if probe == "tcp":
        return probe_tcp(pair, plan, idle)
    if probe == "udp":
        return probe_udp(pair, plan, tcp_bits_per_second)
    return _BETWEEN_TWO[probe](pair, plan)
