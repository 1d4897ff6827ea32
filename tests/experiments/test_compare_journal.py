"""The journal: killed at any byte, a comparison loses no whole round, or it says why."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.comparisons import START, entries, history, opening, plan, sample
from xlab.errors import RecordError, UsageError
from xlab.experiments.compare import journal
from xlab.experiments.compare.journal import (
    Built,
    Ended,
    Entry,
    Failed,
    History,
    Journal,
    Opening,
    RoundDone,
)
from xlab.record.record import RunRecord


def small() -> list[Entry]:
    """A whole comparison in few bytes."""
    told = entries(plan(["baseline", "bridge"], rounds=3, rounds_per_build=1))
    return [
        dataclasses.replace(entry, record=_bare(entry.record))
        if isinstance(entry, Built)
        else entry
        for entry in told
    ]


def _bare(told: RunRecord) -> RunRecord:
    environment = dataclasses.replace(told.environment, tools={}, notes=())
    path = dataclasses.replace(told.path, evidence="", control_detail="") if told.path else None
    return dataclasses.replace(
        told, claims=(), events=(), parameters={}, environment=environment, path=path
    )


def write(results: Path, told: Sequence[Entry]) -> Path:
    first = told[0]
    assert isinstance(first, Opening)
    with Journal.begin(results, first) as written:
        for entry in told[1:]:
            written.add(entry)
    return written.folder


def same(one: History, other: History) -> bool:
    fields = [field.name for field in dataclasses.fields(History)]
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    told = entries()
    folder = write(tmp_path, told)
    assert folder.name == "2025-01-02T120000Z-compare"
    assert same(journal.read(folder), history(told))
    # Nothing half-written is beside it.
    assert list(tmp_path.iterdir()) == [folder]


def test_a_second_comparison_of_the_same_second_has_its_own_folder(tmp_path: Path) -> None:
    first, second = write(tmp_path, small()), write(tmp_path, small())
    assert (first.name, second.name) == (f"{second.name[:-2]}", f"{first.name}-2")


def test_cut_anywhere_it_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    cut_and_read(tmp_path, every=23)


@pytest.mark.slow
def test_cut_at_any_byte_it_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    cut_and_read(tmp_path, every=1)


def cut_and_read(tmp_path: Path, *, every: int) -> None:
    """Cut at `every` so many bytes, and at each byte near the end of a line."""
    told = small()
    folder = write(tmp_path, told)
    file = folder / journal.FILE
    content = file.read_bytes()
    ends = [position for position, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == len(told)
    for cut in range(len(content) - 1, -1, -1):
        if cut % every and all(abs(end - cut) > 2 for end in ends):
            continue
        os.truncate(file, cut)
        # A line is whole without its newline, too.
        whole = sum(end <= cut for end in ends)
        if not whole:
            with pytest.raises(RecordError, match="before anything was decided"):
                journal.read(folder)
        else:
            found = journal.read(folder)
            assert len(found.rounds) == sum(isinstance(e, RoundDone) for e in told[:whole]), cut
            assert same(found, history(told[:whole])), cut


def test_what_is_added_after_a_cut_stands_behind_whole_lines(tmp_path: Path) -> None:
    told = small()
    content = (write(tmp_path, told) / journal.FILE).read_bytes()
    lines = content.splitlines(keepends=True)
    for number in range(1, len(lines)):
        upto = b"".join(lines[:number])
        for cut in (upto[:-1], upto, upto + lines[number][:1], upto + lines[number][:-2]):
            folder = tmp_path / f"{number}-{len(cut)}"
            folder.mkdir()
            (folder / journal.FILE).write_bytes(cut)
            with Journal.go_on(folder) as again:
                for entry in told[number:]:
                    again.add(entry)
            assert (folder / journal.FILE).read_bytes() == content


def test_what_cannot_be_understood_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, small())
    file = folder / journal.FILE
    lines = file.read_bytes().splitlines(keepends=True)
    for number, spoilt, said in (
        (1, b"{}\n", ":1: kind: expected one of opening, session"),
        (1, lines[1], ":1: a journal begins with its opening"),
        (2, lines[0], ":2: a second opening"),
        (3, b"garbage\n", ":3: Expecting value"),
        (3, b'"text"\n', ":3: not an object"),
        (3, lines[2].replace(b'"bridge"', b'"ferry"').replace(b'"baseline"', b'"ferry"'), ":3: "),
        (4, lines[2], ":4: build 1 of baseline stands here twice"),
        (5, lines[4].replace(b'"number": 1', b'"number": 3'), ":5: round 3 after round 0"),
        (5, lines[4].replace(b'"steal_share": 0.001', b'"steal_share": NaN'), ":5: NaN is not"),
        (5, lines[4].replace(b'"load": 1.0', b'"load": "high"'), ":5: load: expected a number"),
        (1, lines[0].replace(b'"schema_version": 1', b'"schema_version": 2'), "schema_version"),
        (1, lines[0].replace(b'"mtu": 1500', b'"mtu": 5'), ":1: "),
    ):
        content = b"".join([*lines[: number - 1], spoilt, *lines[number:]])
        assert content != b"".join(lines)
        file.write_bytes(content)
        for look in (journal.read, Journal.go_on):
            with pytest.raises(RecordError) as caught:
                look(folder)
            assert said in str(caught.value)
            assert str(file) in str(caught.value)
        assert file.read_bytes() == content


def test_a_folder_without_a_journal(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"journal\.jsonl: No such file"):
        Journal.go_on(tmp_path)


def test_a_strangers_is_not_gone_on_with(tmp_path: Path) -> None:
    """It says which programs are run, with our rights."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder = write(tmp_path, small())
    os.chown(folder / journal.FILE, 12345, 12345)
    with pytest.raises(UsageError, match=r"somebody else's comparison \(uid 12345\)"):
        Journal.go_on(folder)


def test_only_one_process_is_at_it(tmp_path: Path) -> None:
    folder = write(tmp_path, small())
    with Journal.go_on(folder):
        with pytest.raises(UsageError, match="is being measured right now"):
            Journal.go_on(folder)
        assert journal.read(folder).ended is not None  # whoever only looks is not kept out
    Journal.go_on(folder).close()
    assert [file.name for file in folder.iterdir()] == [journal.FILE]


def test_whoever_may_read_it_keeps_nobody_out(tmp_path: Path) -> None:
    """flock(2) asks for no right to write."""
    folder = write(tmp_path, small())
    with (folder / journal.FILE).open() as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        Journal.go_on(folder).close()


# -- what a history says ---------------------------------------------------------------------------


def test_a_record_has_the_measurements_of_its_rounds() -> None:
    told = history(entries(plan(["baseline", "bridge"])))
    built = next(b for b in told.builds if (b.method, b.build) == ("bridge", 2))
    found = told.record_of(built)
    assert {m.round for m in found.measurements} == {3, 4}
    assert {m.route for m in found.measurements} == {"method", "control"}
    assert found.timings_s.measure == 16.0


def test_a_method_that_failed_once_is_out() -> None:
    told = history([opening(plan(["baseline", "bridge", "weave"]))])
    for method in told.opening.methods:
        told.add(Built(method.name, 1, sample(method)))
    told.add(Failed("weave", 1, "the router ended"))
    assert told.out() == {"weave": ("failed", "the router ended")}
    weave = told.record_of(told.builds[-1])
    assert (weave.status, weave.reason) == ("failed", "the router ended")


def test_where_the_baseline_fails_no_method_is_at_fault() -> None:
    told = history([opening(plan(["baseline", "bridge"]))])
    for method in told.opening.methods:
        failed = dataclasses.replace(sample(method), status="failed", reason="nobody answers")
        told.add(Built(method.name, 1, failed))
    assert told.out() == {}
    assert told.void_builds() == {1: "nobody answers"}


def test_a_line_is_json_by_itself(tmp_path: Path) -> None:
    folder = write(tmp_path, small())
    lines = (folder / journal.FILE).read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[:5] == ["opening", "session", "built", "built", "round"]
    assert kinds[-1] == "ended"
    assert isinstance(journal.read(folder).ended, Ended)
    assert journal.read(folder).sessions[0].at == START
