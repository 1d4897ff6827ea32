"""A submission done again: its scripts typed in a contained lab of the student's own, and judged.

Of what the student's side says nothing is believed: checks are asked of the kernel by pid 1, which
nobody in the lab can look into or change (`sandbox.containment`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xlab.errors import CommandError, LimitError, UsageError, XlabError
from xlab.exercises import answers, beginning, exercise, judging
from xlab.exercises.grading import submission
from xlab.exercises.grading.submission import Submission
from xlab.exercises.judging import Lab, Outcome, Result
from xlab.exercises.model import Exercise
from xlab.sandbox.containment import Limits

#: What does not hold is looked at so many times, each with all the patience it has.
_LOOKS = 2
#: Characters of what a part printed, and of all parts together: a worker says it in one line, in
#: which some are twelve bytes.  And of why one did not come to its end.
_LONGEST_SAID, _MOST_SAID, _LONGEST_CAUSE = 2000, 200_000, 200
#: What each part of a script may take, as `kernel.patience` counts: on a busy machine it is longer.
SCRIPT_S = 60.0

#: As it was typed: what fails is told, and does not end the rest.
_SHELL = ("bash", "-c", """
cd /root
trap 'printf "status %s: %s\\n" "$?" "$BASH_COMMAND" >&2' ERR
eval "$1"
exit 0
""", "bash")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Of a script, as it went."""

    host: str
    number: int
    #: What it printed, the end of it; and why it did not come to its end, if it did not.
    said: str
    stopped: str


@dataclass(frozen=True, slots=True)
class Replayed:
    results: list[Result]
    parts: list[Part]
    notes: list[str]
    #: Why it was ended; "" if it was not.
    cause: str
    #: As `containment.peak` has it; nothing where it was ended.
    peak: Mapping[str, int]


def replay(
    found: Exercise,
    given: Submission,
    *,
    limits: Limits | None,
    script_s: float,
    tell: Callable[[str], object] = lambda _: None,
) -> Replayed:
    """Each part of a script may take `script_s`.  What is raised is no fault of the submission.

    Without `limits` it is not contained: for one's own work.
    """
    with beginning.begun(found, limits=limits) as lab:
        return done_in(lab, found, given, script_s=script_s, tell=tell)


def done_in(
    lab: Lab,
    found: Exercise,
    given: Submission,
    *,
    script_s: float,
    tell: Callable[[str], object] = lambda _: None,
) -> Replayed:
    """The same in a lab that has begun."""
    parts: list[Part] = []
    said, notes = _answers(given)
    cause, left = "", _MOST_SAID
    try:
        for number, host, script in _in_order(found, given, notes):
            tell(f"{host}, part {number}")
            # Takes turns with a host that boots, as after a `reboot` in the part before.
            lab.call("fault", {})
            part = _typed(lab, host, number, script, script_s)
            kept = part.said[max(0, len(part.said) - left) :]
            left -= len(kept)
            parts.append(replace(part, said=kept))
    except LimitError as error:
        cause = str(error)
    if not left:
        notes.append(f"of what is printed {_MOST_SAID} characters are kept")

    def told(result: Result) -> None:
        tell(f"check {result.check.id}")

    results = judging.judge(found, lab, said, looks=_LOOKS, strict=True, tell=told)
    peak: Mapping[str, int] = {}
    try:
        peak = lab.call("peak", {})
    except LimitError as error:
        cause = str(error)
    return Replayed(results, parts, notes, cause, peak)


def blamed(
    found: Exercise,
    replayed: Replayed,
    *,
    limits: Limits | None,
    script_s: float,
    tell: Callable[[str], object] = lambda _: None,
) -> Replayed:
    """The same with each check that could not be carried out laid at the right door.

    What can't be carried out where the solution was typed is the grader's error.  What can be there
    was kept from being by what the student has done, as by a disk filled to the last file: it does
    not hold.
    """
    broken = {result.check.id for result in replayed.results if result.outcome is Outcome.BROKEN}
    if not broken or found.solution is None:
        return replayed
    tell("the solution, to compare with")
    right = submission.of_solution(found, found.solution)
    control = replay(found, right, limits=limits, script_s=script_s, tell=tell)
    broken -= {result.check.id for result in control.results if result.outcome is Outcome.BROKEN}
    results = [
        replace(result, outcome=Outcome.FAILED) if result.check.id in broken else result
        for result in replayed.results
    ]
    return replace(replayed, results=results)


def without_lab(found: Exercise, given: Submission, cause: str) -> Replayed:
    """Of one whose lab there is no more: only its answers are judged."""

    class Gone:
        def call(self, *_: object) -> Any:
            raise LimitError(cause)

    said, notes = _answers(given)
    return Replayed(judging.judge(found, Gone(), said), [], notes, cause, {})


def _answers(given: Submission) -> tuple[dict[str, Any], list[str]]:
    try:
        return given.given(), []
    except UsageError as error:
        return {}, [f"{answers.NAME} can't be read: {error}"]


def _in_order(found: Exercise, given: Submission, notes: list[str]) -> list[tuple[int, str, str]]:
    """Number, host and text of each part: the first of each host, then the second, and so on."""
    hosts = [f"h{number}" for number in range(1, int(found.machines["hosts"]) + 1)]
    notes += [f"{host}.sh is not carried out: there is no such host here"
              for host in given.scripts if host not in hosts]  # fmt: skip
    listed = [
        (number, host, text)
        for host in hosts
        for number, text in exercise.parts(given.scripts.get(host, "")).items()
        if text.strip()
    ]
    return sorted(listed, key=lambda part: (part[0], hosts.index(part[1])))


def _typed(lab: Lab, host: str, number: int, script: str, script_s: float) -> Part:
    """LimitError if it was too much for the lab."""
    asked = {"node": host, "argv": [*_SHELL, script], "timeout_s": script_s, "stdin": ""}
    try:
        done = lab.call("run", asked)
    except LimitError:
        raise
    except (CommandError, UsageError) as error:
        # Too long; or its host is down, or has no shell any more.
        stopped = str(error)
        if isinstance(error, CommandError) and error.returncode is None:
            stopped = f"it did not end within {script_s:g} s"
        return Part(host, number, "", stopped[-_LONGEST_CAUSE:])
    except XlabError as error:
        # Behind the command, which is known: that it printed too much, say.
        return Part(host, number, "", str(error).rpartition("` ")[2][-_LONGEST_CAUSE:])
    said = f"{done['stdout']}{done['stderr']}"[-_LONGEST_SAID:]
    status = done["returncode"]
    return Part(host, number, said, f"its shell ended with status {status}" if status else "")
