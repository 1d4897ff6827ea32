"""CPU time, machine-wide: how much a transfer cost beyond what the machine does anyway."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlab.probes.parse import parse_busy_s, parse_process_s


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used in a window of time; the clock of /proc ticks every 10 ms."""

    elapsed_s: float
    #: All processors, softirq included, whoever used them.
    busy_s: float
    #: User and system time of each daemon that lived through the window, by name and number.
    daemons_s: dict[str, float]

    @property
    def busy_share(self) -> float:
        """Busy seconds a second; up to the number of processors."""
        return self.busy_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


#: In the guest of the virtual clock, which is a machine of its own.
_EXACT = "XLAB_VIRTUAL" in os.environ

NO_USAGE = Usage(elapsed_s=0.0, busy_s=0.0, daemons_s={})


def start_measuring(daemon_pids: Sequence[int] = ()) -> Callable[[], Usage]:
    """Begin a window; the function returned ends it."""
    begun, busy, daemons = time.monotonic(), _busy_s(), _daemons_s(daemon_pids)

    def end() -> Usage:
        later = _daemons_s(daemon_pids)
        return Usage(
            elapsed_s=time.monotonic() - begun,
            busy_s=_busy_s() - busy,
            daemons_s={name: later[name] - daemons[name] for name in daemons if name in later},
        )

    return end


def measure_idle(seconds: float) -> Usage:
    """The machine's own load, while this thread does nothing for `seconds`."""
    end = start_measuring()
    time.sleep(seconds)
    return end()


def _busy_s() -> float:
    exact = _exactly_busy_s()
    if exact is not None:
        return exact
    return parse_busy_s(Path("/proc/stat").read_text(encoding="ascii"))


def _exactly_busy_s() -> float | None:
    """Of a single processor by the nanoseconds it slept, which root may read; None elsewhere.

    A tick is 10 ms, a tenth of what fixed work in virtual time takes.
    """
    if not _EXACT:
        return None
    slept = re.findall(r"idle_sleeptime\s*: (\d+) nsecs", Path("/proc/timer_list").read_text())
    return time.monotonic() - sum(map(int, slept)) / 1e9


def _daemons_s(pids: Sequence[int]) -> dict[str, float]:
    found = {}
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, seconds = parse_process_s(stat)
        found[f"{name}[{pid}]"] = seconds
    return found
