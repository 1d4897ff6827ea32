"""What is kept of what was heard."""

from __future__ import annotations

import socket

import pytest

from tests.support.labs import PATIENCE_S, sandboxed
from xlab.kernel.processes import wait_until
from xlab.lab import capture
from xlab.lab.capture import Capture, Room
from xlab.lab.node import Node


def test_room_is_for_whole_frames_and_has_an_end() -> None:
    room = Room(2 * (9018 + 200))
    jumbo = bytes(9018)
    assert [room.kept(frame) for frame in (jumbo, jumbo, jumbo, b"short")] == [
        jumbo,
        jumbo,
        b"",
        b"",
    ]


def test_of_what_no_link_takes_the_beginning_is_kept() -> None:
    assert Room().kept(bytes(65_000)) == bytes(256)


@sandboxed
def test_frames_without_room_count_as_dropped() -> None:
    """With any, nothing is proved."""
    node = Node("h1")
    node.set_up("lo")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capture, "Room", lambda: Room(1500))
        with Capture(node, "lo") as heard:
            with node.entered():
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for _ in range(20):
                sender.sendto(bytes(58), ("127.0.0.1", 9))
            sender.close()
            wait_until(lambda: heard.dropped > 0, timeout_s=PATIENCE_S, awaited="no room")
    assert 0 < sum(len(frame) + 200 for _, frame in heard.frames) <= 1500
    # Each goes out and comes in.
    assert len(heard.frames) + heard.dropped >= 40
