"""Whole scenarios as root on a full kernel: what only the kernel's own Open vSwitch shows.

These run in the guest (xlab/guest/view.py), and wherever else the datapath is live.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import PATIENCE_S, Run, machine, sandboxed
from xlab.errors import DaemonError
from xlab.lab import underlay
from xlab.lab.lab import Lab
from xlab.lab.reachability import unreachable
from xlab.record import record
from xlab.scenario.request import Request

pytestmark = [pytest.mark.sandbox, pytest.mark.kernel]


@pytest.fixture
def kernel_datapath(open_vswitch: None) -> None:
    if not machine().ovs_datapath.live:
        pytest.skip(machine().ovs_datapath.detail)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"hosts": 3, "containers": 1}, id="a mesh of three"),
        pytest.param(
            {"settings": {"forward": "drop"}}, id="forward=drop", marks=pytest.mark.long_in_guest
        ),
        pytest.param({"topo": "linear,2"}, id="linear", marks=pytest.mark.long_in_guest),
    ],
)
def test_variants_of_ovs_gre(tmp_path: Path, asked: dict[str, Any], kernel_datapath: None) -> None:
    with Run(Request("ovs-gre", quick=True, **asked), tmp_path / "results") as run:
        found = record.load(Path(run.finish()["folder"]))
        assert run.stderr() == ""
    assert (found.status, found.reason) == ("passed", "")
    assert found.environment.datapath.endswith(" kernel")
    assert found.path is not None
    assert (found.path.encapsulation, found.path.underlay_packets.gre) == ("gre", 20)
    assert (found.path.overhead_bytes, found.path.effective_mtu) == (38, 1462)


@pytest.mark.long_in_guest
@pytest.mark.parametrize("scenario", ["baseline", "bridge"])
def test_scenarios_that_need_no_open_vswitch(tmp_path: Path, scenario: str) -> None:
    with Run(Request(scenario, quick=True), tmp_path / "results") as run:
        ended = run.finish()
        assert run.stderr() == ""
    assert (ended["status"], ended["reason"]) == ("passed", "")


@sandboxed
def test_a_tunnel_of_the_kernels_datapath(kernel_datapath: None) -> None:
    """Two hosts, a bridge and a GRE port each; eth0 is a plain veth end that keeps its address."""
    lab = Lab(underlay.describe(None, hosts=2), ovs="kernel")
    lab.give_addresses(IPv4Network("192.168.59.0/24"), first=103, gateway=1)
    h1, h2 = lab.hosts
    for host, peer in ((h1, h2), (h2, h1)):
        host.ovs.add_bridge("obr0")
        host.ovs.add_port("obr0", "gre0", type="gre", options={"remote_ip": str(peer.address)})
        host.add_address("obr0", f"172.16.0.{host.number}/24")
    assert "system@ovs-system" in h1.run(["ovs-appctl", "dpif/show"]).stdout
    argv = ["ping", "-n", "-c1", "-w20", "172.16.0.2"]
    assert "1 received" in h1.run(argv, timeout_s=PATIENCE_S).stdout
    assert unreachable([(h1, h2), (h2, h1)], timeout_s=20) == []
    # The datapath goes with its namespace, a dead daemon does not go unnoticed.
    h1.ovs.kill("ovs-vswitchd")
    with pytest.raises(DaemonError, match="h1: ovs-vswitchd has ended"):
        h1.ovs.add_bridge("obr1")
