"""What records say, for people: figures, tables, Markdown, a page.

    records ──> figures.py    medians and paired ratios by metric
                tables.py     the same as columns of text             ──> screen.py (a terminal)
                comparison.py the outcome of a comparison, likewise
                text.py       how a figure or a path is worded
                prose.py      the verdict, how it was measured
                topology.py   hosts, addresses, the way of a packet
                published.py  what others measured
                content.py    all that a report is about              ──> markdown.py, page.py,
                                                                          rows.py (CSV), junit.py,
                                                                          flent_file.py
    picture.py (SVG)   charts.py, lines.py, line_chart.py ──> gallery.py, drawing.py (matplotlib)

Nothing here measures, builds or draws on a terminal, and nothing is read but records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xlab import record
from xlab.compare import result
from xlab.errors import RecordError
from xlab.record import RunRecord
from xlab.report.figures import datapath_class, figures

#: A folder with one of these may be without records of its own.
_REPORTS = ("report.html", "scale.json", result.FILE)


def results_among(paths: Sequence[Path]) -> tuple[Sequence[Path], list[Path]]:
    """The results among several paths, and what is none: a shell's "*" names both.

    What is named alone is meant, and what is no result then an error of `find`; so it is if all
    are none.  A record that is corrupt is a result.
    """
    if len(paths) == 1:
        return paths, []
    none = [path for path in paths if _is_no_result(path)]
    if len(none) == len(paths):
        return paths, []
    return [path for path in paths if path not in none], none


def find(paths: Iterable[Path]) -> list[Path]:
    """The record files meant: each path a run.json, a folder with one, or a folder of such folders.

    Sorted by name within a folder, which is by time.  A comparison has a record for each method and
    build.  A folder that holds a report on records elsewhere, or what `xlab scale` wrote, is passed
    over beside others; raises RecordError for any other folder without records.
    """
    found: dict[Path, None] = {}
    reports = []
    for path in paths:
        try:
            if not path.is_dir() or (path / "run.json").exists():
                found[path / "run.json" if path.is_dir() else path] = None
                continue
            inside = _records_inside(path)
            if not inside and _is_report(path):
                reports.append(path)
                continue
        except OSError as error:
            raise RecordError(f"{str(path)[:300]}: {error.strerror}") from error
        if not inside:
            raise RecordError(f"{path}: no run.json here or in the folders in it")
        found.update(dict.fromkeys(inside))
    if reports and not found:
        raise RecordError(f"{reports[0]}: a report; name the folders of the records it is about")
    return list(found)


def comparison_in(paths: Sequence[Path]) -> Path | None:
    """The folder of the comparison meant, if that is all that is meant.

    One that was interrupted has no outcome yet: then it is its records that are meant.
    """
    if len(paths) != 1:
        return None
    (path,) = paths
    if path.name == result.FILE:
        return path.parent
    try:
        return path if (path / result.FILE).exists() else None
    except OSError as error:
        raise RecordError(f"{str(path)[:300]}: {error.strerror}") from error


def load(files: Iterable[Path]) -> tuple[dict[Path, RunRecord], list[RecordError]]:
    """The records that can be read, and for each other one the error that names the fault in it."""
    records: dict[Path, RunRecord] = {}
    errors = []
    for file in files:
        try:
            records[file] = record.load(file)
        except RecordError as error:
            errors.append(error)
    return records, errors


def to_data(file: Path, source: RunRecord) -> dict[str, Any]:
    """What a report says about a record, as JSON-ready data."""
    return {
        "file": str(file),
        "scenario": source.scenario,
        "status": source.status,
        "reason": source.reason,
        "started_at": source.started_at,
        "datapath": source.environment.datapath,
        "datapath_class": datapath_class(source),
        "claims": {
            "held": sum(claim.holds for claim in source.claims),
            "total": len(source.claims),
            "broken": [asdict(claim) for claim in source.claims if not claim.holds],
        },
        "path": asdict(source.path) if source.path else None,
        "figures": [asdict(figure) for figure in figures(source)],
    }


def _records_inside(folder: Path) -> list[Path]:
    """The records in the folders of a folder; hidden ones are still being written."""
    pattern = "*/b*/run.json" if (folder / "journal.jsonl").exists() else "*/run.json"
    found = sorted(folder.glob(pattern))
    return [file for file in found if not file.parent.name.startswith(".")]


def _is_report(folder: Path) -> bool:
    return any((folder / name).exists() for name in _REPORTS)


def _is_no_result(path: Path) -> bool:
    try:
        if path.is_dir():
            there = (path / record.FILE).exists() or _is_report(path) or _records_inside(path)
            return not there
        if not path.is_file():
            return False
        return path.suffix != ".json" or "scenario" not in record.read_json(path)
    except (OSError, RecordError, TypeError):
        return False
