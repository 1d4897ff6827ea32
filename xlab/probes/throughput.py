"""Throughput: iperf3 over TCP and UDP, and the CPU time that TCP costs.

What counts is what the receiver got, in intervals of 0.1 s.  A path that takes the small packets of
the set-up and swallows the large ones (an MTU too large for a tunnel) ends as a failed sample in
bounded time, never as a zero.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from xlab.errors import CommandError, XlabError
from xlab.kernel.processes import Process, command_line, wait_until
from xlab.probes.cpu import Usage, start_measuring
from xlab.probes.facts import Pair, Plan, Sampled, Trial, two_cores
from xlab.probes.latency import first_contact, raise_if_incapable, until_listening
from xlab.probes.parse import (
    Interval,
    Iperf,
    connections,
    parse_iperf,
    widened,
    without_start,
)
from xlab.record.record import Measurement

INTERVAL_S = 0.1
#: UDP is offered at this part of what TCP reached.
UDP_SHARE = 0.9
IPERF_PORT = 5201
#: iperf3 needs no longer than so many round trips before data flows.
SET_UP_ROUND_TRIPS = 12
#: How late a tool may be on a busy machine, in what it does by itself and when told to end.
TARDINESS_S = 5.0
#: IPv4 and UDP headers; iperf3 takes no more than a datagram can hold.
_UDP_HEADERS_BYTES, _LARGEST_DATAGRAM_BYTES = 28, 65507


@dataclass(frozen=True, slots=True)
class Transfer:
    """One run of iperf3: what it did, what came of it, and what it cost."""

    iperf: Iperf
    #: The receiver's intervals that count.
    intervals: tuple[Interval, ...]
    usage: Usage
    detail: dict[str, object]


def probe_tcp(pair: Pair, plan: Plan, idle: Usage) -> Sampled:
    """One stream, and the CPU time it costs beyond that of the `idle` window."""
    trial = Trial("tcp", pair, plan)
    try:
        transfer = run_iperf(trial, plan.tcp_s)
    except XlabError as error:
        raise_if_incapable(error)
        return Sampled(
            (
                trial.failure("tcp_bits_per_second", "bit/s", str(error)),
                trial.failure("cpu_seconds_per_gigabyte", "s/GB", str(error)),
            ),
            trial.raw,
        )
    return Sampled((tcp_rate(trial, transfer), cpu_cost(trial, transfer, idle)), trial.raw)


def probe_tcp_parallel(pair: Pair, plan: Plan) -> Sampled:
    """Several streams at once; the rates are those of all together."""
    trial = Trial("tcp-parallel", pair, plan, streams=plan.parallel_streams)
    try:
        transfer = run_iperf(trial, plan.tcp_parallel_s, "-P", str(plan.parallel_streams))
    except XlabError as error:
        raise_if_incapable(error)
        return trial.failed("tcp_bits_per_second", "bit/s", error)
    return Sampled((tcp_rate(trial, transfer),), trial.raw)


def probe_udp(pair: Pair, plan: Plan, tcp_bits_per_second: float | None) -> Sampled:
    """Datagrams that fit the path, offered at 90 % of what TCP reached between the same two."""
    trial = Trial("udp", pair, plan)
    try:
        if not tcp_bits_per_second:
            raise XlabError("nothing to offer 90 % of: TCP gave no figure in this round")
        length = min(pair.path_mtu - _UDP_HEADERS_BYTES, _LARGEST_DATAGRAM_BYTES)
        offered = round(UDP_SHARE * tcp_bits_per_second)
        transfer = run_iperf(trial, plan.udp_s, "-u", "-b", str(offered), "-l", str(length))
    except XlabError as error:
        raise_if_incapable(error)
        return Sampled(
            (
                trial.failure("udp_bits_per_second", "bit/s", str(error)),
                trial.failure("udp_loss_ratio", "ratio", str(error)),
            ),
            trial.raw,
        )
    intervals = transfer.intervals
    lost, packets = sum(i.lost for i in intervals), sum(i.packets for i in intervals)
    detail = {
        **transfer.detail,
        "datagram_bytes": length,
        "offered_bits_per_second": offered,
        # What one processor could send of it.
        "sent_bits_per_second": transfer.iperf.sent_bits_per_second,
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
        [i.bits_per_second for i in transfer.intervals],
        detail={
            **transfer.detail,
            "retransmits": transfer.iperf.retransmits,
            "mean_rtt_ms": transfer.iperf.mean_rtt_ms,
            "congestion_control": transfer.iperf.congestion_control,
        },
    )


def cpu_cost(trial: Trial, transfer: Transfer, idle: Usage) -> Measurement:
    """Busy time of the whole machine for each 10^9 bytes that arrived, beyond its idle load."""
    usage, gigabytes = transfer.usage, transfer.iperf.received_bytes / 1e9
    idle_s = idle.busy_share * usage.elapsed_s
    detail = {
        "tool": "/proc/stat",
        "busy_s": usage.busy_s,
        "idle_busy_s": idle_s,
        "idle_window_s": idle.elapsed_s,
        "elapsed_s": usage.elapsed_s,
        "received_bytes": transfer.iperf.received_bytes,
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
    set_up_s = SET_UP_ROUND_TRIPS * round_trip_s
    cores = two_cores(trial.streams)
    argv = [
        "iperf3", "-4", "-c", str(pair.target.address), "--json", "-i", f"{INTERVAL_S:g}",
        "-t", str(ceil(seconds)), "--connect-timeout", str(round(1000 * (2 + set_up_s))),
        *options, *(("-A", cores) if cores else ()),
    ]  # fmt: skip
    with pair.target.start(
        ["iperf3", "-4", "-s", "-1", "--json", "-i", f"{INTERVAL_S:g}"]
    ) as server:
        until_listening(server, IPERF_PORT)
        end_window = start_measuring(trial.plan.daemon_pids)
        with pair.source.start(argv) as client:
            # Of UDP's streams nobody sees whether they stand: there is the one that controls them.
            number = 1 if "-u" in options else 1 + trial.streams
            await_connections(client, server, number, set_up_s)
            # iperf3 counts whole seconds; it is told to stop earlier.
            late_s = 0.0 if seconds < ceil(seconds) else TARDINESS_S
            let_end(client, after_s=set_up_s + seconds + late_s)
            usage = end_window()
        # A client that failed leaves behind a server that would wait for another.
        let_end(server, after_s=set_up_s + (0.5 if client.poll() else TARDINESS_S))
        trial.keep("client.json", client.stdout())
        trial.keep("server.json", server.stdout())
        if not client.stdout().strip():
            raise XlabError(f"iperf3 client: {client.stderr_tail().strip() or 'no output'}")
        iperf = parse_iperf(client.stdout(), server.stdout())
    omit_s = omitted_s(seconds, round_trip_s)
    counted = without_start(iperf.intervals, omit_s=omit_s, interval_s=INTERVAL_S)
    intervals = widened(counted)
    if not any(i.bytes for i in intervals):
        raise XlabError(
            f"iperf3: the small packets of the set-up arrived, but no data after the first "
            f"{omit_s:g} s; do full-size packets get through?"
        )
    return Transfer(
        iperf,
        intervals,
        usage,
        {
            "tool": f"iperf3 {iperf.version}",
            "command": command_line(argv),
            "omitted_s": omit_s,
            "interval_s": round(intervals[0].seconds, 3),
            "cores": cores or "not pinned",
            "mean_bits_per_second": sum(i.bytes for i in counted)
            * 8
            / sum(i.seconds for i in counted),
            "received_bytes": iperf.received_bytes,
        },
    )


def await_connections(client: Process, server: Process, number: int, set_up_s: float) -> None:
    """Until so many connections to iperf3's server stand, or its client has given up."""
    table = Path(f"/proc/{server.pid}/net/tcp")

    def stand() -> bool:
        try:
            return connections(table.read_text(encoding="ascii"), IPERF_PORT) >= number
        except OSError:  # the server has ended
            return False

    wait_until(
        lambda: client.poll() is not None or stand(),
        timeout_s=2 * TARDINESS_S + 2 * set_up_s,
        awaited=f"{number} connections of iperf3",
    )


def let_end(process: Process, *, after_s: float) -> None:
    """Give a process time to end by itself, then ask it to; iperf3 then says what it knows.

    One that does not even do that is killed where its context ends.
    """
    try:
        process.wait(after_s)
    except CommandError:
        process.signal(signal.SIGTERM)
        try:
            process.wait(TARDINESS_S)
        except CommandError:
            pass


def omitted_s(seconds: float, round_trip_s: float) -> float:
    """How much of the beginning does not count: slow start, flow set-up, filling of buffers.

    A fifth, ten round trips where those are more, but never more than half.
    """
    return round(max(INTERVAL_S, min(seconds / 2, max(seconds / 5, 10 * round_trip_s))), 1)
