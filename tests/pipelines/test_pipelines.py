"""The workflow, the action and GitLab's example: nothing in them is misspelt, and the gate gates.

Schemas are those that check-jsonschema carries.  What a schema can't know, that a name in an
expression stands for something, is looked up here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import pipelines
from tests.support.pipelines import ACTION, GITLAB, ROOT, WORKFLOWS, Contexts

GATE = ROOT / ".ci/gate"
#: What other people's actions, of these versions, are given here: names of their inputs.
FOREIGN = {
    "actions/checkout@v5": set(),
    "actions/setup-python@v6": {"python-version"},
    "actions/upload-artifact@v6": {"name", "path", "if-no-files-found"},
}
#: Of the github context, what is used.
GITHUB = {"workflow": "xlab", "ref": "refs/heads/main"}


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in pipelines.load(file)["jobs"].items():
            yield f"{file.name}:{name}", job


def scripts() -> Iterator[tuple[str, str, str]]:
    """Every run: with the place it stands in and the shell that runs it."""
    for place, job in jobs():
        for number, step in enumerate(job["steps"], 1):
            if "run" in step:
                yield f"{place}:{number}", "bash", step["run"]
    for number, step in enumerate(pipelines.load(ACTION)["runs"]["steps"], 1):
        if "run" in step:
            yield f"action.yml:{number}", step["shell"], step["run"]
    example = pipelines.load(GITLAB)["xlab"]
    lines = [*example["before_script"], *example["script"]]
    yield "gitlab-ci.yml", "sh", "\n".join(lines)


# -- schemas ---------------------------------------------------------------------------------------


def schema_says(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which is how check-jsonschema is meant to be used; no network."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "check_jsonschema", "--builtin-schema", schema, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "file", "slip"),
    [
        *(("vendor.github-workflows", file, ("runs-on:", "run-on:")) for file in WORKFLOWS),
        *(
            ("custom.github-workflows-require-timeout", file, ("timeout-m", "x-m"))
            for file in WORKFLOWS
        ),
        ("vendor.github-actions", ACTION, ("using: composite", "using: composit")),
        ("vendor.gitlab-ci", GITLAB, ("when: always", "when: alway")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_the_schema_accepts_it_and_would_find_a_slip(
    schema: str, file: Path, slip: tuple[str, str], tmp_path: Path
) -> None:
    sound = schema_says(schema, file)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    wrong = tmp_path / file.name
    assert slip[0] in file.read_text()
    wrong.write_text(file.read_text().replace(*slip))
    assert schema_says(schema, wrong).returncode == 1, f"{slip[1]} was accepted"


# -- names -----------------------------------------------------------------------------------------


def anything(names: Any) -> dict[str, str]:
    return dict.fromkeys(names, "x")


def outputs_of(step: Mapping[str, Any]) -> dict[str, str]:
    if step.get("uses") == "./":
        return anything(pipelines.load(ACTION)["outputs"])
    assert "uses" not in step, "an output of another's action: which are there?"
    return anything(re.findall(r'echo "([\w-]+)=.*>>"\$GITHUB_OUTPUT"', step["run"]))


def look_up_all(steps: list[dict[str, Any]], values: dict[str, Any]) -> Contexts:
    """Every expression of the steps in turn, each with the outputs of those before it."""
    known: dict[str, Any] = {}
    contexts = Contexts({**values, "steps": known})
    for step in steps:
        for expression in pipelines.expressions({**step, "if": ""}):
            contexts.value(expression)
        contexts.holds(step.get("if", "success()"))
        if "id" in step:
            assert step["id"] not in known, f"two steps are called {step['id']}"
            known[step["id"]] = {"outputs": outputs_of(step)}
    return contexts


@pytest.mark.parametrize(("place", "job"), [*jobs()], ids=lambda value: str(value)[:40])
def test_what_expressions_of_a_job_name_is_there(place: str, job: dict[str, Any]) -> None:
    matrix = anything(job.get("strategy", {}).get("matrix", {}))
    contexts = look_up_all(job["steps"], {"matrix": matrix, "github": GITHUB})
    for expression in pipelines.expressions(job["name"]):
        contexts.value(expression)
    assert {f"matrix.{key}" for key in matrix} <= set(contexts.asked)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_what_expressions_of_a_workflow_name_is_there(file: Path) -> None:
    """Of all but its jobs."""
    workflow = pipelines.load(file)
    contexts = Contexts({"github": GITHUB})
    for expression in pipelines.expressions({**workflow, "jobs": {}}):
        contexts.value(expression)
    assert contexts.asked


def test_what_expressions_of_the_action_name_is_there_and_every_input_is_used() -> None:
    action = pipelines.load(ACTION)
    values = {"inputs": anything(action["inputs"])}
    contexts = look_up_all(action["runs"]["steps"], values)
    assert {f"inputs.{name}" for name in action["inputs"]} <= set(contexts.asked)
    outputs = {
        step["id"]: {"outputs": outputs_of(step)}
        for step in action["runs"]["steps"]
        if "id" in step
    }
    for expression in pipelines.expressions(action["outputs"]):
        Contexts({"steps": outputs}).value(expression)


def test_no_script_holds_what_a_caller_gave() -> None:
    """It would be run.  Our own matrix and outputs are no caller's."""
    for place, _, script in scripts():
        if place.startswith("action.yml"):
            assert "${{" not in script, place
        else:
            given = [each for each in pipelines.expressions(script) if "steps." not in each]
            assert given == [], place


def test_the_name_of_an_artifact_is_no_other_output(tmp_path: Path) -> None:
    """Values with a line break in them would be: "a", then "status=0"."""
    (tmp_path / ".ci").mkdir()
    gate = tmp_path / ".ci/gate"
    gate.write_text("#!/bin/sh\nexit 1\n")
    gate.chmod(0o755)
    script = pipelines.load(ACTION)["runs"]["steps"][0]["run"]
    given = {"GITHUB_ACTION_PATH": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "outputs"),
             "FOLDER": "xlab-results/a\nstatus=0", "SCENARIO": "bridge",
             "BASELINE": "", "TOLERANCE": "", "CLOCK": "", "ROUNDS": ""}  # fmt: skip
    done = subprocess.run(
        ["bash", "-e", "-c", script], env={**os.environ, **given}, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(("place", "job"), [*jobs()], ids=lambda value: str(value)[:40])
def test_what_is_used_is_known_and_given_what_it_takes(place: str, job: dict[str, Any]) -> None:
    known = {**FOREIGN, "./": set(pipelines.load(ACTION)["inputs"])}
    for step in [*job["steps"], *pipelines.load(ACTION)["runs"]["steps"]]:
        if "uses" in step:
            assert set(step.get("with", {})) <= known[step["uses"]], place


def test_a_wrong_name_would_be_found() -> None:
    for wrong in ("${{ inputs.baslien }}", "${{ steps.gate.outputs.status }}"):
        with pytest.raises(KeyError):
            look_up_all([{"run": wrong}], {"inputs": {"baseline": ""}})
    for unread in ("${{ fromJSON('[]') }}", "${{ 1 + 1 }}", "${{ (true }}", "${{ true && }}"):
        with pytest.raises((KeyError, ValueError)):
            look_up_all([{"run": unread}], {})


@pytest.mark.parametrize(
    ("expression", "so_far", "value"),
    [
        ("'it''s'", "success", "it's"),
        ("matrix.os == 'debian' && 'root' || 'rootless'", "success", "root"),
        ("matrix.os != 'debian' && 'root' || 'rootless'", "success", "rootless"),
        ("!(true && false)", "success", True),
        ("always()", "failure", True),
        ("success() || failure()", "cancelled", False),
        ("!cancelled()", "failure", True),
    ],
)
def test_expressions_are_worth_what_github_makes_of_them(
    expression: str, so_far: str, value: object
) -> None:
    contexts = Contexts({"matrix": {"os": "debian"}}, so_far)
    assert contexts.value(expression) == value


def test_without_a_word_about_status_a_condition_means_success() -> None:
    assert not Contexts(so_far="failure").holds("${{ true }}")
    assert Contexts(so_far="failure").holds("${{ always() }}")
    assert Contexts(so_far="failure").holds("failure()")
    assert Contexts().holds("true")


# -- scripts ---------------------------------------------------------------------------------------


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    places = [(GATE.name, "sh", GATE.read_text()), *scripts()]
    assert len(places) > 10
    for place, shell, script in places:
        # What GitHub fills in is a word by then.
        filled = re.sub(r"\$\{\{.*?\}\}", "filled-in", script)
        done = subprocess.run(
            ["shellcheck", "--shell", shell, "-"],
            input=filled,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{place}:\n{done.stdout}"
    wrong = subprocess.run(
        ["shellcheck", "--shell", "bash", "-"], input="cd $x", text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert wrong.returncode == 1


def test_what_scripts_start_is_there() -> None:
    for place, _, script in scripts():
        for program in re.findall(r"(?<![\w/])(?:/opt/xlab/)?((?:bin|\.ci)/\w+)", script):
            assert os.access(ROOT / program, os.X_OK), f"{place}: {program}"


# -- the gate, with an xlab that does as it is told ------------------------------------------------

#: Notes what it is asked, and leaves what `compare`, `check` and `report` leave.
XLAB = """\
#!/bin/sh
echo "$(id -u) $*" >>"$NOTES"
readable() { [ "$(cat "$1")" != broken ]; }
case $1 in
    doctor) echo "[{\\"name\\": \\"labs\\", \\"ok\\": ${LABS:-true}}]" ;;
    compare)
        while [ "$1" != --results ]; do shift; done
        [ -z "${NOTHING:-}" ] || exit 3
        mkdir -p "$2/2026-01-01T000000Z-compare" "$2/2026-01-02T000000Z-compare"
        echo '{}' >"$2/2026-01-01T000000Z-compare/compare.json"
        echo '{}' >"$2/2026-01-02T000000Z-compare/compare.json"
        exit "${COMPARED:-0}" ;;
    check)
        case "$*" in
            *--update*)
                [ -z "${BUSY:-}" ] || exit 2
                [ ! -f "$4" ] || readable "$4" || exit 2
                # Whose tolerances it has.
                [ ! -f "$4" ] || kept=" with those of $(cat "$4")"
                echo "new${kept:-}" >"$4"
                exit 0 ;;
        esac
        [ -f "$4" ] && readable "$4" || { echo "xlab: $4: not there" >&2; exit 2; }
        while [ $# -gt 0 ]; do
            case $1 in
                --junit) echo '<xml/>' >"$2" ;;
                --markdown) echo '## the table' >"$2" ;;
            esac
            shift
        done
        exit "${CHECKED:-0}" ;;
    report)
        case $3 in --output) echo page >"$4" ;; *) echo '# the comparison' ;; esac ;;
esac
"""


class Gate:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, script in {
            "xlab": XLAB,
            "setup": f"#!/bin/sh\necho {sys.executable}\n",
            # Found in PATH: the gate would install it on the machine that runs this test.
            "qemu-system-x86_64": "#!/bin/sh\n",
        }.items():
            program = folder / "xlab checkout/bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(script)
            program.chmod(0o755)
        shutil.copytree(ROOT / ".ci", folder / "xlab checkout/.ci")

    def run(self, *arguments: str, **environment: str) -> int:
        return subprocess.run(
            [self.folder / "xlab checkout/.ci/gate", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{os.environ['PATH']}:{self.folder / 'xlab checkout/bin'}",
                "NOTES": str(self.folder / "notes"),
                **environment,
            },
            check=False,
        ).returncode

    def asked(self, command: str) -> list[str]:
        notes = (self.folder / "notes").read_text().splitlines()
        words = (line.split()[1:] for line in notes)
        return [" ".join(found) for found in words if found[0] == command]

    def left(self, name: str) -> str:
        return (self.folder / "xlab-results" / name).read_text()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_the_gate_without_a_baseline_measures_and_makes_one(gate: Gate) -> None:
    empty = ("--baseline", "", "--tolerance", "", "--clock", "", "--rounds", "")
    assert gate.run(*empty, "--", "bridge", "weave:datapath=fastdp") == 0
    (compare,) = gate.asked("compare")
    assert compare.startswith(
        "compare bridge weave:datapath=fastdp --quick --repeat 10 --clock real"
    )
    (update,) = gate.asked("check")
    assert "2026-01-02T000000Z-compare" in update, "of the latest"
    assert "--update" in update
    assert gate.left("new-baseline.json") == "new\n"
    assert "# the comparison" in gate.left("summary.md")
    assert gate.left("claims.xml")
    assert gate.left("report.html")
    assert gate.run("bridge", COMPARED="1") == 1, "a claim failed"


@pytest.mark.parametrize(
    ("checked", "compared", "status"), [(0, 0, 0), (1, 0, 1), (1, 3, 1), (0, 1, 1), (2, 0, 2)]
)
def test_the_gate_ends_with_the_status_of_the_check(
    gate: Gate, checked: int, compared: int, status: int
) -> None:
    (gate.folder / "base line.json").write_text("old")
    ended = gate.run(
        *("--baseline", "base line.json", "--tolerance", "5%", "--clock", "virtual", "bridge"),
        CHECKED=str(checked),
        COMPARED=str(compared),
    )
    assert ended == status
    held, update = gate.asked("check")
    assert "--baseline base line.json --tolerance 5%" in held
    assert "--update --tolerance 5%" in update
    assert "--repeat" not in gate.asked("compare")[0]
    assert gate.left("summary.md").startswith("## the table\n")
    assert gate.left("check.xml")


def test_what_is_unclear_fails_where_that_is_asked_for(gate: Gate) -> None:
    (gate.folder / "base.json").write_text("old")
    assert gate.run("--strict", "--baseline", "base.json", "bridge") == 0
    held, update = gate.asked("check")
    assert " --strict " in held
    assert "--strict" not in update, "a baseline may be unclear"


@pytest.mark.parametrize(("strict", "asked"), [("", ""), ("false", ""), ("true", "--strict")])
def test_the_action_asks_for_it_as_its_caller_does(strict: str, asked: str, tmp_path: Path) -> None:
    action = pipelines.load(ACTION)
    (measure,) = [step for step in action["runs"]["steps"] if step.get("id") == "gate"]
    given = Contexts({"inputs": {**anything(action["inputs"]), "strict": strict}})
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci/gate"
    script.write_text('#!/bin/sh\nfor each; do [ "$each" != --strict ] || echo "$each"; done\n')
    script.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-e", "-c", measure["run"]],
        env={
            **os.environ,
            **{name: given.filled(value) for name, value in measure["env"].items()},
            **dict.fromkeys(("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"), "/dev/null"),
            "GITHUB_ACTION_PATH": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == asked


def test_a_baseline_that_is_not_there_is_no_pass(gate: Gate) -> None:
    assert gate.run("--baseline", "none.json", "bridge") == 2
    summary = gate.left("summary.md")
    assert "none.json: not there" in summary
    assert "new-baseline.json" in summary
    assert gate.left("new-baseline.json") == "new\n"


def test_the_new_baseline_has_the_tolerances_of_the_old_one(gate: Gate) -> None:
    (gate.folder / "base.json").write_text("old")
    assert gate.run("--baseline", "base.json", "bridge") == 0
    assert gate.left("new-baseline.json") == "new with those of old\n"
    assert "new-baseline.json" not in gate.left("summary.md")


def test_a_baseline_that_cannot_be_read_does_not_stand_in_the_way_of_a_new_one(gate: Gate) -> None:
    (gate.folder / "base.json").write_text("broken")
    assert gate.run("--baseline", "base.json", "bridge") == 2
    assert gate.left("new-baseline.json") == "new\n"
    summary = gate.left("summary.md")
    assert "`new-baseline.json` beside this is one. Tolerances of the old one could" in summary
    assert "is no baseline" not in summary
    assert (gate.folder / "base.json").read_text() == "broken"


def test_a_new_baseline_is_not_promised_where_there_is_none(gate: Gate) -> None:
    assert gate.run("--baseline", "none.json", "bridge", BUSY="yes") == 2
    summary = gate.left("summary.md")
    assert "This result is no baseline" in summary
    assert "beside this" not in summary
    assert not (gate.folder / "xlab-results/new-baseline.json").exists()


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_a_baseline_without_an_end_is_not_copied(gate: Gate, name: str) -> None:
    os.mkfifo(gate.folder / "pipe")
    copying = gate.folder / "first/cp"
    copying.parent.mkdir()
    copying.write_text('#!/bin/sh\necho "0 cp $*" >>"$NOTES"\n')
    copying.chmod(0o755)
    path = f"{copying.parent}:{os.environ['PATH']}:{gate.folder / 'xlab checkout/bin'}"
    assert gate.run("--baseline", name, "bridge", PATH=path) == 2
    assert gate.asked("cp") == []
    assert gate.left("new-baseline.json") == "new\n"


def test_where_nothing_was_measured_the_gate_says_so(gate: Gate) -> None:
    assert gate.run("bridge", NOTHING="yes") == 3
    assert "nothing was measured (`xlab compare` ended with status 3)" in gate.left("summary.md")
    assert gate.run() == 2
    assert gate.run("--rounds") == 2
    assert gate.run("--roundz", "3", "bridge") == 2
    assert gate.run("--", "bridge", "--results=elsewhere") == 2


def test_what_was_measured_the_time_before_is_not_held_against_anything_again(gate: Gate) -> None:
    (gate.folder / "base.json").write_text("old")
    assert gate.run("--baseline", "base.json", "bridge") == 0
    assert gate.run("--baseline", "base.json", "bridge", NOTHING="yes") == 3
    assert gate.left("summary.md").startswith("## ✗ nothing was measured")
    assert not (gate.folder / "xlab-results/check.xml").exists()
    assert len(gate.asked("check")) == 2, "of the first alone"
