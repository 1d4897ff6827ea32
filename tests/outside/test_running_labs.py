"""Several labs asked at once, of which some answer nothing."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.support.labs import PATIENCE_S
from xlab.outside import running_lab
from xlab.sandbox import registry


def test_whoever_is_interrupted_waits_for_no_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, never = threading.Event(), threading.Event()

    def described(name: str) -> None:
        asked.set()
        never.wait(PATIENCE_S)

    def interrupt() -> None:
        asked.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(registry, "running", lambda: ["busy"])
    monkeypatch.setattr(running_lab, "_described", described)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        running_lab.describe_all()
    assert not never.is_set()
    interrupter.join()
    never.set()


def test_one_that_is_at_work_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of it may keep its controller at work."""
    limits = []

    class Busy:
        def __init__(self, name: str) -> None:
            assert name == "busy"

        def __enter__(self) -> Busy:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def describe(self, limit_s: float) -> dict[str, str]:
            limits.append(limit_s)
            return {"name": "busy"}

    monkeypatch.setattr(registry, "running", lambda: ["busy"])
    monkeypatch.setattr(running_lab, "RunningLab", Busy)
    assert running_lab.describe_all() == [{"name": "busy"}]
    assert limits == [15.0]
