"""Seeing into a lab that stays, as a person does: capture, graph, trace, top."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.test_standing import World, usual_signals
from tests.support import PATIENCE_S, why_no_open_vswitch
from xlab.packets import decode
from xlab.processes import wait_until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed"),
]

#: A fixture.
__all__ = ["usual_signals"]

OTHER_SIDE = "192.168.2.2"


@pytest.fixture(scope="module")
def gre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which ovs-gre stands, for all who leave it as it was."""
    missing = why_no_open_vswitch()
    if missing:
        pytest.skip(missing)
    made = World(None, tmp_path_factory.mktemp("seeing"))
    try:
        up = made.say("up", "ovs-gre")
        assert (up.status, up.stderr) == (0, "")
        yield made
    finally:
        made.close()


# -- capture ---------------------------------------------------------------------------------------


def ping_while(world: World, running: subprocess.Popen[str]) -> None:
    """Ping from c1 to the other host's until a program has ended."""

    def over() -> bool:
        world.say("exec", "h1/c1", "--", "ping", "-n", "-c1", "-W1", OTHER_SIDE)
        return running.poll() is not None

    wait_until(over, timeout_s=PATIENCE_S, awaited="the end of the capture")


def blocks(content: bytes) -> list[tuple[int, bytes]]:
    """The kinds and bodies of a pcapng file's blocks; the length stands at both ends of each."""
    found, start = [], 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        assert size == struct.unpack_from("<I", content, start + size - 4)[0]
        found.append((kind, content[start + 8 : start + size - 4]))
        start += size
    return found


def test_what_is_captured_is_kept_as_pcapng(gre: World) -> None:
    running = gre.start(
        "capture", "wire:s1-eth1", "--write", "f.pcapng", "--count", "2", "--", "proto 47"
    )
    ping_while(gre, running)
    assert running.returncode == 0
    assert running.communicate()[0] == ""
    kinds = blocks((gre.folder / "f.pcapng").read_bytes())
    assert [kind for kind, _ in kinds] == [0x0A0D0D0A, 1, 6, 6]
    assert b"wire:s1-eth1" in kinds[1][1]
    for _, body in kinds[2:]:
        (size,) = struct.unpack_from("<12xI", body)
        assert decode(body[20 : 20 + size]).encapsulation == "gre"
    read = subprocess.run(
        ["tcpdump", "-n", "-r", str(gre.folder / "f.pcapng")],
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert read.stdout.count("GREv0") == 2


def test_a_pipe_gets_pcap(gre: World) -> None:
    running = gre.start("capture", "h1/c1:eth0", "-c", "2", "--", "icmp")
    reading = subprocess.Popen(
        ["tcpdump", "-n", "-r", "-"],
        stdin=running.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    ping_while(gre, running)
    read, _ = reading.communicate(timeout=PATIENCE_S)
    running.communicate()
    assert running.returncode == 0
    assert f"192.168.1.2 > {OTHER_SIDE}: ICMP echo request" in read


def test_a_terminal_shows_what_passes_until_it_is_interrupted(gre: World) -> None:
    with gre.terminal([*gre.xlab, "capture", "h1/c1:eth0", "--", "icmp"]) as terminal:
        terminal.expect("listening on eth0")
        gre.say("exec", "h1/c1", "--", "ping", "-n", "-c1", OTHER_SIDE)
        terminal.expect(f"192.168.1.2 > {OTHER_SIDE}: ICMP echo request")
        terminal.type("\x03")
        status, rest = terminal.end()
    assert (status, "packets captured" in rest) == (0, True)


def test_a_capture_ends_when_its_time_is_over(gre: World) -> None:
    said = gre.say("capture", "h1:eth0", "-w", "f.pcap", "--duration", "0.1")
    assert (said.status, "0 packets captured" in said.stderr) == (0, True)


def test_a_capture_says_what_is_not_there(gre: World) -> None:
    said = gre.say("capture", "h1:eth7")
    assert (said.status, "eth7: No such device" in said.stderr) == (1, True)
    (gre.folder / "kept").write_text("mine")
    said = gre.say("capture", "h7:eth0", "--write", "kept")
    assert (said.status, "no node is called 'h7'" in said.stderr) == (2, True)
    assert (gre.folder / "kept").read_text() == "mine"
