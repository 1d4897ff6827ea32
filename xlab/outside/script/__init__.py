"""`xlab script`: a scenario as a shell script that needs no xlab.

request ── blueprint ── sandbox: build with a log (xlab.lab.commands) ── shell text ── you

Nothing of a script is written by hand a second time: the scenario is built for real, and what is
printed is what the engine did.  Claims are not checked then; the script does that when it runs.
"""

from __future__ import annotations

from xlab.errors import CapabilityError, UsageError
from xlab.kernel import capabilities
from xlab.lab import commands
from xlab.outside.script import one_host, whole
from xlab.outside.script.claims import WrittenClaims
from xlab.sandbox.launching import run_inside
from xlab.scenario import blueprint
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.request import Request


def write(request: Request, *, host: str | None = None) -> str:
    """The script: of the whole network, or with `host` of that one real machine.

    Raises UsageError for what makes no sense, CapabilityError for what this machine, or a shell
    script, can't.
    """
    design = blueprint.design(request)
    if host is not None and host not in design.underlay.hosts:
        there_are = ", ".join(design.underlay.hosts[:8])
        raise UsageError(f"--host {host}: there is no such host; there are {there_are}")
    if host is not None and (
        request.rate_bits_per_second or request.delay_ms or request.loss_ratio
    ):
        raise UsageError(
            "--host: links of real machines are what they are; leave --rate, --delay and --loss out"
        )
    machine = capabilities.probe()
    equipped = blueprint.equip(design, machine)
    plain = all(conditioned.imposer.plain for conditioned in equipped.conditions.values())
    if not plain and host is None:
        raise CapabilityError(
            f"no plain tool here puts a delay or loss on links: {machine.netem.detail}",
            machine.netem.remedy or "leave it out, on the command line and in the topology",
        )
    return str(run_inside(lambda: _write(equipped, host)).result)


def _write(equipped: Blueprint, host: str | None) -> str:
    """Build the lab and write down how; in pid 1."""
    kept = commands.keep()
    lab = equipped.wire()
    claims = WrittenClaims(lab, kept)
    with lab.blaming_daemons():
        flow = equipped.build(lab, claims)
        if host is not None:
            return one_host.script(kept.entries, equipped, host)
        claims.prove(flow)
    if kept.beyond:
        raise kept.beyond
    return whole.script(
        kept.entries,
        equipped,
        round_trip_s=lab.round_trip_s,
        silence_s=claims.silence_s,
        lossy=lab.lossy,
    )
