"""What records have that is drawn as lines: all round trips as a distribution, RTT over time, and
throughput as something grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

from xlab.record import metrics, stats
from xlab.record.record import Measurement, RunRecord
from xlab.report import text
from xlab.report.charts import Subject, grouped, is_number
from xlab.report.line_chart import PLOT_W, SHARE, STYLES, LineChart, Plot, Series

#: Of a method's samples so many are enough to draw their distribution.
_STEPS = 200
#: Two points show no course: every run has TCP with one stream and with several.
_FEWEST = 3


def distribution(
    subjects: Sequence[Subject], metric: str, shown: metrics.ChartOfOne
) -> LineChart | None:
    """The cumulative distribution of all samples of a latency; None where there are none."""

    def line(record: RunRecord, name: str, style: int) -> Series | None:
        samples = [s for m in _of(record, metric) for s in m.samples if _fits(s)]
        if len(samples) < 2:
            return None
        steps = min(_STEPS, len(samples))
        shares = [i / steps for i in range(steps + 1)]
        values = tuple(stats.percentile(samples, 100 * share) or 0.0 for share in shares)
        p50, p99 = (text.value(metric, "", stats.percentile(samples, p) or 0.0) for p in (50, 99))
        return Series(name, style, values, tuple(shares), f"50 % {p50}, 99 % {p99}")

    plots = _by_class(subjects, line)
    if not plots:
        return None
    return LineChart(shown.title, "no longer than", plots, metric, SHARE, x_log=True)


def against_message_size(subjects: Sequence[Subject]) -> LineChart | None:
    """TCP throughput for each size of message; None where it was not measured."""
    return _growing(
        subjects, "Throughput against message size", "bytes a message",
        lambda m: metrics.message_bytes(m.metric), y_log=True,
    )  # fmt: skip


def against_flows(subjects: Sequence[Subject]) -> LineChart | None:
    """TCP throughput of all streams together; None where it was not measured."""
    return _growing(
        subjects, "Throughput against streams", "TCP streams at once",
        lambda m: m.streams if m.metric == "tcp_bits_per_second" else None, y_log=False,
    )  # fmt: skip


def course(subjects: Sequence[Subject]) -> LineChart | None:
    """RTT over time, idle and then loaded, of each method's middle round; None without any."""
    found = (_course(record, name, style) for style, (name, record) in enumerate(subjects))
    plots = tuple(plot for plot in found if plot)
    if not plots:
        return None
    return LineChart("RTT over time, idle and loaded", "seconds", plots, "", "x_ms", y_log=True)


def middle_course(record: RunRecord) -> Measurement | None:
    """The measurement of RTT under load whose median is in the middle of all rounds'."""
    found = [m for m in _of(record, "loaded_rtt_ms") if series(m)]
    return middle([m for m in found if m.median is not None] or found)


def middle(found: Sequence[Measurement]) -> Measurement | None:
    """The one whose median is in the middle; None of none."""
    ranked = sorted(found, key=lambda m: m.median or 0.0)
    return ranked[(len(ranked) - 1) // 2] if ranked else None


def series(m: Measurement) -> list[tuple[float, float | None]]:
    """The echoes of a measurement under load: (seconds, ms), without what makes no sense."""
    listed = m.detail.get("series")
    found: list[tuple[float, float | None]] = []
    for entry in listed if isinstance(listed, list) else ():
        match entry:
            case [seconds, ms] if is_number(seconds) and 0 <= seconds < 1e6:
                if ms is None or (is_number(ms) and _fits(ms)):
                    found.append((float(seconds), None if ms is None else float(ms)))
    return found


def _course(record: RunRecord, name: str, style: int) -> Plot | None:
    chosen = middle_course(record)
    if chosen is None:
        return None
    echoes = series(chosen)
    end = max(seconds for seconds, _ in echoes) or 1.0
    columns: dict[int, list[float]] = {}
    for seconds, ms in echoes:
        if ms is not None:
            columns.setdefault(int(PLOT_W * seconds / end), []).append(ms)
    if not columns:
        return None
    since, until = (chosen.detail.get(name) for name in ("load_since_s", "load_until_s"))
    load = None
    if is_number(since) and is_number(until) and 0 <= since < until <= 2 * end:
        load = (float(since), float(until))
    idle = chosen.detail.get("idle_median_ms")
    said = [
        f"{when} {text.value('x_ms', '', value)}"
        for when, value in (("idle", idle), ("loaded", chosen.median))
        if is_number(value) and _fits(value)
    ]
    line = Series(
        text.plain(name),
        min(style, 1),
        tuple((column + 0.5) * end / PLOT_W for column in sorted(columns)),
        tuple(min(columns[column]) for column in sorted(columns)),
        ", ".join(said),
        highs=tuple(max(columns[column]) for column in sorted(columns)),
    )
    return Plot(text.plain(name), (line,), load, tuple(s for s, ms in echoes if ms is None))


def _growing(
    subjects: Sequence[Subject],
    title: str,
    axis: str,
    place: Callable[[Measurement], int | None],
    *,
    y_log: bool,
) -> LineChart | None:
    """TCP throughput at each `place` on the axis."""
    tried: set[float] = set()

    def line(record: RunRecord, name: str, style: int) -> Series | None:
        values: dict[float, list[float]] = {}
        for m in record.measurements:
            x = place(m)
            if m.route == "method" and m.median and _fits(m.median) and x and 0 < x < 1e9:
                values.setdefault(float(x), []).append(m.median)
        if len(values) < _FEWEST:
            return None
        xs = tuple(sorted(values))
        tried.update(xs)
        middles = tuple(stats.median(values[x]) or 0.0 for x in xs)
        said = "–".join(
            dict.fromkeys(text.value("x_bits_per_second", "", y) for y in (middles[0], middles[-1]))
        )
        dots = tuple((x, y) for x in xs for y in values[x])
        return Series(name, style, xs, middles, said, dots)

    plots = _by_class(subjects, line)
    if not plots:
        return None
    return LineChart(
        title, axis, plots, "", "x_bits_per_second",
        x_log=True, y_log=y_log, x_ticks=tuple(sorted(tried)),
    )  # fmt: skip


def _by_class(
    subjects: Sequence[Subject], line: Callable[[RunRecord, str, int], Series | None]
) -> tuple[Plot, ...]:
    """A plot a class of datapaths, with those of which there is a line."""
    in_turn = cycle(range(1, len(STYLES)))
    # The first of all is the baselines'.
    styles = {id(told): 0 if told.scenario == "baseline" else next(in_turn) for _, told in subjects}
    plots = []
    for title, members in grouped(subjects):
        lines = [line(record, text.plain(name), styles[id(record)]) for name, record in members]
        drawn = tuple(each for each in lines if each)
        if drawn:
            plots.append(Plot(title, drawn))
    return tuple(plots)


def _of(record: RunRecord, metric: str) -> list[Measurement]:
    return [m for m in record.measurements if (m.metric, m.route) == (metric, "method")]


def _fits(value: float) -> bool:
    return 1e-9 < value < 1e15
