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

from xlab.cli.screens.run import Screen, side_by_side
from xlab.experiments.sweep.outcome import PointDone, Sweep, left_s, seconds_of
from xlab.experiments.sweep.spec import Spec
from xlab.record import stats
from xlab.record.comparisons import Comparison
from xlab.record.metrics import FOREMOST
from xlab.report import sweeps, text

_MARKS = {"passed": Text("✓ ", "bold green"), "failed": Text("✗ ", "bold red")}


class SweepScreen(Screen):
    """The display of one sweep: `begins`, `arrived` for each point, then `ends`."""

    def begins(self, spec: Spec, folder: Path, done: Sequence[Comparison], workers: int) -> None:
        """`workers`: how many points are measured at once; `done`: those found in the folder."""
        self._points = len(spec.points)
        self._done = len(done)
        self._workers = workers
        self._took = [seconds for each in done if (seconds := seconds_of(each)) is not None]
        self._since = self._begun = time.monotonic()
        self._headline(
            "sweep",
            text.count(self._points, "point"),
            " × ".join(f"{len(values)} {axis}" for axis, values in spec.axes.items()),
            self._who(workers),
        )
        self._block("folder", Text(str(folder)))
        if done:
            self._block("goes on", Text(f"{text.count(len(done), 'point')} are in the folder"))
        self._block("", Text("each point: RTT and TCP as ratios to the baseline", "dim"))
        self._refresh()

    def _who(self, workers: int) -> str:
        if self._done == self._points:
            return "all of them are there"
        return text.count(workers, "worker") if workers else "no worker has joined yet"

    def waits(self, reason: str) -> None:
        """A point can't be begun yet; may come from another thread."""
        self._block("waits", Text(text.plain(reason)))
        self._refresh()

    def arrived(self, point: PointDone, workers: int) -> None:
        """One more point has ended, whatever became of it."""
        now = time.monotonic()
        took = point.seconds if point.seconds is not None else now - self._since
        if point.methods:
            self._took.append(took)
        self._done, self._workers, self._since = self._done + 1, workers, now
        said = [sweeps.named(point)]
        for method in point.methods[1:]:
            shown = [sweeps.shown(point, method.name, metric) for metric in FOREMOST]
            ratios = [text.ratio(each.to_baseline if each else None) for each in shown]
            said.append(f"{text.plain(method.name)} {', '.join(ratios)}")
        if point.status != "passed":
            said.append(f"{point.status}: {text.plain(point.reason)}")
        # Off a terminal there is no line that moves.
        left = "" if self._live_wanted or self._done == self._points else f", {self.left()}"
        mark = _MARKS.get(point.status, Text("! ", "bold yellow"))
        line = Text(side_by_side(said, self._line_width - 34))
        count = f"{self._done}/{self._points}"
        self._block(count, line, f"{text.seconds(took)}{left}", mark=mark)
        self._refresh()

    def ends(self, outcome: Sweep, folder: Path, charts: Sequence[Path], page: Path) -> None:
        """The tables, what to think of them, and where the files are."""
        self._stop_live()
        self._console.print()
        self.outcome(outcome, text.seconds(time.monotonic() - self._begun))
        self._block("files", Text(f"{folder}/sweep.json"))
        for chart in charts:
            if chart.suffix == ".svg":
                self._block("chart", Text(str(chart)))
        self.written(page)

    def outcome(self, outcome: Sweep, took: str = "") -> None:
        """The tables, and what to think of them."""
        for table in sweeps.tables(outcome):
            self.table(table)
            self._console.print()
        for line in sweeps.out(outcome):
            self._block("✗", Text(line, "bold red"), style="bold red", indent=0, label_width=2)
        for note in outcome.notes:
            self._block("-", Text(text.plain(note), "dim"), indent=0, label_width=2)
        colour = "bold green" if outcome.status == "passed" else "bold red"
        self._block("result", Text(outcome.status, colour), took)

    def stop(self) -> None:
        """Leave the terminal as it was found; what is printed next is another's."""
        self._stop_live()

    def left(self) -> str:
        """How long the points that are left still take, from those that have ended."""
        running = time.monotonic() - self._since
        left = left_s(self._took, self._points - self._done, self._workers, running)
        if left is None:
            return "no estimate yet"
        if running <= (stats.median(self._took) or 0.0):
            return f"about {_duration(left)} left"
        return f"at least {_duration(left)} left" if left else "longer than the others"

    def _status(self) -> Text:
        frame = self._frames[int(time.monotonic() * 10) % len(self._frames)]
        left = self.left()
        width = min(self._line_width, self._console.width - 3)
        line = Text(f"{frame} {self._done} of {self._points} points  ", "cyan")
        filled = 10 * self._done // self._points
        full, empty = ("▰", "▱") if self._console.encoding.startswith("utf") else ("#", ".")
        line.append(full * filled + empty * (10 - filled), "cyan")
        line.append(f"  this one for {time.monotonic() - self._since:.0f} s", "dim")
        line.truncate(max(width - len(left) - 2, 1), overflow="ellipsis", pad=True)
        return line.append(f"  {left}", "dim")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
