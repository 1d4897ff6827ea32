"""What a person sees while a scenario runs, and when it has ended.

    ovs-gre    2 hosts, 2 containers each   ovs 3.5.0 userspace (netdev)   rootless
      build    h1 ✓  h2 ✓  tunnel ✓                                                  0.4 s
      claims   ✓ c1 reaches the other host                                before the route
      path     gre 20/20, gre0 cut: stops; healed: back
      ⠹ measure  iperf3 h1/c1 > h2/c1                                                  8 s

Facts are lines that stay, the same everywhere.  On a terminal one more line, the last, tells what
is going on; it is redrawn by a thread, which starts with the first event (the sandbox has been
forked by then) and has ended before the next scenario is launched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from xlab.cli._streams import DisplayError
from xlab.record import record
from xlab.record.figures import order
from xlab.record.record import Claim, Measurement, PathProof, RunRecord
from xlab.report import tables, text
from xlab.report.tables import Table

if TYPE_CHECKING:
    from xlab.cli._findings import Finding

#: What is set flush right stays near its line on a very wide terminal.
LINE_WIDTH = 100
_LABEL_WIDTH = 11
_EVIDENCE_LINES = 12
_TICK_S = 0.125
_STEPS_SHOWN = 12
_NEXT_PHASE = {
    "build": "verify",
    "verify": "path",
    "path": "measure",
    "measure": "teardown",
    "teardown": "teardown",
}

#: Of cells in a table.
_ON_ONE_LINE = str.maketrans("\n\t", "  ")

#: What goes on in a phase before its first step is told.
_UNTOLD = {
    "path": "marked packets, then cut and healed",
    "measure": "getting ready",
    "teardown": "ending all processes of the lab",
}


class Screen:
    """The display of one command: `running` around each scenario, then `finished`, `closing`."""

    def __init__(self, stream: TextIO) -> None:
        terminal = stream.isatty()
        dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
        self._live_wanted = terminal and not dumb and not os.environ.get("NO_COLOR")
        #: A person watches, but lines cannot be redrawn: say each step on a line of its own.
        self._say_steps = terminal and not self._live_wanted
        self._console = _console(stream, plain=not self._live_wanted)
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if self._console.encoding.startswith("utf") else "|/-\\"
        self._live: Live | None = None
        self._ticker: _Ticker | None = None
        self._started_before = False
        self._begin()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one scenario: whatever happens, the terminal is left as it was found."""
        self._begin()
        try:
            yield
        finally:
            self._stop_live()

    def watch(self, event: Mapping[str, Any]) -> None:
        """Show one event of the runner; DisplayError where nothing can be shown any more."""
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
                self._claim(record.decode(Claim, event, "claim"))
            case "path":
                self._path(record.decode(PathProof, event, "path"))
            case "measurement":
                self._measurement(record.decode(Measurement, event, "measurement"))
            case "note":
                self._block("note", Text(text.plain(event["text"]), "yellow"))
            case "forking":  # and there must be no thread but the main one
                self._stop_live()
                return
        self._refresh()

    def finished(self, result: RunRecord, folder: Path | None) -> None:
        """The figures, the verdict, and where the record is, if there is one."""
        self._stop_live()
        if result.status == "skipped":
            if not self._headed:
                self._headline(result.scenario)
            self._block("skipped", Text(text.plain(result.reason), "yellow"))
            if folder:
                self._block("", Text(f"{folder}/run.json"))
            return
        self._conditions(result)
        figures = tables.route_figures(result)
        if figures.rows:
            self.table(figures, indent=2, titled=False)
        self._verdict(result)
        if folder:
            self._block("record", Text(f"{folder}/run.json"))

    def closing(self, results: Sequence[RunRecord]) -> None:
        """Several scenarios at a glance."""
        for number, table in enumerate(tables.overview(results)):
            if number or self._started_before:
                self._console.print()
            self.table(table)
        if not results:
            return
        self._console.print()
        self._wrapped(Text(tables.LEGEND, "dim"))
        for remark in tables.remarks(results):
            self._block("-", Text(remark), style="none", indent=0, label_width=2)

    def written(self, page: Path) -> None:
        """Where the report is."""
        self._block("report", Text(str(page)))

    def headline(self, name: str, *facts: str) -> None:
        """What follows is about this."""
        self._headline(name, *facts)

    def said(self, label: str, said: str, right: str = "", *, good: bool | None = None) -> None:
        """A line of its own; what is good or bad begins with a mark."""
        self._stop_live()
        marks = {True: Text("✓ ", "green"), None: None, False: Text("✗ ", "bold red")}
        self._block(label, Text(text.plain(said)), right, mark=marks[good])

    def report(self, results: Sequence[RunRecord]) -> None:
        """Records by themselves: the closing table, then the figures and broken claims of each."""
        self.closing(results)
        for result in results:
            figures = tables.route_figures(result, routes_first=True)
            broken = text.broken(result)
            if figures.rows or broken:
                self._console.print()
                self._wrapped(Text(tables.heading(result), "bold"))
            if figures.rows:
                self.table(figures, titled=False)
            self._begin()
            for claim in broken:
                self._claim(claim)

    def diagnosis(self, found: Sequence[Finding]) -> None:
        """What this machine can do; a remedy stands on a line of its own, to be pasted."""
        width = 4 + max(cell_len(finding.name) for finding in found)
        marks = {True: Text("✓ ", "green"), None: Text("! ", "yellow"), False: Text("✗ ", "red")}
        for finding in found:
            name = f"{text.plain(finding.name):<{width - 2}}"
            body = Text(text.plain(finding.detail))
            if finding.ok is not True and finding.needed_for:
                body.append(f"\nfor {text.plain(finding.needed_for)}", "dim")
            head = marks[finding.ok] + Text(name, "" if finding.ok is True else "bold")
            self._block("", body, mark=head, indent=0, label_width=0)
            for line in text.plain(finding.remedy).splitlines():
                self._print(Text(" " * (width + 2) + line, "yellow"))
        impossible = [finding.needed_for for finding in found if finding.ok is False]
        self._console.print()
        if impossible:
            what = ", ".join(dict.fromkeys(impossible))
            self._wrapped(Text(f"Not possible here: {text.plain(what)}", "bold red"))
        elif any(finding.ok is None for finding in found):
            self._wrapped(Text("Every scenario runs here; ! marks what runs with a limit.", "bold"))
        else:
            self._wrapped(Text("Every scenario runs here.", "bold green"))

    def table(self, content: Table, *, indent: int = 0, titled: bool = True) -> None:
        """A table in the width there is: columns are left out, or go beneath their row."""
        if titled and content.title:
            self._wrapped(Text(content.title, "bold"), indent)
        # Before anything is measured; and a row stays a row.
        rows = tuple(tuple(text.plain(c).translate(_ON_ONE_LINE) for c in r) for r in content.rows)
        content = replace(content, rows=rows)
        room = self._console.width - indent
        titles = [column.title for column in content.columns]
        widths = _widths(titles, content)
        beside = _fitting(content, widths, room)
        if len(beside) < len(titles):
            titles = [column.short or column.title for column in content.columns]
            widths = _widths(titles, content)
            beside = _fitting(content, widths, room)
        beneath = [i for i, column in enumerate(content.columns) if column.below]
        beneath = [i for i in beneath if i not in beside]
        self._row(content, titles, beside, widths, indent, "dim")
        for row in content.rows:
            self._row(content, row, beside, widths, indent)
            said = [row[i] for i in beneath if row[i] not in ("", text.NOTHING)]
            if said:
                flowed = side_by_side(said, self._console.width - indent - 4)
                self._wrapped(Text(flowed, "dim"), indent + 4)
        for note in content.notes:
            self._block("-", Text(note, "dim"), indent=indent, label_width=indent + 2)

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
        self._headline(
            event["scenario"],
            f"{hosts}, {containers} each" if event["containers"] else f"{hosts}, no containers",
            event["datapath"],
            event["sandbox"],
            *(f"{name}={value}" for name, value in (event.get("settings") or {}).items()),
        )

    def _headline(self, scenario: str, *facts: str) -> None:
        if self._started_before:
            self._console.print()
        self._started_before = self._headed = True
        name = text.plain(scenario)
        width = max(_LABEL_WIDTH, cell_len(name) + 3)
        flowed = side_by_side([text.plain(fact) for fact in facts], self._line_width - width)
        self._block(name, Text(flowed), style="bold", indent=0, label_width=width)

    def _step(self, phase: str, said: str) -> None:
        if phase != self._phase:
            self._enter(phase)
        if said == self._doing:
            return
        self._doing = said
        if phase == "build":
            self._built.append(said)
        elif self._say_steps and phase == "measure":
            self._block("measure", Text(said))

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
        room = self._line_width - _LABEL_WIDTH - (cell_len(right) + 2 if right else 0)
        line = Text(side_by_side([f"{step} ✓" for step in shown], room))
        line.highlight_regex("✓", "green")
        self._block("build", line, right)
        self._label = "build"

    def _claims_line(self, duration_s: float) -> None:
        held, total = sum(self._claims), len(self._claims)
        said = Text()
        if held == total:
            said.append("all hold")
        else:
            said.append(f"{held} of {total} hold", "bold red")
        took = f"checked in {text.seconds(duration_s)}"
        if self._build_s is not None:
            took = f"built in {text.seconds(self._build_s)}, {took}"
        self._block("", said.append(f"   {took}", "dim"))

    def _claim(self, claim: Claim) -> None:
        self._build_line()
        label, self._label = "" if self._label == "claims" else "claims", "claims"
        self._claims.append(claim.holds)
        self._doing = ""
        mark = Text("✓ ", "green") if claim.holds else Text("✗ ", "bold red")
        said = Text(text.claim(claim), "" if claim.holds else "bold red")
        self._block(label, said, text.plain(claim.stage), mark=mark)
        if not claim.holds:
            self._detail("expected", claim.expected)
            self._detail("observed", claim.observed)
            self._detail("evidence", claim.evidence)

    def _detail(self, label: str, content: str) -> None:
        """A line of a broken claim; evidence may be a command and all that it printed."""
        lines = text.plain(content).expandtabs().strip("\n").split("\n")
        if len(lines) > _EVIDENCE_LINES:
            left_out = len(lines) - _EVIDENCE_LINES
            lines = [*lines[:_EVIDENCE_LINES], f"… {text.count(left_out, 'more line')} in run.json"]
        for number, line in enumerate(lines):
            if content:
                name = "" if number else label
                indent = _LABEL_WIDTH + 2
                self._block(name, Text(line), indent=indent, label_width=indent + 10)

    def _path(self, proof: PathProof) -> None:
        good = proof.proved and proof.negative_control
        mark = Text("✓ ", "green") if good else Text("✗ ", "bold red")
        self._block("path", Text(text.path(proof), "" if good else "bold red"), mark=mark)
        facts = []
        if proof.overhead_bytes is not None:
            facts.append(f"overhead {text.count(proof.overhead_bytes, 'byte')}")
        if proof.effective_mtu is not None:
            facts.append(f"effective MTU {proof.effective_mtu}")
        if proof.underlay_packets.stray:
            facts.append(f"{text.count(proof.underlay_packets.stray, 'other packet')} on the link")
        if facts:
            self._block("", Text(", ".join(facts)), mark=Text("  "))
        if not good:
            self._detail("evidence", proof.evidence)

    def _measurement(self, measurement: Measurement) -> None:
        if measurement.round != self._round:
            self._round_line()
            self._round = measurement.round
        name = text.label(measurement.metric, measurement.streams)
        found = (
            "failed"
            if measurement.median is None
            else text.value(measurement.metric, measurement.unit, measurement.median)
        )
        self._latest = f"{name} {found}"
        if measurement.route == "method":
            self._round_values[measurement.metric, measurement.streams] = f"{name} {found}"

    def _round_line(self) -> None:
        """Where no line tells what is going on, one for each round says that it goes on."""
        if self._round_values and not self._live:
            values = [self._round_values[key] for key in sorted(self._round_values, key=order)]
            flowed = side_by_side(values, self._line_width - _LABEL_WIDTH)
            self._block(f"round {self._round}", Text(flowed))
        self._round_values = {}

    def _conditions(self, result: RunRecord) -> None:
        conditions = result.conditions
        if conditions.backend == "none":
            return
        asked = []
        if conditions.rate_bits_per_second:
            speed = text.value("x_bits_per_second", "", conditions.rate_bits_per_second)
            asked.append(f"rate {speed}")
        if conditions.delay_ms:
            asked.append(f"delay {text.value('x_ms', '', conditions.delay_ms)}")
        if conditions.jitter_ms:
            asked.append(f"jitter {text.value('x_ms', '', conditions.jitter_ms)}")
        if conditions.loss_ratio:
            asked.append(f"loss {text.value('x_ratio', '', conditions.loss_ratio)}")
        came_to = [
            f"{name.split('_')[0]} {text.value(name, '', number)}"
            for name, number in conditions.measured.items()
        ]
        measured = f"; measured: {', '.join(came_to)}" if came_to else ""
        self._block("links", Text(f"{', '.join(asked)} by {conditions.backend}{measured}"))

    def _verdict(self, result: RunRecord) -> None:
        held = sum(claim.holds for claim in result.claims)
        said = f"{held} of {len(result.claims)} claims hold"
        if result.status == "failed" and result.reason:
            said = text.plain(result.reason)
        colour = "bold green" if result.status == "passed" else "bold red"
        verdict = Text.assemble((result.status, colour), f"   {said}")
        self._block("result", verdict, text.seconds(result.timings_s.total))

    # ------------------------------------------------------------------------- the line that moves

    def _refresh(self) -> None:
        if not self._live_wanted:
            return
        if self._live is None:
            self._live = Live(
                get_renderable=self._status,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._ticker = _Ticker(self._live.refresh)
        self._live.refresh()

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        ticker, self._ticker = self._ticker, None
        if ticker:
            ticker.stop()
        try:
            if live:
                live.stop()
        except OSError:
            pass  # the terminal is gone: nothing to restore

    def _status(self) -> Text:
        now = time.monotonic()
        frame = self._frames[int(now * 10) % len(self._frames)]
        elapsed = f"{now - self._phase_since:.0f} s"
        # Room for the "^C" that the terminal adds: a line that wraps could not be erased.
        width = min(self._line_width, self._console.width - 3)
        doing = self._doing or _UNTOLD.get(self._phase, "")
        left = Text.assemble((f"{frame} {self._phase:<8} ", "cyan"), doing)
        if self._latest:
            left.append(f"   last: {self._latest}", "dim")
        left.truncate(max(width - len(elapsed) - 2, 1), overflow="ellipsis", pad=True)
        return left.append(f"  {elapsed}", "dim")

    # ----------------------------------------------------------------------------------- layout

    @property
    def _line_width(self) -> int:
        return min(self._console.width, LINE_WIDTH)

    def _block(
        self,
        label: str,
        body: Text,
        right: str = "",
        *,
        style: str = "",
        mark: Text | None = None,
        indent: int = 2,
        label_width: int = _LABEL_WIDTH,
    ) -> None:
        """A label, a body that wraps beside it, and something flush right of its first line."""
        width = self._line_width
        mark = mark or Text()
        start = label_width + mark.cell_len
        right = right if cell_len(right) <= width // 3 else f"{right[: width // 3 - 1]}…"
        room = max(width - start - (cell_len(right) + 2 if right else 0), 16)
        head = Text(" " * indent).append(label, style or "dim")
        head.pad_right(max(label_width - head.cell_len, 0))
        lines = list(body.wrap(self._console, room)) or [Text()]
        for number, line in enumerate(lines):
            line.rstrip()
            whole = (
                Text.assemble(head, mark, line) if not number else Text(" " * start).append(line)
            )
            if right and not number:
                whole.pad_right(max(width - cell_len(right) - whole.cell_len, 2))
                whole.append(right, "dim")
            whole.rstrip()
            self._print(whole)

    def _wrapped(self, body: Text, indent: int = 0) -> None:
        for line in body.wrap(self._console, max(self._console.width - indent, 16)):
            line.rstrip()
            self._print(Text(" " * indent).append(line))

    def _row(
        self,
        content: Table,
        cells: Sequence[str],
        beside: Sequence[int],
        widths: Sequence[int],
        indent: int,
        style: str = "",
    ) -> None:
        line = Text(" " * indent)
        for position, i in enumerate(beside):
            padding = " " * (widths[i] - cell_len(cells[i]))
            line.append("  " if position else "")
            before, after = (padding, "") if content.columns[i].right else ("", padding)
            line.append(before + cells[i] + after, style or _meaning(cells[i]))
        line.rstrip()
        self._print(line)

    def _print(self, line: Text) -> None:
        shown = text.plain(line.plain)
        if shown != line.plain:
            # Whatever came out of a record on whichever way: the terminal must not obey it.
            line = Text(shown, line.style)
        self._console.print(line, no_wrap=True, overflow="ignore", crop=False)


class _Ticker:
    """Calls `tick` a few times a second until stopped, and has ended when `stop` returns.

    rich's own refresh thread is not waited for when a display stops, and a process must not fork
    while a thread of it may hold a lock.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_TICK_S):
            try:
                self._tick()
            except OSError:
                return  # the terminal is gone; the main thread will find out by itself


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while handling it, and would exit with status 1


def _console(stream: TextIO, *, plain: bool) -> Console:
    if not plain:
        return _Console(file=stream, highlight=False, markup=False, emoji=False)
    return _Console(
        file=stream,
        width=_plain_width(),
        color_system=None,
        force_terminal=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _plain_width() -> int:
    """COLUMNS, else the width of whichever terminal is at hand (a pager's), else LINE_WIDTH."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    for descriptor in (1, 2, 0):
        try:
            return os.get_terminal_size(descriptor).columns or LINE_WIDTH
        except OSError:
            continue
    return LINE_WIDTH


def _widths(titles: Sequence[str], content: Table) -> list[int]:
    return [
        max(cell_len(cell) for cell in (title, *(row[i] for row in content.rows)))
        for i, title in enumerate(titles)
    ]


def side_by_side(items: Sequence[str], room: int) -> str:
    """Items side by side, with a new line only between them while each fits into `room`."""
    lines: list[str] = []
    for item in items:
        longer = f"{lines[-1]}   {item}" if lines else item
        if lines and cell_len(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(item)
    return "\n".join(lines)


def _fitting(content: Table, widths: Sequence[int], room: int) -> list[int]:
    """The columns that fit side by side: the expendable are left out first, highest rank first."""
    kept = list(range(len(content.columns)))
    while kept and sum(widths[i] for i in kept) + 2 * (len(kept) - 1) > room:
        highest = max(content.columns[i].expendable for i in kept)
        smaller = [i for i in kept if content.columns[i].expendable < highest]
        if not highest:
            smaller = [i for i in kept if not content.columns[i].below]
        if smaller == kept:
            break
        kept = smaller
    return kept


def _meaning(cell: str) -> str:
    """The colour of a cell: only what passed, failed or was skipped has one."""
    if cell.startswith("✓"):
        return "green"
    if cell.startswith("✗") or cell == "failed":
        return "bold red"
    return "yellow" if cell == "skipped" else ""
