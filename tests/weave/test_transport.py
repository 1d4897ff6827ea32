"""Sockets under the router: real ones, connected in pairs, in the real loop."""

from __future__ import annotations

import argparse
import errno
import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.weave_world import Member, World
from xlab.errors import XlabError
from xlab.weave import transport
from xlab.weave.__main__ import Log, parse_options
from xlab.weave.fastdp import FastdpEquivalent
from xlab.weave.targets import Address, parse_address
from xlab.weave.timers import Timers
from xlab.weave.transport import Backlogs, Loop, TcpStream, Transport


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop(Timers(time.monotonic), FastdpEquivalent())) as loop:
        yield loop


def at(text: str) -> Address:
    ip, port = parse_address(text)
    return Address(ip, port or 0)


def turn_until(loop: Loop, condition: Callable[[], bool]) -> None:
    """Run the loop until something has happened; five seconds are for ever."""
    gave_up = loop.timers.after(5.0, lambda: None)
    while not condition():
        assert gave_up.pending, "it does not happen"
        loop.turn()
    gave_up.cancel()


def attach(
    loop: Loop, member: Member, backlogs: Backlogs | None = None
) -> tuple[TcpStream, socket.socket]:
    """A stream of a router, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = TcpStream(loop, ours, backlogs or Backlogs())
    connection = member.control.accepted(stream, at("10.0.9.9:50000"))
    assert connection is not None
    stream.attach(member.control, connection)
    return stream, theirs


def test_what_comes_in_reaches_the_router_and_its_answers_go_out(loop: Loop) -> None:
    (member,) = World().routers(1)
    _, far = attach(loop, member)
    with far:
        far.sendall(b"weave\1\2\1")
        turn_until(loop, lambda: bool(member.log))
        assert far.recv(100) == b"weave\1\2\0"
        # Having refused, it hangs up.
        assert far.recv(100) == b""
    assert "wants encryption" in member.log[0]


def test_a_long_message_goes_out_in_pieces(loop: Loop) -> None:
    (member,) = World().routers(1)
    stream, far = attach(loop, member)
    with far:
        far.setblocking(False)
        message = bytes(range(256)) * 8000
        stream.write(message)
        stream.write(b"the end")
        received = bytearray()

        def arrived() -> bool:
            try:
                received.extend(far.recv(1 << 20))
            except BlockingIOError:
                pass
            return received.endswith(b"the end")

        turn_until(loop, arrived)
        assert bytes(received) == b"weave\1\2" + message + b"the end"
        stream.close()


def test_who_does_not_read_is_hung_up_on(loop: Loop) -> None:
    (member,) = World().routers(1)
    stream, far = attach(loop, member)
    with far:
        for _ in range(30):
            stream.write(bytes(1 << 20))
        turn_until(loop, lambda: member.control.counters["dropped"] == 1)
        # What is written afterwards goes nowhere, and hurts nobody.
        stream.write(b"more")


def test_those_who_do_not_read_take_a_bounded_room_together(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_ALL_BACKLOGS_BYTES", 8 << 20)
    (member,) = World().routers(1)
    backlogs = Backlogs()
    ends = [attach(loop, member, backlogs) for _ in range(10)]
    streams = [stream for stream, _ in ends]
    for size in (1, 3, 2, 1):
        for stream in streams:
            # As gossip goes out: to all of them, before the loop has a turn.
            stream.write(bytes(size << 20))
            assert sum(len(stream._unsent) for stream in streams) <= 8 << 20
    assert member.control.counters["dropped"] == 0
    turn_until(loop, lambda: member.control.counters["dropped"] > 0)
    # No more than had to.
    left = sum(len(stream._unsent) for stream in streams)
    assert 4 << 20 < left <= 8 << 20
    # Who reads then has room again.
    reading = next(stream for stream in streams if not stream._closed)
    far = ends[streams.index(reading)][1]
    turn_until(loop, lambda: bool(far.recv(1 << 20)) and not reading._unsent)
    assert sum(backlogs._bytes.values()) == sum(len(stream._unsent) for stream in streams) < left
    for stream, far in ends:
        stream.close()
        far.close()


def test_a_peer_that_hangs_up_is_gone(loop: Loop) -> None:
    (member,) = World().routers(1)
    _, far = attach(loop, member)
    far.close()
    turn_until(loop, lambda: member.control.counters["dropped"] == 1)
    assert member.log == []


def test_a_port_that_is_taken_is_named(loop: Loop) -> None:
    loopback = parse_address("127.0.0.1")[0]
    with transport.listen(loopback, 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(XlabError, match=f"TCP 127.0.0.1:{port}: Address already in use"):
            transport.listen(loopback, port)


def test_a_file_closed_by_another_is_not_called(loop: Loop) -> None:
    """Both are ready in the same turn; whoever comes first closes the other."""
    calls = []
    pairs = [socket.socketpair() for _ in range(2)]
    for number, (ours, theirs) in enumerate(pairs):
        other = pairs[1 - number][0]

        def ready(_: int, number: int = number, other: socket.socket = other) -> None:
            calls.append(number)
            loop.unwatch(other)
            other.close()

        loop.watch(ours, 1, ready)
        theirs.send(b"x")
    loop.turn()
    assert len(calls) == 1
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_without_a_descriptor_left_an_attempt_to_dial_fails_and_is_made_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member,) = World().routers(1)
    with closing(Transport(loop, bind=parse_address("127.0.0.1")[0], port=0)) as sockets:
        control = sockets.router = member.control
        monkeypatch.setattr(control, "_dial", sockets.dial)
        with monkeypatch.context() as exhausted:
            exhausted.setattr(socket, "socket", no_descriptor)
            control.connect([parse_address("127.0.0.9:6783")])
            member.world.run(1.0)
        assert control.counters["dials_failed"] == control.counters["dialled"] > 1
        (target,) = control.targets.unconnected
        assert target.error == "Too many open files"
        assert target.try_at_s is not None


def no_descriptor(*_: object) -> socket.socket:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_listener_without_descriptors_to_give_rests(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(24, "Too many open files")

    with Exhausted() as listener:
        loop.watch(listener, 1, lambda _: None)
        assert transport.accept(loop, listener) is None
        loop.unwatch(listener)  # while it rests this is nothing to do
        assert loop.timers.next_at_s() is not None


# -- the command line ------------------------------------------------------------------------------


def test_options() -> None:
    options = parse_options(
        ["--name", "7a:00:00:00:00:01", "--nickname", "h1", "10.0.0.2", "10.0.0.3:7000"]
    )
    assert options.name.hex() == "7a0000000001"
    assert [str(ip) for ip, _ in options.peers] == ["10.0.0.2", "10.0.0.3"]
    assert (options.datapath, options.tap, options.port) == ("sleeve", "weave0", 6783)
    assert isinstance(options, argparse.Namespace)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--name", "h1"], "not a peer name: 'h1'"),
        (["--bind", "nowhere"], "Expected 4 octets"),
        (["--datapath", "ovs"], "invalid choice"),
        (["peer"], "not an IPv4 address: 'peer'"),
    ],
)
def test_options_that_make_no_sense(
    changed: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(["--name", "7a:00:00:00:00:01", "--nickname", "h1", *changed])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_the_log_is_short_whatever_happens(capfd: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    log = Log("h1", lambda: now_s[0])
    for number in range(1000):
        log.write(f"trouble {number}\n\x1b")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "weave h1: trouble 0??"
    now_s[0] = 1.5
    log.write("and more")
    assert capfd.readouterr().err == "weave h1: and more (980 lines omitted)\n"


WORDS = st.sampled_from(
    ["--name", "7a:00:00:00:00:01", "--nickname", "h1", "--port", "6783", "99999999", "-1",
     "--bind", "10.0.0.1", "--datapath", "sleeve", "fastdp", "--tap", "--status-port", "nan", "--"]
) | st.text(max_size=6)  # fmt: skip


@given(st.lists(WORDS, max_size=9))
@example(["--name", "7a:00:00:00:00:01", "--nickname", "h1", "--port", "99999999"])
@example(["--name", "7a:00:00:00:00:01", "--nickname", "h1", "--status-port", "1" * 5000])
def test_any_options_of_the_program_are_understood_or_wrong_usage(words: list[str]) -> None:
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        try:
            options = parse_options(words)
        except SystemExit as ended:
            assert ended.code in {0, 2}  # noqa: PT017 - the other end is below
            return
    assert 0 <= options.port < 65536
    assert 0 <= options.status_port < 65536
    assert len(options.name) == 6
