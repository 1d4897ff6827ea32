"""Whose time it is that a process takes: its own, or the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fake_clock import FakeClock
from xlab.kernel import patience
from xlab.kernel.patience import Look, Patience, frees_namespaces, look_at
from xlab.kernel.processes import wait_until

TIMEOUT_S = 10.0


def lasts_s(
    held_up: Callable[[float], bool] = lambda _: False,
    runnable: Callable[[float], bool] = lambda _: False,
    processors: float = 0.0,
) -> tuple[float, Patience]:
    """How long 10 s last with a process that is held up at certain seconds of its life.

    Or has something to do at others; it is given so many processors all the time.
    """
    clock = FakeClock(0.0)

    def look(_: int) -> Look:
        return Look(held_up(clock.now_s), runnable(clock.now_s), 100 + processors * clock.now_s)

    waiting = Patience(7, TIMEOUT_S, clock=clock, look=look)
    while not waiting.passed():
        clock.sleep(waiting.turn_s())
    return clock.now_s, waiting


def test_a_process_that_works_has_its_time_and_no_more() -> None:
    took_s, waiting = lasts_s(runnable=lambda _: True, processors=1)
    assert took_s == pytest.approx(TIMEOUT_S)
    assert waiting.waited_s == 0


@pytest.mark.parametrize(("since_s", "until_s"), [(0, 17), (3, 20), (9.9, 30), (2, 300)])
def test_what_the_kernel_takes_is_added(since_s: float, until_s: float) -> None:
    took_s, waiting = lasts_s(lambda now_s: since_s < now_s < until_s)
    held_up_s = until_s - since_s
    assert took_s == pytest.approx(TIMEOUT_S + held_up_s, abs=0.5)
    assert waiting.waited_s == pytest.approx(held_up_s, abs=0.5)


def test_what_never_ends_is_not_waited_for_for_ever() -> None:
    took_s, waiting = lasts_s(lambda _: True)
    assert took_s == pytest.approx(TIMEOUT_S + 300, abs=0.5)
    assert waiting.waited_s == pytest.approx(300, abs=0.5)


@pytest.mark.parametrize(
    ("processors", "took_s"), [(0.1, 10 / 0.1), (0.5, 10 / 0.5), (1, 10), (2, 10), (0, 310)]
)
def test_a_busy_machine_is_not_counted_but_by_what_it_gives(
    processors: float, took_s: float
) -> None:
    lasted_s, waiting = lasts_s(runnable=lambda _: True, processors=processors)
    # The first look takes all the time for its own.
    assert lasted_s == pytest.approx(took_s, rel=0.05)
    assert waiting.waited_s == 0


@pytest.mark.parametrize("runnable", [True, False])
def test_who_looks_late_has_waited_too(runnable: bool) -> None:
    """Without a processor, or on a machine that was stopped: what is awaited may sleep by now."""
    clock = FakeClock(0.0)
    waiting = Patience(7, TIMEOUT_S, clock=clock, look=lambda _: Look(runnable=runnable))
    clock.sleep(3 * TIMEOUT_S)
    assert not waiting.passed()
    assert waiting.left_s() > TIMEOUT_S / 2


def test_who_sleeps_has_the_time_that_goes_by() -> None:
    took_s, _ = lasts_s(runnable=lambda now_s: 4 < now_s < 6, processors=0.1)
    assert took_s == pytest.approx(TIMEOUT_S + 0.9 * 2, abs=0.5)


def test_a_process_is_looked_at_now_and_then_however_often_one_asks() -> None:
    clock, looks = FakeClock(0.0), 0

    def look(_: int) -> Look:
        nonlocal looks
        looks += 1
        return Look()

    waiting = Patience(7, 100, clock=clock, look=look)
    while not waiting.passed():
        clock.sleep(0.01)
    assert looks == pytest.approx(50, abs=2)


def test_a_condition_that_a_process_brings_about(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(0.0)
    monkeypatch.setattr(patience, "look_at", lambda pid: Look(pid == 7 and clock.now_s < 40))
    wait_until(
        lambda: clock.now_s > 45, timeout_s=10, awaited="it", pid=7, clock=clock, sleep=clock.sleep
    )


# -- what /proc says -------------------------------------------------------------------------------


def process(
    proc: Path,
    pid: int,
    *threads: str,
    comm: str = "ip",
    children: tuple[int, ...] = (),
    used: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> None:
    """A process as /proc shows it, whose threads are in these states."""
    (proc / str(pid)).mkdir(parents=True)
    times = " ".join(str(number) for number in used)
    (proc / str(pid) / "stat").write_text(
        f"{pid} ({comm}) {threads[0]} 1 1 1 0 -1 4194304 0 0 0 0 {times} 20 0 1\n"
    )
    for number, state in enumerate(threads, pid):
        folder = proc / str(pid) / "task" / str(number)
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{number} ({comm}) {state} 1 1 1 0 -1 4194304")
        (folder / "children").write_text("".join(f"{child} " for child in children))
    (proc / str(pid) / "comm").write_text(f"{comm}\n")


def test_uninterruptible_sleep_of_a_thread_or_a_descendant(tmp_path: Path) -> None:
    process(tmp_path, 10, "S", children=(20, 30))
    process(tmp_path, 20, "R", comm="a) D (b")
    process(tmp_path, 30, "S", "S", "D")
    process(tmp_path, 40, "S", children=(20, 99))
    looks = {pid: look_at(pid, proc=tmp_path) for pid in (10, 20, 30, 40, 99)}
    assert [pid for pid, look in looks.items() if look.held_up] == [10, 30]
    assert [pid for pid, look in looks.items() if look.runnable] == [10, 20, 40]


def test_what_it_had_of_the_processors_with_its_descendants(tmp_path: Path) -> None:
    process(tmp_path, 10, "S", "S", children=(20,), used=(100, 200, 300, 400))
    process(tmp_path, 20, "R", comm="a) 7 (b", used=(1, 2, 3, 4))
    more_s = look_at(10, proc=tmp_path).used_s - look_at(99, proc=tmp_path).used_s
    assert more_s * os.sysconf("SC_CLK_TCK") == pytest.approx(1010, abs=5)


def test_what_another_child_of_ours_had_is_not_its_own(tmp_path: Path) -> None:
    before_s = look_at(99, proc=tmp_path).used_s
    work = "import time\nwhile time.process_time() < 1: pass"
    subprocess.run([sys.executable, "-S", "-c", work], check=True)
    assert look_at(99, proc=tmp_path).used_s - before_s < 0.5


def test_what_we_have_to_do_for_it_ourselves(tmp_path: Path) -> None:
    process(tmp_path, 10, "S")
    ours = tmp_path / str(os.getpid()) / "task"
    process(tmp_path, os.getpid(), "S")
    for number, state, is_seen in ((threading.get_native_id(), "R", False), (1, "R", True)):
        (ours / str(number)).mkdir(exist_ok=True)
        (ours / str(number) / "stat").write_text(f"{number} (us) {state} 1 1 1")
        assert look_at(10, proc=tmp_path).runnable is is_seen


def test_the_kernel_at_work_on_namespaces(tmp_path: Path) -> None:
    process(tmp_path, 10, "I", comm="kworker/u8:1-netns")  # has been
    process(tmp_path, 20, "D", comm="mine+netns")  # anybody may be called so
    assert not frees_namespaces(proc=tmp_path)
    process(tmp_path, 30, "D", comm="kworker/u8:4+netns")
    assert frees_namespaces(proc=tmp_path)
