"""GitHub's workflows and actions as its runner reads them: expressions, and steps that are run.

Only what this project's own use is understood; anything else raises, so that nothing passes unread.
The language: docs.github.com, "Evaluate expressions in workflows and actions".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GITLAB = ROOT / "docs/gitlab-ci.yml"

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<operator>&&|\|\||==|!=|[!()])"
    r"|(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*))"
)


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


def expressions(document: object) -> Iterator[str]:
    """What stands between ${{ and }}, anywhere in a document."""
    if isinstance(document, str):
        yield from (found[1].strip() for found in _EXPRESSION.finditer(document))
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from expressions(value)
    elif isinstance(document, list):
        for value in document:
            yield from expressions(value)


@dataclass
class Contexts:
    """What expressions may name; `look_up` gets "steps.gate.outputs.status"."""

    values: Mapping[str, Any] = field(default_factory=dict)
    #: Of the steps so far: success, failure or cancelled.
    so_far: str = "success"
    #: Every name that was asked for, in order.
    asked: list[str] = field(default_factory=list)

    def filled(self, text: str) -> str:
        """A text with its expressions replaced by their values, as GitHub writes them."""
        return _EXPRESSION.sub(lambda found: _written(self.value(found[1])), text)

    def value(self, expression: str) -> Any:
        tokens = _tokens(expression)
        found = self._either(tokens)
        if tokens:
            raise ValueError(f"{expression!r}: what is {tokens[0][1]!r}?")
        return found

    def holds(self, condition: object) -> bool:
        """An `if:`, with ${{ }} or without; where it asks for no status, success() is meant."""
        text = str(condition).strip()
        whole = _EXPRESSION.fullmatch(text)
        inner = whole[1] if whole else text
        told = re.search(r"\b(success|failure|always|cancelled)\(\)", inner)
        return bool(self.value(inner)) and (bool(told) or self.so_far == "success")

    def look_up(self, name: str) -> Any:
        self.asked.append(name)
        found: Any = self.values
        for part in name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise KeyError(name)
            found = found[part]
        return found

    # -- a ladder of binding strength --------------------------------------------------------------

    def _either(self, tokens: list[tuple[str, str]]) -> Any:
        left = self._both(tokens)
        while _taken(tokens, "||"):
            right = self._both(tokens)
            left = left or right
        return left

    def _both(self, tokens: list[tuple[str, str]]) -> Any:
        left = self._equal(tokens)
        while _taken(tokens, "&&"):
            right = self._equal(tokens)
            left = left and right
        return left

    def _equal(self, tokens: list[tuple[str, str]]) -> Any:
        left = self._single(tokens)
        for sign, wanted in (("==", True), ("!=", False)):
            if _taken(tokens, sign):
                return (left == self._single(tokens)) is wanted
        return left

    def _single(self, tokens: list[tuple[str, str]]) -> Any:
        if _taken(tokens, "!"):
            return not self._single(tokens)
        if _taken(tokens, "("):
            inner = self._either(tokens)
            _require(tokens, ")")
            return inner
        if not tokens:
            raise ValueError("an expression ends too early")
        kind, said = tokens.pop(0)
        if kind == "text":
            return said[1:-1].replace("''", "'")
        if kind == "number":
            return float(said)
        if kind == "name" and _taken(tokens, "("):
            _require(tokens, ")")
            return _FUNCTIONS[said](self.so_far)
        if kind == "name":
            literal = {"true": True, "false": False, "null": None}
            return literal[said] if said in literal else self.look_up(said)
        raise ValueError(f"what is {said!r}?")


_FUNCTIONS: Mapping[str, Callable[[str], bool]] = {
    "success": lambda so_far: so_far == "success",
    "failure": lambda so_far: so_far == "failure",
    "cancelled": lambda so_far: so_far == "cancelled",
    "always": lambda _: True,
}


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, place, text = [], 0, expression.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match or match.lastgroup is None:
            raise ValueError(f"{expression!r}: what is {text[place:]!r}?")
        found.append((match.lastgroup, match[match.lastgroup]))
        place = match.end()
    return found


def _taken(tokens: list[tuple[str, str]], operator: str) -> bool:
    if tokens and tokens[0] == ("operator", operator):
        tokens.pop(0)
        return True
    return False


def _require(tokens: list[tuple[str, str]], operator: str) -> None:
    if not _taken(tokens, operator):
        raise ValueError(f"{operator} is missing")


def _written(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- steps that are run ----------------------------------------------------------------------------


class Machine(Protocol):
    """Where steps run; a path is one of its own."""

    def run(self, script: str) -> tuple[int, str]:
        """By its /bin/sh: the status, and what was printed."""
        ...


#: Stands for somebody else's action, given what is handed to it.
StandIn = Callable[[Machine, Mapping[str, str]], None]


@dataclass
class Runner:
    """Runs steps one after the other, as GitHub's runner does; `log` is what they printed."""

    machine: Machine
    #: The checkout, and the current folder of every step.
    workspace: str
    #: By the name in `uses:`, without its version.
    stand_ins: Mapping[str, StandIn]
    env: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    summary: str = ""
    _path: list[str] = field(default_factory=list)

    def job(self, workflow: Mapping[str, Any], name: str, **matrix: str) -> str:
        """Returns "success" or "failure"."""
        job = workflow["jobs"][name]
        self.env |= job.get("env", {})
        contexts = {"matrix": matrix, "github": {"workflow": workflow["name"], "ref": "main"}}
        outcome, _ = self.steps(job["steps"], contexts, shell=workflow["defaults"]["run"]["shell"])
        return outcome

    def action(self, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Our own action; its outcome and its outputs."""
        action = load(ACTION)
        unknown = set(given) - set(action["inputs"])
        assert not unknown, unknown
        defaults = {name: each["default"] for name, each in action["inputs"].items()}
        inputs = {**defaults, **given}
        outcome, known = self.steps(action["runs"]["steps"], {"inputs": inputs})
        ended = Contexts({"steps": known})
        return outcome, {
            name: ended.filled(each["value"]) for name, each in action["outputs"].items()
        }

    def steps(
        self, steps: list[dict[str, Any]], values: Mapping[str, Any], *, shell: str = ""
    ) -> tuple[str, dict[str, Any]]:
        """What became of all, and of each that has an id."""
        known: dict[str, Any] = {}
        contexts = Contexts({**values, "steps": known})
        for step in steps:
            if not contexts.holds(step.get("if", "success()")):
                continue
            outcome, outputs = self._step(step, contexts, shell)
            if outcome == "failure":
                contexts.so_far = "failure"
            if "id" in step:
                known[step["id"]] = {"outputs": outputs, "outcome": outcome}
        return contexts.so_far, known

    def _step(
        self, step: Mapping[str, Any], contexts: Contexts, shell: str
    ) -> tuple[str, dict[str, str]]:
        if "run" in step:
            env = {name: contexts.filled(str(v)) for name, v in step.get("env", {}).items()}
            return self._run(contexts.filled(step["run"]), env, step.get("shell", shell))
        given = {name: contexts.filled(str(value)) for name, value in step.get("with", {}).items()}
        if step["uses"] == "./":
            return self.action(given)
        self.stand_ins[step["uses"].partition("@")[0]](self.machine, given)
        return "success", {}

    def _run(self, script: str, env: Mapping[str, str], shell: str) -> tuple[str, dict[str, str]]:
        """What GitHub's "bash" comes to; a step writes to files what is to outlive it."""
        assert shell == "bash", shell
        files = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        place = "/tmp/step"
        told = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": self.workspace,
            "GITHUB_ACTION_PATH": self.workspace,
            **{name: f"{place}/{name}" for name in files},
            **self.env,
            **env,
        }
        exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in told.items())
        path = "".join(f"{folder}:" for folder in reversed(self._path))
        status, printed = self.machine.run(
            f"rm -rf {place} && mkdir {place} && cd {shlex.quote(self.workspace)} || exit\n"
            f"{exports}\nexport PATH={shlex.quote(path)}$PATH\n"
            f"touch {' '.join(f'{place}/{name}' for name in files)}\n"
            f"cat >{place}/script <<'END OF SCRIPT'\n{script}\nEND OF SCRIPT\n"
            f"bash --noprofile --norc -eo pipefail {place}/script </dev/null"
        )
        self.log.append(f"$ {script.strip()}\n{printed}status {status}")
        left = {name: self.machine.run(f"cat {place}/{name}")[1] for name in files}
        self.summary += left["GITHUB_STEP_SUMMARY"]
        self.env |= _pairs(left["GITHUB_ENV"])
        self._path += left["GITHUB_PATH"].split()
        return ("failure" if status else "success"), _pairs(left["GITHUB_OUTPUT"])


def _pairs(lines: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines.splitlines())
