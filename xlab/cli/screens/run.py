"""What a person sees while a scenario runs, and when it has ended.

ovs-gre    2 hosts, 2 containers each   ovs 3.5.0 userspace (netdev)   rootless
  build    h1 ✓  h2 ✓  tunnel ✓                                                  0.4 s
  claims   ✓ c1 reaches the other host                                before the route
  path     gre 20/20, gre0 cut: stops; healed: back
  ⠹ measure  round 1 of 3: TCP, one stream, h1/c1 > h2/c1                about 2 min left
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from xlab.cli._streams import DisplayError
from xlab.cli.screens.screen import (
    BAD,
    GOOD,
    LABEL_WIDTH,
    OPEN,
    Screen,
    roughly,
    side_by_side,
    verdict_style,
)
from xlab.record import record
from xlab.record.metrics import order
from xlab.record.record import Claim, Measurement, PathProof, RunRecord
from xlab.report import conclusion, machine, tables, text, virtual

if TYPE_CHECKING:
    from xlab.experiments.pace import Pace

_EVIDENCE_LINES = 12
_STEPS_SHOWN = 12
_NEXT_PHASE = dict(pairwise(("build", "verify", "path", "measure", "teardown")))

#: What goes on in a phase before its first step is told.
_UNTOLD = {
    "path": "marked packets, then cut and healed",
    "measure": "getting ready",
    "teardown": "ending all processes of the lab",
}


class RunScreen:
    """The display of one command: `running` around each scenario, then `finished`, `closing`."""

    def __init__(self, screen: Screen, pace: Pace | None = None, *, evidence: bool = True) -> None:
        """With a `pace` it says which run of how many this is, and how long all still take.

        Without `evidence` a broken claim has only what was expected, and observed.
        """
        self.screen = screen
        self._evidence = evidence
        self._pace = pace
        self._begin()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one scenario: whatever happens, the terminal is left as it was found."""
        self._begin()
        if self._pace:
            self._pace.begins()
        with self.screen.running():
            yield
        if self._pace:
            self._pace.ended()

    def watch(self, event: Mapping[str, Any]) -> None:
        """Show one event of the runner; DisplayError where nothing can be shown any more."""
        if self._pace:
            self._pace.watch(event)
        try:
            self._show(event)
        except OSError as error:
            raise DisplayError(error) from error

    def _show(self, event: Mapping[str, Any]) -> None:
        match event["kind"]:
            case "started":
                self._started(event)
            case "step":
                self._step(event["phase"], text.plain(event["text"]))
            case "phase":
                self._phase_ended(event["phase"], event["seconds"])
            case "claim":
                self._claim(record.decode(Claim, event, "claim"), str(event.get("look") or ""))
            case "not yet":
                self._not_yet(event)
            case "path":
                self._path(record.decode(PathProof, event, "path"))
            case "measurement":
                self._measurement(record.decode(Measurement, event, "measurement"))
            case "note":
                self.screen.block("note", event["text"], style="yellow")
            case "forking":  # and there must be no thread but the main one
                self.screen.stop()
                return
        self.screen.refresh(self._line)

    def finished(self, result: RunRecord, folder: Path | None) -> None:
        """The figures, the verdict, and where the record is, if there is one."""
        self.screen.stop()
        if result.status == "skipped":
            if not self._headed:
                self.screen.headline(result.scenario, *self._where())
            self.screen.block("skipped", result.reason, style="yellow")
            if folder:
                self.screen.block("", f"{folder}/run.json")
            return
        self._conditions(result)
        figures = tables.route_figures(result)
        if figures.rows:
            self.screen.table(figures, indent=2, titled=False)
        if counted := virtual.instructions([(result.scenario, result)]):
            self.screen.table(counted, indent=2, titled=False)
        self._verdict(result)
        if folder:
            self.screen.block("record", f"{folder}/run.json")

    def closing(self, results: Sequence[RunRecord]) -> None:
        """Several scenarios at a glance."""
        for number, table in enumerate(tables.overview(results)):
            if number or self.screen.is_headed:
                self.screen.blank()
            self.screen.table(table)
        if not results:
            return
        self.screen.blank()
        self.screen.wrapped(tables.LEGEND, "dim")
        self.screen.answers(conclusion.of_records(results))
        for remark in tables.remarks(results):
            self.screen.item("-", remark, sign_style="none")

    def report(self, results: Sequence[RunRecord]) -> None:
        """Records by themselves: the closing table, then the figures and broken claims of each."""
        self.closing(results)
        for result in results:
            figures = tables.route_figures(result, routes_first=True)
            broken = text.broken(result)
            if figures.rows or broken:
                self.screen.blank()
                self.screen.wrapped(tables.heading(result), "bold")
            if figures.rows:
                self.screen.table(figures, titled=False)
            self._begin()
            for claim in broken:
                self._claim(claim)

    # ------------------------------------------------------------------------------ one scenario

    def _begin(self) -> None:
        self._headed = False
        self._phase = "build"
        self._phase_since = time.monotonic()
        self._doing = ""
        self._latest = ""
        self._built: list[str] = []
        self._build_s: float | None = None
        self._claims: list[bool] = []
        self._label = ""
        self._round = 0
        self._round_values: dict[tuple[str, int], str] = {}

    def _started(self, event: Mapping[str, Any]) -> None:
        hosts = text.count(event["hosts"], "host")
        containers = text.count(event["containers"], "container")
        self._headed = True
        self.screen.headline(
            event["scenario"],
            *self._where(),
            f"{hosts}, {containers} each" if event["containers"] else f"{hosts}, no containers",
            event["datapath"],
            *(["virtual time"] if event.get("clock") == "virtual" else [event["sandbox"]]),
            *(f"{name}={value}" for name, value in (event.get("settings") or {}).items()),
        )

    def _where(self) -> list[str]:
        """Which of several this is."""
        pace = self._pace
        if pace is None or pace.of == 1:
            return []
        left = self._left()
        return [f"method {pace.number} of {pace.of}{f', {left}' if left else ''}"]

    def _left(self) -> str:
        left_s = self._pace and self._pace.left_s()
        return f"about {roughly(left_s)} left" if left_s else ""

    def _step(self, phase: str, said: str) -> None:
        if phase != self._phase:
            self._enter(phase)
        if said == self._doing:
            return
        self._doing = said
        if phase == "build":
            self._built.append(said)
        elif self.screen.says_steps and phase == "measure":
            self.screen.block("measure", said)

    def _phase_ended(self, phase: str, duration_s: float) -> None:
        if phase == "build":
            # Claims are checked between the steps, so most of them have been shown by now.
            self._build_s = None if self._built else duration_s
            self._build_line(text.seconds(duration_s))
        elif phase == "verify" and self._claims:
            self._claims_line(duration_s)
        elif phase == "measure":
            self._round_line()
        self._enter(_NEXT_PHASE.get(phase, phase))

    def _enter(self, phase: str) -> None:
        self._phase, self._phase_since = phase, time.monotonic()
        self._doing = self._latest = ""

    def _build_line(self, right: str = "") -> None:
        """The steps since the last claim; on a timeline of its own, as a person would build."""
        steps, self._built = self._built, []
        if not steps:
            return
        shown = steps[:_STEPS_SHOWN]
        if len(steps) > len(shown):
            shown.append(f"{len(steps) - len(shown)} more")
        room = self.screen.width - LABEL_WIDTH - (cell_len(right) + 2 if right else 0)
        line = Text(side_by_side([f"{step} ✓" for step in shown], room))
        line.highlight_regex("✓", "green")
        self.screen.block("build", line, right)
        self._label = "build"

    def _claims_line(self, duration_s: float) -> None:
        held, total = sum(self._claims), len(self._claims)
        said = "all hold" if held == total else (f"{held} of {total} hold", "bold red")
        took = f"checked in {text.seconds(duration_s)}"
        if self._build_s is not None:
            took = f"built in {text.seconds(self._build_s)}, {took}"
        self.screen.block("", Text.assemble(said, (f"   {took}", "dim")))

    def _claim(self, claim: Claim, look: str = "") -> None:
        self._build_line()
        label, self._label = "" if self._label == "claims" else "claims", "claims"
        self._claims.append(claim.holds)
        self._doing = ""
        mark, style = (GOOD, "") if claim.holds else (BAD, "bold red")
        right = text.plain(claim.stage)
        self.screen.block(label, text.claim(claim), right, style=style, mark=mark)
        if not claim.holds:
            self._detail("expected", claim.expected)
            self._detail("observed", claim.observed)
            if self._evidence:
                self._detail("evidence", claim.evidence)
            self._detail("look at", look)

    def _not_yet(self, event: Mapping[str, Any]) -> None:
        """What nobody has begun to build."""
        label, self._label = "" if self._label == "claims" else "claims", "claims"
        said, stage = f"not yet: {event['text']}", text.plain(event["stage"])
        self.screen.block(label, said, stage, mark=OPEN)

    def _detail(self, label: str, content: str) -> None:
        """A line of a broken claim; evidence may be a command and all that it printed."""
        lines = text.plain(content).expandtabs().strip("\n").split("\n")
        if len(lines) > _EVIDENCE_LINES:
            left_out = len(lines) - _EVIDENCE_LINES
            lines = [*lines[:_EVIDENCE_LINES], f"… {text.count(left_out, 'more line')} in run.json"]
        for number, line in enumerate(lines):
            if content:
                name = "" if number else label
                indent = LABEL_WIDTH + 2
                self.screen.block(name, line, indent=indent, label_width=indent + 10)

    def _path(self, proof: PathProof) -> None:
        good = proof.proved and proof.negative_control
        mark, style = (GOOD, "") if good else (BAD, "bold red")
        self.screen.block("path", text.path(proof), style=style, mark=mark)
        facts = []
        if proof.overhead_bytes is not None:
            facts.append(f"overhead {text.count(proof.overhead_bytes, 'byte')}")
        if proof.effective_mtu is not None:
            facts.append(f"effective MTU {proof.effective_mtu}")
        if proof.underlay_packets.stray:
            facts.append(f"{text.count(proof.underlay_packets.stray, 'other packet')} on the link")
        if facts:
            self.screen.block("", ", ".join(facts), mark=Text("  "))
        if not good:
            self._detail("evidence", proof.evidence)

    def _measurement(self, measurement: Measurement) -> None:
        if measurement.round != self._round:
            self._round_line()
            self._round = measurement.round
        metric, median = measurement.metric, measurement.median
        found = "no figure" if median is None else text.value(metric, measurement.unit, median)
        self._latest = f"{text.label(metric, measurement.streams)} {found}"
        if measurement.route == "method":
            self._round_values[metric, measurement.streams] = self._latest

    def _round_line(self) -> None:
        """Where no line tells what is going on, one for each round says that it goes on."""
        if self._round_values and not self.screen.is_moving:
            values = [self._round_values[key] for key in sorted(self._round_values, key=order)]
            left = self._left()
            room = self.screen.width - LABEL_WIDTH - (cell_len(left) + 2 if left else 0)
            self.screen.block(f"round {self._round}", side_by_side(values, room), left)
        self._round_values = {}

    def _conditions(self, result: RunRecord) -> None:
        if result.conditions.backend != "none":
            self.screen.block("links", text.imposed(result.conditions))

    def _verdict(self, result: RunRecord) -> None:
        held = sum(claim.holds for claim in result.claims)
        said = f"{held} of {len(result.claims)} claims hold"
        if result.status == "failed" and result.reason:
            said = text.plain(result.reason)
        if judged := machine.judged(result):
            self.screen.machine(judged)
        verdict = Text.assemble((result.status, verdict_style(result.status)), f"   {said}")
        self.screen.block("result", verdict, text.seconds(result.timings_s.total))

    # ------------------------------------------------------------------------- the line that moves

    def _line(self) -> Text:
        doing = self._doing or _UNTOLD.get(self._phase, "")
        frame = self.screen.frame()
        right = self._left() or f"{time.monotonic() - self._phase_since:.0f} s"
        last = f"   last: {self._latest}" if self._latest else ""
        # What matters least is left out first: what is measured, and for how long, always shows.
        lines = [
            Text.assemble((f"{frame} {self._phase:<8} ", "cyan"), doing, (last, "dim")),
            Text.assemble((f"{frame} {self._phase:<8} ", "cyan"), doing),
            Text.assemble((f"{frame} ", "cyan"), doing.rpartition(": ")[2] or self._phase),
        ]
        room = self.screen.moving_room(right)
        line = next((each for each in lines if each.cell_len <= room), lines[-1])
        return self.screen.moving(line, right)
