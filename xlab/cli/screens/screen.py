"""What a person sees of anything: lines that stay, and below them on a terminal one that moves.

Facts are lines that stay, the same everywhere.  The line that moves tells what is going on; it is
redrawn by a thread, which starts with the first `refresh` (the sandbox has been forked by then) and
has ended before the next scenario is launched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from xlab.kernel import signals
from xlab.report import text

if TYPE_CHECKING:
    # What a report is made of takes longer to import than most commands have to do.
    from xlab.report.conclusion import Answer
    from xlab.report.machine import Judgement
    from xlab.report.tables import Table

#: What is set flush right stays near its line on a very wide terminal.
LINE_WIDTH = 100
LABEL_WIDTH = 11
_TICK_S = 0.125
#: Of a line, what is flush right of it.
_MOST_RIGHT = 0.45
#: Of the line that moves, beside what is flush right.
_LEAST_MOVING = 16

#: What stands before a line that is good, bad, doubtful, or still to come.
GOOD, BAD, DOUBTFUL = Text("✓ ", "green"), Text("✗ ", "bold red"), Text("! ", "bold yellow")
OPEN = Text("· ", "dim")
NO_MARK = Text()

#: Of cells in a table.
_ON_ONE_LINE = str.maketrans("\n\t", "  ")


class Screen:
    """The lines of one command.  A body that is a `str` may come from anywhere."""

    def __init__(self, stream: TextIO) -> None:
        terminal = stream.isatty()
        dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
        #: Whether there is a line that moves.
        self.moves = terminal and not dumb and not os.environ.get("NO_COLOR")
        #: A person watches, but lines cannot be redrawn: say each step on a line of its own.
        self.says_steps = terminal and not self.moves
        #: Whether there has been a headline.
        self.is_headed = False
        self._console = _console(stream, plain=not self.moves)
        self._live: Live | None = None
        self._ticker: _Ticker | None = None

    @property
    def width(self) -> int:
        """Columns of a line that stays."""
        return min(self._console.width, LINE_WIDTH)

    # ----------------------------------------------------------------------- lines that stay

    def headline(self, name: str, *facts: str) -> None:
        """What follows is about this."""
        if self.is_headed:
            self.blank()
        self.is_headed = True
        name = text.plain(name)
        width = max(LABEL_WIDTH, cell_len(name) + 3)
        flowed = side_by_side([text.plain(fact) for fact in facts], self.width - width)
        self.block(name, flowed, label_style="bold", indent=0, label_width=width)

    def said(self, label: str, said: str, right: str = "", *, good: bool | None = None) -> None:
        """A line of its own; what is good or bad begins with a mark."""
        self.stop()
        marks = {True: GOOD, None: NO_MARK, False: BAD}
        self.block(label, said, right, mark=marks[good])

    def item(self, sign: str, said: str, style: str = "", sign_style: str = "dim") -> None:
        """One of a list."""
        self.block(sign, said, style=style, label_style=sign_style, indent=0, label_width=2)

    def remarks(self, bad: Iterator[str] | Sequence[str], notes: Sequence[str]) -> None:
        """What to think of the tables above."""
        for line in bad:
            self.item("✗", line, "bold red", "bold red")
        for note in notes:
            self.item("-", note, "dim")

    def answers(self, found: Sequence[Answer]) -> None:
        """What a class would ask of the tables above, and where more stands."""
        from xlab.report import links, prose

        for answer in found:
            for number, said in enumerate(answer.said):
                self.block("" if number else answer.label, said)
        if found:
            self.block("choose", f"{prose.GUIDE} {links.GUIDE}", style="dim")

    def machine(self, judged: Judgement) -> None:
        """Whether it was quiet, and why not."""
        styles = {"quiet": "bold green", "noisy": "bold yellow", "unknown": "bold"}
        said = Text(judged.verdict, styles[judged.verdict])
        if judged.reasons:
            said.append(f"   {'; '.join(judged.reasons)}", "")
        self.block("machine", said)

    def result(self, status: str, took: str) -> None:
        self.block("result", status, took, style=verdict_style(status))

    def written(self, page: Path) -> None:
        """Where the report is."""
        self.block("report", str(page))

    def block(
        self,
        label: str,
        body: str | Text,
        right: str = "",
        *,
        style: str = "",
        mark: Text = NO_MARK,
        label_style: str = "dim",
        indent: int = 2,
        label_width: int = LABEL_WIDTH,
    ) -> None:
        """A label, a body that wraps beside it, and something flush right of its first line.

        What is too long for that stands on a line of its own, below.
        `style` is that of a body that is a `str`.
        """
        if isinstance(body, str):
            body = Text(text.plain(body), style)
        width = self.width
        start = label_width + mark.cell_len
        right, below = ("", right) if cell_len(right) > width * _MOST_RIGHT else (right, "")
        room = max(width - start - (cell_len(right) + 2 if right else 0), 16)
        head = Text(" " * indent).append(label, label_style)
        head.pad_right(max(label_width - head.cell_len, 0))
        head.append(mark)
        for number, line in enumerate(body.wrap(self._console, room) or [Text()]):
            line.rstrip()
            whole = Text.assemble(Text(" " * start) if number else head, line)
            if right and not number:
                whole.pad_right(max(width - cell_len(right) - whole.cell_len, 2))
                whole.append(right, "dim")
            whole.rstrip()
            self.line(whole)
        if below:
            self.wrapped(below, "dim", start)

    def wrapped(self, said: str, style: str = "", indent: int = 0) -> None:
        """Text in the whole width."""
        for line in Text(said, style).wrap(self._console, max(self._console.width - indent, 16)):
            line.rstrip()
            self.line(Text(" " * indent).append(line))

    def text(self, said: str) -> None:
        """Markdown as it is written, each line in the width there is."""
        for line in said.rstrip("\n").split("\n"):
            fits = cell_len(line) <= self._console.width
            self.line(Text(line)) if fits else self.wrapped(line)

    def blank(self) -> None:
        self._console.print()

    def line(self, line: Text) -> None:
        """As it is, however wide."""
        shown = text.plain(line.plain)
        if shown != line.plain:
            # Whatever came out of a record on whichever way: the terminal must not obey it.
            line = Text(shown, line.style)
        self._console.print(line, no_wrap=True, overflow="ignore", crop=False)

    def table(self, content: Table, *, indent: int = 0, titled: bool = True) -> None:
        """A table in the width there is: columns are left out, or go beneath their row.

        Where even those do not fit that are always shown, each row is told line by line.
        """
        if titled and content.title:
            self.wrapped(content.title, "bold", indent)
        # Before anything is measured; and a row stays a row.
        rows = tuple(tuple(text.plain(c).translate(_ON_ONE_LINE) for c in r) for r in content.rows)
        content = replace(content, rows=rows)
        room = self._console.width - indent
        columns = content.columns
        for titles in ([c.title for c in columns], [c.short or c.title for c in columns]):
            widths = _widths(titles, content)
            beside = _fitting(content, widths, room)
            if len(beside) == len(columns):
                break
        if not beside or _needed(beside, widths) > room:
            self._row_by_row(content, indent)
            return
        beneath = [i for i, c in enumerate(columns) if c.below and i not in beside]
        self._row(content, titles, beside, widths, indent, "dim")
        for row in content.rows:
            self._row(content, row, beside, widths, indent)
            self._beneath([row[i] for i in beneath], indent)
        self._notes(content, indent)

    def _row_by_row(self, content: Table, indent: int) -> None:
        """Where columns have no room beside each other: each row by its name, a line a figure."""
        from xlab.report.tables import labels as labels_of

        labels = labels_of(content)
        width = max(map(cell_len, labels[1:]), default=0) + indent + 4
        first = content.columns[0]
        for name, *cells in content.rows:
            # A figure with its unit.
            of = f"{name} {first.title}".rstrip() if first.right else name
            self.wrapped(of, _meaning(name) or "bold", indent)
            for label, cell in zip(labels[1:], cells, strict=True):
                if cell not in ("", text.NOTHING):
                    line = Text(cell, _meaning(cell))
                    self.block(label, line, indent=indent + 2, label_width=width)
        self._notes(content, indent)

    def _notes(self, content: Table, indent: int) -> None:
        for note in content.notes:
            self.block("-", note, style="dim", indent=indent, label_width=indent + 2)

    def _beneath(self, cells: Sequence[str], indent: int) -> None:
        said = [cell for cell in cells if cell not in ("", text.NOTHING)]
        if said:
            self.wrapped(side_by_side(said, self._console.width - indent - 4), "dim", indent + 4)

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
        self.line(line)

    # --------------------------------------------------------------------- the line that moves

    @contextmanager
    def running(self) -> Iterator[None]:
        """Whatever happens within, the terminal is left as it was found."""
        try:
            yield
        finally:
            self.stop()

    def refresh(self, line: Callable[[], Text]) -> None:
        """Show the line that moves, if there is one: what `line` returns, from now on."""
        if not self.moves:
            return
        if self._live is None:
            self._live = Live(
                get_renderable=line,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._ticker = _Ticker(self._live.refresh)
        self._live.refresh()

    def stop(self) -> None:
        """No line moves any more, and no thread runs; what is printed next may be another's."""
        live, self._live = self._live, None
        ticker, self._ticker = self._ticker, None
        if ticker:
            ticker.stop()
        try:
            if live:
                live.stop()
        except OSError:
            pass  # the terminal is gone: nothing to restore

    @property
    def is_moving(self) -> bool:
        return self._live is not None

    def frame(self) -> str:
        """Of what turns while something goes on."""
        frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if self._speaks_utf else "|/-\\"
        return frames[int(time.monotonic() * 10) % len(frames)]

    def bar(self, done: float, of: int) -> str:
        """How far something is."""
        filled = int(10 * done / of)
        full, empty = ("▰", "▱") if self._speaks_utf else ("#", ".")
        return full * filled + empty * (10 - filled)

    def moving(self, line: Text, right: str) -> Text:
        """The line that moves: cut to fit, with `right` flush right."""
        room = self.moving_room(right)
        if room < _LEAST_MOVING:  # what goes on matters more than for how long
            right, room = "", self.moving_room("")
        line.truncate(max(room, 1), overflow="ellipsis", pad=bool(right))
        return line.append(f"  {right}", "dim") if right else line

    def moving_room(self, right: str) -> int:
        """Columns that what moves has beside `right`."""
        # Room for the "^C" that the terminal adds: a line that wraps could not be erased.
        width = min(self.width, self._console.width - 3)
        return width - (cell_len(right) + 2 if right else 0)

    @property
    def _speaks_utf(self) -> bool:
        return self._console.encoding.startswith("utf")


class _Ticker:
    """Calls `tick` a few times a second until stopped, and has ended when `stop` returns.

    rich's own refresh thread is not waited for when a display stops, and a process must not fork
    while a thread of it may hold a lock.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        signals.start_deaf(self._thread)

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
    how: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    if plain:
        how |= {"width": _plain_width(), "color_system": None, "force_terminal": False}
    return _Console(file=stream, **how)


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
    while kept and _needed(kept, widths) > room:
        highest = max(content.columns[i].expendable for i in kept)
        smaller = [i for i in kept if content.columns[i].expendable < highest]
        if not highest:
            smaller = [i for i in kept if not content.columns[i].below]
        if smaller == kept:
            break
        kept = smaller
    return kept


def _needed(columns: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[i] for i in columns) + 2 * (len(columns) - 1)


def _meaning(cell: str) -> str:
    """The colour of a cell: only what passed, failed or was skipped has one."""
    if cell.startswith("✓"):
        return "green"
    if cell.startswith("✗") or cell == "failed":
        return "bold red"
    return "yellow" if cell == "skipped" or cell.startswith("?") else ""


def verdict_style(status: str) -> str:
    return "bold green" if status == "passed" else "bold red"


def roughly(seconds: float) -> str:
    """A time that is estimated."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min"
