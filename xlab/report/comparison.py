"""A comparison as columns of text: a table a class of datapaths and metric, never across classes.

The baseline stands above each table as the yardstick; beside each method stands its control, the
hosts of its own lab from eth0 to eth0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from xlab.record.comparisons import Comparison, Figure, MethodResult, Ratio
from xlab.record.metrics import is_recovery, of, order
from xlab.record.record import DatapathClass
from xlab.report import conclusion, machine, recoveries, text, virtual
from xlab.report import tables as tables_of_runs
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
    "hosts in a lab of their own, in the same round; a ratio is the median of the rounds' own, and "
    "not that of the medians beside it. Place: among methods of the same class of "
    "datapaths; those between which no difference can be told share one."
)


def outcome(comparison: Comparison) -> Verdict:
    """Who came first, why, what carries the packets, and how far to trust it."""
    findings = [*out(comparison), *comparison.notes]
    methods = comparison.methods[1:]
    passed = sum(method.status == "passed" for method in methods)
    headline = conclusion.headline(conclusion.field_of(comparison))
    if passed < len(methods):
        headline = f"{passed} of {len(methods)} methods passed; {headline}"
    sure = conclusion.Answer("sure", conclusion.SURE, (trust(comparison),))
    answers = (*conclusion.of_comparison(comparison), sure)
    return Verdict(comparison.status, headline, tuple(findings), answers)


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
        *([f"Noise: {'; '.join(machine.reasons(noise))}."] if noise.reasons else []),
    ]


_RATIOS = (
    "A ratio is taken within a {unit}, to the baseline (two plain hosts in a lab of their own) or "
    "to the control (the hosts of the same lab, eth0 to eth0); shown is the median over all. "
    "Intervals are 95 % bootstrap intervals, by build, then by round."
)


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


def trust(comparison: Comparison) -> str:
    """Whether the machine was quiet; of the virtual clock, what its figures mean."""
    noise = comparison.noise
    if comparison.plan.clock == "virtual":
        return virtual.MEANING
    if noise.verdict == "quiet":
        return machine.in_words(machine.Judgement("quiet", ()))
    why = tuple(machine.reasons(noise)) or ("nobody said why",)
    return machine.in_words(machine.Judgement("noisy", why))


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
    has_ratios = of(metric).has_ratios
    members = [m for m in comparison.methods[1:] if m.datapath_class == kind]
    ranked = sorted(members, key=lambda method: _rank(figures.get(method.name)))
    rows = tuple(_row(comparison, method, figures) for method in (comparison.baseline, *ranked))
    title = text.label(metric, streams)
    if len(_kinds(comparison)) > 1:
        title += f", {kind} datapath"
    notes = [
        *_failures(figures[m.name] for m in members if m.name in figures),
        *_unmeasured(members, figures),
        *([] if has_ratios else [tables_of_runs.NO_RATIOS.format(text.label(metric, streams))]),
    ]
    return _without_empty(Table(COLUMNS, rows, title, tuple(notes)))


def _unmeasured(members: Iterable[MethodResult], figures: Mapping[str, Figure]) -> Iterator[str]:
    """Why there is nothing but the name in a row."""
    for method in members:
        if method.name not in figures or figures[method.name].value is None:
            why = f" ({method.status}: {text.plain(method.reason)})" if method.reason else ""
            yield f"{text.plain(method.name)} has no figure here{why}"


def _without_empty(table: Table) -> Table:
    """Without the intervals and controls that no row has: of one build, and of plain hosts."""
    kept = [
        i
        for i, column in enumerate(table.columns)
        if not column.expendable or any(row[i] not in ("", text.NOTHING) for row in table.rows)
    ]
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


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
        return (name, *[""] * (len(COLUMNS) - 1))
    if method is comparison.baseline:
        median = text.median(figure.metric, figure.unit, figure.value)
        return (name, median, "", "1", "", "the yardstick", "", "", "")
    return (
        name,
        text.median(figure.metric, figure.unit, figure.value),
        text.median(figure.metric, figure.unit, figure.control),
        tables_of_runs.ratio(figure.to_baseline),
        text.ratio_interval(figure.to_baseline),
        verdict(figure.to_baseline),
        tables_of_runs.ratio(figure.to_control),
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
