"""How long a guest may take: what it waits for a processor does not count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xlab.guest.view import ends_within


@pytest.mark.slow
def test_a_guest_that_lacks_a_processor_has_its_time_all_the_same() -> None:
    busy = "while True: pass"
    work = "import time\nwhile time.process_time() < 1: pass"
    with running(busy), running(busy), running(busy), running(work) as guest:
        assert ends_within(guest, 2)  # by the clock it takes four


def test_a_guest_that_does_nothing_has_no_more_than_its_limit() -> None:
    with running("import time; time.sleep(1000)") as guest:
        assert not ends_within(guest, 0.5)


@contextmanager
def running(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """In Python, on the same processor as all of them."""
    pinned = f"import os\nos.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n{program}"
    process = subprocess.Popen([sys.executable, "-c", pinned])
    try:
        yield process
    finally:
        process.kill()
        process.wait()
