"""The results that somebody means by a path: which files they are, and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from xlab.errors import RecordError, shortened
from xlab.record import comparisons, record
from xlab.record.record import RunRecord

#: What to name instead of what is not there.
WHERE = "`xlab run` writes to results/, or where its --results says"

#: A folder with one of these may be without records of its own.
_REPORTS = ("report.html", "scale.json", comparisons.FILE)


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
            raise RecordError(f"{shortened(path)}: {error.strerror}") from error
        if not inside:
            raise RecordError(f"{path}: no run.json here or in the folders in it; {WHERE}")
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
    if path.name == comparisons.FILE:
        return path.parent
    try:
        return path if (path / comparisons.FILE).exists() else None
    except OSError as error:
        raise RecordError(f"{shortened(path)}: {error.strerror}") from error


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
