"""Latency under load: round trips before and while TCP streams run both ways between the same two.

    ping every 10 ms   ──────────────────────────────────────────────
    4 + 4 TCP streams            ├ start ┤═════ in full ═════┤
                        └ idle ┘          └──── loaded ─────┘

The idea of flent's test RRUL ("realtime response under load"): what a queue somewhere on the way
adds to the round trip shows only while the link is full in both directions.  The whole course is
kept as `series` in the detail, for a chart.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from xlab.errors import CapabilityError, DeadlineError, XlabError
from xlab.kernel.clock import steady
from xlab.kernel.processes import Process, command_line, wait_until
from xlab.probes import iperf
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe
from xlab.probes.latency import PATIENCE_S, RTT_INTERVAL_S, first_contact
from xlab.probes.parse import Ping, parse_bidirectional, parse_ping
from xlab.probes.throughput import omitted_s
from xlab.record import stats
from xlab.record.record import Measurement

#: A longer course has its echoes further apart.
_MOST_ECHOES = 5000
#: Time of day against the steady clock, over a probe: more than this and somebody has set it.
_CLOCK_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """Streams both ways; `since` and `until` say when all ran in full, in seconds of the epoch."""

    since: float
    until: float
    forward_bits_per_second: float
    backward_bits_per_second: float
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Echo:
    """One echo request; `ms` is None where no reply came."""

    sent: float
    ms: float | None


@probe(
    Kind.BETWEEN_TWO,
    "loaded-rtt",
    "round trips while TCP streams fill the path both ways, and just before",
    place=1,
    compared=True,
    not_virtual="streams and echoes take turns on one processor: it would measure the scheduler",
    doing="round trips while TCP fills the path",
    takes=lambda plan: plan.rtt_s + plan.duration_s,
)
def probe_loaded_rtt(pair: Pair, plan: Plan) -> Sampled:
    """`idle_rtt_ms` and `loaded_rtt_ms`, of one ping that runs all the time."""
    trial = Trial("loaded-rtt", pair, plan)
    interval_s = max(RTT_INTERVAL_S, (plan.rtt_s + plan.duration_s) / _MOST_ECHOES)
    # -D: with the time of day at which each reply came.
    argv = ["ping", "-n", "-D", "-i", f"{interval_s:g}", str(pair.target.address)]
    detail: dict[str, Any] = {"tool": "ping", "command": command_line(argv)}
    try:
        round_trip_s = first_contact(pair) or 0.0
        offset = time.time() - steady()
        load: Load | XlabError
        with pair.source.start(argv) as ping:
            time.sleep(plan.rtt_s)
            _require_running(ping)
            idle_until = time.time()
            try:
                load = _load(trial, round_trip_s)
            except CapabilityError:
                raise
            except XlabError as error:
                load = error
            _await_late_replies(ping)
            ping.signal(signal.SIGINT)
            ping.wait(10.0)
            trial.keep("ping.txt", ping.stdout())
            replies = parse_ping(ping.stdout() or ping.stderr_tail())
            echoes = course(replies, interval_s)
        if abs(time.time() - steady() - offset) > _CLOCK_STEP_S:
            raise XlabError("the time of day was set while the probe ran")
        if not echoes:
            raise XlabError(f"none of {replies.transmitted} echoes was answered")
    except XlabError as error:
        return trial.failed(error, {"idle_rtt_ms": "ms", "loaded_rtt_ms": "ms"}, **detail)
    idle = _measurement(trial, "idle_rtt_ms", _sent_between(echoes, 0.0, idle_until), detail)
    return Sampled((idle, _loaded(trial, echoes, load, idle, detail)), trial.raw)


def course(ping: Ping, interval_s: float) -> list[Echo]:
    """Every echo but the first, which may have waited for ARP, with when it was sent.

    The time of one without a reply lies between those of its neighbours.
    """
    sent = {
        number: ping.received_at[number] - ms / 1000
        for number, ms in ping.replies_ms.items()
        if number in ping.received_at
    }
    if not sent:
        return []  # nobody knows when
    known = sorted(sent)
    times: dict[int, float] = {}
    for number in range(1, min(known[0], ping.transmitted)):
        times[number] = sent[known[0]] - (known[0] - number) * interval_s
    for before, after in pairwise(known):
        step = (sent[after] - sent[before]) / (after - before)
        for number in range(before, after):
            times[number] = sent[before] + (number - before) * step
    for number in range(known[-1], max(known[-1], ping.transmitted) + 1):
        times[number] = sent[known[-1]] + (number - known[-1]) * interval_s
    return [Echo(times[n], ping.replies_ms.get(n)) for n in sorted(times) if n > 1]


def _sent_between(echoes: Sequence[Echo], since: float, until: float) -> list[Echo]:
    return [echo for echo in echoes if since <= echo.sent < until]


def _measurement(
    trial: Trial, metric: str, echoes: Sequence[Echo], detail: Mapping[str, Any]
) -> Measurement:
    samples = [echo.ms for echo in echoes if echo.ms is not None]
    if not samples:
        return trial.failure(metric, "ms", f"none of {len(echoes)} echoes was answered", **detail)
    return trial.measurement(
        metric,
        "ms",
        samples,
        failed_samples=len(echoes) - len(samples),
        detail={
            **detail,
            "p90_ms": stats.percentile(samples, 90),
            "p99_ms": stats.percentile(samples, 99),
        },
    )


def _loaded(
    trial: Trial,
    echoes: Sequence[Echo],
    load: Load | XlabError,
    idle: Measurement,
    detail: Mapping[str, Any],
) -> Measurement:
    start = echoes[0].sent
    series = [
        [round(echo.sent - start, 4), None if echo.ms is None else round(echo.ms, 4)]
        for echo in echoes
    ]
    course_of = {**detail, "series_columns": ["seconds", "ms"], "series": series}
    if isinstance(load, XlabError):
        return trial.failure("loaded_rtt_ms", "ms", str(load), **course_of)
    return _measurement(
        trial,
        "loaded_rtt_ms",
        _sent_between(echoes, load.since, load.until),
        {
            **course_of,
            **load.detail,
            "idle_median_ms": idle.median,
            "load_since_s": round(load.since - start, 4),
            "load_until_s": round(load.until - start, 4),
            "load_forward_bits_per_second": load.forward_bits_per_second,
            "load_backward_bits_per_second": load.backward_bits_per_second,
        },
    )


# -- the load --------------------------------------------------------------------------------------


def _load(trial: Trial, round_trip_s: float) -> Load:
    """Fill the path both ways for a while; XlabError if in either direction nothing arrives."""
    pair, seconds, streams = trial.pair, trial.plan.duration_s, trial.plan.parallel_streams
    run = iperf.run(
        pair.source,
        pair.target,
        "--bidir",
        "-P",
        str(streams),
        seconds=seconds,
        set_up_s=iperf.SET_UP_ROUND_TRIPS * round_trip_s,
        connected=1 + 2 * streams,
        keep=lambda what, content: trial.keep(f"load-{what}", content),
        whole=True,
    )
    forward, backward = parse_bidirectional(run.client, run.server)
    for direction, rate in ((pair.direction, forward), ("the way back", backward)):
        if not rate:
            raise XlabError(f"no load: streams were set up, but no data arrived ({direction})")
    return Load(
        since=run.connected_at + omitted_s(seconds, round_trip_s),
        until=min(run.ended_at, run.connected_at + seconds),
        forward_bits_per_second=forward,
        backward_bits_per_second=backward,
        detail={"load_command": run.command, "load_streams_each_way": streams},
    )


# -- ping ------------------------------------------------------------------------------------------


def _require_running(ping: Process) -> None:
    if ping.poll() is not None:
        said = (ping.stderr_tail() or ping.stdout()).strip()
        raise XlabError(f"ping ended: {said[:300] or 'without a word'}")


def _await_late_replies(ping: Process) -> None:
    """Until an echo sent from now on is answered: whatever is still to come has come then.

    An echo may wait for a second in a full queue and is not lost for that.
    """
    now = time.time()

    def answered() -> bool:
        latest = parse_ping(ping.stdout()[-1000:] + "\n1 packets transmitted, 1 received,")
        return any(at - latest.replies_ms[n] / 1000 > now for n, at in latest.received_at.items())

    try:
        wait_until(answered, timeout_s=PATIENCE_S, awaited="a reply")
    except DeadlineError:
        pass  # what has not come within two seconds is lost
