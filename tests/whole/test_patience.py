"""What waits for the kernel is given time, and told of; what merely takes long is not."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.labs import sandboxed
from xlab.errors import CommandError
from xlab.inside import build
from xlab.kernel import capabilities, patience, processes, syscalls, trial
from xlab.kernel.netlink import Rtnl
from xlab.kernel.patience import Look, announcing, is_held_up
from xlab.kernel.processes import wait_until

pytestmark = pytest.mark.sandbox

TIMEOUT_S, LONGER_S = 1.0, 2.5

#: Whoever starts a process by vfork(2) sleeps uninterruptibly until that has let go of its memory:
#: a stand-in for the kernel's own work, if nobody asks where in the kernel it sleeps.
_HOLD_UP = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
CLONE_VFORK, SIGCHLD, SIZE = 0x4000, 17, 1 << 16
def hold_up(seconds):
    stack = ctypes.create_string_buffer(SIZE)
    top = ctypes.c_void_p((ctypes.addressof(stack) + SIZE) & ~15)
    libc.clone(libc.usleep, top, CLONE_VFORK | SIGCHLD, ctypes.c_void_p(int(seconds * 1e6)))
"""
_HELD_UP = f"{_HOLD_UP}\nhold_up({LONGER_S})"


@pytest.fixture
def vfork_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_VFORK", frozenset())


@pytest.mark.usefixtures("vfork_stands_in")
@sandboxed
def test_a_program_is_not_ended_for_what_the_kernel_takes() -> None:
    told: list[Any] = []
    with build.waiting_told(told.append):
        outlives_its_time([sys.executable, "-c", _HELD_UP])
    assert [event["kind"] for event in told] == ["note"]
    assert "s for the kernel" in told[0]["text"]


@pytest.mark.usefixtures("vfork_stands_in")
@sandboxed
def test_nor_for_what_it_takes_of_a_child() -> None:
    outlives_its_time(["sh", "-c", f'"{sys.executable}" -c "$0"; exit 0', _HELD_UP])


def outlives_its_time(argv: list[str]) -> None:
    """From the moment at which it is held up, a program has less time than that takes."""
    program = processes.spawn(argv, node="lab")
    wait_until(lambda: is_held_up(program.pid), timeout_s=30, awaited="a program to be held up")
    assert program.wait(TIMEOUT_S) == 0


@sandboxed
def test_a_program_that_takes_too_long_by_itself_is_ended() -> None:
    told: list[Any] = []
    for argv in (["sleep", "60"], [sys.executable, "-c", f"{_HOLD_UP}\nhold_up(60)"]):
        with pytest.raises(CommandError, match=r"1 s"), build.waiting_told(told.append):
            processes.run(argv, node="lab", timeout_s=TIMEOUT_S)
    assert told == []


@pytest.mark.usefixtures("vfork_stands_in")
def test_namespaces_that_the_kernel_makes_late_are_no_missing_capability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: dict[str, Any] = {}
    exec(_HOLD_UP, names)
    unshare = syscalls.unshare

    def late(flags: int) -> None:
        names["hold_up"](LONGER_S)
        unshare(flags)

    monkeypatch.setattr(syscalls, "unshare", late)
    monkeypatch.setattr(trial, "LIMIT_S", TIMEOUT_S)
    said: list[str] = []
    with announcing(said.append):
        machine = capabilities.probe()
    assert machine.namespaces.usable, machine.namespaces
    assert machine.waited_s > LONGER_S - 1
    assert [text.partition(":")[0] for text in said] == ["waiting for the kernel"]


def test_namespaces_that_are_not_made_in_time_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "look_at", lambda _: Look())
    monkeypatch.setattr(trial, "LIMIT_S", 0.0)
    machine = capabilities.probe()
    assert machine.namespaces.detail == "making namespaces did not end within 0 s"
    assert trial.try_sandbox(rootless=False, overlay=False).errno == errno.ETIMEDOUT


@pytest.mark.slow
def test_whoever_comes_after_a_large_lab_is_told(
    tmp_path: Path, in_sandbox: Callable[[Callable[[], Any]], Any]
) -> None:
    """The kernel frees 500 bridges for some 8 s."""

    def make_bridges() -> None:
        with Rtnl().batch() as batch:
            for number in range(500):
                batch.add_bridge(f"br{number}")

    in_sandbox(make_bridges)
    with Command("doctor", folder=tmp_path) as command:
        ended = command.end()
        assert command.complaints().startswith("xlab: waiting for the kernel: ")
    assert ended.stdout.startswith("✓ labs ")
