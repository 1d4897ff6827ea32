"""The regression gate: a result against a baseline, ratio by ratio.

    result ── ratios to the plain hosts of the same round ──┐
                                                            ├── change, interval, tolerance ─ Change
    baseline file: the same of an earlier result ───────────┘

Bits per second say which machine it was; their ratio to the plain hosts of the same round says what
the method costs, and that is what is compared.  A ratio has regressed when it is worse by more than
its tolerance *and* the interval of the change excludes "no change": the first keeps the gate from
shouting about what does not matter, the second from shouting about noise.  What is not measured but
counted (the effective MTU, the overhead, the encapsulation) must be the same.  A result of another
experiment (more hosts, another MTU, longer probes) is refused: its ratios would say nothing.

Pairing by round takes out what slows down all alike.  Whoever else keeps the processors busy slows
down those most whose packets pass through user space: such rounds are left out.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlab.errors import RecordError, UsageError
from xlab.experiments.compare import noise
from xlab.record import comparisons, metrics, record, result_files, stats
from xlab.record.comparisons import Comparison, Point
from xlab.record.figures import by_metric, figures, ratios_of
from xlab.record.intervals import LEAST_BUILDS, Key, by_build, paired, widening
from xlab.record.record import Environment, Measurement, PathProof, RunRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 1

_PATH_MTU = "path_mtu_bytes"
#: In virtual time the same code gives the same digits, whatever else the machine does: so small a
#: change is one of the code.
VIRTUAL_TOLERANCE = 0.02
#: Of a ratio to the plain hosts, whatever the method.
PLAUSIBLE = (1e-9, 1e9)
#: What a run that is held against a baseline is taken to have: so many are advised.
RUN_BUILDS = 10
#: Below so many rounds nothing can be told.
LEAST_ROUNDS = 3
#: Parameters that may differ: a ratio has its method, its rounds and its metric.
_NO_MATTER = ("scenario", "repeat", "probes")
#: Of what differs between two experiments.
_MOST_TOLD = 5
#: Of the interval of a change.  Only one of its ends can say that something is worse, and beyond
#: that one lies a twentieth.
_PERCENTILES = (5.0, 95.0)

Verdict = Literal["ok", "improved", "unclear", "regressed", "missing"]


@dataclass(frozen=True, slots=True)
class Ratios:
    """What the rounds gave for one metric of one method, as ratios to the plain hosts."""

    method: str
    metric: str
    streams: int
    higher_is_better: bool
    #: By build, each with one ratio a round.
    builds: tuple[tuple[float, ...], ...]
    #: The part by which it may become worse, 0.1 for 10 %.
    tolerance: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.method, self.metric, self.streams

    @property
    def rounds(self) -> int:
        return sum(map(len, self.builds))

    @property
    def median(self) -> float:
        return statistics.median(chain.from_iterable(self.builds))


@dataclass(frozen=True, slots=True)
class Fact:
    """What is counted rather than measured: it must not change at all."""

    method: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """What was asked of a method, and what it ran on."""

    method: str
    #: hosts, containers, mtu, link conditions, settings, duration …: as in a run record.
    parameters: dict[str, Any]
    #: e.g. "ovs 3.5.0 userspace (netdev)".
    datapath: str

    def asked(self) -> dict[str, Any]:
        """By name, what must be the same; a version may change, for that is what a gate is for."""
        told = {name: v for name, v in self.parameters.items() if name not in _NO_MATTER}
        # Older files are of the time when there was one clock.
        told.setdefault("clock", "real")
        settings = told.pop("settings", None)
        if isinstance(settings, dict):
            told |= {f"--set {name}": value for name, value in settings.items()}
        return {**told, "the datapath": re.sub(r" [0-9][^ ]*", "", self.datapath)}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a baseline comes from."""

    written_at: str
    #: When its measuring began.
    started_at: str
    #: The name of its folder or file.
    result: str
    rounds: int
    environment: Environment
    #: What must be known of the machine while it was measured; empty if it was quiet.
    noise: tuple[str, ...] = ()
    #: Rounds that do not count, for others kept the machine busy in them.
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """All that is compared of a result; as JSON it is the baseline file."""

    provenance: Provenance
    ratios: tuple[Ratios, ...]
    facts: tuple[Fact, ...]
    #: Empty in a file of an xlab that did not keep them.
    experiments: tuple[Experiment, ...] = ()
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Change:
    """The verdict on one ratio or fact."""

    verdict: Verdict
    method: str
    #: A metric's name, or a fact's.
    subject: str
    streams: int
    before: str
    now: str
    #: now / before - 1, and its 90 % interval, by build; None for facts.
    change: float | None = None
    ci90: tuple[float, float] | None = None
    tolerance: float | None = None
    #: What a reader must know, in words.
    remark: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict in ("regressed", "missing")

    def fails(self, *, strict: bool) -> bool:
        """Whether the result must not pass; of a `strict` gate nothing may be unclear."""
        return self.failed or (strict and self.verdict == "unclear")


# -- results ---------------------------------------------------------------------------------------


def summarise(result: Path) -> Summary:
    """A comparison's folder or file, or run records (a folder of them: builds of one lab, or labs).

    Raises RecordError for what cannot be read, UsageError for what holds no ratio, unless that is
    because others kept the machine busy in every round.
    """
    comparison = result / comparisons.FILE if result.is_dir() else result
    if comparison.name == comparisons.FILE and comparison.exists():
        summary = _of_comparison(comparisons.load(comparison), result.name)
    else:
        records, errors = result_files.load(result_files.find([result]))
        if errors:
            raise errors[0]
        summary = _of_records(list(records.values()), result.name)
    if not summary.ratios and not summary.provenance.left_out:
        raise UsageError(f"{result}: no method has a ratio to the plain hosts")
    _require_sound(result, summary)
    return summary


def _require_sound(file: Path, summary: Summary) -> None:
    """A change is a quotient of ratios: none may be zero, negative, or beyond all measure."""
    low, high = PLAUSIBLE
    for each in summary.ratios:
        ratios = [ratio for build in each.builds for ratio in build]
        if not all(each.builds) or not ratios or not all(low < ratio < high for ratio in ratios):
            raise RecordError(f"{file}: ratios of {each.method}, {each.metric}: they are none")
        if not 0 < each.tolerance < 1:
            raise RecordError(f"{file}: ratios of {each.method}, {each.metric}: no tolerance")


def _of_comparison(comparison: Comparison, name: str) -> Summary:
    cores = comparison.environment.cores
    kept = [each for each in comparison.rounds if not noise.is_disturbed(each, cores=cores)]
    counting = {each.number for each in kept}
    passed = [method for method in comparison.methods if method.status == "passed"]
    # By method, metric and streams: what the last pair of end points gave in each round.
    values: dict[tuple[str, str, int], dict[Key, float]] = {}
    for point in comparison.points:
        if point.route == "method" and point.median is not None and point.round in counting:
            of_one = values.setdefault((point.method, point.metric, point.streams), {})
            of_one[point.build, point.round] = point.median
    ratios: list[Ratios] = []
    for figure in comparison.figures:
        if figure.to_baseline is None or figure.method not in {method.name for method in passed}:
            continue
        what = (figure.metric, figure.streams)
        own, plain = (
            values.get((name, *what), {}) for name in (figure.method, comparison.baseline.name)
        )
        builds = by_build(paired(own, plain))
        ratios += _ratios(figure.method, *what, builds, comparison.environment)
    return Summary(
        Provenance(
            _now(),
            comparison.started_at,
            name,
            len(kept),
            comparison.environment,
            comparison.noise.reasons,
            left_out=len(comparison.rounds) - len(kept),
        ),
        tuple(ratios),
        tuple(
            fact
            for method in passed
            for fact in _facts(
                method.name, [method], (p for p in comparison.points if p.method == method.name)
            )
        ),
        tuple(Experiment(each.name, each.parameters, each.datapath) for each in passed),
    )


def _of_records(records: Sequence[RunRecord], name: str) -> Summary:
    """Several records of one scenario are builds of one lab, if the same was asked of them."""
    by_scenario: dict[str, list[RunRecord]] = {}
    for each in records:
        if each.status == "passed":
            by_scenario.setdefault(each.scenario, []).append(each)
    ratios: list[Ratios] = []
    facts: list[Fact] = []
    experiments: list[Experiment] = []
    for scenario, builds in by_scenario.items():
        first = builds[0]
        if any(build.parameters != first.parameters for build in builds):
            raise UsageError(
                f"{name}: {scenario} was run with different options; check one of them"
            )
        if len({build.environment.datapath for build in builds}) > 1:
            raise UsageError(f"{name}: {scenario} was run on several datapaths; check one of them")
        experiments.append(Experiment(scenario, first.parameters, first.environment.datapath))
        ratios += _ratios_of(scenario, builds)
        measured = chain.from_iterable(build.measurements for build in builds)
        facts += _facts(scenario, [build.path for build in builds if build.path], measured)
    if not by_scenario:
        raise UsageError(f"{name}: no record has passed")
    first = next(iter(by_scenario.values()))[0]
    rounds = max((each.rounds for each in ratios), default=0)
    provenance = Provenance(_now(), first.started_at, name, rounds, first.environment)
    return Summary(provenance, tuple(ratios), tuple(facts), tuple(experiments))


def _ratios_of(scenario: str, builds: Sequence[RunRecord]) -> Iterator[Ratios]:
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for build in builds:
        measured = by_metric(build.measurements)
        for figure in figures(build):
            if figure.to_baseline is not None:
                key = figure.metric, figure.streams
                found.setdefault(key, []).append(ratios_of(measured[key], "method").rounds)
    for (metric, streams), ratios in found.items():
        yield from _ratios(scenario, metric, streams, ratios, builds[0].environment)


def _facts(
    method: str,
    paths: Sequence[PathProof | comparisons.MethodResult],
    measured: Iterable[Measurement | Point],
) -> list[Fact]:
    """What is on record of a method's builds, and what a probe of the path's MTU gave."""
    found = {}
    for name in ("encapsulation", "effective_mtu", "overhead_bytes"):
        values = [getattr(path, name) for path in paths]
        # The one that all builds have; if they differ, each of them.
        found[name] = " or ".join(dict.fromkeys(str(v) for v in values if v is not None))
    mtus = [
        m.median
        for m in measured
        if (m.route, m.metric) == ("method", _PATH_MTU) and m.median is not None
    ]
    if mtus:
        # A probe whose packets are lost finds less than passes, and never more.
        found[_PATH_MTU] = f"{max(mtus):.0f}"
    return [Fact(method, name, value) for name, value in found.items() if value]


def _ratios(
    method: str,
    metric: str,
    streams: int,
    builds: Sequence[tuple[float, ...]],
    environment: Environment,
) -> Iterator[Ratios]:
    """What is held against a baseline; nothing of what is a fact."""
    row = metrics.of(metric)
    exact = environment.clock == "virtual"
    tolerance = VIRTUAL_TOLERANCE if exact else row.tolerance
    if builds and not row.counted:
        yield Ratios(method, metric, streams, row.higher_is_better, tuple(builds), tolerance)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# -- the baseline file -----------------------------------------------------------------------------


def load(file: Path) -> Summary:
    """Read a baseline file; RecordError names the file and the place in it."""
    summary = record.load_document(file, partial(record.from_document, Summary))
    _require_sound(file, summary)
    return summary


def update(file: Path, result: Summary, tolerance: float | None = None) -> None:
    """Write `result` as the baseline, whole or not at all; tolerances that the file had stay.

    A `tolerance` takes the place of all of them.

    Raises UsageError for one that would be empty.
    """
    if not result.ratios:
        raise UsageError(f"{result.provenance.result} is no baseline: {_busy(result)}")
    old = {each.key: each.tolerance for each in load(file).ratios} if file.exists() else {}
    kept = dataclasses.replace(
        result,
        ratios=tuple(
            dataclasses.replace(each, tolerance=old.get(each.key, each.tolerance))
            for each in result.ratios
        ),
    )
    record.write_document(file, record.to_document(tolerating(kept, tolerance)))


# -- the verdict -----------------------------------------------------------------------------------


def tolerating(baseline: Summary, tolerance: float | None) -> Summary:
    """The same baseline with one tolerance for every ratio of it, 0.1 for 10 %; None leaves it.

    Raises UsageError for a tolerance that every rate would keep.
    """
    if tolerance is None:
        return baseline
    if not 0 < tolerance < 1:
        raise UsageError(f"a tolerance lies between 0% and 100%, which {tolerance:.3g} does not")
    ratios = tuple(dataclasses.replace(each, tolerance=tolerance) for each in baseline.ratios)
    return dataclasses.replace(baseline, ratios=ratios)


def check(result: Summary, baseline: Summary) -> list[Change]:
    """A line for each ratio and fact of the baseline, in its order.

    Raises UsageError for a result of another experiment than the baseline says it is of.
    """
    _require_same_experiment(result, baseline)
    now = {each.key: each for each in result.ratios}
    exact = baseline.provenance.environment.clock == "virtual"
    lines = []
    for before in _gating(baseline.ratios):
        line = _check_ratio(now.get(before.key), before, exact=exact)
        # A method that passed has facts, whatever became of its ratios.
        there = any(fact.method == before.method for fact in result.facts)
        if line.verdict == "missing" and there and result.provenance.left_out:
            line = dataclasses.replace(line, verdict="unclear", remark=_busy(result))
        lines.append(line)
    missed = {line.method for line in lines}
    facts = {(fact.method, fact.name): fact.value for fact in result.facts}
    measured = {each.method for each in result.ratios} | {fact.method for fact in result.facts}
    lines += [
        _check_fact(facts.get((before.method, before.name)), before)
        for before in baseline.facts
        # A method that is not there at all is missed once, by its ratios if it had any.
        if before.method in measured or before.method not in missed
    ]
    return lines


def _require_same_experiment(result: Summary, baseline: Summary) -> None:
    """An option that only one of the two knows of is one that the other's xlab did not have."""
    now = {each.method: each.asked() for each in result.experiments}
    methods: dict[str, list[str]] = {}
    for each in baseline.experiments:
        here, before = now.get(each.method, {}), each.asked()
        for name, value in here.items():
            if value != before.get(name, value):
                change = f"{name} is {_said(value)}, was {_said(before[name])}"
                methods.setdefault(change, []).append(each.method)
    for change in _other_guest(result, baseline):
        methods.setdefault(change, ["the virtual clock"])
    if methods:
        told = [f"{what} ({', '.join(names)})" for what, names in methods.items()]
        if len(told) > _MOST_TOLD:
            told[_MOST_TOLD:] = [f"and {len(told) - _MOST_TOLD} more"]
        raise UsageError(
            f"{result.provenance.result} is another experiment than the baseline: {'; '.join(told)}"
        )


def _other_guest(result: Summary, baseline: Summary) -> Iterator[str]:
    """Figures of the virtual clock are those of one guest: another's differ for no one's fault."""
    here, before = result.provenance.environment.virtual, baseline.provenance.environment.virtual
    if here and before and here.identity != before.identity:
        yield (
            f"its guest is {here.identity}, was {before.identity}"
            + (f" ({', '.join(here.differences[:_MOST_TOLD])})" if here.differences else "")
        )


def _said(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.15g}" if isinstance(value, int | float) else str(value)[:80]


def differences(result: Summary, baseline: Summary) -> list[str]:
    """What must be known to read the lines: how the machines differ, and whether one was noisy."""
    then, here = baseline.provenance.environment, result.provenance.environment
    found = [
        f"the baseline is of {name} {old}, this is {new}"
        for name, old, new in (
            ("kernel", then.kernel, here.kernel),
            ("CPU", then.cpu_model, here.cpu_model),
            ("cores", then.cores, here.cores),
            ("congestion control", then.congestion_control, here.congestion_control),
            *((tool, then.tools.get(tool), here.tools.get(tool)) for tool in _TOOLS),
        )
        if old != new
    ]
    if not baseline.experiments:
        found.append(
            "the baseline does not say with which options it was measured: whether these are the "
            "same is not checked"
        )
    found += [f"the machine was noisy: {reason}" for reason in result.provenance.noise]
    if result.provenance.left_out:
        found.append(_busy(result))
    return found


def _busy(result: Summary) -> str:
    left_out = result.provenance.left_out
    total = result.provenance.rounds + left_out
    return f"{left_out} of {total} rounds do not count: others kept the machine busy in them"


#: Whose versions change figures.
_TOOLS = ("ovs-vswitchd", "iperf3")


def _gating(ratios: Sequence[Ratios]) -> Iterator[Ratios]:
    """All but what another tells better, where there is that other.

    What is a fact today was a ratio in older files.
    """
    there = {(each.method, each.metric) for each in ratios}
    for each in ratios:
        row = metrics.of(each.metric)
        told_better = row.better_told and (each.method, row.better_told) in there
        if not told_better and not row.counted:
            yield each


def _check_ratio(now: Ratios | None, before: Ratios, *, exact: bool) -> Change:
    was = f"{before.median:.3g}"
    if now is None:
        remark = "the baseline has it, the result has not"
        return Change("missing", *before.key, was, "nothing", remark=remark)
    change = now.median / before.median - 1
    if exact:
        verdict = _judge_exact(change, before)
        return Change(
            verdict, *before.key, was, f"{now.median:.3g}", change, None, before.tolerance
        )
    ci90 = _interval(now, before)
    tolerance = _tolerance(before)
    verdict, remark = _judge(change, ci90, tolerance, now, before)
    return Change(verdict, *before.key, was, f"{now.median:.3g}", change, ci90, tolerance, remark)


def _tolerance(before: Ratios) -> float:
    """The baseline's; but where half of its rounds lie further apart, as far as most do.

    Plain hosts answer in 6 us or in 80 on some virtual machines, from one round to the next.  Then
    an interval of 90 %, which misses the truth once in twenty on that side, is all that is left
    between noise and an alarm, and six of a hundred runs raised one.
    """
    import numpy as np

    rounds = np.log(np.concatenate(before.builds))
    least, low, high, most = np.percentile(rounds, (10, 25, 75, 90))
    if high - low <= 2 * math.log1p(before.tolerance):
        return before.tolerance
    # A rate can't fall by more than all of itself.
    apart = float(most - least)
    return -math.expm1(-apart) if before.higher_is_better else math.expm1(apart)


def detectable_changes(baseline: Summary) -> dict[tuple[str, int], dict[str, float]]:
    """By metric and streams, then by method: the least change for the worse that a run will show.

    The minimum detectable effect: 99 of 100 runs of RUN_BUILDS builds call a change by that part,
    0.2 for 20 %, regressed, if the machine stays as it was.  What the baseline has fewer than three
    builds of is left out.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for each in _gating(baseline.ratios):
        if len(each.builds) >= LEAST_BUILDS:
            by_method = found.setdefault((each.metric, each.streams), {})
            by_method[each.method] = _detectable_change(each)
    return found


def _detectable_change(before: Ratios) -> float:
    import numpy as np

    builds = _centred(before)
    off = _off(builds, RUN_BUILDS, seed=1) - _off(builds, len(builds), seed=2)
    noise = float(np.max(np.abs(np.percentile(off, (1.0, 99.0)))))
    tolerance = _tolerance(before)
    if before.higher_is_better:
        return -math.expm1(-(max(-math.log1p(-tolerance), noise) + noise))
    return math.expm1(max(math.log1p(tolerance), noise) + noise)


def _interval(now: Ratios, before: Ratios) -> tuple[float, float] | None:
    """The 90 % interval of now / before - 1, from how medians are off when drawn anew, by build.

    A run has few builds, and how they happen to differ says little of how builds do.  So both sides
    are drawn from the builds of both, each build by how it differs from its own side, and the
    interval is widened as in a comparison of so many; where each side drawn from its own builds
    gives a wider one, because the machine was noisier then, it reaches as far.  None if neither
    side has builds enough.
    """
    most_builds = max(len(now.builds), len(before.builds))
    if min(now.rounds, before.rounds) < LEAST_ROUNDS or most_builds < LEAST_BUILDS:
        return None
    import numpy as np

    sides = [_centred(now), _centred(before)]
    both = [build for side in sides for build in side]
    own = _off(sides[0], len(sides[0]), seed=1) - _off(sides[1], len(sides[1]), seed=2)
    common = _off(both, len(sides[0]), seed=1) - _off(both, len(sides[1]), seed=2)
    # Two centres were taken from these builds, where a comparison takes one.
    common *= widening(len(both) - 1)
    ends = [np.percentile(drawn, _PERCENTILES) for drawn in (own, common)]
    middle = math.log(now.median / before.median)
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return math.expm1(middle + low), math.expm1(middle + high)


def _centred(ratios: Ratios) -> list[NDArray[np.float64]]:
    """The logarithms of each build, less their median over all."""
    import numpy as np

    builds = [np.log(build) for build in ratios.builds]
    middle = np.median(np.concatenate(builds))
    return [build - middle for build in builds]


def _off(builds: Sequence[NDArray[np.float64]], count: int, *, seed: int) -> NDArray[np.float64]:
    """Medians of `count` of them.  Drawn alike, two sides of one shape would vary in step."""
    import numpy as np

    return stats.clustered_medians(builds, generator=np.random.default_rng(seed), count=count)


def _judge_exact(change: float, before: Ratios) -> Verdict:
    """Of the virtual clock: chance has no part in it, so one build of each side will do."""
    worse = -change if before.higher_is_better else change
    if abs(worse) <= before.tolerance:
        return "ok"
    return "regressed" if worse > 0 else "improved"


def _judge(
    change: float,
    ci90: tuple[float, float] | None,
    tolerance: float,
    now: Ratios,
    before: Ratios,
) -> tuple[Verdict, str]:
    worse = -change if before.higher_is_better else change
    if ci90 is None and min(now.rounds, before.rounds) < LEAST_ROUNDS:
        return "unclear", f"fewer than {LEAST_ROUNDS} rounds"
    if abs(worse) <= before.tolerance:
        return "ok", ""
    if abs(worse) <= tolerance:
        return "unclear", f"its rounds lie so far apart that up to {tolerance:.0%} says nothing"
    if ci90 is None:
        return "unclear", f"beyond the tolerance, but neither side has {LEAST_BUILDS} builds"
    if ci90[0] <= 0 <= ci90[1]:
        said = "beyond the tolerance, but the interval spans no change: measure more rounds"
        return "unclear", said
    if worse > 0:
        return "regressed", ""
    return "improved", "--update takes it for the new baseline"


def _check_fact(now: str | None, before: Fact) -> Change:
    verdict: Verdict = "missing" if now is None else "ok" if now == before.value else "regressed"
    return Change(verdict, before.method, before.name, 1, before.value, now or "nothing")
