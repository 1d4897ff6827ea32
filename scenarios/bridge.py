"""bridge: the host's NIC becomes a port of br0, and Docker puts its containers there too.

        h1                                   h2
        ┌────────────────────────────┐       ┌────────────────────────────┐
        │ c1 .64   c2 .65            │       │ c1 .128  c2 .129           │
        │   └──┬─────┘               │       │   └──┬─────┘               │
        │  br0 10.211.55.3           │       │  br0 10.211.55.4           │
        │   └ eth0 (no address)      │       │   └ eth0 (no address)      │
        └──────┬─────────────────────┘       └──────┬─────────────────────┘
        ───────┴──── one segment, 10.211.55.0/24 ───┴──── gw 10.211.55.1 ── outside

Containers are on the hosts' own segment.  Nothing encapsulates, nothing routes; what it costs is
addresses shared out by hand, and a network that tolerates strangers.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from xlab.errors import UsageError
from xlab.lab.docker import DaemonOptions
from xlab.lab.lab import Host, Lab
from xlab.lab.reachability import sample_pairs
from xlab.scenario.claims import Checks
from xlab.scenario.judge import Judge
from xlab.scenario.scenario import Flow, Option, Part, Portrait, Published, Scenario, Settings, Size

SUBNET = IPv4Network("10.211.55.0/24")
GATEWAY, FIRST_HOST = 1, 3

#: The range the notes give host 2, outside the bridge's subnet.
NOTES_SECOND_RANGE = "192.168.59.128/26"

#: Ranges are as large as in the notes while that fits.
NOTES_RANGE_PREFIX = 26
LARGEST_SUBNET_PREFIX = 16


@dataclass(frozen=True, slots=True)
class Plan:
    subnet: IPv4Network
    #: --fixed-cidr of each host; None where it is left out.
    ranges: tuple[str | None, ...]


def plan(size: Size, settings: Settings) -> Plan:
    """Divide the subnet: the first part for gateway and hosts, then one range a host."""
    subnet, ranges = divide(size)
    texts: list[str | None] = [str(block) for block in ranges]
    if settings["fixed-cidr"] == "none":
        texts = [None] * size.hosts
    elif settings["fixed-cidr"] == "notes":
        if size.hosts != 2 or subnet != SUBNET:
            raise UsageError("fixed-cidr=notes: the notes give ranges for two hosts on a /24")
        texts[1] = NOTES_SECOND_RANGE
    return Plan(subnet, tuple(texts))


def divide(size: Size) -> tuple[IPv4Network, list[IPv4Network]]:
    """The smallest subnet from the notes' /24 up, and in it a range a host, the largest that fit.

    A range has a power of two of addresses, at least one more than containers where a /16 allows
    it.  The first ones hold gateway and hosts; in the last, the subnet's broadcast address is
    nobody's.  UsageError if not even a /16 has room.
    """
    for spare in (1, 0):
        for subnet_prefix in range(SUBNET.prefixlen, LARGEST_SUBNET_PREFIX - 1, -1):
            subnet = SUBNET.supernet(new_prefix=subnet_prefix)
            blocks = ranges_in(subnet, size, smallest=size.containers + spare)
            if blocks:
                return subnet, blocks
    raise UsageError(
        f"{size.hosts:,} hosts with {size.containers:,} containers each do not fit into a "
        f"/{LARGEST_SUBNET_PREFIX} ({2 ** (32 - LARGEST_SUBNET_PREFIX):,} addresses)"
    )


def ranges_in(subnet: IPv4Network, size: Size, *, smallest: int) -> list[IPv4Network]:
    """A range of at least `smallest` addresses a host, the largest that fit; [] if none does."""
    shortest_block = (smallest - 1).bit_length()
    longest_block = min(max(32 - NOTES_RANGE_PREFIX, shortest_block), 32 - subnet.prefixlen)
    for bits in range(longest_block, shortest_block - 1, -1):
        block = 1 << bits
        reserved = -(-(FIRST_HOST + size.hosts) // block)
        # The subnet's last address is its broadcast address.
        last_is_short = size.containers == block
        if reserved + size.hosts + last_is_short <= subnet.num_addresses // block:
            first = int(subnet.network_address) + reserved * block
            return [IPv4Network((first + i * block, 32 - bits)) for i in range(size.hosts)]
    return []


def build(lab: Lab, plan: Plan, size: Size, settings: Settings, check: Checks) -> Flow:
    """The notes' chapter on bridges, in its order."""
    lab.give_addresses(plan.subnet, first=FIRST_HOST, gateway=GATEWAY)
    check.stage("hosts")

    for host in lab.hosts:
        set_up_bridge(host, plan)

    h1, h2 = lab.hosts[0], lab.hosts[-1]
    check.stage("br0 has taken over eth0")
    check.shows(
        "eth0-has-no-address",
        "eth0 is still there, without an address (the notes say it vanishes)",
        node=h1,
        argv=["ip", "-brief", "-4", "address"],
        expected="br0 with the host's address, no line for eth0",
        holds=rf"(?m)\A(?![\s\S]*^eth0)[\s\S]*^br0 .*{h1.address}/",
    )
    check.all_reach_each_other(lab.hosts, "hosts")

    # docker run -d --name c1 …
    for host in lab.hosts:
        start_docker(host, plan, settings)
        for number in range(1, size.containers + 1):
            host.docker.run(f"c{number}")

    c1, far = h1.containers[0], h2.containers[0]
    check.stage("Docker on br0")
    check.shows(
        "docker-uses-br0",
        "containers are ports of br0, and there is no docker0",
        node=h1,
        argv=["sh", "-c", "ls /sys/class/net/br0/brif; ls -d /sys/class/net/docker0"],
        expected="veth… beside eth0; docker0: no such file",
        holds=r"eth0\s+veth[\s\S]*docker0'?: No such file",
    )
    for host in (h1, h2):
        check_range(check, host, plan, settings["docker"])
    check.addresses_are_distinct(
        [*lab.containers, *lab.hosts, lab.gateway], "containers, hosts and gateway"
    )
    check.reaches_outside(c1)
    check.reaches(c1, h2, f"{c1} reaches the other host {h2}")
    check.reaches(c1, far, f"{c1} reaches {far} on the other host")
    check.all_reach_each_other(lab.containers, "containers")
    check.transfers(c1, far)

    show_drawbacks(lab, check)
    return Flow(
        source=c1,
        target=far,
        control=(h1, h2),
        encapsulation="none",
        watched=h1,
        cut=lambda: h1.remove_from_bridge("eth0"),
        heal=lambda: h1.add_to_bridge("br0", "eth0"),
        cut_text="eth0 of h1 detached from br0",
        after_boot=lambda host: after_boot(host, plan, settings),
    )


def set_up_bridge(host: Host, plan: Plan) -> None:
    """/etc/network/interfaces:  iface br0 inet static … bridge_ports eth0"""
    address = IPv4Interface((host.address, plan.subnet.prefixlen))
    host.add_bridge("br0", mac=host.mac_address("eth0"))
    host.delete_address("eth0", address)
    host.add_to_bridge("br0", "eth0")
    host.add_address("br0", address)
    host.add_route("default", via=plan.subnet[GATEWAY], dev="br0")


def start_docker(host: Host, plan: Plan, settings: Settings) -> None:
    """ExecStart=/usr/bin/dockerd -b br0 --fixed-cidr RANGE"""
    host.docker.start(
        DaemonOptions(
            bridge="br0",
            fixed_cidr=plan.ranges[host.number - 1],
            mtu=host.mtu("br0"),  # 1500 is --mtu's default, whatever the network's
            version=28 if settings["docker"] == "28" else 26,
            forward_policy="drop" if settings["forward"] == "drop" else "accept",
        )
    )


def after_boot(host: Host, plan: Plan, settings: Settings) -> None:
    """Both files are read at boot; containers without a restart policy wait for somebody."""
    set_up_bridge(host, plan)
    start_docker(host, plan, settings)
    # docker start $(docker ps -aq)
    host.docker.start_all()


def check_range(check: Checks, host: Host, plan: Plan, docker: str) -> None:
    """Containers have addresses from their host's --fixed-cidr, its very first one included."""
    fixed_cidr = plan.ranges[host.number - 1]
    if fixed_cidr is None:
        return
    inside, why = (
        IPv4Network(fixed_cidr),
        "gives addresses from its first on (the notes count from .65)",
    )
    if not inside.subnet_of(plan.subnet):
        # Docker 26 takes the host part of such a range, 28 none of it.
        host_part = int(inside.network_address) & int(plan.subnet.hostmask)
        inside, why = (
            IPv4Network((plan.subnet[host_part], inside.prefixlen)),
            "serves as an offset into the subnet",
        )
        if docker == "28":
            inside, why = plan.subnet, "is ignored by Docker 28: addresses come from all the subnet"
    allocatable = (a for a in inside if a not in (plan.subnet[0], host.address))
    check.addresses_are(
        f"{host}-addresses-from-fixed-cidr",
        f"{host}: --fixed-cidr {fixed_cidr} {why}",
        dict(zip(host.containers, allocatable, strict=False)),
    )


def show_drawbacks(lab: Lab, check: Checks) -> None:
    """The notes' list of drawbacks, measured."""
    h1, h2 = lab.hosts[0], lab.hosts[-1]
    c1, far = h1.containers[0], h2.containers[0]
    check.stage("drawbacks", lasts=False)
    check.broadcasts_reach(
        c1, far, f"one broadcast domain of {len(lab.containers) + len(lab.hosts) + 1} stations: "
        f"what {c1} broadcasts, {far} hears"
    )  # fmt: skip
    # In a large lab only a sample of them has sent anything.
    senders = {source for source, _ in sample_pairs(lab.containers)}
    heard = [container for container in lab.containers if container in senders]
    check.switch_learns(
        h1, heard, "the physical switch learns a MAC for every container"
        + ("" if len(heard) == len(lab.containers) else " that has sent"),
        id="switch-learns-containers",
    )  # fmt: skip

    # A switch port that admits one MAC only, as production networks have them (port security).
    lab.limit_port_to_one_mac(h1)
    check.reaches(h1, h2, f"one MAC admitted at the switch port: {h1} still reaches {h2}",
                  id="port-security-host")  # fmt: skip
    check.does_not_reach(c1, far, f"… but {c1} does NOT reach {far}: needs control of the network",
                         id="port-security-container")  # fmt: skip
    lab.admit_all_macs(h1)
    check.reaches(c1, far, f"port opened again: {c1} reaches {far}", id="port-security-lifted")


def judge(lab: Lab, settings: Settings, check: Judge) -> None:
    """What must hold of this method, whoever typed it and whatever the bridges are called."""
    check.stage("hosts")
    check.hosts_reach_each_other()

    check.stage("br0 has taken over eth0")
    for host in lab.hosts:
        check.nic_is_bridged(host, see="1.1")
    check.hosts_reach_outside(see="1.1")

    check.stage("Docker on br0")
    for host in lab.hosts:
        check.docker_is_on_the_bridge_of_the_nic(host, see="1.2")
        check.containers_run(host, see="1.2")
    check.ranges_are_apart()
    check.addresses_are_distinct()
    check.containers_reach_outside()
    check.containers_reach_other_hosts()
    check.containers_reach_each_other()
    check.transfers(see="1.3")
    check.takes("none", "as it is, unencapsulated")
    check.stops_when(check.nic_leaves_its_bridge(lab.hosts[0]))


SCENARIO = Scenario(
    name="bridge",
    summary="the host's NIC is a port of br0; dockerd -b br0 --fixed-cidr; one flat subnet",
    order=2,
    adds=(("", "a bridge on each host"),),
    needs=("masquerading",),
    options=(
        Option(
            "fixed-cidr",
            "divided",
            "divided: a range a host; notes: host 2 as the notes have it; none: left out",
            ("divided", "notes", "none"),
        ),
        Option(
            "docker", "26", "whose allocator: 28 ignores a range outside the subnet", ("26", "28")
        ),
        Option("forward", "accept", "FORWARD policy: drop since Docker 1.13", ("accept", "drop")),
    ),
    plan=plan,
    build=build,
    judge=judge,
    stages=("hosts", "br0 has taken over eth0", "Docker on br0", "drawbacks"),
    portraits=(
        Portrait(
            "none",
            Part("br0"),
            eth0="a port of br0",
            published=Published(
                "Docker bridge",
                throughput=(0.87, 0.98),
                latency=(1.0, 1.2),
                source="moby #33115; container network benchmarks; qperf",
            ),
        ),
    ),
)
