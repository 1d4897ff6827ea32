"""pytest in several processes that share the tests out among them, as they get on.

    python -m pytest -p tests.sharing --share=FOLDER

All tests are collected once; then five processes are forked.  Whoever is free draws the next file,
or of those that take long the next test; what has been drawn leaves a file in FOLDER.  The first
prints where one looks, the others into FOLDER/printed-2 and so on, shown when all have ended.  A
file FOLDER/ended ends all of them, each after its test.  Not pytest-xdist: its workers have a
second thread, and a test that is told inside a lab forks the process it is in
(support.run_in_sandbox).
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import guard

#: More than there are processors: tests mostly wait.
SHARERS = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", type=Path, metavar="FOLDER", help="Run tests in five processes.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """As pytest's own, of the tests drawn; whoever collected them only waits."""
    folder = session.config.getoption("--share")
    if folder is None or session.config.option.collectonly or session.testsfailed:
        return None
    # What has been collected stays the memory of all: nobody's collector writes into it.
    gc.freeze()
    sys.stdout.flush()
    sharers = []
    for number in range(1, SHARERS + 1):
        if (pid := os.fork()) == 0:
            _become(number, folder, session.config)
            _run(session, folder)
            return True
        sharers.append(pid)
    # Of tests there is nothing more to say here.
    session.config.pluginmanager.unregister(name="terminalreporter")
    session.testsfailed = _failed(sharers, folder)
    return True


def _become(number: int, folder: Path, config: pytest.Config) -> None:
    """One of several: with a guard of its own and, but for the first, a file to print into."""
    plugins = config.pluginmanager
    plugins.unregister(plugins.get_plugin("guard"))
    plugins.register(guard.Guard(), "guard")
    if number == 1:
        return
    capture = plugins.get_plugin("capturemanager")
    reporter = plugins.get_plugin("terminalreporter")
    assert capture
    assert reporter
    # It keeps where one looks.
    capture.stop_global_capturing()
    with _printed(folder, number).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    capture.start_global_capturing()
    capture.suspend_global_capture()
    reporter.isatty = reporter._tw.hasmarkup = False


def _failed(sharers: Sequence[int], folder: Path) -> int:
    """How many of them did not end well, once all have ended and what they printed is shown."""
    failed = 0
    try:
        failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in sharers)
    except KeyboardInterrupt:
        # A terminal has told all of them, bin/test only this one.
        for pid in sharers if (folder / "ended").exists() else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        raise
    finally:
        for number in range(2, len(sharers) + 1):
            sys.stdout.write("\n== pytest of what was drawn meanwhile\n")
            with suppress(FileNotFoundError):
                sys.stdout.write(_printed(folder, number).read_text(errors="replace"))
        sys.stdout.flush()
    return failed


def _printed(folder: Path, number: int) -> Path:
    return folder / f"printed-{number}"


def _run(session: pytest.Session, folder: Path) -> None:
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
