"""What every test has: skips that name the missing capability, a sandbox to tell stories in."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import guard, recoveries
from tests.support.labs import run_in_sandbox, why_no_open_vswitch, why_no_sandbox
from tests.support.ordinary import ordinary_user

# How long an example takes says more about the machine than about the code; and a checkout may be
# somebody else's, with no place for a database.  What passed once passes again: the same examples
# each time.  `bin/test --all` takes others each time, and many (--hypothesis-profile).
hypothesis.settings.register_profile(
    "fast", max_examples=25, derandomize=True, deadline=None, database=None
)
hypothesis.settings.register_profile(
    "long",
    max_examples=500,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fast")

# A shell's background jobs ignore Ctrl-C, and what nohup starts the end of its terminal; so would
# every command that a test tells of either.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(guard.Guard(), "guard")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("sandbox"):
        missing = why_no_sandbox()
        if missing:
            pytest.skip(missing)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    told = recoveries.table(terminalreporter.getreports("passed"))
    if told:
        terminalreporter.section("recovery from faults")
        for line in told:
            terminalreporter.write_line(line)


@pytest.fixture
def in_sandbox() -> Callable[[Callable[[], Any]], Any]:
    """Runs a function as part of a fresh sandbox's pid 1; its result comes back as JSON would."""
    return run_in_sandbox


@pytest.fixture
def below_tmp() -> Iterator[Path]:
    """A folder that a lab hides unless it is to keep it; `tmp_path` may be elsewhere (TMPDIR)."""
    with tempfile.TemporaryDirectory(prefix="xlab-test-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def open_vswitch() -> None:
    """Skips where no Open vSwitch can run."""
    missing = why_no_open_vswitch()
    if missing:
        pytest.skip(missing)


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """What to start Python with so that an ordinary user runs it, and a folder that is theirs."""
    with ordinary_user(tmp_path) as user:
        yield user


@pytest.fixture(scope="module")
def same_charts_drawn_once() -> Iterator[None]:
    """For tests of what is around charts: one that was drawn before is taken as it was.

    Most of the time of making a page is matplotlib's, and the same chart is drawn the same
    (tests/report/test_charts.py).
    """
    from tests.support import drawn

    with pytest.MonkeyPatch.context() as patch:
        drawn.once(patch)
        yield
