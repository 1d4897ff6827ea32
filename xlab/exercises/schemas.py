"""The shape of an exercise's files, as JSON Schema (2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlab.inside.checks.kinds import Kind

_TEXT = {"type": "string", "minLength": 1}
_SAID = {"type": ["string", "integer", "number"]}
_YES_OR_NO = {"enum": ["yes", "no"]}
_COUNT = {"type": "integer", "minimum": 0}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Of an identifier: `containers-reach-each-other`.
_ID = {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
#: Of a script for each host, by its name.
_SCRIPTS = {"type": "object", "propertyNames": {"pattern": "^[\\w.-]+$"},
            "additionalProperties": _TEXT}  # fmt: skip


def _object(*needed: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(needed),
        "additionalProperties": False,
    }


#: A value's name, or the number itself.
_NUMBER = {"type": ["string", "integer"]}


def _of_network(**rest: Any) -> dict[str, Any]:
    """A network's name and as many numbers as `rest` says."""
    return {"type": "array", "prefixItems": [_TEXT], "items": _NUMBER, **rest}


#: How a value is made; one word each, beside what that needs.
_DRAWN = {
    "one_of": {"type": "array", "items": _SAID, "minItems": 1},
    "between": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    "network": _TEXT,
    "address": _of_network(minItems=2, maxItems=2),
    "part": _of_network(minItems=3, maxItems=3),
    "netmask": _TEXT,
    "bits": _TEXT,
    "sum": {"type": "array", "items": _NUMBER, "minItems": 1},
    "case": _TEXT,
    "text": _TEXT,
}

_VARIANTS = {
    "type": "object",
    "propertyNames": {"pattern": "^\\w+$"},
    # They are drawn for thirty people; each network is compared with all others.
    "maxProperties": 100,
    # Of `case` the values are words beside it.
    "additionalProperties": {
        "type": "object",
        "properties": {**_DRAWN, "prefix": _NUMBER, "step": _COUNT},
        "additionalProperties": _SAID,
        "oneOf": [{"required": [word]} for word in _DRAWN],
    },
}

#: Of lab.yaml before anything has been drawn: whatever else there is may be a value yet.
UNDRAWN: Mapping[str, Any] = {
    "$schema": _DIALECT, "type": "object", "properties": {"variants": _VARIANTS}
}  # fmt: skip

LAB: Mapping[str, Any] = {
    "$schema": _DIALECT,
    **_object(
        "title", "minutes",
        title=_TEXT,
        minutes={"type": "integer", "minimum": 5, "maximum": 240},
        machines=_object(
            "hosts",
            hosts={"type": "integer", "minimum": 1, "maximum": 16},
            underlay=_TEXT, first=_COUNT, openvswitch=_YES_OR_NO,
            scenario=_TEXT, containers=_COUNT, built=_TEXT,
            settings={"type": "object", "additionalProperties": _SAID},
            mtu={"type": "integer"}, rate=_TEXT, delay=_TEXT, loss=_TEXT,
        ),
        typed_before=_SCRIPTS,
        **{"break": {"type": "array", "items": _TEXT}},
        files={"type": "object", "additionalProperties": _TEXT, "maxProperties": 16},
        variants=_VARIANTS,
        # Of what was handed to one student.
        student=_TEXT, sealed=_TEXT,
    ),
    "anyOf": [{"required": ["machines"]}, {"required": ["sealed"]}],
}  # fmt: skip

#: What an answer may be: one of these beside the question.
_ANSWERED = {
    "number": _TEXT,
    "choice": {"type": "array", "items": _SAID, "minItems": 2},
    "text": _TEXT,
}
_KINDS = {
    **{word: kind.shape for word, kind in Kind.known.items()},
    "answer": {
        **_object("question", question=_TEXT, **_ANSWERED),
        "oneOf": [{"required": [word]} for word in _ANSWERED],
    },
}

#: What a check may ask.
WORDS = tuple(_KINDS)

CHECKS: Mapping[str, Any] = {
    "$schema": _DIALECT,
    "$defs": {
        "asked": {
            **_object(**{word: kind.shape for word, kind in Kind.known.items()}),
            "minProperties": 1,
            "maxProperties": 1,
        }
    },
    "type": "array",
    "minItems": 1,
    "items": {
        **_object(
            "id", "task", "points",
            id=_ID, task={"type": "integer", "minimum": 1},
            points={"type": "integer", "minimum": 1, "maximum": 20},
            needs={"type": "array", "items": _ID},
            wait={"type": ["integer", "number"], "minimum": 0, "maximum": 120},
            look=_TEXT, fail=_TEXT, **{"pass": _TEXT}, **_KINDS,
        ),
        "oneOf": [
            {"required": ["answer"]},
            *({"required": [word, "pass", "fail", "look"]} for word in Kind.known),
        ],
    },
}  # fmt: skip

HINTS: Mapping[str, Any] = {
    "$schema": _DIALECT,
    "type": "object",
    "propertyNames": _ID,
    # Of what was handed out: one word, with all of them in it.
    "properties": {"sealed": _TEXT},
    "additionalProperties": {"type": "array", "items": _TEXT, "minItems": 3, "maxItems": 3},
}

ANSWERS: Mapping[str, Any] = {
    "$schema": _DIALECT,
    "type": "object",
    "propertyNames": _ID,
    "additionalProperties": {
        "oneOf": [
            _object("number", number={"type": ["integer", "number"]},
                    tolerance={"type": ["integer", "number"]},
                    within={"type": "string", "pattern": "^[0-9.]+ ?%$"}),
            _object("choice", choice=_SAID),
            _object("text", text=_SAID),
        ]
    },
}  # fmt: skip

FAULTS: Mapping[str, Any] = {
    "$schema": _DIALECT,
    "type": "array",
    "items": {
        **_object(
            "fault", "fails",
            fault=_TEXT, do=_SCRIPTS, undo=_SCRIPTS, order=_TEXT,
            answers={"type": "object", "additionalProperties": _SAID},
            fails={"type": "array", "items": _ID, "minItems": 1},
        ),
        "anyOf": [{"required": ["do", "undo"]}, {"required": ["order"]}, {"required": ["answers"]}],
    },
}  # fmt: skip

#: By the file's name, within the exercise's folder.
BY_FILE: Mapping[str, Mapping[str, Any]] = {
    "lab.yaml": LAB,
    "checks.yaml": CHECKS,
    "hints.yaml": HINTS,
    "solution/checks.yaml": CHECKS,
    "solution/answers.yaml": ANSWERS,
    "solution/faults.yaml": FAULTS,
    "solution/other/answers.yaml": ANSWERS,
}
