"""What figures of the virtual clock mean, in words, and the instructions that they count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from xlab.record import comparisons
from xlab.record.comparisons import Comparison
from xlab.record.figures import Figure, figures, find
from xlab.record.record import Route, RunRecord
from xlab.record.stats import Spread
from xlab.report import text
from xlab.report.tables import NOT_MEASURED, Column, Table

#: In every heading.
NAME = "virtual time"
MEANING = (
    "Virtual time: a nanosecond is one instruction of an emulated processor. All instructions have "
    "one price, there are no caches and no second processor, and what this machine did meanwhile "
    "has no part in it. The figures are a cost model, not a stopwatch: the same code gives the "
    "same digits, and they are not to be set beside figures of the real clock."
)
HOW = (
    MEANING,
    (
        "A method is built in a guest of its own, with a stock kernel, which is thawed from one "
        "frozen state each time; nothing reaches it from outside while it works. Another build has "
        "another seed: other random numbers, and another phase of whatever is periodic. UDP "
        "offered at a rate and latency under load are left out: on one processor they measure "
        "turns. Copying counts an instruction a byte, more than on a real processor, so what a "
        "method adds to it looks small: take a throughput ratio for an upper bound."
    ),
)


def is_of(record: RunRecord) -> bool:
    return record.environment.clock == "virtual"


def any_of(records: Iterable[RunRecord]) -> bool:
    return any(map(is_of, records))


def how(records: Iterable[RunRecord]) -> list[str]:
    """Of how it was measured, the paragraphs that are of this clock alone."""
    return list(HOW) if any_of(records) else []


def clock(record: RunRecord) -> str:
    """Of the environment: which clock, and by which guest."""
    guest = record.environment.virtual
    if guest is None:
        return record.environment.clock
    said = (
        f"virtual, an instruction a nanosecond; guest {guest.identity}: processor "
        f"{guest.processor}, QEMU {guest.qemu}, {text.count(len(guest.packages), 'package')}"
    )
    if guest.differences:
        said += f"; not as pinned: {', '.join(guest.differences[:5])}"
        said += " …" if len(guest.differences) > 5 else ""
    return said


# -- instructions ----------------------------------------------------------------------------------


#: What stands with the table.
COUNTED = (
    "A byte of one TCP stream: all instructions that sender, path and receiver took for it. A "
    "packet: half of a one-byte request and its reply, from program to program."
)
_COLUMNS = (
    Column("instructions"),
    Column("a byte of TCP", short="a byte", right=True),
    Column("× plain hosts", short="× plain", right=True),
    Column("a packet", right=True),
    Column("× plain hosts", short="× plain", right=True),
)


def instructions(subjects: Sequence[tuple[str, RunRecord]]) -> Table | None:
    """What a byte and a packet cost, and how many times what they cost plain hosts.

    A byte of one TCP stream: busy nanoseconds, of sender, path and receiver, by bytes that arrived.
    A packet: half of a one-byte request and its reply, from program to program.
    """
    return _table(
        (name, [(f.method, f.to_baseline) if f else None for f in _counted(figures(record))])
        for name, record in subjects
        if is_of(record)
    )


def compared(comparison: Comparison) -> Table | None:
    """The same of a comparison; None if it is of the real clock."""
    if comparison.plan.clock != "virtual":
        return None
    found = [
        (method.name, [comparisons.find(comparison.figures, method.name, m) for m in _COUNTED])
        for method in comparison.methods
    ]
    return _table(
        ((name, [(f.value, f.to_baseline) if f else None for f in told]) for name, told in found),
        yardstick=comparison.baseline.name,
    )


#: A median, and its ratio to plain hosts.
_Told = tuple[Spread | None, Spread | None]


def _table(
    found: Iterable[tuple[str, Sequence[_Told | None]]], yardstick: str = ""
) -> Table | None:
    """`found`: by name, what there is of each of `_COUNTED`; the `yardstick` is 1."""
    rows = []
    for name, (byte, packet) in found:
        if byte or packet:
            cells: tuple[str, ...] = (
                *_cells(byte, 1.0, text.digits),
                *_cells(packet, A_PACKET, _whole),
            )
            if name == yardstick:
                cells = tuple("1" if cell == text.NOTHING else cell for cell in cells)
            rows.append((text.plain(name), *cells))
    notes = (NOT_MEASURED,) if any(text.NOTHING in row for row in rows) else ()
    return Table(_COLUMNS, tuple(rows), "Instructions", notes) if rows else None


def _cells(told: _Told | None, each: float, shown: Callable[[float], str]) -> tuple[str, str]:
    median, ratio = told or (None, None)
    return (text.NOTHING if median is None else shown(median.median * each)), text.ratio(ratio)


def _counted(found: Sequence[Figure]) -> list[Figure | None]:
    return [find(found, metric) for metric in _COUNTED]


#: Seconds by 10^9 bytes are nanoseconds by bytes; of a round trip in milliseconds the half.
_COUNTED = ("cpu_seconds_per_gigabyte", "tcp_rr_latency_ms")
A_PACKET = 1e6 / 2


def a_packet(record: RunRecord, route: Route = "method") -> float | None:
    """Instructions from program to program; None where request and reply were not measured."""
    found = find(figures(record), _COUNTED[1]) if is_of(record) else None
    spread = getattr(found, route) if found else None
    return spread.median * A_PACKET if spread else None


def _whole(number: float) -> str:
    return f"{number:,.0f}"
