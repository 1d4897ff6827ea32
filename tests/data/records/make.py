"""Writes the sample records beside this file: `python tests/data/records/make.py`.

The shape is that of real runs, made through xlab.record; **every figure is made up** (a fixed
pseudo-random sequence around the values of the tables below), and each record says so in
`environment.notes`.  tests/record/test_record.py checks that the files are what this script writes.
"""

from __future__ import annotations

import random
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

from xlab.kernel.packets import Encapsulation
from xlab.record import record
from xlab.record.record import (
    Claim,
    Conditions,
    Environment,
    Event,
    Measurement,
    PathProof,
    Route,
    RunRecord,
    Timings,
    UnderlayPackets,
)

FOLDER = Path(__file__).parent
NOTE = "made up for tests: nothing was measured"
ROUNDS = 3

Middle = dict[Route, float]
#: Probe, metric, unit, streams, samples of a round, and the value of each route to scatter around.
Row = tuple[str, str, str, int, int, Middle]

FAST: list[Row] = [
    ("ping", "icmp_rtt_ms", "ms", 1, 10, {"method": 0.029, "control": 0.021, "baseline": 0.018}),
    (
        "iperf3",
        "tcp_bits_per_second",
        "bit/s",
        1,
        3,
        {"method": 13.4e9, "control": 16.2e9, "baseline": 20.1e9},
    ),
    (
        "iperf3",
        "tcp_bits_per_second",
        "bit/s",
        4,
        3,
        {"method": 26.7e9, "control": 30.8e9, "baseline": 35.9e9},
    ),
    (
        "netperf",
        "tcp_rr_latency_ms",
        "ms",
        1,
        5,
        {"method": 0.036, "control": 0.027, "baseline": 0.024},
    ),
]
SLOW: list[Row] = [
    ("ping", "icmp_rtt_ms", "ms", 1, 10, {"method": 0.478, "control": 0.395, "baseline": 0.018}),
    ("iperf3", "tcp_bits_per_second", "bit/s", 1, 3,
     {"method": 1.07e9, "control": 10.4e9, "baseline": 20.4e9}),
    ("iperf3", "tcp_bits_per_second", "bit/s", 4, 3,
     {"method": 0.76e9, "control": 10.1e9, "baseline": 36.2e9}),
    ("iperf3", "udp_loss_ratio", "ratio", 1, 1,
     {"method": 0.0021, "control": 0.0, "baseline": 0.0}),
    ("netperf", "tcp_rr_latency_ms", "ms", 1, 5,
     {"method": 0.52, "control": 0.43, "baseline": 0.024}),
]  # fmt: skip
CPU: Row = ("iperf3", "cpu_seconds_per_gigabyte", "s/GB", 1, 1,
       {"method": 9.4, "control": 1.3, "baseline": 0.7})  # fmt: skip

ENVIRONMENT = Environment(
    kernel="6.12.0",
    cpu_model="Example CPU @ 2.00GHz",
    cores=2,
    load=(0.31, 0.22, 0.18),
    xlab="0.1.0",
    tools={"iperf3": "3.18", "ping": "iputils 20240905", "tcpdump": "4.99.5"},
    datapath="linux bridge",
    container_runtime="emulated",
    sandbox="rootless",
    congestion_control="cubic",
    notes=(NOTE,),
)


def main() -> None:
    for name, sample in samples().items():
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        record.save(sample, folder, {})
        (folder / "raw").rmdir()


def samples() -> dict[str, RunRecord]:
    """The records by folder name."""
    return {
        "20250102T090000Z-baseline": baseline(),
        "20250102T090015Z-bridge": bridge(),
        "20250102T090040Z-ovs-gre": ovs_gre(),
        "20250102T090120Z-ovs-gre-kernel": ovs_gre_kernel(),
        "20250102T090200Z-bridge-failed": bridge_failed(),
        "20250102T090230Z-ovs-gre-skipped": ovs_gre_skipped(),
        "20250102T090300Z-bridge-quick": bridge_quick(),
        "20250102T090330Z-ovs-gre-underlay": ovs_gre_underlay(),
        "20250102T090400Z-weave": weave(),
        "20250102T090430Z-weave-fastdp": weave_fastdp(),
    }


def baseline() -> RunRecord:
    fast = [(*row[:5], dict.fromkeys(row[5], row[5]["baseline"])) for row in FAST]
    return RunRecord(
        scenario="baseline",
        status="passed",
        reason="",
        started_at="2025-01-02T09:00:00Z",
        parameters={"hosts": 2, "containers": 2, "mtu": 1500, "settings": {}},
        environment=ENVIRONMENT,
        conditions=Conditions(),
        timings_s=Timings(0.05, 0.02, 0.4, 12.1, 0.04, 12.7),
        claims=(
            Claim("h1-h2", "built", "h1 reaches h2", "3 of 3 replies", "3 of 3 replies", True,
                  "h1: ping -c 3 192.168.59.104"),
        ),
        path=path("none"),
        measurements=measurements(fast, "h1 > h2", seed=1),
    )  # fmt: skip


def bridge() -> RunRecord:
    return RunRecord(
        scenario="bridge",
        status="passed",
        reason="",
        started_at="2025-01-02T09:00:15Z",
        parameters={"hosts": 2, "containers": 2, "mtu": 1500, "settings": {}},
        environment=ENVIRONMENT,
        conditions=Conditions(),
        timings_s=Timings(0.05, 0.04, 1.9, 12.9, 0.05, 15.1),
        claims=(
            Claim("eth0-bare", "br0 took over", "eth0 carries no address", "no address",
                  "no address", True, "h1: ip -4 -o address show dev eth0"),
            Claim("c1-c3", "containers run", "c1 reaches c3", "3 of 3 replies", "3 of 3 replies",
                  True, "h1/c1: ping -c 3 10.211.55.128"),
            Claim("outside", "containers run", "c1 reaches the outside", "3 of 3 replies",
                  "3 of 3 replies", True, "h1/c1: ping -c 3 203.0.113.1"),
            Claim("unique", "containers run", "no two containers have one address",
                  "4 different addresses", "4 different addresses", True),
        ),
        path=path("none", control="eth0 detached from br0: stops; attached again: back"),
        measurements=measurements([*FAST, CPU], "h1/c1 > h2/c1", seed=2),
    )  # fmt: skip


def ovs_gre() -> RunRecord:
    return RunRecord(
        scenario="ovs-gre",
        status="passed",
        reason="",
        started_at="2025-01-02T09:00:40Z",
        parameters={"hosts": 2, "containers": 2, "mtu": 1500, "settings": {"routes": "tunnel"}},
        environment=replace(ENVIRONMENT, datapath="ovs 3.5.0 userspace (netdev)"),
        conditions=Conditions(),
        timings_s=Timings(0.05, 0.41, 3.2, 14.8, 0.26, 18.9),
        claims=(
            Claim("host", "before the route", "c1 reaches the other host", "3 of 3 replies",
                  "3 of 3 replies", True, "h1/c1: ping -c 3 192.168.59.104"),
            Claim("no-route", "before the route", "c1 does NOT reach c3 (notes: “无法ping通”)",
                  "no reply", "0 of 3 replies", True, "h1/c1: ping -c 3 192.168.2.2"),
            Claim("route", "after the route", "c1 reaches c3", "3 of 3 replies", "3 of 3 replies",
                  True, "h1/c1: ping -c 3 192.168.2.2"),
        ),
        path=path("gre", overhead_bytes=38, control="gre0 cut: stops; healed: back"),
        measurements=measurements([*SLOW, CPU], "h1/c1 > h2/c1", seed=3),
        events=(
            Event("2025-01-02T09:00:40Z", "fallback",
                  "openvswitch is not live in this kernel: OVS uses its userspace datapath"),
        ),
    )  # fmt: skip


def ovs_gre_kernel() -> RunRecord:
    kernel = [(*row[:5], {k: v * 0.7 for k, v in row[5].items()}) for row in FAST]
    return replace(
        ovs_gre(),
        started_at="2025-01-02T09:01:20Z",
        environment=replace(ENVIRONMENT, datapath="ovs 3.5.0 kernel", sandbox="root"),
        measurements=measurements(kernel, "h1/c1 > h2/c1", seed=4),
        events=(),
    )


def bridge_failed() -> RunRecord:
    good = bridge()
    return replace(
        good,
        status="failed",
        reason="1 of 4 claims does not hold",
        started_at="2025-01-02T09:02:00Z",
        parameters={**good.parameters, "settings": {"fixed_cidr": "off"}},
        claims=(
            *good.claims[:3],
            Claim("unique", "containers run", "no two containers have one address",
                  "4 different addresses", "10.211.55.2 on h1/c1 and on h2/c1", False,
                  "h1: docker inspect c1; h2: docker inspect c1"),
        ),
        path=None,
        measurements=(),
    )  # fmt: skip


def ovs_gre_skipped() -> RunRecord:
    return replace(
        ovs_gre(),
        status="skipped",
        reason="/dev/net/tun cannot be opened; as root: chmod 0666 /dev/net/tun",
        started_at="2025-01-02T09:02:30Z",
        environment=replace(ENVIRONMENT, datapath="none"),
        timings_s=Timings(0.04, 0.0, 0.0, 0.0, 0.0, 0.05),
        claims=(),
        path=None,
        measurements=(),
        events=(),
    )


def bridge_quick() -> RunRecord:
    """One round, one probe of which found nothing out."""
    one = measurements(FAST, "h1/c1 > h2/c1", seed=5, rounds=1)
    (first, *others) = one
    lost = replace(first, samples=(), failed_samples=10, median=None, ci95=None)
    return replace(
        bridge(),
        started_at="2025-01-02T09:03:00Z",
        conditions=Conditions(1e8, 10.0, None, 0.01, "tbf+delay-line", {"delay_ms": 10.24}),
        measurements=(lost, *others),
    )


def ovs_gre_underlay() -> RunRecord:
    """The notes' route: packets pass the tunnel by, and go on when it is cut."""
    tunnel = ovs_gre()
    return replace(
        tunnel,
        started_at="2025-01-02T09:03:30Z",
        parameters={**tunnel.parameters, "settings": {"routes": "underlay"}},
        claims=(
            *tunnel.claims,
            Claim("addresses-never-collide", "after the route", "no two of the 4 containers share",
                  "4 different addresses", "4 different addresses", True,
                  "192.168.1.2-192.168.1.3, 192.168.2.2-192.168.2.3"),
        ),
        path=replace(path("none", control="gre0 cut: 5 of 5 replies"), effective_mtu=1462),
        measurements=(*measurements(SLOW, "h1/c1 > h2/c1", seed=6), *udp("h1/c1 > h2/c1")),
    )  # fmt: skip


def weave() -> RunRecord:
    """Five hosts, four containers each, frames in the router's own datagrams."""
    return RunRecord(
        scenario="weave",
        status="passed",
        reason="",
        started_at="2025-01-02T09:04:00Z",
        parameters={
            "hosts": 5, "containers": 4, "mtu": 1500, "topo": None,
            "settings": {"datapath": "sleeve"},
        },
        environment=replace(ENVIRONMENT, datapath="weave sleeve userspace"),
        conditions=Conditions(),
        timings_s=Timings(0.05, 0.31, 1.2, 12.2, 0.06, 13.8),
        claims=(
            Claim("routers-are-connected", "weave launched",
                  "every router is connected with every other", "20", "20", True,
                  "h1$ weave status connections\n<- 10.211.55.7:36767  established sleeve"),
            Claim("ethwe-appears", "weave run", "h5/c1 has an interface ethwe",
                  "ethwe with 192.168.1.34/24", "ethwe@if7 UP 192.168.1.34/24", True,
                  "h5/c1$ ip -brief -4 address show ethwe\n"
                  "ethwe@if7        UP             192.168.1.34/24"),
            Claim("h1-c1-reaches-h5-c1", "weave run",
                  "h1/c1 reaches h5/c1 on another host (notes: “已经可以联通另一台主机”)",
                  "an echo reply", "a reply after 0.532 ms", True,
                  "h1/c1$ ping -n -c1 -i0.2 -w5 192.168.1.34\n"
                  "PING 192.168.1.34 (192.168.1.34) 56(84) bytes of data."),
        ),
        path=path("sleeve", overhead_bytes=62, control="port 6783 dropped: stops; healed: back"),
        measurements=(*measurements(SLOW, "h1/c1 > h5/c1", seed=7), *udp("h1/c1 > h5/c1")),
    )  # fmt: skip


def weave_fastdp() -> RunRecord:
    sleeve = weave()
    return replace(
        sleeve,
        started_at="2025-01-02T09:04:30Z",
        parameters={**sleeve.parameters, "settings": {"datapath": "fastdp"}},
        environment=replace(ENVIRONMENT, datapath="weave fastdp equivalent (kernel vxlan)"),
        path=replace(
            path("vxlan", overhead_bytes=50, control="UDP port 6784 dropped: stops; healed: back"),
            effective_mtu=1376,
        ),
        measurements=measurements([*FAST, CPU], "h1/c1 > h5/c1", seed=8),
    )


def udp(direction: str) -> tuple[Measurement, ...]:
    """UDP as it is measured: each pair is offered a rate of its own."""
    rows: list[Row] = [
        ("udp", "udp_bits_per_second", "bit/s", 1, 3,
         {"method": 0.93e9, "control": 2.1e9, "baseline": 2.4e9}),
        ("udp", "udp_loss_ratio", "ratio", 1, 1,
         {"method": 0.017, "control": 0.41, "baseline": 0.003}),
    ]  # fmt: skip
    offered = {"method": 0.95e9, "control": 9.3e9, "baseline": 18.4e9}
    sent = {"method": 0.94e9, "control": 4.2e9, "baseline": 2.5e9}
    return tuple(
        replace(
            m,
            detail={
                "tool": "iperf3 3.18",
                "offered_bits_per_second": offered[m.route],
                "sent_bits_per_second": sent[m.route],
            },
        )
        for m in measurements(rows, direction, seed=9)
    )


def path(encapsulation: Encapsulation, *, overhead_bytes: int = 0, control: str = "") -> PathProof:
    packets = UnderlayPackets(**{encapsulation: 20}, stray=3)
    return PathProof(
        encapsulation=encapsulation,
        underlay_packets=packets,
        proved=True,
        negative_control=True,
        overhead_bytes=overhead_bytes,
        effective_mtu=1500 - overhead_bytes,
        packets_sent=20,
        control_detail=control,
        evidence="raw/path.pcap",
    )


def measurements(
    rows: list[Row],
    direction: str,
    *,
    seed: int,
    rounds: int = ROUNDS,
) -> tuple[Measurement, ...]:
    rng = random.Random(seed)
    made = []
    for number in range(1, rounds + 1):
        for probe, metric, unit, streams, count, middles in rows:
            for route, middle in middles.items():
                values = [float(f"{middle * rng.uniform(0.94, 1.06):.6g}") for _ in range(count)]
                made.append(
                    Measurement(
                        probe=probe,
                        metric=metric,
                        unit=unit,
                        direction=direction if route == "method" else hosts_of(direction),
                        streams=streams,
                        round=number,
                        build=1,
                        started_at=f"2025-01-02T09:00:{10 * number:02}Z",
                        samples=tuple(values),
                        median=statistics.median(values),
                        ci95=(min(values), max(values)) if count > 1 else None,
                        route=route,
                    )
                )
    return tuple(made)


def hosts_of(direction: str) -> str:
    """ "h1/c1 > h2/c1" is from h1 to h2."""
    return " > ".join(end.partition("/")[0] for end in direction.split(" > "))


if __name__ == "__main__":
    main()
