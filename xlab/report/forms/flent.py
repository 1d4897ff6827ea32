"""FILE.flent.gz, FILE.flent: courses over time for flent.

flent plots and compares such files (flent.org).

    metadata    NAME is flent's own test "tcp_1up": its plots find the series of one method
    x_values    0, 0.1, 0.2 … s
    results     "Ping (ms) ICMP" and "TCP upload"; of several methods "… weave" and so on, for
                flent's tables and for other programs; null in gaps
    raw_values  every single echo and interval

Format 4, as flent 2 writes it.  Of each method it is the middle round, that whose median is in the
middle; all begin at 0, whenever they were measured (STARTED_AT in SERIES_META).  RTT begins idle;
from LOAD_SINCE on the path is full both ways.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import floor
from pathlib import Path
from typing import Any

from xlab.errors import RecordError
from xlab.record import stats
from xlab.record.record import Measurement
from xlab.report import lines
from xlab.report.content import Content
from xlab.report.text import plain

VERSION = 4
STEP_S = 0.1
#: flent's own name for this kind of test: it looks a file's plots up by it.
_TEST = "tcp_1up"
_MBIT = 1e6
#: An hour: no probe takes as long, whatever a record says.
_LONGEST_S = 3600.0

#: (seconds, value) in order; None where something was sent and nothing came back.
_Course = list[tuple[float, float | None]]


def of_results(told: Content, _base: Path) -> bytes:
    """The file, gzipped; RecordError where no record has a course over time."""
    courses = dict(_courses(told))
    if not courses:
        raise RecordError(
            "no course over time to export: measure with --probe loaded-rtt, and keep the records"
        )
    end = max(seconds for _, course in courses.values() for seconds, _ in course)
    steps = 1 + floor(end / STEP_S)
    start = _moment(told.started_at[0])
    begun = start.isoformat(timespec="microseconds").replace("+00:00", "Z")
    data = {
        "version": VERSION,
        "x_values": [round(step * STEP_S, 3) for step in range(steps)],
        "results": {name: _stepped(course, steps) for name, (_, course) in courses.items()},
        "raw_values": {
            name: [
                {"t": start.timestamp() + seconds, "val": value}
                for seconds, value in course
                if value is not None
            ]
            for name, (_, course) in courses.items()
        },
        "metadata": {
            "NAME": _TEST,
            "TITLE": plain(", ".join(part.name for part in told.parts)),
            "TIME": begun,
            "T0": begun,
            "LENGTH": steps * STEP_S,
            "TOTAL_LENGTH": steps * STEP_S,
            "STEP_SIZE": STEP_S,
            "IP_VERSION": 4,
            "HOST": "",
            "HOSTS": [],
            "LOCAL_HOST": "xlab",
            "DATA_FILENAME": "xlab.flent.gz",
            "SERIES_META": {name: _meta(name, m) for name, (m, _) in courses.items()},
            "NOTE": "exported by xlab: one kernel, not wires",
        },
    }
    return gzip.compress(json.dumps(data, allow_nan=False).encode(), mtime=0)


def _courses(told: Content) -> Iterator[tuple[str, tuple[Measurement, _Course]]]:
    alone = len(told.parts) == 1
    for part in told.parts:
        rtt = lines.middle_course(part.record)
        if rtt is not None:
            echoes: _Course = [each for each in lines.series(rtt) if each[0] < _LONGEST_S]
            if echoes:
                yield f"Ping (ms) {'ICMP' if alone else part.name}", (rtt, echoes)
        streams = [
            m
            for m in part.record.measurements
            if (m.metric, m.streams, m.route) == ("tcp_bits_per_second", 1, "method")
            and m.samples
            and m.median is not None
        ]
        tcp = lines.middle(streams)
        if tcp is not None:
            yield "TCP upload" if alone else f"TCP upload {part.name}", (tcp, _intervals(tcp))


def _intervals(m: Measurement) -> _Course:
    """Mbit/s at the end of each interval that counted."""

    def given(name: str, usual: float) -> float:
        value = m.detail.get(name)
        return float(value) if isinstance(value, int | float) and 0 < value < 10 else usual

    step_s, since_s = given("interval_s", STEP_S), given("omitted_s", 0.0)
    ends = ((since_s + number * step_s, rate) for number, rate in enumerate(m.samples, 1))
    return [(end, rate / _MBIT) for end, rate in ends if end < _LONGEST_S]


def _stepped(course: _Course, steps: int) -> list[float | None]:
    """The median of each step."""
    found: dict[int, list[float]] = {}
    for seconds, value in course:
        if value is not None:
            found.setdefault(floor(seconds / STEP_S), []).append(value)
    return [stats.median(found.get(step, [])) for step in range(steps)]


def _meta(name: str, m: Measurement) -> Mapping[str, Any]:
    latency = name.startswith("Ping")
    meta: dict[str, Any] = {
        "UNITS": "ms" if latency else "Mbits/s",
        "MEAN_VALUE": m.median if latency or m.median is None else m.median / _MBIT,
        "STARTED_AT": plain(m.started_at),
        "ROUND": m.round,
        "BUILD": m.build,
    }
    if latency:
        meta["LOAD_SINCE"] = m.detail.get("load_since_s")
        meta["LOAD_UNTIL"] = m.detail.get("load_until_s")
    return meta


def _moment(written: str) -> datetime:
    """A time out of a record, in UTC; the epoch where it is none."""
    try:
        found = datetime.fromisoformat(written)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC)
