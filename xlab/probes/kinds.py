"""What a probe is: its name, its words, between whom it measures, and what measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from xlab.lab import counters
    from xlab.lab.lab import Lab
    from xlab.probes.facts import Pair, Plan
    from xlab.scenario.scenario import Flow


class Kind(IntEnum):
    """In the order in which they are listed; beside each, what it is to measure."""

    #: (pair, plan) -> Sampled, between two ends on every route, in every run.
    USUAL = 0
    #: The same, if asked for.
    BETWEEN_TWO = 1
    #: (blueprint, round, build) -> Measurement: of a lab built for that alone, beside the measured.
    OF_ANOTHER_LAB = 2
    #: (site, plan) -> Iterable[Sampled]: of the lab as a whole, after all others.
    OF_LAB = 3
    #: The same, after which a lab is not what it was: when all else has been measured.
    DISTURBING = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """A missing tool makes `measure` raise CapabilityError; all else that fails is a sample."""

    kind: Kind
    name: str
    about: str
    measure: Callable[..., Any]
    #: Among those of its kind; who names none comes last.
    place: int
    #: Whether every comparison has it.
    compared: bool
    #: Another probe between the same two, whose result it draws on.
    after: str
    #: Why it makes no sense in virtual time; "" if it does.
    not_virtual: str
    #: What is said while it runs.
    doing: str
    #: Seconds that it takes between two ends, but for starting programs; None: nobody knows before.
    takes: Callable[[Plan], float] | None


#: All in modules that have been imported, see `catalog`.
DECLARED: list[Probe] = []
_Measure = TypeVar("_Measure", bound=Callable[..., Any])


def probe(
    kind: Kind,
    name: str,
    about: str,
    *,
    place: int = 100,
    compared: bool = False,
    after: str = "",
    not_virtual: str = "",
    doing: str = "",
    takes: Callable[[Plan], float] | None = None,
) -> Callable[[_Measure], _Measure]:
    """What is decorated measures the probe of that name; `doing` is `about` if nothing else."""

    def declare(measure: _Measure) -> _Measure:
        DECLARED.append(
            Probe(
                kind,
                name,
                about,
                measure,
                place=place,
                compared=compared,
                after=after,
                not_virtual=not_virtual,
                doing=doing or about,
                takes=takes,
            )
        )
        return measure

    return declare


@dataclass(frozen=True, slots=True)
class Site:
    """A lab that stands."""

    lab: Lab
    #: The method's, and its ends.
    flow: Flow
    pair: Pair
    #: Before it was built.
    memory_before: counters.Memory
