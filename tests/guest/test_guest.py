"""What the full-kernel guest is for: the kernel has the parts that the tests go there for.

Elsewhere each test runs if that part of the kernel is live, and is skipped with its name if not;
asking loads nothing (xlab/kernel/drivers.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xlab.kernel.drivers import DRIVERS, Driver, Kernel, State, generic_netlink_families

pytestmark = pytest.mark.kernel

CHECKOUT = Path(__file__).parents[2]
IN_GUEST = "XLAB_GUEST" in os.environ


def need(part: str, *, live: bool) -> None:
    """Skip for want of `part`, except in the guest, where it must be there."""
    if not live:
        if IN_GUEST:
            pytest.fail(f"the guest's kernel lacks {part}")
        pytest.skip(f"this kernel has no live {part}")


def need_driver(driver: Driver) -> None:
    need(driver.module, live=Kernel().driver(driver).state is State.YES)


def in_fresh_namespace(script: str) -> str:
    """The output of shell commands in a network namespace of their own, as root there."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_kernel_datapath_of_open_vswitch_is_live() -> None:
    families = generic_netlink_families()
    need("Open vSwitch datapath (module openvswitch)", live="ovs_datapath" in families)
    assert "ovs_vport" in families


def test_netem_delays_what_passes() -> None:
    need_driver(DRIVERS["netem"])
    pinged = in_fresh_namespace(
        """
        ip link set lo up
        tc qdisc add dev lo root netem delay 20ms
        ping -c 3 -i 0.2 127.0.0.1
        """
    )
    # Request and answer both leave through lo.  Emulation adds to a delay and never takes from it.
    fastest_ms = float(re.findall(r"min/avg/max/mdev = ([\d.]+)/", pinged)[0])
    assert fastest_ms >= 40


@pytest.mark.parametrize(
    ("kind", "driver", "options"),
    [
        ("gretap", DRIVERS["ovs_gre"], "local 192.0.2.1 remote 192.0.2.2"),
        (
            "vxlan",
            Driver("vxlan", "CONFIG_VXLAN"),
            "id 7 local 192.0.2.1 remote 192.0.2.2 dstport 4789",
        ),
    ],
)
def test_tunnel_devices_can_be_made(kind: str, driver: Driver, options: str) -> None:
    need_driver(driver)
    shown = in_fresh_namespace(f"ip link add tun7 type {kind} {options}; ip -d link show tun7")
    assert kind in shown


@pytest.mark.sandbox
@pytest.mark.long_in_guest  # traffic at full speed; test_full_kernel has the same without it
@pytest.mark.parametrize(
    ("routes", "encapsulation", "overhead_bytes"), [("tunnel", "gre", 38), ("underlay", "none", 0)]
)
def test_ovs_gre_holds_on_the_kernel_datapath(
    tmp_path: Path, routes: str, encapsulation: str, overhead_bytes: int
) -> None:
    need("Open vSwitch datapath", live="ovs_datapath" in generic_netlink_families())
    options = ["--quick", "--json", "--set", f"routes={routes}", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "xlab", "run", "ovs-gre", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["environment"]["datapath"].endswith("kernel")
    assert [claim["id"] for claim in record["claims"] if not claim["holds"]] == []
    path = record["path"]
    assert path["encapsulation"] == encapsulation
    assert (path["proved"], path["negative_control"]) == (True, True)
    assert path["overhead_bytes"] == overhead_bytes
