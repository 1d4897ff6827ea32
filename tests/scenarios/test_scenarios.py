"""The scenarios, whole: built, checked and proved, from the request to the record; not measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

import xlab
from tests.support.labs import (
    Run,
    interfaces,
    machine,
    sandboxed,
    why_no_open_vswitch,
    why_no_sandbox,
)
from xlab.errors import CapabilityError
from xlab.lab import underlay
from xlab.lab.lab import Host, Lab
from xlab.lab.reachability import unreachable
from xlab.record import record
from xlab.record.record import Claim, RunRecord
from xlab.scenario.request import Request

pytestmark = pytest.mark.sandbox

needs_open_vswitch = pytest.mark.usefixtures("open_vswitch")


#: What each variant asks for; they run side by side, since a run is mostly waiting for answers.
VARIANTS: dict[str, dict[str, Any]] = {
    # The longest comes first.
    "bridge, measured": {"measure": True, "duration_s": 1, "repeat": 1},
    "baseline": {},
    "baseline, three hosts": {"hosts": 3, "containers": 1},
    "baseline, tree": {"topo": "tree,2,2"},
    "baseline, jumbo": {"mtu": 9000},
    "bridge": {},
    "bridge, drop": {"settings": {"forward": "drop"}},
    "bridge, docker 28": {"settings": {"docker": "28"}},
    "bridge, notes": {"settings": {"fixed-cidr": "notes"}},
    "bridge, three hosts": {"hosts": 3},
    "bridge, linear": {"topo": "linear,3", "containers": 1},
    "bridge, mtu 1400": {"mtu": 1400},
    "bridge, jumbo": {"mtu": 9000},
    "bridge, 8 x 4": {"hosts": 8, "containers": 4},
    "bridge, 8 x 4 again": {"hosts": 8, "containers": 4},
    "ovs-gre": {},
    "ovs-gre, underlay": {"settings": {"routes": "underlay"}},
    "ovs-gre, drop": {"settings": {"forward": "drop"}},
    "ovs-gre, underlay, drop": {"settings": {"routes": "underlay", "forward": "drop"}},
    "ovs-gre, three hosts": {"hosts": 3},
    "ovs-gre, linear": {"topo": "linear,3", "containers": 1},
    "ovs-gre, mtu 1400": {"mtu": 1400},
    # These fail, and must.
    "bridge; no fixed-cidr": {"settings": {"fixed-cidr": "none"}, "hurry": True},
    "bridge; notes, docker 28": {
        "settings": {"fixed-cidr": "notes", "docker": "28"},
        "hurry": True,
    },
}
AT_ONCE = 4


def named(scenario: str) -> list[str]:
    return [name for name in VARIANTS if scenario_of(name) == scenario and ";" not in name]


def scenario_of(variant: str) -> str:
    return re.split("[,;]", variant)[0]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunRecord]:
    """The record of a variant, by its name; raises what its run raised."""
    folder = tmp_path_factory.mktemp("variants")
    possible = [name for name in VARIANTS if can_run(scenario_of(name))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            name: pool.submit(run, folder / str(n), scenario_of(name), **VARIANTS[name])
            for n, name in enumerate(possible)
        }
    return lambda name: futures[name].result()


def can_run(scenario: str) -> bool:
    return scenario != "ovs-gre" or not why_no_open_vswitch()


def run(
    results: Path, scenario: str, *, hurry: bool = False, measure: bool = False, **asked: Any
) -> RunRecord:
    """The record of a run, as it was written; nothing was printed and the exit status fits."""
    request = Request(scenario, quick=True, **asked)
    patience_s = 1.0 if hurry else None
    with Run(request, results, measure=measure, claim_patience_s=patience_s) as running:
        finished = running.finish()
        assert running.stderr() == ""
        found = record.load(Path(finished["folder"]))
        assert running.wait() == {"passed": 0, "failed": 1, "skipped": 3}[found.status]
        told = [event for event in running.events if event["kind"] == "claim"]
    assert (found.status, found.reason) == (finished["status"], finished["reason"])
    assert [claim.id for claim in found.claims] == [event["id"] for event in told]
    return found


def broken(found: RunRecord) -> list[str]:
    return [claim.id for claim in found.claims if not claim.holds]


def claim_of(found: RunRecord, name: str) -> Claim:
    (claim,) = [claim for claim in found.claims if claim.id == name]
    return claim


def assert_passed(found: RunRecord, encapsulation: str) -> None:
    assert (found.status, found.reason, broken(found)) == ("passed", "", [])
    assert found.claims
    assert len({claim.id for claim in found.claims}) == len(found.claims)
    path = found.path
    assert path is not None
    assert (path.encapsulation, path.proved, path.negative_control) == (encapsulation, True, True)
    seen = {
        kind: getattr(path.underlay_packets, kind) for kind in ("none", "gre", "vxlan", "sleeve")
    }
    assert seen == {kind: 20 if kind == encapsulation else 0 for kind in seen}


# -- each, in its variants -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", named("baseline"))
def test_baseline(variant: str, records: Callable[[str], RunRecord]) -> None:
    found = records(variant)
    assert_passed(found, "none")
    assert found.path is not None
    assert found.path.effective_mtu == VARIANTS[variant].get("mtu", 1500)
    assert found.environment.datapath == "linux bridge"


@pytest.mark.parametrize("variant", named("bridge"))
def test_bridge(variant: str, records: Callable[[str], RunRecord]) -> None:
    found = records(variant)
    assert_passed(found, "none")
    assert found.path is not None
    assert found.path.overhead_bytes == 0
    assert found.path.effective_mtu == VARIANTS[variant].get("mtu", 1500)


def test_every_probe_measures_every_route(records: Callable[[str], RunRecord]) -> None:
    """The method, host to host through the same datapath, and two plain hosts beside them."""
    found = records("bridge, measured")
    metrics = {
        route: {m.metric for m in found.measurements if m.route == route}
        for route in ("method", "control", "baseline")
    }
    assert metrics["method"] == metrics["control"] == metrics["baseline"]
    assert metrics["method"] >= {
        "icmp_rtt_ms", "tcp_rr_latency_ms", "tcp_bits_per_second", "udp_bits_per_second",
        "udp_loss_ratio", "cpu_seconds_per_gigabyte",
    }  # fmt: skip
    for measurement in found.measurements:
        assert measurement.samples or measurement.failed_samples, measurement
        assert measurement.round == 1
    directions = {m.route: m.direction for m in found.measurements}
    assert directions == {
        "method": "h1/c1 > h2/c1", "control": "h1 > h2", "baseline": "plain1 > plain2"
    }  # fmt: skip
    assert found.timings_s.measure > 0
    assert records("bridge").measurements == ()


@pytest.mark.parametrize("variant", named("ovs-gre"))
@needs_open_vswitch
def test_ovs_gre(variant: str, records: Callable[[str], RunRecord]) -> None:
    found = records(variant)
    encapsulation = "none" if "underlay" in variant else "gre"
    assert_passed(found, encapsulation)
    assert found.path is not None
    # Outer IPv4, GRE, inner Ethernet: 38 bytes.  br0 has that smaller MTU on either route.
    assert found.path.overhead_bytes == (38 if encapsulation == "gre" else 0)
    assert found.path.effective_mtu == VARIANTS[variant].get("mtu", 1500) - 38
    assert re.match(r"ovs [\d.]+ (kernel|userspace \(netdev\))$", found.environment.datapath)
    # The notes' route bypasses the tunnel whichever way is taken afterwards.
    (bypass,) = [claim for claim in found.claims if "bypasses the tunnel" in claim.text]
    assert (bypass.stage, bypass.observed) == ("with the notes' route", "20 none")
    assert list(dict.fromkeys(claim.stage for claim in found.claims)) == [
        "hosts",
        "before the route",
        *(["FORWARD policy DROP"] if "drop" in variant else []),
        "with the notes' route",
        *(["with the route through the tunnel"] if encapsulation == "gre" else []),
    ]


@needs_open_vswitch
def test_the_inverted_control_says_that_traffic_goes_on(
    records: Callable[[str], RunRecord],
) -> None:
    path = records("ovs-gre, underlay").path
    assert path is not None
    assert path.control_detail == "GRE ports of h1 deleted: 5 of 5 replies; healed: back"


def test_thirty_two_containers_on_eight_hosts(records: Callable[[str], RunRecord]) -> None:
    """Twice, perhaps at once: 1,024 ARP entries are all there are for every namespace together."""
    for name in ("bridge, 8 x 4", "bridge, 8 x 4 again"):
        found = records(name)
        distinct = claim_of(found, "addresses-never-collide")
        assert int(re.findall(r"(\d+) different addresses", distinct.observed)[0]) >= 32
        reach = claim_of(found, "all-containers-reach-each-other")
        assert reach.observed == "992 of 992 pairs answer"
        learnt = claim_of(found, "switch-learns-containers")
        assert learnt.observed == "32 of 32 MACs"


# -- what goes wrong on purpose --------------------------------------------------------------------


def test_without_fixed_cidr_addresses_collide(records: Callable[[str], RunRecord]) -> None:
    found = records("bridge; no fixed-cidr")
    assert found.status == "failed"
    assert broken(found)[0] == "addresses-never-collide"
    assert found.reason.startswith("“no two of the 7 containers, hosts and gateway have the same ")
    collision = claim_of(found, "addresses-never-collide")
    # Docker asks nobody: both hosts count from the subnet's first address.
    assert "h1/c2, h2/c2" in collision.observed
    assert found.measurements == ()


def test_docker_28_and_the_notes_range_collide_with_the_gateway(
    records: Callable[[str], RunRecord],
) -> None:
    """28 ignores a range outside the subnet: the second host hands out the subnet's .1, gw's."""
    found = records("bridge; notes, docker 28")
    assert found.status == "failed"
    assert "addresses-never-collide" in broken(found)
    assert "10.211.55.1" in claim_of(found, "addresses-never-collide").observed


# -- scenario files of one's own -------------------------------------------------------------------

OWN = """
from ipaddress import IPv4Network
from xlab.scenario.scenario import Flow, Option, Scenario

def plan(size, settings):
    return IPv4Network("10.9.0.0/24")

def build(lab, subnet, size, settings, check):
    lab.give_addresses(subnet, first=1, gateway=254)
    h1, h2 = lab.hosts
    check.stage("only")
    check.reaches(h1, h2)
    {line}
    port = lab.physical_link(h1)
    return Flow(h1, h2, (h1, h2), "none", h1, lambda: lab.wire.set_down(port),
                lambda: lab.wire.set_up(port), "cable")

SCENARIO = Scenario("own", "a method of my own", (Option("x", "1", "a number"),), plan, build)
"""


def own_scenario(folder: Path, line: str) -> str:
    path = folder / "own.py"
    path.write_text(OWN.format(line=line))
    return str(path)


def test_a_scenario_of_ones_own(tmp_path: Path) -> None:
    path = own_scenario(tmp_path, "assert settings['x'] == '7'")
    found = run(tmp_path / "results", path, settings={"x": "7"})
    assert_passed(found, "none")
    assert found.scenario == "own"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("h1.run(['ls', '/nowhere'])", r"h1: `ls /nowhere` ended with status 2: ls: cannot access"),
        ("h1.run(['no-such-tool'])", r"`no-such-tool` is not installed"),
        pytest.param(
            "h1.add_address('eth7', '10.0.0.1/24')",
            r"netlink: look up eth7: No such device",
            marks=pytest.mark.slow,
        ),
        ("h1.ovs.add_bridge('obr0')", r"h1 runs no Open vSwitch"),
        pytest.param(
            "h1.docker.run('c1')",
            r"Cannot connect to the Docker daemon",
            marks=pytest.mark.slow,
        ),
        ("1 // 0", r"ZeroDivisionError"),
    ],
)
def test_a_build_that_breaks_is_on_record(tmp_path: Path, line: str, reason: str) -> None:
    path = own_scenario(tmp_path, line)
    found = run(tmp_path / "results", path)
    assert found.status == ("skipped" if "installed" in reason else "failed")
    assert re.search(reason, found.reason, re.DOTALL), found.reason
    # What had been seen until then is kept.
    assert [claim.id for claim in found.claims] == ["h1-reaches-h2"]
    assert found.path is None
    if found.status == "failed":
        (error,) = (tmp_path / "results").glob("*/raw/error.txt")
        assert f'"{path}", line 13, in build' in error.read_text()


# -- the underlay connects -------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["single,5", "linear,5", "linear,3,2", "tree,depth=3,fanout=2"])
@sandboxed
def test_every_host_of_a_topology_reaches_every_other(spec: str) -> None:
    lab = Lab(underlay.describe(spec, hosts=2))
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    nodes = [*lab.hosts, lab.gateway]
    pairs = [(a, b) for a in nodes for b in nodes if a is not b]
    assert unreachable(pairs, timeout_s=20) == []
    assert all(interfaces(host) == ["lo", "eth0"] for host in lab.hosts)


@sandboxed
def test_interfaces_bear_the_names_of_the_topology() -> None:
    lab = Lab(underlay.describe("linear,3", hosts=2))
    assert sorted(interfaces(lab.wire)) == [
        "lo", "s1", "s1-eth1", "s1-eth2", "s1-eth3", "s2", "s2-eth1", "s2-eth2", "s2-eth3",
        "s3", "s3-eth1", "s3-eth2",
    ]  # fmt: skip
    assert lab["h2"] is lab.hosts[1]
    assert lab["gw"] is lab.gateway
    assert (lab.physical_link(lab.hosts[2]), lab.switch_of(lab.hosts[2])) == ("s3-eth1", "s3")
    with pytest.raises(KeyError):
        lab["h4"]


@sandboxed
def test_a_hundred_hosts_on_one_switch() -> None:
    lab = Lab(underlay.describe(None, hosts=100))
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    first, last = lab.hosts[0], lab.hosts[-1]
    assert unreachable([(first, last), (last, first), (last, lab.gateway)], timeout_s=20) == []
    assert len({host.mac_address("eth0") for host in lab.hosts}) == 100


# -- Open vSwitch ----------------------------------------------------------------------------------


def ovs_lab(hosts: int) -> Lab:
    assert why_no_open_vswitch() == ""
    lab = Lab(underlay.describe(None, hosts=hosts), ovs="userspace")
    lab.give_addresses(IPv4Network("192.168.59.0/24"), first=103, gateway=1)
    return lab


@needs_open_vswitch
@sandboxed
def test_a_mesh_of_tunnels_does_not_loop() -> None:
    """Three tunnel ports joined to a ring pass a broadcast on and on, unless they are protected."""
    lab = ovs_lab(3)
    for host in lab.hosts:
        host.ovs.add_bridge("obr0")
        for other in lab.hosts:
            if other is not host:
                host.ovs.add_port(
                    "obr0", f"gre{other.number}", type="gre",
                    options={"remote_ip": str(other.address)}, protected=True,
                )  # fmt: skip
        host.add_address("obr0", f"172.16.0.{host.number}/24")
    addresses = [IPv4Address(f"172.16.0.{host.number}") for host in lab.hosts]
    pairs: list[tuple[Any, Any]] = [
        (host, address)
        for host in lab.hosts
        for number, address in enumerate(addresses, 1)
        if host.number != number
    ]
    for host in lab.hosts:
        host.prefer_address(addresses[host.number - 1])
    assert unreachable(pairs, timeout_s=20) == []
    # An ARP request and a ping each way and pair, not thousands.
    for host in lab.hosts:
        counted = host.run(["cat", "/sys/class/net/obr0/statistics/rx_packets"]).stdout
        assert int(counted) < 200


@needs_open_vswitch
@sandboxed
def test_the_tools_of_open_vswitch_find_the_hosts_own_instance() -> None:
    lab = ovs_lab(2)
    h1, h2 = lab.hosts
    h1.ovs.add_bridge("obr0")
    assert h1.run(["ovs-vsctl", "--timeout=5", "list-br"]).stdout.split() == ["eth0", "obr0"]
    assert h2.run(["ovs-vsctl", "--timeout=5", "list-br"]).stdout.split() == ["eth0"]
    h1.run(["ovs-vsctl", "--timeout=5", "del-br", "obr0"])
    assert "obr0" not in h1.run(["ovs-vsctl", "show"]).stdout
    assert "eth0" in h1.run(["ovs-appctl", "dpif/show"]).stdout
    assert len(h1.daemon_pids()) == 2


@needs_open_vswitch
@sandboxed
def test_a_port_that_cannot_be_made_is_told_in_open_vswitchs_words() -> None:
    h1 = ovs_lab(2).hosts[0]
    h1.ovs.add_bridge("obr0")
    with pytest.raises(Exception, match="h1: Open vSwitch: nowhere: could not open network device"):
        h1.ovs.add_port("obr0", "nowhere")
    with pytest.raises(Exception, match="h1: no port named gre7"):
        h1.ovs.delete_port("obr0", "gre7")


@pytest.mark.parametrize("daemon", ["ovs-vswitchd", "ovsdb-server"])
@needs_open_vswitch
@sandboxed
def test_a_dead_daemon_is_an_error_with_its_log(daemon: str) -> None:
    host: Host = ovs_lab(2).hosts[0]
    host.require_daemons()
    host.ovs.kill(daemon)
    with pytest.raises(Exception, match=rf"h1: {daemon} has ended \(status -9\)") as met:
        host.ovs.add_bridge("obr0")
    assert "--- last lines of its log\n" in str(met.value)
    with pytest.raises(Exception, match=rf"h1: {daemon} has ended"):
        host.require_daemons()


def test_what_open_vswitch_does_not_survive_is_refused() -> None:
    if missing := why_no_sandbox() or why_no_open_vswitch():
        pytest.skip(missing)
    lab = xlab.lab("ovs-gre", settings={"routes": "underlay"}, mtu=2000)
    if machine().ovs_datapath.live:
        with lab:
            return
    with pytest.raises(CapabilityError, match="ends \\(SIGSEGV\\) on large packets"), lab:
        pass
