"""Things to be done later, in the one thread."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from xlab.kernel.clock import Clock


class Timer:
    """Something that is to happen once; `cancel` it if not."""

    __slots__ = ("_call", "at_s")

    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s = at_s
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self._call = None

    def fire(self) -> None:
        call, self._call = self._call, None
        if call:
            call()

    @property
    def pending(self) -> bool:
        return self._call is not None


class Timers:
    """A heap of timers on a clock that counts seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        #: The second member keeps the order of those that are due at the same time.
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self.clock() + delay_s, call)
        self._count += 1
        if self._count % 1024 == 0:
            # Cancelled timers stay until their time has come: now and then they are cleared away.
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (timer.at_s, self._count, timer))
        return timer

    def soon(self, call: Callable[[], None]) -> Timer:
        """As soon as the thread is back in its loop: for what must not happen within a call."""
        return self.after(0.0, call)

    def next_at_s(self) -> float | None:
        """When `run` should be called next; None if nothing waits."""
        while self._heap and not self._heap[0][2].pending:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self) -> None:
        """Do what is due, in order.  What that makes due in its turn waits for the next call."""
        now_s = self.clock()
        newest = self._count
        while self._heap and self._heap[0][0] <= now_s and self._heap[0][1] <= newest:
            heapq.heappop(self._heap)[2].fire()
