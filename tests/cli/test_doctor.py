"""The findings of `xlab doctor`, from machines made up."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from xlab.cli import _findings as doctor
from xlab.cli._findings import Finding
from xlab.errors import CapabilityError
from xlab.guest import packages
from xlab.kernel.capabilities import Capability, Machine
from xlab.kernel.drivers import State
from xlab.kernel.programs import TOOLS, TYPED
from xlab.scenario import blueprint
from xlab.scenario.request import Request

VERSIONS = {tool.name: "1.0" for tool in (*TOOLS, *TYPED)}
#: As the scenarios of this checkout declare it.
NEEDING = {"Open vSwitch": "ovs-gre", "masquerading": "bridge, ovs-gre"}


def yes(name: str) -> Capability:
    return Capability(name, State.YES, f"{name} is live")


def no(name: str, remedy: str = "") -> Capability:
    return Capability(name, State.NO, f"this kernel has no {name}", remedy)


def loadable(name: str, *, on_demand: bool = False) -> Capability:
    remedy = "" if on_demand else f"sudo modprobe {name}"
    return Capability(name, State.LOADABLE, f"module {name} is not loaded", remedy, on_demand)


def machine(**changes: object) -> Machine:
    """Everything is there, with `changes`."""
    complete = Machine(
        kernel="6.12.48+deb13-amd64",
        sandbox="rootless",
        namespaces=yes("namespaces"),
        veth=yes("veth"),
        bridge=yes("bridge"),
        masquerading=yes("nf_nat"),
        ovs_datapath=yes("openvswitch"),
        ovs_gre=yes("ip_gre"),
        tun=yes("tun"),
        netem=yes("sch_netem"),
        tbf=yes("sch_tbf"),
        packet_sockets=yes("af_packet"),
        overlayfs=yes("overlay"),
        open_files=1048576,
        neighbours=1024,
    )
    return dataclasses.replace(complete, **changes)  # type: ignore[arg-type]


def find(name: str, **changes: object) -> Finding:
    (finding,) = (
        f for f in doctor.diagnose(machine(**changes), VERSIONS, NEEDING) if f.name == name
    )
    return finding


def status(**changes: object) -> int:
    return doctor.exit_status(doctor.diagnose(machine(**changes), VERSIONS, NEEDING))


def test_a_machine_that_has_everything_needs_nothing() -> None:
    found = doctor.diagnose(machine(), VERSIONS, NEEDING)
    assert [finding.name for finding in found if finding.ok is not True] == []
    assert [finding.remedy for finding in found if finding.remedy] == []
    assert doctor.exit_status(found) == 0
    names = [finding.name for finding in found]
    assert len(set(names)) == len(names)


# -- labs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sandbox", "how"), [("rootless", "rootless, each in a user namespace"), ("root", "as root")]
)
def test_which_way_labs_run(sandbox: str, how: str) -> None:
    assert how in find("labs", sandbox=sandbox).detail


REFUSED = Capability(
    "namespaces", State.NO, "AppArmor takes them", "sudo give it", risk="holes may show"
)


def test_no_namespaces_no_labs() -> None:
    finding = find("labs", namespaces=REFUSED)
    assert (finding.ok, finding.detail, finding.remedy, finding.risk) == (
        False,
        "AppArmor takes them",
        "sudo give it",
        "holes may show",
    )
    assert status(namespaces=REFUSED) == 3


def test_what_gives_something_away_is_not_pasted_out_of_an_error() -> None:
    asked = blueprint.design(Request("bridge"))
    with pytest.raises(CapabilityError) as raised:
        blueprint.equip(asked, machine(namespaces=REFUSED))
    assert raised.value.missing == "namespaces: AppArmor takes them"
    assert raised.value.remedy == (
        "run it as root (sudo), or see `xlab doctor` for what allows it, and its risk"
    )
    outside = dataclasses.replace(REFUSED, remedy="docker run --privileged …")
    with pytest.raises(CapabilityError, match="; see `xlab doctor` for what allows it"):
        blueprint.equip(asked, machine(namespaces=outside))


def test_modules_that_load_by_themselves_are_no_obstacle() -> None:
    finding = find("links and switches", veth=loadable("veth", on_demand=True))
    assert finding.ok is True
    assert "module veth is not loaded: the kernel loads it" in finding.detail


def test_a_kernel_without_bridges_runs_no_scenario() -> None:
    finding = find("links and switches", bridge=no("bridge"))
    assert (finding.ok, finding.detail) == (False, "this kernel has no bridge")


# -- Open vSwitch ----------------------------------------------------------------------------------


def test_the_kernel_datapath_where_it_is_live() -> None:
    finding = find("Open vSwitch")
    assert finding.ok is True
    assert "in the kernel" in finding.detail


def test_the_datapath_in_user_space_is_a_fallback_with_a_way_out() -> None:
    finding = find("Open vSwitch", ovs_datapath=loadable("openvswitch"))
    assert finding.ok is None
    assert "in user space" in finding.detail
    assert finding.remedy == "sudo modprobe openvswitch"
    assert status(ovs_datapath=loadable("openvswitch")) == 0


def test_a_kernel_datapath_without_gre_is_not_used() -> None:
    finding = find("Open vSwitch", ovs_gre=no("ip_gre"))
    assert finding.ok is None
    assert "but this kernel has no ip_gre" in finding.detail


def test_neither_datapath() -> None:
    remedy = "sudo chmod 0666 /dev/net/tun"
    closed = Capability("tun", State.NO, "/dev/net/tun does not open", remedy)
    without = {"ovs_datapath": no("openvswitch"), "tun": closed}
    finding = find("Open vSwitch", **without)
    assert (finding.ok, finding.needed_for) == (False, "ovs-gre")
    assert finding.remedy == "sudo chmod 0666 /dev/net/tun"
    assert status(**without) == 3


def test_open_vswitch_is_not_installed() -> None:
    versions = {name: v for name, v in VERSIONS.items() if name != "ovsdb-server"}
    found = {finding.name: finding for finding in doctor.diagnose(machine(), versions, NEEDING)}
    for name in ("Open vSwitch", "ovsdb-server"):
        assert found[name].ok is False
        assert found[name].remedy == "sudo apt-get install openvswitch-switch"


# -- link conditions and limits --------------------------------------------------------------------


def test_netem_missing_means_the_delay_line() -> None:
    finding = find("link conditions", netem=loadable("sch_netem"))
    assert finding.ok is None
    assert finding.detail.startswith("rates by tbf, all else by a delay line")
    assert finding.remedy == "sudo modprobe sch_netem"
    without_tbf = find("link conditions", netem=no("sch_netem"), tbf=no("sch_tbf"))
    assert without_tbf.detail.startswith("all else by a delay line")


def test_without_any_backend_conditions_are_impossible_but_scenarios_are_not() -> None:
    without = {"netem": no("sch_netem"), "packet_sockets": no("af_packet")}
    assert find("link conditions", **without).detail.startswith("not possible: ")
    assert status(**without) == 0


@pytest.mark.parametrize(
    ("limit", "ok", "nodes"), [(1048576, True, "149,787"), (1024, None, "137"), (104, None, "6")]
)
def test_open_files_bound_the_size_of_labs(limit: int, ok: bool | None, nodes: str) -> None:
    finding = find("open files", open_files=limit)
    assert finding.ok is ok
    assert f"up to {nodes} hosts and containers" in finding.detail
    assert bool(finding.remedy) is (ok is None)


def test_where_no_usual_lab_can_open_its_files_no_scenario_runs() -> None:
    finding = find("open files", open_files=103)
    assert (finding.ok, finding.needed_for) == (False, "every scenario")
    assert finding.detail == "at most 103: too few for the 6 hosts and containers of a lab"
    assert finding.remedy == "sudo prlimit --pid $$ --nofile=65536:65536"
    assert status(open_files=103) == 3


def test_a_lab_that_cannot_open_its_files_is_not_begun() -> None:
    asked = blueprint.design(Request("bridge", hosts=10, containers=4))
    least = 48 + 4 * (10 + 40 + 2)
    assert blueprint.equip(asked, machine(open_files=least)).design is asked
    with pytest.raises(CapabilityError, match="50 hosts and containers needs at least 256; sudo"):
        blueprint.equip(asked, machine(open_files=least - 1))


@pytest.mark.parametrize(
    ("limit", "ok", "everyone"), [(1024, True, 32), (16384, True, 128), (128, None, 11)]
)
def test_the_neighbour_table(limit: int, ok: bool | None, everyone: int) -> None:
    """Each of n nodes keeps an entry for every other: n (n - 1) must fit."""
    assert everyone * (everyone - 1) <= limit < (everyone + 1) * everyone
    finding = find("neighbour table", neighbours=limit)
    assert finding.ok is ok
    assert f"up to {everyone} that all talk" in finding.detail


def test_a_sandbox_does_not_show_the_neighbour_table() -> None:
    found = doctor.diagnose(machine(neighbours=None), VERSIONS, NEEDING)
    assert "neighbour table" not in [finding.name for finding in found]


# -- tools -----------------------------------------------------------------------------------------


def test_tools_that_are_missing() -> None:
    found = {finding.name: finding for finding in doctor.diagnose(machine(), {}, NEEDING)}
    assert (found["ping"].ok, found["ping"].needed_for) == (False, "every scenario")
    assert found["ping"].remedy == "sudo apt-get install iputils-ping"
    assert (found["iptables"].ok, found["iptables"].needed_for) == (False, "bridge, ovs-gre")
    assert (found["netperf"].ok, found["netperf"].remedy) == (
        None,
        "sudo apt-get install netperf",
    )


def test_what_the_virtual_clock_lacks_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def row() -> doctor.Finding:
        found = {finding.name: finding for finding in doctor.diagnose(machine(), {}, NEEDING)}
        return found["virtual clock"]

    monkeypatch.setattr(packages, "require_able", lambda: None)
    monkeypatch.setattr(packages, "qemu_version", lambda: packages.locked().qemu)
    assert row().ok
    monkeypatch.setattr(packages, "qemu_version", lambda: "6.2")
    assert "figures of a guest of its own" in row().detail

    def unable() -> None:
        raise CapabilityError("it needs QEMU", "sudo apt-get install qemu-system-x86")

    monkeypatch.setattr(packages, "require_able", unable)
    assert (row().ok, row().remedy) == (None, "sudo apt-get install qemu-system-x86")


def test_findings_of_this_machine_name_every_tool() -> None:
    found = doctor.findings()
    assert {tool.name for tool in TOOLS} <= {finding.name for finding in found}
    assert doctor.exit_status(found) in (0, 3)


@pytest.mark.kernel
@pytest.mark.long_in_guest
def test_looking_loads_no_module() -> None:
    """On a kernel that has everything as modules, of which some are not loaded."""
    if "XLAB_GUEST" not in os.environ:
        pytest.skip("unloads modules: only in the full-kernel guest")
    # In an order in which nothing is in use by what comes after it.
    unloaded = ["vport_gre", "vport_vxlan", "vport_geneve", "openvswitch", "sch_netem", "sch_tbf"]
    subprocess.run(["modprobe", "--remove", "--all", *unloaded, "tun"], check=True)
    try:
        before = _loaded_modules()
        assert not before & {*unloaded, "tun"}
        found = {finding.name: finding for finding in doctor.findings()}
        assert _loaded_modules() == before
    finally:
        subprocess.run(["modprobe", "--all", *unloaded, "tun"], check=True)
    assert found["Open vSwitch"].ok is None
    assert found["Open vSwitch"].remedy == "sudo modprobe -a openvswitch vport-gre"
    assert "the kernel loads tun" in found["Open vSwitch"].detail
    assert found["link conditions"].remedy == "sudo modprobe sch_netem"
    again = {finding.name: finding for finding in doctor.findings()}
    assert again["Open vSwitch"].ok is True
    assert again["link conditions"].ok is True


def _loaded_modules() -> set[str]:
    return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}


def test_what_the_tutorial_types_is_worth_having() -> None:
    versions = {
        name: v for name, v in VERSIONS.items() if name not in ("ifconfig", "route", "ifup")
    }
    (finding,) = (
        f for f in doctor.diagnose(machine(), versions, NEEDING) if f.name == "what is typed"
    )
    assert (finding.ok, finding.detail) == (None, "ifup, ifconfig, route: not installed")
    assert finding.remedy == "sudo apt-get install ifupdown net-tools"
