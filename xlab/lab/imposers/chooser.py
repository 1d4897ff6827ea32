"""Which of them imposes conditions here: the first, in their order, that can and that is there."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from xlab.errors import CapabilityError
from xlab.kernel.capabilities import Machine
from xlab.lab.conditions import LinkConditions
from xlab.lab.imposers.joint import Imposer

_ALL_THERE_IS = LinkConditions(rate_bits_per_second=1e6, delay_ms=1.0, loss_ratio=0.1)


def _found() -> list[Imposer]:
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"xlab.lab.imposers.{name}") for name in names]
    return [module.IMPOSER for module in modules if hasattr(module, "IMPOSER")]


IMPOSERS = sorted(_found(), key=lambda imposer: imposer.place)


def choose(wanted: LinkConditions, machine: Machine) -> Imposer:
    """The best one; raises CapabilityError if there is none: conditions are never ignored."""
    for imposer in IMPOSERS:
        if imposer.can(wanted) and imposer.is_on(machine):
            return imposer
    needed = [each.needs(machine) for each in IMPOSERS if each.can(_ALL_THERE_IS)]
    missing = ", and ".join(capability.detail for capability in needed)
    raise CapabilityError(f"link conditions: {missing}", needed[0].remedy)
