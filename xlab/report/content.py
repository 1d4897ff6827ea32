"""What a report is about, whatever form it takes: run records, or the outcome of a comparison.

    run records ───────────────────────────┐
                                           ├──> Content ──> forms/, gallery.py …
    compare.json, METHOD/bN/run.json ──────┘

All builds of a method in a comparison become one record, with the baseline's figures of the same
rounds as its route "baseline".  From there on both are told by the same code; the figures of such a
record are those of compare.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlab.errors import RecordError
from xlab.record import comparisons, result_files
from xlab.record.comparisons import Comparison, MethodResult
from xlab.record.metrics import FOREMOST
from xlab.record.record import (
    Conditions,
    Measurement,
    PathProof,
    RunRecord,
    Timings,
    UnderlayPackets,
)
from xlab.report import comparison as wording
from xlab.report import prose, tables, text
from xlab.report.charts import Subject
from xlab.report.prose import Verdict
from xlab.report.tables import Table

#: What the first tables of a comparison are about.
_FOREMOST = tuple((metric, 1) for metric in FOREMOST)


@dataclass(frozen=True, slots=True)
class Part:
    """One record, or all those of a method as one."""

    name: str
    record: RunRecord
    #: What it was read from; of a comparison by build, and nothing where that has moved without.
    files: Mapping[Path, RunRecord]
    #: How its builds went, in a comparison.
    builds: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    started_at: tuple[str, ...]
    verdict: Verdict
    summary: tuple[Table, ...]
    legend: str
    parts: tuple[Part, ...]
    how: tuple[str, ...]
    #: Tables that stand behind the charts.
    more: tuple[Table, ...] = ()
    #: Tables for whoever doubts the circumstances.
    circumstances: tuple[Table, ...] = ()
    #: The outcome of the comparison, if it is one, and the file that has it.
    comparison: Comparison | None = None
    file: Path | None = None
    #: Of each thing the one value of all records, or several with who has each.
    environment: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: A comparison by the other clock, whose ratios are shown beside.
    beside: Comparison | None = None
    #: Whether the records will be found where they are now, by whoever reads this.
    linked: bool = True

    @property
    def records(self) -> list[RunRecord]:
        return [part.record for part in self.parts]

    @property
    def subjects(self) -> list[Subject]:
        return [(part.name, part.record) for part in self.parts]

    def name_of(self, file: Path) -> str:
        """A record's; of a comparison it is told from the comparison's folder."""
        return str(file.relative_to(self.file.parent if self.file else file.parent.parent))

    def command(self, probe: str) -> str:
        """What measures more of this kind."""
        return f"xlab {'compare' if self.comparison else 'run'} … --probe {probe}"


def of_records(records: Mapping[Path, RunRecord]) -> Content:
    shown = list(records.values())
    return Content(
        started_at=tuple(told.started_at for told in shown),
        verdict=prose.verdict(shown),
        summary=tuple(tables.glance(shown)),
        legend=tables.LEGEND if any(told.measurements for told in shown) else "",
        parts=tuple(
            Part(name, told, {file: told})
            for (file, told), name in zip(records.items(), tables.names(shown), strict=True)
        ),
        how=tuple(prose.measured(shown)),
        environment=tuple(prose.environment(shown, tables.names(shown))),
    )


def of_comparison(found: Comparison, folder: Path) -> tuple[Content, list[RecordError]]:
    """The comparison in `folder`, and an error for each of its records that cannot be read."""
    files: dict[str, dict[Path, RunRecord]] = {}
    errors: list[RecordError] = []
    for method in found.methods:
        named = (_record_file(folder, build.folder) for build in method.builds)
        files[method.name], unread = result_files.load(file for file in named if file)
        errors += unread
    plain = _measured(found, found.baseline, files[found.baseline.name])
    parts = tuple(
        Part(
            text.plain(method.name),
            _merged(found, method, files[method.name], plain),
            files[method.name],
            wording.builds(method),
        )
        for method in found.methods
    )
    asked = [*wording.metrics(found), wording.RECOVERY]
    return Content(
        started_at=(found.started_at, found.ended_at),
        verdict=wording.outcome(found),
        summary=tuple(wording.tables(found, _FOREMOST)),
        legend=wording.LEGEND if found.figures else "",
        parts=parts,
        how=(*wording.how(found), *prose.MEASURED_BESIDE),
        more=tuple(wording.tables(found, [key for key in asked if key not in _FOREMOST])),
        circumstances=(wording.rounds(found),),
        comparison=found,
        file=folder / comparisons.FILE,
        environment=tuple(
            prose.environment([part.record for part in parts], [part.name for part in parts])
        ),
    ), errors


def _record_file(folder: Path, build: str) -> Path | None:
    """The run.json of a build if it is there: beneath the comparison, whatever that names."""
    file = folder / build / "run.json"
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        return file if inside and file.exists() else None
    except (OSError, ValueError):  # no name that a file could have
        return None


def _merged(
    found: Comparison,
    method: MethodResult,
    files: Mapping[Path, RunRecord],
    plain: Sequence[Measurement],
) -> RunRecord:
    """All builds of a method as one record."""
    told = list(files.values())
    measured = _measured(found, method, files)
    if method is not found.baseline:
        measured += [dataclasses.replace(m, route="baseline") for m in plain]
    first = told[0] if told else _outline(found, method)
    timings = {
        each.name: sum(getattr(one.timings_s, each.name) for one in told)
        for each in dataclasses.fields(Timings)
    }
    later = [
        dataclasses.replace(claim, stage=f"build {number}: {claim.stage}")
        for number, one in enumerate(told[1:], 2)
        for claim in one.claims
        if not claim.holds
    ]
    events = {(event.kind, event.detail): event for one in told for event in one.events}
    return dataclasses.replace(
        first,
        status=method.status,
        reason=method.reason,
        claims=(*first.claims, *later),
        timings_s=Timings(**timings),
        measurements=tuple(measured),
        events=tuple(events.values()),
    )


def _measured(
    found: Comparison, method: MethodResult, files: Mapping[Path, RunRecord]
) -> list[Measurement]:
    """From its records; where those are not there, what compare.json has of each round."""
    if files:
        return [m for told in files.values() for m in told.measurements]
    return list(_from_points(found, method))


def _from_points(found: Comparison, method: MethodResult) -> Iterator[Measurement]:
    recoveries = {(told.method, told.build, told.metric): told for told in found.recoveries}
    for point in found.points:
        if point.method == method.name:
            told = recoveries.get((point.method, point.build, point.metric))
            detail = {"stopped": told.stopped, "mend_s": told.mend_s} if told else {}
            yield Measurement(
                probe="",
                metric=point.metric,
                unit=point.unit,
                direction="",
                streams=point.streams,
                round=point.round,
                build=point.build,
                started_at=found.started_at,
                samples=(),
                failed_samples=point.failed_samples,
                median=point.median,
                route=point.route,
                detail=detail | ({"error": point.error} if point.error else {}),
            )


def _outline(found: Comparison, method: MethodResult) -> RunRecord:
    """As much of a run record as compare.json tells."""
    proved = bool(method.builds) and all(build.path_proved for build in method.builds)
    path = None
    if method.encapsulation is not None:
        path = PathProof(
            method.encapsulation, UnderlayPackets(), proved, proved, None, method.effective_mtu
        )
    return RunRecord(
        scenario=method.scenario,
        status=method.status,
        reason=method.reason,
        started_at=found.started_at,
        parameters=method.parameters,
        environment=dataclasses.replace(found.environment, datapath=method.datapath),
        conditions=Conditions(),
        timings_s=Timings(),
        claims=(),
        path=path,
        measurements=(),
    )
