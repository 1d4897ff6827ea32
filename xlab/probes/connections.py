"""How many TCP connections a second: each is opened, asked one byte, answered one, and closed.

Of a short-lived request most is the round trips of opening and closing, and the state that every
bridge, tunnel and translator on the way makes for a flow it has not seen before.
"""

from __future__ import annotations

import json
import socket
import time
from math import ceil

from xlab.errors import CapabilityError, XlabError
from xlab.kernel.processes import command_line, find_program
from xlab.probes.facts import Pair, Plan, Sampled, Trial, two_cores
from xlab.probes.latency import (
    NETPERF_PORT,
    PATIENCE_S,
    RR_INTERVAL_S,
    first_contact,
    netperf_patience_s,
    raise_if_incapable,
    summarise,
    until_listening,
)
from xlab.probes.parse import NETPERF_KEYS, RequestResponse, parse_netperf

_METRIC, _UNIT = "tcp_connections_per_second", "1/s"
#: A connection takes no less than this even where an echo takes 10 us.
_FASTEST_S = 150e-6
#: Each leaves a port of the target in TIME_WAIT for a minute, and there are 60,000.
_MOST = 10_000


def probe_connections(pair: Pair, plan: Plan) -> Sampled:
    """netperf's TCP_CRR, or our own where it is not installed.

    Samples are the rates of intervals of 50 ms without the first.
    """
    trial = Trial("connections", pair, plan)
    try:
        find_program("netperf")
        find_program("netserver")
    except CapabilityError:
        return connect_ourselves(trial)
    return _netperf(trial)


def number_of_connections(seconds: float, round_trip_s: float | None) -> int:
    """As many as take about so long: opening, asking and closing are some three round trips.

    Told a time instead, netperf stays four seconds longer.
    """
    each_s = max(3 * (round_trip_s or 0.0), _FASTEST_S)
    return min(_MOST, max(20, ceil(seconds / each_s)))


def _netperf(trial: Trial) -> Sampled:
    pair, cores = trial.pair, two_cores()
    round_trip_s = first_contact(pair)
    number = number_of_connections(trial.plan.connections_s, round_trip_s)
    argv = [
        "netperf", "-4", "-P", "0", *(("-T", cores) if cores else ()),
        "-t", "TCP_CRR", "-H", str(pair.target.address),
        "-l", str(-number), "-D", f"-{RR_INTERVAL_S:g}",
        "--", "-r", "1,1", "-k", ",".join(NETPERF_KEYS),
    ]  # fmt: skip
    detail = {"tool": "netperf", "command": command_line(argv), "cores": cores or "not pinned"}
    usual_s = number * max(_FASTEST_S, 3 * (round_trip_s or 0.0))
    try:
        with pair.target.start(["netserver", "-D", "-4"]) as server:
            until_listening(server, NETPERF_PORT)
            result = pair.source.run(argv, timeout_s=usual_s + netperf_patience_s(round_trip_s))
        trial.keep("netperf.txt", result.stdout)
        return _sampled(trial, parse_netperf(result.stdout), detail)
    except XlabError as error:
        raise_if_incapable(error)
        return trial.failed(_METRIC, _UNIT, error, **detail)


# -- our own ---------------------------------------------------------------------------------------


def connect_ourselves(trial: Trial) -> Sampled:
    """The same over sockets of ours, both ends driven by one thread: not to be compared with it."""
    detail = {"tool": "xlab", "command": "connect, one byte each way, close; one thread"}
    try:
        durations_s = _connections(trial.pair, trial.plan.connections_s)
        trial.keep("connections.json", json.dumps([round(s * 1e6, 2) for s in durations_s]))
        return _sampled(trial, summarise(durations_s), detail)
    except (XlabError, OSError) as error:
        return trial.failed(_METRIC, _UNIT, error, **detail)


def _connections(pair: Pair, seconds: float) -> list[float]:
    """Duration of each connection in seconds; raises OSError (TimeoutError) on a dead path."""
    durations: list[float] = []
    with pair.target.entered():
        listener = socket.create_server((str(pair.target.address), 0))
    with listener, pair.source.entered():
        listener.settimeout(PATIENCE_S)
        begun = now = time.perf_counter()
        while (now - begun < seconds or not durations) and len(durations) < _MOST:
            _connect_once(listener)
            before, now = now, time.perf_counter()
            durations.append(now - before)
    return durations


def _connect_once(listener: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as requester:
        requester.settimeout(PATIENCE_S)
        requester.connect(listener.getsockname())
        responder, _ = listener.accept()
        with responder:
            responder.settimeout(PATIENCE_S)
            requester.send(b"?")
            responder.recv(1)
            responder.send(b"!")
            requester.recv(1)
        # The target's end closes first and keeps TIME_WAIT, RFC 9293; it would bind our ports.


# -- in common -------------------------------------------------------------------------------------


def _sampled(trial: Trial, result: RequestResponse, detail: dict[str, str]) -> Sampled:
    means_ms = result.interval_means_ms[1:]
    # A run too short for two intervals has no samples but its mean.
    samples = [1000 / ms for ms in means_ms] or [result.transactions_per_second]
    measurement = trial.measurement(
        _METRIC,
        _UNIT,
        samples,
        detail={
            **detail,
            "samples_are": f"rates of {1000 * RR_INTERVAL_S:g} ms, the first left out",
            "mean_per_second": result.transactions_per_second,
            "mean_ms": result.mean_ms,
            "p50_ms": result.p50_ms,
            "p90_ms": result.p90_ms,
            "p99_ms": result.p99_ms,
        },
    )
    return Sampled((measurement,), trial.raw)
