"""Large labs: every claim holds, whatever the kernel shares out; and what they cost, measured."""

from __future__ import annotations

import json
import os
import re
import signal
from ipaddress import IPv4Network
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.labs import Run, sandboxed, why_no_open_vswitch
from xlab.errors import DaemonError, XlabError
from xlab.kernel.processes import asking_meanwhile
from xlab.lab import underlay
from xlab.lab.lab import Lab
from xlab.lab.reachability import unreachable
from xlab.record import record
from xlab.record.record import RunRecord
from xlab.scenario.request import Request

pytestmark = pytest.mark.sandbox

SUBNET = IPv4Network("10.0.0.0/24")

needs_open_vswitch = pytest.mark.skipif(
    bool(why_no_open_vswitch()), reason=why_no_open_vswitch() or "Open vSwitch is there"
)


def built(request: Request, tmp_path: Path, **options: Any) -> RunRecord:
    """The record of a run without measurements, in which all claims held."""
    with Run(request, tmp_path / "results", **options) as run:
        last = run.finish()
    found = record.load(Path(last["folder"]))
    assert found.status == "passed", found.reason
    return found


def observed(found: RunRecord, claim: str) -> str:
    return next(c.observed for c in found.claims if c.id == claim)


@pytest.mark.slow
def test_a_broadcast_domain_of_several_switches(tmp_path: Path) -> None:
    """Of 150 hosts a switch with all would lose broadcasts, so there are four in a row."""
    found = built(Request("bridge", hosts=150, containers=2), tmp_path)
    (note,) = [event.detail for event in found.events if "in a row" in event.detail]
    assert note.startswith("4 switches")
    assert observed(found, "all-hosts-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "all-containers-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "addresses-never-collide") == "451 different addresses"


@pytest.mark.slow
def test_a_thousand_hosts_with_two_containers_each(tmp_path: Path) -> None:
    found = built(Request("bridge", hosts=1000, containers=2), tmp_path, patience_s=600)
    assert observed(found, "all-containers-reach-each-other") == "500 of 500 pairs answer"
    assert observed(found, "addresses-never-collide") == "3001 different addresses"


@pytest.mark.slow
@needs_open_vswitch
def test_a_mesh_of_64_open_vswitches(tmp_path: Path) -> None:
    found = built(Request("ovs-gre", hosts=64, containers=1), tmp_path, patience_s=600)
    assert re.fullmatch(
        r"(\d+) of \1 pairs answer", observed(found, "all-containers-reach-each-other")
    )
    assert found.path is not None
    assert found.path.encapsulation == "gre"


@pytest.mark.slow
@pytest.mark.parametrize("datapath", ["sleeve", "fastdp"])
def test_64_weave_routers(tmp_path: Path, datapath: str) -> None:
    request = Request("weave", hosts=64, containers=1, settings={"datapath": datapath})
    found = built(request, tmp_path, patience_s=600)
    assert observed(found, "routers-are-connected") == str(64 * 63)


# -- what makes them possible ----------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [15, 16])
@sandboxed
def test_hosts_of_a_large_mesh_need_not_ask_for_each_other(hosts: int) -> None:
    """The kernel's table of neighbours is one for the machine; permanent entries do not count."""
    lab = Lab(underlay.describe(None, hosts=hosts))
    lab.give_addresses(SUBNET, first=1, gateway=254, mesh=True)
    shown = lab.hosts[0].configure(["ip", "-4", "neigh", "show", "dev", "eth0"]).stdout
    assert shown.count("PERMANENT") == (hosts - 1 if hosts == 16 else 0)
    first, last = lab.hosts[0], lab.hosts[-1]
    assert unreachable([(first, last), (last, first)], timeout_s=20) == []
    # It is the right MAC, and stays when the others are forgotten.
    first.rtnl.forget_neighbours()
    known = first.configure(["ip", "-4", "neigh", "show", str(last.address)]).stdout
    assert (last.mac_address("eth0") in known) == (hosts == 16)


@needs_open_vswitch
@sandboxed
def test_tunnels_of_a_large_mesh_know_their_far_ends() -> None:
    lab = Lab(underlay.describe(None, hosts=16), ovs="userspace")
    lab.give_addresses(SUBNET, first=1, gateway=254, mesh=True)
    shown = lab.hosts[0].run(["ovs-appctl", "tnl/neigh/show"]).stdout
    for other in lab.hosts[1:]:
        line = next(line for line in shown.splitlines() if line.startswith(f"{other.address} "))
        assert line.split()[1:] == [other.mac_address("eth0"), "eth0"]


@needs_open_vswitch
@sandboxed
def test_ports_added_at_once_are_one_configuration() -> None:
    lab = Lab(underlay.describe(None, hosts=2), ovs="userspace")
    lab.give_addresses(SUBNET, first=1, gateway=254)
    h1 = lab.hosts[0]
    h1.ovs.add_bridge("obr0")

    def configurations() -> int:
        return int(h1.run(["ovs-vsctl", "--timeout=5", "get", "open", ".", "next_cfg"]).stdout)

    before = configurations()
    with h1.ovs.at_once():
        for number in range(5):
            h1.ovs.add_port(
                "obr0", f"gre{number}", type="gre", options={"remote_ip": f"10.0.0.{100 + number}"}
            )
    assert configurations() == before + 1
    assert h1.tunnels() == 5
    with h1.ovs.at_once():
        h1.ovs.delete_port("obr0", "gre0")
        h1.ovs.delete_port("obr0", "gre1")
    assert configurations() == before + 2
    assert h1.tunnels() == 3
    with pytest.raises(XlabError, match="nowhere: could not open"), h1.ovs.at_once():
        h1.ovs.add_port("obr0", "nowhere")
    # What went wrong does not stick.
    h1.ovs.delete_port("obr0", "gre2")
    assert h1.tunnels() == 2


@needs_open_vswitch
@sandboxed
def test_who_cannot_answer_is_not_waited_for_when_a_daemon_has_died() -> None:
    lab = Lab(underlay.describe(None, hosts=2), ovs="userspace")
    lab.give_addresses(SUBNET, first=1, gateway=254)
    h1, h2 = lab.hosts
    h2.set_down("eth0")
    lab.require_daemons()
    Timer(0.5, os.kill, (h1.ovs.pids()[0], signal.SIGKILL)).start()
    with (
        asking_meanwhile(lab.require_daemons),
        pytest.raises(DaemonError, match=r"has ended \(status -9\)"),
    ):
        unreachable([(h1, h2)], timeout_s=60)


# -- xlab scale ------------------------------------------------------------------------------------


def test_scale_measures_what_a_mesh_costs(tmp_path: Path) -> None:
    arguments = ["weave", "--hosts", "2,3,4", "--containers", "1", "--repeat", "1", "--rest", "1"]
    with Command("scale", *arguments, "--json", folder=tmp_path) as command:
        ended = command.end(patience_s=600)
    assert ended.status == 0, ended.stderr
    data = json.loads(ended.stdout)
    (folder,) = (tmp_path / "results").iterdir()
    assert json.loads((folder / "scale.json").read_text()) == data
    assert (folder / "scale.svg").read_text().startswith("<?xml")
    assert [s["hosts"] for s in data["samples"]] == [2, 3, 4]
    for sample in data["samples"]:
        hosts = sample["hosts"]
        # A router and the first process of its PID namespace on each host, all connected.
        assert sample["processes"] == 2 * hosts
        assert sample["tunnels"] == hosts * (hosts - 1)
        assert sample["answered"] == sample["pairs"] == hosts * (hosts - 1)
        # Handshake, gossip and heartbeats of each connection, at either end.
        assert sample["build_packets"] > 20 * sample["tunnels"]
        assert sample["build_bytes"] > 60 * sample["build_packets"]
        assert 0 < sample["build_s"] < sample["freed_s"] + 60
        assert sample["teardown_s"] <= sample["freed_s"]
        assert sample["process_bytes"] > hosts * 2**20
    assert data["laws"]["processes"]["exponent"] == pytest.approx(1.0)
    assert data["laws"]["tunnels"]["exponent"] > 1.5
    assert f"record   results/{folder.name}/scale.json" in ended.stderr


@pytest.mark.slow
def test_a_flat_segment_needs_no_control_plane(tmp_path: Path) -> None:
    arguments = ["bridge", "--hosts", "2,4,8", "--repeat", "1", "--rest", "1"]
    with Command("scale", *arguments, folder=tmp_path) as command:
        ended = command.end(patience_s=600)
    assert ended.status == 0, ended.stderr
    assert "build 3/3: " in ended.stdout
    assert "None at any size: processes, ends of tunnels, control plane, build" in ended.stdout
    assert re.search(r"^    8 ( +[\d.]+ m?s){4} ", ended.stdout, re.MULTILINE), ended.stdout
    assert re.search(r"^- descriptors of the controller: hosts\^0\.", ended.stdout, re.MULTILINE)


@pytest.mark.slow
def test_of_a_lab_without_a_method_the_hosts_are_asked(tmp_path: Path) -> None:
    """Each host's c1 has the same address as the others': asked, it would answer itself."""
    arguments = ["baseline", "--hosts", "2,3,4", "--repeat", "1", "--rest", "1", "--json"]
    with Command("scale", *arguments, folder=tmp_path) as command:
        ended = command.end(patience_s=600)
    assert ended.status == 0, ended.stderr
    for sample in json.loads(ended.stdout)["samples"]:
        hosts = sample["hosts"]
        assert sample["answered"] == sample["pairs"] == hosts * (hosts - 1)


@pytest.mark.slow
def test_a_scenario_that_breaks_at_one_size_is_not_whole(tmp_path: Path) -> None:
    breaks = tmp_path / "breaks.py"
    breaks.write_text(_BREAKS)
    arguments = [str(breaks), "--hosts", "2,3,4", "--repeat", "1", "--rest", "1"]
    with Command("scale", *arguments, folder=tmp_path) as command:
        ended = command.end(patience_s=600)
    assert ended.status == 1
    said = "the build stopped at breaks.py:8: nobody wants three"
    assert f"3 hosts: FAILED: {said}" in ended.stdout
    assert f"- NOT built: 3 hosts: {said}" in ended.stdout
    (folder,) = (tmp_path / "results").iterdir()
    data = json.loads((folder / "scale.json").read_text())
    assert [sample["hosts"] for sample in data["samples"]] == [2, 4]
    assert data["failures"][0]["hosts"] == 3


_BREAKS = """
from ipaddress import IPv4Network
from xlab.errors import DaemonError, XlabError
from xlab.scenario.scenario import Flow, Scenario

def build(lab, plan, size, settings, check):
    if size.hosts == 3:
        raise XlabError("nobody wants three")
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    for host in lab.hosts:
        host.docker.start()
        for number in range(size.containers):
            host.docker.run(f"c{number}")
    # Containers of different hosts do not reach each other here; those of one host do.
    for host in lab.hosts[1:]:
        for container in host.containers:
            host.docker.stop(container)
    h1, h2 = lab.hosts[0], lab.hosts[-1]
    return Flow(source=h1, target=h2, control=(h1, h2), encapsulation="none", watched=h1,
                cut=lambda: None, heal=lambda: None, cut_text="")

SCENARIO = Scenario(name="breaks", summary="", options=(), plan=lambda *_: None, build=build)
"""
