"""A hundred submissions in one command, right, half right, cheating, hostile; killed, gone on with.

The same grades come out of a quarter of them once more, beside two busy loops.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from tests.support.labs import why_no_open_vswitch, why_no_sandbox
from xlab.exercises import answers, beginning, catalog, exercise
from xlab.exercises.grading import submission
from xlab.exercises.grading.submission import Submission
from xlab.exercises.model import Exercise
from xlab.exercises.variants import Variant

pytestmark = [pytest.mark.sandbox, pytest.mark.slow(minutes=20)]

SECRET = b"0123456789abcdef0123456789abcdef"
#: Of bare hosts, of Docker on a bridge, of Open vSwitch.
EXERCISES = ("01", "03", "06")
#: What is done when the solution has been.
HOSTILE = {
    "bomb": "b() { b | b & }; b; sleep 60",
    "memory": f"{sys.executable} -I -S -c 'x = bytearray(8 << 30)'",
    "never ends": "sleep 100000",
    "output": "yes",
    "files": "cd /root; seq 100000 | xargs touch",
    "vandal": "rm -rf /usr/bin /usr/sbin /etc; kill -9 -1",
}
#: However busy the machine is.
PATIENCE_S = 3600


def scripts(solved: Exercise, *, other: bool = False) -> dict[str, str]:
    found = solved.other if other and solved.other else solved.solution
    assert found is not None
    return {host: "".join(f"# part {number}\n{text}" for number, text in parts.items())
            for host, parts in found.scripts.items()}  # fmt: skip


def class_of_a_hundred(box: Path) -> dict[str, str]:
    """Of each submission what is to come of it: "all", "none", "some", "stopped"."""
    expected = {}
    for number in range(100):
        folder = catalog.find(EXERCISES[number % 3])
        name = f"s{number:02}"
        found = exercise.load(folder, Variant(name, SECRET))
        solution = found.solution
        assert solution is not None
        own, given = scripts(found), beginning.right_answers(solution)
        kind = number // 3 % 11
        expected[name] = "all"
        if kind == 1:
            own = scripts(found, other=True)
        elif kind == 2:
            own = {host: text for host, text in own.items() if host != "h1"}
            given = {}
            expected[name] = "some"
        elif kind == 3:
            own, given = {"h1": "true"}, {}
            expected[name] = "none"
        elif kind == 4:
            # A cheat: somebody else's, in whose values nothing is right.
            own, given = scripts(exercise.load(folder, Variant("nobody", SECRET))), {}
            expected[name] = "none"
        elif kind >= 5:
            word = list(HOSTILE)[kind - 5]
            own["h1"] += f"\n# part 99\n{HOSTILE[word]}\n"
            expected[name] = "stopped" if word in ("bomb", "memory") else "some"
        made = Submission(own, answers.sheet(found, given), name, folder.name)
        (box / f"{name}-{folder.name}.tar.gz").write_bytes(submission.pack(made))
    return expected


def grading(box: Path, key: Path, output: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "xlab", "lab", "grade", str(box), "--secret", str(key),
            "--output", str(output), "--jobs", "2"]  # fmt: skip


def run(argv: list[str]) -> float:
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, timeout=PATIENCE_S, check=False, capture_output=True, text=True,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begun


def table(output: Path) -> dict[str, tuple[str, str, str]]:
    with (output / "grades.csv").open(newline="") as opened:
        return {row["student"]: (row["points"], row["of"], row["status"])
                for row in csv.DictReader(opened)}  # fmt: skip


@contextmanager
def busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_a_hundred_are_graded_and_again_alike(tmp_path: Path) -> None:
    if missing := why_no_sandbox() or why_no_open_vswitch():
        pytest.skip(missing)
    box, key = tmp_path / "in", tmp_path / "key"
    box.mkdir()
    key.write_bytes(SECRET)
    key.chmod(0o600)
    expected = class_of_a_hundred(box)
    # Killed in the midst, and gone on with.
    first = grading(box, key, tmp_path / "first")
    begun = subprocess.Popen(first, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while len(list((tmp_path / "first").glob("*/*/grade.json"))) < 20:
        assert begun.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    rest_s = run(first)
    grades = table(tmp_path / "first")
    assert sorted(grades) == sorted(expected)
    # Of each kind and of each exercise some.
    again = dict(list(grades.items())[::4])
    few = tmp_path / "few"
    few.mkdir()
    for name in again:
        (packed,) = box.glob(f"{name}-*")
        packed.rename(few / packed.name)
    with busy_loops():
        busy_s = run(grading(few, key, tmp_path / "second"))
    assert table(tmp_path / "second") == again
    wrong = {}
    for name, (points, of, status) in grades.items():
        got, most = int(points), int(of)
        holds = {
            "all": status == "graded" and got == most,
            "none": status == "graded" and got == 0,
            "some": status == "graded" and 0 <= got <= most,
            "stopped": status == "stopped" and got < most,
        }
        if not holds[expected[name]]:
            wrong[name] = (expected[name], points, of, status)
    assert wrong == {}
    sys.stdout.write(
        f"the last in {rest_s:.0f} s, a quarter of them beside two busy loops in {busy_s:.0f} s\n"
    )
