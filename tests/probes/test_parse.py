"""Parsers against captured output of the real tools, and against damaged copies of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fuzzing import attempt
from xlab.errors import XlabError
from xlab.probes import parse
from xlab.probes.parse import Interval, Iperf, RequestResponse

DATA = Path(__file__).parents[1] / "data" / "probes"


def captured(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def iperf(name: str) -> Iperf:
    return parse.parse_iperf(captured(f"{name}-client.json"), captured(f"{name}-server.json"))


# ------------------------------------------------------------------------------------------- ping


def test_ping() -> None:
    ping = parse.parse_ping(captured("rtt-ping.txt"))
    assert ping.transmitted == 21
    assert sorted(ping.replies_ms) == list(range(1, 22))
    low, mean, high = (
        float(figure) for figure in captured("rtt-ping.txt").rpartition(" = ")[2].split("/")[:3]
    )
    assert (min(ping.replies_ms.values()), max(ping.replies_ms.values())) == (low, high)
    assert sum(ping.replies_ms.values()) / 21 == pytest.approx(mean, abs=0.001)
    assert ping.duplicates == 0


def test_ping_keeps_the_first_of_duplicate_replies() -> None:
    ping = parse.parse_ping(captured("rtt-duplicates-ping.txt"))
    assert ping.replies_ms == {1: 0.245, 2: 0.062, 3: 0.069, 4: 0.063}
    assert ping.duplicates == 3


def test_ping_without_a_reply_is_a_fact() -> None:
    ping = parse.parse_ping(captured("rtt-unreachable-ping.txt"))
    assert (ping.transmitted, ping.replies_ms) == (4, {})


def test_ping_that_was_interrupted_says_how_many_it_sent() -> None:
    ping = parse.parse_ping(captured("rtt-interrupted-ping.txt"))
    assert ping.transmitted == len(ping.replies_ms) == 8


def test_ping_without_a_route_is_an_error_that_says_so() -> None:
    with pytest.raises(XlabError, match="connect: Network is unreachable"):
        parse.parse_ping(captured("rtt-no-route-ping.txt"))


def test_ping_with_the_time_of_day() -> None:
    text = captured("rtt-stamped-ping.txt")
    ping = parse.parse_ping(text)
    assert ping.transmitted == len(ping.replies_ms) == len(ping.received_at) == 134
    assert (ping.received_at[1], ping.replies_ms[1]) == (1795557825.322004, 0.061)
    assert parse.parse_ping(captured("rtt-ping.txt")).received_at == {}


def test_ping_of_slow_paths_prints_fewer_digits() -> None:
    line = "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=201 ms"
    assert parse.parse_ping(f"{line}\n1 packets transmitted, 1 received,").replies_ms == {1: 201.0}


#: iputils 20240905, `ping -n -q -c 100 -i 0.004`, through two links with a loss of 1 % each.
QUIET = """PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.

--- 10.0.0.2 ping statistics ---
100 packets transmitted, 96 received, 4% packet loss, time 1475ms
rtt min/avg/max/mdev = 17.056/20.250/23.973/1.719 ms, pipe 3
"""


def test_a_quiet_ping_tells_what_its_summary_does() -> None:
    ping = parse.parse_ping(QUIET)
    assert (ping.transmitted, ping.received, ping.mean_ms) == (100, 96, 20.25)
    silent = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2031ms\n"
    ping = parse.parse_ping(silent)
    assert (ping.transmitted, ping.received, ping.mean_ms) == (3, 0, None)


# ----------------------------------------------------------------------------------------- iperf3


@pytest.mark.parametrize(("name", "streams"), [("tcp", 1), ("tcp-4", 4)])
def test_tcp(name: str, streams: int) -> None:
    result = iperf(name)
    server = json.loads(captured(f"{name}-server.json"))
    client = json.loads(captured(f"{name}-client.json"))
    assert len(client["start"]["connected"]) == streams
    assert result.version == "3.18"
    assert len(result.intervals) >= 10
    assert result.received_bytes == server["end"]["sum_received"]["bytes"]
    assert sum(i.bytes for i in result.intervals) == pytest.approx(result.received_bytes, rel=0.01)
    for interval, entry in zip(result.intervals, server["intervals"], strict=True):
        assert interval.bits_per_second == pytest.approx(entry["sum"]["bits_per_second"])
    assert result.retransmits == client["end"]["sum_sent"]["retransmits"]
    rtts = [stream["sender"]["mean_rtt"] for stream in client["end"]["streams"]]
    assert result.mean_rtt_ms == pytest.approx(sum(rtts) / streams / 1000)
    assert result.congestion_control == "bbr"


def test_both_ways_at_once() -> None:
    """Each rate is that of the end which received: the totals of both reports, within a tenth."""
    forward, backward = parse.parse_bidirectional(
        captured("bidir-client.json"), captured("bidir-server.json")
    )
    end = json.loads(captured("bidir-client.json"))["end"]
    assert forward == pytest.approx(end["sum_received"]["bits_per_second"], rel=0.1)
    assert backward == pytest.approx(end["sum_received_bidir_reverse"]["bits_per_second"], rel=0.1)
    assert forward != pytest.approx(backward, rel=0.1)


def test_both_ways_of_a_transfer_in_one_direction() -> None:
    with pytest.raises(XlabError, match="sum_bidir_reverse"):
        parse.parse_bidirectional(captured("tcp-client.json"), captured("tcp-server.json"))


def test_udp_reports_what_the_receiver_got() -> None:
    """Offered at 0.9 Gbit/s; two percent of it found the receiver's buffer full."""
    result = iperf("udp")
    assert result.sent_bits_per_second == pytest.approx(0.9e9, rel=0.01)
    received = sum(i.bytes for i in result.intervals) * 8 / sum(i.seconds for i in result.intervals)
    assert received == pytest.approx(0.88e9, rel=0.01)
    assert (result.retransmits, result.mean_rtt_ms, result.congestion_control) == (None,) * 3


@pytest.mark.parametrize("name", ["udp", "udp-lossy"])
def test_udp_loss(name: str) -> None:
    result = iperf(name)
    lost, packets = (
        sum(getattr(i, name) for i in result.intervals) for name in ("lost", "packets")
    )
    summed = json.loads(captured(f"{name}-server.json"))["end"]["sum"]
    assert lost > 0
    assert (lost, packets) == (summed["lost_packets"], summed["packets"])
    # Its two counters are read a few datagrams apart.
    received = sum(i.bytes for i in result.intervals)
    assert received == pytest.approx((packets - lost) * 1472, rel=1e-3)


def test_small_datagrams_are_counted_by_their_bytes() -> None:
    """18 bytes each; iperf3 counts those that should have come, lost ones among them."""
    result = iperf("udp-small")
    received = sum(i.packets - i.lost for i in result.intervals)
    assert sum(i.bytes for i in result.intervals) == pytest.approx(18 * received, rel=0.01)


@pytest.mark.parametrize("name", ["tcp-4-stopped", "udp-stopped"])
def test_a_transfer_told_to_stop_counts_no_interval_twice(name: str) -> None:
    """iperf3's server repeats its last interval when its client is stopped."""
    repeated = json.loads(captured(f"{name}-server.json"))["intervals"]
    assert repeated[-1]["sum"]["start"] == repeated[-2]["sum"]["start"]
    result = iperf(name)
    starts = [i.start_s for i in result.intervals]
    assert starts == sorted(set(starts))
    assert len(starts) == len(repeated) - 1
    assert result.received_bytes >= sum(i.bytes for i in result.intervals)


@pytest.mark.parametrize("name", ["tcp-black-hole", "udp-black-hole"])
def test_a_black_hole_is_a_fact(name: str) -> None:
    result = iperf(name)
    assert result.received_bytes == 0
    assert len(result.intervals) >= 3
    assert all(i.bits_per_second == 0 for i in result.intervals)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tcp-refused", "unable to connect to server.*Connection refused"),
        ("tcp-dead", "unable to connect to server.*Connection timed out"),
        ("tcp-dead-stopped", "told to stop before it was connected"),
        ("udp-dead-stopped", "told to stop before it was connected"),
    ],
)
def test_a_client_without_a_connection_says_why(name: str, reason: str) -> None:
    with pytest.raises(XlabError, match=reason):
        parse.parse_iperf(captured(f"{name}-client.json"), captured("tcp-dead-server.json"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "iperf3 client: no output"),
        ("iperf3: command not found", "is not JSON"),
        ("[]", "is not an object: '\\[\\]'"),
        ('{"start": {"connected": [1]}, "intervals": [], "error": "odd"}', "odd"),
        ('{"start": {}, "intervals": []}', "no list 'connected'"),
        ('{"intervals": []}', "no object 'start'"),
        ('{"end": NaN}', "NaN is no figure"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_not_iperf3s_output_is_named(text: str, reason: str) -> None:
    with pytest.raises(XlabError, match=reason):
        parse.parse_iperf(text, captured("tcp-server.json"))


def interval(start_s: float, size: int, seconds: float = 0.1) -> Interval:
    return Interval(start_s, seconds, size, lost=1, packets=2)


def test_the_beginning_and_a_short_last_piece_are_left_out() -> None:
    intervals = [interval(s, 10) for s in (0.0, 0.1, 0.199996, 0.3)] + [interval(0.4, 9, 0.01)]
    kept = parse.without_start(intervals, omit_s=0.2, interval_s=0.1)
    assert [i.start_s for i in kept] == [0.199996, 0.3]


def test_intervals_too_short_for_the_rate_are_merged() -> None:
    """A packet every 250 ms: in most intervals of 100 ms there is none."""
    sizes = [1500, 0, 0, 1500, 0, 1500, 0, 0, 1500, 0, 0]
    merged = parse.widened(tuple(interval(i / 10, size) for i, size in enumerate(sizes)))
    assert [(i.start_s, i.bytes) for i in merged] == [
        (0.0, 1500), (0.2, 1500), (0.4, 1500), (0.6, 0), (0.8, 1500),
    ]  # fmt: skip
    assert [round(i.seconds, 3) for i in merged] == [0.2, 0.2, 0.2, 0.2, 0.3]
    assert sum(i.packets for i in merged) == 2 * len(sizes)
    full = tuple(interval(i / 10, 1500) for i in range(5))
    assert parse.widened(full) == full


@given(st.lists(st.integers(0, 3), max_size=50))
def test_merging_loses_nothing_and_ends(sizes: list[int]) -> None:
    intervals = tuple(interval(i / 10, size) for i, size in enumerate(sizes))
    merged = parse.widened(intervals)
    assert sum(i.bytes for i in merged) == sum(sizes)
    assert sum(i.seconds for i in merged) == pytest.approx(len(sizes) / 10)
    assert len(merged) <= 1 or 2 * sum(i.bytes == 0 for i in merged) < len(merged)


# ---------------------------------------------------------------------------------------- netperf


@pytest.mark.parametrize("name", ["rr", "rr-counted"])
def test_netperf(name: str) -> None:
    text = captured(f"{name}-netperf.txt")
    result = parse.parse_netperf(text)
    assert len(result.interval_means_ms) == text.count("NETPERF_INTERIM_RESULT") >= 4
    mean_ms, *percentiles = result.latencies.values()
    assert percentiles == sorted(percentiles)
    assert mean_ms == pytest.approx(1000 / result.transactions_per_second, rel=0.1)
    means = result.interval_means_ms
    assert sum(means) / len(means) == pytest.approx(mean_ms, rel=0.3)


def test_netperf_of_connections() -> None:
    """TCP_CRR prints the same figures, of connections."""
    text = captured("connections-netperf.txt")
    result = parse.parse_netperf(text)
    assert len(result.interval_means_ms) == text.count("NETPERF_INTERIM_RESULT") >= 3
    rates = [1000 / ms for ms in result.interval_means_ms]
    assert min(rates) <= result.transactions_per_second <= max(rates)


def test_netperf_that_cannot_connect() -> None:
    with pytest.raises(XlabError, match="no MEAN_LATENCY in its output: 'establish control"):
        parse.parse_netperf(captured("rr-refused-netperf.txt"))


def test_netperf_figures_must_be_figures() -> None:
    text = captured("rr-netperf.txt").replace("P99_LATENCY=", "P99_LATENCY=inf")
    with pytest.raises(XlabError, match="netperf"):
        parse.parse_netperf(text)


# ------------------------------------------------------------------------------------------ /proc


def test_busy_time_of_the_machine() -> None:
    """user 35001, nice 0, system 19468, irq 0, softirq 9901 in ticks of 10 ms."""
    assert captured("stat.txt").startswith("cpu  35001 0 19468 588006 1632 0 9901 14 0 0\n")
    assert parse.parse_busy_s(captured("stat.txt")) == pytest.approx(643.70)


def test_time_of_a_process() -> None:
    assert parse.parse_process_s(captured("process-stat.txt")) == ("netserver", 0.0)
    odd_name = "7 (a) b (c) S 1 7 7 0 -1 4194304 84 0 0 0 150 25 0 0 20 0"
    assert parse.parse_process_s(odd_name) == ("a) b (c", 1.75)


def test_a_listening_port() -> None:
    """12865 listens; 5201 has connections in TIME_WAIT alone."""
    table = captured("net-tcp.txt")
    assert parse.listens(table, 12865)
    assert f":{5201:04X}" in table
    assert not parse.listens(table, 5201)
    assert not parse.listens("", 12865)
    assert parse.listening(table, 12865) == {"socket:[424036]"}
    assert not parse.listening(table, 5201)


def test_connections_that_stand() -> None:
    """One to control the test and four streams; what listens is none, nor is TIME_WAIT."""
    assert parse.connections(captured("net-tcp-streams.txt"), 5201) == 5
    assert parse.connections(captured("net-tcp-streams.txt"), 12865) == 0
    assert parse.connections(captured("net-tcp.txt"), 5201) == 0


@pytest.mark.parametrize("text", ["", "cpu0 1 2 3 4 5 6 7", "cpu 1 2 x 4 5 6 7", "cpu 1 2"])
def test_no_busy_time(text: str) -> None:
    with pytest.raises(XlabError, match="/proc/stat"):
        parse.parse_busy_s(text)


@pytest.mark.parametrize("text", ["", "7 (a S 1", "7 (a) S 1 2", f"7 (a) S {'x ' * 20}"])
def test_no_time_of_a_process(text: str) -> None:
    with pytest.raises(XlabError, match="/proc/PID/stat"):
        parse.parse_process_s(text)


# -------------------------------------------------------------------------------------- any output

PARSERS: list[tuple[Callable[[str], Any], str]] = [
    (parse.parse_ping, "rtt-ping.txt"),
    (parse.parse_netperf, "rr-netperf.txt"),
    (parse.parse_netperf, "connections-netperf.txt"),
    (parse.parse_busy_s, "stat.txt"),
    (parse.parse_process_s, "process-stat.txt"),
    (parse.parse_ping, "rtt-stamped-ping.txt"),
    (lambda text: parse.listens(text, 5201), "net-tcp.txt"),
    (lambda text: parse.listening(text, 12865), "net-tcp.txt"),
    (lambda text: parse.connections(text, 5201), "net-tcp-streams.txt"),
    (
        lambda text: parse.parse_bidirectional(text, captured("bidir-server.json")),
        "bidir-client.json",
    ),
    (
        lambda text: parse.parse_bidirectional(captured("bidir-client.json"), text),
        "bidir-server.json",
    ),
    (lambda text: parse.parse_iperf(text, captured("tcp-server.json")), "tcp-client.json"),
    (lambda text: parse.parse_iperf(captured("tcp-client.json"), text), "tcp-server.json"),
    (lambda text: parse.parse_iperf(captured("udp-client.json"), text), "udp-server.json"),
]


def check_parses_or_says_why(parser: Callable[[str], Any], text: str) -> None:
    """Anything but XlabError fails the test by itself, and so does a figure that is none."""
    outcome = attempt(lambda: parser(text), XlabError)
    assert outcome is not None
    # A record takes finite figures alone.
    facts = dataclasses.astuple(outcome) if isinstance(outcome, Iperf | RequestResponse) else ()
    json.dumps(facts, allow_nan=False)
    if isinstance(outcome, Iperf):
        assert all(0 <= i.bits_per_second < math.inf for i in outcome.intervals)


_DIGITS = "9" * 5000
_TINY = "\n".join(f"{key}=1e-320" for key in (*parse.NETPERF_KEYS, "NETPERF_INTERIM_RESULT[0]"))


@given(st.sampled_from([parser for parser, _ in PARSERS]), st.text(max_size=200))
@example(
    parse.parse_ping, f"icmp_seq={_DIGITS} ttl=1 time=1 ms\n1 packets transmitted, 1 received,"
)
@example(parse.parse_ping, f"{_DIGITS} packets transmitted, 1 received,")
@example(parse.parse_busy_s, f"cpu {_DIGITS[:4000]} 1 1 1 1 1 1")
@example(parse.parse_process_s, f"7 (a) S {(_DIGITS[:4000] + ' ') * 13}")
@example(parse.parse_netperf, _TINY)
def test_any_text(parser: Callable[[str], Any], text: str) -> None:
    check_parses_or_says_why(parser, text)


@given(st.sampled_from(PARSERS), st.integers(0, 10_000))
def test_truncated_output(case: tuple[Callable[[str], Any], str], kept: int) -> None:
    parser, name = case
    check_parses_or_says_why(parser, captured(name)[:kept])


@given(
    st.sampled_from(PARSERS),
    st.integers(0, 10_000),
    st.text(alphabet='0123456789.-eE"{}[],: \nnulINFaN', max_size=4),
    st.integers(0, 20),
)
def test_damaged_output(
    case: tuple[Callable[[str], Any], str], position: int, inserted: str, removed: int
) -> None:
    parser, name = case
    text = captured(name)
    position %= len(text)
    check_parses_or_says_why(parser, text[:position] + inserted + text[position + removed :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@st.composite
def iperf_with_odd_values(draw: st.DrawFn) -> str:
    """A captured report in which one value somewhere is replaced by some other JSON."""
    report = json.loads(captured(draw(st.sampled_from(["tcp-server.json", "tcp-client.json"]))))
    place: Any = report
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            place[key] = draw(JSON)
            return json.dumps(report)
        place = place[key]


@given(iperf_with_odd_values())
def test_odd_values_in_iperf3s_report(text: str) -> None:
    check_parses_or_says_why(lambda t: parse.parse_iperf(t, captured("tcp-server.json")), text)
    check_parses_or_says_why(lambda t: parse.parse_iperf(captured("tcp-client.json"), t), text)
