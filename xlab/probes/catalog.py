"""What can be measured, by name: what the modules of this folder declare.

Every run has the usual probes.  The others are asked for: each takes its time, and the last of them
break what they measure.  To import this imports them all, some 0.1 s.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

from xlab.errors import UsageError, meant, shortened
from xlab.probes.kinds import DECLARED, Kind, Probe

for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    # These two have none, and draw on all others.
    if _module.name not in {"catalog", "rounds"}:
        importlib.import_module(f"xlab.probes.{_module.name}")

ALL = {
    probe.name: probe
    for probe in sorted(DECLARED, key=lambda probe: (probe.kind, probe.place, probe.name))
}


def _of(*kinds: Kind) -> dict[str, Probe]:
    return {name: probe for name, probe in ALL.items() if probe.kind in kinds}


USUAL = tuple(_of(Kind.USUAL))
BETWEEN_TWO = _of(Kind.USUAL, Kind.BETWEEN_TWO)
OF_ANOTHER_LAB = _of(Kind.OF_ANOTHER_LAB)
OF_LAB = _of(Kind.OF_LAB, Kind.DISTURBING)
DISTURBING = tuple(_of(Kind.DISTURBING))
#: What every comparison measures, and what once in each build, when the rounds of that are done.
COMPARED = tuple(name for name, probe in ALL.items() if probe.compared)
ONCE_A_BUILD = (*OF_ANOTHER_LAB, *DISTURBING)


def sensible(names: Iterable[str], *, virtual: bool) -> tuple[str, ...]:
    """Those of `names` that mean something by that clock."""
    return tuple(name for name in names if not (virtual and ALL[name].not_virtual))


def beyond_usual(asked: Iterable[str]) -> tuple[str, ...]:
    """Those of `asked` that not every run has, in the order of `ALL`; "all" means every one.

    Raises UsageError, which says what there is, for an unknown name.
    """
    wanted = set(asked)
    for name in sorted(wanted - {"all"} - set(ALL)):
        there_are = f"{', '.join(ALL)}, and all{meant(name, ALL)}"
        raise UsageError(f"--probe {shortened(name)}: no such probe; there are {there_are}")
    return tuple(name for name in ALL if name not in USUAL and ("all" in wanted or name in wanted))
