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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import guard
from xlab.kernel import syscalls

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
    plugins = session.config.pluginmanager
    capture = plugins.get_plugin("capturemanager")
    assert capture
    # Each will have its own files to capture into.
    capture.stop_global_capturing()
    # What has been collected stays the memory of all: nobody's collector writes into it.
    gc.freeze()
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sharers = {}
    for number in range(1, SHARERS + 1):
        if (pid := os.fork()) == 0:
            _become(number, folder, session.config)
            _run(session, folder)
            return True
        sharers[pid] = number
    # Of tests there is nothing to say here, nor of what failed last time.
    for plugin in ("terminalreporter", "lfplugin"):
        if plugins.has_plugin(plugin):
            plugins.unregister(name=plugin)
    session.testsfailed = _failed(sharers, folder)
    return True


def _become(number: int, folder: Path, config: pytest.Config) -> None:
    """One of several: with a guard of its own and, but for the first, a file to print into."""
    syscalls.die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    plugins = config.pluginmanager
    plugins.unregister(plugins.get_plugin("guard"))
    plugins.register(guard.Guard(), "guard")
    capture = plugins.get_plugin("capturemanager")
    reporter = plugins.get_plugin("terminalreporter")
    assert capture
    assert reporter
    if number > 1:
        with _printed(folder, number).open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        reporter.isatty = reporter._tw.hasmarkup = False
    capture.start_global_capturing()
    capture.suspend_global_capture()


def _failed(sharers: Mapping[int, int], folder: Path) -> int:
    """How many of them did not end well, once all have ended and what they printed is shown.

    `sharers` has the number of each process.
    """
    left, codes = dict(sharers), dict.fromkeys(sharers.values(), 0)

    def reap() -> None:
        with suppress(ChildProcessError):
            while left:
                pid, status = os.wait()
                if number := left.pop(pid, 0):
                    codes[number] = os.waitstatus_to_exitcode(status)

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        reap()
    except KeyboardInterrupt:
        # A terminal has told all of them; bin/test, which says that they are to end, only this one.
        only_this_one = (folder / "ended").exists()
        (folder / "ended").touch()
        for pid in left if only_this_one else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        reap()
        raise
    finally:
        for number, code in codes.items():
            if number > 1:
                sys.stdout.write("\n== pytest of what was drawn meanwhile\n")
                with suppress(FileNotFoundError):
                    sys.stdout.write(_printed(folder, number).read_text(errors="replace"))
            if code not in (0, 1, 2):
                sys.stdout.write(f"\npytest, number {number} of {SHARERS}, ended with {code}\n")
        sys.stdout.flush()
    return sum(code != 0 for code in codes.values())


def _printed(folder: Path, number: int) -> Path:
    return folder / f"printed-{number}"


def _run(session: pytest.Session, folder: Path) -> None:
    drawn = _draw(session.items, folder)
    item = next(drawn, None)
    while item is not None:
        # Fixtures that the next one has, too, are kept for it.  But what is drawn while a long one
        # runs would wait for it, be it as long, and nobody else could draw it.
        following = None if _minutes(item) else next(drawn, None)
        if (folder / "ended").exists():
            raise session.Interrupted("told to end")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following or next(drawn, None)


def _draw(items: Sequence[pytest.Item], folder: Path) -> Iterator[pytest.Item]:
    ours: set[str] = set()
    #: Files whose tests build labs.
    building = {item.path for item in items if item.get_closest_marker("sandbox")}

    def longest_first(item: pytest.Item) -> float:
        """What is short comes last, so all processes end at about the same time."""
        if item.get_closest_marker("slow"):
            return -_minutes(item)
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


def _minutes(item: pytest.Item) -> float:
    """How long it takes, where that is said."""
    slow = item.get_closest_marker("slow")
    return float(slow.kwargs.get("minutes", 0)) if slow else 0.0


def _drawn_as(item: pytest.Item) -> str:
    return item.nodeid if item.get_closest_marker("slow") else str(item.path)
