"""What a lab's network consists of just now, read from the kernel, Open vSwitch and weave.

Runs in pid 1.  Nothing is taken from what the lab was built to be, but which ends are one link:

    container's eth0 ── veth of the host      by the indices both ends have of each other
    host's eth0 ─────── port of a switch      by the lab's plan: Open vSwitch's port has no peer

A node is {name, kind, host, up, devices, switches, router}, a device {name, kind, mtu, up, mac,
addresses, bridge, peer, remotes}.  Of a link with conditions the switch's end is no port of the
switch itself: it has `port`, which is, and `conditions`, and so has what is between the two.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from xlab.errors import XlabError
from xlab.lab.docker import Container
from xlab.lab.lab import Host, Lab, concurrently
from xlab.lab.node import Node

#: Open vSwitch's own, and what every namespace has.
_UNSEEN = ("lo", "ovs-netdev", "ovs-system")
#: What modules of tunnels, once loaded, put into each new namespace, down, and nobody can delete
#: (fb_tunnels_only_for_init_net, Documentation/admin-guide/sysctl/net.rst; and vti's).
FALLBACK_TUNNELS = frozenset(
    ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0")
)
_ANSWER_S = 5


def look(lab: Lab) -> list[dict[str, Any]]:
    """Every node, the switches' namespace last.  A node that is down has no devices."""
    found = concurrently(_node, [*lab.nodes, lab.wire])
    _find_peers(found, lab)
    return found


def _node(node: Node) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": node.name,
        "kind": "wire" if node.name == "wire" else "gateway",
        "host": None,
        "up": node.is_on,
        "forwards": False,
        "devices": [],
        "switches": [],
        "router": None,
    }
    if isinstance(node, Container):
        facts |= {"kind": "container", "host": node.name.partition("/")[0]}
    elif isinstance(node, Host):
        facts |= {"kind": "host"}
    if not node.is_on:
        return facts
    try:
        facts["devices"] = devices(node)
        facts["forwards"] = node.sysctl("net.ipv4.ip_forward") == "1"
    except XlabError as error:
        return facts | {"up": False, "trouble": str(error)}
    if isinstance(node, Host):
        facts["router"] = _router(node)
        daemons = node.daemons()
        if daemons.get("ovsdb-server"):
            try:
                facts["switches"] = switches(node)
            except XlabError as error:  # whose `ovs-vsctl` it is, is up to the host
                facts["trouble"] = str(error)
        elif "ovsdb-server" in daemons:
            facts["trouble"] = "Open vSwitch does not answer: ovsdb-server is dead"
    return facts


def devices(node: Node) -> list[dict[str, Any]]:
    """The node's interfaces, in the kernel's order; no fallback tunnel that nobody has used."""
    shown = node.listed(["ip", "-d", "-j", "address", "show"])
    # One that goes meanwhile is an empty object.
    found = [_device(node, raw) for raw in shown if raw and raw["ifname"] not in _UNSEEN]
    return [
        device
        for device in found
        if device["name"] not in FALLBACK_TUNNELS
        or (device["up"] or device["addresses"] or device["bridge"])
    ]


def _device(node: Node, raw: dict[str, Any]) -> dict[str, Any]:
    info = raw.get("linkinfo", {})
    device = {
        "name": raw["ifname"],
        "index": raw["ifindex"],
        "peer_index": raw.get("link_index"),
        # In place of its index, where the other end is in the same namespace.
        "peer_here": raw.get("link"),
        "kind": info.get("info_kind", "physical"),
        "mtu": raw["mtu"],
        # A tap of Open vSwitch says UNKNOWN while it works.
        "up": "UP" in raw["flags"] and raw.get("operstate") not in ("DOWN", "LOWERLAYERDOWN"),
        "mac": raw.get("address"),
        "addresses": [
            f"{own['local']}/{own['prefixlen']}"
            for own in raw.get("addr_info", [])
            if own.get("family") == "inet"
        ],
        "bridge": raw.get("master"),
        "peer": None,
        "remotes": [],
    }
    if device["kind"] == "vxlan":
        device["port"] = info.get("info_data", {}).get("port")
        table = node.listed(["bridge", "-j", "fdb", "show", "dev", device["name"]])
        remotes = {entry["dst"] for entry in table if "dst" in entry}
        device["remotes"] = sorted(remotes)
    return device


def switches(host: Node) -> list[dict[str, Any]]:
    """Open vSwitch's bridges: {name, ports: [{name, type, remote}]}.

    XlabError if `ovs-vsctl` does not end, or says what nobody understands.
    """
    done = host.run(
        ["ovs-vsctl", f"--timeout={_ANSWER_S}", "-f", "json",
         "--columns=name,ports", "list", "Bridge",
         "--", "--columns=_uuid,interfaces", "list", "Port",
         "--", "--columns=_uuid,name,type,options", "list", "Interface"],
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return []
    try:
        return _bridges(done.stdout)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise XlabError("Open vSwitch says what cannot be read") from error


def _bridges(said: str) -> list[dict[str, Any]]:
    bridges, ports, interfaces = (json.loads(line)["data"] for line in said.strip("\n").split("\n"))
    by_port = {uuid[1]: _several(inside) for uuid, inside in ports}
    described = {
        uuid[1]: {
            "name": str(name),
            "type": str(kind or "system"),
            "remote": str(remote) if remote is not None else None,
        }
        for uuid, name, kind, options in interfaces
        for remote in [dict(options[1]).get("remote_ip")]
    }
    return [
        {
            "name": str(name),
            "ports": [
                described[interface] for port in _several(inside) for interface in by_port[port]
            ],
        }
        for name, inside in bridges
    ]


def _several(value: list[Any]) -> list[str]:
    """OVSDB's JSON of a set of references: one stands by itself (RFC 7047, 5.1)."""
    return [value[1]] if value[0] == "uuid" else [uuid for _, uuid in value[1]]


def _router(host: Host) -> dict[str, Any] | None:
    alive = host.weave.alive()
    if not alive:
        return None
    running = all(alive.values())
    connections = host.weave.connections() if running else []
    return {
        "name": host.weave.name,
        "datapath": host.weave.datapath,
        "up": running,
        "remotes": sorted(str(c["address"]).rpartition(":")[0] for c in connections),
    }


def _find_peers(found: list[dict[str, Any]], lab: Lab) -> None:
    nodes = {node["name"]: node for node in found}

    def join(
        a: dict[str, Any], one: dict[str, Any], b: dict[str, Any], two: dict[str, Any]
    ) -> None:
        one["peer"], two["peer"] = f"{b['name']}:{two['name']}", f"{a['name']}:{one['name']}"

    for node in found:
        if host := nodes.get(node["host"] or ""):
            for own, other in product(node["devices"], host["devices"]):
                if (own["peer_index"], own["index"]) == (other["index"], other["peer_index"]):
                    join(node, own, host, other)
    wire = nodes[lab.wire.name]
    ports = {device["name"]: device for device in wire["devices"]}
    for link in lab.underlay.uplinks:
        node = nodes[link.b.node]
        for own in node["devices"]:
            if own["name"] == link.b.interface and link.a.interface in ports:
                join(node, own, wire, ports[link.a.interface])
    for interface, (imposed, port) in lab.conditioned().items():
        own, last = ports.get(interface), ports.get(port)
        if own is None or last is None:
            continue
        own |= {"conditions": str(imposed), "port": port}
        between = ports.get(last["peer_here"] or "")
        if between:
            between |= {"conditions": own["conditions"], "port": port}
            join(wire, last, wire, between)
    for link in lab.underlay.trunks:
        a, b = ports.get(link.a.interface), ports.get(link.b.interface)
        if a and b:
            join(wire, a, wire, b)
