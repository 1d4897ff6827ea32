"""Throughput as something is varied: the size of messages, the number of flows, the least packet.

A path that costs so much a packet and so much a byte is told from one transfer alone no more than a
line from one point: small messages show the one, large ones the other.
"""

from __future__ import annotations

import dataclasses

from xlab.errors import XlabError
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Kind, probe
from xlab.probes.throughput import run_iperf, streams_together, tcp_rate

MESSAGE_BYTES = (64, 512, 1400, 8192, 65536)
FLOWS = (1, 2, 4, 8)
#: UDP payload of an Ethernet frame of 64 bytes, the least there is: 14 and 4 of Ethernet, 20 of
#: IPv4, 8 of UDP (RFC 2544, 9.1).
SMALL_PAYLOAD_BYTES = 18
#: With less than this lost, more could have been sent.
_SENDER_LIMITED_LOSS = 0.01


def message_metric(size: int) -> str:
    """The name of the throughput with messages of so many bytes."""
    return f"tcp_{size}_byte_messages_bits_per_second"


@probe(
    Kind.BETWEEN_TWO,
    "message-sizes",
    "throughput against the size of messages, 64 bytes to 64 KiB",
    place=4,
    takes=lambda plan: len(MESSAGE_BYTES) * plan.varied_s,
)
def probe_message_sizes(pair: Pair, plan: Plan) -> Sampled:
    """One TCP stream for each size, TCP_NODELAY: a message is written, and sent, by itself.

    Still not one packet each: what does not fit is cut, and while the link is busy the kernel joins
    small ones (tcp_autocorking).
    """
    return _together([_messages(pair, plan, size) for size in MESSAGE_BYTES])


def _messages(pair: Pair, plan: Plan, size: int) -> Sampled:
    trial = Trial("message-sizes", pair, plan, variant=f"{size}")
    metric = message_metric(size)
    try:
        transfer = run_iperf(trial, plan.varied_s, "-N", "-l", str(size))
    except XlabError as error:
        return trial.failed(error, {metric: "bit/s"}, message_bytes=size)
    rate = tcp_rate(trial, transfer)
    detail = {**rate.detail, "message_bytes": size}
    return Sampled((dataclasses.replace(rate, metric=metric, detail=detail),), trial.raw)


@probe(
    Kind.BETWEEN_TWO,
    "flows",
    "throughput against the number of TCP streams, 1 to 8",
    place=5,
    takes=lambda plan: len(FLOWS) * plan.varied_s,
)
def probe_flows(pair: Pair, plan: Plan) -> Sampled:
    """1, 2, 4 and 8 TCP streams at once; each rate is that of all together."""
    trials = (Trial("flows", pair, plan, streams=number, variant=f"{number}") for number in FLOWS)
    return _together([streams_together(trial, plan.varied_s) for trial in trials])


@probe(
    Kind.BETWEEN_TWO,
    "small-packets",
    "the smallest UDP packets that arrive in a second",
    place=3,
    takes=lambda plan: plan.varied_s,
)
def probe_small_packets(pair: Pair, plan: Plan) -> Sampled:
    """The least UDP datagrams that fill an Ethernet frame, as many as one process can send.

    What counts is what arrives.  Where next to nothing was lost, the path could have carried more
    than the sender made: `sender_limited` in the detail.
    """
    trial = Trial("small-packets", pair, plan)
    try:
        # -b 0: as fast as it can.
        transfer = run_iperf(trial, plan.varied_s, "-u", "-b", "0", "-l", str(SMALL_PAYLOAD_BYTES))
    except XlabError as error:
        return trial.failed(error, {"udp_packets_per_second": "packet/s"})
    intervals = transfer.intervals
    lost, packets = sum(i.lost for i in intervals), sum(i.packets for i in intervals)
    loss_ratio = lost / packets if packets else None
    measurement = trial.measurement(
        "udp_packets_per_second",
        "packet/s",
        [i.bytes / SMALL_PAYLOAD_BYTES / i.seconds for i in intervals],
        detail={
            **transfer.detail,
            "payload_bytes": SMALL_PAYLOAD_BYTES,
            "sent_packets_per_second": transfer.report.sent_bits_per_second
            / 8
            / SMALL_PAYLOAD_BYTES,
            "loss_ratio": loss_ratio,
            "sender_limited": loss_ratio is not None and loss_ratio < _SENDER_LIMITED_LOSS,
        },
    )
    return Sampled((measurement,), trial.raw)


def _together(found: list[Sampled]) -> Sampled:
    raw = {name: content for sampled in found for name, content in sampled.raw.items()}
    return Sampled(tuple(m for sampled in found for m in sampled.measurements), raw)
