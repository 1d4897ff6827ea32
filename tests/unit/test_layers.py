"""Imports go one way: down the table of CONTRIBUTING.md, which names every module."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from tests.documents import ROOT

_ROW = re.compile(r"^\| [^|]+ \| (.*`.*) \|$", re.MULTILINE)
#: The package itself says its version and offers `xlab.lab`; it is no layer.
_TOP = {"__init__", "__main__"}
_EXCEPT: set[tuple[str, str]] = set()


def layers() -> dict[str, int]:
    """The row of each module or folder of xlab/, 0 for the uppermost."""
    _, _, section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things are")
    rows = _ROW.findall(section.partition("\n## ")[0])
    return {
        name.rstrip("/"): number
        for number, row in enumerate(rows)
        for name in re.findall(r"`([a-z_]+/?)`", row)
        if name != "xlab/"
    }


@functools.cache
def modules() -> dict[str, list[str]]:
    """What each module or folder of xlab/ imports from xlab, wherever in it."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "xlab").rglob("*.py")):
        first = file.relative_to(ROOT / "xlab").parts[0].removesuffix(".py")
        found.setdefault(first, []).extend(imported(ast.parse(file.read_text())))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "xlab":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlab."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            yield from (name[1] for name in names if name[0] == "xlab" and len(name) > 1)


def test_every_module_has_its_place() -> None:
    assert set(layers()) == set(modules()) - _TOP


def test_imports_go_down() -> None:
    place = layers()
    upwards = {
        (module, target)
        for module, targets in modules().items()
        for target in targets
        if target in place and module in place and place[target] < place[module]
    }
    assert upwards == _EXCEPT
