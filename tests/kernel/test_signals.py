"""Signals held off: whatever comes at whatever moment, afterwards they are as they were."""

from __future__ import annotations

import signal
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
