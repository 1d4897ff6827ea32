"""The portrait of a record's method: the record's own, or else what the scenario says today."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from xlab.errors import XlabError
from xlab.kernel.packets import Encapsulation
from xlab.record.portrait import Part, Portrait, Published, Range
from xlab.record.record import RunRecord

if TYPE_CHECKING:
    from xlab.scenario.scenario import Scenario

#: What a picture has room for: parts side by side, letters of what a part is called.
_MOST_PARTS, _LONGEST, _LONGEST_BYPASS = 4, 24, 80
#: A ratio to plain hosts outside of these was never published, and no axis has room for it.
_LEAST, _MOST = 1e-4, 1e4


def portrait(record: RunRecord) -> Portrait | None:
    """Fit to be shown; None where nobody knows what the scenario builds."""
    if record.portrait:
        return _clean(record.portrait)
    return declared(record.scenario, record.path.encapsulation if record.path else None)


def declared(name: str, encapsulation: Encapsulation | None) -> Portrait | None:
    """What a scenario of the catalog says today; None where there is none of that name."""
    from xlab.scenario import catalog

    try:
        # Whatever a record says, only a file of the catalog is run for it.
        known = name in catalog.names() and _loaded(catalog.find(name))
    except XlabError:
        return None
    return known.portrait(encapsulation) if known else None


@functools.cache
def _loaded(file: Path) -> Scenario:
    from xlab.scenario import scenario

    return scenario.load(file)


def _clean(shown: Portrait) -> Portrait:
    """What can be drawn of it, whosever record it is out of."""

    def short(part: Part) -> Part:
        return dataclasses.replace(part, name=part.name[:_LONGEST], note=part.note[:_LONGEST])

    told = shown.published
    ranges = [told.throughput, told.latency or told.throughput] if told else []
    return dataclasses.replace(
        shown,
        bridge=short(shown.bridge),
        between=tuple(map(short, shown.between[:_MOST_PARTS])),
        eth0=shown.eth0[:_LONGEST],
        container_interface=shown.container_interface[:_LONGEST],
        bypass=shown.bypass[:_LONGEST_BYPASS],
        published=told if all(_LEAST <= low <= high <= _MOST for low, high in ranges) else None,
    )


def published(record: RunRecord) -> Published | None:
    """What there is on the method of a record whose path is proved."""
    if record.path is None or not record.path.proved:
        return None
    shown = portrait(record)
    found = shown.published if shown else None
    if found and found.kernel_only and record.environment.datapath_class == "userspace":
        return None
    return found


def in_words(range_: Range) -> str:
    """A range as it was published: "0.87–0.98", or one figure."""
    return "–".join(dict.fromkeys(f"{end:g}" for end in range_))
