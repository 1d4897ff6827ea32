"""The one clock by which things are decided, and deadlines on it.

It counts seconds from some moment, never goes back, and knows nothing of the time of day, which a
person, NTP or a virtual machine's host may set at will.  The time of day is data only: the start of
a run, the name of its folder, the moment of a captured frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: What decides anything by time is given one of these; tests make the seconds up.
Clock = Callable[[], float]

#: CLOCK_MONOTONIC: no step of the time of day moves it, and it stands still while the machine is
#: suspended, clock_gettime(2).
steady: Clock = time.monotonic


class Deadline:
    """A moment `timeout_s` from now."""

    def __init__(self, timeout_s: float, clock: Clock = steady) -> None:
        self._clock = clock
        self._at_s = clock() + timeout_s

    def left_s(self) -> float:
        """Seconds until then; 0 once it has passed."""
        return max(0.0, self._at_s - self._clock())

    def passed(self) -> bool:
        return self._clock() >= self._at_s

    def put_off(self, seconds: float) -> None:
        self._at_s += seconds
