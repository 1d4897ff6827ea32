"""What the conditions of links come to between two hosts, and whether that is plausible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xlab.errors import CapabilityError, XlabError
from xlab.lab.conditions import LinkConditions
from xlab.lab.node import Node
from xlab.probes import iperf
from xlab.probes.parse import Ping, mean_bits_per_second, parse_iperf, parse_ping


@dataclass(frozen=True, slots=True)
class Expected:
    """What the links of a path should come to, one behind the other."""

    #: From the shortest to the longest round trip of a small packet on an idle path.
    rtt_ms: tuple[float, float]
    #: Of packets, one way.
    loss_ratio: float
    rate_bits_per_second: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What conditions came to: for `record.Conditions.measured`, and what seems wrong about it."""

    #: rtt_ms, loss_ratio (one way) and rate_bits_per_second, as far as they were asked for.
    values: dict[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    #: Output of the tools, by name of the file it should go to.
    raw: dict[str, str] = field(default_factory=dict)


def measure(a: Node, b: Node, path: Sequence[LinkConditions], *, mtu: int = 1500) -> Measured:
    """What the conditions of the links from `a` to `b` come to, in 1 to 4 s: ping and iperf3.

    Only what was asked for is measured.  The path must be otherwise idle.  Values that are not
    plausible come with a doubt, in words; a value that could not be had is missing and doubted.
    Raises CapabilityError if a tool is not installed.
    """
    expected = expect(path)
    raw: dict[str, str] = {}
    values: dict[str, float] = {}
    missing: list[str] = []
    wants_rtt = any(link.delay_ms for link in path)
    wants_loss = expected.loss_ratio > 0
    pings = _pings_needed(expected.loss_ratio)
    if (wants_rtt or wants_loss) and expected.loss_ratio < 1:
        # The first packet waits for ARP, and ARP too can be lost: any answer within 5 s will do.
        a.run(["ping", "-n", "-c", "1", "-w", "5", str(b.address)], check=False)
        # Root in a user namespace may ping this fast; -W bounds the wait for a first answer.
        wait_s = max(1, math.ceil(2 * expected.rtt_ms[1] / 1e3))
        argv = ["ping", "-n", "-q", "-c", str(pings), "-i", "0.004", "-W", str(wait_s)]
        done = a.run([*argv, str(b.address)], check=False, timeout_s=pings * 0.1 + 10)
        raw["conditions-ping.txt"] = done.stdout + done.stderr
        try:
            ping = parse_ping(done.stdout)
        except XlabError:  # ended without a word on what it did
            ping = Ping(0, {}, 0)
        if ping.mean_ms is None:
            missing.append(f"none of {pings} pings from {a.name} to {b.name} was answered")
        elif wants_rtt:
            values["rtt_ms"] = ping.mean_ms
        if wants_loss and ping.transmitted:
            values["loss_ratio"] = round(1 - math.sqrt(ping.received / ping.transmitted), 6)
    if expected.rate_bits_per_second and expected.loss_ratio < 1:
        try:
            found, raw["conditions-iperf3.json"] = _measure_rate(a, b, expected, mtu=mtu)
            values["rate_bits_per_second"] = found
        except CapabilityError:
            raise
        except XlabError as error:
            missing.append(f"the rate could not be measured: {error}")
    return Measured(values, (*missing, *doubts(values, expected, pings=pings)), raw)


def expect(path: Sequence[LinkConditions]) -> Expected:
    """What links in a row come to: delays add, losses compound, the slowest rate is the path's."""
    delay_ms = sum(link.delay_ms or 0 for link in path)
    jitter_ms = sum(link.jitter_ms or 0 for link in path)
    rates = [link.rate_bits_per_second for link in path if link.rate_bits_per_second]
    # A ping is 98 bytes in Ethernet; each link takes its time to send them.
    sending_ms = sum(98 * 8e3 / rate for rate in rates)
    arrives = math.prod(1 - (link.loss_ratio or 0) for link in path)
    return Expected(
        rtt_ms=(
            2 * (delay_ms - jitter_ms),
            2 * (delay_ms + jitter_ms + sending_ms),
        ),
        loss_ratio=1 - arrives,
        rate_bits_per_second=min(rates, default=None),
    )


def doubts(values: Mapping[str, float], expected: Expected, *, pings: int) -> tuple[str, ...]:
    """What about measured values does not fit what was asked for, in words.

    Lower bounds are firm, upper ones generous: a busy machine adds to delays and takes from rates,
    but nothing makes packets come too early.
    """
    found = []
    lowest_ms, highest_ms = expected.rtt_ms
    rtt_ms = values.get("rtt_ms")
    if rtt_ms is not None and not lowest_ms * 0.99 <= rtt_ms <= highest_ms * 1.15 + 3:
        found.append(
            f"the round trip takes {rtt_ms:.2f} ms; the links' delays make "
            f"{lowest_ms:g} to {highest_ms:.4g} ms"
        )
    loss = values.get("loss_ratio")
    if loss is not None:
        # Four standard deviations of what so many round trips can show, one way.
        there_and_back = 1 - (1 - expected.loss_ratio) ** 2
        spread = 4 * math.sqrt(there_and_back * (1 - there_and_back) / pings) / 2 + 0.01
        if abs(loss - expected.loss_ratio) > spread:
            found.append(f"{loss:.2%} of packets are lost one way, not {expected.loss_ratio:.2%}")
    rate, asked = values.get("rate_bits_per_second"), expected.rate_bits_per_second
    if rate is not None and asked:
        if rate > 1.1 * asked:
            found.append(f"the rate is {rate / 1e6:.4g} Mbit/s, above {asked / 1e6:.4g}")
        if rate < 0.75 * asked:
            found.append(
                f"the rate reaches {rate / 1e6:.4g} of {asked / 1e6:.4g} Mbit/s: "
                "not the link but this machine, or TCP on it, is the limit"
            )
    return tuple(found)


def _pings_needed(loss_ratio: float) -> int:
    """Enough to see some ten losses, within 100 to 500; 25 without loss."""
    return min(500, max(100, math.ceil(5 / loss_ratio))) if loss_ratio else 25


#: Above this iperf3's UDP is limited by the machine; TCP hands over large segments.
_UDP_BITS_PER_SECOND = 200e6


#: What a lossy link may add to the setting up of iperf3: a lost SYN is sent again after 1 and 3 s.
_SET_UP_WITH_LOSS_S = 8.0


def _measure_rate(a: Node, b: Node, expected: Expected, *, mtu: int) -> tuple[float, str]:
    """Bits per second on the link, headers included, and the receiver's report.

    UDP is offered at a fifth above what is expected.  Raises XlabError where nothing arrives.
    """
    slowest, payload = expected.rate_bits_per_second or 0.0, min(mtu, 9000) - 28
    # TCP does not fill a link with loss, whatever its rate.
    udp = slowest <= _UDP_BITS_PER_SECOND or expected.loss_ratio > 0
    offered = f"{1.2 * slowest:.0f}"
    run = iperf.run(
        a,
        b,
        *(("-u", "-b", offered, "-l", str(payload)) if udp else ("-P", "2")),
        seconds=1.0,
        set_up_s=iperf.SET_UP_ROUND_TRIPS * expected.rtt_ms[1] / 1e3
        + (_SET_UP_WITH_LOSS_S if expected.loss_ratio else 0.0),
        connected=1 if udp else 3,
        keep=lambda *_: None,
    )
    received = mean_bits_per_second(parse_iperf(run.client, run.server).intervals)
    if not received:
        raise XlabError("nothing arrived")
    # Headers: Ethernet 14, IPv4 20, UDP 8 or TCP 20 with 12 of timestamps.
    rate = received * (payload + 42) / payload if udp else received * (mtu + 14) / (mtu - 52)
    return rate, run.server
