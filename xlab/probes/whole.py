"""Probes of a lab as a whole, one after the other, those that break something last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from xlab.lab import counters
from xlab.lab.lab import Lab
from xlab.probes.cost import probe_control_plane, probe_memory
from xlab.probes.facts import Pair, Plan, Sampled
from xlab.probes.recovery import probe_recovery
from xlab.scenario import probe_names
from xlab.scenario.scenario import Flow


@dataclass(frozen=True, slots=True)
class Site:
    """A lab that stands."""

    lab: Lab
    #: The method's, and its ends.
    flow: Flow
    pair: Pair
    #: Before it was built.
    memory_before: counters.Memory


def measure_lab(
    site: Site,
    plan: Plan,
    probes: Collection[str],
    *,
    disturbing: Iterable[int] = (1,),
    starting: Callable[[str], None] = lambda _: None,
) -> Iterator[Sampled]:
    """Those of `probes` that are of the lab as a whole; `starting` hears of each.

    Those that break something are done once for each of the rounds `disturbing`.
    """
    for probe in probe_names.OF_LAB:
        if probe not in probes:
            continue
        rounds = disturbing if probe in probe_names.DISTURBING else (plan.round,)
        for number in rounds:
            starting(probe)
            yield from _run(probe, site, dataclasses.replace(plan, round=number))


def _run(probe: str, site: Site, plan: Plan) -> Iterable[Sampled]:
    match probe:
        case "memory":
            return [probe_memory(site.pair, plan, site.lab, site.memory_before)]
        case "control-plane":
            return [probe_control_plane(site.pair, plan, site.lab)]
        case "recovery":
            return probe_recovery(site.pair, plan, site.lab, site.flow)
    raise ValueError(f"{probe!r} is no probe of a whole lab")
