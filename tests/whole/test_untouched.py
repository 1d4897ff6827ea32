"""The machine is never touched: before, during and after a run its own namespaces are the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.support.labs import (
    PATIENCE_S,
    Run,
    all_pids,
    link_target,
    machine,
    names_in,
    run_in_sandbox,
)
from xlab.kernel.processes import wait_until
from xlab.lab import underlay
from xlab.lab.capture import Capture
from xlab.lab.docker import DaemonOptions
from xlab.lab.lab import OUTSIDE, Lab
from xlab.scenario.request import Request

pytestmark = [pytest.mark.sandbox, pytest.mark.kernel, pytest.mark.long_in_guest]

#: Settings the kernel changes by itself; everything else below net and kernel must stay as it was.
_VOLATILE = {
    "kernel/ns_last_pid",  # counts processes
    "kernel/perf_event_max_sample_rate",  # lowered when sampling takes long
    "kernel/pty/nr",
    "kernel/random",  # entropy, and a new UUID at every look
    "net/netfilter/nf_conntrack_count",
}

#: The six kinds that a sandbox has for itself; a user namespace only where it is made without root.
_PRIVATE = ("pid", "mnt", "net", "uts", "ipc")


@pytest.mark.parametrize("scenario", [pytest.param("bridge", marks=pytest.mark.slow), "ovs-gre"])
def test_a_run_leaves_the_machine_alone(
    scenario: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if scenario == "ovs-gre":
        request.getfixturevalue("open_vswitch")
    run_in_sandbox(use_what_the_kernel_loads_by_itself)
    before, groups = snapshot(), cgroups()

    during = looks = 0
    with Run(Request(scenario, quick=True), tmp_path / "results") as run:
        for event in run:
            looks += 1
            if event["kind"] not in ("step", "claim", "path") or looks % 3:
                continue  # a look takes as long as a claim
            first = run.first_process()
            assert changes(before) == {}
            outside = outside_a_lab(run)
            # It counts if the lab was there all the time; later the caller asks tools for versions.
            if first is not None and run.first_process() == first:
                assert outside == [run.pid]
                during += 1
        assert run.finish()["status"] == "passed"
        assert run.stderr() == ""
        assert run.processes() == []
    assert during >= 1  # in the guest a snapshot takes seconds
    assert changes(before) == {}
    wait_until(
        lambda: not [group for group in cgroups() - groups if is_empty(group)],
        timeout_s=PATIENCE_S,
        awaited="no new control group without processes",
    )


def changes(before: dict[str, Any]) -> dict[str, Any]:
    """What is not as it was: what has gone and what has come, by its kind."""
    now = snapshot()
    return {
        kind: [x for x in items(before[kind]) if x not in items(now[kind])]
        + ["->", *(x for x in items(now[kind]) if x not in items(before[kind]))]
        for kind in before
        if before[kind] != now[kind]
    }


def items(value: Any) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else list(value or [])


def use_what_the_kernel_loads_by_itself() -> None:
    """Bridges, Docker's rules, a capture, an address translated: modules that come with first use.

    Where Open vSwitch has its kernel datapath, it asks for one of conntrack's when it starts.  That
    they are loaded then is the kernel's doing; nothing else may be loaded later.
    """
    kernel = machine().ovs_datapath.live
    lab = Lab(underlay.describe(None, hosts=2), ovs="kernel" if kernel else None)
    lab.give_addresses(IPv4Network("10.0.0.0/24"), first=1, gateway=254)
    host = lab.hosts[0]
    host.docker.start(DaemonOptions(forward_policy="drop"))
    if kernel:
        host.ovs.add_bridge("obr0")
    with Capture(lab.wire, lab.physical_link(host)):
        host.docker.run("c1").run(["ping", "-n", "-c1", "-w10", str(OUTSIDE)])


def outside_a_lab(run: Run) -> list[int]:
    """The processes of a run that share any namespace with the machine's own."""
    ours = {kind: link_target(f"/proc/self/ns/{kind}") for kind in _PRIVATE}
    return [
        pid
        for pid in run.processes()
        if any(link_target(f"/proc/{pid}/ns/{kind}") == ours[kind] for kind in _PRIVATE)
    ]


def cgroups() -> set[str]:
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup")}


def is_empty(group: str) -> bool:
    """Whether nobody is in a control group or below: other programs' hold their processes."""
    folders = [folder for folder, _, _ in os.walk(group)]
    return bool(folders) and not any(
        read(f"{folder}/cgroup.procs") for folder in folders if Path(folder).exists()
    )


# -- the machine as it is --------------------------------------------------------------------------


def snapshot() -> dict[str, Any]:
    """All that a lab could leave in the root namespaces, by what it is."""
    return {
        "interfaces": listed("ip", "-details", "-json", "link"),
        "addresses": listed("ip", "-json", "address"),
        "routes": listed("ip", "-json", "-4", "route", "show", "table", "all"),
        "routes, IPv6": listed("ip", "-json", "-6", "route", "show", "table", "all"),
        "rules": listed("ip", "-json", "-4", "rule") + listed("ip", "-json", "-6", "rule"),
        "queueing disciplines": listed("tc", "-json", "qdisc"),
        "firewall": firewall(),
        "sysctls": sysctls(),
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "named namespaces": names_below("/run/netns"),
        "/run": names_below("/run"),
        "/dev": names_in("/dev"),
        "shared memory": names_below("/dev/shm"),
        "Open vSwitch": names_below("/var/lib/openvswitch") + names_below("/etc/openvswitch"),
        "modules": sorted(line.split()[0] for line in read("/proc/modules").splitlines()),
    }


def firewall() -> list[Any] | None:
    """The rules of nftables; only root may see them."""
    if os.geteuid() != 0 or not shutil.which("nft"):
        return None
    return listed("nft", "--json", "list", "ruleset")


def listed(*argv: str) -> list[Any]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    listing = json.loads(done.stdout or "[]")
    if isinstance(listing, dict):  # nft wraps its list
        (listing,) = listing.values()
    without_clocks: list[Any] = _without_clocks(listing)
    return without_clocks


def _without_clocks(value: Any) -> Any:
    """Lifetimes of addresses and routes count down by themselves."""
    clocks = {"valid_life_time", "preferred_life_time", "expires"}
    if isinstance(value, dict):
        return {key: _without_clocks(v) for key, v in value.items() if key not in clocks}
    if isinstance(value, list):
        return [_without_clocks(v) for v in value]
    return value


def sysctls() -> dict[str, str]:
    found = {}
    for top in ("net", "kernel"):
        for folder, _, names in os.walk(f"/proc/sys/{top}"):
            for name in names:
                key = f"{folder.removeprefix('/proc/sys/')}/{name}"
                if key not in _VOLATILE and folder.removeprefix("/proc/sys/") not in _VOLATILE:
                    found[key] = read(f"{folder}/{name}")
    return found


def read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        return f"({error.strerror})"


def names_below(folder: str) -> list[str]:
    return sorted(f"{path}/{name}" for path, _, names in os.walk(folder) for name in names)


# -- the snapshot itself ---------------------------------------------------------------------------


def test_the_snapshot_would_show_it() -> None:
    """Interface, address, route, rule, sysctl, mount, name in /run: a lab's own differ visibly."""

    def changed() -> list[str]:
        before = snapshot()
        subprocess.run(
            ["sh", "-ec", """
                ip link add leak type veth peer name leak2
                ip addr add 192.0.2.1/24 dev leak; ip link set leak up
                ip route add 198.51.100.0/24 dev leak; ip rule add from 192.0.2.9 table 7
                echo 1 >/proc/sys/net/ipv4/ip_forward
                mkdir /run/netns; : >/run/netns/leak; mount -t tmpfs leak /run/netns
            """],
            check=True,
        )  # fmt: skip
        after = snapshot()
        return [name for name in before if before[name] != after[name]]

    assert {"interfaces", "addresses", "routes", "rules", "sysctls", "mounts"} <= set(
        run_in_sandbox(changed)
    )


def test_no_process_here_belongs_to_no_run(tmp_path: Path) -> None:
    """The mark is a run's own: nobody else's processes carry it."""
    with Run(Request("baseline", quick=True), tmp_path / "results") as run:
        next(iter(run))
        assert run.pid in run.processes()
        assert run.pid in all_pids()
        assert os.getpid() not in run.processes()
