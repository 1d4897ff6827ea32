"""Measurements as CSV, one a line: for spreadsheets, R and pandas.

scenario,name,build,round,route,probe,metric,streams,unit,median,ci95_low,ci95_high,samples,…
"""

from __future__ import annotations

import csv
import io

from xlab.record.record import Measurement
from xlab.report.content import Content, Part
from xlab.report.text import plain

COLUMNS = (
    "scenario", "name", "datapath", "build", "round", "route", "direction", "probe", "metric",
    "streams", "unit", "median", "ci95_low", "ci95_high", "samples", "failed_samples",
    "started_at", "error",
)  # fmt: skip


def render(told: Content) -> str:
    """A header, then a line a measurement; `median` is empty where all samples failed.

    The baseline of a comparison is a method of its own, and stands here once.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in told.parts:
        for m in part.record.measurements:
            if not (told.comparison and m.route == "baseline"):
                writer.writerow([cell(value) for value in _values(part, m)])
    return written.getvalue()


def _values(part: Part, m: Measurement) -> list[object]:
    record = part.record
    low, high = m.ci95 or (None, None)
    return [
        record.scenario, part.name, record.environment.datapath, m.build, m.round, m.route,
        m.direction, m.probe, m.metric, m.streams, m.unit, m.median, low, high, len(m.samples),
        m.failed_samples, m.started_at, m.detail.get("error", ""),
    ]  # fmt: skip


def cell(value: object) -> object:
    """Nothing out of a record becomes a spreadsheet's formula, or a line of its own."""
    if not isinstance(value, str):
        return value
    said = " ".join(plain(value).split())
    return f"'{said}" if said.startswith(("=", "+", "-", "@")) else said
