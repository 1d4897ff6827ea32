"""A comparison as columns of text: a table a class of datapaths and metric, never across classes.

The baseline stands above each table as the yardstick; beside each method stands its control, the
hosts of its own lab from eth0 to eth0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from xlab.record.comparisons import Comparison, Figure, MethodResult, Noise, Ratio, find
from xlab.record.metrics import FOREMOST, is_recovery, of, order
from xlab.record.record import DatapathClass
from xlab.report import recoveries, text, virtual
from xlab.report.prose import Verdict
from xlab.report.tables import Column, Table

COLUMNS = (
    Column("method"),
    Column("median", right=True),
    Column("control", right=True, expendable=3),
    Column("× baseline", short="× base", right=True),
    Column("95 % interval", short="interval", right=True, expendable=1),
    Column("verdict"),
    Column("× control", short="× ctrl", right=True),
    Column("95 % interval", short="interval", right=True, expendable=4),
    Column("place", right=True, expendable=2),
)


#: What the table of recoveries is asked for by.
RECOVERY = ("recovery_s", 1)

LEGEND = (
    "× control: against the hosts of the same lab, eth0 to eth0. × baseline: against two plain "
    "hosts in a lab of their own, in the same round. Place: among methods of the same class of "
    "datapaths; those between which no difference can be told share one."
)


def outcome(comparison: Comparison) -> Verdict:
    """Who came first in each class of datapaths, what was found, and how far to trust it."""
    findings = [*out(comparison), _trust(comparison), *_found(comparison), *comparison.notes]
    methods = comparison.methods[1:]
    passed = sum(method.status == "passed" for method in methods)
    said = [said for kind in _kinds(comparison) for said in _leader(comparison, kind)]
    if passed < len(methods):
        said.insert(0, f"{passed} of {len(methods)} methods passed")
    headline = "; ".join(said) or f"{text.count(passed, 'method')} beside the baseline"
    # A method's name is written as it is.
    headline = headline.replace("among", "Among", headline.startswith("among"))
    return Verdict(comparison.status, headline, tuple(findings))


def tables(comparison: Comparison, asked: Sequence[tuple[str, int]] | None = None) -> list[Table]:
    """Those of the first class of datapaths first; in each, metrics in their usual order.

    Of the metrics that are `asked` for, or of all.
    """
    about = [key for key in metrics(comparison) if asked is None or key in asked]
    found = [_table(comparison, kind, *key) for kind in _kinds(comparison) for key in about]
    broken = recoveries.table(comparison) if asked is None or RECOVERY in asked else None
    return [*found, broken] if broken else found


def verdict(ratio: Ratio | None) -> str:
    """In words, about the method against what it is set beside."""
    if ratio is None:
        return text.NOTHING
    words = {
        "indistinguishable": "≈ indistinguishable",
        "unknown": "too few builds to tell",
    }
    return words.get(ratio.verdict, ratio.verdict)


def out(comparison: Comparison) -> list[str]:
    """Why a method was not measured, or not to the end."""
    return [
        f"{text.plain(method.name)} {method.status}: {text.plain(method.reason)}"
        for method in comparison.methods
        if method.status != "passed"
    ]


def closing(comparison: Comparison) -> str:
    """How many rounds there were, and why no more."""
    builds = len({done.build for done in comparison.rounds})
    done = f"{text.count(len(comparison.rounds), 'round')} in {text.count(builds, 'build')}"
    why = {
        "narrow": f"every interval is within ±{comparison.plan.precision:.0%}",
        "planned": "as many as were asked for",
        "bound": f"no more were allowed, and not every interval is within "
        f"±{comparison.plan.precision:.0%}{_widest(comparison)}",
        "alone": "nothing was left to set beside the baseline",
    }
    return f"{done}: {why[comparison.ending]}"


def metrics(comparison: Comparison) -> list[tuple[str, int]]:
    """(metric, streams) of what there are figures of, in the usual order.

    Without those that others tell better, which were measured.
    """
    keys = {(f.metric, f.streams) for f in comparison.figures if not is_recovery(f.metric)}
    found = sorted(keys, key=order)
    return [(metric, n) for metric, n in found if (of(metric).better_told, 1) not in found]


def how(comparison: Comparison) -> list[str]:
    """How the figures came about, a paragraph a topic."""
    plan, noise = comparison.plan, comparison.noise
    if plan.clock == "virtual":
        return [*virtual.HOW, _RATIOS.format(unit="build")]
    often = text.count(plan.rounds_per_build, "round") if plan.rounds_per_build > 1 else "round"
    return [
        (
            f"Measured in {closing(comparison)}. In a round every method was measured once, in "
            "random order, with every probe between each pair of end points: what disturbs the "
            "machine meets all alike. All labs were up at once, and built anew after every "
            f"{often}; TCP ran for {plan.duration_s:g} s."
        ),
        _RATIOS.format(unit="round"),
        *([f"Noise: {'; '.join(_reasons(noise))}."] if noise.reasons else []),
    ]


_RATIOS = (
    "A ratio is taken within a {unit}, to the baseline (two plain hosts in a lab of their own) or "
    "to the control (the hosts of the same lab, eth0 to eth0); shown is the median over all. "
    "Intervals are 95 % bootstrap intervals, by build, then by round."
)


def _reasons(noise: Noise) -> Iterator[str]:
    """With metrics by the names that they have in tables."""
    names = {
        drift.metric + (f", {drift.streams} streams" if drift.streams > 1 else ""): text.label(
            drift.metric, drift.streams
        )
        for drift in noise.drifts
    }
    named = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
    for reason in noise.reasons:
        yield named.sub(lambda found: names[found[0]], text.plain(reason))


def rounds(comparison: Comparison) -> Table:
    """What disturbed each round."""
    titles = ("build", "began", "lasted", "load", "stolen CPU time", "cores busy for others")
    columns = (Column("round"), *(Column(title, right=True) for title in titles))
    rows = tuple(
        (
            str(done.number),
            str(done.build),
            text.plain(done.started_at[11:19]),
            text.seconds(done.seconds),
            f"{done.load:.2f}",
            f"{done.steal_share:.1%}",
            f"{done.foreign_busy_cores:.2f}",
        )
        for done in comparison.rounds
    )
    return Table(columns, rows, "How quiet each round was")


def builds(method: MethodResult) -> str:
    """How often it was built, and what came of its claims and its path."""
    number = text.count(len(method.builds), "build")
    broken = [build for build in method.builds if build.status != "passed"]
    if not method.builds:
        return "never built"
    if not broken:
        least = min(build.claims_held for build in method.builds)
        return f"{number}: every claim ({least}) held and the path was proved in each"
    told = (f"build {build.number} {build.status}: {text.plain(build.reason)}" for build in broken)
    return f"{number}; {'; '.join(told)}"


# ------------------------------------------------------------------------------------ the verdict


def _kinds(comparison: Comparison) -> list[DatapathClass]:
    return list(dict.fromkeys(method.datapath_class for method in comparison.methods[1:]))


def _leader(comparison: Comparison, kind: DatapathClass) -> Iterator[str]:
    """Who is first in TCP throughput; those who share the place together."""
    members = [
        m for m in comparison.methods[1:] if (m.datapath_class, m.status) == (kind, "passed")
    ]
    first = [
        text.plain(place.method)
        for place in comparison.places
        if (place.datapath_class, place.metric, place.streams, place.place)
        == (kind, _FOREMOST, 1, 1)
    ]
    if len(members) < 2:
        for method in members:
            ratio = _to_baseline(comparison, method, _FOREMOST)
            if ratio:
                name = text.plain(method.name)
                yield f"{name} carries {text.ratio(ratio)} × the TCP of plain hosts"
        return
    named, among = " and ".join(first), f"among {kind} datapaths"
    if not first:
        yield f"{among} too few builds were measured to say who carries most TCP"
    elif len(first) == len(members):
        yield f"{among} no difference in TCP throughput can be told between {named}"
    else:
        yield f"{among} {named} {'carries' if len(first) == 1 else 'carry'} most TCP"


_FOREMOST = "tcp_bits_per_second"


def _found(comparison: Comparison) -> Iterator[str]:
    """The figures that matter most, a method a sentence."""
    for method in comparison.methods[1:]:
        said = []
        for metric in reversed(FOREMOST):
            ratio = _to_baseline(comparison, method, metric)
            if ratio:
                interval = f" ({text.ratio_interval(ratio)})" if ratio.ci95 else ""
                said.append(f"{text.ratio(ratio)} {of(metric).headline}{interval}")
        if said:
            name = text.plain(method.name)
            yield f"{name}: {' and '.join(said)} ({method.datapath_class} datapath)."


def _to_baseline(comparison: Comparison, method: MethodResult, metric: str) -> Ratio | None:
    figure = find(comparison.figures, method.name, metric)
    return figure.to_baseline if figure else None


def _trust(comparison: Comparison) -> str:
    noise = comparison.noise
    if comparison.plan.clock == "virtual":
        return virtual.MEANING
    if noise.verdict == "quiet":
        return "The machine was quiet: nothing speaks against the figures."
    first, *more = map(text.plain, noise.reasons or ("nobody said why",))
    others = f", and {text.count(len(more), 'more reason')}" if more else ""
    return f"The machine was noisy ({first}{others}): take differences for hints."


def _widest(comparison: Comparison) -> str:
    last = comparison.looks[-1] if comparison.looks else None
    if last is None or last.widest is None:
        return ""
    return f" (the widest: {text.plain(last.whose)}, ±{last.widest:.0%})"


def _table(comparison: Comparison, kind: DatapathClass, metric: str, streams: int) -> Table:
    figures = {
        figure.method: figure
        for figure in comparison.figures
        if (figure.metric, figure.streams) == (metric, streams)
    }
    members = [m for m in comparison.methods[1:] if m.datapath_class == kind]
    ranked = sorted(members, key=lambda method: _rank(figures.get(method.name)))
    rows = tuple(_row(comparison, method, figures) for method in (comparison.baseline, *ranked))
    title = text.label(metric, streams)
    if len(_kinds(comparison)) > 1:
        title += f", {kind} datapath"
    failures = _failures(figures[m.name] for m in members if m.name in figures)
    return Table(COLUMNS, rows, title, tuple(failures))


def _rank(figure: Figure | None) -> tuple[bool, float]:
    """The better first; what has no figure last."""
    if figure is None or figure.value is None:
        return True, 0.0
    best_first = -figure.value.median if figure.higher_is_better else figure.value.median
    return False, best_first


def _row(
    comparison: Comparison, method: MethodResult, figures: dict[str, Figure]
) -> tuple[str, ...]:
    figure = figures.get(method.name)
    name = text.plain(method.name)
    if method.status != "passed":
        name = f"{name} ({method.status})"
    if figure is None:
        return (name, *[text.NOTHING] * (len(COLUMNS) - 1))
    yardstick = method is comparison.baseline
    return (
        name,
        text.median(figure.metric, figure.unit, figure.value),
        text.median(figure.metric, figure.unit, figure.control),
        text.ratio(figure.to_baseline),
        text.ratio_interval(figure.to_baseline),
        "the yardstick" if yardstick else verdict(figure.to_baseline),
        text.ratio(figure.to_control),
        text.ratio_interval(figure.to_control),
        _place(comparison, figure),
    )


def _place(comparison: Comparison, figure: Figure) -> str:
    key = (figure.method, figure.metric, figure.streams)
    found = (p for p in comparison.places if (p.method, p.metric, p.streams) == key)
    return next((f"{place.place} of {place.of}" for place in found), "")


def _failures(figures: Iterable[Figure]) -> Iterator[str]:
    failed = [
        f"{text.plain(figure.method)} {number} ({route})"
        for figure in figures
        for route, number in figure.failed_samples.items()
    ]
    if failed:
        yield f"samples that failed, and are in no figure: {', '.join(failed)}"
