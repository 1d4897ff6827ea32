"""How fast the weave router's sleeve is, beside what the same two hosts reach without it.

    python benchmarks/sleeve.py [--builds N] [--rounds N] [--seconds S] [--mtu M] [--json FILE]

    h1 ─────────────────────────────────────── h2     host:   the underlay alone
    v1 ── bridge ── vxlan ──── h1 ─ h2 ──── … v2      vxlan:  the kernel's VXLAN, port 4789
    c1 ── bridge ── router ─── h1 ─ h2 ──── … c2      sleeve: as the scenario weave builds it

All three are there at once.  In every round each is measured once, in random order, by the probes
of `xlab run`: one TCP stream of iperf3 with the start left out, and a ping every 10 ms.  What
disturbs the machine disturbs all three alike, so ratios within a round mean more than rates.  The
lab is built anew several times; figures are medians of builds, which are medians of rounds.

The original router is not run here.  Its figures are quoted: measured separately on a machine of
this kind, in runs of 4 to 5 s.  Compare with them only what a quiet machine gave.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network
from operator import attrgetter
from pathlib import Path
from typing import Any

from xlab.errors import XlabError
from xlab.kernel import disk
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node
from xlab.probes.facts import Pair, Plan
from xlab.probes.rounds import measure_round
from xlab.record import stats
from xlab.record.record import Measurement
from xlab.sandbox.launching import run_inside

HOST, VXLAN, SLEEVE = "host", "vxlan", "sleeve"
PATHS = (HOST, VXLAN, SLEEVE)
METRICS = ("tcp_mbit_per_s", "rtt_mean_ms", "rtt_median_ms")

#: Of the original router, unencrypted, over an underlay of MTU 1500: median and range of TCP
#: throughput when the machine was quiet, and the range of mean round trips.
QUOTED_MBIT_PER_S, QUOTED_RANGE_MBIT_PER_S = 356, (232, 383)
QUOTED_RTT_MS = (0.41, 0.73)
GOAL = 1.5

_VXLAN_HEADROOM_BYTES = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round found out about one path; None where a probe failed."""

    build: int
    round: int
    path: str
    tcp_mbit_per_s: float | None = None
    rtt_mean_ms: float | None = None
    rtt_median_ms: float | None = None
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one path over all builds."""

    median: float | None
    ci95: tuple[float, float] | None


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    samples: list[Sample] = []
    try:
        for build in range(1, options.builds + 1):
            done = run_inside(partial(_measure, build, options))
            samples += [Sample(**found) for found in done.result]
            print(f"build {build} of {options.builds} measured", file=sys.stderr)
    except XlabError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    summary = summarise(samples)
    print(table(summary, options))
    if options.json:
        document = json.dumps(_document(options, samples, summary), indent=2)
        disk.write_whole(options.json, f"{document}\n".encode())
    return 0


# -- measuring, inside -----------------------------------------------------------------------------


def _measure(number: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Build once and measure some rounds, in a sandbox of its own."""
    pairs, daemons = build(options.mtu)
    by_direction = {pair.direction: path for path, pair in pairs.items()}
    generator = random.Random()
    samples = []
    for round_ in range(1, options.rounds + 1):
        plan = Plan(options.seconds, quick=True, round=round_, build=number, daemon_pids=daemons)
        found: dict[str, dict[str, float | None]] = {path: {} for path in pairs}
        for sampled in measure_round([*pairs.values()], plan, generator, ("tcp", "rtt")):
            for measurement in sampled.measurements:
                found[by_direction[measurement.direction]].update(_figures(measurement))
        load = os.getloadavg()[0]
        samples += [
            asdict(Sample(number, round_, path, load=load, **figures))
            for path, figures in found.items()
        ]
    return samples


def _figures(measurement: Measurement) -> dict[str, float | None]:
    if measurement.metric == "tcp_bits_per_second":
        mean = measurement.detail.get("mean_bits_per_second")
        return {"tcp_mbit_per_s": None if mean is None else mean / 1e6}
    if measurement.metric == "icmp_rtt_ms" and measurement.samples:
        mean = sum(measurement.samples) / len(measurement.samples)
        return {"rtt_mean_ms": mean, "rtt_median_ms": measurement.median}
    return {}


def build(mtu: int) -> tuple[dict[str, Pair], list[int]]:
    """Two hosts, and what lies between which ends; the routers' process numbers."""
    lab = Lab(underlay.describe(None, hosts=2), mtu=mtu)
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    h1, h2 = lab.hosts
    for host in lab.hosts:
        host.docker.start()
    h1.weave.launch()
    h2.weave.launch(h1.address)
    for host in lab.hosts:
        host.weave.await_connections(1)
    c1, c2 = (host.weave.run(f"192.168.1.{host.number}/24", name="c1") for host in lab.hosts)
    v1, v2 = (
        _behind_vxlan(host, other, mtu - _VXLAN_HEADROOM_BYTES)
        for host, other in ((h1, h2), (h2, h1))
    )
    pairs = {
        HOST: Pair(h1, h2, "baseline", path_mtu=mtu),
        VXLAN: Pair(v1, v2, "control", path_mtu=mtu - _VXLAN_HEADROOM_BYTES),
        SLEEVE: Pair(c1, c2, "method", path_mtu=h1.weave.mtu),
    }
    return pairs, [pid for host in lab.hosts for pid in host.weave.pids()]


def _behind_vxlan(host: Host, other: Host, mtu: int) -> Node:
    """A container on a bridge of its own, with the kernel's tunnel to the other host's."""
    host.configure(
        ["ip", "link", "add", "vxlan1", "type", "vxlan", "id", "1", "dstport", "4789",
         "local", str(host.address), "remote", str(other.address)]
    )  # fmt: skip
    container = Node(f"{host.name}/v{host.number}")
    container.boot()
    with host.rtnl.batch() as batch:
        batch.add_bridge("br-vxlan")
        batch.set_mtu("vxlan1", mtu)
        batch.add_veth(
            "veth-v", "eth0", peer_namespace=container.namespaces.net, mtu=mtu, master="br-vxlan"
        )
    host.add_to_bridge("br-vxlan", "vxlan1")
    host.set_up("vxlan1")
    container.add_address("eth0", f"192.168.2.{host.number}/24")
    return container


# -- what came of it -------------------------------------------------------------------------------


def summarise(samples: Sequence[Sample]) -> dict[str, dict[str, Figure]]:
    """For each path: its own figures, and those of the ratios to the host's in the same rounds."""
    hosts = {(s.build, s.round): s for s in samples if s.path == HOST}
    summary: dict[str, dict[str, Figure]] = {}
    for path in PATHS:
        own = [sample for sample in samples if sample.path == path]
        summary[path] = {}
        for name in METRICS:
            value = attrgetter(name)
            pairs = [(s.build, value(s), value(hosts[s.build, s.round])) for s in own]
            summary[path][name] = _over_builds([(build, figure) for build, figure, _ in pairs])
            summary[path][f"{name}_ratio"] = _over_builds(
                [(build, a / b if a is not None and b else None) for build, a, b in pairs]
            )
    return summary


def _over_builds(figures: Sequence[tuple[int, float | None]]) -> Figure:
    """The median over builds of the medians over their rounds."""
    builds: dict[int, list[float]] = {}
    for build, figure in figures:
        if figure is not None:
            builds.setdefault(build, []).append(figure)
    medians = [statistics.median(builds[build]) for build in sorted(builds)]
    return Figure(stats.median(medians), stats.median_interval(medians))


def table(summary: Mapping[str, Mapping[str, Figure]], options: argparse.Namespace) -> str:
    counted = f"{options.builds} builds of {options.rounds} rounds, TCP {options.seconds:g} s each"
    lines = [
        f"{counted}; underlay MTU {options.mtu}; median [95 % interval over builds]",
        "",
        f"{'':10}{'TCP Mbit/s':>28}{'× host':>8}{'RTT mean ms':>26}{'median':>8}{'× host':>8}",
    ]
    for path, figures in summary.items():
        lines.append(
            f"{path:10}{_text(figures['tcp_mbit_per_s'], '.0f'):>28}"
            f"{_text(figures['tcp_mbit_per_s_ratio'], '.2f', interval=False):>8}"
            f"{_text(figures['rtt_mean_ms'], '.3f'):>26}"
            f"{_text(figures['rtt_median_ms'], '.3f', interval=False):>8}"
            f"{_text(figures['rtt_median_ms_ratio'], '.1f', interval=False):>8}"
        )
    low, high = QUOTED_RANGE_MBIT_PER_S
    fast, slow = QUOTED_RTT_MS
    quoted_tcp, quoted_rtt = f"{QUOTED_MBIT_PER_S} [{low} to {high}]", f"{fast:g} to {slow:g}"
    lines.append(
        f"{'original':10}{quoted_tcp:>28}{'':>8}{quoted_rtt:>26}   quoted, underlay MTU 1500"
    )
    tcp, rtt = summary[SLEEVE]["tcp_mbit_per_s"].median, summary[SLEEVE]["rtt_mean_ms"].median
    if tcp is not None and rtt is not None and options.mtu == 1500:
        lines.append(
            f"\nsleeve / original: TCP {tcp / QUOTED_MBIT_PER_S:.1f} (goal {GOAL:g} or more), "
            f"mean RTT {rtt / slow:.2f} to {rtt / fast:.2f} (goal 1 or less)"
        )
    return "\n".join(lines)


def _text(figure: Figure, form: str, *, interval: bool = True) -> str:
    if figure.median is None:
        return "failed"
    text = format(figure.median, form)
    if interval and figure.ci95:
        text += f" [{figure.ci95[0]:{form}} to {figure.ci95[1]:{form}}]"
    return text


def _document(
    options: argparse.Namespace,
    samples: Sequence[Sample],
    summary: Mapping[str, Mapping[str, Figure]],
) -> dict[str, Any]:
    return {
        "benchmark": "sleeve",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "how": __doc__,
        "parameters": {
            "builds": options.builds, "rounds": options.rounds, "seconds": options.seconds,
            "mtu": options.mtu,
        },
        "environment": {
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "rmem_max": int(Path("/proc/sys/net/core/rmem_max").read_text()),
            "sandbox": "root" if os.geteuid() == 0 else "rootless",
        },
        "quoted": {
            "what": "the original router, unencrypted, MTU 1500, measured elsewhere",
            "tcp_mbit_per_s": {
                "median": QUOTED_MBIT_PER_S, "range": list(QUOTED_RANGE_MBIT_PER_S)
            },
            "rtt_mean_ms": {"range": list(QUOTED_RTT_MS)},
        },
        "summary": {
            path: {name: asdict(figure) for name, figure in figures.items()}
            for path, figures in summary.items()
        },
        "samples": [asdict(sample) for sample in samples],
    }  # fmt: skip


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each TCP transfer")
    parser.add_argument("--mtu", type=int, default=1500, help="of the underlay")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as data")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
