"""A comparison as columns of text: a table a class of datapaths and metric, never across classes.

The baseline stands above each table as the yardstick; beside each method stands its control, the
hosts of its own lab from eth0 to eth0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xlab.compare.result import Comparison, Estimate, Figure, Method, Ratio
from xlab.record import DatapathClass
from xlab.report import text
from xlab.report.figures import Spread, order
from xlab.report.tables import Column, Table

COLUMNS = (
    Column("method"),
    Column("median", right=True),
    Column("control", right=True, expendable=2),
    Column("× baseline", short="× base", right=True),
    Column("95 % interval", short="interval", right=True, expendable=1),
    Column(""),
    Column("× control", short="× ctrl", right=True),
    Column("95 % interval", short="interval", right=True, expendable=3),
    Column("place", right=True, expendable=4),
)


def tables(comparison: Comparison) -> list[Table]:
    """Those of the first class of datapaths first; in each, metrics in their usual order."""
    kinds: list[DatapathClass] = list(
        dict.fromkeys(method.datapath_class for method in comparison.methods)
    )
    return [
        table
        for kind in kinds
        for table in _of_class(comparison, kind, title=kind if len(kinds) > 1 else "")
    ]


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

    The idle round trips before a load are shown by themselves where no others were measured.
    """
    found = sorted({(figure.metric, figure.streams) for figure in comparison.figures}, key=order)
    if ("icmp_rtt_ms", 1) in found:
        found = [key for key in found if key[0] != "idle_rtt_ms"]
    return found


def _widest(comparison: Comparison) -> str:
    last = comparison.looks[-1] if comparison.looks else None
    if last is None or last.widest is None:
        return ""
    return f" (the widest: {text.plain(last.whose)}, ±{last.widest:.0%})"


def _of_class(comparison: Comparison, kind: DatapathClass, *, title: str) -> Iterator[Table]:
    members = [m for m in comparison.methods[1:] if m.datapath_class == kind]
    if not members:
        return
    for metric, streams in metrics(comparison):
        figures = {
            figure.method: figure
            for figure in comparison.figures
            if (figure.metric, figure.streams) == (metric, streams)
        }
        rows = [_row(comparison, comparison.baseline, figures)]
        ranked = sorted(members, key=lambda method: _rank(figures.get(method.name)))
        rows += [_row(comparison, method, figures) for method in ranked]
        name = text.label(metric, streams)
        yield Table(
            COLUMNS,
            tuple(rows),
            f"{name}, {title} datapath" if title else name,
            tuple(_failures(figures[m.name] for m in members if m.name in figures)),
        )


def _rank(figure: Figure | None) -> tuple[bool, float]:
    """The better first; what has no figure last."""
    if figure is None or figure.value is None:
        return True, 0.0
    best_first = -figure.value.median if figure.higher_is_better else figure.value.median
    return False, best_first


def _row(comparison: Comparison, method: Method, figures: dict[str, Figure]) -> tuple[str, ...]:
    figure = figures.get(method.name)
    name = text.plain(method.name)
    if method.status != "passed":
        name = f"{name} ({method.status})"
    if figure is None:
        return (name, *[text.NOTHING] * (len(COLUMNS) - 1))
    yardstick = method is comparison.baseline
    return (
        name,
        text.median(figure.metric, figure.unit, _spread(figure.value)),
        text.median(figure.metric, figure.unit, _spread(figure.control)),
        text.ratio(_spread(figure.to_baseline)),
        text.ratio_interval(_spread(figure.to_baseline)),
        "the yardstick" if yardstick else verdict(figure.to_baseline),
        text.ratio(_spread(figure.to_control)),
        text.ratio_interval(_spread(figure.to_control)),
        _place(comparison, figure),
    )


def _place(comparison: Comparison, figure: Figure) -> str:
    for place in comparison.places:
        if (place.method, place.metric, place.streams) == (
            figure.method,
            figure.metric,
            figure.streams,
        ):
            return f"{place.place} of {place.of}"
    return ""


def _failures(figures: Iterable[Figure]) -> Iterator[str]:
    failed = [
        f"{text.plain(figure.method)} {number} ({route})"
        for figure in figures
        for route, number in figure.failed_samples.items()
    ]
    if failed:
        yield f"samples that failed, and are in no figure: {', '.join(failed)}"


def _spread(found: Estimate | Ratio | None) -> Spread | None:
    return None if found is None else Spread(found.median, found.ci95, found.rounds)
