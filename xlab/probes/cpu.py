"""CPU time, machine-wide: how much a transfer cost beyond what the machine does anyway."""

from __future__ import annotations

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
    return parse_busy_s(Path("/proc/stat").read_text(encoding="ascii"))


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
