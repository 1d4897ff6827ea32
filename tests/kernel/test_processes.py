"""Programs that cannot be started, or are and cannot be handed over: nothing is left of them."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.descriptors import room_for
from tests.support.labs import all_pids, sandboxed
from xlab.errors import CommandError
from xlab.kernel import processes
from xlab.kernel.namespaces import Namespaces, entered
from xlab.kernel.processes import spawn
from xlab.lab.node import Node


def no_room_for_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("/ns/pid"):
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opened)


def no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def left_in_vain(namespaces: Namespaces) -> Iterator[None]:
        with entered(namespaces):
            yield
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(processes, "entered", left_in_vain)


@pytest.mark.parametrize("fails", [no_room_for_its_namespace, no_way_back])
@sandboxed
def test_a_program_that_cannot_be_handed_over_is_ended_and_closes_its_own_files_alone(
    fails: Callable[[pytest.MonkeyPatch], None],
) -> None:
    node = Node("h1")
    before = len(descriptors())
    with pytest.MonkeyPatch.context() as monkeypatch:
        fails(monkeypatch)
        with pytest.raises(CommandError) as met:
            spawn(
                ["sleep", "1000"],
                node="h1",
                namespaces=node.namespaces,
                new_pid_namespace=True,
            )
    assert met.value.returncode == 126
    assert not any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in all_pids())
    # Another thread gets the lowest numbers that are free, and they stay its own.
    others = [os.dup(0) for _ in range(8)]
    del met
    gc.collect()
    for descriptor in others:
        os.close(descriptor)
    assert len(descriptors()) == before


@sandboxed
def test_what_cannot_be_started_for_want_of_descriptors_leaves_none_open() -> None:
    node = Node("h1")
    before = descriptors()
    for room in range(5):
        with room_for(room), pytest.raises((OSError, CommandError), match="Too many open files"):
            spawn(["true"], node="h1", namespaces=node.namespaces, stdin=b"typed")
        gc.collect()
        assert descriptors() == before


def descriptors() -> list[str]:
    """All that this process has open."""
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself is one of them
