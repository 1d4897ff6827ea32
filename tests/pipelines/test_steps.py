"""The workflow's and the action's steps, run one after the other on a bare machine.

It has a network (pasta), and what GitHub gives a step: expressions filled in, files for outputs
and the summary.  Somebody else's actions are stood for: checkout by the clone that is there,
setup-python by the distribution's own, upload-artifact by a look at what there is to upload.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support import pipelines
from tests.support.pipelines import ROOT, Machine, Runner, StandIn
from xlab.experiments import gate

pytestmark = pytest.mark.slow(minutes=10)

BARE = ROOT / "tests/clean_root/run"
WORKFLOW = pipelines.load(ROOT / ".github/workflows/xlab.yml")
RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")

#: Its standard input is lines, each a script in base64; after each, a line with its status.
AGENT = r"""
while read -r script; do
    printf '%s' "$script" | base64 -d >/tmp/agent.sh
    status=0
    sh /tmp/agent.sh </dev/null 2>&1 || status=$?
    printf '\n=== ended: %s\n' "$status"
done
"""
_ENDED = re.compile(r"=== ended: (\d+)\n")


class Bare:
    """A bare machine's other end."""

    def __init__(self, given: IO[str], printed: IO[str]) -> None:
        self._given, self._printed = given, printed

    def run(self, script: str) -> tuple[int, str]:
        print(base64.b64encode(script.encode()).decode(), file=self._given, flush=True)
        lines: list[str] = []
        for line in self._printed:
            ended = _ENDED.fullmatch(line)
            if ended:
                return int(ended[1]), "".join(lines).removesuffix("\n")
            lines.append(line)
        pytest.fail("the bare machine ended:\n" + "".join(lines))


@contextmanager
def bare_machine(user: str, tmp_path: Path) -> Iterator[Bare]:
    options = ["--user"] if user != "root" else []
    errors = tmp_path / "bare.err"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [BARE, *options, "--online", "--", "sh", "-c", AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as running,
    ):
        assert running.stdin
        assert running.stdout
        try:
            yield Bare(running.stdin, running.stdout)
        finally:
            running.stdin.close()
            running.wait()
            told = errors.read_text()
            if "clean root: can't: " in told:
                pytest.skip(told.partition("clean root: can't: ")[2].strip())


def install_python(machine: Machine, given: Mapping[str, str]) -> None:
    """The distribution's, which must be the one that is asked for."""
    status, printed = machine.run(
        "sudo apt-get -qq update && sudo apt-get -qq install -y python3 python3-venv"
        f" && python3 --version | grep -F 'Python {given['python-version']}.'"
    )
    assert status == 0, printed


class Uploads:
    """By the name of an artifact, the files that would be in it."""

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        self.files: dict[str, list[str]] = {}

    def __call__(self, machine: Machine, given: Mapping[str, str]) -> None:
        """As the user: what can't be read can't be uploaded."""
        folder = f"{self.workspace}/{given['path']}"
        status, printed = machine.run(
            f"cd '{folder}' && find . -type f ! -name '.*' && "
            "find . -type f -exec cat {} + | wc -c"
        )
        assert status == 0, printed
        *files, size = printed.rstrip("\n").split("\n")
        assert int(size) > 0
        # What actions/upload-artifact refuses.
        assert not [file for file in files if re.search(r'["<>|*?:\r\n]', file)]
        assert given["name"] not in self.files, "a name is used once a job"
        self.files[given["name"]] = files

    def require(self, name: str, *endings: str) -> None:
        for ending in endings:
            assert any(file.endswith(ending) for file in self.files[name]), (ending, self.files)


def runner(machine: Bare, user: str) -> tuple[Runner, Uploads]:
    workspace = f"{'/root' if user == 'root' else '/home/tester'}/xlab"
    uploads = Uploads(workspace)
    stand_ins: dict[str, StandIn] = {
        "actions/checkout": lambda *_: None,
        "actions/setup-python": install_python,
        "actions/upload-artifact": uploads,
    }
    return Runner(machine, workspace, stand_ins), uploads


@pytest.mark.parametrize(
    ("job", "user", "matrix"),
    [("debian", "root", {}), ("ubuntu", "tester", {"python": "3.13"})],
    ids=["debian", "ubuntu"],
)
def test_the_steps_of_a_job_succeed(
    job: str, user: str, matrix: dict[str, str], tmp_path: Path
) -> None:
    if job == "ubuntu" and RESTRICTION.exists():
        pytest.skip("its steps would change this machine's kernel.apparmor_restrict…")
    with bare_machine(user, tmp_path) as machine:
        steps, uploads = runner(machine, user)
        # Who runs this runs all tests: one file of them shows that the step does.
        steps.env["PYTEST_ADDOPTS"] = "tests/house/test_layers.py"
        outcome = steps.job(WORKFLOW, job, **matrix)
        assert outcome == "success", "\n".join(steps.log)
    for scenario in ("baseline", "bridge", "ovs-gre", "weave"):
        assert re.search(rf"^## {scenario}: passed$", steps.summary, re.MULTILINE), steps.summary
    assert "| --: |" in steps.summary, "a table"
    (name,) = uploads.files
    uploads.require(name, "claims.xml", "report.html", "run.json", ".pcap")


@pytest.mark.slow(minutes=20)
def test_the_job_of_the_virtual_clock_sees_no_difference_between_two_runs(tmp_path: Path) -> None:
    with bare_machine("root", tmp_path) as machine:
        steps, uploads = runner(machine, "root")
        assert steps.job(WORKFLOW, "virtual") == "success", "\n".join(steps.log)
    held = re.findall(r"^\| bridge \| [^|]+ \| ([✓✗?] \w+) \|", steps.summary, re.MULTILINE)
    assert len(held) > 3, steps.summary
    assert set(held) == {"✓ ok"}, steps.summary
    for name in ("first", "second"):
        uploads.require(name, "report.html", "run.json", "new-baseline.json")


@pytest.mark.parametrize("user", ["root", "tester"])
def test_the_action_measures_checks_and_ends_with_checks_status(user: str, tmp_path: Path) -> None:
    """Without a baseline; then against one of the same experiment in which the path was another."""
    asked = {"scenario": "bridge", "rounds": "3"}
    with bare_machine(user, tmp_path) as machine:
        steps, uploads = runner(machine, user)
        first, told = steps.action({**asked, "artifact": "first"})
        assert (first, told["status"]) == ("success", "0"), "\n".join(steps.log)
        assert steps.summary.count("The whole comparison") == 1
        uploads.require("first", "claims.xml", "report.html", "run.json", ".pcap", "summary.md")

        _, found = machine.run(
            f"cat {steps.workspace}/{told['folder']}/results/*-compare/compare.json"
        )
        changed = with_another_path(found, tmp_path)
        machine.run(f"cat >{steps.workspace}/changed.json <<'END'\n{changed}\nEND")
        second, told = steps.action(
            {**asked, "baseline": "changed.json", "tolerance": "90%", "artifact": "second"}
        )
        assert (second, told["status"]) == ("failure", "1"), "\n".join(steps.log)
    on_the_wire = r"^\| bridge \| on the wire \| ✗ regressed \| vxlan → none \|"
    assert re.search(on_the_wire, steps.summary, re.MULTILINE), steps.summary
    uploads.require("second", "check.xml", "claims.xml", "report.html", "summary.md")


def with_another_path(comparison: str, folder: Path) -> str:
    """A baseline of a comparison, whose rounds need not count: others may keep the machine busy."""
    result = folder / "result"
    result.mkdir()
    (result / "compare.json").write_text(comparison)
    seen = gate.summarise(result)
    assert {fact.value for fact in seen.facts if fact.name == "encapsulation"} == {"none"}
    facts = tuple(
        dataclasses.replace(fact, value="vxlan") if fact.name == "encapsulation" else fact
        for fact in seen.facts
    )
    ratios = (gate.Ratios("bridge", "tcp_bits_per_second", 1, True, ((1.0,),) * 3, 0.11),)
    gate.update(folder / "changed.json", dataclasses.replace(seen, facts=facts, ratios=ratios))
    return (folder / "changed.json").read_text()
