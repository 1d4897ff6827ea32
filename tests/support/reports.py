"""What tests of reports share: sample records, hostile ones, and a page taken apart.

page = Page(rendered)
page.all("a")  ->  the attributes of every link
page.text      ->  what a reader sees, styles left out
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.support import comparisons as compare_support
from tests.support.records import RECORDS, sample
from xlab.experiments.compare import evaluation, rounds
from xlab.experiments.compare.journal import RoundDone
from xlab.record import comparisons
from xlab.record.record import Event, Measurement, Node, RunRecord
from xlab.report import content
from xlab.report.forms import html

#: Would be markup, script, a formula, Markdown or a control sequence if it were let.
HOSTILE = (
    "</style></svg><script>alert(1)</script>'\"&amp;<img src=x onerror=alert(1)>"
    " $\\frac{$ \x1b[2J\x00\ufffe `code` | [x](javascript:alert(1)) 无 \u202e"
)
_VOID = {"br", "link", "meta"}


@functools.cache
def everything() -> dict[Path, RunRecord]:
    """All sample records, by file."""
    files = sorted(RECORDS.glob("*/run.json"))
    return {file: sample(file.parent.name.partition("Z-")[2]) for file in files}


def hostile() -> RunRecord:
    """A record in which every text is one that means harm."""
    told = sample("ovs-gre")
    assert told.path is not None
    evil = HOSTILE
    return replace(
        told,
        scenario=evil,
        status="failed",
        reason=evil,
        started_at=evil,
        parameters={
            "hosts": evil, "containers": -1, "mtu": [], "topo": evil, "settings": {evil: evil},
        },
        environment=replace(
            told.environment,
            kernel=evil,
            cpu_model=evil,
            tools={evil: evil},
            datapath=evil,
            container_runtime=evil,
            congestion_control=evil,
            notes=(evil,),
        ),
        claims=tuple(
            replace(c, id=evil, stage=evil, text=evil, expected=evil, observed=evil, evidence=evil,
                    holds=bool(i % 2))
            for i, c in enumerate(told.claims)
        ),
        path=replace(told.path, control_detail=evil, evidence=f"raw/../../{evil}"),
        measurements=tuple(
            replace(
                m,
                probe=evil,
                unit=evil,
                direction=f"{evil} > {evil}",
                detail={"tool": evil, "command": evil, "raw": ["../x", evil, 7], "error": evil},
            )
            for m in told.measurements
        ),
        events=(Event(evil, evil, evil),),
        nodes=tuple(
            Node(name, "host", evil, {"br0": evil, "eth0": evil}) for name in ("h1", "h1/c1", evil)
        ),
    )  # fmt: skip


def render(*records: RunRecord) -> Page:
    """The page on these records, each in a folder of its own beside the report's."""
    named = {Path(f"results/{i}/run.json"): each for i, each in enumerate(records, 1)}
    return Page(html.of_results(content.of_records(named), Path("results/all")))


@functools.cache
def rendered(*names: str) -> Page:
    """The page on these samples, to be read only."""
    return render(*map(sample, names))


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    #: The elements around it, outermost first.
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """A page, whose tags must all be closed, each by its own end."""

    source: str
    elements: list[Element] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"not closed: {[element.name for element in self._open]}"
        self.text = " ".join(self.text.split())

    def all(self, name: str) -> list[Element]:
        return [element for element in self.elements if element.name == name]

    def attributes(self, name: str) -> list[str]:
        """Every value that an attribute has anywhere."""
        values = (element.attributes.get(name) for element in self.elements)
        return [value for value in values if value is not None]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [key for key, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs), tuple(each.name for each in self._open))
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> ends nothing"
        assert self._open[-1].name == tag, f"</{tag}> ends <{self._open[-1].name}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data
        if all(element.name not in ("style", "title", "desc") for element in self._open):
            self.text += data


def compared(folder: Path, *, probes: bool = True) -> comparisons.Comparison:
    """A comparison made up, with all its files in `folder`; with all `probes` that make charts."""
    told = compare_support.entries()
    if probes:
        told = [_probed(each) if isinstance(each, RoundDone) else each for each in told]
    history = compare_support.history(told)
    outcome = evaluation.evaluate(history)
    folder.mkdir(parents=True, exist_ok=True)
    rounds.write_records(folder, history)
    comparisons.save(outcome, folder)
    return outcome


def _probed(done: RoundDone) -> RoundDone:
    found = {
        name: (*measured, *_of_more_probes(done, 1.0 + number))
        for number, (name, measured) in enumerate(done.measurements.items())
    }
    return replace(done, measurements=found)


def _of_more_probes(done: RoundDone, factor: float) -> Iterator[Measurement]:
    factor *= 1 + done.number / 100

    def one(probe: str, metric: str, value: float, **more: Any) -> Measurement:
        plain = compare_support.measured(metric, value, number=done.number, build=done.build)
        return replace(plain, probe=probe, **more)

    for size in (64, 1400, 65536):
        metric = f"tcp_{size}_byte_messages_bits_per_second"
        yield one("message-sizes", metric, 1e7 * size / factor)
    for streams in (2, 4, 8):
        yield one("flows", "tcp_bits_per_second", 1e9 * streams / factor, streams=streams)
    yield one("tcp", "cpu_seconds_per_gigabyte", factor, unit="s/GB")
    echoes: list[tuple[float, float | None]] = [
        (step / 100, None if step == 70 else 0.05 * factor * (10 if 30 <= step < 90 else 1))
        for step in range(100)
    ]
    yield one(
        "loaded-rtt",
        "loaded_rtt_ms",
        0.5 * factor,
        samples=tuple(ms for s, ms in echoes if ms and 0.3 <= s < 0.9),
        detail={
            "series_columns": ["seconds", "ms"],
            "series": [list(each) for each in echoes],
            "idle_median_ms": 0.05 * factor,
            "load_since_s": 0.3,
            "load_until_s": 0.9,
        },
    )
    yield one("recovery", "link_flap_recovery_s", 0.1 * factor, detail={"stopped": True})
    yield one("recovery", "host_reboot_recovery_s", 0.0, detail={"stopped": False})
