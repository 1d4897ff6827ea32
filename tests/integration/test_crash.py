"""SIGKILL at any moment, to the caller, to pid 1, to a daemon: nothing is left of the lab.

The moments are counted in events of the run (steps of building, claims, probes), so that a failure
can be told again; what happens within a moment is up to the scheduler.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import (
    PATIENCE_S,
    Run,
    all_pids,
    environment_of,
    kill,
    link_target,
    names_in,
    namespaces_of,
)
from xlab import record, sandbox
from xlab.processes import wait_until
from xlab.request import Request

pytestmark = [pytest.mark.sandbox, pytest.mark.usefixtures("open_vswitch")]

#: Events of an ovs-gre run: 0 is "ready" (no sandbox yet), 3 and 4 a host each, 5 to 14 claims,
#: 17 the path, 19 the first probe of measuring.
BUILT, LAST = 4, 20


def moments(victim: str, count: int, first: int = 0) -> list[tuple[str, int]]:
    """`count` different moments, the same in every run."""
    return [(victim, m) for m in random.Random(victim).sample(range(first, LAST + 1), count)]


#: What each of the twenty kills hits, and after which event.
KILLS = moments("caller", 8) + moments("pid 1", 7) + moments("ovs-vswitchd", 5, first=BUILT)
AT_ONCE = 4


def test_twenty_kills_leave_nothing(tmp_path: Path) -> None:
    mounts, interfaces = mounts_here(), names_in("/sys/class/net")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            (victim, moment): pool.submit(kill_and_look, victim, moment, tmp_path / str(number))
            for number, (victim, moment) in enumerate(KILLS)
        }
    failures = {kill: str(future.exception()) for kill, future in futures.items()
                if future.exception()}  # fmt: skip
    assert failures == {}
    assert mounts_here() == mounts
    assert names_in("/sys/class/net") == interfaces


def kill_and_look(victim: str, moment: int, results: Path) -> None:
    """One run, one SIGKILL; raises AssertionError or DeadlineError if anything is left of it."""
    request = Request("ovs-gre", quick=True, duration_s=1, repeat=1)
    with Run(request, results, measure=True, claim_patience_s=1) as run:
        reach(run, moment)
        if moment == 0:  # the sandbox is being made
            find(run.first_process)
        doomed = find(lambda: whom(run, victim))
        pids = run.processes()
        namespaces = set().union(*map(namespaces_of, pids)) - namespaces_of(os.getpid())
        kill(doomed)
        if victim == "caller":
            run.wait()
            assert not list(results.glob("*/run.json"))
        else:
            assert_on_record(run, victim)
        wait_until(
            lambda: not run.processes() and not set(pids) & set(all_pids()),
            timeout_s=PATIENCE_S,
            awaited="the end of every process of the run",
        )
    # The kernel gives the numbers of dead namespaces to new ones, which another run that is just
    # being started may hold for a moment; what is left over stays.
    wait_until(
        lambda: not namespaces & held_here(),
        timeout_s=PATIENCE_S,
        awaited=f"the end of every namespace of the run: {sorted(namespaces)}",
    )


def assert_on_record(run: Run, victim: str) -> None:
    """The run ended as failed, names the victim, and has what had been seen until then."""
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


def whom(run: Run, victim: str) -> int | None:
    if victim == "caller":
        return run.pid
    return run.first_process() if victim == "pid 1" else run.daemon(victim)


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
