"""How figures, paths and untrusted text are worded, the same in every table."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from xlab.kernel.packets import Encapsulation
from xlab.record import metrics

if TYPE_CHECKING:
    from xlab.record.record import Claim, Conditions, PathProof, RunRecord
    from xlab.record.stats import Spread

NOTHING = "–"


def label(metric: str, streams: int = 1) -> str:
    """What a metric is called in a table: "TCP 1 stream", "RTT"."""
    row = metrics.of(metric)
    if row.of_streams:
        return f"{row.label} {count(streams, 'stream')}"
    return row.label if streams == 1 else f"{row.label} ×{streams}"


def with_labels(said: str) -> str:
    """A sentence with metrics, "tcp_bits_per_second, 4 streams", by the names that tables give."""
    return re.sub(
        r"\b([a-z0-9]+_[a-z0-9_]+)(?:, ([0-9]{1,4}) streams)?",
        lambda found: label(found[1], int(found[2] or 1)),
        said,
    )


def value(metric: str, unit: str, number: float) -> str:
    """A figure with three significant digits and the unit that suits its size: "478 µs"."""
    if metric.endswith("_bytes") and number == int(number):
        return f"{number:.0f} B"
    size, shown_unit = scale(metric, unit, number)
    return f"{digits(number / size)} {shown_unit}".rstrip()


def scale(metric: str, unit: str, number: float) -> tuple[float, str]:
    """The divisor and the unit in which a figure is shown; the metric's name fixes its own unit."""
    return metrics.shown_in(metric, number) or (1.0, plain(unit))


def median(metric: str, unit: str, spread: Spread | None) -> str:
    return NOTHING if spread is None else value(metric, unit, spread.median)


def interval(metric: str, unit: str, spread: Spread | None) -> str:
    """Low to high in the unit in which the median is shown: "460–495"; nothing when unknown."""
    if spread is None or spread.ci95 is None:
        return NOTHING
    size, _ = scale(metric, unit, spread.median)
    low, high = spread.ci95
    return f"{digits(low / size)}–{digits(high / size)}"


def ratio(spread: Spread | None) -> str:
    return NOTHING if spread is None else ratio_digits(spread.median)


def ratio_interval(spread: Spread | None) -> str:
    """Its 95 % interval: "0.64–0.69"; nothing when unknown."""
    if spread is None or spread.ci95 is None:
        return NOTHING
    return "–".join(map(ratio_digits, spread.ci95))


def digits(number: float) -> str:
    """Three significant digits, never an exponent below a million: "1.07", "13.4", "478"."""
    size = abs(number)
    if not math.isfinite(number) or size >= 1e6 or 0 < size < 1e-3:
        return f"{number:.3g}"
    for limit, decimals in ((99.95, 0), (9.995, 1), (0.9995, 2)):
        if size >= limit:
            return f"{number:.{decimals}f}"
    return f"{number:.3f}" if number else "0"


def seconds(duration_s: float) -> str:
    return f"{duration_s:.2f} s" if duration_s < 0.1 else f"{duration_s:.1f} s"


def path(proof: PathProof | None) -> str:
    """The proof in a few words: "gre 20/20, tunnel cut: stops; healed: back"."""
    if proof is None:
        return "not tried"
    if not proof.proved:
        return f"NOT proved: {packets(proof)}"
    if not proof.negative_control:
        return f"{packets(proof)}, control FAILED: {plain(proof.control_detail)}"
    return ", ".join(filter(None, (packets(proof), plain(proof.control_detail))))


def proved(proof: PathProof | None) -> str:
    """What came of the proof, without what cutting and healing did: "✓ gre 20/20"."""
    if proof is None:
        return "not tried"
    if not proof.proved:
        return f"✗ NOT proved: {packets(proof)}"
    if not proof.negative_control:
        return f"✗ {packets(proof)}, negative control FAILED"
    return f"✓ {packets(proof)}"


def packets(proof: PathProof) -> str:
    """How many of the proof's packets went as they should, and how the others went, if any did."""
    counts = {kind: getattr(proof.underlay_packets, kind) for kind in get_args(Encapsulation)}
    meant = counts.pop(proof.encapsulation)
    seen = meant + sum(counts.values())
    others = [f"{count} {encapsulation(kind)}" for kind, count in counts.items() if count]
    total = max(seen, proof.packets_sent)
    return ", ".join([f"{encapsulation(proof.encapsulation)} {meant}/{total}", *others])


def encapsulation(kind: str) -> str:
    return "plain" if kind == "none" else kind


def claim(statement: Claim) -> str:
    """The statement; what was measured beside it, where the notes give no figure to expect."""
    measured = f": {statement.observed}" if statement.expected == "(measured)" else ""
    return plain(statement.text + measured)


def claims(record: RunRecord) -> str:
    """How many hold of how many: "✓ 9/9", "✗ 3/4", or that the scenario was skipped."""
    if record.status == "skipped":
        return "skipped"
    held = sum(claim.holds for claim in record.claims)
    mark = "✓" if record.status == "passed" else "✗"
    return f"{mark} {held}/{len(record.claims)}"


def broken(record: RunRecord) -> list[Claim]:
    return [claim for claim in record.claims if not claim.holds]


def conditions(asked: Conditions) -> str:
    """What links were told to do to packets: "rate 100 Mbit/s, delay 10.0 ms"; "" if nothing."""
    return ", ".join(f"{name} {said}" for name, said in each_condition(asked) if said)


def imposed(asked: Conditions) -> str:
    """The same, and what does it to them, and what that was measured to come to."""
    came_to = ", ".join(
        f"{name.partition('_')[0]} {value(name, '', number)}"
        for name, number in asked.measured.items()
    )
    measured = f"; measured: {came_to}" if came_to else ""
    return f"{conditions(asked)} by {plain(asked.backend)}{measured}"


def each_condition(asked: Conditions) -> Iterator[tuple[str, str]]:
    """Each by its name, and "" where it was not asked for."""
    for name, metric, number in (
        ("rate", "x_bits_per_second", asked.rate_bits_per_second),
        ("delay", "x_ms", asked.delay_ms),
        ("jitter", "x_ms", asked.jitter_ms),
        ("loss", "x_ratio", asked.loss_ratio),
    ):
        yield name, value(metric, "", number) if number else ""


def count(number: int, noun: str) -> str:
    """ "1 host", "2 hosts"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Text out of a record made fit for a terminal: no control or format characters, no
    lone surrogates.

    What tools print goes into records as it is, and records come from other machines.  Names of
    interfaces are bytes: those that are no UTF-8 (os.fsdecode) are shown as \\xff.
    """
    if text.isprintable():  # nothing of these categories is, and nearly every text
        return text
    return "".join(
        character
        if character in "\n\t" or not unicodedata.category(character).startswith("C")
        else f"\\x{ord(character) - 0xDC00:02x}"
        if "\udc80" <= character <= "\udcff"
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def cut(content: str, room: int) -> str:
    """Text on one line of at most `room` columns, with an ellipsis where some had to go."""
    content = " ".join(plain(content).split())
    if columns(content[: room + 1]) <= room:
        return content
    kept = content[:room]
    while kept and columns(kept) > room - 1:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def columns(content: str) -> int:
    """How wide text is: Chinese takes two columns a character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in content)


def ratio_digits(number: float) -> str:
    """Two digits that mean something, whatever the size: "0.95", "0.052", "26.1"."""
    size = abs(number)
    for limit, decimals in ((99.5, 0), (9.95, 1), (0.1995, 2), (0.01995, 3)):
        if size >= limit:
            return f"{number:.{decimals}f}"
    return f"{number:.2g}"
