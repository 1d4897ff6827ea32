"""What tests of reports share: sample records, hostile ones, and a page taken apart.

page = Page(rendered)
page.all("a")  ->  the attributes of every link
page.text      ->  what a reader sees, styles left out
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

from xlab import record
from xlab.record import Event, RunRecord
from xlab.report import page

RECORDS = Path(__file__).parent / "data" / "records"

#: Would be markup, script, a formula, Markdown or a control sequence if it were let.
HOSTILE = (
    "</style></svg><script>alert(1)</script>'\"&amp;<img src=x onerror=alert(1)>"
    " $\\frac{$ \x1b[2J\x00\ufffe `code` | [x](javascript:alert(1)) 无 \u202e"
)
_VOID = {"br", "link", "meta"}


def sample(name: str) -> RunRecord:
    (folder,) = RECORDS.glob(f"*Z-{name}")
    return record.load(folder)


def everything() -> dict[Path, RunRecord]:
    """All sample records, by file."""
    return {file: record.load(file) for file in sorted(RECORDS.glob("*/run.json"))}


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
    )  # fmt: skip


def render(*records: RunRecord) -> Page:
    """The page on these records, each in a folder of its own beside the report's."""
    named = {Path(f"results/{i}/run.json"): each for i, each in enumerate(records, 1)}
    return Page(page.render(named, base=Path("results/all")))


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
