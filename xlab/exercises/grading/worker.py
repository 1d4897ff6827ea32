"""The process that does one submission again; started for each, and killed if it takes too long.

    course ── python -m xlab.exercises.grading.worker ── its lab
       │  job as JSON on stdin ──>      │
       └─ a JSON object a line <────────┘   {"step": …} any number, then {"grade": …}, {"error": …}
                                             or {"lost": …}, of its lab

Root becomes an unprivileged user first of all; then there is nothing that could be won from it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from xlab.errors import SandboxError, XlabError
from xlab.kernel import syscalls
from xlab.sandbox import containment, unprivileged
from xlab.sandbox.containment import Limits

#: If the machine runs out of memory this and its lab go first, proc_pid_oom_score_adj(5).
_GO_FIRST = "800"


@dataclass(frozen=True, slots=True)
class Job:
    folder: str
    student: str
    #: In hexadecimal; None for a practice variant.
    secret: str | None
    scripts: Mapping[str, str]
    answers: str
    #: As the submission says.
    says: tuple[str, str]
    file: str
    key: str
    limits: Mapping[str, int]
    script_s: float
    #: Whom root becomes.
    user: str


def main() -> NoReturn:
    parent = int(sys.argv[1])
    given = Job(**json.loads(sys.stdin.read()))
    try:
        if os.geteuid() == 0:
            needed = [*containment.code(), Path(given.folder), *_scenarios()]
            unprivileged.become(given.user, needed)
        syscalls.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_GO_FIRST)
        _say({"grade": _graded(given)})
    except SandboxError as error:
        _say({"lost": str(error)})
    except XlabError as error:
        _say({"error": str(error)})
    sys.stdout.flush()
    os._exit(0)


def _scenarios() -> list[Path]:
    from xlab.scenario import catalog

    scenarios, _ = catalog.folders()
    return [scenarios]


def _graded(job: Job) -> dict[str, Any]:
    from xlab.exercises import exercise
    from xlab.exercises.grading import outcome
    from xlab.exercises.grading.replay import blamed, replay
    from xlab.exercises.grading.submission import Submission
    from xlab.exercises.variants import Variant
    from xlab.record import record

    secret = {} if job.secret is None else {"secret": bytes.fromhex(job.secret)}
    found = exercise.load(Path(job.folder), Variant(job.student, **secret))
    given = Submission(job.scripts, job.answers, *job.says)
    begun = time.monotonic()
    how: dict[str, Any] = {
        "limits": Limits(**job.limits),
        "script_s": job.script_s,
        "tell": lambda step: _say({"step": step}),
    }
    replayed = blamed(found, replay(found, given, **how), **how)
    made = outcome.of_replayed(
        found, given, replayed, file=job.file, key=job.key,
        took_s=round(time.monotonic() - begun, 2),
    )  # fmt: skip
    return record.to_document(made)


def _say(said: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def as_json(job: Job) -> str:
    return json.dumps(asdict(job))


if __name__ == "__main__":
    main()
