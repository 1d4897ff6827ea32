"""What broke in the labs of a comparison, and for how long answers were missing: one table.

fault       method    missing   95 % interval   mending   flow
link flap   bridge    10.1 ms   8.9–13.5        1.2 ms    stopped
link flap   weave     …                                   stopped in 2 of 3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xlab.record import comparisons, stats
from xlab.record.comparisons import Comparison, Recovery
from xlab.record.metrics import is_recovery
from xlab.report import text
from xlab.report.tables import Column, Table


def table(comparison: Comparison) -> Table | None:
    """Every fault of every method, over its builds; None if nothing was broken."""
    if not comparison.recoveries:
        return None
    columns = (
        Column("fault"),
        Column("method"),
        Column("missing", right=True),
        Column("95 % interval", short="interval", right=True, expendable=1),
        Column("mending", right=True, expendable=2),
        Column("flow"),
    )
    return Table(
        columns,
        tuple(_rows(comparison)),
        "Recovery: how long answers were missing, from when mending began",
        (*_failures(comparison.recoveries), *_too_few(comparison)),
    )


def _too_few(comparison: Comparison) -> Iterator[str]:
    found = [f for f in comparison.figures if is_recovery(f.metric)]
    if any(f.value is None or f.value.ci95 is None for f in found):
        yield "no interval (–): that takes three builds or more, in which the flow came back"


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for metric in sorted({each.metric for each in comparison.recoveries}, key=_severity):
        name = text.plain(fault_of(metric))
        for method in comparison.plan.methods:
            key = (method, metric)
            found = [each for each in comparison.recoveries if (each.method, each.metric) == key]
            if not found:
                continue
            figure = comparisons.find(comparison.figures, *key)
            value = figure.value if figure else None
            mending = stats.median([each.mend_s for each in found if each.mend_s is not None])
            yield (
                name,
                text.plain(method),
                text.median(metric, "s", value) if value else "not back",
                text.interval(metric, "s", value),
                "unknown" if mending is None else text.value("mend_s", "s", mending),
                _flow(found),
            )


def fault_of(metric: str) -> str:
    """ "link flap"."""
    return metric.removesuffix("_recovery_s").replace("_", " ")


def _severity(metric: str) -> tuple[bool, bool, str]:
    """In the order in which a lab is broken: its cable, its daemons, its host."""
    return metric.startswith("host_reboot"), not metric.startswith("link_flap"), metric


def _flow(found: Sequence[Recovery]) -> str:
    stopped = sum(each.stopped is True for each in found)
    told = sum(each.stopped is not None for each in found)
    if not told:
        return "not back"
    if not stopped:
        return "went on"
    return "stopped" if stopped == len(found) else f"stopped in {stopped} of {len(found)}"


def _failures(found: Sequence[Recovery]) -> Iterator[str]:
    for each in found:
        if each.error:
            yield (
                f"{text.plain(each.method)}, build {each.build}, after "
                f"`{text.plain(each.fault or each.metric)}`: {text.plain(each.error)}"
            )
