"""Where a packet's instructions go: what each part of the way adds, by paths that lack one part.

    ovs-gre                    instructions a packet 49,600
    ▒▒▒▒▒▒▒▒▒▒▒▒▒████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓
    ▒ plain hosts                            22,000
    █ + bridges, routing, netfilter          12,700
      = ovs-gre:routes=underlay
    ▓ + Open vSwitch and GRE                 14,900
      = ovs-gre

Each bar is a whole of its own, and has the name of the variant that is all of it; where several are
in it, each part says which one ends there.  What is added is a difference of two measurements, so a
path must have been measured for its part to be shown; scenarios say which (`adds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlab.errors import XlabError
from xlab.record.record import Route, RunRecord
from xlab.report import text, virtual
from xlab.report.drawing import CARD, COLUMNS, DIM, HEADING_SIZE, PALETTE, SIDE, WIDTH, Canvas
from xlab.scenario import catalog

PLAIN = "plain hosts"
_HEADING_H, _BAR_H, _LINE_H, _GAP_H = 22, 16, 16, 12
_COLOURS = ("control", "method", "line-2", "line-3", "line-4", "line-5")
#: Of a coloured square, and where what it means begins.
_SQUARE, _INDENT = 8, 14


@dataclass(frozen=True, slots=True)
class Part:
    words: str
    instructions: float
    #: The variant whose last part it is, where the bar has several.
    ends: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """The parts of a scenario's dearest variant, by its name, the plain hosts' first."""

    name: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        return sum(part.instructions for part in self.parts)

    @property
    def height(self) -> float:
        return _HEADING_H + _BAR_H + _LINE_H * self.lines + _GAP_H

    @property
    def lines(self) -> int:
        return sum(2 if part.ends else 1 for part in self.parts)


@dataclass(frozen=True, slots=True)
class Stacks:
    """All of them: a `drawing.Drawing`."""

    stacks: tuple[Stack, ...]
    title: str = "Where a packet's instructions go"

    @property
    def height(self) -> float:
        return sum(stack.height for stack in self.stacks)

    def in_words(self) -> str:
        said = [
            f"{stack.name}: "
            + ", ".join(
                f"{part.words} {part.instructions:,.0f}{_end(part)}" for part in stack.parts
            )
            for stack in self.stacks
        ]
        return f"{self.title}. {'; '.join(said)}."

    def key(self) -> Sequence[tuple[str, str]]:
        return ()

    def draw(self, canvas: Canvas) -> None:
        top = 0.0
        for stack in self.stacks:
            _draw(canvas, stack, top)
            top += stack.height


def _end(part: Part) -> str:
    return f" = {part.ends}" if part.ends else ""


def parts_of_a_packet(subjects: Sequence[tuple[str, RunRecord]]) -> Stacks | None:
    """Of records of the virtual clock; None where no path and a part less of it were measured."""
    packets = {
        name: cost for name, record in subjects if (cost := virtual.a_packet(record)) is not None
    }
    plain = _plain(subjects)
    if plain is None:
        return None
    scenarios = dict.fromkeys(record.scenario for _, record in subjects)
    stacks = [_stack(name, packets, plain) for name in scenarios]
    found = tuple(stack for stack in stacks if len(stack.parts) > 1)
    return Stacks(found) if found else None


def _plain(subjects: Sequence[tuple[str, RunRecord]]) -> float | None:
    """The baseline's of a comparison; of a run that of its own plain hosts."""
    for _, record in sorted(subjects, key=lambda each: each[1].scenario != "baseline"):
        route: Route = "method" if record.scenario == "baseline" else "baseline"
        found = virtual.a_packet(record, "baseline") or virtual.a_packet(record, route)
        if found is not None:
            return found
    return None


def _stack(scenario: str, packets: Mapping[str, float], plain: float) -> Stack:
    added = {
        f"{scenario}:{variant}" if variant else scenario: words
        for variant, words in _adds(scenario)
    }
    measured = [name for name in added if name in packets]
    parts, before = [Part(PLAIN, plain)], plain
    for name in measured:
        ends = name if len(measured) > 1 else ""
        # What costs nothing may come out a little below it.
        parts.append(Part(f"+ {added[name]}", max(0.0, packets[name] - before), ends))
        before = max(before, packets[name])
    return Stack(measured[-1] if measured else scenario, tuple(parts))


def _adds(scenario: str) -> tuple[tuple[str, str], ...]:
    """By variant, in the order of their cost, what it adds to the one before: as declared."""
    try:
        said = catalog.declared(scenario).get("adds")
    except XlabError:
        return ()
    return said if isinstance(said, tuple) else ()


def _draw(canvas: Canvas, stack: Stack, top: float) -> None:
    from matplotlib.patches import Rectangle

    canvas.say(text.plain(stack.name), y=top + 15, weight="bold", size=HEADING_SIZE)
    canvas.say(f"{stack.total:,.0f}", y=top + 15, at_right=True, weight="bold")
    height = _BAR_H + _LINE_H * stack.lines
    axes = canvas.axes(top + _HEADING_H, height)
    width = WIDTH - 2 * SIDE
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    left, line = 0.0, _BAR_H
    for number, part in enumerate(stack.parts):
        colour = PALETTE[_COLOURS[number % len(_COLOURS)]]
        share = part.instructions / stack.total * width if stack.total else 0.0
        style: dict[str, Any] = {"facecolor": colour, "edgecolor": CARD, "linewidth": 0.8}
        axes.add_patch(Rectangle((left, 0), share, _BAR_H, **style))
        axes.add_patch(Rectangle((0, line + 5), _SQUARE, _SQUARE, **style))
        y, said = top + _HEADING_H + line + 12.5, f"{part.instructions:,.0f}"
        room = COLUMNS - len(said) - 4
        canvas.say(text.plain(part.words), x=SIDE + _INDENT, y=y, colour=DIM, room=room)
        canvas.say(said, y=y, at_right=True)
        if part.ends:
            y += _LINE_H
            canvas.say(text.plain(_end(part).strip()), x=SIDE + _INDENT, y=y, colour=DIM)
            line += _LINE_H
        line += _LINE_H
        left += share
