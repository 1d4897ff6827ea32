"""The emulated Docker daemon on a real host: addresses, MACs, routes, rules, lifetimes, words."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.support.labs import interfaces, names_in, sandboxed
from xlab.errors import DockerError
from xlab.kernel import processes
from xlab.kernel.packets import decode
from xlab.kernel.processes import Process, wait_until
from xlab.lab import underlay
from xlab.lab.capture import Capture
from xlab.lab.docker import Container, DaemonOptions, ForwardPolicy, RestartPolicy
from xlab.lab.lab import OUTSIDE, Host, Lab
from xlab.lab.node import Node

NOTES = DaemonOptions(bridge="br0", fixed_cidr="10.211.55.64/26")


def host_with_br0(options: DaemonOptions = NOTES) -> Host:
    """A host alone, br0 10.211.55.3/24, the daemon running on it."""
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.add_bridge("br0")
    host.add_address("br0", "10.211.55.3/24")
    host.docker.start(options)
    return host


def last_octets(host: Host) -> list[int]:
    return [container.address.packed[-1] for container in host.containers]


def shown(node: Node, *arguments: str) -> Any:
    return json.loads(node.run(["ip", "-json", *arguments]).stdout)


def pings(source: Node, target: Node | IPv4Address, *options: str) -> bool:
    address = str(target.address if isinstance(target, Node) else target)
    argv = ["ping", "-n", "-c1", *(options or ("-w10",)), address]
    return source.run(argv, check=False, timeout_s=30).returncode == 0


def does_not_ping(source: Node, target: Node | IPv4Address) -> bool:
    return not pings(source, target, "-W0.5")


# -- addresses, on containers that run -------------------------------------------------------------


@sandboxed
def test_addresses_count_from_the_very_first_of_the_range() -> None:
    host = host_with_br0()
    for name in ("c1", "c2", "c3"):
        host.docker.run(name)
    assert last_octets(host) == [64, 65, 66]


@sandboxed
def test_stop_frees_the_address_and_the_lowest_free_one_is_next() -> None:
    host = host_with_br0()
    c1, c2, _ = (host.docker.run(name) for name in ("c1", "c2", "c3"))
    host.docker.stop(c2)
    assert last_octets(host) == [64, 66]
    host.docker.stop(c1)
    assert host.docker.run("c4").address.packed[-1] == 64
    assert host.docker.run("c5").address.packed[-1] == 65
    assert host.docker.run("c6").address.packed[-1] == 67


@sandboxed
def test_start_may_change_the_address() -> None:
    host = host_with_br0()
    c1, c2 = host.docker.run("c1"), host.docker.run("c2")
    host.docker.stop(c2)
    host.docker.stop(c1)
    host.docker.start_container(c2)
    host.docker.start_container(c1)
    assert (c2.address.packed[-1], c1.address.packed[-1]) == (64, 65)
    assert shown(c1, "-4", "address", "show", "eth0")[0]["addr_info"][0]["local"] == "10.211.55.65"


@sandboxed
def test_create_takes_no_address_and_remove_frees_none() -> None:
    host = host_with_br0()
    created = host.docker.create("c1")
    assert created.state == "created"
    assert host.docker.run("c2").address.packed[-1] == 64
    stopped = host.docker.run("c3")
    host.docker.stop(stopped)
    host.docker.remove(stopped)
    assert host.docker.run("c4").address.packed[-1] == 65
    host.docker.start_container(created)
    assert created.address.packed[-1] == 66


@sandboxed
def test_three_runs_in_a_row_get_the_same_address() -> None:
    """`docker run --rm` three times."""
    host = host_with_br0()
    seen = []
    for _ in range(3):
        container = host.docker.run()
        seen.append(container.address.packed[-1])
        host.docker.remove(container, force=True)
    assert seen == [64, 64, 64]


@sandboxed
def test_restart_frees_and_takes() -> None:
    host = host_with_br0()
    c1, c2 = host.docker.run("c1"), host.docker.run("c2")
    host.docker.stop(c1)
    host.docker.restart(c2)
    assert (c2.state, c2.address.packed[-1]) == ("running", 64)


@sandboxed
def test_the_range_runs_out_and_fills_again() -> None:
    host = host_with_br0(DaemonOptions(bridge="br0", fixed_cidr="10.211.55.64/30"))
    for number in range(4):
        host.docker.run(f"c{number}")
    with pytest.raises(DockerError) as met:
        host.docker.run("one-too-many")
    assert re.fullmatch(
        r"docker: Error response from daemon: no available IPv4 addresses on this network's "
        r"address pools: bridge \([0-9a-f]{64}\)\.",
        str(met.value),
    )
    assert met.value.exit_code == 125
    # It stays behind, created and without an address.
    left = host.docker.container("one-too-many")
    assert left.state == "created"
    host.docker.stop(host.docker.container("c2"))
    host.docker.start_container(left)
    assert left.address.packed[-1] == 66


@sandboxed
def test_containers_started_at_once_get_different_addresses() -> None:
    host = host_with_br0()
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(lambda n: host.docker.run(f"c{n}"), range(16)))
    assert sorted(c.address.packed[-1] for c in started) == list(range(64, 80))
    assert len({c.host_interface for c in started}) == 16


# -- what a container has --------------------------------------------------------------------------


@sandboxed
def test_the_mac_is_made_of_the_address() -> None:
    host = host_with_br0()
    container = host.docker.run("c1")
    assert container.mac == "02:42:0a:d3:37:40"
    assert container.mac_address("eth0") == container.mac


@sandboxed
def test_from_version_28_on_macs_are_random() -> None:
    host = host_with_br0(DaemonOptions(bridge="br0", version=28))
    macs = [host.docker.run(f"c{number}").mac_address("eth0") for number in range(4)]
    assert len(set(macs)) == 4
    for mac in macs:
        assert not mac.startswith("02:42:0a:d3:37")
        assert int(mac[:2], 16) & 0b11 == 0b10  # unicast, locally administered


@sandboxed
def test_the_prefix_is_the_bridges_and_so_is_the_gateway() -> None:
    container = host_with_br0().docker.run("c1")
    routes = [(r["dst"], r.get("gateway"), r["dev"]) for r in shown(container, "route")]
    assert routes == [("default", "10.211.55.3", "eth0"), ("10.211.55.0/24", None, "eth0")]
    local = shown(container, "route")[1]
    assert (local["scope"], local["prefsrc"]) == ("link", "10.211.55.64")


@sandboxed
def test_default_gateway() -> None:
    options = DaemonOptions(bridge="br0", default_gateway="10.211.55.1")
    host = host_with_br0(options)
    container = host.docker.run("c1")
    assert shown(container, "route")[0]["gateway"] == "10.211.55.1"
    assert container.address.packed[-1] == 2  # .1 is the gateway's


@sandboxed
def test_a_bridge_without_an_address_becomes_dockers_own() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.add_bridge("br0")
    host.docker.start(DaemonOptions(bridge="br0"))
    assert str(host.device_address("br0")) == "172.17.0.1/16"
    assert str(host.docker.run("c1").interface_address) == "172.17.0.2/16"


@sandboxed
def test_bip_replaces_the_address_of_docker0() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.docker.start()
    assert str(host.device_address("docker0")) == "172.17.0.1/16"
    host.docker.start(DaemonOptions(bip="192.168.1.5/24"))
    found = shown(host, "-4", "address", "show", "docker0")[0]["addr_info"]
    assert [(a["local"], a["prefixlen"]) for a in found] == [("192.168.1.5", 24)]
    assert str(host.docker.run("c1").interface_address) == "192.168.1.1/24"


@sandboxed
def test_the_mtu_is_the_daemons() -> None:
    host = host_with_br0(DaemonOptions(bridge="br0", mtu=1462))
    container = host.docker.run("c1")
    assert shown(container, "link", "show", "eth0")[0]["mtu"] == 1462


@sandboxed
def test_a_container_sees_the_machines_files_and_cannot_change_them() -> None:
    container = host_with_br0().docker.run("c1")
    for path in ("/etc/xlab-test", "/usr/xlab-test", "/xlab-test", "/var/xlab-test"):
        refused = container.run(["touch", path], check=False)
        assert refused.returncode != 0, path
        assert "Read-only" in refused.stderr or "Permission denied" in refused.stderr
    for path in ("/tmp/file", "/run/file"):
        container.run(["touch", path])
    assert container.run(["cat", "/etc/passwd"]).stdout.startswith("root:")


@sandboxed
def test_tmp_is_the_containers_own() -> None:
    host = host_with_br0()
    c1, c2 = host.docker.run("c1"), host.docker.run("c2")
    for node in (c1, c2, host):
        node.run(["touch", f"/tmp/of-{node.name.replace('/', '-')}"])
    # Beside it may lie what Python needs, where the environment is below /tmp.
    for node in (c1, c2, host):
        names = node.run(["ls", "/tmp"]).stdout.split()
        assert [n for n in names if n.startswith("of-")] == [f"of-{node.name.replace('/', '-')}"]


@sandboxed
def test_a_container_is_called_by_its_id() -> None:
    container = host_with_br0().docker.run("c1")
    assert container.run(["hostname"]).stdout.strip() == container.id[:12]
    assert re.fullmatch("[0-9a-f]{64}", container.id)
    assert container.name == "h1/c1"


@sandboxed
def test_processes_of_another_container_and_of_the_host_are_invisible() -> None:
    host = host_with_br0()
    c1, c2 = host.docker.run("c1", command=["sleep", "1000"]), host.docker.run("c2")
    assert c1.run(["ps", "-e", "-o", "pid=,comm="]).stdout.split()[:2] == ["1", "sleep"]
    for other in (c2, host):
        assert "sleep" not in other.run(["ps", "-e", "-o", "comm="]).stdout


# -- lifetimes -------------------------------------------------------------------------------------


@sandboxed
def test_when_the_main_process_ends_the_container_stops() -> None:
    host = host_with_br0()
    other = host.docker.run("c1")
    main = "mkfifo /run/go; read line </run/go; exit 3"
    container = host.docker.run("c2", command=["sh", "-c", main])
    assert last_octets(host) == [64, 65]
    go = "until [ -p /run/go ]; do sleep 0.01; done; echo >/run/go"
    container.run(["sh", "-c", go], check=False)  # it may be killed with the container
    wait_until(lambda: container.state == "exited", timeout_s=30, awaited="the container's end")
    assert container.exit_code == 3
    assert host.containers == [other]
    assert host.docker.run("c3").address.packed[-1] == 65


@sandboxed
def test_the_exit_code_is_the_main_processes() -> None:
    host = host_with_br0()
    for code in (0, 3):
        container = host.docker.run(command=["sh", "-c", f"exit {code}"])
        wait_until(lambda c=container: c.state == "exited", timeout_s=30, awaited="the end")  # type: ignore[misc]
        assert container.exit_code == code


@sandboxed
def test_a_main_process_that_ends_at_once_frees_everything() -> None:
    host = host_with_br0()
    for _ in range(30):
        host.docker.run(command=["true"])
    wait_until(lambda: not host.containers, timeout_s=30, awaited="the end of all containers")
    assert host.docker.run("last").address.packed[-1] == 64
    ports = [name for name in host.interfaces() if name.startswith("veth")]
    assert ports == [host.docker.container("last").host_interface]


@sandboxed
def test_a_main_process_may_have_ended_before_anybody_looks() -> None:
    """On a busy machine whoever starts it goes on when it has been reaped."""
    host = host_with_br0()
    spawn = processes.spawn

    def late(argv: Sequence[str], **more: Any) -> Process:
        process = spawn(argv, **more)
        process.wait(30)
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "spawn", late)
        container = host.docker.run(command=["false"])
    wait_until(lambda: not host.containers, timeout_s=30, awaited="the end of the container")
    assert container.state == "exited"


@sandboxed
def test_stop_ends_every_process_and_takes_the_interface_away() -> None:
    host = host_with_br0()
    container = host.docker.run("c1", command=["sleep", "1000"])
    background = container.spawn(["sleep", "1000"])
    port = container.host_interface
    assert port in host.interfaces()
    host.docker.stop(container)
    assert background.wait(30) < 0
    assert port not in host.interfaces()
    assert container.state == "exited"
    with pytest.raises(DockerError, match=f"container {container.id} is not running"):
        container.run(["true"])
    host.docker.stop(container)  # once more changes nothing
    host.docker.start_container(container)
    assert container.run(["ps", "-e", "-o", "comm="]).stdout.split()[0] == "sleep"


@sandboxed
def test_starting_what_runs_changes_nothing() -> None:
    host = host_with_br0()
    container = host.docker.run("c1")
    host.docker.start_container(container)
    assert container.address.packed[-1] == 64
    assert host.docker.run("c2").address.packed[-1] == 65


@sandboxed
def test_a_restart_policy_counts_when_the_daemon_starts() -> None:
    """As `docker run --restart` has them; what was only created was never started by anybody."""
    host = host_with_br0()
    policies: list[RestartPolicy] = ["no", "always", "unless-stopped", "always", "unless-stopped"]
    containers = [host.docker.run(f"c{n}") for n in range(len(policies))]
    created = host.docker.create("created")
    for container, policy in zip([*containers, created], [*policies, "always"], strict=True):
        container.restart_policy = policy
    for container in containers[3:]:
        host.docker.stop(container)
    host.docker.shut_down()
    host.docker.start(NOTES)
    assert host.docker.containers == [containers[number] for number in (1, 2, 3)]
    assert last_octets(host) == [64, 65, 66]
    host.docker.start_container(containers[4])
    host.docker.crash()
    host.docker.start(NOTES)
    assert host.docker.containers == containers[1:]


@sandboxed
def test_stopping_lets_go_of_every_descriptor() -> None:
    host = host_with_br0()
    container = host.docker.run("c1")
    container.run(["true"])
    host.docker.stop(container)
    before = len(names_in("/proc/self/fd"))
    for _ in range(5):
        host.docker.start_container(container)
        container.run(["true"])
        host.docker.stop(container)
    assert len(names_in("/proc/self/fd")) <= before


# -- the daemon's words ----------------------------------------------------------------------------

_START = "failed to start daemon: "
_CONTROLLER = _START + "Error initializing network controller: "
_NETWORK = _CONTROLLER + 'error creating default "bridge" network: '


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DaemonOptions(fixed_cidr="foo"), f"{_CONTROLLER}invalid CIDR address: foo"),
        (DaemonOptions(bip="192.168.1.5"), f"{_CONTROLLER}invalid CIDR address: 192.168.1.5"),
        (
            DaemonOptions(bridge="br7"),
            _NETWORK + "bridge device with non default name br7 must be created manually",
        ),
        (
            DaemonOptions(bridge="br0", bip="10.0.0.1/24"),
            _START
            + "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ),
        (
            DaemonOptions(bridge="br0", default_gateway="10.99.0.1"),
            _NETWORK + "auxiliary address: (DefaultGatewayIPv4:10.99.0.1) must belong to the "
            "master pool: 10.211.55.0/24",
        ),
    ],
)
@sandboxed
def test_what_dockerd_refuses_it_refuses_in_its_words(options: DaemonOptions, words: str) -> None:
    host = host_with_br0()
    with pytest.raises(DockerError) as met:
        host.docker.start(options)
    assert str(met.value) == words
    # Nothing was changed: no docker0, no address.
    assert interfaces(host) == ["lo", "br0"]
    assert str(host.device_address("br0")) == "10.211.55.3/24"


@sandboxed
def test_the_client_says_what_docker_says() -> None:
    # Names that no ID begins with: as a prefix one ID in 256 would be found by "c1".
    host = host_with_br0()
    first = host.docker.run("web")
    with pytest.raises(DockerError, match='The container name "/web" is already in use') as met:
        host.docker.run("web")
    assert first.id in str(met.value)
    assert met.value.exit_code == 125
    with pytest.raises(DockerError, match="Invalid container name") as met:
        host.docker.run("we b")
    assert met.value.exit_code == 125
    with pytest.raises(DockerError, match='cannot remove container "/web": container is running'):
        host.docker.remove(first)
    with pytest.raises(DockerError, match="No such container: none"):
        host.docker.container("none")
    assert host.docker.container(first.id[:12]) is first
    # A name that is the beginning of another's ID.
    named = host.docker.run(first.id[:4])
    assert host.docker.container(first.id[:4]) is named
    named.id = first.id[:20] + named.id[20:]
    with pytest.raises(DockerError, match="Multiple IDs found with provided prefix"):
        host.docker.container(first.id[:12])
    with pytest.raises(DockerError, match=r"No such container: $"):
        host.docker.container("")
    host.docker.remove(first, force=True)
    with pytest.raises(DockerError, match="No such container: web"):
        host.docker.container("web")


@sandboxed
def test_without_a_daemon_nothing_runs() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    with pytest.raises(DockerError, match="Is the docker daemon running"):
        host.docker.run("c1")


@sandboxed
def test_what_is_only_created_runs_nothing() -> None:
    container = host_with_br0().docker.create("c1")
    with pytest.raises(DockerError, match=f"container {container.id} is not running"):
        container.run(["true"])


@sandboxed
def test_a_container_without_its_program() -> None:
    """Docker: exit code 127, and the container does not run."""
    host = host_with_br0()
    container = host.docker.run("c1", command=["no-such-program"])
    wait_until(lambda: container.state == "exited", timeout_s=30, awaited="the container's end")
    assert container.exit_code == 127


# -- packets: two hosts, their containers routed over eth0, as in the notes ------------------------


class TwoHosts:
    """h1 192.168.59.103 with 192.168.1.0/24, h2 192.168.59.104 with 192.168.2.0/24, routed."""

    def __init__(self, policy: ForwardPolicy = "accept") -> None:
        self.lab = Lab(underlay.describe(None, hosts=2))
        self.lab.give_addresses(IPv4Network("192.168.59.0/24"), first=103, gateway=1)
        self.h1, self.h2 = self.lab.hosts
        for host in self.lab.hosts:
            host.docker.start(
                DaemonOptions(bip=f"192.168.{host.number}.1/24", forward_policy=policy)
            )
        self.c1, self.c2 = self.h1.docker.run("c1"), self.h2.docker.run("c2")
        self.h1.add_route("192.168.2.0/24", via=self.h2.address, dev="eth0")
        self.h2.add_route("192.168.1.0/24", via=self.h1.address, dev="eth0")

    def sources(self, sender: Container, target: Node | IPv4Address) -> set[str]:
        """The addresses that pings bear on the wire at h1."""
        to = target.address if isinstance(target, Node) else target
        with Capture(self.lab.wire, self.lab.physical_link(self.h1)) as capture:
            assert pings(sender, to)
        seen = [decode(frame).outer for _, frame in capture.frames]
        return {str(ip.source) for ip in seen if ip and ip.protocol == 1 and ip.destination == to}


@sandboxed
def test_on_the_wire_a_container_bears_its_hosts_address() -> None:
    """Docker masquerades what leaves over anything but the bridge, towards other hosts as well."""
    two = TwoHosts()
    assert two.sources(two.c1, OUTSIDE) == {"192.168.59.103"}
    assert two.sources(two.c1, two.h2) == {"192.168.59.103"}
    assert two.sources(two.c1, two.c2) == {"192.168.59.103"}


@sandboxed
def test_without_dockers_rules_it_bears_its_own() -> None:
    two = TwoHosts()
    two.h1.configure(["iptables", "-t", "nat", "-F", "POSTROUTING"])
    assert two.sources(two.c1, two.c2) == {str(two.c1.address)}


@sandboxed
def test_through_the_bridge_nothing_is_translated() -> None:
    """Two containers of one host, and a neighbour on the bridge's segment."""
    two = TwoHosts()
    neighbour = two.h1.docker.run("neighbour")
    with Capture(neighbour, "eth0") as capture:
        assert pings(two.c1, neighbour)
    seen = [decode(frame).outer for _, frame in capture.frames]
    assert {str(ip.source) for ip in seen if ip and ip.destination == neighbour.address} == {
        str(two.c1.address)
    }


@sandboxed
def test_before_docker_1_13_a_route_lets_remote_containers_in() -> None:
    two = TwoHosts("accept")
    assert pings(two.c1, two.c2)
    assert pings(two.c2, two.c1)
    assert pings(two.h1, two.c2)


@sandboxed
def test_since_docker_1_13_only_answers_come_in() -> None:
    two = TwoHosts("drop")
    assert does_not_ping(two.c1, two.c2)
    assert does_not_ping(two.h1, two.c2)
    # Outwards and back is allowed, and so is what the host itself sends to its containers.
    assert pings(two.c1, OUTSIDE)
    assert pings(two.c1, two.h2)
    assert pings(two.h2, two.c2)
    # The two cures: an exception of one's own, or the policy.
    two.h2.configure(["iptables", "-I", "DOCKER-USER", "-s", "192.168.59.0/24", "-j", "ACCEPT"])
    assert pings(two.c1, two.c2)
    two.h1.configure(["iptables", "-P", "FORWARD", "ACCEPT"])
    assert pings(two.c2, two.c1)


@sandboxed
def test_the_policy_stays_if_forwarding_was_on_already() -> None:
    """Docker sets it to DROP only where it was Docker that switched ip_forward on."""
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.set_sysctl("net.ipv4.ip_forward", 1)
    host.docker.start(DaemonOptions(forward_policy="drop"))
    assert "-P FORWARD ACCEPT" in host.configure(["iptables", "-S", "FORWARD"]).stdout


@sandboxed
def test_options_that_leave_the_kernel_alone() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.docker.start(DaemonOptions(iptables=False, ip_forward=False))
    assert host.sysctl("net.ipv4.ip_forward") == "0"
    assert "DOCKER" not in host.configure(["iptables-save"]).stdout


@sandboxed
def test_rules_that_were_there_stay() -> None:
    host = Host("h1", 1, ovs=None, mtu=1500)
    host.configure(["iptables", "-A", "INPUT", "-s", "203.0.113.9", "-j", "DROP"])
    host.docker.start()
    rules = host.configure(["iptables-save"]).stdout
    assert "-A INPUT -s 203.0.113.9/32 -j DROP" in rules
    assert "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE" in rules


@sandboxed
def test_restarting_the_daemon_keeps_one_set_of_rules() -> None:
    host = host_with_br0()
    once = host.configure(["iptables-save"]).stdout
    host.docker.start(NOTES)
    again = host.configure(["iptables-save"]).stdout
    assert re.findall("^-A.*", again, re.MULTILINE) == re.findall("^-A.*", once, re.MULTILINE)


@sandboxed
def test_two_hosts_hand_out_the_same_addresses_without_fixed_cidr() -> None:
    """Same address, same MAC: Docker asks nobody."""
    two = TwoHosts()
    for host in two.lab.hosts:
        host.docker.start(DaemonOptions(bip="10.0.0.1/24"))
    first, second = two.h1.docker.run("again"), two.h2.docker.run("again")
    assert (first.address, first.mac) == (second.address, second.mac)


@sandboxed
def test_a_connection_out_of_a_container_works_both_ways() -> None:
    two = TwoHosts("drop")
    with two.lab.gateway.entered():
        server = socket.create_server((str(OUTSIDE), 0))
    with two.c1.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    received: list[tuple[str, bytes]] = []

    def answer() -> None:
        connection, (peer, _) = server.accept()
        with connection:
            received.append((peer, connection.recv(100)))
            connection.sendall(b"world")

    thread = threading.Thread(target=answer)
    thread.start()
    with closing(server), closing(client):
        client.settimeout(30)
        client.connect(server.getsockname())
        client.sendall(b"hello")
        assert client.recv(100) == b"world"
        thread.join(30)
    assert received == [("192.168.59.103", b"hello")]
