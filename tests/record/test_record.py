"""The run record: written whole or not at all, read back equal, refused by place when corrupt."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.counting import Counted
from tests.support.fuzzing import Refusal, attempt, memory_below
from tests.support.records import RECORDS, sample
from xlab.errors import RecordError
from xlab.kernel import disk
from xlab.record import record
from xlab.record.record import RunRecord

FOLDERS = sorted(path.parent for path in RECORDS.glob("*/run.json"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(action: Callable[[], RunRecord]) -> str | None:
    """What a RecordError said, or None when there was a record that comes back from its JSON."""
    loaded = attempt(action, RecordError)
    if isinstance(loaded, Refusal):
        return loaded
    text = json.dumps(loaded.to_dict(), allow_nan=False)
    assert record.from_dict(json.loads(text)) == loaded
    return None


def test_the_sample_records_are_what_their_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_records", RECORDS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert {folder.name: record.load(folder) for folder in FOLDERS} == make.samples()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_record_comes_back_equal_from_its_own_json(folder: Path) -> None:
    loaded = record.load(folder)
    assert loaded == record.load(folder / "run.json")
    assert record.from_dict(json.loads(json.dumps(loaded.to_dict()))) == loaded
    assert next(iter(loaded.to_dict())) == "schema_version"


def test_fields_of_a_later_version_of_the_same_schema_are_ignored() -> None:
    data = sample("bridge").to_dict()
    data["colour"] = "green"
    data["claims"][0]["severity"] = 3
    assert record.from_dict(data) == sample("bridge")


# ---------------------------------------------------------------------------------------- writing


def test_save_writes_the_record_beside_its_raw_output(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "20250102T090000Z-bridge"
    record.save(sample("bridge"), folder, {"ping.txt": b"64 bytes from"})
    assert record.load(folder) == sample("bridge")
    assert (folder / "raw" / "ping.txt").read_bytes() == b"64 bytes from"
    assert names(tmp_path / "results") == [folder.name]


def test_an_earlier_record_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    record.save(sample("bridge"), folder, {})
    with pytest.raises(FileExistsError, match="a record is there already"):
        record.save(sample("baseline"), folder, {})
    assert record.load(folder) == sample("bridge")
    assert names(tmp_path) == ["x"]


def test_a_record_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = replace(sample("bridge"), parameters={"delay": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.save(broken, tmp_path / "x", {"ping.txt": b""})
    assert names(tmp_path) == []


def test_a_file_name_that_is_no_text_can_be_recorded(tmp_path: Path) -> None:
    asked = replace(sample("bridge"), parameters={"scenario": os.fsdecode(b"/tmp/\xff.py")})
    record.save(asked, tmp_path / "x", {})
    assert record.load(tmp_path / "x") == asked


#: Where a file may have ten bytes: a disk that is full refuses in the same way (write(2)).
_TEN_BYTES = """
import os, resource, sys
from xlab.record.record import append_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for data in (b"seven..", b"eight...", b"six..."):
    try:
        append_whole(file, data)
    except OSError as error:
        print(error.strerror)
append_whole(file, b"fit")
"""


def test_what_has_no_room_at_the_end_of_a_file_is_not_there_in_part(tmp_path: Path) -> None:
    file = tmp_path / "appended"
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TEN_BYTES, str(file)],
        env={**os.environ, "PYTHONPATH": str(RECORDS.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "File too large\n" * 2
    assert file.read_bytes() == b"seven..fit"


#: A writer that ends in the midst of it.
_KILLED = """
import os, sys, pathlib
from xlab.kernel import disk
disk._rename_folder = lambda *_: os._exit(0)
disk.new_folder(pathlib.Path(sys.argv[1]), {"raw/ping.txt": b""})
"""


def test_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "left"], check=True)
    (left,) = tmp_path.iterdir()
    alive = tmp_path / f".partial-{os.getpid()}-20250102T090000Z-bridge"
    whole = tmp_path / "20250102T090000Z-bridge"
    for folder in (alive, whole):
        (folder / "raw").mkdir(parents=True)
    alive.chmod(left.stat().st_mode)
    disk.sweep(tmp_path)
    assert names(tmp_path) == sorted([alive.name, whole.name])


# -------------------------------------------------------------------------------- what is refused


def at(data: Any, *path: str | int) -> Any:
    for step in path:
        data = data[step]
    return data


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("claims", 2, "holds"), "yes", 'claims[2].holds: expected true or false, found "yes"'),
        (("claims", 0, "holds"), 1, "claims[0].holds: expected true or false, found 1"),
        (("claims",), {}, "claims: expected a list, found {}"),
        (("claims", 1), None, "claims[1]: expected an object, found null"),
        (("status",), "fine", 'status: expected passed | failed | skipped, found "fine"'),
        (("status",), ["passed"], "status: expected passed | failed | skipped"),
        (("measurements", 5, "median"), "fast", "measurements[5].median: expected a number"),
        (("measurements", 5, "ci95"), [1.0], "measurements[5].ci95: expected a list of 2"),
        (("measurements", 0, "samples", 3), None, "measurements[0].samples[3]: expected a number"),
        (("timings_s", "total"), 1e101, "timings_s.total: expected a number that something can"),
        (("measurements", 0, "median"), 5e-324, "measurements[0].median: expected a number that"),
        (("measurements", 0, "round"), True, "measurements[0].round: expected a number"),
        (("measurements", 0, "round"), 1.5, "measurements[0].round: expected a number"),
        (("environment", "tools", "ping"), 3, "environment.tools.ping: expected text, found 3"),
        (("environment", "load"), [0.1, 0.2], "environment.load: expected a list of 3"),
        (("path", "underlay_packets", "gre"), "20", "path.underlay_packets.gre: expected a number"),
        (("path", "encapsulation"), "ipip", "path.encapsulation: expected none | gre | vxlan"),
        (("schema_version",), 2, "schema_version: expected 1, found 2"),
        (("schema_version",), "1", 'schema_version: expected 1, found "1"'),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(
    path: tuple[str | int, ...], value: Any, said: str
) -> None:
    data = sample("bridge").to_dict()
    data = json.loads(json.dumps(data))
    at(data, *path[:-1])[path[-1]] = value
    with pytest.raises(RecordError) as refused:
        record.from_dict(data)
    assert str(refused.value).startswith(said)


def test_a_missing_field_is_named_and_one_with_a_default_is_not_needed() -> None:
    data = json.loads(json.dumps(sample("bridge").to_dict()))
    del data["claims"][1]["evidence"]
    assert record.from_dict(data).claims[1].evidence == ""
    del data["claims"][1]["observed"]
    with pytest.raises(RecordError, match=r"^claims\[1\]\.observed: missing$"):
        record.from_dict(data)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", ":1:1: not JSON"),
        (b"{", ":1:2: not JSON"),
        (b'{\n "schema_version": 1,\n "claims": [}', ":3:13: not JSON"),
        (b"\xff{}", ": not UTF-8 text (byte 0)"),
        (b"[]", ": the record is not an object"),
        (b"{}", ": schema_version: expected 1, found null"),
        (b"[" * 100_000, ": nested too deeply"),
        (b'{"schema_version": 1, "schema_version": 1}', ": 'schema_version' stands twice in one"),
        ('{"schema_version": 1}'.encode("utf-16"), ": not UTF-8 text (byte 0)"),
        (b"\xef\xbb\xbf{}", ":1:1: not JSON: Unexpected UTF-8 BOM"),
        (b'{"schema_version": 1}\0', ":1:22: not JSON"),
    ],
)
def test_a_file_that_is_no_record_is_named_with_the_place(
    tmp_path: Path, content: bytes, place: str
) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(RecordError) as refused:
        record.load(tmp_path)
    assert str(refused.value).startswith(f"{file}{place}")
    assert file.read_bytes() == content


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"run\.json: No such file or directory$"):
        record.load(tmp_path)
    with pytest.raises(RecordError, match=r"nowhere: No such file or directory$"):
        record.load(tmp_path / "nowhere")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    os.mkfifo(file)
    with pytest.raises(RecordError, match=r"run\.json: not a file$"):
        record.load(tmp_path)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(RecordError, match=r"run\.json: not a file$"):
        record.load(tmp_path)
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(RecordError, match=r"run\.json: Too many levels of symbolic links$"):
        record.load(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(RecordError, match=r"run\.json: Is a directory$"):
        record.load(tmp_path)
    with pytest.raises(RecordError, match=r"^/x/x.*….*/x: File name too long$"):
        record.load(Path("/x" * 3000))


def test_a_file_too_large_to_be_a_record_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "MOST_BYTES", 1 << 20)
    file = tmp_path / "run.json"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with memory_below(4 << 20), pytest.raises(RecordError, match=r"run\.json: larger than 1 MB"):
        record.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1e400", "parameters.x: expected a finite number, found Infinity"),
        ('{"y": [0, -1e999]}', "parameters.x.y[1]: expected a finite number, found -Infinity"),
        ("[" * 900 + "]" * 900, "parameters.x: nested too deeply"),
        ("9" * 4000, "parameters.x: expected a number of at most 64 bits, found 9999"),
    ],
)
def test_what_is_open_to_others_can_be_shown_and_written_again(
    tmp_path: Path, value: str, said: str
) -> None:
    data = {**sample("bridge").to_dict(), "parameters": {"x": "HERE"}}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(data).replace('"HERE"', value))
    with pytest.raises(RecordError) as refused:
        record.load(tmp_path)
    assert str(refused.value).startswith(f"{file}: {said}")


# --------------------------------------------------------------------- whatever a file may contain

VALID = json.loads(json.dumps(sample("ovs-gre").to_dict()))
#: JSON as Python reads it, which includes NaN, the infinities and integers of any size.
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(data: Any, place: str = "") -> list[tuple[tuple[str | int, ...], str]]:
    """Every path into `data`, and how an error message writes it."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    if isinstance(data, dict):
        steps: list[tuple[str | int, Any, str]] = [
            (key, value, f"{place}.{key}" if place else key) for key, value in data.items()
        ]
    elif isinstance(data, list):
        steps = [(i, value, f"{place}[{i}]") for i, value in enumerate(data)]
    else:
        steps = []
    for step, value, written in steps:
        found.append(((step,), written))
        found.extend(((step, *path), deeper) for path, deeper in places(value, written))
    return found


PLACES = places(VALID)


@given(place=st.sampled_from(PLACES), value=JSON_VALUES)
@example((("path", "packets_sent"), "path.packets_sent"), 10**5000)
@example((("measurements", 0, "detail"), "measurements[0].detail"), {"x" * 9999: 1})
@example((("environment", "tools"), "environment.tools"), {"x" * 9999: 1})
@example((("claims", 0, "text"), "claims[0].text"), "\ud800")
@example((("parameters", "settings", "routes"), "parameters.settings.routes"), 1 << 64)
def test_any_value_at_any_place_gives_a_record_or_an_error_that_names_the_place(
    place: tuple[tuple[str | int, ...], str], value: Any
) -> None:
    path, written = place
    data = copy.deepcopy(VALID)
    at(data, *path[:-1])[path[-1]] = value
    said = refusal(lambda: record.from_dict(data))
    # The fault is there, or inside the value put there.
    assert said is None or said.startswith(written)


@given(place=st.sampled_from(PLACES))
def test_anything_left_out_gives_a_record_or_an_error_that_names_it(
    place: tuple[tuple[str | int, ...], str],
) -> None:
    path, written = place
    data = copy.deepcopy(VALID)
    del at(data, *path[:-1])[path[-1]]
    said = refusal(lambda: record.from_dict(data))
    # Without an item, a list of fixed length is itself at fault.
    place_at_fault = written.rpartition("[")[0] if written.endswith("]") else written
    assert said is None or said.startswith(place_at_fault)


@given(data=JSON_VALUES)
def test_json_that_is_no_record_is_refused(data: Any) -> None:
    with pytest.raises(RecordError):
        record.from_dict(data)


TEXT = json.dumps(VALID).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, len(TEXT)), length=st.integers(0, 40), replacement=st.binary(max_size=12)
)
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path: Path, start: int, length: int, replacement: bytes
) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(TEXT[:start] + replacement + TEXT[start + length :])
    said = refusal(lambda: record.load(file))
    assert said is None or said.startswith(str(file))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(TEXT) - 1))
def test_a_file_cut_short_is_refused_with_line_and_column(tmp_path: Path, length: int) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(TEXT[:length])
    with pytest.raises(RecordError, match=r"run\.json:\d+:\d+: not JSON"):
        record.load(file)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1" * 5000])
def test_a_number_that_json_or_a_float_cannot_hold_is_refused(tmp_path: Path, number: str) -> None:
    file = tmp_path / "run.json"
    text = TEXT.decode().replace('"median": ', f'"median": {number}, "was": ', 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=r"run\.json"):
        record.load(file)


def test_a_name_that_stands_twice_is_found_in_one_pass() -> None:
    """At the end of 16 MB of names, by each with all others, it took most of a day."""
    names = [Counted(number) for number in range(2000)]
    Counted.compared = 0
    with pytest.raises(ValueError, match=r"^'1999' stands twice in one object$"):
        record._unambiguous([(name, None) for name in [*names, Counted("1999")]])
    assert Counted.compared < 100_000


def test_of_several_names_that_stand_twice_the_first_is_told() -> None:
    with pytest.raises(ValueError, match=r"^'b' stands twice"):
        record.parse_json('{"a": 1, "b": 2, "c": 3, "c": 4, "b": 5}')
