"""ovs-gre: Open vSwitch, a GRE tunnel, and a static route to the other host's containers.

        h1                                   h2
        ┌────────────────────────────┐       ┌────────────────────────────┐
        │ c1 192.168.1.2             │       │ c1 192.168.2.2             │
        │   └┐                       │       │   └┐                       │
        │  br0 192.168.1.1/24        │       │  br0 192.168.2.1/24        │
        │   └ obr0 ── gre0 ┄┄┄┄┄┄┄┄┄┄┼┄ GRE ┄┼┄┄┄┄┄┄┄┄┄┄ gre0 ── obr0 ┘   │
        │  eth0 192.168.59.103       │       │  eth0 192.168.59.104       │
        └──────┬─────────────────────┘       └──────┬─────────────────────┘
        ───────┴──── the physical network ──────────┴──── gw 192.168.59.1 ── outside

The tunnel joins the two br0 into one segment.  Which way packets go is then up to the route:

    routes=tunnel    ip route add 192.168.2.0/24 via 192.168.2.1 dev br0 onlink    through GRE
    routes=underlay  ip route add 192.168.2.0/24 via 192.168.59.104 dev eth0       the notes' route:
                                                                               it bypasses GRE
"""

from __future__ import annotations

from ipaddress import IPv4Network

from xlab.errors import CapabilityError, UsageError
from xlab.lab.docker import DaemonOptions, ForwardPolicy
from xlab.lab.lab import Host, Lab, concurrently
from xlab.lab.ovs import GRE_OVERHEAD_BYTES
from xlab.scenario.claims import Checks
from xlab.scenario.judge import Judge
from xlab.scenario.scenario import Flow, Option, Part, Portrait, Published, Scenario, Settings, Size

UNDERLAY = IPv4Network("192.168.59.0/24")
GATEWAY, FIRST_HOST = 1, 103
MOST_HOSTS = 254 - FIRST_HOST + 1
MOST_CONTAINERS = 253
#: Of what comes by the notes' route into Open vSwitch in user space, in bytes.
LARGEST_BY_ETH0 = 1500


def container_subnet(host: Host) -> IPv4Network:
    """192.168.1.0/24 for the first host, 192.168.2.0/24 for the second; .59 is the hosts' own."""
    third = host.number if host.number < 59 else host.number + 1
    return IPv4Network(f"192.168.{third}.0/24")


def plan(size: Size, settings: Settings) -> None:
    """Nothing to divide, a /24 a host; UsageError where there are too few addresses."""
    if size.hosts > MOST_HOSTS:
        raise UsageError(f"{UNDERLAY} has room for {MOST_HOSTS} hosts from .{FIRST_HOST} on")
    if size.containers > MOST_CONTAINERS:
        raise UsageError(f"a /24 has room for {MOST_CONTAINERS} containers on each host")


def build(lab: Lab, plan: None, size: Size, settings: Settings, check: Checks) -> Flow:
    """The notes' chapter on Open vSwitch, in its order."""
    require_packets_that_fit(lab, settings)
    lab.give_addresses(UNDERLAY, first=FIRST_HOST, gateway=GATEWAY, mesh=True)
    h1, h2 = lab.hosts[0], lab.hosts[-1]
    check.stage("hosts")
    check.all_reach_each_other(lab.hosts, "hosts")

    def set_up(host: Host) -> None:
        # sudo ovs-vsctl add-br obr0
        host.ovs.add_bridge("obr0")
        connect_tunnels(lab, host)
        set_up_bridge(lab, host)
        start_docker(host, settings)
        # docker run -d --name c1 …
        for number in range(1, size.containers + 1):
            host.docker.run(f"c{number}")

    concurrently(set_up, lab.hosts)

    c1, far = h1.containers[0], h2.containers[0]
    check.stage("before the route", lasts=False)
    check.addresses_are_distinct(lab.containers)
    check.reaches_outside(c1)
    check.reaches(c1, h2, f"{c1} reaches the other host {h2}")
    check.does_not_reach(c1, far, f"{c1} does NOT reach {far} (notes: “无法ping通该主机上的容器”)")

    for host in lab.hosts:
        add_underlay_routes(lab, host)
    if settings["forward"] == "drop":
        check.stage("FORWARD policy DROP", lasts=False)
        check.does_not_reach(
            c1, far, f"FORWARD policy DROP, since Docker 1.13: {c1} still does NOT reach {far}",
            id="forward-policy-drops",
        )  # fmt: skip
        for host in lab.hosts:
            accept_forwarding(host)
    check.stage("with the notes' route", lasts=settings["routes"] == "underlay")
    check.reaches(c1, far, f"{c1} reaches {far}", id="notes-route-reaches")
    check.takes(
        c1, far, "none",
        f"the route `via {h2.address} dev eth0` uses plain IP, not GRE: it bypasses the tunnel",
    )  # fmt: skip

    if settings["routes"] == "tunnel":
        for host in lab.hosts:
            delete_underlay_routes(lab, host)
            add_tunnel_routes(lab, host)
        check.stage("with the route through the tunnel")
        check.reaches(c1, far, f"{c1} reaches {far}", id="tunnel-route-reaches")
    check.all_reach_each_other(lab.containers, "containers")
    check.transfers(c1, far)

    return Flow(
        source=c1,
        target=far,
        control=(h1, h2),
        encapsulation="gre" if settings["routes"] == "tunnel" else "none",
        watched=h1,
        cut=lambda: cut_tunnels(lab, h1),
        heal=lambda: connect_tunnels(lab, h1),
        cut_text="GRE ports of h1 deleted",
        # The notes' route never used the tunnel, so without it traffic must go on.
        cut_stops_traffic=settings["routes"] == "tunnel",
        after_boot=lambda host: after_boot(lab, host, settings),
    )


def connect_tunnels(lab: Lab, host: Host) -> None:
    """sudo ovs-vsctl add-port obr0 gre0 -- set interface gre0 type=gre options:remote_ip=PEER

    A port to every other host.  From three hosts on that mesh would loop; protected ports do not
    forward to each other (split horizon), so there is nothing to loop through.
    """
    peers = [other for other in lab.hosts if other is not host]
    with host.ovs.at_once():
        for number, peer in enumerate(peers):
            host.ovs.add_port(
                "obr0",
                f"gre{number}",
                type="gre",
                options={"remote_ip": str(peer.address)},
                protected=len(peers) > 1,
            )


def set_up_bridge(lab: Lab, host: Host) -> None:
    """sudo brctl addbr br0; sudo ifconfig br0 192.168.1.1 netmask 255.255.255.0"""
    # The notes never bring obr0 up; until somebody does, nothing crosses the tunnel.
    host.set_up("obr0")
    subnet = container_subnet(host)
    host.add_bridge("br0")
    host.add_address("br0", f"{subnet[1]}/{subnet.prefixlen}")
    # sudo brctl addif br0 obr0
    host.add_to_bridge("br0", "obr0")
    # Larger packets vanish in the tunnel: with this the host answers "fragmentation needed".
    host.set_mtu("br0", lab.mtu - GRE_OVERHEAD_BYTES)
    # Routed in and out of br0 (below); a redirect would take containers off the tunnel.
    host.set_sysctl("net.ipv4.conf.all.send_redirects", 0)
    host.set_sysctl("net.ipv4.conf.br0.send_redirects", 0)


def start_docker(host: Host, settings: Settings) -> None:
    """ExecStart=/usr/bin/dockerd -b br0"""
    policy: ForwardPolicy = "drop" if settings["forward"] == "drop" else "accept"
    host.docker.start(DaemonOptions(bridge="br0", forward_policy=policy))


def cut_tunnels(lab: Lab, host: Host) -> None:
    """sudo ovs-vsctl del-port obr0 gre0"""
    with host.ovs.at_once():
        for number in range(len(lab.hosts) - 1):
            host.ovs.delete_port("obr0", f"gre{number}")


def require_packets_that_fit(lab: Lab, settings: Settings) -> None:
    """Measured with 3.5.0: of a packet of 2,000 bytes that eth0 takes in, ovs-vswitchd dies."""
    by_eth0 = settings["routes"] == "underlay" and lab.ovs_datapath == "userspace"
    if by_eth0 and lab.mtu > LARGEST_BY_ETH0:
        raise CapabilityError(
            "Open vSwitch in user space ends (SIGSEGV) on large packets that come by the notes' "
            f"route: not with an MTU of more than {LARGEST_BY_ETH0:,}",
            "leave out --mtu, or load the kernel module openvswitch",
        )


def add_underlay_routes(lab: Lab, host: Host) -> None:
    """sudo ip route add 192.168.2.0/24 via 192.168.59.104 dev eth0"""
    for other in lab.hosts:
        if other is not host:
            host.add_route(container_subnet(other), via=other.address, dev="eth0")


def delete_underlay_routes(lab: Lab, host: Host) -> None:
    """sudo ip route del 192.168.2.0/24 via 192.168.59.104"""
    for other in lab.hosts:
        if other is not host:
            host.delete_route(container_subnet(other), via=other.address)


def add_tunnel_routes(lab: Lab, host: Host) -> None:
    """sudo ip route add 192.168.2.0/24 via 192.168.2.1 dev br0 onlink

    The other br0 is on the same segment, through the tunnel; `onlink` says so to the kernel.
    """
    for other in lab.hosts:
        if other is not host:
            subnet = container_subnet(other)
            host.add_route(subnet, via=subnet[1], dev="br0", onlink=True)


def accept_forwarding(host: Host) -> None:
    """sudo iptables -P FORWARD ACCEPT"""
    host.configure(["iptables", "-P", "FORWARD", "ACCEPT"])


def after_boot(lab: Lab, host: Host, settings: Settings) -> None:
    """conf.db brings obr0 and its tunnels back; what was typed is gone, and is typed again."""
    set_up_bridge(lab, host)
    start_docker(host, settings)
    # docker start $(docker ps -aq)
    host.docker.start_all()
    if settings["forward"] == "drop":
        accept_forwarding(host)
    if settings["routes"] == "tunnel":
        add_tunnel_routes(lab, host)
    else:
        add_underlay_routes(lab, host)


def judge(lab: Lab, settings: Settings, check: Judge) -> None:
    """What must hold of this method, whoever typed it and whatever bridges and ports are called."""
    check.stage("hosts")
    check.hosts_reach_each_other()

    check.stage("before the route")
    for host in lab.hosts:
        check.has_tunnel(host, "gre", bridge_see="2.1", see="2.2")
        check.docker_leads_into_the_tunnel(host, "gre", see="2.3")
        check.containers_run(host, see="2.4")
    check.tunnels_join_all_hosts("gre", see="2.2")
    check.ranges_are_apart()
    check.addresses_are_distinct()
    check.containers_reach_outside()
    check.containers_reach_other_hosts()
    way = check.way_between_containers()
    if not way:
        check.containers_do_not_reach_each_other("no host has a route to them")

    # Both routes are right.  Which one is there says at which of the two stages the lab is.
    check.stage("with the notes' route")
    if way == "through the tunnel":
        check.passes_over("the hosts' routes lead through the tunnel")
    judge_routes(lab, check, see="2.5")
    check.takes("none", "as it is, past the tunnel")

    check.stage("with the route through the tunnel")
    if way == "past the tunnel":
        check.passes_over("the hosts' routes lead past the tunnel, which is right, too (2.6)")
    judge_routes(lab, check, see="2.6")
    check.takes("gre", "in GRE, through the tunnel")
    tunnels = check.tunnels_are_deleted(lab.hosts[0], "gre")
    check.stops_when(tunnels, stops=way == "through the tunnel")


def judge_routes(lab: Lab, check: Judge, *, see: str) -> None:
    for host in lab.hosts:
        check.has_routes(host, see=see)
    check.containers_reach_each_other()
    check.transfers(see="2.3")


SCENARIO = Scenario(
    name="ovs-gre",
    summary="Open vSwitch bridge with a GRE port, one container subnet a host, static routes",
    order=3,
    needs=("Open vSwitch", "masquerading"),
    variants=("routes=underlay",),
    virtual_variants=("datapath=userspace",),
    adds=(
        ("routes=underlay", "bridges, routing, netfilter"),
        ("", "Open vSwitch and GRE"),
        ("datapath=userspace", "the way through user space"),
    ),
    options=(
        Option(
            "routes",
            "tunnel",
            "tunnel: routed traffic takes GRE; underlay: the notes' route, which bypasses it",
            ("tunnel", "underlay"),
        ),
        Option("forward", "accept", "FORWARD policy: drop since Docker 1.13", ("accept", "drop")),
        Option(
            "datapath",
            "auto",
            "Open vSwitch's, in the kernel or in user space; auto: the kernel's where it is live",
            ("auto", "kernel", "userspace"),
        ),
    ),
    plan=plan,
    build=build,
    judge=judge,
    stages=(
        "hosts",
        "before the route",
        "FORWARD policy DROP",
        "with the notes' route",
        "with the route through the tunnel",
    ),
    portraits=(
        Portrait(
            "gre",
            Part("br0"),
            (Part("obr0", "OVS"), Part("gre*", "GRE port")),
            # No figure for Open vSwitch with GRE that could be verified was found.
            published=Published(
                "Open vSwitch's kernel datapath with Geneve, not GRE",
                throughput=(0.65, 0.92),
                latency=(1.4, 1.9),
                source="Antrea on Linux 5.14 to 6.8; ONCache; infraBuilder 2024",
                kernel_only=True,
            ),
        ),
        Portrait(
            "none",
            Part("br0"),
            (Part("obr0", "OVS", on_path=False), Part("gre*", "bypassed", on_path=False)),
            bypass="the tutorial's own route, via the other host on eth0,",
        ),
    ),
)
