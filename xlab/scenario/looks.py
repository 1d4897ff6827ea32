"""What is seen of one part of a typed network, and what to look at where that is not right.

holds      what is there, in words
fails      what is wrong, and a command or a section of the tutorial that shows it
not yet    what is missing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from xlab.lab.docker import Container
from xlab.lab.lab import Host
from xlab.lab.node import Node
from xlab.lab.ovs import Bridge, Port
from xlab.scenario.found import There


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen where something was looked for."""

    state: Literal["holds", "fails", "not yet"]
    observed: str
    #: What to look at next: a command, a section of the tutorial.
    look: str = ""


def right(observed: str) -> Seen:
    return Seen("holds", observed)


def wrong(observed: str, look: str) -> Seen:
    return Seen("fails", observed, look)


def missing(what: str, look: str) -> Seen:
    return Seen("not yet", what, look)


def tutorial(section: str) -> str:
    return f"docs/tutorial.md {section}"


def of_docker(host: Host | There) -> str:
    return f"`systemctl cat docker` on {host}"


def listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# -- the network card ------------------------------------------------------------------------------


def bridged_nic(there: There, see: str) -> Seen:
    """eth0 is a port of a Linux bridge; the host's address is there, and eth0 has none."""
    nic = there.nic
    if nic not in there.devices:
        return wrong(f"{there} has no {nic}", f"`ip -br link` on {there}")
    bridge, its = there.bridge_of(nic), there.addresses_of(nic)
    if not bridge:
        holder = there.addresses.get(there.address) if there.address else None
        if holder in (None, nic):
            return missing(f"{there}: {nic} is a port of no bridge", tutorial(see))
        lost = f"{holder} has {there.address}, but {nic} is a port of no bridge"
        return wrong(f"{there}: {lost}", f"`brctl show` on {there}; {tutorial(see)}")
    if its:
        return wrong(
            f"{there}: {nic}, a port of {bridge}, still has {its[0]}",
            f"`ip -br address` on {there}; docs/tutorial.md C2",
        )
    if not there.addresses_of(bridge):
        return wrong(f"{there}: {bridge} has no address", f"`ip -br address` on {there}")
    return up(there, nic, bridge) or right(
        f"{nic} is a port of {bridge}, {there.addresses_of(bridge)[0]}"
    )


# -- Docker ----------------------------------------------------------------------------------------


def docker_on_the_bridge_of_the_nic(there: There, see: str) -> Seen:
    """Docker plugs containers in where eth0 is."""
    bridge, wanted = there.docker_bridge, there.bridge_of(there.nic)
    if wanted and bridge != wanted and there.docker_is_as_it_came:
        return missing(f"{there}: Docker is not on {wanted}", tutorial(see))
    if halted := stopped(there):
        return halted
    if bridge != wanted:
        where = f"{there.nic} is a port of {wanted or 'no bridge'}"
        return wrong(f"{there}: Docker uses {bridge}; {where}", of_docker(there))
    return unplugged(there) or right(f"Docker uses {bridge}")


def docker_at_the_tunnel(there: There, kind: str, see: str) -> Seen:
    """Open vSwitch's bridge and Docker's are joined; or it has an address to route over."""
    bridge = there.docker_bridge
    ends = {switch.name: switch for switch, _ in there.tunnels(kind)}
    switches, name = list(ends), next(iter(ends))
    joints = {k: v for each in ends.values() for k, v in there.joints(each).items()}
    if bridge not in joints and there.docker_is_as_it_came:
        short = f"Docker is not on {listed(joints)}"
        if not joints:
            short = f"{name} is a port of no bridge"
        return missing(f"{there}: {short}", tutorial(see))
    if halted := stopped(there):
        return halted
    if bridge in joints:
        of = f"{joints[bridge][0]} is a port of {bridge}, which Docker uses"
        return up(there, *joints[bridge], bridge) or unplugged(there) or right(of)
    routed = [each for each in switches if there.addresses_of(each)]
    if routed:
        of = f"packets are routed over {routed[0]}, {there.addresses_of(routed[0])[0]}"
        return up(there, routed[0]) or unplugged(there) or right(of)
    return wrong(
        f"{there}: {name} is a port of {listed(joints) or 'no bridge'}, and has no "
        f"address; Docker uses {bridge}",
        f"`brctl show` on {there}; {tutorial(see)}",
    )


def running_containers(there: There, interface: str, see: str) -> Seen:
    """One at least, with an address on that interface."""
    running = there.containers(interface)
    if running:
        return right(listed([f"{c.short_name} {own}" for c, own in running.items()]))
    others = [f"{c.short_name} {_state(c)}" for c in there.host.docker.all_containers]
    which = f" with an {interface}" if interface != "eth0" else ""
    had = f" ({listed(others)})" if others else ""
    look = f"`docker ps -a` on {there}; " if others else ""
    return missing(f"{there}: no container runs{which}{had}", look + tutorial(see))


def _state(container: Container) -> str:
    if container.state == "exited":
        return f"has exited ({container.exit_code})"
    return f"is {container.state}"


# -- tunnels ---------------------------------------------------------------------------------------


def tunnel(
    there: There, kind: str, peers: Mapping[IPv4Address, There], *, see: str, bridge_see: str
) -> Seen:
    """A bridge of Open vSwitch has a port of that kind to another host, one of `peers`."""
    if not there.switches:
        return missing(f"{there}: Open vSwitch has no bridge", tutorial(bridge_see))
    by_address = {str(address): peer for address, peer in peers.items()}
    said = []
    for switch, port in there.tunnels(kind):
        remote = port.options.get("remote_ip", "")
        if fault := fault_of(there, port, by_address.get(remote)):
            return wrong(f"{there}: {fault}", f"`ovs-vsctl show` on {there}")
        said.append(f"{port.name} of {switch.name} leads to {remote}, {by_address[remote]}")
    return right("; ".join(said)) if said else no_tunnel(there, kind, see)


def fault_of(there: There, port: Port, peer: There | None) -> str:
    """What is wrong with a tunnel's port; "" if nothing is."""
    remote = port.options.get("remote_ip", "")
    if port.error:
        return f"{port.name}: {port.error}"
    if not remote:
        return f"{port.name} has no remote_ip"
    if remote in map(str, there.addresses):
        return f"{port.name} leads to {remote}, which is {there}'s own"
    if peer is None:
        return f"{port.name} leads to {remote}, which no other host has"
    for _, back in peer.tunnels(port.type):
        if back.options.get("remote_ip", "") in map(str, there.addresses):
            keys = port.options.get("key", "0"), back.options.get("key", "0")
            if keys[0] != keys[1]:
                return f"{port.name} has key {keys[0]}, {back.name} of {peer} key {keys[1]}"
    return ""


def no_tunnel(there: There, kind: str, see: str) -> Seen:
    others = [
        (switch, port) for switch in there.switches for port in switch.ports
        if port.options.get("remote_ip")
    ]  # fmt: skip
    if others:
        _, port = others[0]
        return wrong(
            f"{there}: {port.name} is of type {port.type}, not {kind}",
            f"`ovs-vsctl show` on {there}",
        )
    untyped = [p.name for s in there.switches for p in s.ports if p.error]
    more = f" ({untyped[0]} has no type yet)" if untyped else ""
    names = listed([switch.name for switch in there.switches])
    return missing(f"{there}: {names} has no {kind.upper()} port{more}", tutorial(see))


def joined(
    ends: Mapping[Host, Sequence[tuple[Bridge, Port]]],
    owners: Mapping[IPv4Address, There],
    see: str,
) -> Seen:
    """The tunnels of all hosts lead to all of them, and not round in a circle."""
    links: set[frozenset[Node]] = set()
    for host, tunnels in ends.items():
        for _, port in tunnels:
            for address, peer in owners.items():
                if str(address) == port.options.get("remote_ip"):
                    links.add(frozenset((host, peer.host)))
    near = _reached(next(iter(ends)), links)
    lost = [str(host) for host in ends if host not in near]
    if lost:
        return wrong(f"no tunnel leads to {listed(lost)}", "`ovs-vsctl show`")
    if has_loop(links, {host for host, tunnels in ends.items() if _forwards(tunnels)}):
        return wrong(
            f"{len(links)} tunnels between {len(ends)} hosts make a loop",
            f"`ovs-vsctl set port NAME protected=true`; {tutorial(see)}",
        )
    return right(f"{len(links)} tunnels")


# -- what several look at --------------------------------------------------------------------------


def up(there: There, *devices: str) -> Seen | None:
    """The first of these that is down, if one is."""
    for device in devices:
        if not there.is_up(device):
            return wrong(f"{there}: {device} is down", f"`ip link show {device}` on {there}")
    return None


def stopped(there: There) -> Seen | None:
    if there.host.docker.is_running:
        return None
    return wrong(f"{there}: Docker does not run", f"`journalctl -u docker` on {there}")


def unplugged(there: There) -> Seen | None:
    """A container whose end on the host is no port of Docker's bridge any more."""
    for container in there.host.containers:
        port, bridge = container.host_interface, there.bridge_of(container.host_interface)
        if port in there.devices and bridge != there.docker_bridge:
            where = f"{port} is a port of {bridge or 'no bridge'}, not of {there.docker_bridge}"
            return wrong(f"{container}: {where}", f"`brctl show` on {there}")
    return None


def _forwards(tunnels: Sequence[tuple[Bridge, Port]]) -> bool:
    """Whether what comes by one tunnel leaves by another, and loops are not found by themselves.

    Two protected ports do not forward to each other.
    """
    return any(not bridge.opens_loops and not port.protected for bridge, port in tunnels)


def has_loop(links: Iterable[frozenset[Node]], forwarding: Set[Node]) -> bool:
    """Whether a frame could go round in a circle, each of whose hosts forwards it."""
    circle = [link for link in links if link <= forwarding]
    while circle:
        ends = Counter(host for link in circle for host in link)
        left = [link for link in circle if all(ends[host] > 1 for host in link)]
        if left == circle:
            return True
        circle = left
    return False


def _reached(start: Node, links: Iterable[frozenset[Node]]) -> set[Node]:
    reached, links = {start}, list(links)
    for _ in links:
        for link in links:
            if link & reached:
                reached |= link
    return reached
