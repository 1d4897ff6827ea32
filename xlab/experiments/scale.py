"""How the cost of a scenario grows with its hosts: built at several sizes, several times over.

plan (every size refused or accepted first) ── for each build, in random order: a fresh sandbox,
counted while it stands ── power laws through the points ── scale.json

Claims are left out: what is measured is building, and with nobody checking anything whatever is on
the physical links is the method's own (ARP, gossip, heartbeats).  That the network works is asked
afterwards.
"""

from __future__ import annotations

import dataclasses
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError, UsageError, XlabError
from xlab.experiments import recorder
from xlab.kernel import capabilities, disk
from xlab.kernel.processes import asking_meanwhile
from xlab.lab import counters
from xlab.lab.docker import Container
from xlab.lab.lab import Lab
from xlab.lab.limits import HOSTS, within
from xlab.lab.node import Node
from xlab.lab.reachability import sample_pairs, unreachable
from xlab.record import record
from xlab.record.power_law import PowerLaw, power_law
from xlab.record.record import Environment
from xlab.sandbox.cleanup import cleanup
from xlab.sandbox.launching import run_inside
from xlab.scenario import blueprint
from xlab.scenario.blueprint import Blueprint
from xlab.scenario.claims import Unchecked
from xlab.scenario.request import Request
from xlab.scenario.scenario import Flow, Size

SCHEMA_VERSION = 1
FILE = "scale.json"

#: Two points lie on any law; with three it can be wrong.
FEWEST_SIZES = 3
REST_S = (1.0, 3600.0)
#: Weave's routers send each other a heartbeat every 10 and every 30 seconds.
DEFAULT_REST_S = 10.0

#: Pairs asked whether the network works, and how long the answers may take.
_PAIRS, _PATIENCE_S = 50, 20.0
#: Longer than this, nobody waits for a lab.
BEARABLE_S = 600.0


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """What is measured.  Raises UsageError for what makes no sense."""

    scenario: str
    #: Sizes, ascending.
    hosts: tuple[int, ...]
    #: On each host.
    containers: int = 2
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Builds of each size.
    repeat: int = 3
    #: For how long the links of a lab at rest are watched, in seconds.
    rest_s: float = DEFAULT_REST_S

    def __post_init__(self) -> None:
        if len(set(self.hosts)) < FEWEST_SIZES:
            raise UsageError(
                f"--hosts wants at least {FEWEST_SIZES} different sizes, such as 2,4,8: "
                "two points lie on any curve"
            )
        if tuple(sorted(set(self.hosts))) != self.hosts:
            raise UsageError("--hosts: each size once, in ascending order")
        within("--rest", self.rest_s, REST_S, "seconds")

    def request(self, hosts: int) -> Request:
        return Request(
            self.scenario,
            hosts=hosts,
            containers=self.containers,
            settings=self.settings,
            repeat=self.repeat,
        )

    def builds(self) -> list[tuple[int, int]]:
        """(hosts, repeat), every size once before any comes again, in an order of its own.

        What disturbs the machine for a while thus hits all sizes alike.  Seeded: the order of a
        plan is always the same.
        """
        chooser = random.Random(f"{self.scenario} {self.hosts}")
        order = []
        for number in range(1, self.repeat + 1):
            sizes = list(self.hosts)
            chooser.shuffle(sizes)
            order += [(size, number) for size in sizes]
        return order


@dataclass(frozen=True, slots=True)
class Sample:
    """One build.  Figures are those of the whole lab, not of a host."""

    hosts: int
    repeat: int
    #: Of the physical network, and containers of all hosts.
    switches: int
    containers: int
    build_s: float
    #: Until no process was left, and until the kernel had freed everything.
    teardown_s: float
    freed_s: float
    #: What building added.
    kernel_bytes: int
    process_bytes: int
    processes: int
    #: Of the lab's first process.
    descriptors: int
    #: Ends of tunnels, at all hosts.
    tunnels: int
    #: On the hosts' physical links, both ways: while it was built, and in `rest_s` afterwards.
    build_packets: int
    build_bytes: int
    rest_packets: int
    rest_bytes: int
    rest_s: float
    #: Pairs that were asked for an echo, of containers or of hosts, whichever the method joins, and
    #: those that answered.
    pairs: int
    answered: int

    @property
    def whole(self) -> bool:
        """Somebody was asked, and everybody answered."""
        return 0 < self.pairs == self.answered

    @property
    def memory_bytes(self) -> int:
        return self.kernel_bytes + self.process_bytes

    @property
    def rest_bytes_per_second(self) -> float:
        return self.rest_bytes / self.rest_s

    @property
    def rest_packets_per_second(self) -> float:
        return self.rest_packets / self.rest_s


@dataclass(frozen=True, slots=True)
class Failure:
    """A build that came to nothing."""

    hosts: int
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that grows."""

    name: str
    label: str
    unit: str

    def of(self, sample: Sample) -> float:
        return float(getattr(sample, self.name))


METRICS = (
    Metric("build_s", "build", "s"),
    Metric("teardown_s", "take down", "s"),
    Metric("freed_s", "take down, until all is freed", "s"),
    Metric("memory_bytes", "memory", "B"),
    Metric("processes", "processes", ""),
    Metric("descriptors", "descriptors of the controller", ""),
    Metric("tunnels", "ends of tunnels", ""),
    Metric("build_packets", "control plane, build", "packets"),
    Metric("build_bytes", "control plane, build", "B"),
    Metric("rest_packets_per_second", "control plane, at rest", "packets/s"),
    Metric("rest_bytes_per_second", "control plane, at rest", "B/s"),
)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What this machine has, of what a lab needs ever more."""

    memory_bytes: int
    descriptors: int
    #: Beyond this the scenario's plan of addresses refuses, or the command line does.
    hosts: int


@dataclass(frozen=True, slots=True)
class ScaleRecord:
    scenario: str
    started_at: str
    parameters: dict[str, Any]
    environment: Environment
    capacity: Capacity
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def passed(self) -> bool:
        """Every build came to be, and works."""
        return not self.failures and all(s.whole for s in self.samples)

    def laws(self) -> dict[str, PowerLaw]:
        """By metric; one that is 0 somewhere, or was measured at one size only, has none.

        The kernel's memory is the whole machine's: builds in which it shrank, because something
        else ended meanwhile, are left out of the law of memory.
        """
        fitted = {
            metric.name: power_law(
                (s.hosts, metric.of(s))
                for s in self.samples
                if metric.name != "memory_bytes" or s.memory_bytes > 0
            )
            for metric in METRICS
        }
        return {name: law for name, law in fitted.items() if law}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, `schema_version` first; with the fitted laws: value = factor * hosts^e."""
        return {
            **record.to_document(self),
            "laws": {name: dataclasses.asdict(law) for name, law in self.laws().items()},
        }


# -- seen from outside -----------------------------------------------------------------------------

#: Is told what is being built, and after it the sample or failure.
Watch = Callable[[int, int, "Sample | Failure | None"], None]


def measure(plan: ScalePlan, *, watch: Watch = lambda *_: None) -> ScaleRecord:
    """Measure all of it.  A build that fails is recorded as such, and the others go on.

    Raises UsageError for a size the scenario refuses, CapabilityError for what this machine can't,
    before anything is built.
    """
    started_at = record.now()
    machine = capabilities.probe()
    equipped = {
        size: blueprint.equip(blueprint.design(plan.request(size)), machine) for size in plan.hosts
    }
    largest = equipped[plan.hosts[-1]]
    done: list[Sample | Failure] = []
    for size, number in plan.builds():
        watch(size, number, None)
        try:
            done.append(_measure_one(equipped[size], number, plan.rest_s))
        except CapabilityError:
            raise
        except XlabError as error:
            done.append(Failure(size, number, str(error)))
        watch(size, number, done[-1])
    samples = [each for each in done if isinstance(each, Sample)]
    return ScaleRecord(
        scenario=largest.design.scenario.name,
        started_at=started_at,
        parameters={
            "hosts": list(plan.hosts),
            "containers": plan.containers,
            "settings": dict(largest.design.settings),
            "repeat": plan.repeat,
            "rest_s": plan.rest_s,
        },
        environment=recorder.environment(largest.datapath),
        capacity=_capacity(largest),
        samples=tuple(sorted(samples, key=lambda s: (s.hosts, s.repeat))),
        failures=tuple(each for each in done if isinstance(each, Failure)),
        notes=tuple(dict.fromkeys(note for each in equipped.values() for note in each.notes)),
    )


def _measure_one(equipped: Blueprint, number: int, rest_s: float) -> Sample:
    with cleanup() as await_freed:
        # What is still being freed from before would slow this one down: the kernel holds the lock
        # that building needs.
        await_freed()
        done = run_inside(lambda: _build(equipped, rest_s))
        await_freed()
        freed_s = time.monotonic() - done.ending_at
    design = equipped.design
    return Sample(
        hosts=design.size.hosts,
        repeat=number,
        switches=len(design.underlay.switches),
        containers=design.size.hosts * design.size.containers,
        teardown_s=done.ended_s,
        freed_s=freed_s,
        rest_s=rest_s,
        **done.result,
    )


def _capacity(equipped: Blueprint) -> Capacity:
    design = equipped.design
    fits, refused = design.size.hosts, HOSTS[1] + 1
    while refused - fits > 1:
        middle = (fits + refused) // 2
        try:
            design.scenario.plan(Size(middle, design.size.containers), design.settings)
        except UsageError:
            refused = middle
        else:
            fits = middle
    total = counters.kibibytes(Path("/proc/meminfo").read_text())["MemTotal"] * 1024
    # A sandbox raises its limit as far as it may.
    return Capacity(total, resource.getrlimit(resource.RLIMIT_NOFILE)[1], fits)


def save(finished: ScaleRecord, results: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """Write scale.json, and `files` beside it, whole or not at all; returns their new folder."""
    written = {**(files or {}), FILE: record.as_bytes(finished.to_dict())}
    make = partial(disk.new_folder, files=written, durable=[FILE])
    started_at = datetime.fromisoformat(finished.started_at)
    return record.under_free_name(results, started_at, f"scale-{finished.scenario}", make)


# -- inside ----------------------------------------------------------------------------------------


def _build(equipped: Blueprint, rest_s: float) -> dict[str, Any]:
    """Build it, count, watch it at rest, and ask whether it works; fields of `Sample`."""
    before, processes_before = counters.memory(), counters.processes()
    begun = time.monotonic()
    lab = equipped.wire()
    flow = equipped.build(lab, Unchecked(lab))
    build_s = time.monotonic() - begun
    built, after = counters.traffic(lab), counters.memory()
    facts = {
        "processes": counters.processes() - processes_before,
        "descriptors": counters.descriptors(),
        "tunnels": counters.tunnels(lab),
    }
    resting = counters.traffic(lab)
    time.sleep(rest_s)  # this is the measurement
    rested = counters.traffic(lab).since(resting)
    pairs = _sample(lab, flow)
    with asking_meanwhile(lab.require_daemons):
        silent = unreachable(pairs, timeout_s=_PATIENCE_S)
    lab.require_daemons()
    return {
        "build_s": build_s,
        "kernel_bytes": after.kernel - before.kernel,
        "process_bytes": after.processes - before.processes,
        **facts,
        "build_packets": built.packets,
        "build_bytes": built.bytes,
        "rest_packets": rested.packets,
        "rest_bytes": rested.bytes,
        "pairs": len(pairs),
        "answered": len(pairs) - len(silent),
    }


def _sample(lab: Lab, flow: Flow) -> Sequence[tuple[Node, Node]]:
    """Whoever the method is about: without one, containers of two hosts have the same address."""
    of_containers = isinstance(flow.source, Container)
    pairs = sample_pairs(lab.containers if of_containers else lab.hosts)
    if len(pairs) <= _PAIRS:
        return pairs
    return random.Random(len(pairs)).sample(pairs, _PAIRS)
