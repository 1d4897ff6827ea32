"""What is compared: scenarios, and variants of them.

    bridge                              a scenario of the catalog, or a path to a scenario file
    ovs-gre:routes=underlay             with an option of the scenario, as --set gives it
    weave:datapath=fastdp,mtu=9000      several; size and link conditions are options, too

A variant differs from its comparison in what it says alone.  The baseline is always among the
methods, as plain as the comparison's own options leave it: every ratio is to that one, so that what
a variant's link conditions cost is in its ratio.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlab.errors import UsageError, at, meant, quoted, shortened
from xlab.lab.conditions import parse_delay, parse_loss, parse_rate
from xlab.scenario import catalog, scenario
from xlab.scenario.request import Request, named_values, shared_out
from xlab.scenario.scenario import Scenario

BASELINE = "baseline"

#: More labs at once would measure each other.
MOST_METHODS = 32


@dataclass(frozen=True, slots=True)
class Method:
    """A name, a folder of its own, and what is built."""

    name: str
    folder: str
    request: Request


def choose(names: Sequence[str], common: Request, settings: Mapping[str, str]) -> list[Method]:
    """The methods meant, the baseline first; all of them if none is named.

    `common` is what all have in common, its scenario aside.  `settings` go to each scenario that
    has such an option, where its name says nothing else.  Raises UsageError, for a setting that
    nobody knows, too.
    """
    wanted = list(_expanded(names or ["all"], virtual=common.clock == "virtual"))
    if BASELINE not in wanted:
        wanted.insert(0, BASELINE)
    for name in wanted:
        if wanted.count(name) > 1:
            raise UsageError(f"{shortened(name)} is named twice")
    if len(wanted) == 1:
        raise UsageError(f"{BASELINE} alone is no comparison: name a method to set beside it")
    if len(wanted) > MOST_METHODS:
        raise UsageError(f"{len(wanted)} methods; at most {MOST_METHODS} are alive at once")
    wanted.sort(key=lambda name: name != BASELINE)
    known = {name: [option.name for option in _scenario(name).options] for name in wanted}
    shares = shared_out(settings, known)
    methods: list[Method] = []
    for name in wanted:
        request = _request(name, common, shares[name], known[name])
        methods.append(Method(name, _folder(name, {m.folder for m in methods}), request))
    return methods


def _expanded(names: Sequence[str], *, virtual: bool) -> Iterator[str]:
    for name in names:
        if name == "all":
            for found in catalog.names():
                yield found
                declared = _scenario(found)
                variants = (*declared.variants, *(declared.virtual_variants if virtual else ()))
                yield from (f"{found}:{variant}" for variant in variants)
        else:
            yield name


def _scenario(name: str) -> Scenario:
    return scenario.load(catalog.find(name.partition(":")[0]))


def _request(
    name: str, common: Request, settings: Mapping[str, str], known: Collection[str]
) -> Request:
    """What `name` asks for; `known` are the options of its scenario."""
    base, colon, variant = name.partition(":")
    place = shortened(name)
    fields: dict[str, Any] = {}
    own = dict(settings)
    for key, value in named_values(variant.split(",") if colon else [], place).items():
        if key in _FIELDS:
            field, read = _FIELDS[key]
            with at(f"{place}: {key}"):
                fields[field] = read(value)
        elif key in known:
            own[key] = value
        else:
            offered = ", ".join([*known, *_FIELDS])
            guess = meant(key, [*known, *_FIELDS])
            raise UsageError(f"{place}: there is no {quoted(key)}; there are {offered}{guess}")
    if "hosts" in fields and common.topo is not None:
        raise UsageError(f"{place}: --topo says how many hosts there are")
    with at(place):
        return dataclasses.replace(common, scenario=base, settings=own, **fields)


def whole(text: str) -> int:
    """Of digits alone; UsageError otherwise."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{quoted(text)} is no whole number")
    return int(text)


#: The options of the command line that a variant may have of its own: the field of a request, and
#: how it is read.
_FIELDS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "hosts": ("hosts", whole),
    "containers": ("containers", whole),
    "mtu": ("mtu", whole),
    "rate": ("rate_bits_per_second", parse_rate),
    "delay": ("delay_ms", parse_delay),
    "jitter": ("jitter_ms", parse_delay),
    "loss": ("loss_ratio", parse_loss),
}


def _folder(name: str, taken: Collection[str]) -> str:
    """A name fit for a folder and for links to it: a colon would end the scheme of a URL."""
    stem = re.sub(r"[^A-Za-z0-9_.=-]+", "+", name).strip("+.")[-100:].lstrip("+.") or "method"
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return next(folder for folder in itertools.chain([stem], numbered) if folder not in taken)
