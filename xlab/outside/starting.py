"""A lab that stays: start one (`running_lab` finds it again)."""

from __future__ import annotations

from xlab.errors import UsageError
from xlab.experiments.recorder import Recorder, Watch
from xlab.experiments.runner import Bench
from xlab.kernel import capabilities
from xlab.sandbox import registry
from xlab.sandbox.containment import Limits
from xlab.scenario import blueprint
from xlab.scenario.request import Request


def up(
    request: Request,
    *,
    name: str | None = None,
    until: str | None = None,
    empty: bool = False,
    watch: Watch = lambda _: None,
    guarded: bool = False,
    limits: Limits | None = None,
) -> Recorder:
    """Start a lab that stays; returns when it has been built, and what was found on the way.

    Its name is the scenario's unless given.  With `until` the build ends where that stage begins;
    with `empty` hosts are wired, and that is all.  A lab in which claims do not hold stays; one
    that cannot be built does not, and the error is raised.  UsageError if the name is taken.  In
    one that is `guarded` people's files are read-only (`lab.machine_root`); with `limits` it is one
    for the work of strangers (`containment`).
    """
    design = blueprint.design(request)
    name = registry.validated(name or design.scenario.name)
    if why := registry.taken(name):
        raise UsageError(why)
    if until is not None:
        until = design.scenario.stage(until)
    recorder = Recorder(design, watch)
    recorder.blueprint = blueprint.equip(design, capabilities.probe())
    with Bench(recorder, name=name, guarded=guarded, limits=limits) as bench:
        bench.build(until=until, empty=empty)
        bench.stay()
    return recorder
