"""How often the regression gate errs: false alarms, and losses it does not see.

    "$(bin/setup)" benchmarks/gate.py STORED [--resamples 1000] [--output gate.json]
    "$(bin/setup)" benchmarks/gate.py STORED --live 10 [--results DIR]

STORED is a comparison of at least thirty rounds.  Every second build of it makes the baseline; the
others are what later runs might have been: as many builds and rounds as a run has are drawn from
them with replacement, a thousand times.  Each drawn run is checked as it is (a line that fails is a
false alarm), and once a method with a fifth of that method's bits per second taken away.

With --live no figure is made up: comparisons are run, half of them with a method in which a token
bucket at the first container holds its rate to 80 % of what STORED reached.  Each is checked
against all of STORED.
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
from xlab.errors import UsageError, XlabError
from xlab.gate import Ratios, Summary

PLANTED = 0.8
METRIC = "tcp_bits_per_second"
LEAST_STORED = 30
#: What `xlab compare` does unless told otherwise.
BUILDS, ROUNDS = 3, 10

_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 1800

#: A scenario whose first container sends no faster than a token bucket lets it.  GSO segments are
#: up to 64 KiB: a bucket of a few ms takes many of them.
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
            found = dataclasses.asdict(resampled(stored, options.resamples))
            _print_rates(found)
    except XlabError as error:
        print(f"gate.py: {error}", file=sys.stderr)
        return error.exit_status
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


# -- drawn from stored rounds ----------------------------------------------------------------------


def resampled(stored: Summary, runs: int, *, builds: int = BUILDS, rounds: int = ROUNDS) -> Rates:
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
    comparison = comparisons.load(folder)
    names = [method.name for method in comparison.methods if method.name != "baseline"]
    found = []
    for number in range(1, pairs + 1):
        method = names[number % len(names)]
        for planted in random.sample([False, True], 2):
            found.append(_one(comparison, stored, names, method if planted else None, results))
            print(json.dumps({"pair": number, **found[-1]}), flush=True)
    alarms = sum(each["planted"] is None and bool(each["failed"]) for each in found)
    caught = sum(each["caught"] for each in found)
    print(
        f"{pairs} as they are: {alarms} false alarms; {pairs} with a loss planted: {caught} caught"
    )
    return found


def _one(
    comparison: comparisons.Comparison,
    stored: Summary,
    names: Sequence[str],
    planted: str | None,
    results: Path,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        wanted = {name: name for name in names}
        if planted:
            wanted[planted] = str(_slowed_scenario(comparison, planted, Path(folder)))
        outcome = _compare(list(wanted.values()), comparison, results)
    original = {given: name for name, given in wanted.items()}
    now = gate.summarise(outcome)
    renamed = dataclasses.replace(
        now,
        ratios=tuple(dataclasses.replace(r, method=original[r.method]) for r in now.ratios),
        facts=tuple(
            dataclasses.replace(f, method=original.get(f.method, f.method)) for f in now.facts
        ),
    )
    lines = gate.check(renamed, stored)
    failed = [f"{line.method} {line.subject}" for line in lines if line.failed]
    return {
        "planted": planted,
        "failed": failed,
        "caught": planted is not None and _verdict(lines, planted) == "regressed",
        "changes": {f"{r.method} {r.subject}": r.change for r in lines if r.change is not None},
        "result": outcome.name,
    }


def _slowed_scenario(comparison: comparisons.Comparison, method: str, folder: Path) -> Path:
    (figure,) = (
        f for f in comparison.figures if (f.method, f.metric, f.streams) == (method, METRIC, 1)
    )
    assert figure.value is not None
    rate = PLANTED * figure.value.median
    name, _, variant = method.partition(":")
    if variant:
        raise UsageError(f"{method}: only plain scenarios are slowed")
    catalog.find(name)
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(_SLOWED.format(name=name, rate=rate, burst=max(rate / 8 * 0.004, 262144)))
    return file


def _compare(methods: Sequence[str], comparison: comparisons.Comparison, results: Path) -> Path:
    plan = comparison.plan
    argv = [
        sys.executable, "-P", "-m", "xlab", "compare", *methods, "--results", str(results),
        "--duration", f"{plan.duration_s:g}", "--repeat", str(ROUNDS), "--most", str(ROUNDS),
        *(["--quick"] if plan.quick else []),
    ]  # fmt: skip
    before = set(_outcomes(results))
    subprocess.run(argv, cwd=_ROOT, check=True, timeout=_PATIENCE_S, stdout=subprocess.DEVNULL)
    (made,) = set(_outcomes(results)) - before
    return made


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
