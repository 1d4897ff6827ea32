"""Every metric, a row each: its name, how it is worded, and what may be concluded from it.

A probe measures it under that name and in its unit; everything else that is known of it stands
here: in figures, text, tables, charts, the gate and comparisons it is found by its row.  A metric
that has none is shown all the same, after all others, by what its name ends in.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

#: Throughput with messages of so many bytes.
_MESSAGES = r"tcp_(\d{1,9})_byte_messages_bits_per_second"
_RECOVERY = r"(.*)_recovery_s"


@dataclass(frozen=True, slots=True)
class ChartOfOne:
    """A chart of one metric, beside those that show several."""

    #: Bars of ratios to plain hosts or of values, with their controls; or all samples as a curve.
    kind: Literal["ratios", "values", "distribution"]
    #: Of its files.
    name: str
    title: str
    #: What the axis of bars counts.
    axis: str = ""
    #: Those of all metrics are shown in this order.
    place: int = 100


@dataclass(frozen=True, slots=True)
class Metric:
    """One row; of a family, whose members are named after what they are of, one for all."""

    #: A family's is a regular expression; "{}" in the label is what it has in brackets.
    name: str
    label: str
    higher_is_better: bool = False
    #: Whether a method's figure can be set in proportion to another's.  Of two losses near zero the
    #: one may be any multiple of the other, and so of two recoveries: a flow that did not stop was
    #: back after 0 s.  UDP is offered a rate that follows from TCP's.
    has_ratios: bool = True
    #: Whether intervals are awaited that are wide, and the machine is noisy whose baseline leaps.
    decides: bool = True
    #: Not measured but counted, exact to the byte: a fact, which must not change at all.
    counted: bool = False
    #: How much worse a ratio may be in the gate, where the baseline file says nothing else.
    tolerance: float = 0.3
    #: The metric that tells the same better: where there is that, this one is left out.
    better_told: str = ""
    #: What a ratio of it is called in verdicts.  The foremost metrics have this, and stand in every
    #: closing table and progress line.
    headline: str = ""
    #: Whether it is shown of each point of a sweep; and if so, of all streams of the point.
    in_sweeps: bool = False
    of_streams: bool = False
    charts: tuple[ChartOfOne, ...] = ()


#: In the order in which they are shown.
TABLE: tuple[Metric, ...] = (
    Metric(
        "icmp_rtt_ms",
        "RTT",
        headline="× their round-trip time",
        in_sweeps=True,
        charts=(
            ChartOfOne("ratios", "rtt-ratio", "Round trips against plain hosts",
                       "× the RTT of plain hosts", place=2),
            ChartOfOne("values", "rtt", "Round-trip time", "RTT", place=3),
            ChartOfOne("distribution", "rtt-distribution", "Round trips, all of them", place=4),
        ),
    ),
    Metric("tcp_rr_latency_ms", "request/reply"),
    # A few echoes before the load.
    Metric("idle_rtt_ms", "RTT, idle", better_told="icmp_rtt_ms"),
    Metric(
        "loaded_rtt_ms",
        "RTT, loaded",
        in_sweeps=True,
        charts=(
            ChartOfOne("distribution", "loaded-rtt-distribution",
                       "Round trips under load, all of them", place=6),
        ),
    ),
    Metric(
        "tcp_bits_per_second",
        "TCP",
        higher_is_better=True,
        # Half way to the loss of a fifth that the gate must not miss; times vary more than rates.
        tolerance=0.11,
        headline="× the TCP throughput of plain hosts",
        in_sweeps=True,
        of_streams=True,
        charts=(
            ChartOfOne("ratios", "throughput-ratio", "TCP throughput",
                       "× the throughput of plain hosts, one stream", place=1),
        ),
    ),
    Metric(_MESSAGES, "TCP, {} B messages", higher_is_better=True),
    Metric("udp_bits_per_second", "UDP", higher_is_better=True, has_ratios=False),
    Metric("udp_loss_ratio", "UDP loss", has_ratios=False),
    Metric("udp_packets_per_second", "small packets", higher_is_better=True),
    Metric("tcp_connections_per_second", "connections", higher_is_better=True),
    Metric(
        "cpu_seconds_per_gigabyte",
        "CPU per GB",
        # The difference of two CPU times is noisier than what it was taken from.
        decides=False,
        charts=(ChartOfOne("values", "cpu", "CPU time a gigabyte", "CPU time a GB", place=9),),
    ),
    Metric("path_mtu_bytes", "path MTU", higher_is_better=True, counted=True),
    Metric("overhead_bytes", "overhead", counted=True),
    Metric("memory_bytes_per_host", "memory a host"),
    Metric("process_bytes_per_host", "its processes'"),
    Metric("control_plane_packets_per_host_second", "control packets a host"),
    Metric("control_plane_bytes_per_host_second", "control bytes a host"),
    Metric("recovery_s", "recovery"),
    Metric(_RECOVERY, "recovery, {}", has_ratios=False),
    # There is one a build, and most of it is building.
    Metric("first_packet_s", "first packet", decides=False),
    Metric("build_s", "build"),
)  # fmt: skip

#: What is told first of a method.
FOREMOST = tuple(row.name for row in TABLE if row.headline)


def of(name: str) -> Metric:
    """A metric by its name; one that has no row goes by how its name ends."""
    for row in TABLE:
        found = re.fullmatch(row.name, name, re.DOTALL)
        if found:
            words = (word.replace("_", " ") for word in found.groups())
            return dataclasses.replace(row, name=name, label=row.label.format(*words))
    rate, ratios = name.endswith("_per_second"), not name.endswith("_ratio")
    return Metric(name, name, higher_is_better=rate, has_ratios=ratios)


def order(key: tuple[str, int]) -> tuple[int, int, str, int]:
    """Sorts (metric, streams) into the order of TABLE; what has no row follows."""
    metric, streams = key
    rows = (place for place, row in enumerate(TABLE) if re.fullmatch(row.name, metric, re.DOTALL))
    return next(rows, len(TABLE)), message_bytes(metric) or 0, metric, streams


def is_recovery(metric: str) -> bool:
    """Whether it is of the family of recoveries, named after faults."""
    return metric.endswith("_recovery_s")


def message_bytes(metric: str) -> int | None:
    """The size of the messages that a throughput is about; None if it is about none."""
    found = re.fullmatch(_MESSAGES, metric)
    return int(found[1]) if found else None


# -- units -----------------------------------------------------------------------------------------

#: By what a name ends in: how many of that unit make each that figures are shown in.
_SHOWN_IN: tuple[tuple[str, tuple[tuple[float, str], ...]], ...] = (
    ("_ms", ((1e-3, "µs"), (1.0, "ms"), (1e3, "s"))),
    ("_bits_per_second", ((1.0, "bit/s"), (1e3, "kbit/s"), (1e6, "Mbit/s"), (1e9, "Gbit/s"),
                          (1e12, "Tbit/s"))),
    ("_packets_per_second", ((1.0, "pps"), (1e3, "kpps"), (1e6, "Mpps"))),
    ("_bytes_per_host", ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"))),
    ("_bytes_per_second", ((1.0, "B/s"), (1e3, "kB/s"), (1e6, "MB/s"), (1e9, "GB/s"),
                           (1e12, "TB/s"))),
    ("_connections_per_second", ((1.0, "/s"), (1e3, "k/s"), (1e6, "M/s"))),
    ("_ratio", ((0.01, "%"),)),
    ("_seconds_per_gigabyte", ((1.0, "s"),)),
    ("_s", ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))),
)  # fmt: skip


def shown_in(metric: str, number: float) -> tuple[float, str] | None:
    """The divisor and the unit that suit a figure, the largest in which it is at least 1 when
    rounded; None where it is shown in the unit that it was measured in."""
    for ending, units in _SHOWN_IN:
        if metric.endswith(ending):
            return next((u for u in reversed(units) if abs(number) >= u[0] * 0.9995), units[0])
    return None
