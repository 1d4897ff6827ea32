"""How long a lab takes to build and to take down, beside stock Mininet and beside the kernel alone.

    "$(bin/setup)" benchmarks/build.py [--hosts 128] [--rounds 5] [--output build.json]
    "$(bin/setup)" benchmarks/build.py --growth 64,128,256,512,1000 [--containers 2]

Three contestants build the same network, hosts on one Linux bridge, in turn and several times over:

- xlab: a Mininet Topo becomes a lab; addresses and default routes; a gateway and a namespace for
  the switch besides, which count as no host.
- Mininet as Debian packages it, LinuxBridge, no controller: it sets no default route.
- floor: network namespaces, veth pairs and addresses by packed messages (benchmarks/floor.py).

Each starts in a fresh sandbox of xlab's, when the kernel has nothing left to free from before; the
order changes from round to round.  The clock runs from the description to a network on which the
first host's ping to the last is answered (the ping itself is not timed; without it the round is an
error).  *Down* ends when the call returns, *freed* when the kernel has freed the last namespace,
which it does in the background.  Only ratios of figures of one round mean anything.

With --growth: xlab and the floor at several sizes.  xlab's hosts are at one switch or, from some
400 hosts and containers on, at several in a row (`underlay.row_of_switches`); with --containers the
bridge scenario is built in full, its claims left out.  The exponent e is that of a * hosts^e; on a
busy machine only that of the processor time tells what xlab does.  What grows beyond the hosts, by
a profile (perf record -g -p of the lab's pid 1) of 64 and of 1,000 hosts: exec(2) of each host's
iptables-restore closes all descriptors of the lab (do_close_on_exec, 0.09 and 0.97 ms a host), and
a virtual machine may have to get its memory from its host again (allocate_slab, 0.03 and 1.0 ms).

As root, for Mininet's sake; without it, or where the package is missing, that part is not measured
(--install installs it, without starting a service).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from mininet.topo import SingleSwitchTopo

from benchmarks import floor
from xlab.errors import CapabilityError, SandboxError, XlabError
from xlab.kernel import disk, environment, namespaces, processes, programs
from xlab.lab import counters, underlay
from xlab.lab.lab import Lab
from xlab.lab.reachability import unreachable
from xlab.record import stats
from xlab.record.power_law import power_law
from xlab.record.stats import Spread
from xlab.record.version import __version__
from xlab.sandbox import sandbox
from xlab.sandbox.cleanup import cleanup
from xlab.sandbox.launching import run_inside
from xlab.scenario import catalog
from xlab.scenario.claims import Unchecked
from xlab.scenario.scenario import Size, load

SCHEMA_VERSION = 1
SUBNET = IPv4Network("10.0.0.0/16")

#: Debian's Python, the one that has Debian's packages.
SYSTEM_PYTHON = "/usr/bin/python3"
_STOCK = Path(__file__).with_name("stock_mininet.py")
_PATIENCE_S = 600.0
_ANSWER_WITHIN_S = 20.0

#: At this size and above the targets hold: below, what a lab costs without hosts weighs too much.
TARGETS_FROM = 128
#: What the design asks for: (text, contestant, beside, figure, most or least, bound).
TARGETS = (
    ("build, Mininet / xlab", "mininet", "xlab", "up_s", "at least", 10.0),
    ("build, xlab / floor", "xlab", "floor", "up_s", "at most", 2.0),
    ("take down, Mininet / xlab", "mininet", "xlab", "down_s", "", 0.0),
    ("freed, Mininet / xlab", "mininet", "xlab", "freed_s", "", 0.0),
    ("freed, xlab / floor", "xlab", "floor", "freed_s", "", 0.0),
)
MOST_DOWN_MS_A_HOST = 1.0
MOST_EXPONENT = 1.10

Handler = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Timing:
    """One network built and taken down, in seconds."""

    up_s: float
    #: Until taking down returned, and until the kernel had freed everything.
    down_s: float
    freed_s: float
    #: What building has added, in bytes: to the kernel's memory, to that of xlab's own process.
    kernel_bytes: int = 0
    process_bytes: int = 0
    #: Processor time of building, xlab's own and that of the programs it runs.
    cpu_s: float = 0.0


FIGURES = ("up_s", "down_s", "freed_s")
GROWING = ("up_s", "cpu_s", "freed_s")
NAMES = {"up_s": "up", "down_s": "down", "freed_s": "freed", "cpu_s": "processor"}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    facts = environment.environment_facts()
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "method": __doc__,
        "environment": {
            "kernel": facts.kernel,
            "cpu_model": facts.cpu_model,
            "cores": facts.cores,
            "load_before": facts.load,
            "notes": facts.notes,
            "python": sys.version.split()[0],
            "xlab": __version__,
            "sandbox": sandbox.kind(),
        },
        "rounds": options.rounds,
    }
    try:
        if options.install:
            install_mininet()
        if options.growth:
            growth(options, result)
        else:
            side_by_side(options, result)
    except (XlabError, OSError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 3 if isinstance(error, CapabilityError) else 1
    result["environment"]["load_after"] = os.getloadavg()
    if options.output:
        save(result, options.output)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=_at_least(2), default=128)
    parser.add_argument("--rounds", type=_at_least(1), default=5)
    parser.add_argument("--growth", type=_sizes, metavar="HOSTS,HOSTS,…", help="sizes to compare")
    parser.add_argument("--containers", type=_at_least(0), default=0, help="with --growth")
    parser.add_argument("--output", type=Path, help="write all figures there, as JSON")
    parser.add_argument(
        "--install", action="store_true", help="install Debian's mininet if missing"
    )
    return parser.parse_args(arguments)


def _at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"at least {least}")
        return int(text)

    return count


def _sizes(text: str) -> list[int]:
    sizes = sorted({int(part) for part in text.split(",")})
    if len(sizes) < 3 or sizes[0] < 2:
        raise argparse.ArgumentTypeError("three sizes or more, of at least 2 hosts each")
    return sizes


# -- side by side ----------------------------------------------------------------------------------


def side_by_side(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure all three at one size; prints the table and adds the figures to `result`."""
    contestants: dict[str, Callable[[], Timing]] = {
        "xlab": partial(measure_xlab, options.hosts),
        "floor": partial(measure_floor, options.hosts),
    }
    missing = why_no_mininet()
    if not missing:
        contestants["mininet"] = partial(measure_mininet, options.hosts)
    result["hosts"] = options.hosts
    timings = _interleaved(contestants, options.rounds, result)
    result["not_measured"] = {"mininet": missing} if missing else {}
    result["ratios"] = {text: dataclasses.asdict(r) for text, r in ratios(timings).items()}
    print(_headline(f"{options.hosts} hosts on one switch", options.rounds, result))
    print(table(timings, options.hosts))
    if missing:
        print(f"\nMininet: not measured: {missing}")
    print(f"\n{verdicts(timings, options.hosts)}")


def _interleaved(
    contestants: Mapping[str, Callable[[], Timing]], rounds: int, result: dict[str, Any]
) -> dict[str, list[Timing]]:
    """`rounds` timings of each, also as `figures`; every round begins with another one."""
    timings: dict[str, list[Timing]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        for name in rotated(names, number):
            _progress(f"round {number + 1}/{rounds}: {name}")
            timings[name].append(contestants[name]())
    _progress("")
    result["figures"] = {
        name: [dataclasses.asdict(timing) for timing in of_one] for name, of_one in timings.items()
    }
    return timings


def rotated(names: Sequence[str], by: int) -> list[str]:
    """["a", "b", "c"] by 1: b, c, a."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def table(timings: Mapping[str, Sequence[Timing]], hosts: int) -> str:
    """Milliseconds a host: median, least and most of the rounds."""
    lines = [
        f"{'ms a host':11}"
        + "".join(f"{NAMES[figure]:>9}{'min':>7}{'max':>7}" for figure in FIGURES)
    ]
    for name, of_one in timings.items():
        line = f"{name:11}"
        for figure in FIGURES:
            values = [getattr(timing, figure) / hosts * 1e3 for timing in of_one]
            line += f"{statistics.median(values):9.3f}{min(values):7.2f}{max(values):7.2f}"
        lines.append(line)
    return "\n".join(lines)


def ratios(timings: Mapping[str, Sequence[Timing]]) -> dict[str, Spread]:
    """Those of `TARGETS` whose contestants were measured, paired by rounds."""
    found = {}
    for text, one, other, figure, _, _ in TARGETS:
        if one in timings and other in timings:
            rounds = zip(timings[one], timings[other], strict=True)
            pairs = [(getattr(a, figure), getattr(b, figure)) for a, b in rounds]
            ratio = stats.spread([a / b for a, b in pairs if b])
            if ratio:
                found[text] = ratio
    return found


def verdicts(timings: Mapping[str, Sequence[Timing]], hosts: int) -> str:
    """A line for each ratio and target, with whether it is met."""
    found = ratios(timings)
    lines = [f"{'ratio, of the same round':30}{'median':>8}  {'95 % interval':15}".rstrip()]
    for text, _, _, _, sense, bound in TARGETS:
        if text not in found:
            continue
        ratio = found[text]
        interval = "{:.2f} to {:.2f}".format(*ratio.ci95) if ratio.ci95 else "-"
        target = _target(sense, bound, ratio.median) if sense and hosts >= TARGETS_FROM else ""
        lines.append(f"{text:30}{ratio.median:8.2f}  {interval:15}  {target}".rstrip())
    freed_ms = _median(timings["xlab"], "freed_s") / hosts * 1e3
    target = _target("at most", MOST_DOWN_MS_A_HOST, freed_ms) if hosts >= TARGETS_FROM else ""
    lines.append(f"{'xlab, ms a host until freed':30}{freed_ms:8.2f}  {'':15}  {target}".rstrip())
    return "\n".join(lines)


def _target(sense: str, bound: float, value: float) -> str:
    holds = value >= bound if sense == "at least" else value <= bound
    return f"{sense} {bound:g}: {'met' if holds else 'MISSED'}"


def _headline(what: str, rounds: int, result: Mapping[str, Any]) -> str:
    environment = result["environment"]
    return (
        f"{what}, {rounds} rounds   {environment['sandbox']}   Linux {environment['kernel']}   "
        f"{environment['cores']} cores, load {environment['load_before'][0]:.1f}\n"
    )


# -- growth ----------------------------------------------------------------------------------------


def growth(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure xlab and the floor at several sizes; prints the table and fits the exponents."""
    sizes: list[int] = options.growth
    contestants: dict[str, Callable[[], Timing]] = {}
    for size in sizes:
        contestants[f"xlab {size}"] = partial(measure_xlab, size, options.containers, row=True)
        if not options.containers:
            contestants[f"floor {size}"] = partial(measure_floor, size)
    result["containers_a_host"] = options.containers
    timings = _interleaved(contestants, options.rounds, result)
    containers = f", {options.containers} containers on each" if options.containers else ""
    print(_headline(f"hosts at as many switches as it takes{containers}", options.rounds, result))
    print(growth_table(sizes, timings))
    result["exponents"] = exponents(sizes, timings)
    print()
    for text, fitted in result["exponents"].items():
        own = text.startswith("xlab")
        target = f"   {_target('at most', MOST_EXPONENT, fitted)}" if own else ""
        print(f"exponent of {text:16}{fitted:6.3f}{target}")


def growth_table(sizes: Sequence[int], timings: Mapping[str, Sequence[Timing]]) -> str:
    """A line for each size: seconds, and what a host costs."""
    columns = ("up", "", "processor", "", "freed", "", "floor up", "kernel", "process")
    units = ("s", "ms/host") * len(GROWING) + ("ms/host", "KiB/host", "KiB/host")
    lines = [
        f"{'':6}" + "".join(f"{text:>10}" for text in columns),
        f"{'hosts':6}" + "".join(f"{text:>10}" for text in units),
    ]
    for size in sizes:
        own, least = timings[f"xlab {size}"], timings.get(f"floor {size}")
        line = f"{size:6}"
        for figure in GROWING:
            seconds = _median(own, figure)
            line += f"{seconds:10.3f}{seconds / size * 1e3:10.3f}"
        line += f"{_median(least, 'up_s') / size * 1e3:10.3f}" if least else f"{'-':>10}"
        for figure in ("kernel_bytes", "process_bytes"):
            line += f"{_median(own, figure) / size / 1024:10.1f}"
        lines.append(line)
    return "\n".join(lines)


def exponents(sizes: Sequence[int], timings: Mapping[str, Sequence[Timing]]) -> dict[str, float]:
    """Fitted through the medians of each contestant that was measured at every size."""
    return {
        f"{name}, {NAMES[figure]}": law.exponent
        for name in ("xlab", "floor")
        if all(f"{name} {size}" in timings for size in sizes)
        for figure in GROWING
        if (law := power_law((size, _median(timings[f"{name} {size}"], figure)) for size in sizes))
    }


def _median(timings: Sequence[Timing], figure: str) -> float:
    values: list[float] = [getattr(timing, figure) for timing in timings]
    return statistics.median(values)


# -- the contestants -------------------------------------------------------------------------------


def measure_xlab(hosts: int, containers: int = 0, *, row: bool = False) -> Timing:
    """xlab's engine; SandboxError if the network it built does not work."""
    topo = underlay.row_of_switches(hosts, containers) if row else SingleSwitchTopo(k=hosts)

    def build() -> Mapping[str, Any]:
        before, spent_s = counters.memory(), _spent_s()
        begun = time.monotonic()
        lab = Lab(underlay.from_topo(topo))
        if containers:
            _bridge_scenario(lab, containers)
        else:
            lab.give_addresses(SUBNET, first=1, gateway=65_000)
        up_s, cpu_s = time.monotonic() - begun, _spent_s() - spent_s
        after = counters.memory()
        ends = lab.containers if containers else lab.hosts
        return {
            "up_s": up_s,
            "cpu_s": cpu_s,
            "works": not unreachable([(ends[0], ends[-1])], timeout_s=_ANSWER_WITHIN_S),
            "kernel_bytes": after.kernel - before.kernel,
            "process_bytes": after.processes - before.processes,
        }

    return _measure("xlab", build)


def _bridge_scenario(lab: Lab, containers: int) -> None:
    scenario = load(catalog.find("bridge"))
    settings = scenario.settings({})
    size = Size(hosts=len(lab.hosts), containers=containers)
    scenario.build(lab, scenario.plan(size, settings), size, settings, Unchecked(lab))


def measure_floor(hosts: int) -> Timing:
    """The least the kernel needs; SandboxError if the network does not work."""
    packed = floor.Floor(hosts)

    def build() -> Mapping[str, Any]:
        spent_s = _spent_s()
        up_s = packed.build()
        cpu_s = _spent_s() - spent_s
        first = namespaces.Namespaces(net=packed.namespaces[0], uts=namespaces.home().uts)
        ping = ["ping", "-n", "-c1", f"-w{_ANSWER_WITHIN_S:.0f}", str(floor.address(hosts - 1))]
        done = processes.run(ping, node="floor", namespaces=first, check=False, timeout_s=60.0)
        return {"up_s": up_s, "cpu_s": cpu_s, "works": done.returncode == 0}

    return _measure("floor", build)


def _spent_s() -> float:
    """Processor time of this process, and of its children that have ended."""
    spent = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in spent)


def measure_mininet(hosts: int) -> Timing:
    """Debian's Mininet; CommandError if it fails, SandboxError if its network does not work."""
    argv = [SYSTEM_PYTHON, "-W", "ignore", str(_STOCK), str(hosts)]

    def build() -> Mapping[str, Any]:
        done = processes.run(argv, node="mininet", timeout_s=_PATIENCE_S)
        times: dict[str, Any] = json.loads(done.stdout)
        return {
            "up_s": times["built"] - times["begun"],
            "works": times["works"],
            "stopping": times["stopping"],
            "down_s": times["stopped"] - times["stopping"],
        }

    return _measure("Mininet", build)


def _measure(name: str, build: Handler) -> Timing:
    """One contestant in a fresh sandbox; the kernel is idle before and when this returns.

    Whoever takes down by himself says when he began ("stopping") and how long it took ("down_s").
    """
    with cleanup() as await_freed:
        await_freed()
        done = run_inside(build)
        figures = {"down_s": done.ended_s, **done.result}
        if not figures.pop("works"):
            raise SandboxError(f"{name}: the first host does not reach the last")
        stopping = figures.pop("stopping", done.ending_at)
        await_freed()
        return Timing(freed_s=time.monotonic() - stopping, **figures)


# -- Debian's Mininet ------------------------------------------------------------------------------


def why_no_mininet() -> str:
    """What keeps Debian's Mininet from being measured here; empty if nothing."""
    if sandbox.kind() != "root":
        return "it needs root"
    found = subprocess.run(
        [SYSTEM_PYTHON, "-W", "ignore", "-c", "import mininet.net"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        return "Debian's package is not installed (--install)"
    for tool in ("mnexec", "brctl", "ifconfig"):
        if programs.locate(tool) is None:
            return f"{tool} is not installed (--install)"
    return ""


_POLICY = Path("/usr/sbin/policy-rc.d")


def install_mininet() -> None:
    """`apt-get install mininet bridge-utils net-tools`; no service starts meanwhile.

    CapabilityError where that can't be done.
    """
    if not why_no_mininet():
        return
    if os.geteuid() != 0:
        raise CapabilityError("installing Mininet needs root")
    # dpkg asks policy-rc.d before it starts a service; 101 means "not allowed".
    guard = not _POLICY.exists()
    if guard:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        packages = ["mininet", "bridge-utils", "net-tools"]
        for argv in (
            ["apt-get", "-qq", "update"],
            ["apt-get", "-qq", "-y", "install", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                argv,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise CapabilityError(
                    f"Mininet could not be installed: `{processes.command_line(argv)}` failed",
                    done.stderr.strip()[-2000:],
                )
    except FileNotFoundError as error:
        raise CapabilityError("Mininet could not be installed: no apt-get") from error
    finally:
        if guard:
            _POLICY.unlink()


# -- output ----------------------------------------------------------------------------------------


def save(result: Mapping[str, Any], path: Path) -> None:
    """Write `result` as JSON, whole or not at all."""
    disk.write_whole(path, (json.dumps(result, indent=1) + "\n").encode())


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
