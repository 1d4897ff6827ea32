"""weave: a router on each host, which carries the containers' frames to its peers.

        h1                                   h2
        ┌────────────────────────────┐       ┌────────────────────────────┐
        │ c1 ethwe 192.168.1.10      │       │ c1 ethwe 192.168.1.2       │
        │   └──┐                     │       │   └──┐                     │
        │    weave (bridge)          │       │    weave (bridge)          │
        │      └ router              │       │      └ router              │
        │  eth0 10.211.55.3          │       │  eth0 10.211.55.4          │
        └──────┬─────────────────────┘       └──────┬─────────────────────┘
        ───────┴─── UDP 6783: frames, packed ───────┴──── gw 10.211.55.1 ── outside

Containers share one subnet, wherever they run, and the hosts' network needs to know nothing of it:
no route, no address, no MAC of theirs is on the wire outside the routers' datagrams.

    datapath=sleeve   frames in the router's own UDP datagrams, port 6783
    datapath=fastdp   frames in VXLAN, port 6784, by the kernel (fastdp equivalent)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from itertools import islice

from xlab.errors import UsageError
from xlab.lab.lab import Host, Lab, concurrently
from xlab.lab.weave import Datapath
from xlab.scenario.claims import Checks
from xlab.scenario.judge import Cut, Judge
from xlab.scenario.scenario import Flow, Option, Part, Portrait, Published, Scenario, Settings, Size

UNDERLAY = IPv4Network("10.211.55.0/24")
GATEWAY, FIRST_HOST = 1, 3
MOST_HOSTS = 254 - FIRST_HOST + 1

#: The notes' addresses, 192.168.1.2 on the other host and 192.168.1.10 on this one.
CONTAINERS = IPv4Network("192.168.1.0/24")
LARGE_CONTAINERS = IPv4Network("192.168.0.0/16")
FIRST_ON_OTHER_HOST, ADDRESSES_A_HOST = 2, 8


@dataclass(frozen=True, slots=True)
class Plan:
    subnet: IPv4Network
    addresses_a_host: int

    def addresses(self, host: Host) -> Iterator[IPv4Interface]:
        """The addresses of a host's containers: the second host's come first, as in the notes."""
        position = {1: 1, 2: 0}.get(host.number, host.number - 1)
        start = FIRST_ON_OTHER_HOST + position * self.addresses_a_host
        for number in range(start, start + self.addresses_a_host):
            yield IPv4Interface((self.subnet[number], self.subnet.prefixlen))


def plan(size: Size, settings: Settings) -> Plan:
    """Divide the containers' subnet among the hosts; UsageError if not even a /16 is enough."""
    if size.hosts > MOST_HOSTS:
        raise UsageError(f"{UNDERLAY} has room for {MOST_HOSTS} hosts from .{FIRST_HOST} on")
    each = max(ADDRESSES_A_HOST, size.containers)
    for subnet in (CONTAINERS, LARGE_CONTAINERS):
        if FIRST_ON_OTHER_HOST + size.hosts * each < subnet.num_addresses:
            return Plan(subnet, each)
    raise UsageError(
        f"{LARGE_CONTAINERS} has no room for {size.hosts * size.containers:,} containers"
    )


def build(lab: Lab, plan: Plan, size: Size, settings: Settings, check: Checks) -> Flow:
    """The notes' chapter on weave, in its order."""
    lab.give_addresses(UNDERLAY, first=FIRST_HOST, gateway=GATEWAY, mesh=True)
    check.stage("hosts")
    h1, h2 = lab.hosts[0], lab.hosts[-1]
    datapath: Datapath = "fastdp" if settings["datapath"] == "fastdp" else "sleeve"
    for host in lab.hosts:
        host.docker.start()

    # weave launch                  on the first host
    # weave launch 10.211.55.3      on the others; they learn of each other from it
    h1.weave.launch(datapath=datapath)
    concurrently(lambda host: host.weave.launch(h1.address, datapath=datapath), lab.hosts[1:])
    for host in lab.hosts:
        host.weave.await_connections(len(lab.hosts) - 1)

    check.stage("weave launched")
    check.equal(
        "weave-is-a-container",
        "on each host the router runs as a container named weave",
        expected=["weave"] * len(lab.hosts),
        observed=lambda: [
            name for host in lab.hosts for name in host.docker.names() if name == "weave"
        ],
    )
    check.equal(
        "routers-are-connected",
        "every router is connected with every other, having been told of one",
        expected=len(lab.hosts) * (len(lab.hosts) - 1),
        observed=lambda: sum(len(host.weave.connections()) for host in lab.hosts),
        evidence=f"{h1}$ weave status connections\n{h1.weave.status('connections')}",
    )

    # weave run 192.168.1.2/24 -it ubuntu /bin/bash                  on the other host
    # weave run 192.168.1.10/24 -it --name wc1 ubuntu /bin/bash      on this one
    for host in reversed(lab.hosts):
        for number, address in enumerate(islice(plan.addresses(host), size.containers), 1):
            host.weave.run(address, name=f"c{number}", image="ubuntu")

    c1, far = h1.containers[0], h2.containers[0]
    check.stage("weave run")
    check.shows(
        "ethwe-appears",
        f"{far} has an interface ethwe with the address it was given",
        node=far,
        argv=["ip", "-brief", "-4", "address", "show", "ethwe"],
        expected=f"ethwe with {far.address}/{plan.subnet.prefixlen}",
        holds=rf"^ethwe\S*\s+UP\s+{far.address}/{plan.subnet.prefixlen}\b",
    )
    check.addresses_are_distinct(lab.containers)
    check.reaches_outside(c1)
    check.reaches(c1, far, f"{c1} reaches {far} on another host (notes: “已经可以联通另一台主机”)")
    check.all_reach_each_other(lab.containers, "containers")
    check.transfers(c1, far)

    return Flow(
        source=c1,
        target=far,
        control=(h1, h2),
        encapsulation="sleeve" if datapath == "sleeve" else "vxlan",
        watched=h1,
        cut=h1.weave.block,
        heal=h1.weave.unblock,
        cut_text=f"UDP port {h1.weave.port} dropped on h1",
        after_boot=lambda host: after_boot(host, plan),
    )


def after_boot(host: Host, plan: Plan) -> None:
    """Docker starts, and the router with it (restart policy "always"); containers by hand."""
    host.docker.start()
    host.weave.resume()
    # docker start c1; weave attach 192.168.1.2/24 c1
    for container, address in zip(host.docker.start_all(), plan.addresses(host), strict=False):
        host.weave.attach(address, container)


def judge(lab: Lab, settings: Settings, check: Judge) -> None:
    """What must hold of this method, whoever typed it and whatever the addresses are."""
    h1 = lab.hosts[0]
    check.stage("hosts")
    check.hosts_reach_each_other()

    check.stage("weave launched")
    for host in lab.hosts:
        check.router_runs(host, see="3.2")
    check.routers_are_connected(see="3.2")

    check.stage("weave run")
    for host in lab.hosts:
        check.containers_run(host, interface="ethwe", see="3.3")
    check.containers_share_a_subnet(interface="ethwe", see="3.3")
    check.addresses_are_distinct()
    check.containers_reach_outside()
    check.containers_reach_each_other()
    check.transfers(see="3.4")
    if h1.weave.datapath == "sleeve":
        check.takes("sleeve", "in the routers' UDP")
    else:
        check.takes("vxlan", "in the kernel's VXLAN")
    check.stops_when(
        Cut(f"UDP port {h1.weave.port} dropped on {h1}", h1.weave.block, h1.weave.unblock)
    )


SCENARIO = Scenario(
    name="weave",
    summary="a weave router on each host; weave run ADDRESS; containers in one subnet",
    order=4,
    variants=("datapath=fastdp",),
    adds=(("datapath=fastdp", "bridge and VXLAN"), ("", "the router in user space")),
    options=(
        Option(
            "datapath",
            "sleeve",
            "sleeve: the router's own UDP; fastdp: kernel VXLAN with the same control plane",
            ("sleeve", "fastdp"),
        ),
    ),
    plan=plan,
    build=build,
    judge=judge,
    stages=("hosts", "weave launched", "weave run"),
    datapath=lambda settings: (
        "weave sleeve userspace"
        if settings["datapath"] == "sleeve"
        else "weave fastdp equivalent (kernel vxlan)"
    ),
    portraits=(
        Portrait(
            "sleeve",
            Part("weave", "bridge"),
            (Part("weave router", "UDP port 6783"),),
            container_interface="ethwe",
            published=Published(
                "Weave sleeve",
                throughput=(0.06, 0.2),
                latency=(4.05, 4.05),
                source="a benchmark of 2015; a later user report",
            ),
        ),
        Portrait(
            "vxlan",
            Part("weave", "bridge"),
            (Part("vxlan-6784", "UDP port 6784"),),
            container_interface="ethwe",
            published=Published(
                "Weave fast datapath, MTU 1376 to 8916",
                throughput=(0.49, 0.98),
                latency=(1.85, 1.85),
                source="Slim, NSDI 2019; infraBuilder 2020",
            ),
        ),
    ),
)
