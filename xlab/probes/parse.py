"""Reading what the measuring tools print.

Pure functions from text to facts.  Whatever is not the whole, well-formed output of the tool raises
XlabError with what is wrong with it; a path that lets nothing through is no such error but a fact
(no replies, no bytes).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from xlab.errors import XlabError

#: Clock ticks a second in /proc: USER_HZ, 100 on every architecture Debian has.
TICKS_PER_SECOND = 100

#: What iperf3's clock can tell apart; of anything shorter the rate has no meaning.
_SHORTEST_S = 1e-6

_REPLY = re.compile(
    r"^(?:\[([\d.]+)\] )?.*?icmp_seq=(\d+) ttl=\d+ time[=<]([\d.]+) ms", re.MULTILINE
)
_ASSIGNMENT = re.compile(r"^([A-Z0-9_]+(?:\[\d+\])?)=(.*)$", re.MULTILINE)
_SUMMARY = re.compile(r"^(\d+) packets transmitted, (\d+) received,", re.MULTILINE)
_MEAN = re.compile(r"^rtt min/avg/max/mdev = [\d.]+/([\d.]+)/", re.MULTILINE)


# -- ping ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    transmitted: int
    #: Round-trip time of each first reply in milliseconds, by sequence number from 1.
    replies_ms: dict[int, float]
    duplicates: int
    #: When each first reply came, in seconds of the epoch; empty without `-D`.
    received_at: dict[int, float] = field(default_factory=dict)
    #: Of the summary, which is all that `-q` prints: replies, and their mean round-trip time.
    received: int = 0
    mean_ms: float | None = None


def parse_ping(text: str) -> Ping:
    """The output of iputils' `ping -n`, with or without `-D` and `-q`."""
    summary = _SUMMARY.search(text)
    if summary is None:
        raise XlabError(f"ping: no summary in its output{_beginning(text)}")
    found = _REPLY.findall(text)
    replies: dict[int, float] = {}
    received_at: dict[int, float] = {}
    for time_of_day, digits, ms in found:
        sequence = _whole("ping", digits)
        if sequence not in replies:
            replies[sequence] = _float("ping", ms)
            if time_of_day:
                received_at[sequence] = _float("ping", time_of_day)
    mean = _MEAN.search(text)
    return Ping(
        transmitted=_whole("ping", summary[1]),
        replies_ms=replies,
        duplicates=len(found) - len(replies),
        received_at=received_at,
        received=_whole("ping", summary[2]),
        mean_ms=_float("ping", mean[1]) if mean else None,
    )


# -- iperf3 ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """What the receiver got in one interval, of all streams together."""

    start_s: float
    seconds: float
    bytes: int
    #: Of UDP alone: packets lost and all that should have come.
    lost: int = 0
    packets: int = 0

    @property
    def bits_per_second(self) -> float:
        return self.bytes * 8 / self.seconds


@dataclass(frozen=True, slots=True)
class Iperf:
    """One transfer, from what both ends report."""

    version: str
    #: The receiver's, in order.
    intervals: tuple[Interval, ...]
    #: What the receiver got in all, set-up and first moments included.
    received_bytes: int
    sent_bits_per_second: float
    #: TCP alone; None where the system does not tell.
    retransmits: int | None
    mean_rtt_ms: float | None
    congestion_control: str | None


def parse_iperf(client: str, server: str) -> Iperf:
    """`--json` output of a sending client and of its server.

    The receiver's figures come from the server's own intervals: they are there even if the client
    was told to stop, and what counts is what arrived.  A server that is stopped repeats its last
    interval (iperf3 3.18), and repetitions are left out.
    """
    sender, receiver = _iperf_client(client), _iperf_output("iperf3 server", server)
    intervals = _intervals(_object(entry, "sum") for entry in _list(receiver, "intervals"))
    end = _object(sender, "end")
    streams = [
        _object(stream, "sender")
        for stream in _list(end, "streams")
        if isinstance(stream, dict) and "sender" in stream
    ]
    rtts_us = [_number(stream, "mean_rtt") for stream in streams if "mean_rtt" in stream]
    sent = _object(end, "sum_sent") if "sum_sent" in end else _object(end, "sum")
    congestion_control = end.get("sender_tcp_congestion")
    return Iperf(
        version=str(_object(sender, "start").get("version", "iperf3")).removeprefix("iperf "),
        intervals=tuple(intervals),
        received_bytes=_received_bytes(receiver, intervals),
        sent_bits_per_second=_number(sent, "bits_per_second"),
        retransmits=int(_number(sent, "retransmits")) if "retransmits" in sent else None,
        mean_rtt_ms=sum(rtts_us) / len(rtts_us) / 1000 if rtts_us else None,
        congestion_control=congestion_control if isinstance(congestion_control, str) else None,
    )


def parse_bidirectional(client: str, server: str) -> tuple[float, float]:
    """What arrived at the server and at the client of `iperf3 --bidir --json`, in bits per second.

    Of each end the intervals of the direction in which it receives; 0.0 where nothing came.
    """
    ends = _iperf_output("iperf3 server", server), _iperf_client(client)
    rates = []
    for report in ends:
        received = [
            total
            for entry in _list(report, "intervals")
            for total in (_object(entry, "sum"), _object(entry, "sum_bidir_reverse"))
            if total.get("sender") is False
        ]
        rates.append(mean_bits_per_second(_intervals(received)))
    return rates[0], rates[1]


def mean_bits_per_second(intervals: Sequence[Interval]) -> float:
    """0.0 without any."""
    seconds = sum(interval.seconds for interval in intervals)
    return sum(interval.bytes for interval in intervals) * 8 / seconds if intervals else 0.0


def without_start(
    intervals: Iterable[Interval], *, omit_s: float, interval_s: float
) -> tuple[Interval, ...]:
    """Leave out what began in the first `omit_s`, and a last piece below half an interval."""
    # iperf3's clock starts a few microseconds off: 0.199996 is meant to be 0.2.
    return tuple(
        i for i in intervals if i.start_s >= omit_s - 0.001 and i.seconds >= interval_s / 2
    )


def widened(intervals: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Merge neighbours until at most half of the intervals are empty.

    On a slow link fewer than one packet comes in an interval: half of them hold nothing, and the
    median of their rates would be 0.
    """
    while len(intervals) > 1 and 2 * sum(i.bytes == 0 for i in intervals) >= len(intervals):
        merged = [_merged(intervals[i : i + 2]) for i in range(0, len(intervals), 2)]
        if len(intervals) % 2 and len(merged) > 1:
            merged[-2:] = [_merged(tuple(merged[-2:]))]
        intervals = tuple(merged)
    return intervals


def _merged(intervals: tuple[Interval, ...]) -> Interval:
    return Interval(
        start_s=intervals[0].start_s,
        seconds=sum(i.seconds for i in intervals),
        bytes=sum(i.bytes for i in intervals),
        lost=sum(i.lost for i in intervals),
        packets=sum(i.packets for i in intervals),
    )


def _iperf_output(who: str, text: str) -> dict[str, Any]:
    if not text.strip():
        raise XlabError(f"{who}: no output")
    try:
        output = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise XlabError(f"{who}: its output is not JSON ({error}){_beginning(text)}") from error
    if not isinstance(output, dict):
        raise XlabError(f"{who}: its output is not an object{_beginning(text)}")
    if "end" not in output and "error" in output:
        raise XlabError(f"{who}: {output['error']}")
    return output


def _iperf_client(text: str) -> dict[str, Any]:
    """The report of a client that was connected, even if it was told to stop."""
    report = _iperf_output("iperf3 client", text)
    error = str(report.get("error", ""))
    if error and "the client has terminated" not in error:
        raise XlabError(f"iperf3 client: {error}")
    if not _list(_object(report, "start"), "connected"):
        raise XlabError("iperf3 client: told to stop before it was connected")
    return report


def _intervals(totals: Iterable[dict[str, Any]]) -> list[Interval]:
    """In order, without repetitions and those too short to have a rate."""
    intervals: list[Interval] = []
    for total in totals:
        interval = _interval(total)
        if interval.seconds >= _SHORTEST_S and (
            not intervals or interval.start_s > intervals[-1].start_s
        ):
            intervals.append(interval)
    return intervals


def _interval(total: dict[str, Any]) -> Interval:
    return Interval(
        start_s=_number(total, "start"),
        seconds=_number(total, "seconds"),
        bytes=_count(total, "bytes"),
        lost=int(_number(total, "lost_packets")) if "lost_packets" in total else 0,
        packets=_count(total, "packets") if "packets" in total else 0,
    )


def _received_bytes(receiver: dict[str, Any], intervals: list[Interval]) -> int:
    """The total, with what came after the last interval where the server was stopped."""
    end = _object(receiver, "end")
    received = _count(_object(end, "sum_received"), "bytes") if "sum_received" in end else 0
    return max(received, sum(interval.bytes for interval in intervals))


# -- netperf ---------------------------------------------------------------------------------------

_LATENCIES = ("mean", "p50", "p90", "p99")
#: What `netperf -t TCP_RR -- -k` is asked for; latencies come in microseconds.
NETPERF_KEYS = (
    *(f"{of.upper()}_LATENCY" for of in _LATENCIES),
    "TRANSACTION_RATE",
    "ELAPSED_TIME",
)


@dataclass(frozen=True, slots=True)
class RequestResponse:
    """A run of single transactions over one connection, by netperf or by ourselves."""

    #: Mean latency in each interval of the run, in milliseconds.
    interval_means_ms: tuple[float, ...]
    #: Of all single transactions: "mean_ms", "p50_ms", "p90_ms", "p99_ms".
    latencies: dict[str, float]
    transactions_per_second: float


def parse_netperf(text: str) -> RequestResponse:
    """The output of `netperf -P 0 -t TCP_RR -D -INTERVAL -- -k NETPERF_KEYS`."""
    values = dict(_ASSIGNMENT.findall(text))
    missing = [key for key in NETPERF_KEYS if key not in values]
    if missing:
        raise XlabError(f"netperf: no {missing[0]} in its output{_beginning(text)}")
    number = {key: _float("netperf", values[key]) for key in NETPERF_KEYS}
    rates = [
        _float("netperf", value)
        for key, value in values.items()
        if key.startswith("NETPERF_INTERIM_RESULT[")
    ]
    return RequestResponse(
        # Slower than one in eleven days is none at all.
        interval_means_ms=tuple(1000 / rate for rate in rates if rate > 1e-6),
        latencies={f"{of}_ms": number[f"{of.upper()}_LATENCY"] / 1000 for of in _LATENCIES},
        transactions_per_second=number["TRANSACTION_RATE"],
    )


# -- /proc -----------------------------------------------------------------------------------------


def parse_busy_s(stat: str) -> float:
    """Seconds all processors together have been busy, from /proc/stat.

    User, nice, system, irq and softirq; not idle and iowait, and not steal, which is time of other
    machines (proc_stat(5)).  Guest time is part of user time already.
    """
    fields = stat.partition("\n")[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        raise XlabError(f"/proc/stat: no line of totals{_beginning(stat)}")
    user, nice, system, _idle, _iowait, irq, softirq = (
        _whole("/proc/stat", field) for field in fields[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def parse_process_s(stat: str) -> tuple[str, float]:
    """A process's name and its user and system time in seconds, from /proc/PID/stat."""
    # The name stands in parentheses and may hold any character, parentheses and spaces too.
    before, closed, after = stat.rpartition(")")
    fields = after.split()
    if not closed or "(" not in before or len(fields) < 13:
        raise XlabError(f"/proc/PID/stat: not in its format{_beginning(stat)}")
    ticks = _whole("/proc/PID/stat", fields[11]) + _whole("/proc/PID/stat", fields[12])
    return before.partition("(")[2], ticks / TICKS_PER_SECOND


def listens(tcp_table: str, port: int) -> bool:
    """Whether /proc/PID/net/tcp shows a socket in state LISTEN (0A) on `port`."""
    return bool(_rows(tcp_table, port, "0A"))


def listening(tcp_table: str, port: int) -> set[str]:
    """The sockets that `listens` sees, named as in /proc/PID/fd: "socket:[4711]"."""
    return {f"socket:[{row[9]}]" for row in _rows(tcp_table, port, "0A") if len(row) > 9}


def connections(tcp_table: str, port: int) -> int:
    """How many connections /proc/PID/net/tcp shows in state ESTABLISHED (01) at local `port`."""
    return len(_rows(tcp_table, port, "01"))


def _rows(tcp_table: str, port: int, state: str) -> list[list[str]]:
    rows = (line.split() for line in tcp_table.splitlines()[1:])
    return [r for r in rows if len(r) > 3 and r[3] == state and r[1].endswith(f":{port:04X}")]


# -- access to what may not be there ---------------------------------------------------------------


def _object(container: Any, key: str) -> dict[str, Any]:
    value = container.get(key) if isinstance(container, dict) else None
    if not isinstance(value, dict):
        raise XlabError(f"iperf3: no object {key!r} in its output")
    return value


def _list(container: dict[str, Any], key: str) -> list[Any]:
    value = container.get(key)
    if not isinstance(value, list):
        raise XlabError(f"iperf3: no list {key!r} in its output")
    return value


def _number(container: dict[str, Any], key: str) -> float:
    value = container.get(key)
    # The bound keeps every sum of such numbers finite.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e18:
        raise XlabError(f"iperf3: no number {key!r} in its output")
    return value


def _count(container: dict[str, Any], key: str) -> int:
    value = _number(container, key)
    if value < 0:
        raise XlabError(f"iperf3: {key!r} is negative in its output")
    return int(value)


def _float(tool: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise XlabError(f"{tool}: {error}") from error
    # The bound keeps every sum finite, and is what NaN is not below.
    if not 0 <= value < 1e18:
        raise XlabError(f"{tool}: {text[:40]} is no figure")
    return value


def _whole(tool: str, digits: str) -> int:
    # int() would take signs, underscores and other scripts' digits, and long for long texts.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
        raise XlabError(f"{tool}: {digits[:40]!r} is no figure")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no figure")


def _beginning(text: str) -> str:
    first = text.strip()[:120]
    return f": {first!r}" if first else ""
