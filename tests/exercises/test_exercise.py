"""An exercise's folder: what is read from it, and what is wrong in it told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlab.errors import UsageError
from xlab.exercises import exercise
from xlab.exercises.variants import Variant
from xlab.kernel import shipped

ANNA = Variant("anna")


def test_it_has_one_students_values_in_every_text(folder: Path) -> None:
    found = exercise.load(folder, ANNA)
    net2, h2, own2 = (str(found.values[name]) for name in ("net2", "h2", "own2"))
    assert (found.number, found.slug, found.title) == ("21", "two-ways", "Two ways")
    assert (found.points, found.start_points, found.minutes) == (4, 0, 20)
    assert found.tasks == {1: "a way there and a way back"}
    reaches, _, question = found.checks
    assert reaches.arguments == {"from": "h1", "to": own2}
    assert own2 in reaches.passed
    assert f"ip route add {net2} via {h2}" in found.hints["there"][2]
    assert found.solution
    assert found.solution.scripts["h1"] == {1: f"\nip route add {net2} via {h2}\n"}
    assert net2 in found.readme
    assert "{" not in found.readme
    assert question.word == "answer"
    assert exercise.load(folder, Variant("ben")).values != found.values


def test_a_part_has_a_number_that_somebody_may_have_written() -> None:
    """What has more digits is a comment: int() refuses what has more than 4,300."""
    many = f"# part {'9' * 5000}\n"
    script = f"a\n# part 2\nb\n{many}c\n# part 12345\n# task 9999 d\ne\n"
    assert exercise.parts(many) == {1: many}
    assert exercise.parts(script) == {2: f"a\n\nb\n{many}c\n# part 12345\n", 9999: "\ne\n"}


@pytest.mark.parametrize(
    "line", ["## Task {}: x", "{} minutes. 4 points, of which 0 stand at the start."]
)
def test_a_number_of_thousands_of_digits_is_what_is_wrong(line: str, folder: Path) -> None:
    readme = folder / "README.md"
    said = line.format("1" * 5000)
    readme.write_text(f"{said}\n{readme.read_text()}".replace("20 minutes. ", ""))
    assert [problem.file for problem in exercise.problems(folder, ANNA)] == [readme]


def test_where_there_is_no_checkout_texts_name_the_command_as_it_is_called_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = folder / "checks.yaml"
    checks.write_text(checks.read_text().replace("look: ", "look: bin/xlab graph, then ", 1))
    found = exercise.load(folder, ANNA)
    looks = [check.look for check in found.checks]
    assert "$ bin/xlab shell h1\n" in found.readme
    assert any(look.startswith("bin/xlab graph, then ") for look in looks)
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "site-packages/xlab")
    installed = exercise.load(folder, ANNA)
    assert installed.readme == found.readme.replace("bin/xlab", "xlab")
    assert [c.look for c in installed.checks] == [
        look.replace("bin/xlab", "xlab") for look in looks
    ]


def test_a_draft_has_nothing_wrong(folder: Path) -> None:
    assert exercise.problems(folder, ANNA) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        ("lab.yaml", "minutes: 20", "minutes: soon", "lab.yaml:2: minutes: 'soon' is not of type"),
        ("lab.yaml", "minutes: 20", "minutes: 25", "README.md:3: lab.yaml and checks.yaml make"),
        ("lab.yaml", "  hosts: 2", "  hoses: 2", "lab.yaml:4: there is no 'hoses' here"),
        ("lab.yaml", "  hosts: 2", "  hosts: 2.0", "lab.yaml:4: machines.hosts: 2.0 is not of"),
        ("lab.yaml", "[underlay, 3]", "[overlay, 3]", "lab.yaml:10: overlay is no value"),
        ("lab.yaml", "[underlay, 3]", "[[1], 3]", "lab.yaml:10: variants.h1.address: [1] is not"),
        ("lab.yaml", "[underlay, 3]", "[underlay, 3.5]", "lab.yaml:10: variants.h1.address: 3.5"),
        ("lab.yaml", "{address: [underlay, 3]}", "{part: [underlay, -8000000000, 0]}",
         "lab.yaml:10: part: 10."),
        ("lab.yaml", "{address: [underlay, 3]}", '{text: "%s"}' % ("{underlay}" * 200),
         "lab.yaml:10: a value has 1,024 characters at most"),
        ("lab.yaml", "title: ", "title: A ", "README.md:1: its first heading is to be: # 21 A Two"),
        ("README.md", "4 points", "5 points", "README.md:3: lab.yaml and checks.yaml make"),
        ("README.md", "20 minutes. 4", "Some 4", "README.md:1: it is to say: N minutes. P points"),
        ("README.md", "## Task 1:", "## Task 2:", "checks.yaml:2: there: README.md has no task 1"),
        ("README.md", "{own1}", "{own9}", "README.md:18: {own9} is no value of lab.yaml"),
        ("checks.yaml", "reaches:", "raeches:", "checks.yaml:4: there: there is no 'raeches' here"),
        ("checks.yaml", "{from: h1, ", "{form: h1, ", "checks.yaml:4: there: reaches: "),
        ("checks.yaml", "  task: 1\n  points: 2", "  task: 1\n  needs: [no]\n  points: 2",
         "checks.yaml:3: there: needs: no is no check before"),
        ("checks.yaml", "id: next-hop", "id: there", "checks.yaml:15: there stands here twice"),
        ("hints.yaml", "there:", "their:", "hints.yaml:1: their is no check"),
        ("hints.yaml", "there:", "their:", "checks.yaml:1: hints.yaml has none for there"),
        ("solution/answers.yaml", "the gateway", "my mother", "answers.yaml:1: next-hop: my mot"),
        ("solution/answers.yaml", "next-hop", "next-hip", "answers.yaml:1: next-hip is no"),
        ("checks.yaml", "  pass: h1", "  pas: h1", "checks.yaml:5: there: there is no 'pas' here"),
        ("checks.yaml", "  pass: h1", "  pas: h1", "checks.yaml:1: there: 'pass' is missing"),
        ("checks.yaml", "from: h1,", "from: h9,", "checks.yaml:4: there: no host is called h9"),
        ("lab.yaml", "  h1: ip", "  h9: ip", "no host is called h9: there are h1, h2"),
        ("README.md", "`next-hop`", "`next`", "checks.yaml:15: README.md does not ask `next-hop`"),
        ("solution/h1.sh", "# task 1", "# task 2", "solution/h1.sh:1: README.md has no task 2"),
        ("solution/h1.sh", "{net2}", "{net3}", "solution/h1.sh:2: {net3} is no value of lab.yaml"),
        ("solution/faults.yaml", "fails: [there]", "fails: [here]", "faults.yaml:4: h1 has lost"),
        ("solution/faults.yaml", "  undo:", "  redo:", "faults.yaml:3: h1 has lost its"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_line(
    folder: Path, file: str, before: str, after: str, told: str
) -> None:
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after))
    found = [str(problem).removeprefix(f"{folder}/") for problem in exercise.problems(folder, ANNA)]
    assert any(told in each for each in found), found


@pytest.mark.parametrize(
    "path", ["/home/anna/.bashrc", "//home/x", "/root/../home/x", "/./mnt/x", "/media"]
)
def test_no_file_is_put_where_people_s_own_are(path: str, folder: Path) -> None:
    with (folder / "lab.yaml").open("a") as lab:
        lab.write(f"files:\n  h1:{path}: README.md\n  h2:/root/home/x: README.md\n")
    lines = (folder / "lab.yaml").read_text().splitlines()
    (found,) = exercise.problems(folder, ANNA)
    assert found.line == len(lines) - 1
    assert "files: nothing is put below /" in found.text


@pytest.mark.parametrize(
    ("file", "line"), [("README.md", 1), ("solution/h1.sh", 1), ("hints.yaml", 2)]
)
def test_no_file_grows_beyond_measure_by_its_values(file: str, line: int, folder: Path) -> None:
    lab = folder / "lab.yaml"
    value = f"variants:\n  long: {{text: {'x' * 1000}}}\n"
    lab.write_text(lab.read_text().replace("variants:\n", value))
    many, text = "{long}" * 1100, (folder / file).read_text()
    if file == "hints.yaml":
        text = text.replace("- ", f"- all {many} ", 1)
    (folder / file).write_text(text if file == "hints.yaml" else f"{text}{many}")
    found = [str(problem) for problem in exercise.problems(folder, ANNA)]
    assert f"{folder}/{file}:{line}: larger than 1 MiB with its values filled in" in found


@pytest.mark.parametrize("file", ["lab.yaml", "checks.yaml", "hints.yaml", "README.md"])
def test_a_file_that_is_missing_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    found = [str(problem) for problem in exercise.problems(folder, ANNA)]
    assert any(f"/{file}:1: " in each for each in found), found
    with pytest.raises(UsageError, match=file):
        exercise.load(folder, ANNA)


def test_hidden_checks_stand_with_the_solution(folder: Path) -> None:
    visible = (folder / "checks.yaml").read_text()
    (folder / "solution/checks.yaml").write_text(
        visible.partition("- id: back")[0].replace("id: there", "id: quietly")
    )
    found = exercise.load(folder, ANNA)
    assert [(check.id, check.shown) for check in found.checks] == [
        ("there", True),
        ("back", True),
        ("next-hop", True),
        ("quietly", False),
    ]  # fmt: skip
    assert found.points == 4


def test_a_script_is_divided_by_its_tasks(folder: Path) -> None:
    (folder / "solution/h1.sh").write_text("set -e\n# task 1\none\n# task 2: more\ntwo\n")
    (folder / "solution/h2.sh").write_text("all of it\n")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("## Questions", "## Task 2: more\n\n## Questions"))
    found = exercise.load(folder, ANNA)
    assert found.solution
    assert found.solution.scripts == {
        "h1": {1: "set -e\n\none\n", 2: "\ntwo\n"}, "h2": {1: "all of it\n"}
    }  # fmt: skip
    assert found.solution.tasks() == [1, 2]
