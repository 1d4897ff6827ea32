"""Which container this is, if it is one: what it lacks, whoever starts it can give it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Kind = Literal["podman", "docker", ""]


def kind(root: Path = Path("/")) -> Kind:
    """By what each of them leaves in its containers; "" outside of both.

    A lab has a /run of its own: there it is the variable that podman gives every process.
    """
    if (root / ".dockerenv").exists():
        return "docker"
    told = os.environ.get("container") == "podman" and root == Path("/")  # noqa: SIM112
    return "podman" if told or (root / "run/.containerenv").exists() else ""


def started_with(kind: Kind, options: str) -> str:
    """The remedy that whoever starts the container has, as podman and docker both take it."""
    return f"{kind} run {options} …"
