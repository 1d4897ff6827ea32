"""Who is given up, and when: of whom nothing was heard, by a clock that the test moves."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import cast

from xlab.lab import reachability
from xlab.lab.reachability import ECHO_REPLY, _Pinger

#: Longer than anyone would wait for a test.
_TIMEOUT_S = 60.0
#: Between two looks at the clock: less than the time after which an echo is sent again, and more
#: than half of it, so that nothing is really waited for.
_TICK_S = 0.3


class Answering:
    """A source whose echoes `answer` decides on: True, and the answer is there at once."""

    def __init__(self, targets: int, answer: Callable[[int], bool]) -> None:
        self.waiting = set(range(targets))
        self.asked: list[int] = []
        self._answer = answer
        self.socket, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def send(self, index: int) -> bool:
        self.asked.append(index)
        if self._answer(index):
            self._far.send(bytes([index]))
        return True

    def receive(self) -> bool:
        before = len(self.waiting)
        try:
            while True:
                self.waiting -= set(self.socket.recv(1))
        except BlockingIOError:
            return len(self.waiting) < before

    def close(self) -> None:
        self.socket.close()
        self._far.close()


def left(targets: int, answer: Callable[[int], bool]) -> tuple[set[int], int, float]:
    """Who was given up, how often they were asked, and how long that took by the clock."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += _TICK_S
        return now

    pinger = Answering(targets, answer)
    try:
        reachability._exchange([cast(_Pinger, pinger)], _TIMEOUT_S, 0.0, clock)
        return pinger.waiting, len(pinger.asked), now
    finally:
        pinger.close()


def test_who_answers_is_asked_once() -> None:
    given_up, asked, _ = left(20, lambda _: True)
    assert (given_up, asked) == (set(), 20)


def test_who_never_answers_is_given_up_after_the_time_out() -> None:
    given_up, asked, took_s = left(3, lambda index: index != 1)
    assert given_up == {1}
    assert asked > 3, "it was asked again before"
    assert _TIMEOUT_S <= took_s < 1.5 * _TIMEOUT_S


def test_a_lab_that_gets_on_is_waited_for() -> None:
    """One more of them answers each time round; all in all it takes longer than the time-out."""
    turns = {index: index for index in range(24)}

    def slow(index: int) -> bool:
        turns[index] -= 1
        return turns[index] < 0

    given_up, _, took_s = left(len(turns), slow)
    assert given_up == set()
    assert took_s > _TIMEOUT_S


def test_whoever_sends_without_end_is_not_read_without_end() -> None:
    class Flooded:
        def recvfrom(self, _: int) -> tuple[bytes, tuple[str, int]]:
            header = bytes([0x45]) + bytes(19)
            return header + struct.pack("!BBHHH", ECHO_REPLY, 0, 0, 7, 1), ("10.0.0.1", 0)

    found = reachability.echoes_in(cast(socket.socket, Flooded()), 7)
    assert set(found) == {(ECHO_REPLY, 1)}
