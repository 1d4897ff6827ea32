"""Tables as columns of text, before anyone decides how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from xlab.record import metrics
from xlab.record.cause import cause
from xlab.record.comparisons import Ratio
from xlab.record.figures import Figure, figures, find
from xlab.record.metrics import FOREMOST
from xlab.record.record import ROUTES, Route, RunRecord
from xlab.record.stats import Spread
from xlab.report import text

LEGEND = (
    "× control (ctrl): against the hosts themselves, eth0 to eth0. "
    "× baseline (base): against two plain hosts on the same switches."
)
#: What is sent of what is offered, below which the difference is worth a word.
_ALL_BUT = 0.95
#: In the place of a median that every sample of failed.
NO_FIGURE = "no figure"
#: Of figures that stand for themselves.
NO_RATIOS = "{}: no × columns, for of two such figures the one may be any multiple of the other"
NO_INTERVAL = "no interval (–): that takes three rounds with a figure (`--repeat 3`)"
NOT_MEASURED = "no figure (–): nothing was measured there"
INDISTINGUISHABLE = "≈ the interval spans 1: no difference can be told."


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    #: The title where the width does not suffice for the whole.
    short: str = ""
    #: Flush right, for what is compared digit by digit.
    right: bool = False
    #: Where the width does not suffice, the highest is left out first; 0 is always shown.
    expendable: int = 0
    #: Where the width does not suffice, shown on a line of its own beneath the row.
    below: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    #: What a reader must know to read it right.
    notes: tuple[str, ...] = ()


def labels(content: Table) -> list[str]:
    """Titles that can be told apart when the columns are not beside each other any more."""
    labels: list[str] = []
    subject = ratio = ""
    titles = [column.title for column in content.columns]
    for title in titles:
        label = title
        if title.startswith("× "):
            label = ratio = f"{subject} {title}" if titles.count(title) > 1 else title
        elif title.endswith("interval") and ratio:
            label = f"{ratio}, {title}"
        else:
            subject = title
        labels.append(label)
    return labels


def overview(records: Sequence[RunRecord]) -> list[Table]:
    """The closing table: a scenario a row; a table for each class of datapath, never across."""
    found = groups(records)
    return [
        _overview(members, kind if len(found) > 1 or "virtual" in kind else "")
        for kind, members in found
    ]


def glance(records: Sequence[RunRecord]) -> list[Table]:
    """The closing table for a page that tells of each path elsewhere, and has room for `names`."""
    named = dict(zip(map(id, records), names(records), strict=True))
    found = []
    for table, (_, members) in zip(overview(records), groups(records), strict=True):
        titles = [column.title for column in table.columns]
        path, end = titles.index("path"), titles.index("datapath") + 1
        rows = [
            (named[id(record)], *row[1:path], text.proved(record.path), *row[path + 1 : end])
            for record, row in zip(members, table.rows, strict=True)
        ]
        found.append(Table(table.columns[:end], tuple(rows), table.title, table.notes))
    return found


def names(records: Sequence[RunRecord]) -> list[str]:
    """The scenario of each record, with what tells it from others of that scenario.

    Those are the settings in which they differ, and the time where these do not suffice.
    """
    named = []
    for record in records:
        own = settings_of(record)
        alike = [settings_of(other) for other in records if other.scenario == record.scenario]
        differing = [key for key in own if len({str(other.get(key)) for other in alike}) > 1]
        name = " ".join([record.scenario, *(f"{key}={own[key]}" for key in differing)])
        same = sum(all(other.get(key) == own[key] for key in differing) for other in alike)
        named.append(text.plain(name if same == 1 else f"{name} {record.started_at[:19]}"))
    return named


def groups(records: Sequence[RunRecord]) -> list[tuple[str, list[RunRecord]]]:
    """Records that may be ranked among each other: of one class of datapath, and of one clock.

    In their order; what was skipped goes with the first.
    """

    def kind(record: RunRecord) -> str:
        clock = ", virtual time" if record.environment.clock == "virtual" else ""
        return f"{record.environment.datapath_class} datapath{clock}"

    classes = sorted({kind(r) for r in records if r.status != "skipped"}) or ["kernel datapath"]

    def home(record: RunRecord) -> str:
        return classes[0] if record.status == "skipped" else kind(record)

    return [(kind, [record for record in records if home(record) == kind]) for kind in classes]


def remarks(records: Sequence[RunRecord]) -> list[str]:
    """What the closing table leaves unsaid: broken claims, skips, and what forbids a comparison."""
    return [*outcomes(records), *cautions(records)]


def outcomes(records: Sequence[RunRecord]) -> Iterator[str]:
    """Why a scenario failed or was skipped, for each that did not pass."""
    for record in records:
        name = text.plain(record.scenario)
        if record.status == "skipped":
            yield f"{name} was skipped: {text.plain(record.reason)}"
        elif record.status == "failed":
            yield f"{name} failed: {why(record)}"


def cautions(records: Sequence[RunRecord]) -> Iterator[str]:
    """What forbids to compare these records."""
    ran = [record for record in records if record.status != "skipped"]
    if len({record.environment.datapath_class for record in ran}) > 1:
        yield "Figures of kernel and userspace datapaths do not rank methods."
    if listed := differences(ran):
        yield f"Do not set the figures of these runs side by side: they differ in {listed}."


def differences(records: Sequence[RunRecord]) -> str:
    """In what circumstances they were made that are not the same for all; "" if they are."""
    circumstances = [_circumstances(record) for record in records]
    values = [
        (name, dict.fromkeys(each[name] for each in circumstances))
        for name in (circumstances[0] if circumstances else ())
    ]
    return "; ".join(f"{name} ({' | '.join(seen)})" for name, seen in values if len(seen) > 1)


def route_figures(record: RunRecord, *, routes_first: bool = False) -> Table:
    """The figures of a record, a metric a row.

    Where the width does not suffice, intervals outlive the medians of the other routes; with
    `routes_first` it is the other way round.
    """
    interval_rank, route_rank = (3, 0) if routes_first else (0, 3)
    found = figures(record)
    columns = (
        Column("measured"),
        Column("method" if routes_first else "median", right=True),
        Column("95 % interval", right=True, expendable=interval_rank),
        Column("control", right=True, expendable=route_rank),
        Column("baseline", right=True, expendable=route_rank),
        Column("× control", right=True),
        Column("interval", right=True, expendable=2),
        Column("× baseline", right=True),
        Column("interval", right=True, expendable=2),
    )
    topics = (_failures, _offered, _sender_limited)
    notes = [note for notes_of in topics for figure in found for note in notes_of(figure)]
    notes += _blanks(found)
    if any(spans_one(spread) for f in found for spread in (f.to_control, f.to_baseline)):
        notes.append(INDISTINGUISHABLE)
    return Table(columns, tuple(_figure_row(f) for f in found), heading(record), tuple(notes))


def crossing(subjects: Sequence[tuple[str, RunRecord]]) -> Table:
    """What each method adds to a packet, and the largest that crosses; without those unproved."""
    columns = (
        Column("method"),
        Column("on the wire"),
        Column("added to a packet", right=True),
        Column("largest IP packet", right=True),
        Column("MTU of the network", right=True),
        Column("TCP payload of a full packet", right=True),
    )
    rows = []
    for name, record in subjects:
        proof = record.path
        if proof is None or not proof.proved or proof.effective_mtu is None:
            continue
        added, largest = proof.overhead_bytes, proof.effective_mtu
        mtu = record.parameters.get("mtu")
        share = "unknown"
        # A record of a stranger may say 0 of both.
        if added is not None and largest + added > 0:
            share = f"{max(largest - _HEADERS_BYTES, 0) / (largest + added):.1%}"
        rows.append(
            (
                text.plain(name),
                text.encapsulation(proof.encapsulation),
                "not seen" if added is None else f"{added} B",
                f"{largest} B",
                text.plain(f"{mtu} B") if isinstance(mtu, int) else "unknown",
                share,
            )
        )
    return Table(columns, tuple(rows))


#: IPv4 and TCP, with the timestamps that Linux sends (RFC 9293, RFC 7323).
_HEADERS_BYTES = 20 + 20 + 12


def _overview(records: Sequence[RunRecord], title: str) -> Table:
    columns: tuple[Column, ...] = (
        Column("scenario"),
        Column("claims"),
        *chain.from_iterable(
            (
                Column(metrics.of(metric).label, right=True),
                Column("× control", short="× ctrl", right=True),
                Column("× baseline", short="× base", right=True),
            )
            for metric in FOREMOST
        ),
        Column("path", below=True),
        Column("datapath", below=True),
        Column("run", below=True),
    )
    names = [record.scenario for record in records]
    rows: list[tuple[str, ...]] = [
        (*_overview_row(record), which(record) if names.count(record.scenario) > 1 else "")
        for record in records
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    blank = any(text.NOTHING in row for row in rows)
    return Table(columns, tuple(rows), title, (NOT_MEASURED,) if blank else ())


def which(record: RunRecord) -> str:
    """What tells a record from others of its scenario: its settings, and when it was made."""
    given = [f"{name}={value}" for name, value in settings_of(record).items()]
    return text.plain(" ".join([*given, record.started_at]))


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The scenario's options; empty where a record has something else in their place."""
    settings = record.parameters.get("settings")
    return settings if isinstance(settings, dict) else {}


def heading(record: RunRecord) -> str:
    clock = ", virtual time" if record.environment.clock == "virtual" else ""
    named = f"{record.scenario}, {record.environment.datapath}{clock}"
    return f"{text.plain(named)}: {which(record)}"


def _overview_row(record: RunRecord) -> tuple[str, ...]:
    found = figures(record)
    cells: list[str] = []
    for metric in FOREMOST:
        figure = find(found, metric)
        if figure is None:
            cells += ["" if record.status == "skipped" else text.NOTHING] * 3
        else:
            ratios = ratio(figure.to_control), ratio(figure.to_baseline)
            cells += [_median(figure, "method"), *ratios]
    skipped = record.status == "skipped"
    return (
        text.plain(record.scenario),
        text.claims(record),
        *cells,
        "" if skipped else text.path(record.path),
        "" if skipped else text.plain(record.environment.datapath),
    )


def _figure_row(figure: Figure) -> tuple[str, ...]:
    metric, unit = figure.metric, figure.unit
    return (
        text.label(metric, figure.streams),
        _median(figure, "method"),
        text.interval(metric, unit, figure.method),
        _median(figure, "control"),
        _median(figure, "baseline"),
        ratio(figure.to_control),
        text.ratio_interval(figure.to_control),
        ratio(figure.to_baseline),
        text.ratio_interval(figure.to_baseline),
    )


def _median(figure: Figure, route: Route) -> str:
    spread: Spread | None = getattr(figure, route)
    if spread is None and figure.failed_samples.get(route):
        return NO_FIGURE
    return text.median(figure.metric, figure.unit, spread)


def _failures(figure: Figure) -> Iterator[str]:
    """What failed, on which route, and what the probe said of it."""
    name = text.label(figure.metric, figure.streams)
    for route, number in figure.failed_samples.items():
        why = text.plain(figure.errors[route]) if route in figure.errors else ""
        if getattr(figure, route) is None:
            yield f"{name}, {route}: {NO_FIGURE}, for {why or 'every sample failed'}"
        else:
            reason = f" ({why})" if why else ""
            yield f"{name}, {route}: {text.count(number, 'sample')} without a figure{reason}"


def _offered(figure: Figure) -> Iterator[str]:
    """What UDP was offered on each route; and what could be sent, where that is much less."""
    said = []
    for route, offered in figure.offered_bits_per_second.items():
        sent = figure.sent_bits_per_second.get(route)
        is_less = sent and sent < _ALL_BUT * offered
        less = f", of which {_speed(sent)} could be sent" if sent and is_less else ""
        said.append(f"{route} {_speed(offered)}{less}")
    if said:
        yield (
            "UDP: no × columns, for each was sent 90 % of what its own TCP carried, not the same: "
            f"{'; '.join(said)}"
        )


def _blanks(found: Sequence[Figure]) -> Iterator[str]:
    """What a – means, where there is one that nothing else explains."""
    offered = any(figure.offered_bits_per_second for figure in found)
    for figure in found:
        told = offered and figure.metric.startswith("udp_")
        if not (metrics.of(figure.metric).has_ratios or told):
            yield NO_RATIOS.format(text.label(figure.metric, figure.streams))
    for figure in found:
        spreads = (figure.method, figure.to_control, figure.to_baseline)
        if any(spread and spread.ci95 is None for spread in spreads):
            yield NO_INTERVAL
            break
    if any(
        getattr(figure, route) is None and route not in figure.failed_samples
        for figure in found
        for route in ROUTES
    ):
        yield NOT_MEASURED


def _sender_limited(figure: Figure) -> Iterator[str]:
    """Where all arrived that could be sent, the path may carry more than the figure says."""
    name, routes = text.label(figure.metric, figure.streams), ", ".join(figure.sender_limited)
    if routes:
        yield f"{name}, {routes}: the sender was the limit, not the path, which may carry more"


def _speed(bits_per_second: float) -> str:
    return text.value("x_bits_per_second", "", bits_per_second)


def ratio(spread: Spread | None) -> str:
    """With ≈ where its interval spans 1: no difference can be told."""
    return f"≈ {text.ratio(spread)}" if spans_one(spread) else text.ratio(spread)


def spans_one(spread: Spread | None) -> bool:
    """Whether no difference can be told; what has no interval may have been judged without."""
    if isinstance(spread, Ratio) and spread.verdict == "indistinguishable":
        return True
    return spread is not None and spread.ci95 is not None and spread.ci95[0] <= 1 <= spread.ci95[1]


def why(record: RunRecord) -> str:
    """What did not hold, said anew of older records, too; if all did, the record's own reason."""
    found = cause(record.claims, record.path, whole=record.path is not None)
    return text.plain(found or record.reason) or "see its record"


def _circumstances(record: RunRecord) -> dict[str, str]:
    environment, parameters = record.environment, record.parameters
    return {
        "clock": environment.clock,
        "kernel": text.plain(environment.kernel),
        "CPU": text.plain(f"{environment.cores} × {environment.cpu_model}"),
        "congestion control": text.plain(environment.congestion_control),
        **{
            name: text.plain(str(parameters.get(name, "unknown")))
            for name in ("hosts", "containers", "mtu")
        },
        "topology": text.plain(str(parameters.get("topo") or "default")),
        **{name: said or "none" for name, said in text.each_condition(record.conditions)},
    }
