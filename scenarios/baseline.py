"""baseline: no method at all, the yardstick for the others.

        h1                              h2
        ┌───────────────────┐           ┌───────────────────┐
        │ c1 172.17.0.2     │           │ c1 172.17.0.2     │   the same address!
        │  │                │           │  │                │
        │ docker0 172.17.0.1│           │ docker0 172.17.0.1│
        │  ⇅ masquerading   │           │  ⇅ masquerading   │
        │ eth0 10.211.55.3  │           │ eth0 10.211.55.4  │
        └──┬────────────────┘           └──┬────────────────┘
        ───┴───────── the physical network ┴──────── gw 10.211.55.1 ── outside

Docker as it comes: containers reach the outside through their host's address, and nobody reaches
them.  What is measured here is host to host.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from xlab.errors import UsageError
from xlab.lab.lab import Host, Lab
from xlab.scenario.claims import Checks
from xlab.scenario.judge import Cut, Judge
from xlab.scenario.scenario import Flow, Part, Portrait, Scenario, Settings, Size

UNDERLAY = IPv4Network("10.211.55.0/24")
LARGE_UNDERLAY = IPv4Network("10.211.0.0/16")
GATEWAY, FIRST_HOST = 1, 3


def plan(size: Size, settings: Settings) -> IPv4Network:
    """The hosts' subnet: the notes' /24, or the /16 around it."""
    for subnet in (UNDERLAY, LARGE_UNDERLAY):
        if FIRST_HOST + size.hosts < subnet.num_addresses:
            return subnet
    raise UsageError(f"{LARGE_UNDERLAY} has no room for {size.hosts:,} hosts")


def build(lab: Lab, subnet: IPv4Network, size: Size, settings: Settings, check: Checks) -> Flow:
    """Plain Docker on plain hosts."""
    lab.give_addresses(subnet, first=FIRST_HOST, gateway=GATEWAY)
    h1, h2 = lab.hosts[0], lab.hosts[-1]

    check.stage("hosts")
    check.all_reach_each_other(lab.hosts, "hosts")

    # sudo systemctl start docker; docker run -d --name c1 …
    for host in lab.hosts:
        host.docker.start()
        for number in range(1, size.containers + 1):
            host.docker.run(f"c{number}")

    check.stage("Docker as it comes")
    c1, far = h1.containers[0], h2.containers[0]
    check.reaches_outside(c1)
    check.reaches(c1, h2, f"{c1} reaches the other host {h2}, masqueraded as {h1}")
    check.addresses_are(
        "same-addresses",
        f"{far} has the same address as {c1}: no route could tell them apart",
        {far: c1.address},
    )
    check.transfers(h1, h2)

    port = lab.switch_port(h1)
    return Flow(
        source=h1,
        target=h2,
        control=(h1, h2),
        encapsulation="none",
        watched=h1,
        cut=lambda: lab.wire.set_down(port),
        heal=lambda: lab.wire.set_up(port),
        cut_text=f"switch port {port} down",
        after_boot=after_boot,
    )


def after_boot(host: Host) -> None:
    """docker.service starts by itself; containers without a restart policy do not."""
    host.docker.start()
    # docker start $(docker ps -aq)
    host.docker.start_all()


def judge(lab: Lab, settings: Settings, check: Judge) -> None:
    """What must hold of plain Docker on plain hosts, whoever typed it."""
    check.stage("hosts")
    check.hosts_reach_each_other()

    check.stage("Docker as it comes")
    for host in lab.hosts:
        check.containers_run(host, see='"Where we start"')
    check.containers_reach_outside()
    check.containers_reach_other_hosts()
    check.takes("none", "as it is, from the host's address", to_host=True)
    port = lab.switch_port(lab.hosts[0])
    down, up = lambda: lab.wire.set_down(port), lambda: lab.wire.set_up(port)
    check.stops_when(Cut(f"switch port {port} down", down, up))


SCENARIO = Scenario(
    name="baseline",
    summary="no overlay: plain hosts on one switch, the yardstick for ratios",
    order=1,
    options=(),
    plan=plan,
    build=build,
    judge=judge,
    stages=("hosts", "Docker as it comes"),
    portraits=(
        Portrait("none", Part("docker0", "masquerades", on_path=False), of_containers=False),
    ),
)
