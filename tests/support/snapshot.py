"""What a lab looks like, as lines of text, to be compared with what it looked like before.

Left out is what may differ between two lives of the same lab: names that are drawn by lot (veths on
a host), the numbers of interfaces and processes, MAC addresses that nobody chose, counters, and
what comes and goes by itself, such as what bridges have learnt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from xlab.lab.lab import Host, Lab
from xlab.lab.node import Node

#: By name: everything of one kind, sorted.
Snapshot = Mapping[str, tuple[str, ...]]

#: Docker's veths and weave's bear a random number.
_DRAWN = re.compile(r"^(veth(?:we)?)[0-9a-f]{7,8}$")


def take(lab: Lab) -> Snapshot:
    """Interfaces, addresses, routes and rules of every node, and daemons: some 5 ms a node."""
    found: dict[str, tuple[str, ...]] = {
        "nodes": tuple(node.name for node in (*lab.hosts, *lab.containers) if node.is_on)
    }
    for node in (lab.wire, lab.gateway, *lab.hosts, *lab.containers):
        if not node.is_on:
            continue
        addresses = node.listed(["ip", "-json", "-details", "address"])
        found[f"{node} interfaces"] = tuple(sorted(map(_interface, addresses)))
        found[f"{node} routes"] = _lines(node, ["ip", "route", "show", "table", "main"])
        if isinstance(node, Host):
            found |= _of_host(node)
    return found


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is missing, and what is new, a line each; empty if nothing differs."""
    found = []
    for kind in sorted({*before, *after}):
        old, new = before.get(kind, ()), after.get(kind, ())
        missing, added = Counter(old) - Counter(new), Counter(new) - Counter(old)
        found += [f"{kind}: missing: {line}" for line in missing.elements()]
        found += [f"{kind}: new: {line}" for line in added.elements()]
    return found


def _of_host(host: Host) -> Snapshot:
    rules = host.configure(["iptables-save"]).stdout.splitlines()
    settings = ("net.ipv4.ip_forward", "net.ipv4.conf.all.send_redirects")
    flooded = [f for f in _lines(host, ["bridge", "fdb", "show"]) if f.startswith("00:00:00:00:00")]
    daemons = host.daemons()
    found = {
        # A chain's counters stand behind its policy.
        f"{host} rules": tuple(r.partition(" [")[0] for r in rules if not r.startswith("#")),
        f"{host} daemons": tuple(
            f"{d} {'runs' if runs else 'dead'}" for d, runs in daemons.items()
        ),
        f"{host} containers": tuple(f"{c} {c.address}" for c in host.containers),
        f"{host} settings": tuple(f"{name} = {host.sysctl(name)}" for name in settings),
        f"{host} flooded": tuple(flooded),
    }
    if daemons.get("ovsdb-server"):
        found[f"{host} ports"] = tuple(host.ovs.ports())
    return found


def _interface(data: Mapping[str, Any]) -> str:
    """ "eth0 veth mtu 1500 UP LOWER_UP master br0 02:00:00:00:00:01 10.211.55.3/24" """
    name = _name(data["ifname"])
    words = [name, data.get("linkinfo", {}).get("info_kind", "-"), f"mtu {data['mtu']}"]
    # LOWER_UP is the carrier.  The operational state besides is "unknown" until it first changes.
    words += [flag for flag in ("UP", "LOWER_UP") if flag in data["flags"]]
    if "master" in data:
        words.append(f"master {data['master']}")
    if name == "eth0":
        words.append(data["address"])
    words += sorted(
        f"{address['local']}/{address['prefixlen']}"
        for address in data.get("addr_info", ())
        if address["family"] == "inet"
    )
    return " ".join(words)


def _lines(node: Node, argv: list[str]) -> tuple[str, ...]:
    text = node.configure(argv).stdout
    return tuple(sorted(" ".join(map(_name, line.split())) for line in text.splitlines()))


def _name(word: str) -> str:
    return _DRAWN.sub(r"\1…", word)
