"""Random faults in a lab of each method, up to three at a time, one after another.

After each fault, and after each mending, it is computed from the topology who must reach whom and
who must not, and compared with what is measured.  Whenever all is mended the lab must look as it
did in the beginning, and pid 1 must hold what it held then.

Hosts are at one switch, or at several, whose links fail like any other: then a cable parts hosts.

`bin/test --all` makes 8 at one switch and 200 in a tree of each method.
Failures name the seed, which XLAB_SOAK_SEED sets; how long recoveries took is told at the end
(tests/conftest.py).
"""

from __future__ import annotations

import gc
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support import snapshot
from tests.support.labs import all_pids, link_target, machine, names_in, run_in_sandbox
from tests.support.labs import why_no_open_vswitch as no_open_vswitch
from tests.support.recoveries import RECOVERIES
from xlab.errors import DeadlineError, XlabError
from xlab.faults.faults import Faults
from xlab.faults.kinds import Fault, LinkDown
from xlab.kernel.limits import neighbour_overflows
from xlab.kernel.processes import wait_until
from xlab.lab.lab import Lab
from xlab.scenario import blueprint
from xlab.scenario.claims import Checks
from xlab.scenario.request import Request
from xlab.scenario.scenario import Size

pytestmark = pytest.mark.sandbox

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "bridge": ("bridge", {}),
    "ovs-gre": ("ovs-gre", {"routes": "tunnel"}),
    "weave, sleeve": ("weave", {"datapath": "sleeve"}),
    "weave, fastdp": ("weave", {"datapath": "fastdp"}),
}

#: Much longer than anything takes: 40 s do for the longest recovery.
PATIENCE_S = 120.0
MOST_AT_ONCE = 3
#: No fault stays for longer: after a minute a router gives its peers up, and dials them ever less
#: often.
LONGEST_S = 25.0
#: What pid 1 may have grown by in the end: what is freed is not all handed back.
MOST_GROWTH_KB = 4096


#: The kind of fault that a network with one switch can't have.
BETWEEN_SWITCHES = "link between switches"

Record = Callable[[str, object], None]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_eight_faults(method: str, record_property: Record) -> None:
    told = soak(method, Size(hosts=3, containers=1), faults=8)
    assert sum(map(len, told["recoveries"].values())) == 8
    record_property(RECOVERIES, told["recoveries"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ovs-gre", "bridge"])
def test_eight_faults_among_three_switches(method: str, record_property: Record) -> None:
    """s1 ── s2 ── s3, a host at each."""
    told = soak(method, Size(hosts=3, containers=1), faults=8, topo="linear,3")
    assert sum(map(len, told["recoveries"].values())) == 8
    assert f"{BETWEEN_SWITCHES} up" in told["recoveries"]
    record_property(RECOVERIES, told["recoveries"])


@pytest.mark.slow(minutes=13)
@pytest.mark.parametrize("method", METHODS)
def test_two_hundred_faults(method: str, tmp_path: Path, record_property: Record) -> None:
    """The figures are left in soak.json in pytest's temporary folder.

    In the tree two switches with two hosts each are at a third, s1.
    """
    topo = "tree,depth=2,fanout=2"
    told = soak(method, Size(hosts=4, containers=2), faults=200, topo=topo)
    assert sum(map(len, told["recoveries"].values())) == 200
    assert told["growth_kb"] < MOST_GROWTH_KB
    assert f"{BETWEEN_SWITCHES} up" in told["recoveries"]
    record_property(RECOVERIES, told["recoveries"])
    figures = {
        cure: {"median_s": round(median(seconds), 3), "maximum_s": round(max(seconds), 3)}
        for cure, seconds in told["recoveries"].items()
    }
    (tmp_path / "soak.json").write_text(
        json.dumps({"method": method, "topo": topo, "figures": figures, **told})
    )


def soak(method: str, size: Size, *, faults: int, topo: str | None = None) -> dict[str, Any]:
    """{"recoveries": {"reboot": [seconds, …], …}, "growth_kb": …, "took_s": …}."""
    name, settings = METHODS[method]
    if name == "ovs-gre" and no_open_vswitch():
        pytest.skip(no_open_vswitch())
    if name == "weave" and not machine().tun.usable:
        pytest.skip(machine().tun.detail)
    request = Request(
        name,
        hosts=2 if topo else size.hosts,
        containers=size.containers,
        topo=topo,
        settings=settings,
    )
    equipped = blueprint.equip(blueprint.design(request), machine())
    seed = os.environ.get("XLAB_SOAK_SEED") or f"{random.randrange(10**6)}"
    refused = neighbour_overflows()
    try:
        found: dict[str, Any] = run_in_sandbox(
            lambda: Soak(equipped, seed).run(faults), patience_s=60 + 20.0 * faults
        )
    except XlabError:
        if crowded := why_crowded(neighbour_overflows() - refused, ours=0):
            pytest.skip(crowded)  # it could not even be built
        raise
    if "failed" in found:
        if crowded := why_crowded(neighbour_overflows() - refused, ours=found["neighbours"]):
            pytest.skip(crowded)
        raise AssertionError(found["failed"])
    return found


def why_crowded(refused: int, *, ours: int) -> str:
    """Why a failure says nothing: others filled the table of neighbours that all labs share.

    Empty if it was not full, and if it was `ours` that filled it: the most that our lab had.  A few
    hosts and containers know each other by some 200 entries.
    """
    if not refused or ours > MOST_NEIGHBOURS:
        return ""
    return f"the machine's table of neighbours was full: {refused:,} refused; {ours:,} were ours"


#: A quarter of the table as it is everywhere (gc_thresh3).
MOST_NEIGHBOURS = 256


def test_a_full_table_is_an_excuse_only_if_others_filled_it() -> None:
    assert why_crowded(0, ours=12) == ""
    assert "7 refused; 12 were ours" in why_crowded(7, ours=12)
    assert why_crowded(7, ours=MOST_NEIGHBOURS + 1) == ""


class Soak:
    """Inside: one lab, and what it looked like before anything happened to it."""

    def __init__(self, equipped: blueprint.Blueprint, seed: str) -> None:
        asked = equipped.design
        self.chance = random.Random(seed)
        self.story = [f"XLAB_SOAK_SEED={seed}"]
        self.lab = Lab(asked.underlay, ovs=equipped.ovs)
        flow = asked.scenario.build(
            self.lab, asked.plan, asked.size, asked.settings, Checks(self.lab, lambda _: None)
        )
        self.faults = Faults(self.lab, flow)
        self.faults.await_expected(timeout_s=PATIENCE_S)
        self.looks = snapshot.take(self.lab)
        self.holds = what_pid_1_holds(self.lab)
        self.recoveries: dict[str, list[float]] = {}
        #: When each fault that is in force was made.
        self.since: dict[str, float] = {}
        #: Kinds of faults to be made yet, before any is made again.
        self.kinds: list[str] = []
        self.neighbours = 0

    def run(self, count: int) -> dict[str, Any]:
        """Or, where something is wrong, {"failed": the story, "neighbours": the most it had}."""
        begun, memory_kb = time.monotonic(), 0
        made = 0
        try:
            while made < count or self.faults.in_force:
                if made < count and self.is_time_for_a_fault():
                    self.break_something()
                    made += 1
                else:
                    self.mend_something()
                self.count_neighbours()
                if not self.faults.in_force:
                    self.require_nothing_else_differs()
                    # The first rounds make what the rest goes on with.
                    memory_kb = memory_kb or (resident_kb() if made > count / 4 else 0)
        except (XlabError, AssertionError) as error:
            self.count_neighbours()
            return {
                "failed": "; ".join([*self.story, str(error)]),
                "neighbours": self.neighbours,
            }
        return {
            "recoveries": self.recoveries,
            "growth_kb": resident_kb() - memory_kb,
            "took_s": time.monotonic() - begun,
        }

    def is_time_for_a_fault(self) -> bool:
        now = time.monotonic()
        if any(now - since > LONGEST_S for since in self.since.values()):
            return False
        if not self.faults.in_force:
            return True
        return len(self.faults.in_force) < MOST_AT_ONCE and self.chance.random() < 0.4

    def break_something(self) -> None:
        """A kind first: of partitions there are many more than of anything else."""
        possible = self.faults.possible()
        kinds = sorted(set(map(self.kind_of, possible)))
        if not set(kinds) & set(self.kinds):
            self.kinds = self.chance.sample(kinds, len(kinds))
        kind = next(kind for kind in self.kinds if kind in kinds)
        self.kinds.remove(kind)
        fault = self.chance.choice([f for f in possible if self.kind_of(f) == kind])
        self.story.append(str(fault))
        self.since[str(fault)] = time.monotonic()
        self.faults.apply(fault)
        self.faults.await_expected(timeout_s=PATIENCE_S)
        self.forget_what_is_over("(died with its host)")

    def mend_something(self) -> None:
        fault = self.chance.choice(self.faults.in_force)
        oldest = self.faults.in_force[0]
        if time.monotonic() - self.since[str(oldest)] > LONGEST_S:
            fault = oldest
        self.story.append(fault.cure)
        begun = time.monotonic()
        self.faults.mend(fault)
        mend_s = time.monotonic() - begun
        reached_s = self.faults.await_expected(timeout_s=PATIENCE_S)
        self.since.pop(str(fault))
        self.recoveries.setdefault(self.cure_of(fault), []).append(mend_s + reached_s)
        self.forget_what_is_over("(started with another)")

    def kind_of(self, fault: Fault) -> str:
        if isinstance(fault, LinkDown) and fault.link in self.faults.topology.trunks:
            return BETWEEN_SWITCHES
        return type(fault).__name__

    def cure_of(self, fault: Fault) -> str:
        """ "link up", "restart weave": which host it is about is nothing to a median."""
        if self.kind_of(fault) == BETWEEN_SWITCHES:
            return f"{BETWEEN_SWITCHES} up"
        words = fault.cure.split()
        return " ".join(word for word in words if word not in self.faults.topology.hosts)

    def count_neighbours(self) -> None:
        self.neighbours = max(self.neighbours, neighbours_of(self.lab))

    def forget_what_is_over(self, how: str) -> None:
        """Faults that ended with another: daemons that died with their host, say."""
        for over in set(self.since) - set(map(str, self.faults.in_force)):
            del self.since[over]
            self.recoveries.setdefault(how, []).append(0.0)

    def require_nothing_else_differs(self) -> None:
        differences = snapshot.differences(self.looks, snapshot.take(self.lab))
        assert not differences, differences

        held: dict[str, Any] = {}

        def holds_what_it_held() -> bool:
            held.update(what_pid_1_holds(self.lab))
            return held == self.holds

        try:
            # Another thread may just be letting go of a program that has ended.
            wait_until(holds_what_it_held, timeout_s=10, awaited="pid 1 to hold what it held")
        except DeadlineError:
            raise AssertionError(f"pid 1 holds {held}, not {self.holds}") from None


def what_pid_1_holds(lab: Lab) -> dict[str, Any]:
    """Descriptors, namespaces and threads of this process, and the processes of its sandbox."""
    for node in (*lab.hosts, *lab.containers):
        node.inhabited()  # some have run a program since they were started, some have not
    gc.collect()
    ours = [link_target(f"/proc/self/fd/{number}") for number in names_in("/proc/self/fd")]
    everybody = [link_target(f"/proc/{pid}/ns/net") for pid in all_pids()]
    return {
        # "socket:[4242]" and "/memfd:xlab-stdout (deleted)" by their kind.
        "descriptors": Counter(target.partition(":[")[0] for target in ours),
        "networks": len({t for t in (*ours, *everybody) if t.startswith("net:[")}),
        "threads": Counter(thread.name.rstrip("0123456789-") for thread in threading.enumerate()),
        "processes": Counter(Path(f"/proc/{pid}/comm").read_text() for pid in all_pids()),
    }


def neighbours_of(lab: Lab) -> int:
    """The entries of the machine's table of neighbours that are ours, but for permanent ones."""
    nodes = [node for node in (lab.gateway, *lab.hosts, *lab.containers) if node.is_on]
    shown = [node.configure(["ip", "-4", "neigh", "show"]).stdout.splitlines() for node in nodes]
    return sum("PERMANENT" not in line for lines in shown for line in lines)


def resident_kb() -> int:
    """The memory of this process that is not shared with its parent."""
    status = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in status if line.startswith("Private_"))
