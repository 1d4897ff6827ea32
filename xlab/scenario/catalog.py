"""Where scenarios and labs are, and what they are called.

Nothing here runs a scenario: names come from file names, and what is declared is read, so a broken
file spoils neither `xlab list` nor completion.
"""

from __future__ import annotations

import ast
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlab.errors import UsageError, XlabError, meant, quoted, shortened
from xlab.kernel import shipped

_DECLARATION = re.compile(r"^SCENARIO\b.*?= ", re.MULTILINE)


def folders() -> tuple[Path, Path]:
    """The folders of scenarios and of labs; the latter need not exist.

    Raises XlabError when there are no scenarios: the installation is incomplete.
    """
    scenarios = shipped.find("scenarios")
    if scenarios is None:
        raise XlabError(f"the scenarios are missing from this installation ({shipped.PACKAGE})")
    return scenarios, scenarios.with_name("labs")


def names() -> list[str]:
    """The scenarios by name (`ovs_gre.py` is "ovs-gre"), in the order they declare."""

    def place(name: str) -> tuple[float, str]:
        order = declared(name).get("order")
        return order if isinstance(order, int) else math.inf, name

    scenarios, _ = folders()
    return sorted(map(_name, scenarios.glob("[!_]*.py")), key=place)


def declared(name: str) -> dict[str, Any]:
    """What the SCENARIO of a file of the catalog says in plain literals, its `order` say.

    The file is not run; one that says nothing so, or is no Python, declares nothing.
    """
    try:
        said = _DECLARATION.split(_file(name).read_text(), maxsplit=1)[-1]
        call = ast.parse(said).body[0]
    except (OSError, ValueError, SyntaxError, IndexError, RecursionError):
        return {}
    found = {}
    if isinstance(call, ast.Expr) and isinstance(call.value, ast.Call):
        for given in call.value.keywords:
            # It may be no literal, or one of what cannot be: a list as a key.
            with suppress(ValueError, TypeError):
                found[given.arg or ""] = ast.literal_eval(given.value)
    return found


def find(name_or_path: str) -> Path:
    """The scenario file meant: a name of the catalog, or a path to a `.py` file.

    Raises UsageError for a path that is not a file, and for an unknown name, with the right names
    and the nearest.
    """
    known = names()
    if name_or_path in known:
        return _file(name_or_path)
    # What ends in .py or holds a slash can only have been meant as a path.
    path = Path(name_or_path)
    if path.suffix == ".py":
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise UsageError(f"{shortened(name_or_path)}: {error.strerror}") from error
        raise UsageError(f"no such scenario file: {shortened(name_or_path)}")
    if "/" in name_or_path:
        raise UsageError(
            f"not a scenario file (its name must end in .py): {shortened(name_or_path)}"
        )
    guess = meant(name_or_path.lower().replace("_", "-"), known)
    raise UsageError(
        f"no scenario is called {quoted(name_or_path)}: there are {', '.join(known)}{guess}"
    )


def _file(name: str) -> Path:
    return folders()[0] / f"{name.replace('-', '_')}.py"


def _name(file: Path) -> str:
    return file.stem.replace("_", "-")
