"""How much is measured: rounds, builds, probes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from xlab.errors import UsageError, quoted
from xlab.experiments.compare.methods import Method
from xlab.lab.limits import within
from xlab.probes.catalog import ALL, COMPARED, ONCE_A_BUILD, beyond_usual, sensible
from xlab.record.comparisons import ComparisonPlan
from xlab.record.intervals import LEAST_BUILDS

ROUNDS, QUICK_ROUNDS = 10, 5
MOST_ROUNDS = 1000
#: A longer comparison has not more rounds of a build but more builds.
ROUNDS_PER_BUILD = 2
PRECISION = 0.1
#: What --repeat counts, by whether it is of the virtual clock.
_ROUNDS_UNIT = ("rounds, each lab built three times", "builds, each with another seed")


def share(text: str) -> float:
    """A part of something: "10%" or "0.1"; UsageError for anything else."""
    number = text.removesuffix("%")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", number):
        raise UsageError(f"{quoted(text)} is no share such as 10% or 0.1")
    return float(number) / (100 if text.endswith("%") else 1)


def make(
    methods: Sequence[Method],
    *,
    probes: Sequence[str] = (),
    rounds: int | None = None,
    most_rounds: int | None = None,
    precision: float = PRECISION,
) -> ComparisonPlan:
    """What is usual, where nothing else is said; raises UsageError for what makes no sense.

    A quick comparison has a build for each of its rounds, which makes the most of so few, and ends
    when they are done; another goes on to twice its rounds while intervals are wide.  In virtual
    time a second round would tell nothing new: each build has one, and a seed of its own.
    """
    first = methods[0].request
    virtual = first.clock == "virtual"
    if virtual:
        usual, least = (1 if first.quick else LEAST_BUILDS), 1
    else:
        usual, least = (QUICK_ROUNDS if first.quick else ROUNDS), LEAST_BUILDS
    wanted = usual if rounds is None else rounds
    within("--repeat", wanted, (least, MOST_ROUNDS), _ROUNDS_UNIT[virtual])
    often = 1 if first.quick or virtual else 2
    most = most_rounds if most_rounds is not None else wanted * often
    within("--most", most, (wanted, 10 * MOST_ROUNDS), "rounds, from those of --repeat on")
    within("--precision", precision, (0.001, 10.0), "of a ratio")
    beyond_usual(probes)  # raises UsageError for a name that is none
    asked = [*COMPARED, *(["rr"] if virtual else []), *(ALL if "all" in probes else probes)]
    chosen = dict.fromkeys(sensible(asked, virtual=virtual))
    return ComparisonPlan(
        methods=tuple(method.name for method in methods),
        probes=tuple(probe for probe in chosen if probe not in ONCE_A_BUILD),
        duration_s=first.duration_s,
        quick=first.quick,
        rounds=wanted,
        most_rounds=most,
        rounds_per_build=1
        if first.quick or virtual
        else min(ROUNDS_PER_BUILD, wanted // LEAST_BUILDS),
        least_builds=LEAST_BUILDS,
        precision=precision,
        seed=secrets.randbelow(1 << 32),
        disturbing=tuple(probe for probe in ONCE_A_BUILD if probe in chosen),
        clock=first.clock,
    )
