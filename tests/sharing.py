"""pytest in several processes that share the tests out among them, as they get on.

    python -m pytest -p tests.sharing --share=FOLDER     in each of them, with the same arguments

Whoever is free draws the next file, or of those that take long the next test; what has been drawn
leaves a file in FOLDER.  A file FOLDER/ended ends all of them, each after its test.  Not
pytest-xdist: its workers have a second thread, and a test that is told inside a lab forks the
process it is in (support.run_in_sandbox).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", type=Path, metavar="FOLDER", help="Run what no other has drawn.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """As pytest's own, of the tests drawn."""
    folder = session.config.getoption("--share")
    if folder is None or session.config.option.collectonly or session.testsfailed:
        return None
    drawn = _draw(session.items, folder)
    item = next(drawn, None)
    while item is not None:
        # Fixtures that the next one has, too, are kept for it.
        following = next(drawn, None)
        if (folder / "ended").exists():
            raise session.Interrupted("told to end")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def _draw(items: Sequence[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    ours: set[str] = set()
    #: Files whose tests build labs.
    building = {item.path for item in items if item.get_closest_marker("sandbox")}

    def longest_first(item: pytest.Item) -> float:
        """What is short comes last, so all processes end at about the same time."""
        if slow := item.get_closest_marker("slow"):
            return -float(slow.kwargs.get("minutes", 0))
        return 1 if "whole" in item.path.parts else 2 if item.path in building else 3

    for name, group in itertools.groupby(sorted(items, key=longest_first), key=_drawn_as):
        mark = folder / hashlib.sha256(name.encode()).hexdigest()
        if name not in ours:
            try:
                mark.open("x").close()
            except FileExistsError:
                continue
            ours.add(name)
        yield from group


def _drawn_as(item: pytest.Item) -> str:
    return item.nodeid if item.get_closest_marker("slow") else str(item.path)
