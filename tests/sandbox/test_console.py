"""What programs print and read while people come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

import xlab.sandbox.console
from tests.support.descriptors import room_for
from tests.support.labs import PATIENCE_S
from xlab.sandbox.console import Console, Stream


@contextmanager
def running(console: Console, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    out, err = console.outputs
    process = subprocess.Popen(
        ["sh", "-c", '[ -z "$1" ] || exec <"$1"; shift; exec "$@"', "sh", console.tty_path, *argv],
        stdin=console.input_end, stdout=out, stderr=err, start_new_session=True,
    )  # fmt: skip
    console.opened()
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        console.ended()


def all_of(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read()


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself is one of them


def test_everybody_attached_sees_all_of_it_each_stream_for_itself() -> None:
    console = Console()
    first, second = console.attach(), console.attach()
    with running(console, ["sh", "-c", "echo said; echo wrong >&2"]):
        for output, errors in (first, second):
            assert (all_of(output), all_of(errors)) == (b"said\n", b"wrong\n")
    assert sorted(console.log()) == [("err", b"wrong\n"), ("out", b"said\n")]


def test_who_leaves_does_not_stop_the_program() -> None:
    console = Console(stdin=True)
    typing, output, errors = console.attach()
    leaver = console.attach()
    with running(console, ["cat"]):
        for descriptor in leaver:
            os.close(descriptor)
        os.write(typing, b"once\n")
        assert os.read(output, 100) == b"once\n"
        os.write(typing, b"again\n")
        assert os.read(output, 100) == b"again\n"
    for descriptor in (typing, output, errors):
        os.close(descriptor)


def test_the_first_ones_end_of_input_is_the_programs() -> None:
    console = Console(stdin=True)
    typing, output, errors = console.attach(once=True)
    with running(console, ["cat"]) as program:
        os.write(typing, b"all\n")
        os.close(typing)
        assert program.wait(PATIENCE_S) == 0
        assert all_of(output) == b"all\n"
    os.close(errors)


def test_who_cannot_attach_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlab.sandbox.console, "_is_crowded", lambda: False)
    console = Console(stdin=True)
    with running(console, ["cat"]) as program:
        before = descriptors()
        # The copy of the input and one pipe; there is no second.
        with room_for(3), pytest.raises(OSError, match="Too many open files"):
            console.attach(once=True)
        assert descriptors() == before
        typing, output, errors = console.attach(once=True)
        os.close(typing)
        assert program.wait(PATIENCE_S) == 0, "its input has ended"
        assert all_of(output) == all_of(errors) == b""


def test_without_standard_input_there_is_nothing_to_read() -> None:
    console = Console()
    output, errors = console.attach()
    with running(console, ["wc", "-c"]):
        assert all_of(output).strip() == b"0"
    os.close(errors)


@pytest.mark.parametrize("tty", [False, True])
def test_what_a_program_leaves_behind_keeps_nobody_waiting(tty: bool) -> None:
    console = Console(tty=tty)
    *_, output, errors = descriptors = console.attach()
    script = "trap '' HUP; sleep 1000 & echo $!; echo last"
    with running(console, ["sh", "-c", script]) as program:
        program.wait(PATIENCE_S)
        console.ended()
        said = all_of(output)
    assert said.split()[-1] == b"last"
    os.kill(int(said.split()[0]), 9)
    os.close(errors)
    for descriptor in descriptors[:-2]:
        os.close(descriptor)


def test_of_the_log_the_end_is_kept() -> None:
    console = Console()
    output, errors = console.attach()
    program = "import sys; sys.stdout.write('x' * 3_000_000 + 'the end')"
    with running(console, [sys.executable, "-c", program]):
        assert len(all_of(output)) == 3_000_007
    kept = b"".join(data for _, data in console.log())
    assert kept.endswith(b"the end")
    assert 900_000 < len(kept) <= 1 << 20
    os.close(errors)


def test_a_terminal_is_one() -> None:
    console = Console(tty=True)
    typing, output, errors = console.attach()
    with running(console, ["sh", "-c", "tty; read line; echo got $line; ps -o tpgid= -p $$"]):
        os.write(typing, b"typed\n")
        lines = all_of(output).replace(b"\r", b"").splitlines()
    assert any(line.startswith(b"/dev/pts/") for line in lines)
    assert b"got typed" in lines
    assert int(lines[-1]) > 0, "it is the controlling terminal"
    for descriptor in (typing, errors):
        os.close(descriptor)


def test_who_comes_too_late_finds_the_end() -> None:
    console = Console()
    with running(console, ["true"]) as program:
        program.wait(PATIENCE_S)
        console.ended()
        assert [all_of(descriptor) for descriptor in console.attach()] == [b"", b""]
        console.ended()


def test_without_a_program_nothing_stays_open() -> None:
    before = descriptors()
    with Console(tty=True) as console:
        console.attach()
    assert descriptors() == before


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("room", range(8))
def test_what_cannot_be_opened_leaves_nothing_open(
    tty: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xlab.sandbox.console, "_is_crowded", lambda: False)
    before = descriptors()
    with room_for(room), suppress(OSError), Console(tty=tty, stdin=True) as console:
        console.attach()
    assert descriptors() == before


@pytest.mark.parametrize("streams", [("out",), ("out", "err")])
def test_its_log_has_an_end_whatever_it_is_printed_in(streams: tuple[Stream, ...]) -> None:
    console = Console()
    tracemalloc.start()
    for number in range(40_000):
        console._tell(streams[number % len(streams)], b"%02d" % (number % 100))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept = b"".join(data for _, data in console.log())
    console.abandon()
    assert kept.endswith(b"979899")
    assert taken < 2 << 20
