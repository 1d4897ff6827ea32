"""What is decided by time, and that no time of day has a say in it."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.weave_world import World
from xlab.errors import DeadlineError
from xlab.kernel.clock import Deadline
from xlab.kernel.processes import wait_until
from xlab.weave.timers import Timers

HOUR_S = 3600.0
PACKAGE = Path(__file__).parents[2] / "xlab"


# -- deadlines -------------------------------------------------------------------------------------


def test_a_deadline_counts_down_and_stays_at_nothing() -> None:
    clock = FakeClock()
    deadline = Deadline(5, clock)
    assert (deadline.left_s(), deadline.passed()) == (5, False)
    clock.now_s += 4
    assert (deadline.left_s(), deadline.passed()) == (1, False)
    clock.now_s += HOUR_S
    assert (deadline.left_s(), deadline.passed()) == (0, True)


def patience_s(clock: FakeClock, condition: Callable[[], bool] = lambda: False) -> float:
    """How long 5 s last until they are over."""
    begun_s = clock.now_s
    with pytest.raises(DeadlineError, match="waited 5 s in vain for Godot"):
        wait_until(condition, timeout_s=5, awaited="Godot", clock=clock, sleep=clock.sleep)
    return clock.now_s - begun_s


def test_waiting_ends_when_its_time_is_up() -> None:
    assert patience_s(FakeClock()) == pytest.approx(5, abs=0.1)


def test_what_a_condition_takes_counts() -> None:
    clock = FakeClock()
    looks = 0

    def slow() -> bool:
        nonlocal looks
        looks += 1
        clock.now_s += 2
        return False

    assert patience_s(clock, slow) == pytest.approx(6, abs=0.1)
    assert looks == 3


def test_an_hour_of_standstill_takes_nobodys_time_away() -> None:
    """Suspended, stopped or without a processor: what is awaited stood still as well."""
    clock = FakeClock()
    clock.oversleeps_s = [0.0, HOUR_S, 0.0, HOUR_S]
    assert patience_s(clock) == pytest.approx(5 + 2 * HOUR_S, abs=0.1)


def test_a_busy_machine_gives_the_longer_to_wait() -> None:
    clock = FakeClock()
    clock.oversleeps_s = [0.45] * 1000  # of 0.05 s asked for
    assert patience_s(clock) > 40


# -- the router's timers ---------------------------------------------------------------------------


def test_timers_that_an_hour_made_late_fire_once_each_and_in_order() -> None:
    clock = FakeClock()
    timers = Timers(clock)
    fired: list[str] = []

    def beat() -> None:
        fired.append("beat")
        timers.after(10, beat)

    timers.after(20, lambda: fired.append("late"))
    timers.after(10, beat)
    clock.now_s += HOUR_S
    timers.run()
    assert fired == ["beat", "late"], "no 360 beats to catch up with"
    assert timers.next_at_s() == clock.now_s + 10


def test_routers_find_each_other_again_after_an_hour_of_standstill() -> None:
    world = World()
    a, b = world.routers(2)
    a.control.connect([b.host])
    world.run(5)
    assert (a.established, b.established) == ({b.name}, {a.name})
    world.now_s += HOUR_S
    world.run(30)
    assert (a.established, b.established) == ({b.name}, {a.name})
    assert len(a.dialled) + len(b.dialled) <= 6, "and do not storm each other meanwhile"


# -- the time of day -------------------------------------------------------------------------------

#: Where it is asked for in seconds, and what for.
SECONDS_OF_THE_DAY = {
    "lab/capture.py": "when a frame was captured",
    "probes/iperf.py": "when transfers ran, for loaded.py",
    "probes/loaded.py": "ping says when a reply came in these; a step of the clock is told",
}
_SECONDS = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.CLOCK_REALTIME"}
_DATES = {"datetime.now", "datetime.today", "datetime.utcnow", "date.today"}


def test_seconds_of_the_day_are_asked_for_as_data_only() -> None:
    asking = {file for file, tree in modules() if _SECONDS & set(names(tree))}
    assert asking == set(SECONDS_OF_THE_DAY)
    imported = {
        alias.name
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
    }
    assert imported <= {"monotonic", "sleep"}


def test_dates_are_written_down_and_not_reckoned_with() -> None:
    reckoned, found = [], 0
    for file, tree in modules():
        found += sum(name in _DATES for name in names(tree))
        reckoned += [
            f"{file}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Compare | ast.BinOp) and _DATES & set(names(node))
        ]
    assert reckoned == []
    assert found >= 3, "the search finds what is there"


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    """Those in which the words are that a name of _SECONDS or _DATES begins with."""
    sources = {file: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    return [
        (str(file.relative_to(PACKAGE)), ast.parse(source))
        for file, source in sources.items()
        if re.search(r"\b(time|datetime|date)\b", source)
    ]


def names(tree: ast.AST) -> Iterator[str]:
    """What is spelt "this.that" below."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
