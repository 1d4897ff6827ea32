"""`xlab script`: a scenario as a shell script that needs no xlab.

request ── job ── sandbox: build with a transcript (xlab.lab.commands) ── shell text ── you

Nothing of a script is written by hand a second time: the scenario is built for real, and what is
printed is what the engine did.  Claims are not checked then; the script does that when it runs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NoReturn

from xlab.errors import CapabilityError, UsageError, XlabError
from xlab.kernel import capabilities
from xlab.lab import commands
from xlab.lab.lab import Lab
from xlab.outside.script import one_host, whole
from xlab.outside.script.claims import WrittenClaims
from xlab.sandbox import controller, sandbox
from xlab.scenario import blueprint
from xlab.scenario.blueprint import Job
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
    ordered = blueprint.equip(design, machine)
    plain = all(conditioned.imposer.plain for conditioned in ordered.conditions.values())
    if not plain and host is None:
        raise CapabilityError(
            f"no plain tool here puts a delay or loss on links: {machine.netem.detail}",
            machine.netem.remedy or "leave it out, on the command line and in the topology",
        )
    with (
        sandbox.launch(lambda *channels: _serve(ordered, host, *channels)) as box,
        closing(controller.Client(box.channel)) as client,
    ):
        text: str = client.call("write", {})
    return text


def _serve(
    ordered: Job,
    host: str | None,
    channel: socket.socket | None,
    listener: socket.socket | None,
) -> NoReturn:
    def answer(_: Mapping[str, Any], __: controller.Emit) -> str:
        return _write(ordered, host)

    controller.serve({"write": answer}, channel, listener)


def _write(ordered: Job, host: str | None) -> str:
    """Build the lab and write down how; in pid 1."""
    design = ordered.design
    kept = commands.keep()
    lab = Lab(
        design.underlay, ovs=ordered.ovs, mtu=design.request.mtu, conditions=ordered.conditions
    )
    claims = WrittenClaims(lab, kept)
    try:
        flow = design.scenario.build(lab, design.plan, design.size, design.settings, claims)
        if host is not None:
            return one_host.script(kept.entries, ordered, host)
        claims.prove(flow)
    except XlabError:
        lab.require_daemons()  # a dead one is the better explanation
        raise
    if kept.beyond:
        raise kept.beyond
    return whole.script(
        kept.entries,
        ordered,
        round_trip_s=lab.round_trip_s,
        silence_s=claims.silence_s,
        lossy=lab.lossy,
    )
