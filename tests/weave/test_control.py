"""The router as a process on each host of a lab: meshes, restarts, strangers at the door.

h1 ── h2 ── h3      each is told to connect to the one before it; the rest they find out

Frames are the business of other tests: where nothing else is asked for, the overlay is "fastdp",
which needs no TAP device.
"""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.labs import machine, sandboxed
from tests.support.routers import (
    ask,
    complaints,
    established,
    meshed,
    name_of,
    racked,
    report,
    routers,
    spawn,
    wait_for_mesh,
)
from xlab.kernel.processes import wait_until


@sandboxed
def test_a_chain_becomes_a_triangle_and_says_so() -> None:
    lab = racked(3)
    h1, h2, h3 = lab.hosts
    with routers(lab) as processes:
        wait_for_mesh(lab.hosts)
        lines = ask(h2, "GET", "/status/connections").splitlines()
        assert lines[0] == (
            "-> 10.211.55.3:6783      established fastdp 7a:00:00:00:00:01(h1) (fastdp equivalent)"
        )
        assert lines[1].startswith("<- 10.211.55.5:")
        assert lines[1].endswith(" established fastdp 7a:00:00:00:00:03(h3) (fastdp equivalent)")
        # A broadcast of h2's goes to both of the others, and neither passes it on.
        assert report(h2)["routes"]["broadcast"][name_of(h2)] == [name_of(h1), name_of(h3)]
        assert report(h1)["routes"]["broadcast"][name_of(h2)] == []
        # Nobody but the host itself can ask.
        with h1.entered(), socket.socket() as stranger:
            assert stranger.connect_ex((str(h2.address), 6784)) != 0
        assert [p.stdout() + complaints(p) for p in processes] == ["", "", ""]
        # That an established connection ends, for whatever reason, is worth a line to who is left.
        processes[0].signal(signal.SIGTERM)
        assert processes[0].wait(5.0) == 0
        assert complaints(processes[0]) == ""
        wait_for_mesh([h2, h3])
        assert complaints(processes[1]) == (
            f"weave h2: {h1.address}:6783 7a:00:00:00:00:01(h1): the peer closed the connection\n"
        )


@pytest.fixture
def tap() -> None:
    """Skips where there can be no TAP device."""
    if not machine().tun.live:
        pytest.skip(machine().tun.detail)


@sandboxed
def test_sleeve_is_established_over_udp(tap: None) -> None:
    lab = racked(3)
    with routers(lab, datapath="sleeve") as processes:
        wait_for_mesh(lab.hosts)
        wait_until(
            lambda: all(
                connection["mtu"] == 1438
                for host in lab.hosts
                for connection in report(host)["connections"]
            ),
            timeout_s=10.0,
            awaited="the MTU of every connection",
        )
        assert " sleeve " in ask(lab.hosts[0], "GET", "/status/connections")
        assert [complaints(process) for process in processes] == ["", "", ""]


@sandboxed
def test_a_router_that_is_killed_is_missed_and_comes_back_into_the_mesh() -> None:
    lab = racked(3)
    h1, h2, h3 = lab.hosts
    with routers(lab) as processes:
        wait_for_mesh(lab.hosts)
        former = report(h2)
        processes[1].stop()  # SIGKILL
        wait_for_mesh([h1, h3])
        wait_until(
            lambda: all(len(report(host)["peers"]) == 2 for host in (h1, h3)),
            timeout_s=10.0,
            awaited="h2 to be forgotten",
        )
        # h3 was told to connect to h2 and goes on trying: the new h2 need not be told anything.
        again = spawn(h2)
        try:
            wait_for_mesh(lab.hosts)
            assert report(h2)["uid"] != former["uid"]
        finally:
            again.stop()


@sandboxed
def test_a_name_is_its_routers_until_that_does_not_answer(tap: None) -> None:
    """h3 says that it is h2: first while that lives, then when its cable has been pulled."""
    lab = racked(3)
    h1, h2, h3 = lab.hosts
    running = [spawn(h1, datapath="sleeve"), spawn(h2, h1, datapath="sleeve")]
    try:
        wait_for_mesh([h1, h2])
        former = report(h2)
        running.append(spawn(h3, h1, named=h2, datapath="sleeve"))
        wait_until(
            lambda: "another router has this name" in complaints(running[0]),
            timeout_s=10.0,
            awaited="h3 to be refused",
        )
        assert meshed([h1, h2])
        assert report(h2)["uid"] == former["uid"]
        running[2].stop()
        lab.unplug(lab.link("h2"))
        running.append(spawn(h3, h1, named=h2, datapath="sleeve"))
        # A second later, when the other could have answered; otherwise it is given up in a minute.
        wait_until(
            lambda: (
                established(h3) == [name_of(h1)]
                and established(h1) == [name_of(h2)]
                and report(h1)["connections"][0]["address"].startswith(f"{h3.address}:")
            ),
            timeout_s=20.0,
            awaited="h3 in h2's place",
        )
        assert "the peer was restarted: its former connection does not answer" in complaints(
            running[0]
        )
    finally:
        for process in running:
            process.stop()


@sandboxed
def test_people_can_connect_and_forget_while_it_runs() -> None:
    lab = racked(2)
    h1, h2 = lab.hosts
    processes = [spawn(h1), spawn(h2)]
    try:
        for host in lab.hosts:
            wait_for_mesh([host])
        assert ask(h1, "POST", "/connect", f"peer={h2.address}") == ""
        wait_for_mesh(lab.hosts)
        assert ask(h1, "GET", "/status/targets") == f"{h2.address}\n"
        assert ask(h1, "POST", "/forget", f"peer={h2.address}") == ""
        assert ask(h1, "GET", "/status/targets") == ""
        assert ask(h1, "POST", "/connect", "peer=elsewhere") == "not an IPv4 address: 'elsewhere'\n"
    finally:
        for process in processes:
            process.stop()


@sandboxed
def test_strangers_are_turned_away_and_the_mesh_does_not_notice() -> None:
    lab = racked(3)
    h1, h2, h3 = lab.hosts
    routers_of = [spawn(h1), spawn(h2, h1)]
    try:
        wait_for_mesh([h1, h2])
        for said in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"weave\1\1",
            b"weave\1\2\1" + bytes(32),
            b"weave\1\2\0" + b"\0\0\0\x05\xff\xff\xff\xff\xff",
            b"weave\1\2\0" + b"\xff" * 1000,
        ):
            with h3.entered():
                stranger = socket.create_connection((str(h1.address), 6783), timeout=10)
            with stranger:
                stranger.sendall(said)
                try:
                    while stranger.recv(1000):
                        pass
                except ConnectionResetError:
                    # What was not read when the other end hung up becomes a reset.
                    pass
        trouble = complaints(routers_of[0]).splitlines()
        assert len(trouble) == 5
        assert all(line.startswith(f"weave h1: {h3.address}:") for line in trouble)
        assert trouble[0].endswith("not a weave router: it began with b'GET /'")
        assert trouble[2].endswith(
            "the peer has a password and wants encryption; this router has none"
        )
        assert report(h1)["counters"]["control"]["protocol_errors"] == 5
        assert meshed([h1, h2])
    finally:
        for process in routers_of:
            process.stop()


@sandboxed
def test_a_second_router_on_a_host_says_why_it_cannot_be() -> None:
    lab = racked(2)
    (h1, _) = lab.hosts
    first = spawn(h1)
    try:
        wait_for_mesh([h1])
        second = spawn(h1)
        assert second.wait(10.0) == 1
        assert second.stderr_tail() == f"weave h1: TCP {h1.address}:6783: Address already in use\n"
        assert meshed([h1])
    finally:
        first.stop()
