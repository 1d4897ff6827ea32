"""What a node's tables say of a packet: routes, neighbours, bridges, Open vSwitch, iptables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from xlab.lab.node import Node

_COUNTED = re.compile(r"\[(\d+):\d+\] (-A .*-j (?:DROP|REJECT).*)")
_POLICY = re.compile(r":(\S+) DROP \[(\d+):\d+\]")
_TABLE = re.compile(r"\*(\w+)")

Facts = Mapping[str, Any]


def route(node: Node, target: IPv4Address, *, source: str = "", arrived: str = "") -> str:
    """What `ip route get` says, on one line; of a packet that has arrived by an interface too."""
    argv = ["ip", "route", "get", str(target)]
    argv += ["from", source, "iif", arrived] if arrived else []
    done = node.run(argv, check=False)
    said = " ".join((done.stdout or done.stderr).split())
    said = said.removeprefix("RTNETLINK answers: ")
    return re.sub(r" uid \d+| cache.*", "", said).strip()


def next_hop(routed: str, target: IPv4Address) -> tuple[IPv4Address, str] | None:
    """Whom a route sends packets to, and by which device; None if it sends them nowhere."""
    words = routed.split()
    if "dev" not in words or words[0] in ("local", "unreachable", "prohibit", "blackhole"):
        return None
    via = IPv4Address(words[words.index("via") + 1]) if "via" in words else target
    return via, words[words.index("dev") + 1]


def unanswered(node: Node, address: IPv4Address, device: str) -> bool:
    """Whether the node has asked for the address's MAC in vain."""
    table = json.loads(node.run(["ip", "-j", "neigh", "show", "dev", device]).stdout or "[]")
    states = [entry["state"] for entry in table if entry["dst"] == str(address)]
    return any({"FAILED", "INCOMPLETE"} & set(state) for state in states)


def bridge_entry(node: Node, bridge: str, mac: str) -> str:
    """The entry of a bridge's table that decides where a frame for that address goes."""
    if _is_for_many(mac):
        return f"{bridge}: to all ports"
    table = json.loads(node.run(["bridge", "-j", "fdb", "show", "br", bridge]).stdout or "[]")
    entries = [e for e in table if e["mac"] == mac and e.get("master", bridge) == bridge]
    if not entries:
        return f"{bridge}: no entry for {mac}, to all ports"
    own = any(e.get("state") == "permanent" for e in entries)
    goal = "this host itself" if own else entries[0]["ifname"]
    return f"{bridge} fdb: {mac} is {goal}" if own else f"{bridge} fdb: {mac} dev {goal}"


def vxlan_entry(node: Node, device: str, mac: str) -> str:
    """Where a VXLAN device sends a frame for that address."""
    table = json.loads(node.run(["bridge", "-j", "fdb", "show", "dev", device]).stdout or "[]")
    remotes = {e["mac"]: e["dst"] for e in table if "dst" in e}
    if mac in remotes:
        return f"{device} fdb: {mac} dst {remotes[mac]}"
    flooded = sorted(e["dst"] for e in table if e["mac"] == "00:00:00:00:00:00" and "dst" in e)
    return f"{device} fdb: no entry for {mac}, to {', '.join(flooded) or 'nobody'}"


def switch_entry(node: Node, switch: Facts, mac: str) -> str:
    """Which port Open vSwitch sends a frame for that address out of, and where that leads."""
    name = switch["name"]
    tunnels = {p["name"]: f"{p['type']} to {p['remote']}" for p in switch["ports"] if p["remote"]}
    done = node.run(["ovs-appctl", "--timeout=5", "fdb/show", name], check=False)
    if done.returncode != 0:
        return f"{name}: Open vSwitch does not answer"
    # " port  VLAN  MAC                Age"
    ports = {row[2]: row[0] for row in map(str.split, done.stdout.splitlines()[1:]) if len(row) > 3}
    if mac in ports:
        named = _port_name(node, name, ports[mac])
        return f"{name} fdb: {mac} port {' '.join(filter(None, (named, tunnels.get(named))))}"
    everywhere = ", ".join(f"{port} {leads}" for port, leads in tunnels.items())
    unknown = "" if _is_for_many(mac) else f"no entry for {mac}, "
    return f"{name}: {unknown}to all ports ({everywhere or 'it has no tunnel'})"


def _is_for_many(mac: str) -> bool:
    """Broadcast or multicast: the lowest bit of the first byte (IEEE 802)."""
    return bool(int(mac[:2], 16) & 1)


def _port_name(node: Node, bridge: str, number: str) -> str:
    if number == "LOCAL":
        return bridge
    shown = node.run(["ovs-appctl", "--timeout=5", "dpif/show"], check=False).stdout
    # "    gre0 2/4: (gre: remote_ip=192.168.59.104)", below "  obr0:"
    inside = ""
    for line in shown.splitlines():
        if line.startswith("  ") and line.endswith(":") and not line.startswith("    "):
            inside = line.strip(" :")
        found = re.match(rf"    (\S+) {number}/", line)
        if found and inside == bridge:
            return found[1]
    return number


def dropped(node: Node) -> dict[str, int]:
    """Packets that rules and policies of iptables have dropped, and the reverse path filter."""
    found: dict[str, int] = {}
    table = ""
    for line in node.run(["iptables-save", "-c"], check=False).stdout.splitlines():
        if named := _TABLE.fullmatch(line):
            table = named[1]
        if rule := _COUNTED.match(line):
            found[f"iptables -t {table} {rule[2]}"] = int(rule[1])
        if policy := _POLICY.match(line):
            found[f"iptables -t {table}: the policy of {policy[1]} is DROP"] = int(policy[2])
    lines = node.run(["cat", "/proc/net/netstat"]).stdout.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        counted = dict(zip(names.split(), values.split(), strict=True))
        if "IPReversePathFilter" in counted:
            found["rp_filter: no route back to its source by that interface"] = int(
                counted["IPReversePathFilter"]
            )
    return found
