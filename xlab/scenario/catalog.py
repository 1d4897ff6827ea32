"""Where scenarios and labs are, and what they are called.

A checkout keeps `scenarios/` and `labs/` at its top, beside the package; a wheel carries both
inside it (pyproject.toml).  Whichever is there is used, the wheel's first.  Nothing here imports a
scenario: names come from file names, so a broken file spoils neither `xlab list` nor completion.
"""

from __future__ import annotations

from pathlib import Path

from xlab.errors import UsageError, XlabError, meant

#: The order in which the tutorial meets the methods; whatever else is there follows by name.
TUTORIAL_ORDER = ("baseline", "bridge", "ovs-gre", "weave")

_PACKAGE = Path(__file__).resolve().parents[1]


def folders() -> tuple[Path, Path]:
    """The folders of scenarios and of labs; the latter need not exist.

    Raises XlabError when there are no scenarios: the installation is incomplete.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / "scenarios").is_dir():
            return parent / "scenarios", parent / "labs"
    raise XlabError(f"the scenarios are missing from this installation ({_PACKAGE})")


def names() -> list[str]:
    """The scenarios by name (`ovs_gre.py` is "ovs-gre"): the tutorial's first, in its order."""
    scenarios, _ = folders()
    found = {_name(file) for file in scenarios.glob("*.py") if not file.name.startswith("_")}
    return [name for name in TUTORIAL_ORDER if name in found] + sorted(found - {*TUTORIAL_ORDER})


def find(name_or_path: str) -> Path:
    """The scenario file meant: a name of the catalog, or a path to a `.py` file.

    Raises UsageError for a path that is not a file, and for an unknown name, with the right names
    and the nearest.
    """
    known = names()
    if name_or_path in known:
        return folders()[0] / f"{name_or_path.replace('-', '_')}.py"
    # What ends in .py or holds a slash can only have been meant as a path.
    path = Path(name_or_path)
    if path.suffix == ".py":
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise UsageError(f"{name_or_path[:200]}: {error.strerror}") from error
        raise UsageError(f"no such scenario file: {name_or_path}")
    if "/" in name_or_path:
        raise UsageError(f"not a scenario file (its name must end in .py): {name_or_path}")
    guess = meant(name_or_path.lower().replace("_", "-"), known)
    raise UsageError(f"no scenario is called {name_or_path!r}: there are {', '.join(known)}{guess}")


def _name(file: Path) -> str:
    return file.stem.replace("_", "-")
