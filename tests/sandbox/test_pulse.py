"""Who is stopped, who idle and who at work, of processes of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.labs import PATIENCE_S
from xlab.errors import NoAnswerError
from xlab.kernel.processes import wait_until
from xlab.sandbox.pulse import LOOK_S, Pulse


@contextmanager
def process(code: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", f"import time\nprint('on', flush=True)\n{code}"],
        stdout=subprocess.PIPE,
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == b"on\n"
            yield started.pid
        finally:
            started.kill()


def after(looks: int) -> Callable[[float], bool]:
    """What is there at that look."""
    left = iter(range(looks))

    def ready(seconds: float) -> bool:
        time.sleep(seconds)
        return next(left, None) is None

    return ready


def test_whoever_is_stopped_is_not_waited_for() -> None:
    with process("time.sleep(1000)") as pid, closing(Pulse(pid, "mine")) as pulse:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not pulse.beats(0), timeout_s=PATIENCE_S, awaited="its being stopped")
        said = rf"^lab mine does not answer \(pid {pid}\); `xlab down mine` ends it$"
        with pytest.raises(NoAnswerError, match=said):
            pulse.wait(after(1000))
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: pulse.beats(0), timeout_s=PATIENCE_S, awaited="its going on")
        pulse.wait(after(20))


def test_whoever_is_at_work_may_take_its_time() -> None:
    with process("while True: pass") as pid, closing(Pulse(pid)) as pulse:
        pulse.wait(after(20), idle_s=2 * LOOK_S)
        with pytest.raises(NoAnswerError, match=rf"^the lab does not answer \(pid {pid}\)$"):
            pulse.wait(after(1000), limit_s=2 * LOOK_S)


def test_a_thread_at_work_is_enough() -> None:
    code = (
        "import threading\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "def work():\n    while True: pass\nthreading.Thread(target=work).start()\ntime.sleep(1000)"
    )
    with process(code) as pid, closing(Pulse(pid)) as pulse:
        pulse.wait(after(20), idle_s=4 * LOOK_S)


def test_whoever_sleeps_has_nothing_to_say() -> None:
    with process("time.sleep(1000)") as pid, closing(Pulse(pid)) as pulse:
        with pytest.raises(NoAnswerError):
            pulse.wait(after(1000), idle_s=4 * LOOK_S)
        pulse.wait(after(20))


def test_of_whoever_is_not_to_be_seen_only_its_silence_is_known() -> None:
    with closing(Pulse(0)) as pulse:
        pulse.wait(after(20))
        with pytest.raises(NoAnswerError, match=r"^the lab does not answer$"):
            pulse.wait(after(1000), idle_s=4 * LOOK_S)
