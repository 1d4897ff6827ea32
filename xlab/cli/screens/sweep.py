"""What a person sees of a sweep: while points arrive, and when all have.

sweep      12 points, 3 methods each   mtu × delay   one worker, in this process
  point 1  mtu=9000 delay=5ms   bridge 1.02, 0.98   weave 9.8, 0.05                       41.3 s
  ⠹ 1 of 12 points  ▰▱▱▱▱▱▱▱▱▱  mtu=1500 delay=none …             about 8 min left
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from xlab.cli.screens.screen import BAD, DOUBTFUL, Screen, roughly, side_by_side
from xlab.experiments import pace
from xlab.experiments.sweep.outcome import PointDone, Sweep, left_s, seconds_of
from xlab.experiments.sweep.spec import Spec
from xlab.record import stats
from xlab.record.comparisons import Comparison
from xlab.record.metrics import FOREMOST
from xlab.report import sweeps, text, virtual

_MARKS = {"passed": Text("✓ ", "bold green"), "failed": BAD}


class SweepScreen:
    """The display of one sweep: `begins`, `arrived` for each point, then `ends`."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def begins(self, spec: Spec, folder: Path, done: Sequence[Comparison], workers: int) -> None:
        """`workers`: how many points are measured at once; `done`: those found in the folder."""
        self._points = len(spec.points)
        self._done = len(done)
        self._workers = workers
        self._took = [seconds for each in done if (seconds := seconds_of(each)) is not None]
        self._known = _known(spec)
        self._since = self._begun = time.monotonic()
        self.screen.headline(
            "sweep",
            text.count(self._points, "point"),
            " × ".join(f"{len(values)} {axis}" for axis, values in spec.axes.items()),
            self._who(workers),
            *([virtual.NAME] if spec.clock == "virtual" else []),
            *([self.left()] if self._done < self._points else []),
        )
        self.screen.block("folder", str(folder))
        if done:
            self.screen.block("goes on", f"{text.count(len(done), 'point')} are in the folder")
        self.screen.block("", "each point: RTT and TCP as ratios to the baseline", style="dim")
        self.screen.refresh(self._line)

    def _who(self, workers: int) -> str:
        if self._done == self._points:
            return "all of them are there"
        return text.count(workers, "worker") if workers else "no worker has joined yet"

    def waits(self, reason: str) -> None:
        """A point can't be begun yet; may come from another thread."""
        self.screen.block("waits", reason)
        self.screen.refresh(self._line)

    def arrived(self, point: PointDone, workers: int) -> None:
        """One more point has ended, whatever became of it."""
        now = time.monotonic()
        took = point.seconds if point.seconds is not None else now - self._since
        if point.methods:
            self._took.append(took)
        self._done, self._workers, self._since = self._done + 1, workers, now
        said = [sweeps.named(point)]
        for method in point.methods[1:]:
            ratios = [text.ratio(sweeps.ratio(point, method.name, name)) for name in FOREMOST]
            said.append(f"{text.plain(method.name)} {', '.join(ratios)}")
        if point.status != "passed":
            said.append(f"{point.status}: {text.plain(point.reason)}")
        # Off a terminal there is no line that moves.
        left = "" if self.screen.moves or self._done == self._points else f", {self.left()}"
        mark = _MARKS.get(point.status, DOUBTFUL)
        line = side_by_side(said, self.screen.width - 34)
        count = f"{self._done}/{self._points}"
        self.screen.block(count, line, f"{text.seconds(took)}{left}", mark=mark)
        self.screen.refresh(self._line)

    def ends(self, outcome: Sweep, folder: Path, charts: Sequence[Path], page: Path) -> None:
        """The tables, what to think of them, and where the files are."""
        self.screen.stop()
        self.screen.blank()
        self.outcome(outcome, text.seconds(time.monotonic() - self._begun))
        self.screen.block("files", f"{folder}/sweep.json")
        for chart in charts:
            if chart.suffix == ".svg":
                self.screen.block("chart", str(chart))
        self.screen.written(page)

    def outcome(self, outcome: Sweep, took: str = "") -> None:
        """The tables, and what to think of them."""
        for table in sweeps.tables(outcome):
            self.screen.table(table)
            self.screen.blank()
        self.screen.remarks(sweeps.out(outcome), outcome.notes)
        self.screen.result(outcome.status, took)

    def left(self) -> str:
        """How long the points that are left still take, from those that have ended.

        Before the first has, from what its steps are known to take.
        """
        running = time.monotonic() - self._since
        took = self._took or self._known
        left = left_s(took, self._points - self._done, self._workers, running)
        if left is None:
            return "no estimate yet"
        if running <= (stats.median(took) or 0.0):
            return f"about {_duration(left)} left"
        return f"at least {_duration(left)} left" if left else "longer than the others"

    def _line(self) -> Text:
        line = Text(f"{self.screen.frame()} {self._done} of {self._points} points  ", "cyan")
        line.append(self.screen.bar(self._done, self._points), "cyan")
        line.append(f"  this one for {time.monotonic() - self._since:.0f} s", "dim")
        return self.screen.moving(line, self.left())


def _known(spec: Spec) -> list[float]:
    """How long a point takes, as far as that is known before."""
    _, plan = spec.points[0].comparison()
    seconds = pace.of_comparison(plan)
    return [] if seconds is None else [seconds]


def _duration(seconds: float) -> str:
    return roughly(seconds) if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
