"""Seeing into a lab that stays, as a person does: capture, graph, trace, top."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ET
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


# -- graph -----------------------------------------------------------------------------------------


def test_a_graph_shows_addresses_tunnels_and_mtus(gre: World) -> None:
    said = gre.say("graph")
    assert (said.status, said.stderr) == (0, "")
    h1 = said.stdout.partition("\nh1\n")[2].partition("\nh2\n")[0]
    for expected in (
        "c1    eth0 192.168.1.2/24  MTU 1500",
        "br0   192.168.1.1/24  MTU 1462; bridge",
        "══ h2:obr0  gre0 gre to 192.168.59.104",
        "── wire:s1  s1-eth1",
    ):
        assert expected in h1
    mermaid = gre.say("graph", "--as", "mermaid").stdout
    assert 'n_h1_3a_obr0 ===|"gre0 gre to 192.168.59.104"| n_h2_3a_obr0' in mermaid
    assert mermaid.count("subgraph ") == mermaid.count("\n  end\n") == 3

    assert gre.say("graph", "--output", "lab.svg").stdout == ""
    picture = ET.parse(gre.folder / "lab.svg")
    words = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "192.168.1.1/24 MTU 1462" in words
    assert words.count("s1") == 1
    drawn = picture.findall(".//{http://www.w3.org/2000/svg}path[@class='tunnel']")
    assert len(drawn) == 1


def test_a_graph_as_json_has_both_ends_of_each_link(gre: World) -> None:
    shown = json.loads(gre.say("graph", "--json").stdout)
    devices = {
        f"{node['name']}:{device['name']}": device
        for node in shown["nodes"]
        for device in node["devices"]
    }
    pairs = {name: device["peer"] for name, device in devices.items() if device["peer"]}
    assert {pairs[peer] for peer in pairs.values()} == set(pairs)
    assert pairs["h1:eth0"] == "wire:s1-eth1"
    assert [devices[pairs[c]]["bridge"] for c in ("h1/c1:eth0", "h2/c2:eth0")] == ["br0", "br0"]


def test_a_graph_follows_what_is_done_to_the_lab(gre: World) -> None:
    try:
        assert gre.say("fault", "link", "h2", "down").status == 0
        gre.say("exec", "h1", "--", "ip", "link", "set", "br0", "mtu", "1400")
        broken = gre.say("graph").stdout
    finally:
        gre.say("fault", "link", "h2", "up")
        gre.say("exec", "h1", "--", "ip", "link", "set", "br0", "mtu", "1462")
    assert "fault: link h2 down" in broken
    assert "── wire:s1  s1-eth2  DOWN" in broken
    assert "192.168.1.1/24  MTU 1400" in broken
    assert "DOWN" not in gre.say("graph").stdout
