"""Throughput: iperf3 over TCP and UDP, and the CPU time that TCP costs.

What counts is what the receiver got, in intervals of 0.1 s.  A path that takes the small packets of
the set-up and swallows the large ones (an MTU too large for a tunnel) ends as a failed sample in
bounded time, never as a zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlab.errors import XlabError
from xlab.probes import iperf
from xlab.probes.cpu import Usage
from xlab.probes.facts import Pair, Plan, Sampled, Trial, two_cores
from xlab.probes.kinds import Kind, probe
from xlab.probes.latency import first_contact
from xlab.probes.parse import (
    Interval,
    Iperf,
    mean_bits_per_second,
    parse_iperf,
    widened,
    without_start,
)
from xlab.record.record import Measurement

#: UDP is offered at this part of what TCP reached.
UDP_SHARE = 0.9
#: IPv4 and UDP headers; iperf3 takes no more than a datagram can hold.
_UDP_HEADERS_BYTES, _LARGEST_DATAGRAM_BYTES = 28, 65507


@dataclass(frozen=True, slots=True)
class Transfer:
    """One run of iperf3: what it did, what came of it, and what it cost."""

    report: Iperf
    #: The receiver's intervals that count.
    intervals: tuple[Interval, ...]
    usage: Usage
    detail: dict[str, object]


@probe(
    Kind.USUAL,
    "tcp",
    "throughput of one TCP stream, and the CPU time it costs",
    place=3,
    compared=True,
    doing="TCP, one stream",
    takes=lambda plan: plan.duration_s,
)
def probe_tcp(pair: Pair, plan: Plan) -> Sampled:
    """One stream, and the CPU time it costs beyond that of the idle window."""
    trial = Trial("tcp", pair, plan)
    try:
        transfer = run_iperf(trial, plan.duration_s)
    except XlabError as error:
        return trial.failed(
            error, {"tcp_bits_per_second": "bit/s", "cpu_seconds_per_gigabyte": "s/GB"}
        )
    return Sampled((tcp_rate(trial, transfer), cpu_cost(trial, transfer)), trial.raw)


@probe(
    Kind.USUAL,
    "tcp-parallel",
    "throughput of several TCP streams together (--streams, 4)",
    place=4,
    doing="TCP, several streams",
    takes=lambda plan: plan.tcp_parallel_s,
)
def probe_tcp_parallel(pair: Pair, plan: Plan) -> Sampled:
    """Several streams at once; the rates are those of all together."""
    trial = Trial("tcp-parallel", pair, plan, streams=plan.parallel_streams)
    return streams_together(trial, plan.tcp_parallel_s)


def streams_together(trial: Trial, seconds: float) -> Sampled:
    """As many TCP streams as the trial has."""
    try:
        transfer = run_iperf(trial, seconds, "-P", str(trial.streams))
    except XlabError as error:
        return trial.failed(error, {"tcp_bits_per_second": "bit/s"})
    return Sampled((tcp_rate(trial, transfer),), trial.raw)


@probe(
    Kind.USUAL,
    "udp",
    "what arrives, and is lost, of 90 % of that in UDP",
    place=5,
    after="tcp",
    not_virtual="sender and receiver take turns on one processor: a rate offered is not one sent",
    doing="UDP",
    takes=lambda plan: plan.udp_s,
)
def probe_udp(pair: Pair, plan: Plan) -> Sampled:
    """Datagrams that fit the path, offered at 90 % of what TCP reached between the same two."""
    trial = Trial("udp", pair, plan)
    try:
        tcp = plan.earlier.get("tcp")
        tcp_bits_per_second = tcp.measurements[0].median if tcp else None
        if not tcp_bits_per_second:
            raise XlabError("nothing to offer 90 % of: TCP gave no figure in this round")
        length = min(pair.path_mtu - _UDP_HEADERS_BYTES, _LARGEST_DATAGRAM_BYTES)
        offered = round(UDP_SHARE * tcp_bits_per_second)
        transfer = run_iperf(trial, plan.udp_s, "-u", "-b", str(offered), "-l", str(length))
    except XlabError as error:
        return trial.failed(error, {"udp_bits_per_second": "bit/s", "udp_loss_ratio": "ratio"})
    intervals = transfer.intervals
    lost, packets = sum(i.lost for i in intervals), sum(i.packets for i in intervals)
    detail = {
        **transfer.detail,
        "datagram_bytes": length,
        "offered_bits_per_second": offered,
        # What one processor could send of it.
        "sent_bits_per_second": transfer.report.sent_bits_per_second,
        "lost_packets": lost,
        "packets": packets,
    }
    rate = trial.measurement(
        "udp_bits_per_second", "bit/s", [i.bits_per_second for i in intervals], detail=detail
    )
    loss = (
        trial.measurement("udp_loss_ratio", "ratio", [lost / packets], detail=detail)
        if packets
        else trial.failure("udp_loss_ratio", "ratio", "no datagram was counted", **detail)
    )
    return Sampled((rate, loss), trial.raw)


def tcp_rate(trial: Trial, transfer: Transfer) -> Measurement:
    return trial.measurement(
        "tcp_bits_per_second",
        "bit/s",
        [mean_bits_per_second(transfer.intervals)]
        if trial.plan.virtual
        else [i.bits_per_second for i in transfer.intervals],
        detail={
            **transfer.detail,
            "retransmits": transfer.report.retransmits,
            "mean_rtt_ms": transfer.report.mean_rtt_ms,
            "congestion_control": transfer.report.congestion_control,
        },
    )


def cpu_cost(trial: Trial, transfer: Transfer) -> Measurement:
    """Busy time of the whole machine for each 10^9 bytes that arrived, beyond its idle load."""
    usage, idle = transfer.usage, trial.plan.idle
    gigabytes = transfer.report.received_bytes / 1e9
    idle_s = idle.busy_share * usage.elapsed_s
    detail = {
        "tool": "/proc/stat",
        "busy_s": usage.busy_s,
        "idle_busy_s": idle_s,
        "idle_window_s": idle.elapsed_s,
        "elapsed_s": usage.elapsed_s,
        "received_bytes": transfer.report.received_bytes,
        "daemon_cpu_seconds_per_gigabyte": {
            name: seconds / gigabytes for name, seconds in usage.daemons_s.items()
        },
    }
    if usage.busy_s <= idle_s:
        reason = "the machine was no busier than when left alone"
        return trial.failure("cpu_seconds_per_gigabyte", "s/GB", reason, **detail)
    cost = (usage.busy_s - idle_s) / gigabytes
    return trial.measurement("cpu_seconds_per_gigabyte", "s/GB", [cost], detail=detail)


def run_iperf(trial: Trial, seconds: float, *options: str) -> Transfer:
    """One run; raises XlabError if nothing that counts arrived."""
    pair = trial.pair
    round_trip_s = first_contact(pair) or 0.0
    cores = two_cores(trial.streams)
    run = iperf.run(
        pair.source,
        pair.target,
        *options,
        *(("-A", cores) if cores else ()),
        seconds=seconds,
        set_up_s=iperf.SET_UP_ROUND_TRIPS * round_trip_s,
        # Of UDP's streams nobody sees whether they stand: there is the one that controls them.
        connected=1 if "-u" in options else 1 + trial.streams,
        keep=trial.keep,
        daemon_pids=trial.plan.daemon_pids,
    )
    report = parse_iperf(run.client, run.server)
    omit_s = omitted_s(seconds, round_trip_s)
    counted = without_start(report.intervals, omit_s=omit_s, interval_s=iperf.INTERVAL_S)
    intervals = widened(counted)
    if not any(i.bytes for i in intervals):
        raise XlabError(
            f"iperf3: the small packets of the set-up arrived, but no data after the first "
            f"{omit_s:g} s; do full-size packets get through?"
        )
    return Transfer(
        report,
        intervals,
        run.usage,
        {
            "tool": f"iperf3 {report.version}",
            "command": run.command,
            "omitted_s": omit_s,
            "interval_s": round(intervals[0].seconds, 3),
            "cores": cores or "not pinned",
            "mean_bits_per_second": mean_bits_per_second(counted),
            "received_bytes": report.received_bytes,
        },
    )


def omitted_s(seconds: float, round_trip_s: float) -> float:
    """How much of the beginning does not count: slow start, flow set-up, filling of buffers.

    A fifth, ten round trips where those are more, but never more than half.
    """
    return round(max(iperf.INTERVAL_S, min(seconds / 2, max(seconds / 5, 10 * round_trip_s))), 1)
