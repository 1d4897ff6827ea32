"""How often the regression gate errs: false alarms, and losses it does not see.

    "$(bin/setup)" benchmarks/gate.py STORED [--resamples 1000] [--output gate.json]
    "$(bin/setup)" benchmarks/gate.py STORED --live 10 [--results DIR]

STORED is a comparison of at least thirty rounds.  Every second build of it makes the baseline; the
others are what later runs might have been: as many builds and rounds as a run has are drawn from
them with replacement, a thousand times.  Each drawn run is checked as it is (a line that fails is a
false alarm), and once a method with a fifth of that method's bits per second taken away.

With --live no figure is made up: comparisons are run, half of them with a method in which a token
bucket at the first container holds TCP to 80 % of what the method reached in the last comparison
that was run as it is (STORED, to begin with).  Each is checked against all of STORED.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlab import catalog, gate
from xlab.compare import result as comparisons
from xlab.compare.result import Comparison
from xlab.errors import UsageError, XlabError
from xlab.gate import Ratios, Summary

PLANTED = 0.8
METRIC = "tcp_bits_per_second"
LEAST_STORED = 30
#: What `xlab compare --quick` measures, which is what a CI can afford.
ROUNDS = 5

_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 1800

#: A scenario whose first container sends no faster than a token bucket lets it.  GSO segments are
#: up to 64 KiB: a bucket of a few ms takes many of them.
#: The bucket counts Ethernet's header, too, and those of each segment (qdisc_pkt_len_init).
_SLOWED = """
import dataclasses
from xlab import catalog, scenario

_original = scenario.load(catalog.find({name!r}))

def build(lab, plan, size, settings, check):
    flow = _original.build(lab, plan, size, settings, check)
    device = "ethwe" if "ethwe" in flow.source.interfaces() else "eth0"
    flow.source.configure(
        ["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "{rate:.0f}bit",
         "burst", "{burst:.0f}b", "latency", "50ms"]
    )
    return flow

SCENARIO = dataclasses.replace(_original, build=build)
"""


@dataclass(frozen=True, slots=True)
class Rates:
    """Of all runs: with any failed line; by (method, metric), failed; by method, a loss caught."""

    runs: int
    any_alarm: float
    alarms: dict[str, float]
    caught: dict[str, float]
    unclear: dict[str, float]


def main() -> int:
    options = _options()
    try:
        stored = gate.summarise(options.stored)
        if stored.provenance.rounds < LEAST_STORED:
            raise UsageError(
                f"{options.stored} has {stored.provenance.rounds} rounds; {LEAST_STORED} are wanted"
            )
        if options.live:
            found: Any = live(options.stored, stored, options.live, options.results)
        else:
            per_build = comparisons.load(options.stored).plan.rounds_per_build
            rates = resampled(stored, options.resamples, builds=-(-ROUNDS // per_build))
            found = dataclasses.asdict(rates)
            _print_rates(found)
    except XlabError as error:
        print(f"gate.py: {error}", file=sys.stderr)
        return error.exit_status
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


# -- drawn from stored rounds ----------------------------------------------------------------------


def resampled(stored: Summary, runs: int, *, builds: int, rounds: int = ROUNDS) -> Rates:
    """Check `runs` runs drawn from every second build of `stored` against the other builds."""
    before = _with_builds(stored, slice(0, None, 2))
    later = _with_builds(stored, slice(1, None, 2))
    generator = np.random.default_rng(2026)
    methods = [each.method for each in later.ratios if (each.metric, each.streams) == (METRIC, 1)]
    alarms = {_name(each): 0 for each in before.ratios}
    caught, unclear = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    any_alarm = 0
    for _ in range(runs):
        run = _drawn(later, generator, builds, rounds)
        failed = [line for line in gate.check(run, before) if line.failed]
        any_alarm += bool(failed)
        for line in failed:
            alarms[f"{line.method} {line.subject} {line.streams}"] += 1
        for method in methods:
            verdict = _verdict(gate.check(_slowed(run, method), _only(before, method)), method)
            caught[method] += verdict == "regressed"
            unclear[method] += verdict == "unclear"
    return Rates(
        runs,
        any_alarm / runs,
        *({name: n / runs for name, n in counts.items()} for counts in (alarms, caught, unclear)),
    )


def _with_builds(stored: Summary, chosen: slice) -> Summary:
    ratios = (dataclasses.replace(each, builds=each.builds[chosen]) for each in stored.ratios)
    return dataclasses.replace(stored, ratios=tuple(each for each in ratios if each.builds))


def _drawn(pool: Summary, generator: np.random.Generator, builds: int, rounds: int) -> Summary:
    """A run: the same builds and rounds are drawn for every ratio, as a run would have them."""
    most = max(len(each.builds) for each in pool.ratios)
    which = generator.integers(most, size=builds)
    sizes = [len(share) for share in np.array_split(np.arange(rounds), builds)]
    places = [generator.random(size) for size in sizes]

    def draw(each: Ratios) -> Ratios:
        chosen = (each.builds[number % len(each.builds)] for number in which)
        return dataclasses.replace(
            each,
            builds=tuple(
                tuple(build[int(place * len(build))] for place in where)
                for build, where in zip(chosen, places, strict=True)
            ),
        )

    return dataclasses.replace(pool, ratios=tuple(map(draw, pool.ratios)))


def _slowed(run: Summary, method: str) -> Summary:
    def slow(each: Ratios) -> Ratios:
        if (each.method, each.metric, each.streams) != (method, METRIC, 1):
            return each
        builds = tuple(tuple(PLANTED * ratio for ratio in build) for build in each.builds)
        return dataclasses.replace(each, builds=builds)

    return dataclasses.replace(run, ratios=tuple(map(slow, run.ratios)))


def _only(before: Summary, method: str) -> Summary:
    kept = tuple(r for r in before.ratios if (r.method, r.metric, r.streams) == (method, METRIC, 1))
    return dataclasses.replace(before, ratios=kept, facts=())


def _verdict(lines: Sequence[gate.Line], method: str) -> str:
    (found,) = (
        line for line in lines if (line.method, line.subject, line.streams) == (method, METRIC, 1)
    )
    return found.verdict


def _name(each: Ratios) -> str:
    return f"{each.method} {each.metric} {each.streams}"


def _print_rates(found: dict[str, Any]) -> None:
    print(f"{found['runs']} runs drawn: a false alarm in {found['any_alarm']:.1%}")
    for name, share in found["alarms"].items():
        print(f"  {share:6.1%}  {name}")
    print("a fifth fewer bits per second, planted in one method: caught")
    for name, share in found["caught"].items():
        print(f"  {share:6.1%}  {name}  (unclear {found['unclear'][name]:.1%})")


# -- live ------------------------------------------------------------------------------------------


def live(folder: Path, stored: Summary, pairs: int, results: Path) -> list[dict[str, Any]]:
    """Run `pairs` comparisons as they are and as many with one method slowed; check each."""
    latest = comparisons.load(folder)
    names = [method.name for method in latest.methods if method.name != "baseline"]
    found: list[dict[str, Any]] = []
    for number in range(1, pairs + 1):
        method = names[number % len(names)]
        for planted in random.sample([False, True], 2):
            try:
                told, outcome = _one(latest, stored, names, method if planted else None, results)
            except XlabError as error:
                told = {"planted": method if planted else None, "error": str(error)}
            else:
                if not planted and outcome.status == "passed":
                    latest = outcome
            found.append(told)
            print(json.dumps({"pair": number, **told}), flush=True)
    _print_live(found)
    return found


def _print_live(found: Sequence[dict[str, Any]]) -> None:
    done = [each for each in found if "error" not in each]
    plain = [each for each in done if each["planted"] is None]
    planted = [each for each in done if each["planted"] is not None]
    alarms = sum(bool(each["failed"]) for each in plain)
    caught = sum(each["caught"] for each in planted)
    print(f"{len(plain)} as they are: {alarms} with a false alarm")
    print(f"{len(planted)} with a loss planted: {caught} caught")
    if len(done) < len(found):
        print(f"{len(found) - len(done)} were not measured")


def _one(
    latest: Comparison,
    stored: Summary,
    names: Sequence[str],
    planted: str | None,
    results: Path,
) -> tuple[dict[str, Any], Comparison]:
    """A comparison, checked; with `planted` that method is slower than it was in `latest`."""
    told: dict[str, Any] = {"planted": planted}
    with tempfile.TemporaryDirectory() as folder:
        wanted = {name: name for name in names}
        if planted:
            wanted[planted] = str(_slowed_scenario(latest, planted, Path(folder)))
        made = _compare(list(wanted.values()), latest, results)
    outcome = comparisons.load(made)
    original = {given: name for name, given in wanted.items()}
    now = gate.summarise(made)
    renamed = dataclasses.replace(
        now,
        ratios=tuple(dataclasses.replace(r, method=original[r.method]) for r in now.ratios),
        facts=tuple(
            dataclasses.replace(f, method=original.get(f.method, f.method)) for f in now.facts
        ),
    )
    lines = gate.check(renamed, stored)
    if planted:
        reached = _bits_per_second(outcome, wanted[planted])
        before = _bits_per_second(latest, planted)
        told["reached"] = reached / before if reached and before else None
        told["caught"] = _verdict(lines, planted) == "regressed"
    told["failed"] = [f"{line.method} {line.subject}" for line in lines if line.failed]
    told["changes"] = {
        f"{line.method} {line.subject}": [round(line.change, 4), line.ci95, line.verdict]
        for line in lines
        if line.change is not None
    }
    return {**told, "result": made.name}, outcome


def _bits_per_second(comparison: Comparison, method: str) -> float | None:
    for figure in comparison.figures:
        if (figure.method, figure.metric, figure.streams) == (method, METRIC, 1) and figure.value:
            return figure.value.median
    return None


def _slowed_scenario(latest: Comparison, method: str, folder: Path) -> Path:
    name, _, variant = method.partition(":")
    if variant:
        raise UsageError(f"{method}: only plain scenarios are slowed")
    before = _bits_per_second(latest, method)
    mtu = next(each.effective_mtu for each in latest.methods if each.name == method)
    if before is None or mtu is None:
        raise UsageError(f"{method} has no throughput, or no MTU, in {latest.started_at}")
    # Of each frame (Ethernet 14 bytes) all but the headers of IP and TCP with timestamps.
    rate = PLANTED * before * (mtu + 14) / (mtu - 52)
    catalog.find(name)
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(_SLOWED.format(name=name, rate=rate, burst=max(rate / 8 * 0.004, 262144)))
    return file


def _compare(methods: Sequence[str], like: Comparison, results: Path) -> Path:
    plan = like.plan
    argv = [
        sys.executable, "-P", "-m", "xlab", "compare", *methods, "--results", str(results),
        "--duration", f"{plan.duration_s:g}", "--repeat", str(ROUNDS), "--most", str(ROUNDS),
        *(["--quick"] if plan.quick else []),
    ]  # fmt: skip
    before = set(_outcomes(results))
    try:
        status = subprocess.run(
            argv, cwd=_ROOT, check=False, timeout=_PATIENCE_S, stdout=subprocess.DEVNULL
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise XlabError(f"a comparison was not done in {_PATIENCE_S} s") from error
    made = set(_outcomes(results)) - before
    # A method that failed is missing in the outcome, which the gate must tell of.
    if len(made) != 1:
        raise XlabError(f"a comparison ended with status {status} and without an outcome")
    return made.pop()


def _outcomes(results: Path) -> Iterator[Path]:
    return (file.parent for file in results.glob(f"*/{comparisons.FILE}"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stored", type=Path, help="the folder of a comparison")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--live", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
