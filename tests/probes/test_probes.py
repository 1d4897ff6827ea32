"""What probes decide without a lab: order, durations, figures out of facts."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlab.errors import CapabilityError, XlabError
from xlab.probes.catalog import USUAL
from xlab.probes.connections import number_of_connections
from xlab.probes.cpu import Usage, measure_idle, start_measuring
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.iperf import until_listening
from xlab.probes.latency import netperf_length
from xlab.probes.loaded import course
from xlab.probes.parse import Interval, Iperf, Ping
from xlab.probes.rounds import shuffled
from xlab.probes.throughput import Transfer, cpu_cost, omitted_s, probe_udp
from xlab.probes.transactions import netperf_patience_s, summarise

if TYPE_CHECKING:
    from xlab.kernel.processes import Process
    from xlab.lab.node import Node


class Server:
    """Stands for one that has ended, which nobody has seen yet."""

    argv = ("netserver", "-D")

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> None:
        return None

    def stderr_tail(self) -> str:
        return "Unable to start netserver"


@pytest.mark.parametrize("reaped", [False, True])
def test_a_server_that_has_just_ended_is_told_with_what_it_said(reaped: bool) -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        with pytest.raises(XlabError, match="netserver ended: Unable to start netserver"):
            until_listening(cast("Process", Server(ended.pid)), 12865)


class Named:
    """Stands for a node where its name is all that matters."""

    def __init__(self, name: str) -> None:
        self.name = name


PAIR = Pair(cast("Node", Named("h1/c1")), cast("Node", Named("h2/c1")), "method")
QUICK = Plan(1.0, quick=True)


# ------------------------------------------------------------------------------------------- order


@given(st.integers(0, 5), st.integers())
def test_each_probe_of_each_pair_once_and_tcp_before_udp(pairs: int, seed: int) -> None:
    order = shuffled(pairs, USUAL, random.Random(seed))
    assert Counter(order) == Counter((n, probe) for n in range(pairs) for probe in USUAL)
    for number in range(pairs):
        assert order.index((number, "tcp")) < order.index((number, "udp"))


def test_the_order_is_random_and_can_be_told_again() -> None:
    orders = [tuple(shuffled(3, USUAL, random.Random(seed))) for seed in range(20)]
    assert len(set(orders)) == 20
    assert orders[7] == tuple(shuffled(3, USUAL, random.Random(7)))
    # Neither a pair nor a probe is always first.
    assert len({number for (number, _), *_ in orders}) == 3
    assert len({probe for (_, probe), *_ in orders}) >= 4


def test_a_probe_left_out_is_not_missed() -> None:
    assert shuffled(1, ["udp"], random.Random(0)) == [(0, "udp")]
    assert sorted(shuffled(2, ["rtt"], random.Random(0))) == [(0, "rtt"), (1, "rtt")]


# --------------------------------------------------------------------------------------- durations


def test_a_quick_round_of_three_pairs_fits_its_budget() -> None:
    seconds = QUICK.duration_s + QUICK.tcp_parallel_s + QUICK.udp_s
    seconds += QUICK.rtt_s + QUICK.transactions_s
    assert QUICK.idle_s + 3 * seconds < 8.0
    plan = Plan(3.0, round=2, build=3, daemon_pids=[7])
    assert (plan.udp_s, plan.transactions_s, plan.idle_s) == (3.0, 1.0, 3.0)
    assert (plan.round, plan.build, plan.daemon_pids) == (2, 3, [7])
    # Heartbeats ten seconds apart must not be missed, however quick the rest is.
    assert QUICK.at_rest_s == plan.at_rest_s == 10.0


@pytest.mark.parametrize(
    ("seconds", "round_trip_s", "omitted"),
    [
        (0.5, 0.0, 0.1),
        (1.0, 0.0001, 0.2),
        (3.0, 0.0001, 0.6),
        (3.0, 0.1, 1.0),
        (1.0, 0.4, 0.5),
    ],
)
def test_how_much_of_the_beginning_does_not_count(
    seconds: float, round_trip_s: float, omitted: float
) -> None:
    assert omitted_s(seconds, round_trip_s) == omitted


def test_netperf_is_given_whole_seconds_or_a_number_of_transactions() -> None:
    assert netperf_length(2.0, None) == 2
    assert netperf_length(0.3, 0.001) == -300
    # Without knowing the round trip, or on a very short one: as on a fast path.
    assert netperf_length(0.3, None) == netperf_length(0.3, 5e-6) == -7500
    assert netperf_length(0.3, 0.2) == -20


def test_netperf_is_waited_for_where_something_answers() -> None:
    assert netperf_patience_s(None) < netperf_patience_s(0.0001) < netperf_patience_s(1.0)


def test_connections_are_counted_out_so_that_netperf_ends_in_time() -> None:
    assert number_of_connections(1.0, 0.001) == 334
    assert number_of_connections(0.3, None) == number_of_connections(0.3, 5e-6) == 2000
    assert number_of_connections(0.3, 0.2) == 20
    assert number_of_connections(1000.0, 0.001) == 10_000


# --------------------------------------------------------------------------------------- figures


def transfer(received_bytes: int, usage: Usage) -> Transfer:
    intervals = (Interval(0.0, 1.0, received_bytes),)
    return Transfer(
        Iperf("3.18", intervals, received_bytes, 0.0, None, None, None), intervals, usage, {}
    )


def trial_beside(idle: Usage) -> Trial:
    return Trial("tcp", PAIR, dataclasses.replace(QUICK, idle=idle))


def test_cpu_cost_is_busy_time_beyond_idle_load_for_each_gigabyte() -> None:
    """Idle at 0.2 busy seconds a second; 2 GB in 2 s that cost 3.4 s: 3.0 s, 1.5 a gigabyte."""
    idle = Usage(elapsed_s=0.5, busy_s=0.1, daemons_s={})
    usage = Usage(elapsed_s=2.0, busy_s=3.4, daemons_s={"ovs-vswitchd[7]": 1.0})
    measured = cpu_cost(trial_beside(idle), transfer(2_000_000_000, usage))
    assert measured.metric == "cpu_seconds_per_gigabyte"
    assert list(measured.samples) == [pytest.approx(1.5)]
    assert measured.detail["daemon_cpu_seconds_per_gigabyte"] == {"ovs-vswitchd[7]": 0.5}


def test_cpu_cost_below_the_idle_load_is_a_failed_sample() -> None:
    idle = Usage(elapsed_s=1.0, busy_s=1.9, daemons_s={})
    usage = Usage(elapsed_s=1.0, busy_s=1.8, daemons_s={})
    measured = cpu_cost(trial_beside(idle), transfer(1000, usage))
    assert (measured.samples, measured.median, measured.failed_samples) == ((), None, 1)
    assert "no busier" in measured.detail["error"]


def test_the_window_holds_what_a_process_used_in_it() -> None:
    end = start_measuring([os.getpid(), 2**22 + 1])
    begun = time.process_time()
    while time.process_time() - begun < 0.05:
        pass
    usage = end()
    (name,) = usage.daemons_s
    assert name.endswith(f"[{os.getpid()}]")
    assert usage.daemons_s[name] >= 0.03
    assert usage.busy_s >= 0.03
    assert usage.elapsed_s > 0


def test_the_idle_window_is_as_long_as_asked() -> None:
    usage = measure_idle(0.02)
    assert usage.elapsed_s >= 0.02
    assert 0 <= usage.busy_share <= 2 * (os.cpu_count() or 1)
    assert Usage(0.0, 0.0, {}).busy_share == 0.0


def test_transactions_are_summed_up_as_netperf_does() -> None:
    """100 of 1 ms, then 10 of 10 ms: four intervals of 50 ms."""
    result = summarise([0.001] * 100 + [0.010] * 10)
    assert list(result.interval_means_ms) == pytest.approx([1, 1, 10, 10])
    assert result.latencies["mean_ms"] == pytest.approx(200 / 110)
    assert [result.latencies[of] for of in ("p50_ms", "p99_ms")] == pytest.approx([1, 10])
    assert result.transactions_per_second == pytest.approx(110 / 0.2)
    with pytest.raises(XlabError, match="no transaction"):
        summarise([])


def test_the_course_of_a_ping_tells_when_each_echo_was_sent() -> None:
    """Number 1 is left out; 2, 4, 5 and 8 had no reply: before, between and after the others."""
    ping = Ping(8, {3: 10.0, 6: 20.0, 7: 1.0}, 0, {3: 100.03, 6: 100.08, 7: 100.071})
    assert [(round(echo.sent, 3), echo.ms) for echo in course(ping, 0.01)] == [
        (100.01, None), (100.02, 10.0), (100.033, None), (100.047, None), (100.06, 20.0),
        (100.07, 1.0), (100.08, None),
    ]  # fmt: skip
    assert course(Ping(5, {}, 0), 0.01) == []


# ------------------------------------------------------------------------------ what is kept of it


def test_a_measurement_says_where_its_raw_output_is() -> None:
    trial = Trial("tcp-parallel", PAIR, Plan(1.0, round=2, build=3), streams=4)
    trial.keep("client.json", "{}")
    trial.keep("server.json", "")
    measured = trial.measurement("tcp_bits_per_second", "bit/s", [3.0, 1.0, 2.0], detail={"a": 1})
    again = Trial("flows", PAIR, QUICK, variant="8")
    again.keep("client.json", "{}")
    assert list(again.raw) == ["b1-r1-method-h1.c1-h2.c1-flows-8-client.json"]
    name = "b3-r2-method-h1.c1-h2.c1-tcp-parallel-client.json"
    assert trial.raw == {name: b"{}"}
    assert measured.detail == {"a": 1, "raw": [name]}
    assert (measured.direction, measured.route) == ("h1/c1 > h2/c1", "method")
    assert (measured.streams, measured.round, measured.build) == (4, 2, 3)
    # The interval is added where it is recorded: the lab's pid 1 has no use for numpy.
    assert (measured.median, measured.ci95) == (2.0, None)
    assert measured.started_at.endswith("+00:00")


def test_a_failure_has_no_figure_but_a_reason() -> None:
    trial = Trial("rtt", PAIR, QUICK)
    (measured,) = trial.failed(
        XlabError("no route"), {"icmp_rtt_ms": "ms"}, tool="ping"
    ).measurements
    assert (measured.samples, measured.median, measured.ci95) == ((), None, None)
    assert measured.failed_samples == 1
    assert measured.detail == {"tool": "ping", "error": "no route", "raw": []}


def test_a_missing_tool_is_no_failed_sample() -> None:
    with pytest.raises(CapabilityError):
        Trial("tcp", PAIR, QUICK).failed(CapabilityError("`iperf3` is not installed"), {})


def test_udp_without_a_figure_of_tcp_has_nothing_to_offer() -> None:
    failed = Trial("tcp", PAIR, QUICK).failed(XlabError("no"), {"tcp_bits_per_second": "bit/s"})
    for earlier in ({}, {"tcp": failed}):
        found: Sampled = probe_udp(PAIR, dataclasses.replace(QUICK, earlier=earlier))
        assert [measured.metric for measured in found.measurements] == [
            "udp_bits_per_second", "udp_loss_ratio",
        ]  # fmt: skip
        assert "nothing to offer 90 % of" in found.measurements[0].detail["error"]
