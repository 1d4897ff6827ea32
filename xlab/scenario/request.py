"""What one run is asked to do, as the command line hands it to the runner.

Every range is checked here, once, so that the runner and the scenarios meet only values that make
sense; what depends on the scenario or on the machine (does the subnet hold that many containers, is
there an imposer of a delay) is checked where it is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from xlab.errors import UsageError, meant, quoted
from xlab.lab.limits import (
    CONTAINERS,
    DELAY_MS,
    HOSTS,
    MTU_BYTES,
    RATE_BITS_PER_SECOND,
    shown,
    within,
)

DEFAULT_DURATION_S = 3.0
DEFAULT_ROUNDS = 3
QUICK_DURATION_S = 1.0
QUICK_ROUNDS = 1

DURATION_S = (1.0, 3600.0)
ROUNDS = (1, 1000)
#: As many as iperf3 takes for one transfer (MAX_STREAMS in iperf.h).
STREAMS = (1, 128)
DEFAULT_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One run of one scenario; raises UsageError, which says the range, for a value outside it.

    `duration_s` and `repeat` always mean what they say: `quick` asks the scenario for no more than
    the necessary, and whoever sets it also sets them (`QUICK_DURATION_S`, `QUICK_ROUNDS`).
    """

    #: A name of the catalog, or a path to a scenario file.
    scenario: str
    hosts: int = 2
    #: On each host.
    containers: int = 2
    #: A Mininet spec ("single,3", "linear,4", "tree,depth=2,fanout=2") or "file.py:Class".
    topo: str | None = None
    mtu: int = 1500
    rate_bits_per_second: float | None = None
    #: Of each link, in each direction.
    delay_ms: float | None = None
    jitter_ms: float | None = None
    loss_ratio: float | None = None
    #: Options of the scenario itself (`--set NAME=VALUE`).
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Of each throughput probe.
    duration_s: float = DEFAULT_DURATION_S
    #: Rounds of measurement.
    repeat: int = DEFAULT_ROUNDS
    quick: bool = False
    #: TCP streams at once, where a probe has several: its load, too.
    streams: int = DEFAULT_STREAMS
    #: Beyond the usual ones, by name and in order, as `probes.catalog.beyond_usual` has them.
    probes: tuple[str, ...] = ()
    #: "virtual": in a guest whose clock counts instructions.
    clock: Literal["real", "virtual"] = "real"

    def __post_init__(self) -> None:
        if not self.scenario:
            raise UsageError("the scenario has no name")
        if self.topo == "":
            raise UsageError(
                "--topo is empty: give a Mininet spec such as linear,4, or file.py:Class"
            )
        within("--hosts", self.hosts, HOSTS)
        within("--containers", self.containers, CONTAINERS, "on each host")
        within("--mtu", self.mtu, MTU_BYTES, "bytes")
        within("--rate", self.rate_bits_per_second, RATE_BITS_PER_SECOND, "bit/s")
        within("--delay", self.delay_ms, DELAY_MS, "ms")
        if self.jitter_ms is not None and not self.delay_ms:
            raise UsageError("--jitter varies a delay: give --delay too")
        within("--jitter", self.jitter_ms, (0.0, self.delay_ms or 0.0), "ms, the delay")
        if self.loss_ratio is not None and not 0 <= self.loss_ratio < 1:
            raise UsageError(
                f"--loss is {shown(self.loss_ratio)}; the range is 0 to under 1 (under 100 %)"
            )
        if self.clock not in ("real", "virtual"):
            raise UsageError(f"--clock is {quoted(self.clock)}: it is real or virtual")
        within("--duration", self.duration_s, DURATION_S, "seconds")
        within("--repeat", self.repeat, ROUNDS, "rounds")
        within("--streams", self.streams, STREAMS, "TCP streams")
        if "" in self.settings:
            raise UsageError("--set takes NAME=VALUE; the name is missing")

    def for_scenario(self, scenario: str, settings: Mapping[str, str]) -> Request:
        """The same run of another scenario, with the settings that one understands."""
        return dataclasses.replace(self, scenario=scenario, settings=dict(settings))


def named_values(said: Iterable[str], place: str) -> dict[str, str]:
    """NAME=VALUE texts by name; UsageError, which begins with the place, for what is none."""
    found: dict[str, str] = {}
    for text in said:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{place}: {quoted(text)} is no NAME=VALUE")
        if name in found:
            raise UsageError(f"{place}: {name} is given twice")
        found[name] = value
    return found


def shared_out(
    settings: Mapping[str, str], known: Mapping[str, Collection[str]]
) -> dict[str, dict[str, str]]:
    """For each of several scenarios the settings that it has; `known` are their options' names.

    Raises UsageError for a setting that none of them has.
    """
    everything = {option for options in known.values() for option in options}
    for name in settings:
        if name not in everything:
            there_are = f"; there are {', '.join(sorted(everything))}" if everything else ""
            there_are += meant(name, everything)
            raise UsageError(f"--set {name}: no scenario has an option of that name{there_are}")
    return {
        scenario: {name: value for name, value in settings.items() if name in options}
        for scenario, options in known.items()
    }
