"""Probes of a lab as a whole, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from xlab import census, probe_names
from xlab.lab.lab import Lab
from xlab.probes.cost import probe_control_plane, probe_memory
from xlab.probes.facts import Pair, Plan, Sampled
from xlab.scenario import Flow


@dataclass(frozen=True, slots=True)
class Site:
    """A lab that stands."""

    lab: Lab
    #: The method's, and its ends.
    flow: Flow
    pair: Pair
    #: Before it was built.
    memory_before: census.Memory


def measure_lab(
    site: Site,
    plan: Plan,
    probes: Collection[str],
    *,
    starting: Callable[[str], None] = lambda _: None,
) -> Iterator[Sampled]:
    """Those of `probes` that are of the lab as a whole; `starting` hears of each."""
    for probe in probe_names.OF_LAB:
        if probe in probes:
            starting(probe)
            yield _run(probe, site, plan)


def _run(probe: str, site: Site, plan: Plan) -> Sampled:
    match probe:
        case "memory":
            return probe_memory(site.pair, plan, site.lab, site.memory_before)
        case "control-plane":
            return probe_control_plane(site.pair, plan, site.lab)
    raise ValueError(f"{probe!r} is no probe of a whole lab")
