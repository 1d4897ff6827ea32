"""What records come to, as a class would ask it: which is fastest here, why, and what carries it.

    run records ──┐
                  ├──> Field: methods of one clock, who beats whom ──> Answer, a question each
    compare.json ─┘

Nothing is ranked that intervals do not tell apart: within a class of datapath a comparison has
paired each two methods; elsewhere two differ whose ratios to plain hosts have intervals apart from
each other.  The clocks are told each by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from xlab.record import comparisons, intervals, metrics
from xlab.record.comparisons import Comparison, MethodResult, Verdict
from xlab.record.figures import figures, find
from xlab.record.portrait import Portrait
from xlab.record.record import Clock, DatapathClass, RunRecord
from xlab.record.stats import Spread
from xlab.report import portraits, tables, text

#: How far to trust all of it.
SURE = "How sure is that?"
TCP, RTT = "tcp_bits_per_second", "icmp_rtt_ms"
_OPPOSITE: Mapping[Verdict, Verdict] = {"faster": "slower", "slower": "faster"}
#: What is written of who is first by a metric: one, several, and the metric itself.
_FIRST = {
    TCP: ("carries most TCP", "carry most TCP", "TCP throughput"),
    RTT: ("answers soonest", "answer soonest", "round-trip time"),
}
_MOVED: Mapping[DatapathClass, str] = {"kernel": "in the kernel", "userspace": "in user space"}
_WIRE = {"gre": "GRE", "vxlan": "VXLAN", "geneve": "Geneve", "sleeve": "sleeve"}


@dataclass(frozen=True, slots=True)
class Answer:
    #: Beside it on a terminal.
    label: str
    question: str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """One that is asked about, and what was found of it."""

    name: str
    scenario: str
    datapath_class: DatapathClass
    datapath: str
    #: Whether this kernel was asked for a datapath, and had none.
    fell_back: bool
    passed: bool
    path_proved: bool
    #: On the wire; None where nothing was proved.
    encapsulation: str | None
    #: What shows it.
    evidence: str
    portrait: Portrait | None
    to_plain: Mapping[str, Spread]
    #: TCP against that of its own hosts, whose packets need none of the method: its control.
    to_own_hosts: Spread | None = None

    @property
    def bypasses(self) -> bool:
        """Whether what was built to carry its packets stands beside their way."""
        built = self.portrait.between if self.portrait else ()
        return self.path_proved and self.encapsulation == "none" and bool(built)

    @property
    def way_past(self) -> str:
        """What leads its packets past what was built."""
        return (self.portrait.bypass if self.portrait else "") or "its route"


@dataclass(frozen=True, slots=True)
class Field:
    """Methods that were measured by one clock; who is better of two, by a metric."""

    clock: Clock
    methods: tuple[Method, ...]
    relation: Callable[[str, Method, Method], Verdict]
    #: Why none is to be set beside another, if so.
    apart: str = ""
    #: What more would tell those apart of which there is too little.
    more: str = "`xlab compare` measures them side by side"

    @property
    def here(self) -> str:
        return "in virtual time" if self.clock == "virtual" else "here"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who is first by a metric; `first` is empty where that can't be told."""

    metric: str
    first: tuple[Method, ...]
    #: In each class of datapath, where there are two.
    by_class: Mapping[DatapathClass, tuple[Method, ...]]
    #: Whether no two could be told apart.
    all_alike: bool = False


def of_comparison(comparison: Comparison) -> tuple[Answer, ...]:
    """The answers of a comparison; how far to trust them is its own verdict on the machine."""
    return tuple(map(_printable, _answers(field_of(comparison))))


def of_records(records: Sequence[RunRecord]) -> tuple[Answer, ...]:
    """The answers of run records, each clock's by itself."""
    fields = [field for clock in ("real", "virtual") if (field := _field(records, clock))]
    found = [(field.clock, _printable(answer)) for field in fields for answer in _answers(field)]
    if len(fields) < 2:
        return tuple(answer for _, answer in found)
    return tuple(
        Answer(answer.label, f"{answer.question} ({clock} clock)", answer.said)
        for clock, answer in found
    )


def headline(field: Field) -> str:
    """Who is fastest, as a title says it."""
    measured = _measured(field, TCP)
    if not measured:
        return f"{text.count(len(field.methods), 'method')} beside the baseline"
    if len(measured) == 1:
        name, ratio = text.plain(measured[0].name), measured[0].to_plain[TCP]
        return f"{name} carries {tables.ratio(ratio)} × the TCP of plain hosts"
    found = ranking(field, TCP)
    if field.apart or not found.first:
        return f"Too little was measured to say which method is fastest {field.here}"
    names = _names(found.first)
    if found.all_alike:
        return f"No difference in TCP throughput could be measured between {names}"
    moved = {method.datapath_class for method in found.first}
    several = len(found.by_class) > 1 and len(moved) == 1
    where = f", {_MOVED[moved.pop()]}" if several else ""
    soonest = ranking(field, RTT).first
    if soonest and soonest != found.first:
        return f"Most TCP {field.here}: {names}{where}; shortest round trip: {_names(soonest)}"
    tie = "; no difference could be measured between them" if len(found.first) > 1 else ""
    return f"Fastest {field.here}: {names}{where}{tie}"


# -- the field -------------------------------------------------------------------------------------


def field_of(comparison: Comparison) -> Field:
    """The methods of a comparison; within a class of datapath as its pairs say."""
    paired: dict[tuple[str, str, str], Verdict] = {}
    for pair in comparison.pairs:
        if pair.streams == 1:
            said = pair.ratio.verdict
            paired[pair.metric, pair.method, pair.other] = said
            paired[pair.metric, pair.other, pair.method] = _OPPOSITE.get(said, said)
    exact = comparison.plan.clock == "virtual"

    def relation(metric: str, one: Method, other: Method) -> Verdict:
        if one.datapath_class == other.datapath_class:
            return paired.get((metric, one.name, other.name), "unknown")
        return _apart(metric, one, other, exact=exact)

    return Field(
        comparison.plan.clock,
        tuple(_compared(comparison, method) for method in comparison.methods[1:]),
        relation,
        more="more builds do (`--repeat`)",
    )


def _compared(comparison: Comparison, method: MethodResult) -> Method:
    found = {
        metric: figure.to_baseline
        for metric in _FIRST
        if (figure := comparisons.find(comparison.figures, method.name, metric))
        and figure.to_baseline
    }
    proved = bool(method.builds) and all(build.path_proved for build in method.builds)
    tcp = comparisons.find(comparison.figures, method.name, TCP)
    return Method(
        name=method.name,
        scenario=method.scenario,
        datapath_class=method.datapath_class,
        datapath=method.datapath,
        fell_back=_fell_back(method.settings, method.datapath_class),
        passed=method.status == "passed",
        path_proved=proved,
        encapsulation=method.encapsulation,
        evidence="" if proved else text.plain(method.reason),
        portrait=portraits.declared(method.scenario, method.encapsulation),
        to_plain=found,
        to_own_hosts=tcp.to_control if tcp else None,
    )


def _field(records: Sequence[RunRecord], clock: Clock) -> Field | None:
    """The methods among run records: each was measured beside plain hosts of its own."""
    named = zip(records, tables.names(records), strict=True)
    chosen = [
        (record, name)
        for record, name in named
        if record.environment.clock == clock
        and record.scenario != "baseline"
        and record.status != "skipped"
    ]
    if not chosen:
        return None
    exact = clock == "virtual"

    def relation(metric: str, one: Method, other: Method) -> Verdict:
        return _apart(metric, one, other, exact=exact)

    methods = tuple(_recorded(record, name) for record, name in chosen)
    return Field(clock, methods, relation, tables.differences([record for record, _ in chosen]))


def _recorded(record: RunRecord, name: str) -> Method:
    found, proof = figures(record), record.path
    tcp = find(found, TCP)
    return Method(
        name=name,
        scenario=record.scenario,
        datapath_class=record.environment.datapath_class,
        datapath=record.environment.datapath,
        fell_back=_fell_back(tables.settings_of(record), record.environment.datapath_class),
        passed=record.status == "passed",
        path_proved=bool(proof and proof.proved and proof.negative_control),
        encapsulation=proof.encapsulation if proof else None,
        evidence=text.path(proof) if proof else "",
        portrait=portraits.portrait(record),
        to_plain={
            metric: figure.to_baseline
            for metric in _FIRST
            if (figure := find(found, metric)) and figure.to_baseline
        },
        to_own_hosts=tcp.to_control if tcp else None,
    )


def _fell_back(settings: Mapping[str, object], kind: DatapathClass) -> bool:
    return settings.get("datapath") == "auto" and kind == "userspace"


def _apart(metric: str, one: Method, other: Method, *, exact: bool) -> Verdict:
    """By the intervals of their ratios to plain hosts; what the virtual clock tells has none."""
    (low, high), (others_low, others_high) = (
        _bounds(method.to_plain.get(metric), exact=exact) for method in (one, other)
    )
    if not (low <= high and others_low <= others_high):
        return "unknown"
    if low <= others_high and others_low <= high:
        return "indistinguishable"
    return "faster" if (low > others_high) == metrics.of(metric).higher_is_better else "slower"


def _bounds(found: Spread | None, *, exact: bool) -> tuple[float, float]:
    """Nothing, (1, 0), where there is no interval."""
    if found and found.ci95:
        return found.ci95
    off = intervals.RESOLUTION / 2
    return (found.median * (1 - off), found.median * (1 + off)) if found and exact else (1.0, 0.0)


# -- who is first ----------------------------------------------------------------------------------


def ranking(field: Field, metric: str) -> Ranking:
    """First is whom nobody beats; nobody where two of them can't be told for want of rounds."""
    measured = _measured(field, metric)
    kinds = list(dict.fromkeys(method.datapath_class for method in measured))
    by_class = {
        kind: _unbeaten(field, metric, [m for m in measured if m.datapath_class == kind])
        for kind in kinds
    }
    if not all(by_class.values()):
        return Ranking(metric, (), by_class)
    # Whom nobody beats in his own class.
    rivals = [method for first in by_class.values() for method in first]
    first = _unbeaten(field, metric, rivals)
    return Ranking(metric, first, by_class, all_alike=len(first) == len(measured) > 1)


def _measured(field: Field, metric: str) -> list[Method]:
    return [method for method in field.methods if method.passed and metric in method.to_plain]


def _unbeaten(field: Field, metric: str, among: Sequence[Method]) -> tuple[Method, ...]:
    said = {
        (one.name, other.name): field.relation(metric, one, other)
        for one in among
        for other in among
        if one is not other
    }
    first = tuple(
        one for one in among if not any(said.get((one.name, o.name)) == "slower" for o in among)
    )
    unknown = any(said.get((a.name, b.name)) == "unknown" for a in first for b in first)
    return () if unknown else first


# -- the answers -----------------------------------------------------------------------------------


def _printable(answer: Answer) -> Answer:
    """Whatever a record says in it."""
    return Answer(answer.label, answer.question, tuple(map(text.plain, answer.said)))


def _answers(field: Field) -> Iterator[Answer]:
    measured = _measured(field, TCP)
    if len(measured) == 1:
        yield Answer("speed", f"How fast is it {field.here}?", tuple(_cost(measured[0])))
    elif measured:
        question = f"Which is fastest {field.here}?"
        yield Answer("fastest", question, tuple(_fastest(field)))
    why = tuple(_why(field, measured)) if measured else ()
    if why:
        yield Answer("why", "Why?", why)
    carried = tuple(_carried(field.methods))
    if carried:
        tunnelled = any(map(_has_a_tunnel, field.methods))
        asked = "Does the tunnel carry the traffic?" if tunnelled else "Which way does it go?"
        yield Answer("tunnel" if tunnelled else "way", asked, carried)


def _cost(method: Method) -> Iterator[str]:
    said = [
        f"{tables.ratio(ratio)} × the {what}{_within(ratio)}"
        for metric, (_, _, what) in _FIRST.items()
        if (ratio := method.to_plain.get(metric))
    ]
    yield f"{text.plain(method.name)}: {' and '.join(said)} of plain hosts."
    if any(tables.spans_one(method.to_plain.get(metric)) for metric in _FIRST):
        yield "≈: no difference to plain hosts could be measured."


def _within(ratio: Spread) -> str:
    return f" ({text.ratio_interval(ratio)})" if ratio.ci95 else ""


def _fastest(field: Field) -> Iterator[str]:
    if field.apart:
        yield f"They are not ranked: the runs differ in {field.apart}."
        return
    for metric in _FIRST:
        found = ranking(field, metric)
        if not _measured(field, metric):
            continue
        what = _FIRST[metric][2]
        if not all(found.by_class.values()) or not found.first:
            yield f"By {what} too few rounds were measured to say; {field.more}."
        elif found.all_alike:
            names = _names(found.first)
            yield f"No difference in {what} could be measured between {names}."
        else:
            yield from _in_order(field, found)


def _in_order(field: Field, found: Ranking) -> Iterator[str]:
    """Who is first of all, then who is in the other class of datapath."""
    _, _, what = _FIRST[found.metric]
    kinds = {method.datapath_class for method in found.first}
    if len(kinds) > 1:
        named = " and ".join(
            f"{_names(found.by_class[kind])} ({_MOVED[kind]})" for kind in found.by_class
        )
        yield (
            f"By {what} no difference could be measured between the best of both datapaths: "
            f"{named}."
        )
        return
    (kind,) = kinds
    yield f"{_first(found.metric, found.first)}{_best(found)}."
    for other, first in found.by_class.items():
        if other == kind:
            continue
        alone = len([m for m in _measured(field, found.metric) if m.datapath_class == other]) == 1
        if alone:
            yield f"{_names(first)}, {_MOVED[other]}{_ratio(found.metric, first[0])}."
        else:
            yield f"Of those {_MOVED[other]}: {_first(found.metric, first)}."


def _best(found: Ranking) -> str:
    """The ratio of who is first alone."""
    return _ratio(found.metric, found.first[0]) if len(found.first) == 1 else ""


def _ratio(metric: str, method: Method) -> str:
    ratio = method.to_plain[metric]
    if tables.spans_one(ratio):
        return "; no difference to plain hosts could be measured"
    return f": {tables.ratio(ratio)} × the {_FIRST[metric][2]} of plain hosts"


def _first(metric: str, first: Sequence[Method]) -> str:
    one, several, _ = _FIRST[metric]
    if len(first) == 1:
        return f"{_names(first)} {one}"
    them = "the two" if len(first) == 2 else "them"
    said = f"{_names(first)} {several}; no difference could be measured between {them}"
    if all(tables.spans_one(method.to_plain[metric]) for method in first):
        said += ", nor to plain hosts"
    return said


def _why(field: Field, measured: Sequence[Method]) -> Iterator[str]:
    """The datapath first: it decides more than any method."""
    kernel = [m for m in measured if m.datapath_class == "kernel"]
    others = [m for m in measured if m.datapath_class == "userspace"]
    if others:
        programs = "; ".join(
            f"{text.plain(datapath)}: {_names([m for m in others if m.datapath == datapath])}"
            for datapath in dict.fromkeys(m.datapath for m in others)
        )
        before = f"The kernel itself moves the packets of {_names(kernel)}. " if kernel else ""
        decided = _datapath_decides(field, others, alone=not kernel)
        lead = "The datapath, before anything else." if decided else "First the datapath."
        yield (
            f"{lead} {before}Every packet of {_names(others)} is handed to a program in user space "
            f"and back ({programs}). Their figures say little of the same method in the kernel."
        )
        yield from _of_their_own_hosts(others)
        if fallen := [m for m in others if m.fell_back]:
            yield (
                f"{_names(fallen)} would run in the kernel where that has Open vSwitch; "
                "this one offered none."
            )
    elif len(kernel) > 1:
        yield (
            "The kernel moves the packets of all of them, so what differs is what a method does to "
            "a packet: bridges and routes on its way, headers around it."
        )
    if not field.apart:
        yield from _both_ways(field, kernel, others)
    for method in measured:
        if method.bypasses:
            yield _bypass(field, method, measured)


def _of_their_own_hosts(methods: Sequence[Method]) -> Iterator[str]:
    """What in user space the methods cost, apart from the way that all packets of a host take.

    Through Open vSwitch the hosts' own packets are moved by the same program; weave leaves them to
    the kernel.
    """
    carried = [
        f"{text.plain(method.name)} {tables.ratio(method.to_own_hosts)} ×"
        for method in methods
        if method.to_own_hosts
    ]
    if carried:
        yield (
            "Beside the TCP of its own hosts, whose packets need none of the method: "
            f"{_listed(carried)}. What is missing there is the method's work in user space."
        )


def _datapath_decides(field: Field, others: Sequence[Method], *, alone: bool) -> bool:
    """Whether those in user space are slower than the best of the kernel; than plain hosts, if
    nothing else was measured."""
    if alone:
        ratios = [method.to_plain[TCP] for method in others]
        return all(ratio.ci95 and ratio.ci95[1] < 1 for ratio in ratios)
    first = () if field.apart else ranking(field, TCP).first
    return bool(first) and all(method.datapath_class == "kernel" for method in first)


def _both_ways(field: Field, kernel: Sequence[Method], others: Sequence[Method]) -> Iterator[str]:
    """A scenario that was measured through both: what the datapath alone makes of it."""
    for mine in kernel:
        for other in others:
            if (mine.scenario, mine.bypasses) != (other.scenario, other.bypasses):
                continue
            fast, slow = mine.to_plain[TCP], other.to_plain[TCP]
            ratios = (
                f"{text.plain(mine.name)} in the kernel {tables.ratio(fast)} × the TCP of plain "
                f"hosts, {text.plain(other.name)} in user space {tables.ratio(slow)} ×"
            )
            if field.relation(TCP, mine, other) in _OPPOSITE:
                yield f"{mine.scenario} shows it: {ratios}."
            elif field.relation(TCP, mine, other) == "indistinguishable":
                yield f"{mine.scenario} does not show it here, its intervals overlap: {ratios}."


def _bypass(field: Field, method: Method, measured: Sequence[Method]) -> str:
    """What takes no tunnel is fast for that; said against those that take the one it stands by."""
    name = text.plain(method.name)
    said = f"{name} has no tunnel to pay for: {method.way_past} bypasses it, and packets go plain."
    rivals = [
        m
        for m in measured
        if (m.scenario, m.datapath_class) == (method.scenario, method.datapath_class)
        and m is not method
        and not m.bypasses
    ]
    verdicts = {m.name: field.relation(TCP, method, m) for m in rivals}
    if field.apart or not rivals:
        return said
    told: dict[Verdict, str] = {
        "faster": "That is why it carries more TCP than {names}, whose packets take the tunnel.",
        "indistinguishable": "Yet no difference in TCP could be measured between it and {names}.",
        "slower": "All the same it carries less TCP than {names}.",
        "unknown": "Too few rounds were measured to set it beside {names}.",
    }
    for verdict, words in told.items():
        names = _names([m for m in rivals if verdicts[m.name] == verdict])
        if names:
            said += f" {words.format(names=names)}"
    return said


def _carried(methods: Sequence[Method]) -> Iterator[str]:
    """Whether the tunnel carries the traffic, the answer first."""
    proved = [m for m in methods if m.path_proved]
    tunnelled = [m for m in proved if m.encapsulation not in (None, "none")]
    bypassing = [m for m in proved if m.bypasses]
    plain = [m for m in proved if m.encapsulation == "none" and not m.bypasses]
    if tunnelled:
        named = _listed(f"{text.plain(m.name)} ({_on_the_wire(m)})" for m in tunnelled)
        yield f"Yes: {named}. {_evidence(tunnelled, 'with the tunnel cut the traffic stops')}"
    for method in bypassing:
        yield (
            f"No: {text.plain(method.name)}. A tunnel stands, but {method.way_past} bypasses it. "
            f"{_evidence([method], 'with the tunnel cut the traffic goes on')}"
        )
    if plain:
        yield (
            f"There is no tunnel: {_names(plain)}. The way is the plain wire. "
            f"{_evidence(plain, 'with it cut the traffic stops')}"
        )
    for method in methods:
        if not method.path_proved and (method.encapsulation or method.passed):
            why = f": {method.evidence.removeprefix('NOT proved: ')}" if method.evidence else ""
            yield f"Not proved: {text.plain(method.name)}{why}."


def _has_a_tunnel(method: Method) -> bool:
    """Whether it was built, or was seen on the wire."""
    between = method.portrait.between if method.portrait else ()
    return bool(between) or method.encapsulation not in (None, "none")


def _on_the_wire(method: Method) -> str:
    return _WIRE.get(method.encapsulation or "", method.encapsulation or "")


def _evidence(methods: Sequence[Method], cut: str) -> str:
    """What was seen on the wire; of several methods in one sentence."""
    if len(methods) == 1 and methods[0].evidence:
        return f"Proved on the wire: {methods[0].evidence}."
    return f"Proved by packets on the wire; and {cut}."


def _names(methods: Sequence[Method]) -> str:
    return _listed(text.plain(method.name) for method in methods)


def _listed(words: Sequence[str] | Iterator[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last
