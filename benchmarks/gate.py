"""How often the regression gate errs: false alarms, and losses it does not see.

    "$(bin/setup)" benchmarks/gate.py STORED [--rounds 10] [--resamples 1000] [--output gate.json]
    "$(bin/setup)" benchmarks/gate.py STORED --live 10 [--rounds 10] [--results DIR]
    "$(bin/setup)" benchmarks/gate.py STORED --again LIVE.json [--results DIR]

STORED is a comparison of at least thirty rounds.  A thousand times as many of its builds as a later
run would have are drawn by lot; they are that run, and the other builds are the baseline.  It is
checked as it is (a line that fails is a false alarm), and once a method with a fifth of that
method's bits per second taken away.

With --live no figure is made up: comparisons are run, half of them with a method in which a token
bucket at the first container holds TCP to 80 % of what the method reached in the last comparison
that was run as it is (STORED, to begin with).  Each is checked against all of STORED; --again
checks once more those that --output has told of, with whatever the gate has become.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xlab.errors import UsageError, XlabError
from xlab.experiments import gate
from xlab.experiments.gate import Ratios, Summary
from xlab.kernel import disk
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, ComparisonPlan
from xlab.scenario import catalog

PLANTED = 0.8
METRIC = "tcp_bits_per_second"
LEAST_STORED = 30
#: Of the run that is checked: what `xlab compare` measures unless told otherwise.
ROUNDS = 10

_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 1800

#: A scenario whose first container sends no faster than a token bucket lets it.  GSO segments are
#: up to 64 KiB: a bucket of a few ms takes many of them.
#: The bucket counts Ethernet's header, too, and those of each segment (qdisc_pkt_len_init).
_SLOWED = """
import dataclasses
from xlab.scenario import catalog, scenario

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
        kept = comparisons.load(options.stored)
        if options.live:
            plan = dataclasses.replace(kept.plan, rounds=options.rounds)
            like = dataclasses.replace(kept, plan=plan)
            told = live(like, stored, options.live, options.results)
            print_live(_kept(told, options.output))
        elif options.again:
            before = json.loads(options.again.read_text())
            print_live(_kept(again(before, stored, options.results), options.output))
        else:
            builds = -(-options.rounds // kept.plan.rounds_per_build)
            rates = resampled(stored, options.resamples, builds=builds)
            _print_rates(dataclasses.asdict(rates))
            _save(dataclasses.asdict(rates), options.output)
    except XlabError as error:
        print(f"gate.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _kept(told: Iterable[dict[str, Any]], output: Path | None) -> list[dict[str, Any]]:
    """All of it, printed and saved as it comes: a comparison takes minutes."""
    found: list[dict[str, Any]] = []
    for each in told:
        found.append(each)
        print(json.dumps(each), flush=True)
        _save(found, output)
    return found


def _save(found: object, output: Path | None) -> None:
    if output:
        disk.write_whole(output, (json.dumps(found, indent=1) + "\n").encode())


# -- drawn from stored rounds ----------------------------------------------------------------------


def resampled(stored: Summary, runs: int, *, builds: int) -> Rates:
    """Check `runs` runs of so many builds, drawn from those of `stored`, against the others."""
    if len({len(each.builds) for each in stored.ratios}) > 1:
        raise UsageError("some build lacks a ratio that others have")
    generator = np.random.default_rng(2026)
    methods = [each.method for each in stored.ratios if (each.metric, each.streams) == (METRIC, 1)]
    alarms = {f"{each.method} {each.metric} {each.streams}": 0 for each in stored.ratios}
    caught, unclear = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    any_alarm = 0
    for _ in range(runs):
        run, before = _parted(stored, generator, builds)
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


def _parted(
    stored: Summary, generator: np.random.Generator, builds: int
) -> tuple[Summary, Summary]:
    """A run of so many builds, and the baseline of all others; the same ones for every ratio."""
    numbers = [int(number) for number in generator.permutation(len(stored.ratios[0].builds))]
    return _with_builds(stored, numbers[:builds]), _with_builds(stored, numbers[builds:])


def _with_builds(stored: Summary, numbers: Sequence[int]) -> Summary:
    ratios = (
        dataclasses.replace(each, builds=tuple(each.builds[number] for number in numbers))
        for each in stored.ratios
    )
    return dataclasses.replace(stored, ratios=tuple(ratios))


def _slowed(run: Summary, method: str) -> Summary:
    def slow(each: Ratios) -> Ratios:
        if each.key != (method, METRIC, 1):
            return each
        builds = tuple(tuple(PLANTED * ratio for ratio in build) for build in each.builds)
        return dataclasses.replace(each, builds=builds)

    return dataclasses.replace(run, ratios=tuple(map(slow, run.ratios)))


def _only(before: Summary, method: str) -> Summary:
    kept = tuple(each for each in before.ratios if each.key == (method, METRIC, 1))
    return dataclasses.replace(before, ratios=kept, facts=())


def _verdict(lines: Sequence[gate.Change], method: str) -> str:
    (found,) = (
        line for line in lines if (line.method, line.subject, line.streams) == (method, METRIC, 1)
    )
    return found.verdict


def _print_rates(found: dict[str, Any]) -> None:
    print(f"{found['runs']} runs drawn: a false alarm in {found['any_alarm']:.1%}")
    for name, share in found["alarms"].items():
        print(f"  {share:6.1%}  {name}")
    print("a fifth fewer bits per second, planted in one method: caught")
    for name, share in found["caught"].items():
        print(f"  {share:6.1%}  {name}  (unclear {found['unclear'][name]:.1%})")


# -- live ------------------------------------------------------------------------------------------


def live(
    latest: Comparison, stored: Summary, pairs: int, results: Path
) -> Iterator[dict[str, Any]]:
    """Run `pairs` comparisons as they are and as many with one method slowed; check each.

    They are planned like `latest`, which is what `stored` is of.
    """
    plan = latest.plan
    names = [method.name for method in latest.methods if method.name != "baseline"]
    for number in range(1, pairs + 1):
        method = names[number % len(names)]
        for planted in random.sample([None, method], 2):
            try:
                made, reached = _one(latest, names, planted, plan, results)
                yield {"reached": reached, **_checked(made, stored, planted)}
            except XlabError as error:
                yield {"planted": planted, "error": str(error)}
                continue
            outcome = comparisons.load(made)
            if not planted and outcome.status == "passed":
                latest = outcome


def again(
    told: Iterable[dict[str, Any]], stored: Summary, results: Path
) -> Iterator[dict[str, Any]]:
    """Check what `live` told of once more."""
    for each in told:
        if "error" in each:
            yield each
        else:
            yield {**each, **_checked(results / each["result"], stored, each["planted"])}


def print_live(found: Sequence[dict[str, Any]]) -> None:
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
    names: Sequence[str],
    planted: str | None,
    plan: ComparisonPlan,
    results: Path,
) -> tuple[Path, float | None]:
    """A comparison, with `planted` slower than it was in `latest`, and by how many times it was."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = {name: name for name in names}
        if planted:
            wanted[planted] = str(_slowed_scenario(latest, planted, Path(folder)))
        made = _compare(list(wanted.values()), plan, results)
    if planted is None:
        return made, None
    reached = _bits_per_second(comparisons.load(made), wanted[planted])
    before = _bits_per_second(latest, planted)
    return made, reached / before if reached and before else None


def _checked(made: Path, stored: Summary, planted: str | None) -> dict[str, Any]:
    now = gate.summarise(made)
    renamed = dataclasses.replace(
        now,
        ratios=tuple(dataclasses.replace(r, method=_original(r.method)) for r in now.ratios),
        facts=tuple(dataclasses.replace(f, method=_original(f.method)) for f in now.facts),
    )
    lines = gate.check(renamed, stored)
    return {
        "planted": planted,
        "caught": planted is not None and _verdict(lines, planted) == "regressed",
        "failed": [f"{line.method} {line.subject}" for line in lines if line.failed],
        "changes": {
            f"{line.method} {line.subject}": [round(line.change, 4), line.ci90, line.verdict]
            for line in lines
            if line.change is not None
        },
        "result": made.name,
    }


def _original(name: str) -> str:
    """The scenario that a file of `_slowed_scenario` makes slower, or whatever else has a name."""
    return Path(name).stem.replace("_", "-") if name.endswith(".py") else name


def _bits_per_second(comparison: Comparison, method: str) -> float | None:
    figure = comparisons.find(comparison.figures, method, METRIC)
    return figure.value.median if figure and figure.value else None


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


def _compare(methods: Sequence[str], plan: ComparisonPlan, results: Path) -> Path:
    argv = [
        sys.executable, "-P", "-m", "xlab", "compare", *methods, "--results", str(results),
        "--duration", f"{plan.duration_s:g}", "--repeat", f"{plan.rounds}",
        "--most", f"{plan.rounds}",
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
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--again", type=Path, metavar="LIVE.json")
    parser.add_argument("--live", type=int, default=0, metavar="PAIRS")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
