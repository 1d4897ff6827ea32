"""The lab of an exercise: what is asked for, what is there before a student, what solves it."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xlab.errors import XlabError, at
from xlab.exercises import answers, machines, machines_ovs, own_files
from xlab.exercises.judging import Lab
from xlab.exercises.model import Exercise, Solution
from xlab.lab.conditions import parse_delay, parse_loss, parse_rate
from xlab.outside import api
from xlab.sandbox.containment import Limits
from xlab.scenario.request import Request

#: What one script may take; a router waits for its peers, and a machine may be busy.
_SCRIPT_S = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """As `starting.up` and `xlab.lab` take it."""

    request: Request
    until: str | None
    empty: bool


def asked(exercise: Exercise) -> Asked:
    """The machines; UsageError for what makes no sense."""
    said = exercise.machines
    with at(f"{exercise.folder / 'lab.yaml'}: machines"):
        if "scenario" in said:
            scenario, built = str(said["scenario"]), str(said.get("built", "yes"))
            settings = {name: str(value) for name, value in said.get("settings", {}).items()}
        else:
            file = (machines_ovs if said.get("openvswitch") == "yes" else machines).__file__
            scenario, built = str(file), "no"
            settings = {k: str(said[k]) for k in ("underlay", "first") if k in said}
        read = {"rate": ("rate_bits_per_second", parse_rate), "delay": ("delay_ms", parse_delay),
                "loss": ("loss_ratio", parse_loss)}  # fmt: skip
        links: dict[str, Any] = {
            name: parse(str(said[key])) for key, (name, parse) in read.items() if key in said
        }
        request = Request(
            scenario=scenario,
            # What is measured needs two; here one may be enough.
            **({"hosts": said["hosts"]} if said["hosts"] > 1 else {"topo": "single,1"}),
            containers=said.get("containers", 1),
            mtu=said.get("mtu", 1500),
            settings=settings,
            **links,
        )
    until = None if built in ("yes", "no") else built
    return Asked(request, until, empty=built == "no")


@contextmanager
def begun(exercise: Exercise, *, limits: Limits | None = None) -> Iterator[Lab]:
    """A lab of its own for the exercise, as the student finds it; ends with the block.

    With `limits` it is one for the work of strangers.
    """
    wanted = asked(exercise)
    made = api.of_request(
        wanted.request,
        until=wanted.until,
        empty=wanted.empty,
        machines=True,
        check=False,
        guarded=True,
        limits=limits,
    )
    with made as lab:
        prepare(exercise, lab)
        yield lab


def prepare(exercise: Exercise, lab: Lab) -> None:
    """What the student finds: files put there, scripts typed, something broken."""
    for place, file in exercise.files.items():
        host, _, path = place.partition(":")
        put(lab, host, path, own_files.read(exercise.folder, file))
    type_in(lab, exercise.typed_before, f"{exercise.folder / 'lab.yaml'}: typed_before")
    for order in exercise.breaks:
        lab.call("fault", {"order": order})


def solve(lab: Lab, solution: Solution, *, until: int | None = None, after: int = 0) -> None:
    """Type a solution's scripts, task by task and host by host: those after the task `after`, up to
    and without that of number `until`.
    """
    for task in solution.tasks():
        if task > after and (until is None or task < until):
            parts = {host: parts[task] for host, parts in solution.scripts.items() if task in parts}
            type_in(lab, parts, f"the solution of task {task}")


def right_answers(solution: Solution) -> dict[str, Any]:
    return {name: answers.right(expected) for name, expected in solution.answers.items()}


def type_in(lab: Lab, scripts: Mapping[str, str], what: str) -> None:
    """Scripts by host, one after the other, each by `sh -e`; XlabError with what it said."""
    for host, script in scripts.items():
        done = lab.call(
            "run",
            {"node": host, "argv": ["sh", "-e", "-c", script], "timeout_s": _SCRIPT_S,
             "stdin": ""},
        )  # fmt: skip
        if done["returncode"] != 0:
            said = (done["stderr"] or done["stdout"]).strip()[-600:]
            raise XlabError(f"{what}: on {host} it ended with status {done['returncode']}: {said}")


def put(lab: Lab, node: str, path: str, content: bytes) -> None:
    """A file into a node."""
    where = shlex.quote(path)
    done = lab.call(
        "run",
        {"node": node, "argv": ["sh", "-e", "-c", f'mkdir -p "$(dirname {where})"; cat >{where}'],
         "stdin": base64.b64encode(content).decode()},
    )  # fmt: skip
    if done["returncode"] != 0:
        raise XlabError(f"{node}:{path}: {done['stderr'].strip()}")
