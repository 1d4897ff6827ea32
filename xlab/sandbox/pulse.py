"""Whether whoever is asked can answer at all: its process tells, not how long it takes.

    /proc/8918/stat           8918 (xlab) T …   stopped, by a signal or a debugger: no answer comes
    /proc/8918/task/*/stat    R, D              a thread at work, or waiting for the kernel

So an answer may take its time, on a machine however busy, and yet nobody waits for one that will
never come.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress

from xlab.errors import NoAnswerError

#: Between two looks at the process; a wait is counted in these, so time overslept does not count.
LOOK_S = 0.05
#: How long it must have been stopped at every look: whoever traces it stops it for moments.
STOPPED_S = 0.5
#: How long one that is asked for no work may be silent with no thread at work at any look.
IDLE_S = 15.0


class Pulse:
    """The process of a lab's controller, as whoever waits for it looks at it."""

    def __init__(self, pid: int, lab: str = "") -> None:
        """`pid` is 0, and nothing can be seen, if it is in no PID namespace of ours."""
        self.pid = pid
        self.lab = lab
        # The folder stays this very process's, whoever has its number later, and is readable from
        # within the lab, too, whose own /proc has other numbers.
        self._folder: int | None = None
        with suppress(OSError):
            self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def wait(
        self,
        ready: Callable[[float], bool],
        *,
        idle_s: float = math.inf,
        limit_s: float = math.inf,
    ) -> float:
        """Wait until `ready(seconds)`, which waits so long at most, is true; how long that was.

        NoAnswerError when the process is stopped, when none of its threads has been at work for
        `idle_s`, or after `limit_s`.
        """
        waited = stopped = idle = 0.0
        if limit_s <= 0:
            raise NoAnswerError(self.lab, self.pid)
        while True:
            begun = time.monotonic()
            if ready(max(0.0, min(LOOK_S, limit_s - waited))):
                return waited + min(LOOK_S, time.monotonic() - begun)
            waited += LOOK_S
            stopped = stopped + LOOK_S if self._is_stopped() else 0.0
            if idle_s < math.inf:
                idle = 0.0 if self._is_at_work() else idle + LOOK_S
            if stopped >= STOPPED_S or idle >= idle_s or waited >= limit_s:
                raise NoAnswerError(self.lab, self.pid)

    def beats(self, patience_s: float) -> bool:
        """Whether it is not stopped, now or after so long."""
        if self._is_stopped():
            time.sleep(patience_s)
        return not self._is_stopped()

    def close(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _is_stopped(self) -> bool:
        return self._state("stat") in "tT"

    def _is_at_work(self) -> bool:
        if self._folder is None:
            return False
        try:
            task = os.open("task", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return False
        try:
            threads = os.listdir(task)  # noqa: PTH208 - from within the lab no path leads there
            return any(self._state(f"task/{thread}/stat") in "RD" for thread in threads)
        except OSError:
            return False
        finally:
            os.close(task)

    def _state(self, path: str) -> str:
        """One letter of proc(5); "-" if it can't be read."""
        if self._folder is None:
            return "-"
        try:
            stat = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            with os.fdopen(stat, "rb", buffering=0) as opened:
                # Behind the name, which may hold anything but is short.
                return opened.read(256).rpartition(b") ")[2][:1].decode() or "-"
        except OSError:
            return "-"
