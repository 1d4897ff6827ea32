"""What a person sees of a comparison: while it runs, and when it has ended.

compare    6 methods, 10 rounds in 5 builds   rtt, tcp, loaded-rtt
  build 1  baseline ✓  bridge ✓  ovs-gre ✓  weave ✓                                  8.1 s
  round 1  bridge 1.21, 0.95   ovs-gre 27.0, 0.03   weave 9.8, 0.05                 41.3 s
  ⠹ round 2 of 10  ▰▰▰▱▱▱  weave (4 of 6): tcp, control h1 > h2         about 6 min left
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from xlab.cli.screens.screen import BAD, DOUBTFUL, Screen, roughly, side_by_side
from xlab.experiments import pace
from xlab.experiments.compare.journal import Disturbed, History, RoundDone
from xlab.experiments.compare.rounds import Onlooker
from xlab.record import stats
from xlab.record.comparisons import Comparison, Look
from xlab.record.metrics import FOREMOST
from xlab.record.record import Measurement, RunRecord
from xlab.report import comparison as wording
from xlab.report import conclusion, machine, text, virtual

_MARKS = {"passed": "✓", "failed": "✗", "skipped": "skipped"}


class CompareScreen(Onlooker):
    """The display of one comparison: `begins`, what an onlooker is told, then `ends`."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def begins(self, folder: Path, history: History, *, resumed: bool) -> None:
        plan = history.opening.plan
        self._plan = plan
        self._history = history
        self._round_seconds: list[float] = []
        self._build_seconds: list[float] = []
        self._disturbed_seconds: list[float] = []
        self._begun = time.monotonic()
        self._known_s = None if resumed else pace.of_comparison(plan)
        self._position = 0
        self._asked = 0
        self._wanted: list[str] = []
        self._marks: dict[str, str] = {}
        builds = -(-plan.rounds // plan.rounds_per_build)
        more = f", at most {plan.most_rounds}" if plan.most_rounds > plan.rounds else ""
        self.screen.headline(
            "compare",
            f"{text.count(len(plan.methods), 'method')}, "
            f"{text.count(plan.rounds, 'round')}{more} in {text.count(builds, 'build')}",
            ", ".join((*plan.probes, *plan.disturbing)),
            *(["virtual time"] if plan.clock == "virtual" else []),
            *([f"about {roughly(self._known_s)}"] if self._known_s else []),
        )
        self.screen.block("folder", str(folder))
        if resumed:
            done = len(history.rounds)
            self.screen.block("goes on", f"{text.count(done, 'round')} are in the journal")
        self.screen.block("", "each round: RTT and TCP as ratios to the baseline", style="dim")

    # ------------------------------------------------------------------------------- as it happens

    def getting_ready(self, doing: str) -> None:
        self.screen.block("guest", doing, style="dim")

    def forking(self) -> None:
        self.screen.stop()

    def building(self, build: int, methods: Sequence[str]) -> None:
        self._phase, self._phase_since = f"build {build}", time.monotonic()
        self._wanted, self._marks = list(methods), {}
        self._doing = ""

    def step(self, method: str, doing: str) -> None:
        # On the thread of whoever asked the lab: nothing is printed here.
        what = text.plain(doing).rpartition(": ")[2]
        self._doing = f"{text.plain(method)}: {what}"

    def retried(self, method: str, result: RunRecord) -> None:
        said = f"{method} failed, and is built once more: {result.reason}"
        self.screen.block("", said, mark=DOUBTFUL)
        self.screen.refresh(self._line)

    def built(self, method: str, result: RunRecord) -> None:
        self._marks[method] = _MARKS[result.status]
        if result.status != "passed":
            self.screen.block("", f"{method} {result.status}: {result.reason}", mark=BAD)
        self.screen.refresh(self._line)

    def all_built(self, build: int, seconds: float) -> None:
        self._build_seconds.append(seconds)
        names = [f"{text.plain(name)} {self._marks.get(name, '')}" for name in self._wanted]
        line = Text(self._side_by_side(names))
        line.highlight_regex("✓", "green")
        self.screen.block(f"build {build}", line, text.seconds(seconds))
        self._doing = ""

    def round_begins(self, number: int, order: Sequence[str]) -> None:
        self._phase, self._phase_since = f"round {number}", time.monotonic()
        self._asked, self._position = len(order), 0
        self._doing = "the machine is left alone"
        self.screen.refresh(self._line)

    def measuring(self, position: int, method: str) -> None:
        self._position = position
        self._doing = text.plain(method)
        self.screen.refresh(self._line)

    def failed(self, method: str, reason: str) -> None:
        self.screen.block("", f"{method} failed: {reason}", style="bold red", mark=BAD)

    def round_done(self, done: RoundDone) -> None:
        seconds = time.monotonic() - self._phase_since
        self._round_seconds.append(seconds)
        baseline = self._plan.methods[0]
        figures = {name: _medians(found) for name, found in done.measurements.items()}
        said = []
        for name in self._plan.methods[1:]:
            ratios = [
                text.digits(mine / yard) if mine and yard else text.NOTHING
                for mine, yard in zip(
                    figures.get(name, ()), figures.get(baseline, ()), strict=False
                )
            ]
            if ratios:
                said.append(f"{text.plain(name)} {', '.join(ratios)}")
        label, right = f"round {done.number}", text.seconds(seconds)
        self.screen.block(label, self._side_by_side(said), right)

    def disturbing(self, build: int, order: Sequence[str]) -> None:
        self._phase, self._phase_since = f"after build {build}", time.monotonic()
        self._asked, self._position = len(order), 0
        self.screen.refresh(self._line)

    def disturbed(self, done: Disturbed) -> None:
        seconds = time.monotonic() - self._phase_since
        self._disturbed_seconds.append(seconds)
        said = []
        for name in self._plan.methods:
            told = [
                f"{text.label(m.metric).removeprefix('recovery, ')} "
                f"{text.NOTHING if m.median is None else text.value(m.metric, m.unit, m.median)}"
                for m in done.measurements.get(name, ())
            ]
            if told:
                said.append(f"{text.plain(name)} {', '.join(told)}")
        label = "recovery" if "recovery" in self._plan.disturbing else "after"
        self.screen.block(label, self._side_by_side(said), text.seconds(seconds))
        for name, reason in done.errors.items():
            self.screen.block("", f"{name}: {reason}", style="yellow")

    def looked(self, look: Look) -> None:
        if look.widest is None:
            return
        wanted = self._plan.precision
        said = f"the widest interval is ±{look.widest:.0%} ({look.whose})"
        verdict = "narrow enough" if look.widest <= wanted else f"wanted: ±{wanted:.0%}"
        self.screen.block("look", f"{said}; {verdict}", style="dim")

    # ------------------------------------------------------------------------------------- the end

    def ends(self, outcome: Comparison, folder: Path | None, page: Path | None = None) -> None:
        """The tables, what to think of them, and where the files are, if there are any."""
        self.screen.stop()
        self.outcome(outcome, text.seconds(time.monotonic() - self._begun))
        if folder is not None:
            self.screen.block("files", f"{folder}/compare.json")
        if page is not None:
            self.screen.written(page)

    def broken_off(self, outcome: Comparison) -> None:
        """The tables of what there is."""
        self.screen.stop()
        self._tables(outcome, after_all=True)
        done = text.count(len(outcome.rounds), "round")
        self.screen.block("rounds", f"{done}: broken off", style="bold red")

    def outcome(self, outcome: Comparison, took: str = "") -> None:
        """The tables, and what to think of them."""
        self._tables(outcome, after_all=bool(took))
        self.screen.answers(conclusion.of_comparison(outcome))
        self.screen.blank()
        self.screen.remarks(wording.out(outcome), outcome.notes)
        self.screen.blank()
        if outcome.plan.clock == "virtual":
            self.screen.block("clock", virtual.MEANING)
        else:
            why = tuple(machine.reasons(outcome.noise))
            self.screen.machine(machine.Judgement(outcome.noise.verdict, why))
        self.screen.block("rounds", wording.closing(outcome))
        self.screen.result(outcome.status, took)

    def _tables(self, outcome: Comparison, *, after_all: bool) -> None:
        """With an empty line between two, and before the first where rounds were shown."""
        counted = virtual.compared(outcome)
        tables = [*wording.tables(outcome), *([counted] if counted else [])]
        for number, table in enumerate(tables):
            if after_all or number:
                self.screen.blank()
            self.screen.table(table)
        self.screen.blank()

    # ------------------------------------------------------------------------- the line that moves

    def _line(self) -> Text:
        line = Text(f"{self.screen.frame()} {self._phase}", "cyan")
        if self._phase.startswith("round"):
            done = len(self._history.rounds)
            rounds = max(self._plan.rounds, done + 1)
            part = max(self._position - 1, 0) / max(self._asked, 1)
            line.append(f" of {rounds}  ", "cyan").append(self.screen.bar(done + part, rounds))
            line.append(f"  {self._position}/{self._asked} ", "dim")
        elif self._phase.startswith("after"):
            line.append(f"  {self._position}/{self._asked} ", "dim")
        else:
            line.append(f"  {len(self._marks)} of {len(self._wanted)} stand  ", "dim")
        return self.screen.moving(line.append(f" {self._doing}"), self.left())

    def left(self) -> str:
        """How long the rounds still take that are meant to be."""
        elapsed = time.monotonic() - self._phase_since
        round_s = stats.median(self._round_seconds)
        build_s = stats.median(self._build_seconds)
        if round_s is None or build_s is None:
            known_s = (self._known_s or 0.0) - (time.monotonic() - self._begun)
            return f"about {roughly(known_s)} left" if known_s > 0 else f"{elapsed:.0f} s"
        rounds = max(self._plan.rounds - len(self._history.rounds), 1)
        builds = -(-rounds // self._plan.rounds_per_build)
        after_s = stats.median(self._disturbed_seconds) or 0.0
        total = rounds * round_s + builds * (build_s + after_s)
        if self._phase.startswith("round"):
            total -= build_s + min(elapsed, round_s)
        else:
            total -= min(elapsed, after_s if self._phase.startswith("after") else build_s)
        return f"about {roughly(total)} left"

    def _side_by_side(self, items: Sequence[str]) -> str:
        return side_by_side(items, self.screen.width - 20)


def _medians(measurements: Sequence[Measurement]) -> tuple[float | None, ...]:
    found = {m.metric: m.median for m in measurements if m.route == "method" and m.streams == 1}
    # Enough to see that it goes on, and how.
    return tuple(found.get(metric) for metric in FOREMOST)
