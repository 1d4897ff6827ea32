"""The underlay: the physical network between hosts, from an unmodified Mininet `Topo`.

    h1 ── s1-eth1 ┐
    h2 ── s1-eth2 ┤ s1 ── s1-eth4/s2-eth1 ── s2 ┬ s2-eth2 ── h3
    gw ── s1-eth3 ┘                             └ s2-eth3 ── h4

Only the description is Mininet's; `Underlay` is plain data, made before anything is built, so that
what cannot be built is refused in time.  Interfaces bear the names Mininet would give them.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError, UsageError, line_of, quoted, shortened

GATEWAY = "gw"

#: IFNAMSIZ is 16 with the final NUL, linux/if.h.
_LONGEST_NAME = 15

#: A name is a host name, and the beginning of names of interfaces and files.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

#: Of one of Mininet's own topologies, switches included.
_MOST_NODES = 4096

#: A Linux bridge holds at most 1,023 ports (BR_MAX_PORTS, net/bridge/br_private.h).
_MOST_PORTS = 1023
#: The plain hosts that a method is measured beside may both be at one switch.
_SPARE_PORTS = 2

#: A switch makes all copies of a broadcast at once, and so do the bridges of the hosts behind it;
#: on their way they wait in one queue a processor, which holds net.core.netdev_max_backlog packets:
#: 1,000 nearly everywhere, one setting for the whole machine.  What is over is lost, and always on
#: the same ports.  Copies of a few broadcasts must fit.
QUEUE_PACKETS = 1000
_COPIES_AT_ONE_SWITCH, _COPIES_IN_A_ROW = 400, 250

#: What crosses hosts needs two; where nothing does, one may be enough.
FEWEST_HOSTS = 2


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a link: `node` is a switch, a host or the gateway."""

    node: str
    interface: str


@dataclass(frozen=True, slots=True)
class Link:
    """Two ports and the options of the Topo's link (`bw`, `delay`, `jitter`, `loss`)."""

    a: Port
    b: Port
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Underlay:
    switches: tuple[str, ...]
    #: In the order of their names' numbers: h1, h2, ... h10.
    hosts: tuple[str, ...]
    #: Host or gateway (`b`) at a switch (`a`).
    uplinks: tuple[Link, ...]
    #: Between two switches.
    trunks: tuple[Link, ...]
    #: What the Topo says and a lab does otherwise, for whoever reads the figures.
    notes: tuple[str, ...] = ()

    def uplink_of(self, node: str) -> Link:
        """The link at the node's eth0."""
        return next(link for link in self.uplinks if link.b.node == node)

    def path(self, first: str, second: str) -> tuple[Link, ...]:
        """The links from one host to another: uplink, trunks, uplink.  Links form a tree."""
        start, end = self.uplink_of(first), self.uplink_of(second)
        near = self._near()
        #: By switch, the trunk that leads back to the first host.
        back: dict[str, Link | None] = {start.a.node: None}
        frontier = [start.a.node]
        while frontier:
            for other, link in near[frontier.pop()]:
                if other not in back:
                    back[other] = link
                    frontier.append(other)
        trunks = []
        switch = end.a.node
        while trunk := back[switch]:
            trunks.append(trunk)
            switch = trunk.a.node if trunk.b.node == switch else trunk.b.node
        return (start, *reversed(trunks), end)

    def copies_at_once(self, containers: int) -> int:
        """Copies of one broadcast that wait for delivery together, at the most, in packets.

        Sent at the first switch, it reaches all that is equally far away at the same time: hosts,
        and a step later their `containers` each.
        """
        at = Counter(link.a.node for link in self.uplinks if link.b.node != GATEWAY)
        near = self._near()
        most, before = 0, 0
        frontier, reached = [self.switches[0]], {self.switches[0]}
        while frontier or before:
            hosts = sum(at[switch] for switch in frontier)
            most = max(most, hosts + before * containers)
            frontier = [n for switch in frontier for n, _ in near[switch] if n not in reached]
            reached.update(frontier)
            before = hosts
        return most

    def _near(self) -> dict[str, list[tuple[str, Link]]]:
        """By switch, the next switches and the trunks that lead there."""
        near: dict[str, list[tuple[str, Link]]] = {switch: [] for switch in self.switches}
        for link in self.trunks:
            near[link.a.node].append((link.b.node, link))
            near[link.b.node].append((link.a.node, link))
        return near


def describe(
    spec: str | None, *, hosts: int, containers: int = 2, fewest: int = FEWEST_HOSTS
) -> Underlay:
    """The underlay meant by `--topo` and `--hosts`.

    Without a `spec` it is one switch, or where broadcasts would overflow a queue with one (see
    `QUEUE_PACKETS`) several in a row: `containers` are those on each host.

    `spec` is what Mininet's own `--topo` takes (`single,3`, `linear,4`, `tree,depth=2,fanout=2`,
    `minimal`, `reversed,…`), or `FILE.py:Class` with optional arguments behind commas.  Raises
    UsageError for anything that is neither, has a loop, joins what cannot be joined, or has too few
    hosts, and CapabilityError for conditions of a link that differ by direction.
    """
    topo = row_of_switches(hosts, containers) if spec is None else _load(spec)
    return from_topo(topo, fewest=fewest)


def row_of_switches(hosts: int, containers: int) -> Any:
    """A Mininet `Topo`: h1, h2, … at s1, or by portions at s1 - s2 - s3 - …

    In a row, unlike in a tree, a broadcast gets to one portion of the hosts after the other.
    """
    # Mininet's own module imports distutils, which setuptools provides from Python 3.12 on.
    from mininet.topo import Topo

    stations = 1 + containers
    portion = hosts
    if hosts * stations > _COPIES_AT_ONE_SWITCH:
        # From the middle it goes both ways at a time.
        portion = max(1, _COPIES_IN_A_ROW // (2 * stations))
    topo = Topo()
    for number, start in enumerate(range(1, hosts + 1, portion), 1):
        switch = topo.addSwitch(f"s{number}")
        for host in range(start, min(start + portion, hosts + 1)):
            topo.addLink(topo.addHost(f"h{host}"), switch)
        if number > 1:
            topo.addLink(f"s{number - 1}", switch)
    return topo


def from_topo(topo: Any, *, fewest: int = FEWEST_HOSTS) -> Underlay:
    """Read a Mininet `Topo`; a gateway is added at its first switch if it has no host named gw."""
    for name in topo.nodes(sort=False):
        _refuse_odd(name)
    switches = tuple(sorted(topo.switches(), key=_natural))
    names = sorted((name for name in topo.hosts() if name != GATEWAY), key=_natural)
    if not switches:
        raise UsageError("the topology has no switch")
    if len(names) < fewest:
        raise UsageError(f"the topology has {len(names)} host(s); a lab needs at least {fewest}")
    known = set(switches)
    uplinks, trunks = [], []
    attached: dict[str, int] = {}
    unused = _Unused()
    for name in topo.hosts():
        unused.of_host(name, topo.nodeInfo(name))
    for first, second, info in topo.links(sort=False, withInfo=True):
        ports = {info["node1"]: info["port1"], info["node2"]: info["port2"]}
        a, b = (first, second) if first in known else (second, first)
        if a not in known:
            raise UsageError(f"the link {first} - {second} joins two hosts; put a switch between")
        unused.of_link(f"{first} - {second}", info)
        near = Port(a, f"{a}-eth{ports[a]}")
        if b in known:
            trunks.append(Link(near, Port(b, f"{b}-eth{ports[b]}"), _conditions(info)))
        else:
            number = attached[b] = attached.get(b, -1) + 1
            uplinks.append(Link(near, Port(b, f"eth{number}"), _conditions(info)))
    if GATEWAY not in attached:
        uplinks.append(Link(_free_port(switches[0], (*uplinks, *trunks)), Port(GATEWAY, "eth0")))
    for name in names:
        if name not in attached:
            raise UsageError(f"host {name} is joined to no switch")
    _refuse_all_but_trees(switches, trunks)
    _refuse_oversize(switches, (*uplinks, *trunks))
    order = {name: i for i, name in enumerate(names)}
    uplinks.sort(key=lambda link: order.get(link.b.node, len(order)))
    return Underlay(switches, tuple(names), tuple(uplinks), tuple(trunks), tuple(unused.notes()))


def _free_port(switch: str, links: Sequence[Link]) -> Port:
    """The next one; a Topo may have numbered its ports as it liked."""
    used = {port.interface for link in links for port in (link.a, link.b) if port.node == switch}
    number = len(used) + 1
    while f"{switch}-eth{number}" in used:
        number += 1
    return Port(switch, f"{switch}-eth{number}")


_CONDITIONS = ("bw", "delay", "jitter", "loss", "max_queue_size")
#: What changes those, or the packets, in a way that no link of a lab does.
_BEYOND_US = ("latency_ms", "speedup", "enable_ecn", "enable_red")
#: Mininet's other options of a link: where it is, and what makes it and its conditions, which a lab
#: chooses by itself.
_INDIFFERENT = ("node1", "node2", "port1", "port2", "key", "params1", "params2", "fast", "cls",
                "cls1", "cls2", "intf", "moveIntfFn", "use_hfsc", "use_htb", "use_tbf", "gro",
                "txo", "rxo")  # fmt: skip
#: And those that a lab decides by itself, of an interface and of a link.
_OF_AN_INTERFACE = ("ip", "mac", "ifconfig", "up", "port")
_DECIDED = (*_OF_AN_INTERFACE, "intfName1", "intfName2", "addr1", "addr2")
_ADDRESSES = {"ip": "ip", "mac": "mac", "addr1": "mac", "addr2": "mac"}


#: Conditions by what they might be called.
_MEANT = {
    **{name: name for name in _CONDITIONS},
    **dict.fromkeys(("bandwidth", "rate"), "bw"),
    "latency": "delay",
}


class _Unused:
    """Options of a Topo that have no place in a lab, which has its own addresses: refused if they
    make no sense, collected if they do."""

    def __init__(self) -> None:
        #: Which hosts or links have each option, in their order.
        self._of_hosts: dict[str, dict[str, None]] = {}
        self._of_links: dict[str, dict[str, None]] = {}

    def of_host(self, name: str, options: Mapping[str, Any]) -> None:
        """UsageError for an address that is none, CapabilityError for a limit of its processor."""
        for key, value in options.items():
            if value is None:
                continue
            if key in ("cpu", "cores"):
                raise CapabilityError(
                    f"host {name}: {key}={value}: hosts of a lab share the processors as they are",
                    "limit links instead (bw=)",
                )
            _refuse_malformed(f"host {name}", key, value)
            self._of_hosts.setdefault(key, {})[name] = None

    def of_link(self, name: str, info: Mapping[str, Any]) -> None:
        """UsageError for an option that Mininet's links do not have, or an address that is none."""
        for end in ("params1", "params2"):
            own = info.get(end) or {}
            if not isinstance(own, Mapping):
                shown = f"the link {name}: {end} is {repr(own)[:60]}"
                raise UsageError(f"{shown}, a dictionary is wanted")
            self._look(name, own, _OF_AN_INTERFACE)
        self._look(name, info, _DECIDED)

    def _look(self, name: str, options: Mapping[str, Any], decided: Sequence[str]) -> None:
        for key, value in options.items():
            if key in decided:
                if value is not None:
                    _refuse_malformed(f"the link {name}", key, value)
                    self._of_links.setdefault(key, {})[name] = None
            elif key not in (*_CONDITIONS, *_BEYOND_US, *_INDIFFERENT):
                nearest = difflib.get_close_matches(str(key), _MEANT, n=1)
                guess = f"; did you mean {_MEANT[nearest[0]]}?" if nearest else ""
                raise UsageError(
                    f"the link {name} has an option {str(key)[:60]}, which links do not have"
                    f"{guess} ({', '.join(_CONDITIONS)})"
                )

    def notes(self) -> Iterator[str]:
        """A sentence each about hosts and links."""
        for what, unused in (("hosts", self._of_hosts), ("links", self._of_links)):
            if unused:
                told = ", ".join(f"{key} ({_few(names)})" for key, names in unused.items())
                yield (
                    f"of the topology's {what} these options are not used: {told}; names, "
                    "addresses and routes are the scenario's"
                )


def _few(names: Iterable[str]) -> str:
    told = list(names)
    more = f", {len(told) - 3} more" if len(told) > 3 else ""
    return ", ".join(told[:3]) + more


def _refuse_malformed(owner: str, key: str, value: object) -> None:
    kind = _ADDRESSES.get(key)
    shown = f"{owner}: {key} is {repr(value)[:60]}"
    if kind == "ip":
        try:
            IPv4Interface(value if isinstance(value, str) else "")
        except ValueError:
            raise UsageError(f"{shown}, an IPv4 address such as 10.0.0.1/24 is wanted") from None
    elif kind == "mac" and not (isinstance(value, str) and _MAC.fullmatch(value)):
        raise UsageError(f"{shown}, a station's address such as 00:00:00:00:00:01 is wanted")


#: Of one station: the lowest bit of the first byte is a group's, IEEE 802.
_MAC = re.compile(r"(?!00(?::00){5}$)[0-9a-fA-F][02468aceACE](?::[0-9a-fA-F]{2}){5}")


def _conditions(info: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions of a link, in both directions; CapabilityError for others that it asks for."""
    where = f"the link {info['node1']} - {info['node2']}"
    for end in ("params1", "params2"):
        own = [key for key in (*_CONDITIONS, *_BEYOND_US) if (info.get(end) or {}).get(key)]
        if own:
            raise CapabilityError(
                f"{where} has conditions in one direction only ({end}: {', '.join(own)})",
                "`python -m xlab.mininet` runs a Mininet script with such links",
            )
    for key in _BEYOND_US:
        if info.get(key):
            raise CapabilityError(f"{where} asks for {key}, which links of a lab do not have")
    for key in ("txo", "rxo"):
        if not info.get(key, True):
            raise CapabilityError(f"{where} has {key}=False, and offloads of a lab stay on")
    return {key: info[key] for key in _CONDITIONS if info.get(key) is not None}


def _refuse_all_but_trees(switches: Sequence[str], trunks: Sequence[Link]) -> None:
    """Bridges here run without STP, which would take 30 s to open its ports: a loop is a storm.

    And where switches are not joined at all, hosts at them cannot be either.
    """
    root = {name: name for name in switches}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for link in trunks:
        a, b = find(link.a.node), find(link.b.node)
        if a == b:
            raise UsageError(
                f"the topology has a loop through {link.a.node} - {link.b.node}, and switches of a "
                "lab run without STP, whatever stp= says: leave that link out, or take a topology "
                "without loops (tree, linear); a Mininet script may have them with `python -m "
                "xlab.mininet`, which leaves spare links unplugged"
            )
        root[a] = b
    first = switches[0]
    for switch in switches:
        if find(switch) != find(first):
            raise UsageError(f"the topology falls apart: {first} and {switch} are not joined")


def _refuse_oversize(switches: Sequence[str], links: Sequence[Link]) -> None:
    ports = [port for link in links for port in (link.a, link.b)]
    needed = Counter(port.node for port in ports)
    for switch in switches:
        if needed[switch] > _MOST_PORTS - _SPARE_PORTS:
            raise UsageError(
                f"switch {switch} needs {needed[switch]:,} ports, a Linux bridge holds "
                f"{_MOST_PORTS:,}: use a topology with several switches, such as linear,25,40"
            )
    for port in ports:
        _refuse_odd(port.interface)
    seen: set[Port] = set()
    for port in ports:
        if port in seen:
            raise UsageError(f"two links of the topology are at {port.interface} of {port.node}")
        seen.add(port)


def _refuse_odd(name: object) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UsageError(
            f"{repr(name)[:60]} cannot name a node: letters, digits, and _ . - behind the first"
        )
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"the name {quoted(name)} is longer than {_LONGEST_NAME} characters")


def _load(spec: str) -> Any:
    """The Topo object a spec asks for, made by Mininet's own rules for arguments."""
    from mininet.util import splitArgs

    name, positional, named = splitArgs(spec)
    kind = _from_file(name) if ":" in name else _named(name)
    if ":" not in name:
        _refuse_unknown(spec, name, kind, named)
    try:
        topo = kind(*positional, **named)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        path = name.rpartition(":")[0]
        where = f"{path}:{line_of(Path(path), error)}" if path else f"--topo {spec}"
        raise UsageError(f"{where}: {type(error).__name__}: {error}") from error
    if not (hasattr(topo, "switches") and hasattr(topo, "links")):
        raise UsageError(f"--topo {spec}: {name} is not a Mininet Topo")
    return topo


def _named(name: str) -> Any:
    from mininet.topo import LinearTopo, MinimalTopo, SingleSwitchReversedTopo, SingleSwitchTopo
    from mininet.topolib import TorusTopo, TreeTopo

    known = {
        "minimal": MinimalTopo,
        "single": SingleSwitchTopo,
        "reversed": SingleSwitchReversedTopo,
        "linear": LinearTopo,
        "tree": TreeTopo,
        "torus": TorusTopo,
    }
    if name not in known:
        raise UsageError(
            f"--topo {shortened(name)}: not one of {', '.join(known)}, "
            "nor a path such as mytopo.py:MyTopo"
        )
    return type(name, (_Bounded, known[name]), {})


def _refuse_unknown(spec: str, name: str, kind: Any, named: Mapping[str, Any]) -> None:
    """Some of Mininet's topologies take any option and do nothing with it."""
    takes = [
        parameter.name
        for parameter in inspect.signature(kind.build).parameters.values()
        if parameter.name != "self" and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    for option in named:
        if option not in takes:
            raise UsageError(
                f"--topo {spec}: {name} takes {', '.join(takes) or 'nothing'}, no {option}; "
                "conditions of all links are --rate, --delay, --jitter and --loss"
            )


class _Bounded:
    """Over a Mininet Topo: as Mininet has it, and refused before it fills the memory."""

    g: Any

    def addNode(self, node: str, **options: Any) -> Any:  # noqa: N802 - Mininet's name
        if len(self.g.node) >= _MOST_NODES:
            raise UsageError(f"the topology has more than {_MOST_NODES:,} hosts and switches")
        return super().addNode(node, **options)  # type: ignore[misc]  # the Topo's


def _from_file(text: str) -> Any:
    path_text, _, name = text.rpartition(":")
    path = Path(path_text)
    try:
        found = path.is_file()
    except OSError as error:
        raise UsageError(f"--topo {shortened(text)}: {error.strerror}") from error
    if not found:
        raise UsageError(f"--topo {text}: no file {path}")
    spec = importlib.util.spec_from_file_location(f"xlab_topo_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--topo {text}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = line_of(path, error)
        raise UsageError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    # Mininet's custom files list their classes in a dictionary `topos`.
    listed = getattr(module, "topos", None)
    kind = getattr(module, name, None) or (listed.get(name) if isinstance(listed, dict) else None)
    if kind is None:
        raise UsageError(f"--topo {text}: {path} defines no {name}")
    return kind


def _natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts h2 before h10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts], name
