"""Probes between two nodes of a sandbox, over paths whose properties are known.

h1 ── br0 (wire) ── h2        10.0.0.1 and .2
"""

from __future__ import annotations

import dataclasses
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.labs import PATIENCE_S
from xlab.errors import CapabilityError, XlabError
from xlab.kernel.processes import wait_until
from xlab.lab import counters, underlay
from xlab.lab.lab import Lab
from xlab.lab.node import Node
from xlab.probes import transactions
from xlab.probes import varied as varied_probes
from xlab.probes.catalog import BETWEEN_TWO, USUAL
from xlab.probes.connections import probe_connections
from xlab.probes.facts import Pair, Plan, Sampled, Trial
from xlab.probes.kinds import Site
from xlab.probes.latency import probe_rr
from xlab.probes.rounds import measure_lab, measure_round
from xlab.probes.throughput import probe_udp
from xlab.sandbox import controller
from xlab.sandbox.launching import launch
from xlab.scenario.scenario import Flow

pytestmark = pytest.mark.sandbox

QUICK = Plan(1.0, quick=True)


class ShortlyAtRest(Plan):
    """Its lab has no routers whose heartbeats would be missed."""

    at_rest_s = 1.0


Measured = dict[str, dict[str, Any]]


def two_hosts() -> tuple[Pair, Node]:
    """The pair, and the wire between with its ports s1 and s2."""
    h1, h2, wire = Node("h1"), Node("h2"), Node("wire")
    wire.add_bridge("br0")
    with wire.rtnl.batch() as batch:
        for number, host in enumerate((h1, h2), 1):
            batch.add_veth(f"s{number}", "eth0", peer_namespace=host.namespaces.net, master="br0")
    h1.add_address("eth0", "10.0.0.1/24")
    h2.add_address("eth0", "10.0.0.2/24")
    return Pair(h1, h2, "method"), wire


def by_probe(sampled: list[Sampled]) -> Measured:
    """Measurements as plain data, "udp udp_loss_ratio" say to its fields, and all raw files."""
    found: Measured = {"raw": {}}
    for each in sampled:
        found["raw"].update({name: len(content) for name, content in each.raw.items()})
        for measurement in each.measurements:
            key = f"{measurement.probe} {measurement.metric}"
            key += f" x{measurement.streams}" if measurement.probe == "flows" else ""
            found[key] = dataclasses.asdict(measurement)
    return found


def measure(pair: Pair, plan: Plan = QUICK, probes: Sequence[str] = USUAL) -> Measured:
    return by_probe(list(measure_round([pair], plan, random.Random(1), probes)))


# -- what runs inside; each makes a lab of its own -------------------------------------------------


def all_well() -> Measured:
    pair, _ = two_hosts()
    return measure(pair)


def black_hole() -> Measured:
    """Full-size packets vanish at the second port, and nobody tells the sender."""
    pair, wire = two_hosts()
    swallow_large_packets(pair, wire)
    return measure(pair)


def swallow_large_packets(pair: Pair, wire: Node) -> None:
    for host in (pair.source, pair.target):
        host.run(["ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off"])
    wire.set_mtu("s2", 1400)


def more_of_all_well() -> Measured:
    pair, _ = two_hosts()
    pair = dataclasses.replace(pair, overhead_bytes=38)
    with (
        mock.patch.object(varied_probes, "MESSAGE_BYTES", (64, 65536)),
        mock.patch.object(varied_probes, "FLOWS", (1, 2)),
    ):
        return measure(pair, probes=[p for p in BETWEEN_TWO if p not in (*USUAL, "loaded-rtt")])


#: The sandbox's first process is a fork of pytest's here, whose pages its other forks share, too:
#: with each that comes or goes a share changes, by one or two megabytes altogether.
HELD_BYTES = 64 << 20


@contextmanager
def holding(host: Node) -> Iterator[None]:
    """While a process there has that much of its own."""
    argv = [sys.executable, "-c", f"import time; held = b'x' * {HELD_BYTES}; time.sleep(1000)"]
    with host.start(argv) as process:
        status = Path(f"/proc/{process.pid}/smaps_rollup")
        wait_until(
            lambda: counters.kibibytes(status.read_text())["Pss"] << 10 > HELD_BYTES,
            timeout_s=PATIENCE_S,
            awaited="its memory",
        )
        yield


def lab_at_rest() -> Measured:
    """Nobody sends anything; then a ping each tenth of a second."""
    before = counters.memory()
    lab = Lab(underlay.describe(None, hosts=2, containers=0))
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    h1, h2 = lab.hosts
    flow = Flow(
        source=h1,
        target=h2,
        control=(h1, h2),
        encapsulation="none",
        watched=h1,
        cut=lambda: h1.set_down("eth0"),
        heal=lambda: h1.set_up("eth0"),
        cut_text="",
    )
    site = Site(lab, flow, Pair(h1, h2, "method"), before)
    plan = ShortlyAtRest(1.0, quick=True)
    with holding(h1), holding(h2):
        found = by_probe(list(measure_lab(site, plan, ["memory"])))
    found |= by_probe(list(measure_lab(site, plan, ["control-plane"])))
    with h1.start(["ping", "-n", "-i", "0.1", str(h2.address)]):
        talking = by_probe(list(measure_lab(site, plan, ["control-plane"])))
    shaken = list(measure_lab(site, plan, ["recovery"], disturbing=[1, 2]))
    assert [sampled.measurements[0].round for sampled in shaken] == [1, 1, 2, 2]
    found |= by_probe(shaken)
    return found | {f"talking {key}": value for key, value in talking.items()}


def black_hole_under_load() -> Measured:
    pair, wire = two_hosts()
    swallow_large_packets(pair, wire)
    return measure(pair, probes=["loaded-rtt", "path-mtu"])


def dead_path() -> Measured:
    pair, wire = two_hosts()
    wire.set_down("s2")
    return measure(pair, probes=["rtt", "tcp-parallel", "loaded-rtt", "connections", "path-mtu"])


def nobody_there() -> Measured:
    """No route: the tools fail at once, each in its own way."""
    pair, _ = two_hosts()
    pair.source.delete_address("eth0", "10.0.0.1/24")
    more = ("loaded-rtt", "connections", "small-packets", "path-mtu")
    return measure(pair, probes=[*USUAL, *more])


def slow_link() -> Measured:
    """20 Mbit/s towards h2; UDP is offered at twice that."""
    pair, wire = two_hosts()
    shape(wire, "s2")
    plan = Plan(1.0)
    found = measure(pair, plan)
    trial = Trial("tcp", pair, plan)
    tcp = trial.measurement("tcp_bits_per_second", "bit/s", [40e6 / 0.9], detail={})
    earlier = {"tcp": Sampled((tcp,), {})}
    found |= by_probe([probe_udp(pair, dataclasses.replace(plan, earlier=earlier))])
    return found


def slow_link_under_load() -> Measured:
    """20 Mbit/s each way, and queues that hold 20 ms of it."""
    pair, wire = two_hosts()
    shape(wire, "s1")
    shape(wire, "s2")
    return measure(pair, probes=["loaded-rtt"])


def shape(wire: Node, port: str) -> None:
    rate = ["rate", "20mbit", "burst", "4kb", "latency", "20ms"]
    try:
        wire.run(["tc", "qdisc", "add", "dev", port, "root", "tbf", *rate])
    except XlabError as error:
        raise CapabilityError(f"no token bucket filter (sch_tbf): {error}") from error


def without_netperf() -> Measured:
    pair, _ = two_hosts()
    with mock.patch.object(transactions, "has_netperf", return_value=False):
        return by_probe([probe_rr(pair, QUICK), probe_connections(pair, QUICK)])


LABS: dict[str, Callable[[], Measured]] = {
    "all_well": all_well,
    "lab_at_rest": lab_at_rest,
    "more_of_all_well": more_of_all_well,
    "black_hole": black_hole,
    "black_hole_under_load": black_hole_under_load,
    "dead_path": dead_path,
    "nobody_there": nobody_there,
    "slow_link": slow_link,
    "slow_link_under_load": slow_link_under_load,
    "without_netperf": without_netperf,
}


@pytest.fixture(name="measured")
def measured_in_a_sandbox(request: pytest.FixtureRequest) -> Iterator[Measured]:
    """What the lab that the test names has measured, in a sandbox that is gone afterwards."""
    lab = LABS[request.param]
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork while there are threads, numpy's own among them; the
            # child runs no code that could wait for one of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            box = launch(lambda: {"measure": lambda _arguments, _emit: lab()})
    except CapabilityError as error:
        pytest.skip(str(error))
    with box:
        client = controller.Client(box.channel)
        try:
            yield client.call("measure", {})
        except CapabilityError as error:
            pytest.skip(str(error))
        finally:
            client.close()


def measured_by(lab: Callable[[], Measured]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("measured", [lab.__name__], indirect=True)


def median(measured: Measured, key: str) -> float:
    value = measured[key]["median"]
    assert isinstance(value, float), measured[key]
    return value


# --------------------------------------------------------------------------------- what must hold


@measured_by(all_well)
def test_every_probe_gives_figures_and_keeps_its_raw_output(measured: Measured) -> None:
    raw = measured.pop("raw")
    assert set(measured) == {
        "rtt icmp_rtt_ms", "rr tcp_rr_latency_ms", "tcp tcp_bits_per_second",
        "tcp cpu_seconds_per_gigabyte", "tcp-parallel tcp_bits_per_second",
        "udp udp_bits_per_second", "udp udp_loss_ratio",
    }  # fmt: skip
    for key, measurement in measured.items():
        if key == "tcp cpu_seconds_per_gigabyte" and measurement["failed_samples"]:
            # A machine busy with other things may be no busier with ours.
            continue
        assert measurement["median"] is not None, measurement
        assert measurement["failed_samples"] == 0
        assert measurement["direction"] == "h1 > h2"
        assert set(measurement["detail"]["raw"]) <= set(raw)
    assert min(raw.values()) > 100
    assert {name.split("-", 5)[5] for name in raw} >= {
        "rtt-ping.txt", "tcp-client.json", "tcp-server.json", "udp-server.json",
    }  # fmt: skip
    rtt = measured["rtt icmp_rtt_ms"]
    assert len(rtt["samples"]) == round(QUICK.rtt_s / 0.01)
    assert rtt["detail"]["first_ms_left_out"] > 0
    assert measured["tcp-parallel tcp_bits_per_second"]["streams"] == 4
    assert 0 <= median(measured, "udp udp_loss_ratio") <= 1


@measured_by(more_of_all_well)
def test_probes_that_are_asked_for_by_name(measured: Measured) -> None:
    raw = measured.pop("raw")
    assert set(measured) == {
        "connections tcp_connections_per_second", "small-packets udp_packets_per_second",
        "message-sizes tcp_64_byte_messages_bits_per_second",
        "message-sizes tcp_65536_byte_messages_bits_per_second",
        "flows tcp_bits_per_second x1", "flows tcp_bits_per_second x2",
        "path-mtu path_mtu_bytes", "path-mtu overhead_bytes",
    }  # fmt: skip
    for measurement in measured.values():
        assert measurement["failed_samples"] == 0, measurement
        assert measurement["median"] > 0
        assert set(measurement["detail"]["raw"]) <= set(raw)
    # Every run of iperf3 keeps a report of its own.
    assert len([name for name in raw if name.endswith("-server.json")]) == 5
    small = median(measured, "message-sizes tcp_64_byte_messages_bits_per_second")
    assert 2 * small < median(measured, "message-sizes tcp_65536_byte_messages_bits_per_second")
    assert measured["flows tcp_bits_per_second x2"]["streams"] == 2
    detail = measured["small-packets udp_packets_per_second"]["detail"]
    assert detail["sender_limited"] == (detail["loss_ratio"] < 0.01)
    assert detail["sent_packets_per_second"] > 0
    assert median(measured, "path-mtu path_mtu_bytes") == 1500
    assert median(measured, "path-mtu overhead_bytes") == 38


@measured_by(lab_at_rest)
def test_what_a_lab_costs_while_it_stands(measured: Measured) -> None:
    memory = median(measured, "memory process_bytes_per_host")
    assert 0.9 * HELD_BYTES < memory < 1.5 * HELD_BYTES
    total = measured["memory memory_bytes_per_host"]
    if not total["failed_samples"]:  # others may free more than two hosts take
        assert total["median"] > memory
    for what in ("packets", "bytes"):
        key = f"control-plane control_plane_{what}_per_host_second"
        assert measured[key]["direction"] == "the whole lab"
        assert (measured[key]["failed_samples"], measured[key]["median"]) == (0, 0.0)
    for fault in ("link_flap", "host_reboot"):
        recovery = measured[f"recovery {fault}_recovery_s"]
        assert recovery["detail"]["stopped"]
        assert 0 < median(measured, f"recovery {fault}_recovery_s") < 30
    packets, octets = (
        median(measured, f"talking control-plane control_plane_{what}_per_host_second")
        for what in ("packets", "bytes")
    )
    # Ten requests and ten replies a second, each on both hosts' links: 20 a host, of 98 bytes.
    assert 5 < packets < 30
    assert octets / packets == pytest.approx(98, rel=0.2)


@measured_by(black_hole)
def test_an_mtu_black_hole_fails_what_is_full_size_and_nothing_else(measured: Measured) -> None:
    assert median(measured, "rtt icmp_rtt_ms") > 0
    assert median(measured, "rr tcp_rr_latency_ms") > 0
    for key in ("tcp tcp_bits_per_second", "tcp-parallel tcp_bits_per_second"):
        assert (measured[key]["samples"], measured[key]["failed_samples"]) == ([], 1)
        assert "do full-size packets get through?" in measured[key]["detail"]["error"]
    assert measured["tcp cpu_seconds_per_gigabyte"]["failed_samples"] == 1
    for key in ("udp udp_bits_per_second", "udp udp_loss_ratio"):
        assert measured[key]["median"] is None
        assert "nothing to offer" in measured[key]["detail"]["error"]


@measured_by(dead_path)
def test_a_dead_path_fails_every_sample(measured: Measured) -> None:
    measured.pop("raw")
    assert set(measured) == {
        "rtt icmp_rtt_ms", "tcp-parallel tcp_bits_per_second",
        "loaded-rtt idle_rtt_ms", "loaded-rtt loaded_rtt_ms",
        "connections tcp_connections_per_second", "path-mtu path_mtu_bytes",
    }  # fmt: skip
    for measurement in measured.values():
        assert (measurement["samples"], measurement["median"]) == ([], None)
        assert measurement["failed_samples"] >= 1
    assert measured["rtt icmp_rtt_ms"]["failed_samples"] == round(QUICK.rtt_s / 0.01)
    error = measured["tcp-parallel tcp_bits_per_second"]["detail"]["error"]
    assert "connect" in error


@measured_by(nobody_there)
def test_a_host_without_a_route_fails_every_sample(measured: Measured) -> None:
    measured.pop("raw")
    for measurement in measured.values():
        assert (measurement["samples"], measurement["median"]) == ([], None)
        assert measurement["failed_samples"] == 1
    assert "unreachable" in measured["rtt icmp_rtt_ms"]["detail"]["error"]
    assert "unable to connect" in measured["tcp tcp_bits_per_second"]["detail"]["error"]


@measured_by(slow_link)
def test_the_figures_of_a_link_of_20_megabits(measured: Measured) -> None:
    """1448 of 1514 bytes a frame are TCP's data, 1472 are UDP's; 40 offered, half of it lost."""
    # A busy machine takes from a rate; nothing adds to it but a burst that had been saved up.
    assert 4e6 < median(measured, "tcp tcp_bits_per_second") < 19.1e6 * 1.1
    assert 4e6 < median(measured, "tcp-parallel tcp_bits_per_second") < 19.1e6 * 1.3
    assert 4e6 < median(measured, "udp udp_bits_per_second") < 19.4e6 * 1.1
    assert 0.4 < median(measured, "udp udp_loss_ratio") < 0.95
    detail = measured["udp udp_bits_per_second"]["detail"]
    assert detail["offered_bits_per_second"] == 40_000_000
    assert detail["datagram_bytes"] == 1472


@measured_by(slow_link_under_load)
def test_a_full_link_shows_in_the_round_trip(measured: Measured) -> None:
    """Up to 20 ms of queue each way; before the streams began there was none."""
    idle = measured["loaded-rtt idle_rtt_ms"]
    loaded = measured["loaded-rtt loaded_rtt_ms"]
    assert median(measured, "loaded-rtt idle_rtt_ms") < 5
    assert median(measured, "loaded-rtt loaded_rtt_ms") > 10
    detail = loaded["detail"]
    assert detail["idle_median_ms"] == idle["median"]
    for direction in ("forward", "backward"):
        assert 1e6 < detail[f"load_{direction}_bits_per_second"] < 21e6
    # All that a chart of the course needs: replies before the load, under it, and gaps as gaps.
    inside = [
        ms
        for at, ms in detail["series"]
        if detail["load_since_s"] <= at < detail["load_until_s"] and ms is not None
    ]
    # The series is rounded, so that an echo at its very edge may fall on the other side.
    assert abs(len(inside) - len(loaded["samples"])) <= 2
    before = [ms for at, ms in detail["series"] if at < detail["load_since_s"]]
    assert len(before) >= len(idle["samples"]) > 0


@measured_by(black_hole_under_load)
def test_a_load_that_does_not_arrive_is_none(measured: Measured) -> None:
    assert median(measured, "loaded-rtt idle_rtt_ms") > 0
    loaded = measured["loaded-rtt loaded_rtt_ms"]
    assert (loaded["samples"], loaded["failed_samples"]) == ([], 1)
    assert "no data arrived" in loaded["detail"]["error"]
    # A port of MTU 1400 lets 4 bytes more pass, room for a VLAN tag (is_skb_forwardable, dev.c).
    assert median(measured, "path-mtu path_mtu_bytes") == 1404


@measured_by(without_netperf)
def test_our_own_transactions_stand_in_for_netperf(measured: Measured) -> None:
    measurement = measured["rr tcp_rr_latency_ms"]
    assert measurement["detail"]["tool"] == "xlab"
    assert median(measured, "rr tcp_rr_latency_ms") > 0
    # One for each 50 ms in which there was a transaction: on a busy machine two, say.
    assert measurement["samples"]
    detail = measurement["detail"]
    assert detail["p50_ms"] <= detail["p90_ms"] <= detail["p99_ms"]
    assert median(measured, "connections tcp_connections_per_second") > 0
    assert measured["connections tcp_connections_per_second"]["detail"]["tool"] == "xlab"
    assert list(measured["raw"]) == [
        "b1-r1-method-h1-h2-rr-rr.json",
        "b1-r1-method-h1-h2-connections-connections.json",
    ]
