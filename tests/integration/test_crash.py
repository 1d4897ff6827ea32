"""SIGKILL at any moment, to any process of ours: nothing is left of it, and the next run works.

What is told to run, what is killed and when are up to chance; the seed in a failure tells it again:

    XLAB_SEED="3f2a 17" bin/test tests/integration/test_crash.py
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import Command, Ended, started_at, still_there, whole_records
from tests.support import (
    PATIENCE_S,
    ROOT,
    Run,
    all_pids,
    comm_of,
    environment_of,
    kill,
    link_target,
    names_in,
    namespaces_of,
)
from xlab import record, sandbox
from xlab.clock import Deadline
from xlab.processes import wait_until
from xlab.request import Request

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("open_vswitch")]

AT_ONCE = 4


# -- any command, any process, any moment ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What chance has decided: a command, when it is hit, and which of its processes."""

    seed: str
    arguments: tuple[str, ...]
    #: Seconds after its start; most commands live longer on a machine that is not busy.
    after_s: float
    #: From 0 to 1, through the processes that it has then.
    which: float


def order(seed: str) -> Order:
    chance = random.Random(seed)
    kind = chance.choices(["run", "run all", "report", "doctor", "list"], [20, 1, 2, 1, 1])[0]
    life_s = {"run": 9.0, "run all": 35.0, "report": 3.0, "doctor": 0.7, "list": 0.5}[kind]
    if kind == "report":
        arguments = ["report", str(ROOT / "tests" / "data" / "records"), "--output"]
        arguments.append(chance.choice(["page.html", "page.md", "page.json", "page.txt"]))
    elif kind.startswith("run"):
        scenario = "all" if kind == "run all" else chance.choice(SCENARIOS)
        arguments = ["run", scenario, "--quick", *options(scenario, chance)]
    else:
        arguments = [kind, *chance.choice([[], ["--json"]])]
    return Order(seed, tuple(arguments), chance.uniform(0, life_s), chance.random())


SCENARIOS = ("baseline", "bridge", "ovs-gre", "weave")


def options(scenario: str, chance: random.Random) -> list[str]:
    """Some of those that a scenario has, with sizes and conditions within their ranges."""
    size = chance.choice([[], ["--hosts", "3"], ["--topo", "linear,3"], ["--topo", "single,2"]])
    settings = {
        "ovs-gre": [[], ["--set", "routes=underlay"]],
        "weave": [[], ["--set", "datapath=fastdp"]],
    }
    found = [*size, *chance.choice(settings.get(scenario, [[]]))]
    for some in (
        ["--containers", str(chance.randint(1, 4))],
        ["--mtu", str(chance.choice([1400, 1500, 9000]))],
        ["--rate", f"{chance.choice([20, 100])}mbit"],
        ["--delay", f"{chance.randint(1, 5)}ms"],
        ["--repeat", "2"],
        ["--json"],
    ):
        if chance.random() < 0.3:
            found += some
    return found


def test_some_kills_leave_nothing(tmp_path: Path) -> None:
    given = os.environ.get("XLAB_SEED")
    assert_nothing_is_left_of([given] if given else [str(n) for n in range(1, 16)], tmp_path)


def test_kills_leave_nothing_of_an_ordinary_users_commands(
    ordinary: tuple[list[str], Path],
) -> None:
    argv, folder = ordinary
    assert_nothing_is_left_of([f"ordinary {n}" for n in range(3)], folder, python=argv)


@pytest.mark.slow
def test_two_hundred_kills_leave_nothing(tmp_path: Path) -> None:
    first = secrets.token_hex(2)
    assert_nothing_is_left_of([f"{first} {number}" for number in range(200)], tmp_path)


def assert_nothing_is_left_of(
    seeds: Iterable[str], folder: Path, python: Sequence[str] = ()
) -> None:
    """With `python`, which starts it as somebody else, xlab is run by that and not by bin/xlab."""
    mounts, interfaces = set(mounts_here()), set(names_in("/sys/class/net"))
    orders = [order(seed) for seed in seeds]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [
            pool.submit(kill_and_look, each, folder / str(number), python)
            for number, each in enumerate(orders)
        ]
    failures = {
        each: future.exception()
        for each, future in zip(orders, futures, strict=True)
        if future.exception()
    }
    told = [f"{each}: {type(error).__name__}: {error}" for each, error in failures.items()]
    assert not failures, "\n\n".join([f"{len(told)} of {len(orders)}", *told])
    # Others may mount something meanwhile; a leak of ours stays.
    wait_until(
        lambda: set(mounts_here()) <= mounts and set(names_in("/sys/class/net")) <= interfaces,
        timeout_s=PATIENCE_S,
        awaited="no mount and no interface that was not there",
    )


def kill_and_look(told: Order, folder: Path, python: Sequence[str]) -> None:
    """One command, one SIGKILL; raises if anything is left of it, or if the next run fails."""
    folder.mkdir()
    program = [*python, "-c", _MAIN] if python else [str(ROOT / "bin" / "xlab")]
    if python:
        shutil.chown(folder, folder.parent.stat().st_uid)
    with Command(*told.arguments, folder=folder, program=program) as command:
        moment = Deadline(told.after_s)
        wait_until(lambda: moment.passed() or command.ended(), timeout_s=600, awaited="the moment")
        pids = {pid: started_at(pid) for pid in command.processes()}
        namespaces = set().union(*map(namespaces_of, pids)) - namespaces_of(os.getpid())
        groups = set().union(*map(cgroups_of, pids)) - cgroups_of(os.getpid())
        assert not groups, "a control group of its own"
        victim = list(pids)[int(told.which * len(pids))] if pids else command.pid
        name = f"{comm_of(victim)} ({victim}, the command is {command.pid})"
        kill(victim)
        ended = command.end(patience_s=600)
        command.await_alone()
        try:
            assert_ends_well(told, ended, killed=victim == command.pid, results=folder / "results")
        except AssertionError as error:
            raise AssertionError(f"{name} was killed: {error}\n{ended}") from error
    wait_until(
        lambda: not still_there(pids) and not namespaces & held_here(),
        timeout_s=PATIENCE_S,
        # The kernel gives the numbers of dead namespaces to new ones, which another run that is
        # just being started may hold for a moment; what is left over stays.
        awaited=f"the end of processes {sorted(pids)} and namespaces {sorted(namespaces)}",
    )
    assert list(command.temporary.iterdir()) == []
    assert_the_next_run_works(told, folder, python)


#: bin/xlab's work, where Python is started by something else.
_MAIN = """
import sys
sys.argv = ["xlab", *sys.argv[sys.argv.index("-c") + 2:]]
from xlab.cli import main
sys.exit(main())
"""


def assert_ends_well(told: Order, ended: Ended, *, killed: bool, results: Path) -> None:
    """No traceback, only whole records, and a status that says what became of it."""
    assert "Traceback" not in ended.stdout + ended.stderr
    records = whole_records(results)
    if killed and ended.status == -signal.SIGKILL:
        return
    #: 137: the shell of bin/xlab says so of what it needs to start.
    assert ended.status in (0, 1, 3, 128 + signal.SIGKILL)
    if told.arguments[0] == "run" and told.arguments[1] != "all" and records:
        (found,) = records
        assert ended.status == {"passed": 0, "failed": 1, "skipped": 3}[found.status], found.reason
        assert found.reason or found.status == "passed"


def assert_the_next_run_works(told: Order, folder: Path, python: Sequence[str]) -> None:
    if told.arguments[0] == "run":
        assert_passes(folder / "results", python or [sys.executable])
        assert whole_records(folder / "results")
    else:
        with Command(*told.arguments, folder=folder) as again:
            ended = again.end()
        assert ended.status in ((0, 3) if told.arguments[0] == "doctor" else (0,)), ended
    assert not list(folder.rglob(".partial-*"))


def assert_passes(results: Path, python: Sequence[str], *, attempts: int = 5) -> None:
    """A run passes; once more where others' labs filled the one table that is everybody's."""
    with Run(Request("baseline", quick=True), results, argv=python) as run:
        ended = run.finish()
    crowded = any("neighbours (ARP)" in event.get("text", "") for event in run.events)
    if crowded and attempts > 1 and ended["status"] != "passed":
        assert_passes(results, python, attempts=attempts - 1)
    else:
        assert ended["status"] == "passed", ended


def cgroups_of(pid: int) -> set[str]:
    """The control groups of a process by line of /proc/PID/cgroup, without the root of each tree.

    A process that is ending is in those (cgroup_exit).
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    return {line for line in lines if not line.endswith(":/")}


# -- what was seen until then is on record ---------------------------------------------------------

#: Events of an ovs-gre run: 0 is "ready" (no sandbox yet), 3 and 4 a host each, 5 to 14 claims,
#: 17 the path, 19 the first probe of measuring.
BUILT, LAST = 4, 20


def moments(victim: str, count: int, first: int = 1) -> list[tuple[str, int]]:
    """`count` different moments, the same in every run."""
    return [(victim, m) for m in random.Random(victim).sample(range(first, LAST + 1), count)]


@pytest.mark.parametrize(
    ("victim", "moment"), moments("pid 1", 3) + moments("ovs-vswitchd", 3, first=BUILT)
)
def test_a_run_that_is_hit_keeps_what_it_had_seen(victim: str, moment: int, tmp_path: Path) -> None:
    request = Request("ovs-gre", quick=True, duration_s=1, repeat=1)
    with Run(request, tmp_path / "results", measure=True, claim_patience_s=1) as run:
        reach(run, moment)
        kill(find(lambda: run.first_process() if victim == "pid 1" else run.daemon(victim)))
        ended = run.finish()
        assert (run.wait(), ended["status"]) == (1, "failed")
    expected = "ovs-vswitchd has ended" if victim == "ovs-vswitchd" else "controller"
    assert expected in ended["reason"], ended["reason"]
    kept = record.load(Path(ended["folder"]))
    assert kept.reason == ended["reason"]
    claims = [event["id"] for event in run.events if event["kind"] == "claim"]
    assert [claim.id for claim in kept.claims] == claims


def reach(run: Run, moment: int) -> None:
    for number, _ in enumerate(run):
        if number == moment:
            return
    pytest.fail(f"the run ended before moment {moment}: {run.events[-1]}")


def find(look: Callable[[], int | None]) -> int:
    """The victim's number, as soon as there is one."""
    found: list[int] = []

    def seen() -> bool:
        pid = look()
        found.extend([] if pid is None else [pid])
        return bool(found)

    wait_until(seen, timeout_s=PATIENCE_S, awaited="the victim")
    return found[0]


def held_here() -> set[str]:
    """Namespaces that any process of this PID namespace is in, holds open or has mounted.

    Processes in PID namespaces of their own are other labs: the kernel may have given them the
    numbers that a dead lab's namespaces had.
    """
    here = link_target("/proc/self/ns/pid")
    neighbours = [pid for pid in all_pids() if link_target(f"/proc/{pid}/ns/pid") == here]
    held = set().union(*map(namespaces_of, neighbours))
    return held | {line.split()[3] for line in mounts_here() if " nsfs " in line}


def mounts_here() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


# -- results ---------------------------------------------------------------------------------------

#: Dies in the middle of writing a record: everything is written and nothing is renamed.
_KILLED_WHILE_SAVING = """
import os, sys
from pathlib import Path
from xlab import record
os.fsync = lambda _: os.kill(os.getpid(), 9)
sample = record.load(Path(sys.argv[1]))
record.save(sample, Path(sys.argv[2]) / "killed", {"ping.txt": b"half"})
"""


def test_a_half_written_result_is_gone_with_the_next_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (sample,) = (root / "tests/data/records").glob("*Z-baseline")
    results = tmp_path / "results"
    results.mkdir()
    killed = subprocess.run(
        [sys.executable, "-P", "-c", _KILLED_WHILE_SAVING, str(sample), str(results)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert killed.returncode == -9
    (partial,) = results.iterdir()
    assert partial.name.startswith(".partial-")

    with Run(Request("baseline", quick=True), results) as run:
        finished = run.finish()
    assert [str(path) for path in results.iterdir()] == [finished["folder"]]


_KILLED_BEFORE_THE_GO = """
import os, signal
from xlab import sandbox

first = sandbox._receive_line

def then_die(channel):
    report = first(channel)
    os.kill(os.getpid(), signal.SIGKILL)
    return report

sandbox._receive_line = then_die
sandbox.launch(lambda channel, listener: os._exit(0))
"""


def test_a_caller_killed_before_its_word_leaves_no_first_process() -> None:
    """Pid 1 then waits for the go-ahead; the caller's end of the socket must close for it."""
    mark = f"XLAB_TEST_RUN={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    ended = subprocess.run(
        [sys.executable, "-P", "-c", _KILLED_BEFORE_THE_GO],
        env={**os.environ, name: value, "PYTHONPATH": str(Path(sandbox.__file__).parents[1])},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL

    def nobody_is_left() -> bool:
        return not any(mark.encode() in environment_of(pid) for pid in all_pids())

    wait_until(nobody_is_left, timeout_s=10, awaited="the end of the first process")
