"""How long a flow takes to be back after something broke and was mended.

Of the host at the flow's far end: its cable pulled and put back, each of its daemons killed and
started again as its supervisor would, its power cut and switched on.  In this order, since every
one leaves the network more shaken than the one before.
"""

from __future__ import annotations

from collections.abc import Iterator

from xlab.errors import XlabError
from xlab.faults import kinds
from xlab.faults.faults import Faults
from xlab.faults.recovery import measure_recovery
from xlab.probes.facts import Plan, Sampled, Trial
from xlab.probes.kinds import Kind, Site, probe


@probe(
    Kind.DISTURBING,
    "recovery",
    "seconds until the flow is back after a link flap, killed daemons, a host's reboot",
    doing="how long the flow is gone after a fault",
)
def probe_recovery(site: Site, plan: Plan) -> Iterator[Sampled]:
    """One measurement a fault, `link_flap_recovery_s` and so on, from when mending began.

    A flow that did not stop at all was back after 0 s; `stopped` in the detail tells.  Of links
    that lose packets the detail has the shortest gap that was not taken for chance.
    """
    faults, pair = Faults(site.lab, site.flow), site.pair
    broken = ""
    for metric, fault in kinds.of_host(site.lab.host_of(pair.target)).items():
        trial = Trial("recovery", pair, plan)
        detail = {"tool": "ICMP echo every 10 ms", "fault": str(fault), "mended_by": fault.cure}
        try:
            if broken:
                raise XlabError(f"not tried: the flow was not back after `{broken}`")
            found = measure_recovery(faults, fault, pair.source, pair.target)
            said = {**detail, "stopped": found.stopped, "mend_s": found.mend_s}
            if site.lab.lossy:
                said["shortest_gap_s"] = found.shortest_gap_s
            measurement = trial.measurement(metric, "s", [found.recovery_s], detail=said)
        except XlabError as error:
            broken = broken or str(fault)
            measurement = trial.failure(metric, "s", str(error), **detail)
        yield Sampled((measurement,), trial.raw)
