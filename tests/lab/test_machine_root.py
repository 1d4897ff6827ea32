"""A host's own disk: what is changed there is changed nowhere else, and outlives a power cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.deep import nested
from tests.support.labs import PATIENCE_S, ROOT, run_in_sandbox, sandboxed
from xlab.kernel import foreign, syscalls
from xlab.lab import counters, machine_root, underlay
from xlab.lab.lab import Lab

pytestmark = pytest.mark.sandbox

#: All that people do to files in /etc: append, edit in place, rename, remove, and make again.
_CHANGES = """
set -e
echo appended >> /etc/passwd
sed -i 's/^root:/toor:/' /etc/group
mv /etc/hosts /etc/hosts.old
rm -r /etc/default
mkdir /etc/default /var/lib/mine
touch /etc/default/docker /var/lib/mine/file /var/lib/openvswitch/conf.db /var/log/mine /root/mine
"""
_LOOK = """
tail -n1 /etc/passwd; head -c5 /etc/group; ls -d /etc/hosts; ls /etc/default | head -n1
ls -d /var/lib/mine/file /var/lib/openvswitch/conf.db /var/log/mine /root/mine
"""
_CHANGED = (
    "appended\ntoor:docker\n"
    "/root/mine\n/var/lib/mine/file\n/var/lib/openvswitch/conf.db\n/var/log/mine\n"
)


def build(*, own_disks: bool = True) -> Lab:
    return Lab(underlay.describe(None, hosts=2), own_disks=own_disks)


def look(lab: Lab, host: int) -> str:
    return lab.hosts[host].run(["sh", "-c", _LOOK], check=False).stdout


def test_a_disk_is_gone_through_however_deep_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root may have made a folder in a folder, deeper than Python calls."""
    monkeypatch.setattr(machine_root, "_DISKS", tmp_path)
    root = tmp_path / "h1/root"
    root.parent.mkdir()
    with nested(root, 1500):
        (root / "before").write_text("a")
        (root / "z").mkdir()
        (root / "z/after").write_text("b")
        (root / "z/link").symlink_to("/etc")
        changed = machine_root.changed("h1")
        assert changed == {"/root/before": "a", "/root/z/after": "b"}
        machine_root.discard("h1")
        assert not root.parent.exists()


@sandboxed
def test_a_file_of_a_host_is_written_whatever_has_its_place() -> None:
    """There it is an overlay, which moves no folder of its lower layer (EXDEV)."""
    unit = Path("/usr/lib/systemd/system/docker.service")
    # As where docker is emulated: an ordinary user owns no folder of the machine's /usr, but
    # what lies on top of it.
    (machine_root.TOOLS / unit.parent.relative_to("/usr")).mkdir(parents=True)
    h1 = build().hosts[0]
    h1.run(["true"])
    with h1.entered(), nested(unit, 1500):
        (unit / "d/link").symlink_to("/etc")
        foreign.put(unit, b"ours")
        assert unit.read_bytes() == b"ours"
        assert Path("/etc/passwd").exists()


@sandboxed
def test_python_runs_there_wherever_it_is() -> None:
    """Below /root as well, which is the host's own: pyenv and checkouts of root's are."""
    h1 = build().hosts[0]
    modules = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = h1.run([sys.executable, "-P", "-c", "import numpy, xlab.weave"], env=modules)
    assert done.returncode == 0
    h1.run(["touch", "/root/mark"])
    assert not os.path.exists("/root/mark")  # noqa: PTH110 - an ordinary user may not even look


@sandboxed
def test_a_mount_below_another_is_not_in_the_way(tmp_path: Path) -> None:
    """As in a container: its engine hides /proc/acpi, and then a lab mounts a /proc over that."""
    covered = tmp_path / "proc/acpi"
    covered.mkdir(parents=True)
    for path in (covered, covered.parent):
        syscalls.mount("tmpfs", str(path), "tmpfs")
    covered.mkdir()
    assert build().hosts[0].run(["touch", str(covered / "mine")], check=False).returncode != 0


@sandboxed
def test_what_crosses_the_wire_is_counted_when_a_program_has_run_there() -> None:
    """Its /proc is then of another PID namespace, and knows no thread of ours."""
    lab = build()
    lab.wire.run(["true"])
    lab.hosts[0].add_address("eth0", "10.0.0.1/24")
    before = counters.traffic(lab).packets
    lab.hosts[0].run(["ping", "-c1", "-W1", "10.0.0.2"], check=False)
    assert counters.traffic(lab).packets > before


@sandboxed
def test_what_a_host_changes_nobody_else_sees() -> None:
    lab = build()
    h1, h2 = lab.hosts
    before = {name: Path(name).read_bytes() for name in ("/etc/passwd", "/etc/group")}
    untouched = look(lab, 1)
    h1.run(["sh", "-c", _CHANGES])
    assert look(lab, 0) == _CHANGED
    assert look(lab, 1) == untouched != _CHANGED
    h2.docker.start()
    container = h2.docker.run("c1")
    assert "appended" not in container.run(["cat", "/etc/passwd"]).stdout
    assert {name: Path(name).read_bytes() for name in before} == before
    assert Path("/etc/default").is_dir() == ("ls: " not in untouched)


@sandboxed
def test_it_outlives_a_power_cut() -> None:
    lab = build()
    h1 = lab.hosts[0]
    h1.run(["sh", "-c", _CHANGES])
    identity = h1.run(["cat", "/etc/machine-id"]).stdout
    lab.crash(h1)
    lab.boot(h1)
    assert look(lab, 0) == _CHANGED
    assert h1.run(["cat", "/etc/machine-id"]).stdout == identity
    # What is in memory on any host is gone.
    h1.run(["touch", "/run/mark", "/tmp/mark"])
    lab.crash(h1)
    lab.boot(h1)
    assert "mark" not in h1.run(["ls", "/tmp"]).stdout
    assert "mark" not in h1.run(["ls", "/run"]).stdout


@sandboxed
def test_each_host_knows_who_it_is() -> None:
    lab = build()
    found = [
        host.run(["cat", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]).stdout
        for host in lab.hosts
    ]
    assert found == [f"{name}\n127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n" for name in ("h1", "h2")]
    identities = {host.run(["cat", "/etc/machine-id"]).stdout for host in lab.hosts}
    assert len(identities) == 2
    assert lab.hosts[0].run(["hostname", "-i"]).stdout == "127.0.1.1\n"
    assert lab.hosts[0].run(["stat", "-c", "%a", "/root"]).stdout == "700\n"


@sandboxed
def test_hosts_know_each_other_by_name() -> None:
    lab = build()
    h1, h2 = lab.hosts
    h1.run(["true"])  # one that has its files before there are addresses, and one that has not
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    gateway = "10.211.55.1\tgw"
    for host, known in ((h1, "10.211.55.4\th2"), (h2, "10.211.55.3\th1")):
        lines = host.run(["cat", "/etc/hosts"]).stdout.splitlines()
        assert lines[2:] == [known, gateway]
    assert "(10.211.55.4)" in h1.run(["ping", "-c1", "h2"]).stdout
    h1.run(["sed", "-i", "/gw/d", "/etc/hosts"])
    lab.crash(h1)
    lab.boot(h1)
    assert "gw" not in h1.run(["cat", "/etc/hosts"]).stdout


@sandboxed
def test_names_cost_nothing_where_no_disk_has_them() -> None:
    """Or the cost of a lab grows with the square of its hosts."""

    class Unread(dict[str, IPv4Address]):
        def items(self) -> NoReturn:
            raise AssertionError("somebody has written them all down")

    for host in build(own_disks=False).hosts:
        host.learn_names(Unread(h1=IPv4Address("10.0.0.1"), h2=IPv4Address("10.0.0.2")))


@sandboxed
def test_a_container_knows_its_own_name_and_address_as_docker_writes_them() -> None:
    docker = build().hosts[0].docker
    docker.start()
    first, second = docker.run("c1"), docker.run("c2")
    for container in (first, second):
        assert container.run(["hostname", "-i"]).stdout == f"{container.address}\n"
    before = second.address
    docker.stop(first)
    docker.stop(second)
    docker.start_container(second)
    assert second.address != before
    assert second.run(["hostname", "-i"]).stdout == f"{second.address}\n"


def test_what_a_container_makes_of_its_files_stays_with_it(tmp_path: Path) -> None:
    """Pid 1 writes its /etc/hosts anew, with the rights of whoever has started the lab."""
    victim = tmp_path / "victim"
    victim.write_text("mine")

    def story() -> None:
        docker = build().hosts[0].docker
        docker.start()
        container = docker.run("c1")
        for change in (f"ln -s {victim}", "mkfifo", "mkdir", "true"):
            container.run(["sh", "-c", f"rm -rf /etc/hosts; {change} /etc/hosts"])
            docker.restart(container)
            assert container.run(["hostname", "-i"]).stdout == f"{container.address}\n"

    run_in_sandbox(story, keep=[tmp_path])
    assert victim.read_text() == "mine"


@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_a_host_without_its_database_starts_with_an_empty_one() -> None:
    lab = Lab(underlay.describe(None, hosts=2), own_disks=True, ovs="userspace")
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    h1, h2 = lab.hosts
    for change in ("true", "mkfifo", "ln -s /dev/zero"):
        h1.ovs.add_bridge("obr0")
        database = "/run/openvswitch/conf.db"
        h1.run(["sh", "-c", f"rm {database}; {change} {database}"], check=False)
        lab.crash(h1)
        lab.boot(h1)
        # Its eth0 was in there, too.
        assert h1.ovs.ports() == ["eth0 internal", "p1 internal"]
        assert h1.run(["ping", "-n", "-c1", "-W5", str(h2.address)]).returncode == 0


@pytest.mark.usefixtures("open_vswitch")
@sandboxed
def test_eth0_of_open_vswitch_has_the_mtu_of_the_network_after_a_boot_too() -> None:
    lab = Lab(underlay.describe(None, hosts=2), own_disks=True, ovs="userspace", mtu=1400)
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    h1 = lab.hosts[0]
    for _ in range(2):
        assert h1.run(["cat", "/sys/class/net/eth0/mtu"]).stdout == "1400\n"
        too_long = h1.run(["ping", "-c1", "-Mdo", "-s1373", "10.211.55.1"], check=False)
        assert "essage too long" in too_long.stdout + too_long.stderr
        lab.crash(h1)
        lab.boot(h1)


@sandboxed
def test_a_lab_that_is_only_run_has_none_of_it() -> None:
    lab = build(own_disks=False)
    mounts = lab.hosts[0].run(["cat", "/proc/self/mountinfo"]).stdout
    assert "/etc" not in [line.split()[4] for line in mounts.splitlines()]


@sandboxed
def test_in_a_guarded_lab_people_s_files_can_only_be_read() -> None:
    """Its scripts may be anybody's."""
    for place in filter(Path.is_dir, map(Path, machine_root.PEOPLES)):
        syscalls.mount("tmpfs", str(place), "tmpfs")
        (place / "theirs").write_text("kept")
    there = [str(place / "theirs") for place in map(Path, machine_root.PEOPLES) if place.is_dir()]
    assert there
    append = ["sh", "-c", 'for each; do echo more >>"$each"; done; cat "$@"', "sh", *there]
    guarded = Lab(underlay.describe(None, hosts=2), own_disks=True, guarded=True)
    h1 = guarded.hosts[0]
    for _ in range(2):
        for node in (h1, guarded.gateway, guarded.wire):
            assert node.run(append, check=False).stdout == "kept" * len(there)
        guarded.crash(h1)
        guarded.boot(h1)
    assert build().hosts[0].run(append).stdout == "keptmore\n" * len(there)


_BY_AN_ORDINARY_USER = """""
import json, sys
from tests.lab.test_machine_root import _CHANGES, build, look
from xlab.sandbox import sandbox
from xlab.sandbox.launching import run_inside

def tell():
    lab = build()
    untouched = look(lab, 1)
    lab.hosts[0].run(["sh", "-c", _CHANGES])
    return [sandbox.kind(), look(lab, 0), look(lab, 1) == untouched]

print(json.dumps(run_inside(tell).result))
"""


def test_an_ordinary_user_has_such_hosts_too(ordinary: tuple[list[str], Path]) -> None:
    """They own nothing in the machine's /etc: what overlays make of that must not be seen."""
    argv, folder = ordinary
    done = subprocess.run(
        [*argv, "-c", _BY_AN_ORDINARY_USER],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["rootless", _CHANGED, True]
