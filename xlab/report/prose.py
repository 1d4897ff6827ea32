"""What a report says in sentences: the verdict first, how it was measured, in what environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xlab.record.figures import figures
from xlab.record.record import Measurement, RunRecord, Status
from xlab.report import conclusion, machine, tables, text, virtual
from xlab.report.conclusion import Answer
from xlab.report.portraits import in_words, published

#: Rounds below which figures are a smoke test, and those of a report.
SMOKE_ROUNDS, REPORT_ROUNDS = 5, 10
_HOW = (
    (
        "In a round every probe ran once between each pair of end points, in random order, so that "
        "what disturbs the machine meets all alike."
    ),
    (
        "Each method was measured beside its control, the hosts themselves from eth0 to eth0, and "
        "a baseline, two plain hosts on the same switches. A ratio is taken within a round; shown "
        "is the median over the rounds."
    ),
    (
        "Intervals are 95 % bootstrap intervals of the median: of the rounds from three rounds on, "
        "of a single round's samples where there was only one. Few rounds make them too narrow."
    ),
    (
        "The path was proved before anything was measured: pings with a payload nobody else sends, "
        "captured on the physical link and matched after address translation. Then the mechanism "
        "was cut, traffic had to stop (or, where it was not to pass there, go on), and healed."
    ),
    (
        "All hosts share one kernel: the figures compare processor time per packet, not the speed "
        "of wires."
    ),
)
#: Of a report that will be read elsewhere.
UNLINKED = (
    "The records, and what every tool printed, were not handed on with this report. Everything in "
    "it comes from them alone."
)
#: Before the name of the page that says more.
GUIDE = "Which method should I use? By what you have, by cost, by operations:"
#: What holds of comparisons, too.
MEASURED_BESIDE = _HOW[3:]
_MARKS: dict[Status, str] = {"passed": "✓", "failed": "✗", "skipped": "–"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it, the worst first: a record that failed outranks one that was skipped."""

    status: Status
    headline: str
    #: What a reader must know next: what failed, what was found, how far to trust it.
    findings: tuple[str, ...]
    #: What a class would ask of the methods, and what the records answer.
    answers: tuple[Answer, ...] = ()

    @property
    def mark(self) -> str:
        return _MARKS[self.status]


def verdict(records: Sequence[RunRecord]) -> Verdict:
    """The verdict on these records together."""
    came_to = {record.status for record in records}
    worst: Status = next((bad for bad in ("failed", "skipped") if bad in came_to), "passed")
    # Of one record that is the headline.
    outcomes = tables.outcomes(records) if len(records) > 1 else ()
    findings = [*outcomes, *tables.cautions(records)]
    answers = conclusion.of_records(records)
    if sure := tuple(sureness(records)):
        answers = (*answers, Answer("sure", conclusion.SURE, sure))
    return Verdict(worst, _headline(records, worst), tuple(findings), answers)


def measured(records: Sequence[RunRecord]) -> list[str]:
    """How the figures came about, a paragraph a topic; nothing if there are no figures."""
    told = [record for record in records if record.measurements]
    if not told:
        return []
    return [*virtual.how(told), f"{_rounds(told)} {_HOW[0]}", *_HOW[1:]]


def probes(records: Sequence[RunRecord]) -> list[tuple[str, str, str]]:
    """Each metric with its tool and what that left out, and a command as it was run."""
    seen: dict[str, tuple[str, str, str]] = {}
    for record in records:
        for m in record.measurements:
            name = text.label(m.metric, m.streams)
            if name not in seen and m.route == "method":
                seen[name] = (name, _tool(m), _detail(m, "command"))
    order = [text.label(f.metric, f.streams) for record in records for f in figures(record)]
    return [seen[name] for name in dict.fromkeys(order) if name in seen]


def published_beside(records: Sequence[RunRecord]) -> list[str]:
    """What others measured for these methods, where the charts show it as context."""
    said = []
    for record in records:
        context = published(record)
        if context:
            latency = f", {in_words(context.latency)} × the latency" if context.latency else ""
            said.append(
                f"{record.scenario}: {in_words(context.throughput)} × the throughput{latency} of "
                f"plain hosts was published for {context.subject} ({context.source})."
            )
    if said:
        said.append("Figures from real machines need not carry over to one kernel.")
    return list(dict.fromkeys(said))


def environment(
    records: Sequence[RunRecord], names: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Machine, tools and conditions; where records differ, each value with whose it is."""
    topics: dict[str, Callable[[RunRecord], str]] = {
        "clock": virtual.clock,
        "kernel": lambda r: r.environment.kernel,
        "processor": lambda r: f"{r.environment.cores} × {r.environment.cpu_model}",
        "load before": lambda r: " ".join(f"{value:.2f}" for value in r.environment.load),
        "datapath": lambda r: r.environment.datapath,
        "containers": lambda r: r.environment.container_runtime,
        "sandbox": lambda r: r.environment.sandbox,
        "congestion control": lambda r: r.environment.congestion_control,
        "size": _size,
        "MTU": lambda r: text.plain(str(r.parameters.get("mtu", "unknown"))),
        "link conditions": _links,
        "tools": lambda r: ", ".join(f"{k} {v}" for k, v in r.environment.tools.items()),
        "xlab": lambda r: r.environment.xlab,
        "machine": lambda r: "; ".join(r.environment.notes),
    }
    for name, say in topics.items():
        values: dict[str, list[str]] = {}
        for record, owner in zip(records, names, strict=True):
            values.setdefault(text.plain(say(record)), []).append(owner)
        if list(values) != [""]:
            yield name, _with_owners(values)


def notes(record: RunRecord) -> list[str]:
    """Fallbacks, faults and recoveries, in the order in which they occurred."""
    return [
        text.plain(event.detail if event.kind == "note" else f"{event.kind}: {event.detail}")
        for event in record.events
    ]


def path_facts(record: RunRecord) -> list[tuple[str, str, bool | None]]:
    """The proof of the path: what, what was seen, and whether that is as it should be."""
    proof = record.path
    if proof is None:
        return []
    others = proof.underlay_packets.stray
    facts: list[tuple[str, str, bool | None]] = [
        ("on the wire", text.packets(proof), proof.proved),
        ("negative control", text.plain(proof.control_detail) or "done", proof.negative_control),
    ]
    if proof.overhead_bytes is not None:
        facts.append(("overhead", text.count(proof.overhead_bytes, "byte") + " a packet", None))
    if proof.effective_mtu is not None:
        facts.append(("effective MTU", text.count(proof.effective_mtu, "byte"), None))
    if others:
        facts.append(("beside it", text.count(others, "other packet") + " on the link", None))
    return facts


# ------------------------------------------------------------------------------------ the verdict


#: In columns; what a build's command printed can be a page, and stands with its scenario, whole.
_LONGEST_HEADLINE = 200


def _headline(records: Sequence[RunRecord], worst: Status) -> str:
    held = sum(claim.holds for record in records for claim in record.claims)
    total = sum(len(record.claims) for record in records)
    named = zip(records, tables.names(records), strict=True)
    names = ", ".join(name for record, name in named if record.status == worst)
    if worst == "passed":
        subject = names if len(records) == 1 else f"All {len(records)} scenarios"
        verb = "works" if len(records) == 1 else "work"
        path = "its path is" if len(records) == 1 else "every path is"
        return f"{subject} {verb}: {held} of {total} claims hold, and {path} proved"
    if len(records) == 1:
        (said,) = tables.outcomes(records)
        return text.cut(said.rstrip("."), _LONGEST_HEADLINE)
    passed = sum(record.status == "passed" for record in records)
    return f"{names} {worst}; {passed} of {len(records)} passed"


def sureness(records: Sequence[RunRecord]) -> Iterator[str]:
    """How far to trust the figures: the clock, the machine, the number of rounds."""
    if virtual.any_of(records):
        yield virtual.MEANING
    told = [r for r in records if r.measurements and not virtual.is_of(r)]
    named = zip(records, tables.names(records), strict=True)
    judged = [(name, found) for record, name in named if (found := machine.judged(record))]
    for said in dict.fromkeys(machine.in_words(found) for _, found in judged):
        whose = [name for name, found in judged if machine.in_words(found) == said]
        everyone = len(whose) == len(judged)
        yield said if everyone else f"{', '.join(whose)}: {said[0].lower()}{said[1:]}"
    rounds = [len({(m.build, m.round) for m in r.measurements}) for r in told]
    if rounds and min(rounds) < SMOKE_ROUNDS:
        yield (
            f"Few rounds ({text.count(min(rounds), 'round')}): take the figures for a smoke test; "
            f"`--repeat {REPORT_ROUNDS}` makes a report of them."
        )


# ----------------------------------------------------------------------------- how it was measured


def _rounds(records: Sequence[RunRecord]) -> str:
    counts = sorted({len({(m.build, m.round) for m in record.measurements}) for record in records})
    said = " to ".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
    noun = "round" if counts[-1] == 1 else "rounds"
    durations = sorted(
        {
            float(value)
            for record in records
            if isinstance(value := record.parameters.get("duration_s"), int | float)
            and 0 < value < 1e6
        }
    )
    if not durations:
        return f"Measured in {said} {noun}."
    lasting = " to ".join(dict.fromkeys((f"{durations[0]:g}", f"{durations[-1]:g}")))
    return f"Measured in {said} {noun}, TCP for {lasting} s each time."


def _tool(m: Measurement) -> str:
    said = [_detail(m, "tool") or text.plain(m.probe)]
    omitted = m.detail.get("omitted_s")
    if isinstance(omitted, int | float) and 0 < omitted < 1e6:
        said.append(f"the first {omitted:g} s left out")
    if "first_ms_left_out" in m.detail:
        said.append("the first reply left out")
    if samples := _detail(m, "samples_are"):
        said.append(f"samples are {samples}")
    cores = _detail(m, "cores")
    if cores:
        said.append(f"on cores {cores}" if cores[:1].isdigit() else cores)
    return ", ".join(said)


def _detail(m: Measurement, name: str) -> str:
    value = m.detail.get(name)
    return text.plain(value) if isinstance(value, str) else ""


# --------------------------------------------------------------------------------- environment


def _size(record: RunRecord) -> str:
    hosts, containers, topo = (
        record.parameters.get(name) for name in ("hosts", "containers", "topo")
    )
    said = f"{hosts} hosts, {containers} containers each"
    return f"{said}, topology {topo}" if topo else said


def _links(record: RunRecord) -> str:
    asked = record.conditions
    return text.imposed(asked) if text.conditions(asked) else "none"


def _with_owners(values: dict[str, list[str]]) -> tuple[str, ...]:
    if len(values) == 1:
        return tuple(values)
    return tuple(
        f"{value or 'none'} ({', '.join(dict.fromkeys(names))})" for value, names in values.items()
    )
