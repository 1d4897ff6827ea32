"""Seeing into a lab that stays, as a person does: capture, graph, trace, top."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import on_a_disk
from tests.support.labs import PATIENCE_S, machine, why_no_open_vswitch
from tests.support.world import World, ordinary_world, usual_signals, world
from xlab.kernel.packets import decode
from xlab.kernel.processes import wait_until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed"),
]

#: Fixtures.
__all__ = ["ordinary_world", "usual_signals", "world"]

OTHER_SIDE = "192.168.2.2"

#: To mount it an ordinary user needs a user namespace, and from there none may enter their lab.
own_disk = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")


@pytest.fixture(scope="module")
def gre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which ovs-gre stands, for all who leave it as it was."""
    with standing("ovs-gre", why_no_open_vswitch(), tmp_path_factory.mktemp("gre")) as made:
        yield made


@pytest.fixture(scope="module")
def weave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same of weave, by sleeve."""
    missing = "" if machine().tun.usable else machine().tun.detail
    with standing("weave", missing, tmp_path_factory.mktemp("weave")) as made:
        yield made


@contextmanager
def standing(scenario: str, missing: str, folder: Path) -> Iterator[World]:
    if missing:
        pytest.skip(missing)
    made = World(None, folder)
    try:
        up = made.say("up", scenario)
        assert (up.status, up.stderr) == (0, "")
        yield made
    finally:
        made.close()


# -- names that people give to interfaces ----------------------------------------------------------

#: No UTF-8; what a terminal obeys; ends of lines to Python; markup of ours, of JSON, XML, Mermaid.
ODD = [b"\xff\xfe", b"\x1b]0;x\x07", b"a\x1cb\xc2\x85", b"[red]", b'<b>&"', b"\\n$(x)`"]


@pytest.mark.slow
def test_an_interface_may_have_any_name(gre: World) -> None:
    names = [os.fsdecode(name) for name in ODD]
    add = 'for name; do ip link add "$name" type bridge; ip link set "$name" up; done'
    added = gre.say("exec", "h1", "--", "sh", "-c", f"{add}; ip addr add 10.9.9.9/24 dev $1", "sh",
                    *names)  # fmt: skip
    assert (added.status, added.stderr) == (0, "")
    try:
        drawing = gre.folder / "odd.svg"
        for command in (
            ["ps"], ["graph"], ["graph", "--as", "mermaid"], ["graph", "-o", str(drawing)],
            ["top", "--once"], ["trace", "h1/c1", "h2/c1"], ["trace", "h1", "10.9.9.10"],
            ["fault"], ["exec", "h1", "--", "systemctl", "is-active", "docker"],
        ):  # fmt: skip
            said = gre.say(*command)
            assert said.status == int(command[-1] == "10.9.9.10"), (command, said)
            assert said.stderr == ""
            assert "\x1b" not in said.stdout
            if command in (["ps"], ["graph"]):
                assert r"\xff\xfe" in said.stdout
        ET.parse(drawing)
        (lab,) = gre.labs()
        (h1,) = (node for node in lab["nodes"] if node["name"] == "h1")
        assert h1["addresses"][names[0]] == "10.9.9.9/24"
        nodes = json.loads(gre.say("graph", "--json").stdout)["nodes"]
        assert set(names) <= {device["name"] for device in nodes[0]["devices"]}
    finally:
        remove = 'for name; do ip link del "$name"; done'
        gre.say("exec", "h1", "--", "sh", "-c", remove, "sh", *names)


def test_what_a_host_has_in_the_place_of_a_tool_is_told(gre: World) -> None:
    """Garbage, and what is nearly right."""
    replace = 'printf "%s" "$1" >/tmp/tool; chmod +x /tmp/tool; mount --bind /tmp/tool {}'
    tool = gre.say("exec", "h1", "--", "sh", "-c", "command -v ovs-vsctl").stdout.strip()
    table = '{"data": [["br", ["uuid", "x"]]]}'
    try:
        for said in ("\033[31m", f"{table}\\n{table}\\n{table}", "[" * 5000):
            script = f"#!/bin/sh\nprintf '{said}'\n"
            made = gre.say("exec", "h1", "--", "sh", "-c", replace.format(tool), "sh", script)
            assert (made.status, made.stderr) == (0, "")
            shown = gre.say("graph")
            assert (shown.status, shown.stderr) == (0, ""), said
            assert "h1  Open vSwitch says what cannot be read" in shown.stdout
            gre.say("exec", "h1", "--", "umount", tool)
    finally:
        gre.say("exec", "h1", "--", "sh", "-c", f"while umount {tool}; do :; done")


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
    assert (status, "captured" in rest) == (0, True)


def test_a_terminal_shows_what_is_inside_of_sleeve(weave: World) -> None:
    argv = [*weave.xlab, "capture", "wire:s1-eth1", "--", "udp", "port", "6783"]
    with weave.terminal(argv, size=(40, 200)) as terminal:
        terminal.expect("listening on s1-eth1")
        weave.say("exec", "h1/c1", "--", "ping", "-n", "-c1", "192.168.1.2")
        # As tcpdump tells it, and beneath what it cannot tell.
        terminal.expect("10.211.55.3.6783 > 10.211.55.4.6783: UDP, length 118")
        terminal.expect("sleeve h1 > h2: ")
        terminal.expect("192.168.1.10 > 192.168.1.2: ICMP echo request, id")
        assert "0x0000: " not in terminal.expect("sleeve h2 > h1: ")
        terminal.expect("192.168.1.2 > 192.168.1.10: ICMP echo reply")
        terminal.type("\x03")
        status, rest = terminal.end()
    assert (status, "captured" in rest) == (0, True)


@own_disk
@pytest.mark.parametrize("name", [pytest.param("full.pcap", marks=pytest.mark.slow), "full.pcapng"])
def test_a_full_disk_is_told_and_every_packet_on_it_is_whole(gre: World, name: str) -> None:
    disk = on_a_disk("size=4k", then=f"cp disk/{name} .")
    running = start(gre, disk, "capture", "h1/c1:eth0", "-w", f"disk/{name}", "--", "icmp")
    ping_while(gre, running)
    _, errors = running.communicate()
    assert running.returncode == 1
    said = [line for line in errors.splitlines() if not line.startswith("tcpdump: listening")]
    assert [line for line in said if not line[:1].isdigit()] == [
        f"xlab: disk/{name}: No space left on device"
    ]
    read = subprocess.run(
        ["tcpdump", "-n", "-r", str(gre.folder / name)],
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert read.stdout.count("ICMP echo") > 10
    assert "truncated" not in read.stderr


@own_disk
def test_a_disk_that_cannot_be_written_to_is_told_before_anything_is_captured(gre: World) -> None:
    disk = on_a_disk("ro")
    running = start(gre, disk, "capture", "h1/c1:eth0", "-w", "disk/kept.pcap")
    assert running.communicate(timeout=PATIENCE_S)[1] == (
        "xlab: disk/kept.pcap: Read-only file system\n"
    )
    assert running.returncode == 1


def test_a_reader_of_a_capture_that_has_read_enough(gre: World) -> None:
    running = gre.start("capture", "h1/c1:eth0", "--", "icmp")
    assert running.stdout is not None
    assert os.read(running.stdout.fileno(), 1)
    running.stdout.close()
    ping_while(gre, running)
    assert "xlab:" not in running.communicate()[1]
    assert running.returncode == 128 + signal.SIGPIPE


def start(world: World, prefix: list[str], *arguments: str) -> subprocess.Popen[str]:
    inside = world.xlab.index("--") + 1
    return subprocess.Popen(
        [*world.xlab[:inside], *prefix, *world.xlab[inside:], *arguments],
        cwd=world.folder, env=world.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_capture_ends_when_its_time_is_over(gre: World) -> None:
    # Neighbours that were pinged are asked for some seconds later (delay_first_probe_time, arp(7)).
    nothing = ["--", "udp", "port", "9"]
    said = gre.say("capture", "h1:eth0", "-w", "f.pcap", "--duration", "0.05", *nothing)
    assert (said.status, "0 packets captured" in said.stderr) == (0, True), said


def test_a_capture_is_not_the_hosts_to_make(gre: World) -> None:
    """Whoever is root in it may put anything in the place of its tcpdump."""
    write = "printf '#!/bin/sh\\nsleep 1000 & echo lies\\n' >/tmp/liar; chmod +x /tmp/liar"
    bind = f"{write}; mount --bind /tmp/liar $(command -v tcpdump)"
    shell = ["exec", "h1", "--", "sh", "-ec"]
    with broken(gre, [[*shell, bind]], [[*shell, "umount $(command -v tcpdump)"]]):
        said = gre.say("capture", "h1:eth0", "-w", "f.pcap", "--duration", "0.05")
    assert (said.status, " captured" in said.stderr, said.stdout) == (0, True, "")


def test_a_capture_says_what_is_not_there(gre: World) -> None:
    said = gre.say("capture", "h1:etho0")
    assert said.status == 2
    assert re.search(
        r"h1 has no interface 'etho0': there are .*, br0, .*; did you mean eth0\?", said.stderr
    )
    said = gre.say("capture", "wire:s1eth1")
    assert (said.status, "did you mean s1-eth1?" in said.stderr) == (2, True)
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
    drawn = picture.findall(".//{http://www.w3.org/2000/svg}path[@class='p-tunnel']")
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


def test_a_graph_leaves_out_tunnels_that_the_kernel_put_there(gre: World) -> None:
    """gre0, gretap0, sit0, …, where their modules are loaded; here one of their names will do."""

    def do(command: str) -> None:
        done = gre.say(*inside("h1", command))
        assert done.status == 0, done

    if "sit0" in gre.say(*inside("h1", "ip -o link")).stdout:
        pytest.skip("it is the kernel's own here")
    do("ip link add sit0 type bridge")
    try:
        assert "sit0" not in gre.say("graph").stdout
        do("ip address add 10.9.9.9/24 dev sit0")
        assert "sit0" in gre.say("graph").stdout
    finally:
        do("ip link del sit0")


# -- trace -----------------------------------------------------------------------------------------


def traced(world: World, source: str, target: str, status: int) -> dict[str, Any]:
    said = world.say("trace", source, target, "--json")
    assert (said.status, said.stderr) == (status, "")
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def way(hops: list[dict[str, Any]]) -> list[str]:
    """Where it was seen; a host's ends of veths have names of their own each time."""
    return [
        f"{hop['node']}:{hop['device'] if hop['device'][:4] != 'veth' else 'veth'}"
        f" {'out' if hop['outgoing'] else 'in'}"
        for hop in hops
    ]


@contextmanager
def broken(world: World, breaking: list[list[str]], mending: list[list[str]]) -> Iterator[None]:
    try:
        for order in breaking:
            done = world.say(*order)
            assert done.status == 0, done
        yield
    finally:
        # What comes next finds all that it needs among its neighbours.
        for order in [*mending, ["fault", "--wait"]]:
            done = world.say(*order)
            assert done.status == 0, done


def inside(node: str, command: str) -> list[str]:
    return ["exec", node, "--", *command.split()]


def test_a_packet_is_followed_through_the_tunnel(gre: World) -> None:
    found = traced(gre, "h1/c1", "h2/c1", 0)
    # In user space Open vSwitch takes it from obr0 to the cable by itself.
    seen_by_kernel = machine().ovs_datapath.live
    assert way(found["there"]) == [
        "h1/c1:eth0 out", "h1:veth in", "h1:br0 in", "h1:br0 out", "h1:obr0 out",
        *(["h1:gre_sys out", "h1:eth0 out"] if seen_by_kernel else []),
        "wire:s1-eth1 in", "wire:s1-eth2 out",
        *(["h2:eth0 in", "h2:gre_sys in"] if seen_by_kernel else []),
        "h2:obr0 in", "h2:br0 in", "h2:br0 out", "h2:veth out", "h2/c1:eth0 in",
    ]  # fmt: skip
    assert way(found["back"])[0] == "h2/c1:eth0 out"
    assert way(found["back"])[-1] == "h1/c1:eth0 in"
    times = [hop["time_us"] for hop in found["there"]]
    assert times == sorted(times)
    around = {
        step.rpartition(" ")[0]: (hop["encapsulation"], hop["outer"])
        for step, hop in zip(way(found["there"]), found["there"], strict=True)
    }
    assert around["wire:s1-eth1"] == ("gre", ["192.168.59.103", "192.168.59.104"])
    assert around["h1:obr0"] == around["h2/c1:eth0"] == ("none", None)
    decided = {f"{hop['node']}:{hop['device']}": hop["decision"] for hop in found["there"]}
    assert decided["h1/c1:eth0"].startswith("route: 192.168.2.2 via 192.168.1.1 dev eth0")
    assert decided["h1:obr0"] == (
        "obr0 ofproto/trace: NORMAL, forwarding to learned port, gre0 gre to 192.168.59.104"
    )
    assert decided["wire:s1-eth1"] == "s1 fdb: 02:00:00:00:00:02 dev s1-eth2"
    shown = gre.say("trace", "h1/c1", "h2/c1").stdout
    assert "gre 192.168.59.103 > 192.168.59.104" in shown
    assert "✓ arrived, and its answer came back" in shown


def test_a_packet_is_followed_through_weaves_routers(weave: World) -> None:
    found = traced(weave, "h1/c1", "h2/c1", 0)
    around = {hop["node"]: (hop["encapsulation"], hop["peers"]) for hop in found["there"]}
    assert around["wire"] == ("sleeve", ["h1", "h2"])
    assert around["h1/c1"] == around["h2/c1"] == ("none", None)
    decided = {f"{hop['node']}:{hop['device']}": hop["decision"] for hop in found["there"]}
    assert decided["h1:weave0"] == "weave router: to h2, by sleeve"
    shown = weave.say("trace", "h1/c1", "h2/c1").stdout
    assert "sleeve h1 > h2, 10.211.55.3 > 10.211.55.4" in shown
    assert "sleeve h2 > h1, 10.211.55.4 > 10.211.55.3" in shown


def test_a_router_that_passes_it_on_is_on_the_way(world: World) -> None:
    if not machine().tun.usable:
        pytest.skip(machine().tun.detail)
    up = world.say("up", "weave", "--hosts", "3", "--empty")
    assert (up.status, up.stderr) == (0, ""), up
    apart = "iptables -I INPUT -p tcp --dport 6783 -s"
    for order in (
        inside("h1", f"{apart} 10.211.55.5 -j DROP"),
        inside("h3", f"{apart} 10.211.55.3 -j DROP"),
        inside("h1", "weave launch"),
        inside("h2", "weave launch 10.211.55.3"),
        inside("h3", "weave launch 10.211.55.4"),
    ):
        done = world.say(*order)
        assert done.status == 0, done
    for number in (1, 3):
        run = f"weave run 192.168.1.{number}/24 -d --name c1 busybox sleep infinity"
        assert world.say(*inside(f"h{number}", run)).status == 0

    def reached() -> bool:
        return world.say(*inside("h1/c1", "ping -nc1 -W1 192.168.1.3")).status == 0

    wait_until(reached, timeout_s=PATIENCE_S, awaited="a way by h2")
    found = traced(world, "h1/c1", "h3/c1", 0)
    for hops in (found["there"], found["back"]):
        assert [each for each in way(hops) if each[:3] == "h2:"] == ["h2:eth0 in", "h2:eth0 out"]
        (coming,) = (hop for hop in hops if hop["node"] == "h2" and not hop["outgoing"])
        assert coming["decision"].endswith("the weave router passes it on, by sleeve")
    assert found["there"][-1]["decision"] == "arrived"


def test_a_trace_says_which_flow_of_open_vswitch_has_dropped_it(gre: World) -> None:
    with broken(
        gre,
        [inside("h1", "ovs-ofctl add-flow obr0 priority=100,icmp,actions=drop")],
        [inside("h1", "ovs-ofctl --strict del-flows obr0 priority=100,icmp")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert found["stopped"] == "h1:obr0, leaving"
    assert "h1: obr0 ofproto/trace: icmp, priority 100, drop" in found["reasons"]


def test_a_packet_without_a_tunnel_is_followed_to_the_outside(gre: World) -> None:
    found = traced(gre, "h1/c1", "198.51.100.1", 0)
    assert {hop["encapsulation"] for hop in found["there"]} == {"none"}
    assert way(found["there"])[-3:] == ["wire:s1-eth1 in", "wire:s1-eth3 out", "gw:eth0 in"]
    masqueraded = {hop["node"]: hop["inner"][0] for hop in found["there"]}
    assert (masqueraded["h1/c1"], masqueraded["gw"]) == ("192.168.1.2", "192.168.59.103")


def test_a_trace_says_which_rule_has_dropped_it(gre: World) -> None:
    rule = "FORWARD -d 192.168.2.2/32 -j DROP"
    with broken(
        gre,
        [inside("h2", f"iptables -I {rule}")],
        [inside("h2", f"iptables -D {rule}")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert (found["arrived"], found["stopped"]) == (False, "h2:br0, coming in")
    assert found["reasons"] == [f"h2: iptables -t filter -A {rule}"]


@pytest.mark.slow
def test_a_trace_says_that_the_answer_did_not_come_back(gre: World) -> None:
    rule = "FORWARD -s 192.168.2.2/32 -j DROP"
    with broken(
        gre,
        [inside("h1", f"iptables -I {rule}")],
        [inside("h1", f"iptables -D {rule}")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert (found["arrived"], found["stopped"]) == (True, "h1:br0, coming in")
    assert found["reasons"] == [f"h1: iptables -t filter -A {rule}"]


def test_a_trace_follows_arp_where_nobody_answers_it(gre: World) -> None:
    with broken(
        gre,
        # h1 says of all that h2 sends through the tunnel that nobody takes it, and quotes it.
        [inside("h1", "sysctl -qw net.ipv4.icmp_ratelimit=0"), *cut("h1")],
        [connect("h1"), inside("h1", "sysctl -qw net.ipv4.icmp_ratelimit=1000")],
    ):
        # Somebody else who asks for the same address all the time, and is answered.
        asking = "for i in $(seq 400); do ip neigh flush all; ping -nc1 192.168.2.1; done"
        behind = ["exec", "h2/c1", "--", "setsid", "sh", "-c", f"({asking}) >/dev/null 2>&1 &"]
        assert gre.say(*behind).status == 0
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert way(found["there"])[-1] == "h1:br0 in"
    assert way(found["arp"])[0] == "h1:br0 out"
    assert found["stopped"] == "h1:obr0, leaving"
    assert "h1: nobody answers ARP for 192.168.2.1 on br0" in found["reasons"]
    assert "h1: obr0 has no tunnel port" in found["reasons"]


@pytest.mark.parametrize("known", [True, False], ids=["MAC known", "MAC unknown"])
def test_a_trace_ends_where_the_tunnel_does(gre: World, known: bool) -> None:
    """Not on the way of the ICMP error that quotes what came."""
    with broken(gre, cut("h2"), [connect("h2")]):
        if known:
            mac = json.loads(gre.say(*inside("h2", "ip -j link show br0")).stdout)[0]["address"]
            replace = f"ip neigh replace 192.168.2.1 lladdr {mac} dev br0 nud reachable"
            assert gre.say(*inside("h1", replace)).status == 0
        else:
            assert gre.say(*inside("h1", "ip neigh flush all")).status == 0
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert found["stopped"] == "h2:eth0, coming in"
    assert found["there" if known else "arp"][-1]["encapsulation"] == "gre"
    assert "h2: no tunnel port is for 192.168.59.103" in found["reasons"]


def cut(host: str) -> list[list[str]]:
    """Its tunnel, and it knows nobody's MAC address."""
    return [inside(host, "ovs-vsctl del-port gre0"), inside(host, "ip neigh flush all")]


def connect(host: str) -> list[str]:
    other = {"h1": "192.168.59.104", "h2": "192.168.59.103"}[host]
    port = f"obr0 gre0 -- set interface gre0 type=gre options:remote_ip={other}"
    return inside(host, f"ovs-vsctl add-port {port}")


def test_a_trace_says_that_there_is_no_route(gre: World) -> None:
    with broken(
        gre,
        [inside("h1", "ip route del default")],
        [inside("h1", "ip route add default via 192.168.59.1")],
    ):
        found = traced(gre, "h1/c1", "198.51.100.1", 1)
        never = traced(gre, "h1", "198.51.100.1", 1)
    assert found["stopped"] == "h1:br0, coming in"
    assert found["reasons"][0] == "h1: route to 198.51.100.1: Network is unreachable"
    assert (never["there"], never["stopped"]) == ([], "h1: it never left")
    assert never["reasons"][0] == "h1: route to 198.51.100.1: Network is unreachable"


def test_a_trace_says_that_a_host_does_not_forward(gre: World) -> None:
    with broken(
        gre,
        [inside("h1", "sysctl -qw net.ipv4.ip_forward=0")],
        [inside("h1", "sysctl -qw net.ipv4.ip_forward=1")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert found["stopped"] == "h1:br0, coming in"
    assert found["reasons"][0] == "h1: it does not forward (net.ipv4.ip_forward=0)"
    assert found["there"][-1]["decision"] == "it does not forward (net.ipv4.ip_forward=0)"


def test_a_trace_finds_the_port_that_is_down(gre: World) -> None:
    with broken(
        gre,
        [inside("h1", "ip link set obr0 down"), inside("h1", "ip neigh flush dev br0")],
        [inside("h1", "ip link set obr0 up")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    # The request is flooded to h1/c1, too, from where the ping has come.
    assert found["stopped"] == "h1:br0, leaving"
    assert "h1: obr0, port of br0, is down" in found["reasons"]


def test_a_trace_finds_the_pulled_cable(gre: World) -> None:
    with broken(gre, [["fault", "link", "h2", "down"]], [["fault", "link", "h2", "up"]]):
        said = gre.say("trace", "h1/c1", "h2/c1")
    assert said.status == 1
    assert "✗ it stopped at wire:s1-eth1, coming in" in said.stdout
    assert "s1-eth2, port of s1, is down" in said.stdout


def test_a_trace_says_that_no_cable_leads_there(gre: World) -> None:
    with broken(gre, [["fault", "partition", "h1", "|", "h2"]], [["fault", "heal"]]):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert found["stopped"] == "wire:s1-eth1, coming in"
    # The table of neighbours is the machine's: while others fill it, h1 may have to ask again.
    reasons = [each for each in found["reasons"] if "nobody answers ARP" not in each]
    assert reasons == ["wire: no cable leads from s1 to h2"]


def test_a_trace_says_that_a_locked_port_turns_its_sender_away(gre: World) -> None:
    (eth0,) = json.loads(gre.say(*inside("h1", "ip -j link show eth0")).stdout)
    admitted = f"{eth0['address']} dev s1-eth1 master"
    reason = f"s1-eth1, port of s1, is locked, and s1 has no entry for {eth0['address']} there"
    unlock = f"bridge fdb del {admitted}; bridge link set dev s1-eth1 learning on locked off"
    with broken(
        gre,
        [
            inside("wire", "bridge link set dev s1-eth1 learning off locked on"),
            inside("wire", "ip link set dev s1-eth1 type bridge_slave fdb_flush"),
            ["fault", "link", "h2", "down"],
        ],
        [["exec", "wire", "--", "sh", "-c", unlock], ["fault", "link", "h2", "up"]],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
        assert found["stopped"] == "wire:s1-eth1, coming in"
        assert f"wire: {reason}" in found["reasons"]
        # Once it is admitted, only the cable is left.
        assert gre.say(*inside("wire", f"bridge fdb replace {admitted} static")).status == 0
        found = traced(gre, "h1/c1", "h2/c1", 1)
        assert "wire: s1-eth2, port of s1, is down" in found["reasons"]
        assert "locked" not in str(found["reasons"])


@pytest.mark.skipif(
    machine().ovs_datapath.live, reason="the kernel's datapath goes on without its daemon"
)
def test_a_trace_names_the_dead_daemon_and_no_flooded_copy(gre: World) -> None:
    daemon = ["h1", "ovs-vswitchd"]
    with broken(gre, [["fault", "kill", *daemon]], [["fault", "--wait", "restart", *daemon]]):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    # Its port gone, br0 sends to all others: back to h1/c1, and to h1/c2.
    seen = way([*found["there"], *found["arp"]])
    assert seen[0] == "h1/c1:eth0 out"
    assert not {"h1/c1:eth0 in", "h1:veth out"} & set(seen)
    assert "h1: ovs-vswitchd is dead" in found["reasons"]


def test_a_copy_that_a_bridge_has_flooded_has_not_arrived(gre: World) -> None:
    mac = "02:00:00:00:00:99"
    with broken(
        gre,
        [inside("h1", f"ip neigh replace 192.168.2.1 lladdr {mac} dev br0 nud permanent")],
        [inside("h1", "ip neigh del 192.168.2.1 dev br0")],
    ):
        found = traced(gre, "h1/c1", "h2/c1", 1)
    assert not found["arrived"]
    assert way(found["there"])[-1] != "h2/c1:eth0 in"
    assert f"no interface has the MAC address {mac}, to which it is sent" in found["reasons"]


def test_a_trace_to_a_container_whose_host_is_down(gre: World) -> None:
    with broken(gre, [["fault", "crash", "h2"]], [["fault", "--wait", "reboot", "h2"]]):
        found = traced(gre, "h1/c1", "h2/c1", 1)
        back = gre.say("trace", "h2/c1", "h1/c1")
    assert (found["target"], found["address"]) == ("h2/c1", "192.168.2.2")
    assert found["there"][0]["node"] == "h1/c1"
    assert "h2: down" in found["reasons"]
    assert (back.status, "h2 is down, and its containers with it" in back.stderr) == (2, True)


def test_a_trace_wants_two_nodes_that_are_there(gre: World) -> None:
    said = gre.say("trace", "h1", "h1")
    assert (said.status, "name two nodes" in said.stderr) == (2, True)
    said = gre.say("trace", "h1", "h1/c9")
    assert (said.status, "no node is called 'h1/c9'" in said.stderr) == (2, True)


# -- top -------------------------------------------------------------------------------------------


def test_top_shows_who_sends_what(gre: World) -> None:
    size, packets = 1000, 20
    unanswered = "INPUT -p icmp -j DROP"
    pinging = f"ping -n -q -i0.004 -s{size} -w{PATIENCE_S:.0f} {OTHER_SIDE}"
    nodes: dict[str, Any] = {}

    def all_there() -> bool:
        shown = json.loads(gre.say("top", "--json", "--interval", "0.5").stdout)
        nodes.update((node["name"], node) for node in shown["nodes"])
        # The user space of Open vSwitch: ticks of the processor's clock are 10 ms.
        busy_switch = nodes["h1"]["cpu_percent"] > 0
        return bool(busy_switch and nodes["h2/c1"]["in_packets_per_second"] >= packets)

    with broken(
        gre,
        [inside("h2/c1", f"iptables -I {unanswered}")],
        [inside("h2/c1", f"iptables -D {unanswered}")],
    ):
        running = gre.start(*inside("h1/c1", pinging))
        try:
            wait_until(all_there, timeout_s=PATIENCE_S, awaited="pings")
        finally:
            running.terminate()
            running.communicate()
    for name, way, other in (
        ("h1/c1", "out", "in"), ("h1", "out", "in"), ("h2", "in", "out"), ("h2/c1", "in", "out"),
    ):  # fmt: skip
        rate = nodes[name][f"{way}_packets_per_second"]
        assert rate >= packets / 2, (name, way, nodes[name])
        # Headers of Ethernet, IP and ICMP, and on the wire those of GRE.
        each = nodes[name][f"{way}_bits_per_second"] / 8 / rate
        assert size / 2 < each < size + 100, (name, way, nodes[name])
        assert nodes[name][f"{other}_bits_per_second"] < rate * each * 8 / 2, (name, other)
    assert nodes["h2/c2"]["in_packets_per_second"] < packets / 2


def test_top_counts_what_a_link_drops(gre: World) -> None:
    def dropped() -> dict[str, int]:
        shown = json.loads(gre.say("top", "--json", "--interval", "0.05").stdout)
        return {node["name"]: node["dropped"] for node in shown["nodes"]}

    before = dropped()
    # No packet fits into what this lets pass at once.
    with broken(
        gre,
        [inside("wire", "tc qdisc replace dev s1-eth3 root tbf rate 1kbit burst 10 limit 10")],
        [inside("wire", "tc qdisc del dev s1-eth3 root")],
    ):
        lost = gre.say(*inside("h1", "ping -n -c3 -i0.1 -W0.1 192.168.59.1"))
        after = dropped()
    assert lost.status == 1
    assert after["gw"] > before["gw"]  # its ARP request at least
    assert after["h2"] == before["h2"]


def test_top_shows_who_is_down(gre: World) -> None:
    with broken(gre, [["fault", "crash", "h2"]], [["fault", "--wait", "reboot", "h2"]]):
        shown = gre.say("top", "--once", "--interval", "0.05").stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["h2"] == ["down"]
    assert len(rows["h1"]) > 5


def test_top_on_a_terminal_goes_on_until_it_is_interrupted(gre: World) -> None:
    argv = ["env", "TERM=xterm", *gre.xlab, "top", "--interval", "0.1"]
    with gre.terminal(argv, size=(40, 100)) as terminal:
        for _ in range(3):
            terminal.expect("CPU %")
            assert "h1/c1" in terminal.expect("gw")
        terminal.type("\x03")
        status, _ = terminal.end()
    assert status == 0


# -- links with conditions, several switches -------------------------------------------------------


def test_switches_and_the_conditions_of_links_are_seen(world: World) -> None:
    up = world.say(
        "up", "bridge", "--topo", "linear,2", "--delay", "5ms", "--until", "Docker on br0"
    )
    assert (up.status, up.stderr) == (0, "")
    graph = world.say("graph").stdout
    assert "── wire:s1  s1-eth1, delay 5 ms" in graph
    assert "── s2  s1-eth2 – s2-eth2, delay 5 ms" in graph
    found = traced(world, "h1", "h2", 0)
    decided = [hop["decision"] for hop in found["there"]]
    assert decided.count("link to wire:s2-eth2") == 1
    assert decided[-1] == "arrived"
    # Three links on the way, each of which waits: where it does, there the time passes.
    times = [hop["time_us"] for hop in found["there"]]
    assert sum(late - early >= 4000 for early, late in pairwise(times)) == 3
    assert decided.count("delay 5 ms") >= 3


# -- without rights --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_person_without_rights_sees_as_much(ordinary_world: World) -> None:
    world = ordinary_world
    up = world.say("up", "bridge", "--until", "Docker on br0")
    assert (up.status, up.stderr) == (0, "")
    found = traced(world, "h1", "h2", 0)
    assert way(found["there"])[-1] == "h2:br0 in"
    assert "h1:eth0" in "".join(way(found["there"]))
    running = world.start("capture", "wire:s1-eth1", "-w", "own.pcapng", "-c", "1", "--", "icmp")
    target = found["address"]

    def over() -> bool:
        world.say("exec", "h1", "--", "ping", "-n", "-c1", "-W1", target)
        return running.poll() is not None

    wait_until(over, timeout_s=PATIENCE_S, awaited="the end of the capture")
    assert (running.returncode, running.communicate()[0]) == (0, "")
    assert [kind for kind, _ in blocks((world.folder / "own.pcapng").read_bytes())][2:] == [6]
    assert "wire:s1  s1-eth1" in world.say("graph").stdout
    top = json.loads(world.say("top", "--json", "--interval", "0.05").stdout)
    assert all("cpu_percent" in node for node in top["nodes"])
