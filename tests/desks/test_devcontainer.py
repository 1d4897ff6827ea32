"""The development container's description: what it may say, and that it says what labs need.

The properties and their types are those of the Dev Container specification (containers.dev), as
far as they are used here: an editor takes a misspelt one without a word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".devcontainer/devcontainer.json"

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["build"],
    "properties": {
        "name": {"type": "string"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "required": ["dockerfile"],
            "properties": {
                "dockerfile": {"type": "string"},
                "context": {"type": "string"},
                "args": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "runArgs": {"type": "array", "items": {"type": "string", "pattern": "^--[a-z-]+(=|$)"}},
        "remoteUser": {"type": "string"},
        "postCreateCommand": {"type": ["string", "array"]},
    },
}


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_it_keeps_to_the_schema() -> None:
    jsonschema.validate(described(), SCHEMA)


@pytest.mark.parametrize(
    "wrong", [{"runArg": []}, {"runArgs": "--privileged"}, {"build": {"context": ".."}}]
)
def test_a_slip_would_be_found(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**described(), **wrong}, SCHEMA)


def test_it_is_built_from_the_image_and_the_checkout() -> None:
    build = described()["build"]
    assert (FILE.parent / build["dockerfile"]).resolve() == ROOT / "image/Containerfile"
    assert (FILE.parent / build["context"]).resolve() == ROOT


def test_it_has_what_labs_need_and_sets_up_what_tests_need() -> None:
    given = set(described()["runArgs"])
    text = (ROOT / "docs/desks.md").read_text(encoding="utf-8")
    (least,) = re.findall(r"podman run --rm ((?:--cap-add \w+ )+--device \S+)", text)
    assert set(re.sub(r"(--[a-z-]+) ", r"\1=", least).split()) <= given
    assert described()["postCreateCommand"] == "bin/setup --dev"
