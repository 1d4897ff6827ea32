"""What a node's tables say of a packet: routes, neighbours, bridges, Open vSwitch, iptables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

from xlab.errors import XlabError
from xlab.kernel.packets import Packet
from xlab.lab.node import Node

_COUNTED = re.compile(r"\[(\d{1,20}):\d+\] (-A .*-j (?:DROP|REJECT).*)")
_POLICY = re.compile(r":(\S+) DROP \[(\d{1,20}):\d+\]")
_TABLE = re.compile(r"\*(\w+)")

_APPCTL = ("ovs-appctl", "--timeout=5")

Facts = Mapping[str, Any]


def route(node: Node, target: IPv4Address, *, source: str = "", arrived: str = "") -> str:
    """What `ip route get` says, on one line; of a packet that has arrived by an interface too."""
    argv = ["ip", "route", "get", str(target)]
    argv += ["from", source, "iif", arrived] if arrived else []
    done = node.configure(argv, check=False)
    said = " ".join((done.stdout or done.stderr).split()).removeprefix("RTNETLINK answers: ")
    return re.sub(r" uid \d+| cache.*", "", said).strip()


def next_hop(routed: str, target: IPv4Address) -> tuple[IPv4Address, str] | None:
    """Whom a route sends packets to, and by which device; None if it sends them nowhere.

    XlabError for one that can't be followed, as to a router of IPv6 ("via inet6 fe80::1").
    """
    words = routed.split()
    if "dev" not in words or words[0] in ("local", "unreachable", "prohibit", "blackhole"):
        return None
    said = dict(pairwise(words))
    try:
        return IPv4Address(said["via"]) if "via" in said else target, said["dev"]
    except (ValueError, KeyError) as error:
        raise XlabError(f"a route that cannot be followed: {routed[:200]}") from error


def unanswered(node: Node, address: IPv4Address, device: str) -> bool:
    """Whether the node has asked for the address's MAC in vain."""
    table = node.listed(["ip", "-j", "neigh", "show", "dev", device])
    states = [entry.get("state") for entry in table if entry.get("dst") == str(address)]
    found = [state for state in states if isinstance(state, list)]
    return any(word in state for state in found for word in ("FAILED", "INCOMPLETE"))


def bridge_entry(node: Node, bridge: str, mac: str) -> str:
    """The entry of a bridge's table that decides where a frame for that address goes."""
    if _is_for_many(mac):
        return f"{bridge}: to all ports"
    table = node.listed(["bridge", "-j", "fdb", "show", "br", bridge])
    entries = [e for e in table if e.get("mac") == mac and e.get("master", bridge) == bridge]
    if not entries:
        return f"{bridge}: no entry for {mac}, to all ports"
    if any(e.get("state") == "permanent" for e in entries):
        return f"{bridge} fdb: {mac} is this host itself"
    return f"{bridge} fdb: {mac} dev {entries[0].get('ifname')}"


def turned_away(node: Node, bridge: str, port: str, mac: str) -> bool:
    """Whether a port is locked, and its bridge has no entry there for a frame's source address."""
    ports = node.listed(["bridge", "-d", "-j", "link", "show", "dev", port])
    if not any(each.get("locked") for each in ports):
        return False
    table = node.listed(["bridge", "-j", "fdb", "show", "br", bridge])
    return not any(
        (e.get("mac"), e.get("ifname"), e.get("master", bridge)) == (mac, port, bridge)
        for e in table
    )


def vxlan_entry(node: Node, device: str, mac: str) -> str:
    """Where a VXLAN device sends a frame for that address."""
    table = node.listed(["bridge", "-j", "fdb", "show", "dev", device])
    remotes = [(str(e.get("mac")), str(e["dst"])) for e in table if "dst" in e]
    if mac in dict(remotes):
        return f"{device} fdb: {mac} dst {dict(remotes)[mac]}"
    flooded = sorted(remote for to, remote in remotes if to == "00:00:00:00:00:00")
    return f"{device} fdb: no entry for {mac}, to {', '.join(flooded) or 'nobody'}"


def switch_entry(node: Node, switch: Facts, frame: Packet) -> str:
    """What Open vSwitch does with a frame that its bridge gets from the host, and where that leads.

    It is asked what it would do (`ofproto/trace`), whichever datapath it has; if it does not say,
    its table of MACs is.
    """
    name = switch["name"]
    done = node.run([*_APPCTL, "ofproto/trace", name, _flow(frame)], check=False)
    tunnels = {p["remote"]: f"{p['name']} {p['type']} to {p['remote']}" for p in switch["ports"]}
    said = _decided(done.stdout, name, tunnels) if done.returncode == 0 else ""
    # Of a port that is no tunnel it does not tell which one.
    if not said or said.endswith("to learned port"):
        return _learnt(node, switch, frame)
    return f"{name} ofproto/trace: {said}"


def _flow(frame: Packet) -> str:
    """The frame as a flow, ovs-fields(7); without a packet of its own a trace teaches no table."""
    fields = {
        "in_port": "LOCAL",
        "dl_src": (frame.source_mac or b"").hex(":"),
        "dl_dst": (frame.destination_mac or b"").hex(":"),
        "dl_type": f"0x{frame.ether_type:04x}",
    }
    if frame.source is not None:
        fields |= {
            "nw_src": str(frame.source),
            "nw_dst": str(frame.destination),
            "nw_proto": str(frame.protocol),
        }
    return ",".join(f"{key}={value}" for key, value in fields.items())


def _decided(traced: str, bridge: str, tunnels: Mapping[str, str]) -> str:
    """The rule of the bridge that matched, what it does, and the tunnels that leads into.

    A tunnel's packet goes through another bridge, of which a trace tells too, further right or
    behind; of the kernel's tunnels only the datapath's action has the address.
    """
    _, _, own = traced.partition(f'bridge("{bridge}")\n')
    own, _, end = own.partition("Final flow:")
    own = own.partition('\nbridge("')[0]
    rules = re.findall(r"(?m)^ ?\d+\. (.+)", own)
    found = [rule for rule in rules if not re.fullmatch(r"priority \d+", rule)]
    found += re.findall(r'(?m)^    (?!bridge\("|-+$)(\S.*)', own)
    said = re.findall(r"(?m)^     -> (.+)", own)
    found += [each for each in said if not re.match(r"output to|tunneling ", each)]
    remotes = [
        *re.findall(r"tunneling to ([\d.]+)", own),
        *re.findall(r"tunnel\([^()]*dst=([\d.]+)", end),
    ]
    found += [tunnels.get(remote, f"tunnel to {remote}") for remote in dict.fromkeys(remotes)]
    return ", ".join(each.rstrip(".") for each in dict.fromkeys(found))


def _learnt(node: Node, switch: Facts, frame: Packet) -> str:
    """The entry of Open vSwitch's table of MACs for a frame, and where that leads."""
    name, mac = switch["name"], (frame.destination_mac or b"").hex(":")
    tunnels = {p["name"]: f"{p['type']} to {p['remote']}" for p in switch["ports"] if p["remote"]}
    done = node.run([*_APPCTL, "fdb/show", name], check=False)
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
    shown = node.run([*_APPCTL, "dpif/show"], check=False).stdout
    # "    gre0 2/4: (gre: remote_ip=192.168.59.104)", below "  obr0:"
    inside = ""
    for line in shown.splitlines():
        if line.startswith("  ") and line.endswith(":") and not line.startswith("    "):
            inside = line.strip(" :")
        found = re.match(rf"    (\S+) {re.escape(number)}/", line)
        if found and inside == bridge:
            return found[1]
    return number


def dropped(node: Node) -> dict[str, int]:
    """Packets that rules and policies of iptables have dropped, and the reverse path filter."""
    found: dict[str, int] = {}
    table = ""
    for line in node.configure(["iptables-save", "-c"], check=False).stdout.splitlines():
        if named := _TABLE.fullmatch(line):
            table = named[1]
        if rule := _COUNTED.match(line):
            found[f"iptables -t {table} {rule[2]}"] = int(rule[1])
        if policy := _POLICY.match(line):
            found[f"iptables -t {table}: the policy of {policy[1]} is DROP"] = int(policy[2])
    lines = node.configure(["cat", "/proc/net/netstat"]).stdout.splitlines()
    for names, values in pairwise(lines):
        counted = dict(zip(names.split(), values.split(), strict=False))
        number = counted.get("IPReversePathFilter", "")
        if re.fullmatch("[0-9]{1,20}", number):
            found["rp_filter: no route back to its source by that interface"] = int(number)
    return found
