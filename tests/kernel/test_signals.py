"""Signals held off: whatever comes at whatever moment, afterwards they are as they were."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import pytest

from xlab.kernel import signals


class StoppedError(Exception):
    pass


def test_what_a_handler_raises_meanwhile_leaves_no_signal_blocked() -> None:
    came = 0

    def come(_: int, __: FrameType | None) -> NoReturn:
        nonlocal came
        came += 1
        raise StoppedError

    before = signal.signal(signal.SIGALRM, come)
    try:
        while came < 2000:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (came % 400 + 1))
                while True:
                    with signals.held_off() as mask:
                        assert mask == set()
            except StoppedError:
                assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_new_handler_meets_what_comes_while_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is told of what comes when the kernel is to ignore it."""
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    met: list[int] = []
    before = signal.getsignal(signal.SIGALRM)
    try:
        for number in range(500):
            signals.handle({signal.SIGALRM: lambda number, _: met.append(number)})
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (number % 50 + 1))
            signals.handle({signal.SIGALRM: signal.SIG_IGN})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signals.handle({signal.SIGALRM: before})
    assert told == []
    assert set(met) <= {signal.SIGALRM}


@pytest.fixture
def met() -> Iterator[list[int]]:
    """Which SIGUSR1 have been met by their handler so far."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    ("start", "given"), [(signals.start_deaf, False), (threading.Thread.start, True)]
)
def test_the_kernel_gives_a_deaf_thread_no_signal(
    met: list[int], start: Callable[[threading.Thread], None], *, given: bool
) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    start(thread)
    with signals.noted() as noted:
        poller = select.poll()
        poller.register(noted, select.POLLIN)
        with signals.held_off():
            os.kill(os.getpid(), signal.SIGUSR1)
            came = bool(poller.poll(5000 if given else 100))
            pending = signal.SIGUSR1 in signal.sigpending()
    over.set()
    thread.join()
    assert (came, pending) == (given, not given)
    assert met == [signal.SIGUSR1]


def test_what_is_noted_before_a_wait_can_be_seen_by_it(met: list[int]) -> None:
    with signals.noted() as noted:
        poller = select.poll()
        poller.register(noted, select.POLLIN)
        signal.raise_signal(signal.SIGUSR1)
        assert met
        assert poller.poll(0)
    assert signal.set_wakeup_fd(-1) == -1


def test_a_deaf_thread_hears_while_it_starts_something() -> None:
    masks: list[set[int]] = []

    def look() -> None:
        signals.deafen()
        for _ in range(2):
            masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            with signals.hearing():
                masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    deaf, hearing, again, _ = masks
    assert signal.SIGINT in deaf
    assert (hearing, again) == (set(), deaf)
