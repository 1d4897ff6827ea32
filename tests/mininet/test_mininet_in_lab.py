"""Mininet's API inside a sandbox: networks, nodes, links, a lab of the engine."""

from __future__ import annotations

import errno
import itertools
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

import xlab.mininet
from tests.support.labs import all_pids, interfaces, sandboxed, why_no_open_vswitch
from xlab.errors import CapabilityError, NetlinkError, UsageError, XlabError
from xlab.lab import underlay
from xlab.lab.lab import Lab
from xlab.lab.network import FALLBACK_TUNNELS
from xlab.lab.node import Node


def single(hosts: int = 2) -> Any:
    from mininet.topo import SingleSwitchTopo

    return SingleSwitchTopo(hosts)


def torus() -> Any:
    from mininet.topolib import TorusTopo

    return TorusTopo(3, 3)


def tree() -> Any:
    from mininet.topolib import TreeTopo

    return TreeTopo(depth=2, fanout=2)


def linear() -> Any:
    from mininet.topo import LinearTopo

    return LinearTopo(k=3, n=2)


def two_on_a_cable() -> Any:
    from mininet.topo import Topo

    topo = Topo()
    topo.addLink(topo.addHost("left"), topo.addHost("right"))
    return topo


def shaped(hosts: int = 2, **options: Any) -> Any:
    """One switch, every link with the options."""
    from mininet.topo import Topo

    topo = Topo()
    switch = topo.addSwitch("s1")
    for number in range(1, hosts + 1):
        topo.addLink(topo.addHost(f"h{number}"), switch, **options)
    return topo


def rtt_ms(net: Any, a: str, b: str) -> float:
    """The best of ten over half a second, when ARP is done.

    Of three within 40 ms a busy machine that stalled once added to all.
    """
    net.ping([net[a], net[b]])
    out, _, status = net[a].pexec("ping", "-n", "-c10", "-i0.05", net[b].IP())
    assert status == 0, out
    match = re.search(r"= ([\d.]+)/", out)
    assert match, out
    return float(match[1])


# -- topologies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topo", [single, linear, tree, torus, two_on_a_cable])
@sandboxed
def test_any_topo_builds_and_everybody_reaches_everybody(topo: Callable[[], Any]) -> None:
    with xlab.mininet.network(topo()) as net:
        assert net.controllers == []
        assert net.pingAll() == 0


@sandboxed
def test_names_and_addresses_are_mininets() -> None:
    with xlab.mininet.network(single(3), autoSetMacs=True) as net:
        assert net.keys() == ["h1", "h2", "h3", "s1"]
        assert [host.IP() for host in net.hosts] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        h2 = net["h2"]
        assert (str(h2.intf()), h2.intfNames(), net["s1"].intfNames()) == (
            "h2-eth0", ["h2-eth0"], ["lo", "s1-eth1", "s1-eth2", "s1-eth3"],
        )  # fmt: skip
        assert h2.MAC() == "00:00:00:00:00:02"
        shown, _, _ = h2.pexec("ip", "-br", "address", "show", "dev", "h2-eth0")
        assert "10.0.0.2/8" in shown
        linked, _, _ = h2.pexec("ip", "-br", "link", "show", "dev", "h2-eth0")
        assert "00:00:00:00:00:02" in linked
        assert net.get("h1", "h3") == [net["h1"], net["h3"]]
        assert str(net.links[0]) == "h1-eth0<->s1-eth1"
        assert "h2" in net
        assert "h9" not in net


@sandboxed
def test_a_network_without_topo_grows_while_it_runs() -> None:
    from xlab.mininet.net import Mininet

    with Mininet() as net:
        h1 = net.addHost("h1", ip="192.168.7.1/24")
        s1 = net.addSwitch("s1")
        net.addLink(h1, s1)
        net.start()
        h2 = net.addHost("h2", ip="192.168.7.2/24")
        link = net.addLink(h2, s1)
        h2.configDefault()
        s1.attach(link.intf2)
        assert net.pingAll() == 0
        net.delLink(link)
        assert net.ping([h1, h2], timeout=0.2) == 100
        assert interfaces(h2.machine) == ["lo"]


@sandboxed
def test_a_stopped_network_leaves_no_interface_and_frees_its_names() -> None:
    from xlab.mininet.machine import root

    for _ in range(2):
        with xlab.mininet.network(tree()) as net:
            assert len(root().interfaces()) > 10
            assert net.pingPair() == 0
        assert interfaces(root()) == ["lo"]
        net.stop()  # a second time does nothing


#: Before it has said so, Ctrl-C could still meet the shell that starts it.
FOREGROUND = """sh -c 'echo rea""dy; exec sleep 1000'"""


# -- nodes -----------------------------------------------------------------------------------------


@sandboxed
def test_shells_start_on_first_use() -> None:
    with xlab.mininet.network(single(3)) as net:
        net.pingAll()
        net["h1"].pexec("true")
        net.configLinkStatus("s1", "h1", "up")
        before = all_pids()
        assert not [node for node in net.values() if node.__dict__["shell"] is not None]
        assert net["h2"].cmd("echo $((6 * 7))").strip() == "42"
        (shell,) = set(all_pids()) - set(before)
        assert net["h2"].pid == shell
        assert f"pid={shell}" in repr(net["h2"])
    assert shell not in all_pids()


@sandboxed
def test_a_shell_keeps_its_state_and_its_jobs() -> None:
    with xlab.mininet.network(single()) as net:
        h1 = net["h1"]
        assert h1.cmd("hostname").strip() == "h1"
        h1.cmd("cd /usr && value=kept")
        assert h1.cmd("echo $value in $PWD").split() == ["kept", "in", "/usr"]
        h1.cmd("sleep 1000 &")
        assert h1.lastPid in all_pids()
        assert h1.cmd("kill %sleep; wait; echo gone").split()[-1] == "gone"
        assert h1.lastPid is None


@sandboxed
def test_commands_are_sent_watched_and_interrupted() -> None:
    with xlab.mininet.network(single()) as net:
        h1, h2 = net.get("h1", "h2")
        h1.sendCmd("for i in 1 2 3; do echo line $i; done")
        h2.sendCmd(FOREGROUND)
        assert h1.waiting
        assert h1.waitOutput().split() == ["line", "1", "line", "2", "line", "3"]
        seen = ""
        while "\n" not in seen.partition("ready")[2]:
            seen += h2.monitor(timeoutms=10_000)
        assert h2.monitor(timeoutms=1) == ""
        h2.sendInt()
        h2.waitOutput()
        assert not h2.waiting
        h1.sendCmd("sleep 0", printPid=True)
        h1.waitOutput()
        assert h1.lastPid
        h1.sendCmd("echo from h1")
        host, line = next(found for found in net.monitor([h1, h2]) if found[1].strip())
        assert (host, line.strip()) == (h1, "from h1")


@sandboxed
def test_programs_end_as_they_say_they_did() -> None:
    """In pid 1, where everybody's exit status is taken by the controller's loop."""
    with xlab.mininet.network(single()) as net:
        h1 = net["h1"]
        assert h1.pexec("sh", "-c", "echo out; echo err >&2; exit 7") == ("out\n", "err\n", 7)
        assert h1.pexec("exit 3", shell=True)[2] == 3
        assert h1.pexec("/no/such/program")[2] == 127
        assert h1.pexec("/etc/passwd")[2] == 126
        with h1.popen("sleep 1000") as sleeper:
            assert sleeper.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                sleeper.wait(0.01)
            sleeper.terminate()
            assert sleeper.wait(10) == -signal.SIGTERM
        with h1.popen("cat", stdin=subprocess.PIPE) as cat:
            assert cat.communicate(b"through")[0] == b"through"
        outputs = [n.pexec("ls", "/sys/class/net")[0].split() for n in (h1, net["h2"])]
        own = [sorted(set(output) - FALLBACK_TUNNELS) for output in outputs]
        assert own == [["h1-eth0", "lo"], ["h2-eth0", "lo"]]


@sandboxed
def test_hosts_share_files_with_the_script_and_have_folders_of_their_own() -> None:
    from functools import partial

    from xlab.mininet.node import Host

    nowhere = f"/var/xlab-{uuid.uuid4()}"
    host = partial(Host, privateDirs=[nowhere, ("/tmp/mine", "/tmp/%(name)s/mine")])
    with xlab.mininet.network(single(), host=host) as net:
        h1, h2 = net.get("h1", "h2")
        h1.cmd("echo shared >/tmp/file")
        assert Path("/tmp/file").read_text() == "shared\n"
        for folder in (nowhere, "/tmp/mine"):
            h1.cmd(f"echo private >{folder}/file")
            assert h1.pexec("cat", f"{folder}/file")[0] == "private\n"
            assert h2.pexec("cat", f"{folder}/file")[2] == 1
        assert Path("/tmp/h1/mine/file").read_text() == "private\n"
        assert not Path(nowhere).exists()
        assert h1.pexec("ls", "/var")[0] != ""


@sandboxed
def test_a_router_between_two_subnets() -> None:
    from mininet.topo import Topo

    from xlab.mininet.node import Node as MininetNode

    class Router(MininetNode):
        def config(self, *arguments: Any, **params: Any) -> Any:
            results = super().config(*arguments, **params)
            self.cmd("sysctl net.ipv4.ip_forward=1")
            return results

    topo = Topo()
    router = topo.addNode("r0", cls=Router, ip="192.168.1.1/24")
    for number, subnet in ((1, "192.168.1"), (2, "172.16.0")):
        host = topo.addHost(f"h{number}", ip=f"{subnet}.100/24", defaultRoute=f"via {subnet}.1")
        topo.addLink(host, router, intfName2=f"r0-{number}", params2={"ip": f"{subnet}.1/24"})
    with xlab.mininet.network(topo) as net:
        assert net.ping([net["h1"], net["h2"]]) == 0
        assert "ttl=63" in net["h1"].cmd("ping -c1", net["h2"].IP())


@sandboxed
def test_an_address_takes_the_place_of_the_one_before() -> None:
    with xlab.mininet.network(single()) as net:
        h1, h2 = net.get("h1", "h2")
        h1.setIP("10.0.0.77", 24)
        assert (h1.IP(), str(h1.machine.address)) == ("10.0.0.77", "10.0.0.77")
        shown, _, _ = h1.pexec("ip", "-4", "-br", "address", "show", "dev", "h1-eth0")
        assert shown.split()[2:] == ["10.0.0.77/24"]
        h1.cmd("ip address flush dev h1-eth0; ip address add 10.0.0.99/24 dev h1-eth0")
        assert (h1.IP(), h1.intf().updateIP()) == ("10.0.0.77", "10.0.0.99")
        h1.setMAC("02:00:00:00:00:99")
        assert h1.intf().updateMAC() == "02:00:00:00:00:99"
        assert h1.intfIsUp()
        assert net.ping([h1, h2]) == 0
        with pytest.raises(UsageError, match=r"h1-eth0: .*10\.0\.0\.300"):
            h1.setIP("10.0.0.300/8")


@sandboxed
def test_static_arp_asks_nobody() -> None:
    with xlab.mininet.network(single(3), autoStaticArp=True) as net:
        shown, _, _ = net["h1"].pexec("ip", "neigh", "show")
        assert sorted(line.split()[0] for line in shown.splitlines()) == ["10.0.0.2", "10.0.0.3"]
        assert shown.count("PERMANENT") == 2
        assert net["h2"].MAC() in shown
        assert net.pingAll() == 0


@sandboxed
def test_links_are_active_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ends with the same number in their namespaces are not urgent to the kernel: from the second
    # time within a second on, it comes to them up to a second later (linkwatch_urgent_event).
    fresh = Node("fresh")
    index = 1 + max(map(fresh.rtnl.index, fresh.interfaces()))
    for _ in range(3):
        monkeypatch.setattr("xlab.mininet.link._indexes", itertools.count(index))
        with xlab.mininet.network(single(), autoStaticArp=True) as net:
            assert net["h1"].machine.rtnl.index("h1-eth0") == index
            assert not net["h1"].machine.rtnl.inactive()
            assert net.pingAll() == 0


@sandboxed
def test_nat_hides_a_subnet() -> None:
    from mininet.topo import Topo

    from xlab.mininet.node import NAT

    topo = Topo()
    outer, inner = topo.addSwitch("s0"), topo.addSwitch("s1")
    nat = topo.addNode("nat1", cls=NAT, subnet="192.168.1.0/24", localIntf="nat1-eth1")
    topo.addLink(nat, outer, intfName1="nat1-eth0")
    topo.addLink(nat, inner, intfName1="nat1-eth1", params1={"ip": "192.168.1.1/24"})
    topo.addLink(topo.addHost("h0"), outer)
    topo.addLink(topo.addHost("h1", ip="192.168.1.9/24", defaultRoute="via 192.168.1.1"), inner)
    with xlab.mininet.network(topo) as net:
        h0, h1 = net.get("h0", "h1")
        with h0.popen("tcpdump -Z root -n -l -c1 -i h0-eth0 icmp") as capture:
            line = "-"
            while line and "listening" not in line:
                line = capture.stderr.readline().decode()
            assert line
            assert h1.pexec("ping", "-c1", h0.IP())[2] == 0
            assert f"{net['nat1'].IP()} > {h0.IP()}" in capture.communicate(timeout=10)[0].decode()
        assert h0.pexec("ping", "-c1", "-W1", "192.168.1.9")[2] != 0
        net.addNAT().configDefault()
        net.switches[0].attach("s0-eth3")
        assert h0.pexec("ping", "-c1", "198.51.100.1")[2] == 0


@sandboxed
def test_wait_listening_waits_for_a_server() -> None:
    from xlab.mininet.net import wait_listening

    with xlab.mininet.network(single()) as net:
        h1, h2 = net.get("h1", "h2")
        assert not wait_listening(h1, h2, 8080, timeout=0.05)
        with h2.machine.entered():
            server = socket.socket()
        server.bind(("10.0.0.2", 8080))
        late = threading.Timer(0.05, server.listen)
        late.start()
        assert wait_listening(h1, h2, 8080, timeout=10)
        late.join()
        server.close()
        h1.cmd("ip route flush table main")
        assert not wait_listening(h1, "192.0.2.1", 80)


# -- what is refused -------------------------------------------------------------------------------


@sandboxed
def test_what_cannot_be_is_refused_and_says_why() -> None:
    from functools import partial

    from xlab.mininet.intf import Intf
    from xlab.mininet.net import Mininet
    from xlab.mininet.node import CPULimitedHost
    from xlab.mininet.switch import LinuxBridge, RemoteController

    for options, why in (
        ({"controller": RemoteController}, "learning bridges"),
        ({"host": partial(CPULimitedHost, cpu=0.5)}, "control group"),
    ):
        with pytest.raises(CapabilityError, match=why):
            Mininet(single(), **options)
    with xlab.mininet.network(single(), host=CPULimitedHost) as net:
        with pytest.raises(CapabilityError, match="without flows"):
            net.addSwitch("s2", cls=LinuxBridge).dpctl("dump-flows")
        with pytest.raises(CapabilityError, match="eth0: no interface of the machine's"):
            Intf("eth0", node=net["s1"])
        stand_in = net.addController("c0")
        stand_in.start()
        assert net.controllers == [stand_in]
        with pytest.raises(UsageError, match="when it is made"):
            net.addLink("h1", "h2").intf1.config(delay="1ms")
        with pytest.raises(CapabilityError, match="enable_red"):
            net.links[0].intf1.config(bw=10, enable_red=True)
        with pytest.raises(UsageError, match="h1-eth0: bw"):
            net.links[0].intf1.config(bw="fast")
        with pytest.raises(UsageError, match="h1-eth0: 'zz' is no hardware address"):
            net["h1"].setMAC("zz")
        with pytest.raises(UsageError, match="s1-eth4: '00:01' is no hardware address"):
            net.addLink("h1", "s1", addr2="00:01")


# -- Open vSwitch ----------------------------------------------------------------------------------


@pytest.mark.skipif(bool(why_no_open_vswitch()), reason=why_no_open_vswitch() or "it is there")
@pytest.mark.kernel
@pytest.mark.long_in_guest
@sandboxed
def test_a_switch_becomes_a_real_one_when_a_program_asks_for_that() -> None:
    """Its address and its ports' numbers stay, and all that could be done before can be."""

    def bridges_of_the_kernel() -> set[str]:
        return {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}

    with xlab.mininet.network(linear()) as net:
        s1, h1, h2 = net.get("s1", "h1s1", "h2s1")
        s1.cmd("ip address add 10.9.9.9/8 dev s1")
        assert net.pingAll() == 0
        assert bridges_of_the_kernel() == {"s1", "s2", "s3"}
        for intf in s1.intfList()[1:]:
            assert int(s1.cmd("ovs-vsctl get interface", intf, "ofport")) == s1.ports[intf]
        assert not bridges_of_the_kernel()
        assert net.pingAll() == 0
        assert "1 received" in s1.cmd("ping -c1", h1.IP())

        s1.dpctl("add-flow", f"priority=9,in_port={s1.ports[s1.intf('s1-eth1')]},actions=drop")
        assert net.ping([h1, h2], timeout=0.3) == 100
        s1.dpctl("del-flows")
        assert net.ping([h1, h2]) == 0
        h1.intf().config(delay="20ms")
        assert rtt_ms(net, "h1s1", "h2s1") >= 19.9
        s1.detach("s1-eth2")
        assert net.ping([h1, h2], timeout=0.3) == 100
        s1.attach("s1-eth2")
        assert net.ping([h1, h2]) == 0

        net.addSwitch("s4").start()
        assert s1.cmd("ovs-vsctl list-br").split() == ["s1", "s2", "s3", "s4"]
        s1.stop()
        assert "s1" not in net["s4"].cmd("ovs-vsctl list-br").split()


# -- links -----------------------------------------------------------------------------------------


@sandboxed
def test_a_link_goes_down_and_up() -> None:
    with xlab.mininet.network(single(3)) as net:
        net.configLinkStatus("s1", "h1", "down")
        assert not net["h1"].intfIsUp()
        assert net.ping([net["h1"], net["h2"]], timeout=1) == 100
        assert net.ping([net["h2"], net["h3"]]) == 0
        net.configLinkStatus("s1", "h1", "up")
        assert net.pingAll() == 0


def triangle() -> Any:
    """Three switches in a loop, each with a host."""
    from mininet.topo import Topo

    topo = Topo()
    switches = [topo.addSwitch(f"s{number}") for number in (1, 2, 3)]
    for number, switch in enumerate(switches, 1):
        topo.addLink(topo.addHost(f"h{number}"), switch)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        topo.addLink(switches[a], switches[b])
    return topo


@sandboxed
def test_a_spare_link_takes_the_place_of_one_that_is_cut() -> None:
    """And what the switches had learnt about the old way is forgotten."""
    with xlab.mininet.network(triangle()) as net:
        spare = {str(intf) for switch in net.switches for intf in switch.spare}
        assert len(spare) == 2
        assert net.pingAll() == 0
        used = next(
            link for link in net.links
            if {link.intf1.node, link.intf2.node} <= set(net.switches)
            and str(link.intf1) not in spare
        )  # fmt: skip
        net.configLinkStatus(used.intf1.node.name, used.intf2.node.name, "down")
        assert net.pingAll() == 0
        assert used.intf1 in used.intf1.node.spare
        net.configLinkStatus(used.intf1.node.name, used.intf2.node.name, "up")
        assert net.pingAll() == 0


def cut_by_name(net: Any) -> None:
    net.delLinkBetween(net["s1"], net["s2"])


def cut_with_its_switch(net: Any) -> None:
    net.delSwitch(net["s2"])


def cut_by_hand(net: Any) -> None:
    net["s1"].cmd("ip link set s1-eth2 down")


def taken_away_by_hand(net: Any) -> None:
    net["s1"].cmd("ip link delete s1-eth2")


@pytest.mark.parametrize("cut", [cut_by_name, cut_with_its_switch, cut_by_hand, taken_away_by_hand])
@sandboxed
def test_a_spare_link_takes_over_whoever_has_cut_another(cut: Callable[[Any], None]) -> None:
    """From s1 to s3 it was through s2."""
    with xlab.mininet.network(triangle()) as net:
        assert {str(intf) for switch in net.switches for intf in switch.spare} == {
            "s3-eth3", "s1-eth3",
        }  # fmt: skip
        cut(net)
        assert net.ping([net["h1"], net["h3"]]) == 0
        kept = [host for host in net.hosts if host is not net["h2"] or "s2" in net]
        assert net.ping(kept) == 0


@sandboxed
def test_a_link_without_a_spare_is_back_as_soon_as_it_is_up() -> None:
    """Nothing but the kernel is told of it."""
    with xlab.mininet.network(linear()) as net:
        h1, h2 = net["h1s1"], net["h1s2"]
        net["s1"].cmd("ip link set s1-eth3 down")
        assert net.ping([h1, h2], timeout=0.2) == 100
        net["s1"].cmd("ip link set s1-eth3 up")
        # More than one: a link drops what comes before the kernel's link watch has activated it.
        assert h1.pexec("ping", "-c5", "-i0.2", "-W5", h2.IP())[2] == 0


@sandboxed
def test_a_deleted_node_takes_its_links_with_it() -> None:
    with xlab.mininet.network(triangle()) as net:
        net.delHost(net["h1"])
        net.delSwitch(net["s2"])
        assert sorted(map(str, net.links)) == ["h3-eth0<->s3-eth1", "s3-eth3<->s1-eth3"]
        assert net["s1"].intfNames() == ["lo", "s1-eth3"]
        # None of its ports is one that has gone.
        net["s1"].stop(deleteIntfs=False)
        net["s1"].start()


@sandboxed
def test_stp_of_the_kernel_where_it_is_asked_for() -> None:
    """It opens its ports after some 4 s; here it is shown that it runs, and they are closed."""
    from functools import partial

    from xlab.mininet.switch import LinuxBridge

    with xlab.mininet.network(torus(), switch=partial(LinuxBridge, stp=True)) as net:
        s1 = net["s1x1"]
        assert not s1.spare
        assert not s1.connected()
        shown, _, _ = s1.pexec("ip", "-d", "link", "show", "dev", "s1x1")
        assert "stp_state 1" in shown


@sandboxed
def test_options_of_a_topos_links_hold_whatever_their_class() -> None:
    with xlab.mininet.network(shaped(delay="5ms")) as net:
        assert 19.9 <= rtt_ms(net, "h1", "h2") < 40
        ((_, _, measured),) = [f for f in net.pingFull([net["h1"], net["h2"]]) if f[0] is net["h1"]]
        assert measured[:2] == (1, 1)
        assert measured[2] >= 19.9


@sandboxed
def test_conditions_are_of_what_leaves_an_interface_and_can_be_changed() -> None:
    with xlab.mininet.network(shaped(3)) as net:
        h1, h2, h3 = net.hosts
        h1.intf().config(delay="20ms")
        assert 19.9 <= rtt_ms(net, "h1", "h2") < 40
        assert rtt_ms(net, "h2", "h3") < 19
        net["s1"].intf("s1-eth1").config(delay="10ms")
        assert 29.9 <= rtt_ms(net, "h1", "h2") < 55
        h1.intf().config(loss=100)
        assert net.ping([h1, h2], timeout=0.2) == 100
        assert net.ping([h2, h3]) == 0
        for intf in (h1.intf(), net["s1"].intf("s1-eth1")):
            intf.config(loss=0)
        assert rtt_ms(net, "h1", "h2") < 19


@sandboxed
def test_conditions_of_a_topo_hold_in_their_own_direction() -> None:
    from mininet.topo import Topo

    topo = Topo()
    switch = topo.addSwitch("s1")
    topo.addLink(topo.addHost("h1"), switch, params1={"bw": 5}, params2={"bw": 40, "delay": "20ms"})
    topo.addLink(topo.addHost("h2"), switch)
    with xlab.mininet.network(topo) as net:
        h1, h2 = net.hosts
        assert 19.9 <= rtt_ms(net, "h1", "h2") < 35
        up = received_mbits(net.iperf([h1, h2], seconds=1, fmt="m"))
        down = received_mbits(net.iperf([h2, h1], seconds=1, fmt="m"))
        assert 2.5 < up < 5.2
        assert 10 < down < 41


def received_mbits(result: Sequence[str]) -> float:
    """What iperf, asked with fmt="m", gives as the server's rate."""
    value, unit = result[0].split()
    assert unit == "Mbits/sec"
    return float(value)


@sandboxed
def test_mininets_other_options_of_an_interface() -> None:
    with xlab.mininet.network(shaped(bw=10, speedup=50, latency_ms=60, txo=False)) as net:
        h1, s1 = net["h1"].intf(), net["s1"].intf("s1-eth1")
        assert (h1.conditions.rate_bits_per_second, s1.conditions.rate_bits_per_second) == (
            10e6, 50e6,
        )  # fmt: skip
        # 60 ms of 10 Mbit/s are 75,000 bytes.
        assert (h1.conditions.max_queue_packets, s1.conditions.max_queue_packets) == (50, 250)
        shown, _, _ = net["h1"].pexec("ethtool", "-k", "h1-eth0")
        assert "tx-checksumming: off" in shown
        assert net.pingAll() == 0


@sandboxed
@pytest.mark.parametrize("topo", ["single", "cable"])
def test_links_with_a_rate_leave_nothing(topo: str) -> None:
    """A rate alone is imposed by a queueing discipline, at a bridge of its own."""
    from xlab.mininet.link import TCLink
    from xlab.mininet.machine import root

    made = {"single": single, "cable": two_on_a_cable}[topo]
    for _ in range(2):
        with xlab.mininet.network(made(), link=TCLink) as net:
            link = net.links[0]
            link.intf1.config(bw=10)
            link.intf2.config(bw=10)
            assert net.pingAll() == 0
            there = set(interfaces(root()))
            if topo == "single":
                net.delLink(link)
                assert not [name for name in interfaces(root()) if name.endswith("j")]
        assert there > {"lo"}
        assert interfaces(root()) == ["lo"]


@sandboxed
def test_hosts_on_a_cable_with_conditions() -> None:
    from xlab.mininet.link import TCLink
    from xlab.mininet.machine import root

    with xlab.mininet.network(two_on_a_cable(), link=TCLink) as net:
        left = net["left"]
        assert net.pingAll() == 0
        left.intf().config(delay="20ms")
        assert 19.9 <= rtt_ms(net, "left", "right") < 40
    assert interfaces(root()) == ["lo"]


@sandboxed
def test_a_rate_is_kept_and_iperf_says_so() -> None:
    with xlab.mininet.network(shaped(bw=20)) as net:
        result = net.iperf(seconds=1, fmt="m")
        assert 10 < received_mbits(result) < 21
        assert result[1].endswith(" Mbits/sec")
        hosts = net.hosts
        hosts[1].cmd("iptables -A INPUT -p tcp -j REJECT")
        with pytest.raises(XlabError, match=r"h1: iperf3: .*refused"):
            net.iperf(hosts)
        with pytest.raises(UsageError, match="SCTP"):
            net.iperf(l4Type="SCTP")


@pytest.mark.parametrize("family", ["-4", ""])
@sandboxed
def test_iperf_measures_against_its_own_server(family: str) -> None:
    """Another's stays untouched, whichever table the kernel shows it in."""
    with xlab.mininet.network(single()) as net:
        h2 = net["h2"]
        words = ["iperf3", "-s", "-p", "5001", *family.split()]
        with h2.popen(*words, "--forceflush") as another:
            try:
                assert b"-----" in another.stdout.readline()
                assert another.stdout.readline().startswith(b"Server listening")
                assert net.iperf(seconds=1)[0].endswith("bits/sec")
                assert net.iperf(seconds=1, l4Type="UDP")[0] == "10M"
                with pytest.raises(XlabError, match=r"h2: iperf3 -s -p 5001: .*already in use"):
                    net.iperf(port=5001)
            finally:
                another.terminate()
            assert b"Accepted" not in another.stdout.read()
        assert net.iperf(seconds=1, port=5001)[0].endswith("bits/sec")


@sandboxed
def test_an_iperf_that_ends_and_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = Path("/tmp/bin/iperf3")  # the sandbox's own
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with (
        xlab.mininet.network(single()) as net,
        pytest.raises(XlabError, match="h2: iperf3 -s -p 5001: ended with status 3"),
    ):
        net.iperf()


@sandboxed
def test_interfaces_of_a_group_go_at_once() -> None:
    wire, host = Node("wire"), Node("h1")
    with wire.rtnl.batch() as batch:
        batch.add_bridge("s1", group=7)
        for number in range(3):
            batch.add_veth(
                f"p{number}", f"q{number}", peer_namespace=host.namespaces.net, group=7, master="s1"
            )
        batch.add_veth("stays", "peer", mac="02:00:00:00:00:01", index=4711)
        batch.set_group("peer", 8)
        batch.delete_group(7)
    assert sorted(interfaces(wire)) == ["lo", "peer", "stays"]
    assert interfaces(host) == ["lo"]
    assert (wire.rtnl.index("stays"), wire.mac_address("stays")) == (4711, "02:00:00:00:00:01")
    with pytest.raises(NetlinkError) as refused, wire.rtnl.batch() as batch:
        batch.delete_group(7)
    assert refused.value.errno == errno.ENODEV


# -- a lab of the engine ---------------------------------------------------------------------------


@sandboxed
def test_a_lab_shows_itself_as_mininets_objects_with_containers_as_hosts() -> None:
    lab = Lab(underlay.describe(None, hosts=2))
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    net = xlab.mininet.of_lab(lab)
    assert net.keys() == ["h1", "h2", "s1", "gw"]
    h1, h2 = net.hosts
    assert (h1.IP(), h1.intfNames(), str(h1.intf())) == ("10.211.55.3", ["h1-eth0"], "h1-eth0")
    assert "10.211.55.3/24" in h1.cmd("ip -c=never address show dev h1-eth0")
    assert net.ping([h1, h2, net["gw"]]) == 0

    docker = lab.hosts[0].docker
    docker.start()
    c1, c2 = docker.run("c1"), docker.run("c2")
    assert net.keys() == ["h1", "h2", "h1/c1", "h1/c2", "s1", "gw"]
    assert net["h1/c1"].IP() == str(c1.address) == "172.17.0.2"
    assert net["h1/c1"].cmd("hostname").strip() == c1.id[:12]
    assert net["h1/c1"].pexec("sh", "-c", "exit 9")[2] == 9
    assert net.ping([net["h1/c1"], net["h1/c2"]]) == 0
    net.configLinkStatus("h1/c1", "h1", "down")
    assert net.ping([net["h1/c1"], net["h1/c2"]], timeout=0.2) == 100
    docker.stop(c1)
    assert net.keys() == ["h1", "h2", "h1/c2", "s1", "gw"]
    assert "h1/c1" not in net

    net.configLinkStatus("s1", "h2", "down")
    assert net.ping([h1, h2], timeout=0.2) == 100
    net.configLinkStatus("s1", "h2", "up")
    with pytest.raises(UsageError, match="belong to the lab"):
        h1.intf().config(bw=1)
    net.stop()
    # More than one: a link drops what comes before the kernel's link watch has activated it.
    assert lab.hosts[0].run(["ping", "-c5", "-i0.2", "-W5", "10.211.55.4"]).returncode == 0
    assert c2.run(["true"]).returncode == 0


@sandboxed
def test_the_address_of_a_host_is_where_it_is_reached() -> None:
    """Where the NIC is a port of br0, the bridge has it."""
    lab = Lab(underlay.describe(None, hosts=2))
    lab.give_addresses(IPv4Network("10.211.55.0/24"), first=3, gateway=1)
    host = lab.hosts[0]
    net = xlab.mininet.of_lab(lab)
    host.add_bridge("br0", mac=host.mac_address("eth0"))
    host.delete_address("eth0", "10.211.55.3/24")
    host.add_to_bridge("br0", "eth0")
    host.add_address("br0", "10.211.55.3/24")
    assert (net["h1"].IP(), net["h1"].intf().updateIP()) == ("10.211.55.3", "10.211.55.3")
    assert net.pingPair() == 0


@sandboxed
def test_one_echo_is_sent_and_what_is_lost_stays_lost() -> None:
    from xlab.mininet import echo

    with xlab.mininet.network(shaped(2)) as net:
        h1 = net["h1"].machine
        memory = echo.Neighbours([h1])
        asked = [IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3"), IPv4Address("203.0.113.1")]
        # Or a busy machine may take longer to find 10.0.0.2, too.
        assert net.pingPair() == 0
        # The kernel gives up on 10.0.0.3 after one request, a second, and says so.
        h1.set_sysctl("net.ipv4.neigh.h1-eth0.mcast_solicit", 1)
        begun = time.monotonic()
        assert echo.answered(h1, asked, timeout_s=30, neighbours=memory) == {asked[0]}
        assert time.monotonic() - begun < 20
        shown, _, _ = net["h1"].pexec("ip", "-s", "link", "show", "dev", "h1-eth0")
        assert shown
        memory.expect(500)
        assert "10.0.0.2" not in net["h1"].pexec("ip", "neigh", "show")[0]
