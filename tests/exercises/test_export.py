"""What is handed out: one student's exercise, whole but for what the teacher keeps."""

from __future__ import annotations

import base64
import json
import os
import stat
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from xlab.errors import UsageError
from xlab.exercises import beginning, exercise, export, own_files
from xlab.exercises.variants import Variant
from xlab.kernel import disk
from xlab.scenario import blueprint

SECRET = b"0123456789abcdef0123456789abcdef"


def handed(folder: Path, student: str, into: Path) -> Path:
    return export.export(folder, Variant(student, SECRET), into)


def test_it_is_the_same_exercise_with_the_values_of_one_student(
    folder: Path, tmp_path: Path
) -> None:
    whole = exercise.load(folder, Variant("Anna B.", SECRET))
    made = handed(folder, "Anna B.", tmp_path / "out")
    assert made == tmp_path / "out/Anna-B/21-two-ways"
    assert exercise.problems(made, Variant("somebody else")) == []
    found = exercise.load(made, Variant("somebody else"))
    assert found.student == "Anna B."
    assert beginning.asked(found) == beginning.asked(whole)
    for same in ("readme", "typed_before", "breaks", "checks", "hints", "points", "minutes"):
        assert getattr(found, same) == getattr(whole, same), same
    assert (found.solution, found.other, found.faults) == (None, None, ())


def test_no_solution_no_answer_no_hidden_check_and_no_secret_is_in_it(
    folder: Path, tmp_path: Path
) -> None:
    visible = (folder / "checks.yaml").read_text()
    (folder / "solution/checks.yaml").write_text(
        visible.partition("- id: back")[0].replace("id: there", "id: quietly")
    )
    made = handed(folder, "anna", tmp_path / "out")
    files = {str(file.relative_to(made)): file.read_text() for file in made.rglob("*")}
    assert set(files) == {"README.md", "lab.yaml", "checks.yaml", "hints.yaml", "answers.yaml"}
    together = "\n".join(files.values())
    assert "quietly" not in together
    assert SECRET.decode() not in together
    assert "variants" not in files["lab.yaml"]
    # What is typed before the student comes is not to be read by accident.
    assert "ip address add" not in files["lab.yaml"]
    assert "{" not in files["README.md"]
    # The choices are there, and which of them is right is not.
    assert files["answers.yaml"].rstrip().endswith("next-hop:")


def test_files_that_are_put_into_hosts_go_along_without_their_names(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "captures").mkdir()
    (folder / "captures/weave-sleeve.pcap").write_bytes(b"packets")
    with (folder / "lab.yaml").open("a") as lab:
        lab.write("files:\n  h1:/root/unknown.pcap: captures/weave-sleeve.pcap\n")
    made = handed(folder, "anna", tmp_path / "out")
    found = exercise.load(made, Variant(""))
    assert {place: file.read_bytes() for place, file in found.files.items()} == {
        "h1:/root/unknown.pcap": b"packets"
    }
    assert not [file for file in made.rglob("*") if "sleeve" in file.name]


def test_students_differ_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    anna, ben = (handed(folder, name, tmp_path / "out") for name in ("anna", "ben"))
    assert (anna / "README.md").read_text() != (ben / "README.md").read_text()
    with pytest.raises(UsageError, match="is there already"):
        handed(folder, "anna", tmp_path / "out")


@pytest.mark.parametrize("names", [["anna", "anna"], ["a/b", "a b"], ["Anna", "anna"]])
def test_two_students_never_share_a_folder(names: list[str]) -> None:
    with pytest.raises(UsageError, match="would have one folder"):
        export.require_distinct(names)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("../../etc", "etc"), (".hidden", "hidden"), ("a/b", "a-b"), ("Zoë", "Zoë"), ("..", None)],
)
def test_a_students_folder_stays_where_it_belongs(name: str, folder: str | None) -> None:
    if folder is None:
        with pytest.raises(UsageError, match="is no name of a student"):
            export.folder_name(name)
    else:
        assert export.folder_name(name) == folder


def test_a_course_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "course.key"
    made = export.secret_in(file)
    assert len(made) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert export.secret_in(file) == made
    assert export.secret_in(tmp_path / "other.key") != made
    short = tmp_path / "short.key"
    short.write_text("hunter2\n")
    short.chmod(0o600)
    with pytest.raises(UsageError, match="at least 32 characters"):
        export.secret_in(short)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o644, "others may read it: chmod 600"),
        (0o640, "others may read it"),
        (0o620, "others may write it"),
        (0o602, "others may write it"),
    ],
)
def test_a_secret_that_others_may_know_is_none(mode: int, words: str, tmp_path: Path) -> None:
    file = tmp_path / "course.key"
    made = export.secret_in(file)
    file.chmod(mode)
    with pytest.raises(UsageError, match=words):
        export.secret_in(file)
    file.chmod(0o400)
    assert export.secret_in(file) == made


def test_a_secret_that_somebody_else_has_made_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a link to what everybody knows, either; by sudo the teacher's is the teacher's."""
    (tmp_path / "link.key").symlink_to("/proc/self/status")
    with pytest.raises(UsageError, match="others may read it"):
        export.secret_in(tmp_path / "link.key")
    file = tmp_path / "course.key"
    made, owner = export.secret_in(file), file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(disk, "is_trusted", lambda found: found.st_uid == os.geteuid())
    with pytest.raises(UsageError, match=f"it belongs to uid {owner}, who knows"):
        export.secret_in(file)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(disk, "is_trusted", lambda _found: False)
    monkeypatch.setenv("SUDO_UID", f"{owner}")
    assert export.secret_in(file) == made


def test_a_secret_is_waited_for_at_no_pipe(tmp_path: Path) -> None:
    """Where others write too, one may have its name."""
    os.mkfifo(tmp_path / "course.key")
    with pytest.raises(UsageError, match="not a file"):
        export.secret_in(tmp_path / "course.key")


def test_what_is_sealed_and_spoilt_is_refused(folder: Path, tmp_path: Path) -> None:
    made = handed(folder, "anna", tmp_path / "out")
    text = (made / "lab.yaml").read_text()
    (made / "lab.yaml").write_text(text.replace("sealed: ", "sealed: x"))
    with pytest.raises(UsageError, match="what is sealed can't be read"):
        exercise.load(made, Variant(""))


def sealing(made: Path, name: str, hidden: object) -> str:
    """What is wrong once this is sealed in a file of what was handed out; bytes as they are."""
    plain = hidden if isinstance(hidden, bytes) else json.dumps(hidden).encode()
    lines = (made / name).read_text().splitlines()
    # It may go on for several lines, and comes last.
    kept = lines[: next(i for i, line in enumerate(lines) if line.startswith("sealed:"))]
    word = json.dumps(base64.b85encode(zlib.compress(plain)).decode())
    (made / name).write_text("\n".join([*kept, f"sealed: {word}", ""]))
    listed = [str(problem) for problem in exercise.problems(made, Variant(""))]
    with pytest.raises(UsageError) as refused:
        exercise.load(made, Variant(""))
    assert listed[0] == str(refused.value)
    assert str(refused.value).startswith(f"{made / name}:{len(kept) + 1}: ")
    return str(refused.value)


MACHINES: dict[str, Any] = {"hosts": 2, "underlay": "10.1.1.0/24", "first": 3}
WHOLE: dict[str, Any] = {"machines": MACHINES, "typed_before": {}, "break": [], "files": {}}


@pytest.mark.parametrize(
    "hidden",
    [
        {},
        {**WHOLE, "machines": []},
        {**WHOLE, "machines": {"hosts": "tw0"}},
        {**WHOLE, "machines": {**MACHINES, "hosts": 2.0}},
        {**WHOLE, "machines": {**MACHINES, "hosts": True}},
        {**WHOLE, "machines": {**MACHINES, "tw0": 1}},
        {**WHOLE, "typed_before": 5},
        {**WHOLE, "typed_before": {"h1": ["tw0"]}},
        {**WHOLE, "typed_before": {"tw0": "true"}},
        {**WHOLE, "break": 5},
        {**WHOLE, "files": ["tw0"]},
        {**WHOLE, "files": {"h1:/tw0": 5}},
        b'{"machines": %s%s}' % (b"[" * 900, b"]" * 900),
    ],
)
def test_what_is_sealed_is_to_be_as_it_is_where_it_stands_open(
    folder: Path, tmp_path: Path, hidden: object
) -> None:
    """And is not shown where it isn't."""
    told = sealing(handed(folder, "anna", tmp_path / "out"), "lab.yaml", hidden)
    assert "what is sealed" in told
    assert "tw0" not in told


@pytest.mark.parametrize("name", ["lab.yaml", "hints.yaml"])
@pytest.mark.parametrize(
    "hidden",
    [[1], 5, None, b"", b"tw0", b"NaN", b"\xff", b"[" * 900_000, b'"%s"' % (b"tw0" * (1 << 20)),
     {"sealed": "tw0"}, {"": "\ud800"}],
)  # fmt: skip
def test_what_can_not_have_been_sealed_is_refused(
    folder: Path, tmp_path: Path, name: str, hidden: object
) -> None:
    told = sealing(handed(folder, "anna", tmp_path / "out"), name, hidden)
    assert told.endswith(": what is sealed can't be read")


@pytest.mark.parametrize("hints", [5, "tw0", ["tw0"], ["tw0", "tw0", 0], [["tw0"]] * 3])
def test_hints_that_are_sealed_are_hints(folder: Path, tmp_path: Path, hints: object) -> None:
    told = sealing(handed(folder, "anna", tmp_path / "out"), "hints.yaml", {"there": hints})
    assert "what is sealed" in told
    assert "tw0" not in told


def test_an_exercise_without_hints_is_handed_out_as_well(folder: Path, tmp_path: Path) -> None:
    """One that only asks has none."""
    checks = (folder / "checks.yaml").read_text()
    (folder / "checks.yaml").write_text(checks[checks.index("- id: next-hop") :])
    (folder / "hints.yaml").write_text("{}\n")
    faults = folder / "solution/faults.yaml"
    faults.write_text("- {fault: wrong, answers: {next-hop: h2}, fails: [next-hop]}\n")
    readme = folder / "README.md"
    points = exercise.problems(folder, Variant("anna"))[0].text.split()[-2]
    readme.write_text(readme.read_text().replace("4 points", f"{points} points"))
    assert exercise.load(handed(folder, "anna", tmp_path / "out"), Variant("")).hints == {}


@pytest.mark.parametrize("named", ["{}/program.py", "program.py", "./program.py", "gossip"])
def test_no_file_of_whoever_made_the_folder_is_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """As a scenario it would be, outside of any lab, whether what names it stands open or not."""
    made = handed(folder, "anna", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text("open('it ran', 'w')\n")
    scenario, refusal = named.format(tmp_path), ": machines.scenario: a name that `xlab list` shows"
    machines = {"hosts": 2, "scenario": scenario}
    assert refusal in sealing(made, "lab.yaml", {**WHOLE, "machines": machines})
    text = (folder / "lab.yaml").read_text()
    before = '  underlay: "{underlay}"\n'
    assert before in text
    (folder / "lab.yaml").write_text(text.replace(before, f"  scenario: {scenario}\n"))
    with pytest.raises(UsageError, match=f"lab.yaml:5{refusal}"):
        blueprint.design(beginning.asked(exercise.load(folder, Variant(""))).request)
    assert not Path("it ran").exists()


def test_a_scenario_of_the_catalog_is_named_open_or_sealed(folder: Path, tmp_path: Path) -> None:
    text = (folder / "lab.yaml").read_text()
    (folder / "lab.yaml").write_text(
        text.replace('  underlay: "{underlay}"\n', "  scenario: ovs-gre\n")
    )
    for each in (folder, handed(folder, "anna", tmp_path / "out")):
        found = exercise.load(each, Variant("anna"))
        assert blueprint.design(beginning.asked(found).request).scenario.name == "ovs-gre"


def large(file: Path) -> None:
    file.touch()
    os.truncate(file, 40 << 30)


#: What somebody may have an exercise put into a host, how it comes to be there, and the refusal.
NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "/etc/passwd": (lambda _: None, "not a file of"),
    "../victim": (lambda _: None, "not a file of"),
    "a-link": (lambda file: file.symlink_to("../victim"), "not a file of"),
    "to-proc": (lambda file: file.symlink_to("/proc/self/environ"), "not a file of"),
    "a-folder": (lambda file: file.mkdir(), "Is a directory"),
    "a-fifo": (os.mkfifo, "not a regular file"),
    "large": (large, "longer than 8,388,608 bytes"),
    "missing": (lambda _: None, "is missing"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_put_into_a_host_is_a_file_of_the_folder(
    folder: Path, tmp_path: Path, name: str
) -> None:
    """Else whoever made that has others hand out, or look at, what those alone may read."""
    place, refusal = NO_FILES[name]
    (tmp_path / "out/anna").mkdir(parents=True)
    for where in (folder.parent, tmp_path / "out/anna"):
        (where / "victim").write_text("theirs")
    made = handed(folder, "anna", tmp_path / "out")
    for each in (folder, made):
        place(each / name)
    told = sealing(made, "lab.yaml", {**WHOLE, "files": {"h1:/root/x": name}})
    assert f": files: {made / name}: {refusal}" in told
    with (folder / "lab.yaml").open("a") as lab:
        lab.write(f"files:\n  h1:/root/x: {name}\n")
    with pytest.raises(UsageError, match=f": files: {folder / name}: {refusal}"):
        handed(folder, "ben", tmp_path / "out")
    assert not (tmp_path / "out/ben").exists()


def test_what_is_put_into_a_host_is_looked_at_when_it_is_read(folder: Path, tmp_path: Path) -> None:
    """Whoever owns the folder may have made it another since it was found to be all right."""
    (folder / "packets.pcap").write_bytes(b"packets")
    with (folder / "lab.yaml").open("a") as lab:
        lab.write("files:\n  h1:/root/x: packets.pcap\n")
    found = exercise.load(folder, Variant("anna"))
    (folder / "packets.pcap").unlink()
    (folder / "packets.pcap").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="not a file of"):
        beginning.prepare(found, NoLab())
    with pytest.raises(UsageError, match="not a file of"):
        own_files.read(folder, folder / "packets.pcap")


class NoLab:
    """Nothing comes so far as to be asked of it."""

    def call(self, verb: str, arguments: Mapping[str, Any], /) -> Any:
        raise AssertionError(f"{verb}: {arguments}")


@pytest.mark.sandbox
def test_the_largest_file_comes_into_a_host_whole(folder: Path) -> None:
    (folder / "large.pcap").write_bytes(b"x" * own_files.MOST_BYTES)
    with (folder / "lab.yaml").open("a") as lab:
        lab.write("files:\n  h1:/root/x: large.pcap\n")
    with beginning.begun(exercise.load(folder, Variant("anna"))) as begun:
        argv = ["wc", "-c", "/root/x"]
        done = begun.call("run", {"node": "h1", "argv": argv, "timeout_s": 60.0, "stdin": ""})
    assert done["stdout"].split()[0] == str(own_files.MOST_BYTES)
