"""Latency: ICMP echo, and one-byte requests and responses over one TCP connection."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from xlab.errors import CapabilityError, XlabError
from xlab.kernel.processes import Process, command_line, find_program, wait_until
from xlab.probes.facts import Pair, Plan, Sampled, Trial, two_cores
from xlab.probes.parse import (
    NETPERF_KEYS,
    RequestResponse,
    listens,
    parse_netperf,
    parse_ping,
)
from xlab.record import stats

#: ping is let wait no longer for a first reply.
PATIENCE_S = 2.0
RTT_INTERVAL_S = 0.01
_MOST_RTT_SAMPLES = 5000
NETPERF_PORT = 12865
#: Latencies of transactions are averaged over so long: a run has tens of thousands of them.
RR_INTERVAL_S = 0.05


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
        raise_if_incapable(error)
        return trial.failed("icmp_rtt_ms", "ms", error, **detail)
    samples = [ms for sequence, ms in sorted(ping.replies_ms.items()) if sequence > 1]
    measurement = trial.measurement(
        "icmp_rtt_ms",
        "ms",
        samples,
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
    except XlabError as error:
        raise_if_incapable(error)
        return None
    return min(replies_ms) / 1000 if replies_ms else None


def probe_rr(pair: Pair, plan: Plan) -> Sampled:
    """One-byte transactions for a while: netperf's TCP_RR, or our own where it is not installed.

    The samples are the mean latencies of intervals of 50 ms without the first; percentiles of all
    single transactions are in the detail.
    """
    trial = Trial("rr", pair, plan)
    try:
        find_program("netperf")
        find_program("netserver")
    except CapabilityError:
        return request_response(trial)
    return _netperf(trial)


def until_listening(server: Process, port: int) -> None:
    """Wait for a server to listen, by looking and not by connecting, which it would count.

    /proc/PID/net is the network namespace of that process, whoever reads it.
    """
    table = Path(f"/proc/{server.pid}/net/tcp")

    def ready() -> bool:
        if server.poll() is not None:
            raise XlabError(f"{server.argv[0]} ended: {server.stderr_tail() or server.stdout()}")
        return listens(table.read_text(encoding="ascii"), port)

    wait_until(ready, timeout_s=15.0, awaited=f"{server.argv[0]} to listen on port {port}")


def _ping_argv(pair: Pair, count: int, interval_s: float) -> list[str]:
    return [
        "ping", "-n", "-c", str(count), "-i", f"{interval_s:g}", "-W", f"{PATIENCE_S:g}",
        str(pair.target.address),
    ]  # fmt: skip


# -- netperf ---------------------------------------------------------------------------------------


def _netperf(trial: Trial) -> Sampled:
    pair, rr_s, cores = trial.pair, trial.plan.rr_s, two_cores()
    round_trip_s = first_contact(pair)
    argv = [
        "netperf", "-4", "-P", "0", *(("-T", cores) if cores else ()),
        "-t", "TCP_RR", "-H", str(pair.target.address),
        "-l", str(netperf_length(rr_s, round_trip_s)), "-D", f"-{RR_INTERVAL_S:g}",
        # -D of the test: TCP_NODELAY at both ends.
        "--", "-D", "-r", "1,1", "-k", ",".join(NETPERF_KEYS),
    ]  # fmt: skip
    detail = {"tool": "netperf", "command": command_line(argv), "cores": cores or "not pinned"}
    try:
        with pair.target.start(["netserver", "-D", "-4"]) as server:
            until_listening(server, NETPERF_PORT)
            result = pair.source.run(argv, timeout_s=4 * rr_s + netperf_patience_s(round_trip_s))
        trial.keep("netperf.txt", result.stdout)
        return _rr_sampled(trial, parse_netperf(result.stdout), detail)
    except XlabError as error:
        raise_if_incapable(error)
        return trial.failed("tcp_rr_latency_ms", "ms", error, **detail)


def netperf_length(rr_s: float, round_trip_s: float | None) -> int:
    """netperf's -l: whole seconds, else (negative) as many transactions as take about as long.

    netperf takes 0.5 for 0, which is for ever.  A transaction costs no less than 40 us even where
    an echo, which no process has to wake up for, takes 10.
    """
    if rr_s == int(rr_s):
        return int(rr_s)
    return -max(20, ceil(rr_s / max(round_trip_s or 0, 40e-6)))


def netperf_patience_s(round_trip_s: float | None) -> float:
    """How long netperf may take beyond what it was told to.

    It counts transactions, each of which a busy machine makes last 100 times as long.  Where not
    even an echo came back there is nothing to wait for.
    """
    return 15.0 if round_trip_s is None else 12 * round_trip_s + 60


# -- our own ---------------------------------------------------------------------------------------


def request_response(trial: Trial) -> Sampled:
    """The same over two sockets of ours.

    One thread drives both, one after the other: unlike netperf's, these latencies hold no waking up
    of a process, and the two are not to be compared.
    """
    detail = {"tool": "xlab", "command": "one byte each way over TCP, TCP_NODELAY, one thread"}
    try:
        latencies_s = _transactions(trial.pair, trial.plan.rr_s)
        trial.keep("rr.json", json.dumps([round(s * 1e6, 2) for s in latencies_s]))
        return _rr_sampled(trial, summarise(latencies_s), detail)
    except (XlabError, OSError) as error:
        return trial.failed("tcp_rr_latency_ms", "ms", error, **detail)


def summarise(latencies_s: Sequence[float]) -> RequestResponse:
    """What netperf would report of these transactions; XlabError if there are none."""
    if not latencies_s:
        raise XlabError("no transaction was completed")
    means: list[float] = []
    since, sum_s = 0, 0.0
    for position, latency_s in enumerate(latencies_s, 1):
        sum_s += latency_s
        if sum_s >= RR_INTERVAL_S:
            means.append(1000 * sum_s / (position - since))
            since, sum_s = position, 0.0
    milliseconds = [1000 * s for s in latencies_s]
    p50, p90, p99 = (stats.percentile(milliseconds, percent) or 0.0 for percent in (50, 90, 99))
    return RequestResponse(
        interval_means_ms=tuple(means),
        mean_ms=sum(milliseconds) / len(milliseconds),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        transactions_per_second=len(latencies_s) / sum(latencies_s),
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


# -- in common -------------------------------------------------------------------------------------


def _rr_sampled(trial: Trial, result: RequestResponse, detail: dict[str, str]) -> Sampled:
    # A run too short for two intervals has no samples but its mean.
    samples = result.interval_means_ms[1:] or (result.mean_ms,)
    measurement = trial.measurement(
        "tcp_rr_latency_ms",
        "ms",
        samples,
        detail={
            **detail,
            "samples_are": f"means of {1000 * RR_INTERVAL_S:g} ms, the first left out",
            "mean_ms": result.mean_ms,
            "p50_ms": result.p50_ms,
            "p90_ms": result.p90_ms,
            "p99_ms": result.p99_ms,
            "transactions_per_second": result.transactions_per_second,
        },
    )
    return Sampled((measurement,), trial.raw)


def raise_if_incapable(error: XlabError) -> None:
    """A tool that is not installed is not a failed sample: this machine can't measure that."""
    if isinstance(error, CapabilityError):
        raise error
