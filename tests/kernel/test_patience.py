"""Whose time it is that a process takes: its own, or the kernel's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fake_clock import FakeClock
from xlab.kernel import patience
from xlab.kernel.patience import Patience, frees_namespaces, is_held_up
from xlab.kernel.processes import wait_until

TIMEOUT_S = 10.0


def lasts_s(held_up: Callable[[float], bool]) -> tuple[float, Patience]:
    """How long 10 s last with a process that is held up at certain seconds of its life."""
    clock = FakeClock(0.0)
    waiting = Patience(7, TIMEOUT_S, clock=clock, held_up=lambda _: held_up(clock.now_s))
    while not waiting.passed():
        clock.sleep(waiting.turn_s())
    return clock.now_s, waiting


def test_a_process_that_works_has_its_time_and_no_more() -> None:
    took_s, waiting = lasts_s(lambda _: False)
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


def test_a_process_is_looked_at_now_and_then_however_often_one_asks() -> None:
    clock, looks = FakeClock(0.0), 0

    def look(_: int) -> bool:
        nonlocal looks
        looks += 1
        return False

    waiting = Patience(7, 100, clock=clock, held_up=look)
    while not waiting.passed():
        clock.sleep(0.01)
    assert looks == pytest.approx(50, abs=2)


def test_a_condition_that_a_process_brings_about(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(0.0)
    monkeypatch.setattr(patience, "is_held_up", lambda pid: pid == 7 and clock.now_s < 40)
    wait_until(
        lambda: clock.now_s > 45, timeout_s=10, awaited="it", pid=7, clock=clock, sleep=clock.sleep
    )


# -- what /proc says -------------------------------------------------------------------------------


def process(
    proc: Path, pid: int, *threads: str, comm: str = "ip", children: tuple[int, ...] = ()
) -> None:
    """A process as /proc shows it, whose threads are in these states."""
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
    assert [pid for pid in (10, 20, 30, 40, 99) if is_held_up(pid, proc=tmp_path)] == [10, 30]


def test_the_kernel_at_work_on_namespaces(tmp_path: Path) -> None:
    process(tmp_path, 10, "I", comm="kworker/u8:1-netns")  # has been
    process(tmp_path, 20, "D", comm="mine+netns")  # anybody may be called so
    assert not frees_namespaces(proc=tmp_path)
    process(tmp_path, 30, "D", comm="kworker/u8:4+netns")
    assert frees_namespaces(proc=tmp_path)
