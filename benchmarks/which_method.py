"""The figures of docs/which-method.md, from the committed records: written anew, or looked at.

    "$(bin/setup)" benchmarks/which_method.py            writes the page's tables anew
    "$(bin/setup)" benchmarks/which_method.py --check    status 1 if they are not what records say

Tables stand in the page between `<!-- figures: NAME -->` and `<!-- end -->`.  They come from
results/sample (the real clock), results/sample/virtual (the other) and from what the scenarios'
files say that others published; figures are rounded to two or three digits.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from xlab.errors import XlabError
from xlab.kernel.packets import Encapsulation
from xlab.record import comparisons
from xlab.record.comparisons import Comparison, Figure, MethodResult
from xlab.record.portrait import Published
from xlab.report import portraits, recoveries, tables, text, virtual
from xlab.report.portraits import in_words
from xlab.scenario import catalog

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "which-method.md"
REAL, VIRTUAL = ROOT / "results" / "sample", ROOT / "results" / "sample" / "virtual"
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_RATIOS = (
    ("tcp_bits_per_second", "TCP"),
    ("icmp_rtt_ms", "round trip"),
    ("loaded_rtt_ms", "round trip, loaded"),
    ("cpu_seconds_per_gigabyte", "CPU a byte"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    asked = parser.parse_args(arguments)
    before = PAGE.read_text(encoding="utf-8")
    after = renewed(before)
    if asked.check:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


def renewed(page: str, real: Path = REAL, virtually: Path = VIRTUAL) -> str:
    """The page with the figures of those comparisons; XlabError for a table that nobody makes."""
    found, other = comparisons.load(real), comparisons.load(virtually)
    made: Mapping[str, Callable[[], list[list[str]]]] = {
        "cost-real": lambda: _cost(found),
        "cost-virtual": lambda: _cost(other),
        "added": lambda: _added(found),
        "mending": lambda: _mending(found),
        "published": _published,
    }

    def block(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise XlabError(f"{PAGE.name}: nobody makes the figures {match[2]!r}")
        return f"{match[1]}{_table(made[match[2]]())}\n{match[3]}"

    return _BLOCK.sub(block, page)


def _cost(found: Comparison) -> list[list[str]]:
    """A method a row, those of one class of datapath together: × plain hosts."""
    packets = found.plan.clock == "virtual"
    shown = [(metric, name) for metric, name in _RATIOS if _measured(found, metric)]
    title = [name for _, name in shown] + (["instructions a packet"] if packets else [])
    rows = [["datapath", "method", *title]]
    for kind in ("kernel", "userspace"):
        for method in found.methods[1:]:
            if method.datapath_class == kind:
                ratios = [_ratio(_figure(found, method, metric)) for metric, _ in shown]
                cost = [_instructions(_figure(found, method, "tcp_rr_latency_ms"))]
                where = "kernel" if kind == "kernel" else "user space"
                rows.append([where, f"`{method.name}`", *ratios, *(cost if packets else [])])
    if packets:
        plain = _instructions(_figure(found, found.baseline, "tcp_rr_latency_ms"))
        rows.append(["kernel", "plain hosts", *["1"] * len(shown), plain])
    return rows


def _measured(found: Comparison, metric: str) -> bool:
    return any(figure.metric == metric and figure.to_baseline for figure in found.figures)


def _figure(found: Comparison, method: MethodResult, metric: str) -> Figure | None:
    return comparisons.find(found.figures, method.name, metric)


def _ratio(figure: Figure | None) -> str:
    if figure is None or figure.to_baseline is None:
        return "not measured"
    return tables.ratio(figure.to_baseline)


def _instructions(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "not measured"
    return f"{figure.value.median * virtual.A_PACKET:,.0f}"


def _added(found: Comparison) -> list[list[str]]:
    """What is on the wire, what it adds to a packet, and the largest that crosses."""
    rows = [["method", "on the wire", "bytes added", "largest IP packet on an MTU of 1500"]]
    for method in found.methods[1:]:
        kind = text.encapsulation(method.encapsulation or "none")
        figures = (method.overhead_bytes, method.effective_mtu)
        rows.append([f"`{method.name}`", kind, *map(str, figures)])
    return rows


def _mending(found: Comparison) -> list[list[str]]:
    """How long answers were missing, a method a row, a fault a column; its daemons in one."""
    rows = [["method", "cable pulled and put back", "a daemon killed", "the host rebooted"]]
    for method in found.methods:
        flap, killed, reboot = [], [], []
        for figure in found.figures:
            if figure.method != method.name or not figure.metric.endswith("_recovery_s"):
                continue
            said = text.median(figure.metric, "s", figure.value)
            match recoveries.fault_of(figure.metric):
                case "link flap":
                    flap.append(said)
                case "host reboot":
                    reboot.append(said)
                case other:
                    killed.append(f"{other.removesuffix(' kill')} {_gone(found, figure, said)}")
        rows.append([
            "plain hosts" if method is found.baseline else f"`{method.name}`",
            *("; ".join(each) for each in (flap, killed or ["none to kill"], reboot)),
        ])  # fmt: skip
    return rows


def _gone(found: Comparison, figure: Figure, said: str) -> str:
    """ "went on" where the flow never stopped."""
    told = [r for r in found.recoveries if (r.method, r.metric) == (figure.method, figure.metric)]
    return "went on" if told and not any(each.stopped for each in told) else said


def _published() -> list[list[str]]:
    """What others measured, as the scenarios' files have it."""
    rows = [["what was measured", "TCP, × plain hosts", "latency, × plain hosts", "source"]]
    for told in dict.fromkeys(_all_published()):
        latency = in_words(told.latency) if told.latency else "not given"
        rows.append([told.subject, in_words(told.throughput), latency, told.source])
    return rows


def _all_published() -> Iterator[Published]:
    for name in catalog.names():
        for encapsulation in get_args(Encapsulation):
            portrait = portraits.declared(name, encapsulation)
            if portrait and portrait.published:
                yield portrait.published


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    right = [all(row[i][:1] in "≈0123456789" for row in others) for i in range(len(head))]
    rule = ["--:" if each else "---" for each in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *others))


if __name__ == "__main__":
    sys.exit(main())
