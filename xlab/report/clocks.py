"""The same methods by both clocks: ratios to plain hosts side by side, each by its own."""

from __future__ import annotations

from collections.abc import Iterator

from xlab.errors import UsageError
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, Figure, MethodResult, Verdict
from xlab.record.metrics import FOREMOST
from xlab.record.record import Clock, Route
from xlab.report import charts, text
from xlab.report.charts import Bar, Chart, Group, Panel

MEANING = (
    "Blue: virtual time, which counts instructions. Grey: the real clock, on the machine that the "
    "report is about. They need not agree, and are not ranked: virtual time knows no caches and no "
    "second processor, and a real processor is also waited for, woken and disturbed. A method "
    "is shown where both have it, its packets moved by the kernel or in user space by both."
)
_ROUTES: dict[Clock, Route] = {"virtual": "method", "real": "control"}
_WORDS: dict[Clock, str] = {"virtual": "virtual time", "real": "real clock"}


def side_by_side(one: Comparison, other: Comparison) -> dict[str, Chart]:
    """A chart for each foremost metric, by its name; UsageError unless one is of either clock."""
    by_clock = {each.plan.clock: each for each in (one, other)}
    if len(by_clock) != 2:
        raise UsageError(
            f"--beside: both comparisons are of the {one.plan.clock} clock; one of either is wanted"
        )
    found = {}
    for metric in FOREMOST:
        groups = tuple(_groups(metric, by_clock["virtual"], by_clock["real"]))
        if groups:
            found[f"{metric}-by-both-clocks"] = Chart(
                f"{text.label(metric)} by both clocks",
                f"× {text.label(metric)} of plain hosts",
                (Panel("virtual and real", groups),),
                "",
                mark=1.0,
                signs=(("method", _WORDS["virtual"]), ("control", _WORDS["real"])),
            )
    return found


def disagreements(one: Comparison, other: Comparison) -> list[str]:
    """Each two methods of which the clocks say the opposite; what either can't tell is left out."""
    by_clock = {each.plan.clock: each for each in (one, other)}
    virtual, real = by_clock["virtual"], by_clock["real"]
    theirs = {_built_as(method): method.name for method in real.methods}
    names = {m.name: theirs[_built_as(m)] for m in virtual.methods if _built_as(m) in theirs}
    verdicts = {(p.metric, p.streams, p.method, p.other): p.ratio.verdict for p in real.pairs}
    # "a / b is faster" is "b / a is slower".
    verdicts |= {
        (metric, streams, b, a): _OPPOSITE[said]
        for (metric, streams, a, b), said in verdicts.items()
        if said in _OPPOSITE
    }
    found = []
    for pair in virtual.pairs:
        if pair.method in names and pair.other in names:
            key = (pair.metric, pair.streams, names[pair.method], names[pair.other])
            said = verdicts.get(key)
            if pair.ratio.verdict in _OPPOSITE and said == _OPPOSITE[pair.ratio.verdict]:
                found.append(
                    f"{text.label(pair.metric, pair.streams)}: in virtual time "
                    f"{text.plain(pair.method)} is {pair.ratio.verdict} than "
                    f"{text.plain(pair.other)}, by the real clock it is {said}."
                )
    return found


_OPPOSITE: dict[Verdict, Verdict] = {"faster": "slower", "slower": "faster"}


def _groups(metric: str, virtual: Comparison, real: Comparison) -> Iterator[Group]:
    for method in virtual.methods[1:]:
        theirs = next((m for m in real.methods if _built_as(m) == _built_as(method)), None)
        bars = [
            _bar(found.plan.clock, of, figure)
            for found, of in ((virtual, method), (real, theirs))
            if of and (figure := comparisons.find(found.figures, of.name, metric))
        ]
        if len(bars) == 2:
            yield Group(text.plain(method.name), tuple(bars))


def _built_as(method: MethodResult) -> tuple[object, ...]:
    """What must be the same of two methods: "auto" is another datapath on another kernel."""
    options = {name: said for name, said in method.settings.items() if name != "datapath"}
    return method.scenario, tuple(sorted(options.items())), method.datapath_class


def _bar(clock: Clock, method: MethodResult, figure: Figure) -> Bar:
    label = f"{_WORDS[clock]}, {text.plain(method.datapath)}"
    return Bar(label, _ROUTES[clock], charts.points_of(figure.to_baseline))
