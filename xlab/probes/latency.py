"""Latency: ICMP echo, and one-byte requests and responses over one TCP connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from math import ceil
from statistics import fmean

from xlab.errors import CapabilityError, XlabError
from xlab.kernel.processes import command_line
from xlab.probes import transactions
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe
from xlab.probes.parse import RequestResponse, parse_ping
from xlab.record import stats
from xlab.record.record import Measurement

#: ping is let wait no longer for a first reply.
PATIENCE_S = 2.0
RTT_INTERVAL_S = 0.01
_MOST_RTT_SAMPLES = 5000


@probe(
    Kind.USUAL,
    "rtt",
    "round trips of ping",
    place=1,
    compared=True,
    takes=lambda plan: plan.rtt_s,
)
def probe_rtt(pair: Pair, plan: Plan) -> Sampled:
    """`ping` every 10 ms, after `first_contact`; the first round trip is left out all the same."""
    trial = Trial("rtt", pair, plan)
    interval_s = max(RTT_INTERVAL_S, plan.rtt_s / _MOST_RTT_SAMPLES)
    count = 1 + max(1, round(plan.rtt_s / interval_s))
    argv = _ping_argv(pair, count, interval_s)
    detail = {"tool": "ping", "command": command_line(argv)}
    try:
        first_contact(pair)
        result = pair.source.run(argv, check=False, timeout_s=plan.rtt_s * 3 + PATIENCE_S + 15)
        trial.keep("ping.txt", result.stdout)
        ping = parse_ping(result.stdout or result.stderr)
    except XlabError as error:
        return trial.failed(error, {"icmp_rtt_ms": "ms"}, **detail)
    samples = [ms for sequence, ms in sorted(ping.replies_ms.items()) if sequence > 1]
    measurement = trial.measurement(
        "icmp_rtt_ms",
        "ms",
        # In whole microseconds: by a steady clock each is one of two, their mean tells more.
        [fmean(samples)] if plan.virtual and samples else samples,
        failed_samples=max(0, ping.transmitted - 1 - len(samples)),
        detail={
            **detail,
            "first_ms_left_out": ping.replies_ms.get(1),
            "duplicates": ping.duplicates,
            "p90_ms": stats.percentile(samples, 90),
            "p99_ms": stats.percentile(samples, 99),
        },
    )
    return Sampled((measurement,), trial.raw)


def first_contact(pair: Pair) -> float | None:
    """Seconds of a round trip, None without a reply.

    It also settles what the first packet between two machines has to wait for, which no probe is
    about: ARP, the tunnel's neighbour, the datapath's flows.
    """
    argv = _ping_argv(pair, 2, RTT_INTERVAL_S)
    try:
        result = pair.source.run(argv, check=False, timeout_s=PATIENCE_S + 15)
        replies_ms = parse_ping(result.stdout).replies_ms.values()
    except CapabilityError:
        raise
    except XlabError:
        return None
    return min(replies_ms) / 1000 if replies_ms else None


def _ping_argv(pair: Pair, count: int, interval_s: float) -> list[str]:
    return [
        "ping", "-n", "-c", str(count), "-i", f"{interval_s:g}", "-W", f"{PATIENCE_S:g}",
        str(pair.target.address),
    ]  # fmt: skip


# -- transactions ----------------------------------------------------------------------------------

_RR = {"tcp_rr_latency_ms": "ms"}


@probe(
    Kind.USUAL,
    "rr",
    "one-byte requests and replies over one TCP connection",
    place=2,
    doing="requests and replies",
    takes=lambda plan: plan.transactions_s,
)
def probe_rr(pair: Pair, plan: Plan) -> Sampled:
    """One-byte transactions for a while: netperf's TCP_RR, or our own where it is not installed.

    The samples are the mean latencies of intervals of 50 ms without the first; percentiles of all
    single transactions are in the detail.
    """
    trial = Trial("rr", pair, plan)
    if not transactions.has_netperf():
        return request_response(trial)
    round_trip_s = first_contact(pair)
    return transactions.by_netperf(
        trial,
        "TCP_RR",
        "-D",  # TCP_NODELAY at both ends
        length=-plan.transactions
        if plan.virtual
        else netperf_length(plan.transactions_s, round_trip_s),
        timeout_s=4 * plan.transactions_s + transactions.netperf_patience_s(round_trip_s),
        failing=_RR,
        summing=_latency,
    )


def netperf_length(rr_s: float, round_trip_s: float | None) -> int:
    """netperf's -l: whole seconds, else (negative) as many transactions as take about as long.

    netperf takes 0.5 for 0, which is for ever.  A transaction costs no less than 40 us even where
    an echo, which no process has to wake up for, takes 10.
    """
    if rr_s == int(rr_s):
        return int(rr_s)
    return -max(20, ceil(rr_s / max(round_trip_s or 0, 40e-6)))


def request_response(trial: Trial) -> Sampled:
    """The same over two sockets of ours."""
    return transactions.by_ourselves(
        trial,
        lambda: _transactions(trial.pair, trial.plan.transactions_s),
        command="one byte each way over TCP, TCP_NODELAY, one thread",
        kept_as="rr.json",
        failing=_RR,
        summing=_latency,
    )


def _transactions(pair: Pair, seconds: float) -> list[float]:
    """Latency of each transaction in seconds; raises OSError (TimeoutError) on a dead path."""
    with pair.target.entered():
        listener = socket.create_server((str(pair.target.address), 0))
    with listener:
        with pair.source.entered():
            requester = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with requester:
            for each in (listener, requester):
                each.settimeout(PATIENCE_S)
            requester.connect(listener.getsockname())
            responder, _ = listener.accept()
            with responder:
                responder.settimeout(PATIENCE_S)
                for each in (requester, responder):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return _exchange(requester, responder, seconds)


def _exchange(requester: socket.socket, responder: socket.socket, seconds: float) -> list[float]:
    latencies: list[float] = []
    begun = now = time.perf_counter()
    while now - begun < seconds or not latencies:
        requester.send(b"?")
        responder.recv(1)
        responder.send(b"!")
        requester.recv(1)
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return latencies


def _latency(trial: Trial, found: RequestResponse, detail: Mapping[str, str]) -> Measurement:
    # A run too short for two intervals has no samples but its mean.
    intervals = () if trial.plan.virtual else found.interval_means_ms[1:]
    samples = intervals or (found.latencies["mean_ms"],)
    means = f"means of {1000 * transactions.INTERVAL_S:g} ms, the first left out"
    said = {
        **detail,
        "samples_are": means if intervals else "the mean of all",
        **found.latencies,
        "transactions_per_second": found.transactions_per_second,
    }
    return trial.measurement("tcp_rr_latency_ms", "ms", samples, detail=said)
