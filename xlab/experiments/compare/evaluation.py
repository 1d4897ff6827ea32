"""What a journal comes to: points, figures, places, the verdict on noise, and whether to stop.

Intervals are looked at again and again while the rounds go on, and a comparison that stops at the
first narrow ones stops a little too soon.  Three things keep that small: nobody looks before
LEAST_BUILDS builds of each lab, nor other than after a full set of builds; what decides is how wide
an interval is, never on which side of 1 it lies; and the number of rounds is bounded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from xlab.experiments.compare import noise
from xlab.experiments.compare.journal import Built, Disturbed, Ended, History, RoundDone
from xlab.experiments.compare.methods import Method
from xlab.record import intervals, metrics
from xlab.record.comparisons import (
    Build,
    Comparison,
    Ending,
    Figure,
    Look,
    MethodResult,
    Pair,
    Place,
    Point,
    Ratio,
    Recovery,
    Round,
)
from xlab.record.figures import failed_samples
from xlab.record.intervals import Values
from xlab.record.record import Clock, Measurement, Route, RunRecord, Status


def evaluate(history: History, ended: Ended | None = None) -> Comparison:
    """The outcome of a comparison that has ended, or is taken to have, and has a build at least."""
    ended = history.ended or ended
    assert ended is not None
    methods = tuple(_method(history, asked) for asked in history.opening.methods)
    rounds = tuple(map(_round, history.rounds))
    points = tuple(_points(history))
    by_metric = _by_metric(points)
    clock = history.opening.plan.clock
    pairs = tuple(_pairs(by_metric, methods, clock))
    status, reason = _status(methods)
    first = _record(history, history.opening.methods[0])
    plain = {key: list(_values(of, methods[0].name).values()) for key, of in by_metric.items()}
    return Comparison(
        started_at=history.opening.started_at,
        ended_at=ended.at,
        status=status,
        reason=reason,
        plan=history.opening.plan,
        environment=first.environment,
        methods=methods,
        rounds=rounds,
        points=points,
        figures=tuple(_figures(by_metric, methods, clock)),
        pairs=pairs,
        places=tuple(_places(pairs)),
        noise=noise.judge(rounds, plain, cores=first.environment.cores),
        looks=tuple(history.looks),
        ending=ended.ending,
        sessions=len(history.sessions),
        notes=tuple(_notes(history, pairs)),
        recoveries=tuple(_recoveries(history)),
    )


# -- when to stop ----------------------------------------------------------------------------------


def look(history: History) -> Look | None:
    """What the intervals are like; None while it is too soon to look, or nothing is new.

    To be asked between two builds.
    """
    plan = history.opening.plan
    done = len(history.rounds)
    builds = len({each.build for each in history.rounds})
    settled = plan.most_rounds == plan.rounds
    seen = history.looks[-1].rounds if history.looks else 0
    if settled or builds < plan.least_builds or seen == done:
        return None
    live, widest, whose = _live(history), 0.0, ""
    for (metric, _), of_method in _by_metric(_points(history)).items():
        if not metrics.of(metric).decides:
            continue
        baseline = _values(of_method, live[0])
        for name in live[1:]:
            found = _ratio(metric, _values(of_method, name), baseline, plan.clock)
            if found is None:
                continue  # what never gives a figure is not waited for
            width = intervals.half_width(found)
            if width is None:
                return Look(done, builds, None, f"{name}, {metric}")
            if width > widest:
                widest, whose = width, f"{name}, {metric}"
    return Look(done, builds, widest if whose else None, whose)


def ending(history: History) -> Ending | None:
    """Whether to stop now, and why; None to go on.  To be asked after the look."""
    plan = history.opening.plan
    done = len(history.rounds)
    if history.builds and len(_live(history)) < 2:
        return "alone"
    last = history.looks[-1] if history.looks else None
    if last and last.rounds == done and last.widest is not None and last.widest <= plan.precision:
        return "narrow"
    if done >= plan.most_rounds:
        return "planned" if plan.most_rounds == plan.rounds else "bound"
    return None


def _live(history: History) -> list[str]:
    out = history.out()
    return [method.name for method in history.opening.methods if method.name not in out]


# -- methods and rounds ----------------------------------------------------------------------------


def _method(history: History, asked: Method) -> MethodResult:
    builds = [built for built in history.builds if built.method == asked.name]
    first = _record(history, asked)
    status, reason = history.out().get(asked.name, ("passed", ""))
    return MethodResult(
        name=asked.name,
        scenario=first.scenario,
        settings={str(k): str(v) for k, v in (first.parameters.get("settings") or {}).items()},
        parameters=first.parameters,
        folder=asked.folder,
        status=status,
        reason=reason,
        datapath=first.environment.datapath,
        datapath_class=first.environment.datapath_class,
        encapsulation=first.path.encapsulation if first.path else None,
        effective_mtu=first.path.effective_mtu if first.path else None,
        builds=tuple(_build(history, asked, built) for built in builds),
        overhead_bytes=first.path.overhead_bytes if first.path else None,
    )


def _record(history: History, asked: Method) -> RunRecord:
    """Of the first build that was not void; if every one was, of the first."""
    void = history.void_builds()
    own = [built for built in history.builds if built.method == asked.name]
    return next((b.record for b in own if b.build not in void), own[0].record)


def _build(history: History, asked: Method, built: Built) -> Build:
    result = history.record_of(built)
    timings = result.timings_s
    key = (built.method, built.build)
    first = [each for each in history.retries if (each.method, each.build) == key]
    return Build(
        number=built.build,
        folder=build_folder(asked, built.build),
        status=result.status,
        reason=result.reason,
        claims=len(result.claims),
        claims_held=sum(claim.holds for claim in result.claims),
        path_proved=bool(result.path and result.path.proved and result.path.negative_control),
        seconds=round(timings.sandbox + timings.build + timings.verify, 4),
        first_try=first[0].record.reason if first else "",
    )


def build_folder(asked: Method, build: int) -> str:
    """Where the run record of that build is, relative to the comparison's folder."""
    return f"{asked.folder}/b{build}"


def _round(done: RoundDone) -> Round:
    return Round(
        number=done.number,
        build=done.build,
        started_at=done.started_at,
        seconds=round(sum(done.seconds.values()), 4),
        order=done.order,
        load=done.load,
        steal_share=done.steal_share,
        foreign_busy_cores=done.foreign_busy_cores,
    )


def _status(methods: Sequence[MethodResult]) -> tuple[Status, str]:
    reasons = [f"{m.name} {m.status}: {m.reason}" for m in methods if m.status != "passed"]
    for status in ("failed", "skipped"):
        if any(method.status == status for method in methods):
            return status, "; ".join(reasons)
    return "passed", ""


# -- figures ---------------------------------------------------------------------------------------


#: What there are points of, in the usual order, and by method the points of it.
ByMetric = Mapping[tuple[str, int], Mapping[str, Sequence[Point]]]


def _points(history: History) -> Iterator[Point]:
    """Of the rounds, then of what disturbs: that is in the last round before."""
    for done in history.rounds:
        for method, measured in _measured(done):
            yield _point(method, done.number, done.build, measured)
    for after in history.disturbed:
        for method, measured in _measured(after):
            yield _point(method, after.round, after.build, measured)


def _measured(done: RoundDone | Disturbed) -> Iterator[tuple[str, Measurement]]:
    for method in done.order:
        for measured in done.measurements.get(method, ()):
            yield method, measured


def _point(method: str, number: int, build: int, measured: Measurement) -> Point:
    return Point(
        method=method,
        route=measured.route,
        metric=measured.metric,
        streams=measured.streams,
        unit=measured.unit,
        round=number,
        build=build,
        median=measured.median,
        samples=len(measured.samples),
        failed_samples=measured.failed_samples,
        error=str(measured.detail.get("error") or ""),
    )


def _by_metric(points: Iterable[Point]) -> ByMetric:
    found: dict[tuple[str, int], dict[str, list[Point]]] = {}
    for point in points:
        of_method = found.setdefault((point.metric, point.streams), {})
        of_method.setdefault(point.method, []).append(point)
    return {key: found[key] for key in sorted(found, key=metrics.order)}


def _values(
    of_method: Mapping[str, Sequence[Point]], method: str, route: Route = "method"
) -> Values:
    return intervals.by_round(each for each in of_method.get(method, ()) if each.route == route)


def _ratio(metric: str, above: Values, below: Values, clock: Clock) -> Ratio | None:
    row = metrics.of(metric)
    if not row.has_ratios:
        return None
    return intervals.ratio(
        above,
        below,
        more_is_better=row.higher_is_better,
        resolution=intervals.RESOLUTION if clock == "virtual" else None,
    )


def _figures(points: ByMetric, methods: Sequence[MethodResult], clock: Clock) -> Iterator[Figure]:
    for (metric, streams), of_method in points.items():
        baseline = _values(of_method, methods[0].name)
        for number, method in enumerate(methods):
            own = of_method.get(method.name)
            if not own:
                continue
            values = _values(of_method, method.name)
            control = _values(of_method, method.name, "control")
            yield Figure(
                method=method.name,
                metric=metric,
                streams=streams,
                unit=own[0].unit,
                higher_is_better=metrics.of(metric).higher_is_better,
                value=intervals.estimate(values),
                control=intervals.estimate(control),
                to_baseline=_ratio(metric, values, baseline, clock) if number else None,
                to_control=_ratio(metric, values, control, clock),
                failed_samples=failed_samples(own),
            )


def _pairs(points: ByMetric, methods: Sequence[MethodResult], clock: Clock) -> Iterator[Pair]:
    """Every two methods of a class that passed, the baseline aside."""
    for kind in sorted({method.datapath_class for method in methods[1:]}):
        members = [m.name for m in methods[1:] if (m.datapath_class, m.status) == (kind, "passed")]
        for (metric, streams), of_method in points.items():
            values = {name: _values(of_method, name) for name in members}
            for name, other in itertools.combinations(members, 2):
                ratio = _ratio(metric, values[name], values[other], clock)
                if ratio:
                    yield Pair(kind, metric, streams, name, other, ratio)


def _places(pairs: Sequence[Pair]) -> Iterator[Place]:
    contests = dict.fromkeys((pair.datapath_class, pair.metric, pair.streams) for pair in pairs)
    for contest in contests:
        met = [p for p in pairs if (p.datapath_class, p.metric, p.streams) == contest]
        names = dict.fromkeys(name for pair in met for name in (pair.method, pair.other))
        if any(pair.ratio.verdict == "unknown" for pair in met):
            continue
        ahead = dict.fromkeys(names, 0)
        for pair in met:
            if pair.ratio.verdict != "indistinguishable":
                ahead[pair.other if pair.ratio.verdict == "faster" else pair.method] += 1
        for name in names:
            yield Place(*contest, method=name, place=1 + ahead[name], of=len(names))


def _recoveries(history: History) -> Iterator[Recovery]:
    for after in history.disturbed:
        for method, measured in _measured(after):
            if measured.probe != "recovery":
                continue
            told = measured.detail
            stopped, mend_s = told.get("stopped"), told.get("mend_s")
            yield Recovery(
                method=method,
                build=after.build,
                metric=measured.metric,
                fault=str(told.get("fault") or ""),
                mended_by=str(told.get("mended_by") or ""),
                started_at=measured.started_at,
                recovery_s=measured.median,
                stopped=stopped if isinstance(stopped, bool) else None,
                mend_s=mend_s if isinstance(mend_s, float) else None,
                error=str(told.get("error") or ""),
            )


# -- in words --------------------------------------------------------------------------------------


def _notes(history: History, pairs: Sequence[Pair]) -> Iterator[str]:
    plan = history.opening.plan
    builds = len({done.build for done in history.rounds})
    exact = plan.clock == "virtual" and builds < intervals.LEAST_BUILDS
    if history.rounds and exact:
        yield (
            f"{builds} of the virtual clock's builds: the same code gives the same digits again. "
            f"Another seed may move a ratio by some percent, so {intervals.RESOLUTION:.0%} count "
            f"for no difference; --repeat {intervals.LEAST_BUILDS} measures that."
        )
    elif history.rounds and builds < intervals.LEAST_BUILDS:
        yield (
            f"{builds} builds are too few for intervals: it takes {intervals.LEAST_BUILDS} to "
            "know how much one differs from the next."
        )
    elif history.rounds:
        yield (
            f"95 % intervals by bootstrap over {builds} builds, then over the rounds of each, "
            "widened for so few builds."
        )
    for build, reason in history.void_builds().items():
        yield f"Build {build} is void, for the baseline failed in it: {reason}"
    for after in history.disturbed:
        for method, reason in after.errors.items():
            yield f"{method} did not get over being disturbed in build {after.build}: {reason}"
    for retried in history.retries:
        yield (
            f"{retried.method} was built twice in build {retried.build}, for it failed the first "
            f"time: {retried.record.reason}"
        )
    if history.looks:
        times = "once" if len(history.looks) == 1 else f"{len(history.looks)} times"
        yield (
            f"The intervals were looked at {times}, after a full set of builds, to stop when none "
            f"reached beyond ±{plan.precision:.0%}; stopping at narrow ones makes them a little "
            "too narrow."
        )
    if pairs:
        contests = {(pair.datapath_class, pair.metric, pair.streams) for pair in pairs}
        if len(pairs) > len(contests) and not exact:
            yield (
                f"{len(pairs)} pairs of methods are compared at 95 % each: of 20 that do not "
                "differ, one is expected to seem to."
            )
