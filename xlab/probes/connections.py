"""How many TCP connections a second: each is opened, asked one byte, answered one, and closed.

Of a short-lived request most is the round trips of opening and closing, and the state that every
bridge, tunnel and translator on the way makes for a flow it has not seen before.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from math import ceil

from xlab.probes import transactions
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe
from xlab.probes.latency import PATIENCE_S, first_contact
from xlab.probes.parse import RequestResponse
from xlab.record.record import Measurement

_METRIC, _UNIT = "tcp_connections_per_second", "1/s"
#: A connection takes no less than this even where an echo takes 10 us.
_FASTEST_S = 150e-6
#: Each leaves a port of the target in TIME_WAIT for a minute, and there are 60,000.
_MOST = 10_000


@probe(
    Kind.BETWEEN_TWO,
    "connections",
    "TCP connections opened and closed a second",
    place=2,
    takes=lambda plan: plan.transactions_s,
)
def probe_connections(pair: Pair, plan: Plan) -> Sampled:
    """netperf's TCP_CRR, or our own where it is not installed.

    Samples are the rates of intervals of 50 ms without the first.
    """
    trial = Trial("connections", pair, plan)
    if not transactions.has_netperf():
        return connect_ourselves(trial)
    round_trip_s = first_contact(pair)
    number = number_of_connections(plan.transactions_s, round_trip_s)
    usual_s = number * max(_FASTEST_S, 3 * (round_trip_s or 0.0))
    return transactions.by_netperf(
        trial,
        "TCP_CRR",
        length=-number,
        timeout_s=usual_s + transactions.netperf_patience_s(round_trip_s),
        failing={_METRIC: _UNIT},
        summing=_rate,
    )


def number_of_connections(seconds: float, round_trip_s: float | None) -> int:
    """As many as take about so long: opening, asking and closing are some three round trips.

    Told a time instead, netperf stays four seconds longer.
    """
    each_s = max(3 * (round_trip_s or 0.0), _FASTEST_S)
    return min(_MOST, max(20, ceil(seconds / each_s)))


def connect_ourselves(trial: Trial) -> Sampled:
    """The same over sockets of ours."""
    return transactions.by_ourselves(
        trial,
        lambda: _connections(trial.pair, trial.plan.transactions_s),
        command="connect, one byte each way, close; one thread",
        kept_as="connections.json",
        failing={_METRIC: _UNIT},
        summing=_rate,
    )


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


def _rate(trial: Trial, found: RequestResponse, detail: Mapping[str, str]) -> Measurement:
    # A run too short for two intervals has no samples but its mean.
    samples = [1000 / ms for ms in found.interval_means_ms[1:]] or [found.transactions_per_second]
    said = {
        **detail,
        "samples_are": f"rates of {1000 * transactions.INTERVAL_S:g} ms, the first left out",
        "mean_per_second": found.transactions_per_second,
        **found.latencies,
    }
    return trial.measurement(_METRIC, _UNIT, samples, detail=said)
