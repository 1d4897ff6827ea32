"""A clock whose seconds are made up."""

from __future__ import annotations


class FakeClock:
    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        #: By how much each sleep is longer than was asked for, in turn.
        self.oversleeps_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + (self.oversleeps_s.pop(0) if self.oversleeps_s else 0.0)
