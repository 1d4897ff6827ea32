"""Mininet's network on the lab's engine.

Building, starting, stopping and asking are Mininet's own code; what it measures (`ping`, `iperf`)
runs without a shell, and what it takes down goes at once.
"""

from __future__ import annotations

import errno
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from xlab.errors import CapabilityError, NetlinkError, UsageError, XlabError
from xlab.kernel import processes
from xlab.kernel.clock import Deadline
from xlab.kernel.programs import locate
from xlab.lab import node as engine
from xlab.lab.docker import Container
from xlab.mininet import echo, openvswitch
from xlab.mininet import machine as machines
from xlab.mininet.cli import CLI
from xlab.mininet.intf import Intf
from xlab.mininet.link import FoundLink, Link, numbers_of_our_own, together
from xlab.mininet.node import NAT, Host, Node
from xlab.mininet.original import log
from xlab.mininet.original import net as original
from xlab.mininet.switch import OVSKernelSwitch, default_controller
from xlab.probes.parse import listening, parse_iperf

# Or it would ask for root, and try to set limits of the machine.
original.Mininet.inited = True

_groups = numbers_of_our_own()

#: How long one waits for the reply to an echo, and for links that are not ready to carry it.
_ECHO_PATIENCE_S = 10.0

#: How late iperf3 may be on a busy machine.
_PATIENCE_S = 30.0

#: Of iperf, as Mininet has it.
_PORT = 5001

#: How many ports of the kernel's choice may be taken for UDP.
_TRIES = 100

#: Between two connection attempts to a server that does not listen yet.
_RETRY_AFTER_S = 0.02


class Mininet(original.Mininet):
    """Mininet's Mininet, controller-less.

    Its parameters are Mininet's, with two differences: `controller` is None unless given, and
    `cleanup` finds nothing to clean.
    """

    #: Whether hosts and switches are an engine's lab, with namespaces and files of their own.
    of_a_lab = False

    #: Of the attributes that Mininet's __init__ sets.
    hosts: list[Any]
    switches: list[Any]
    links: list[Any]
    nameToNode: dict[str, Any]

    def __init__(
        self,
        topo: Any = None,
        switch: Any = OVSKernelSwitch,
        host: Any = Host,
        controller: Any = None,
        link: Any = Link,
        intf: Any = Intf,
        **options: Any,
    ) -> None:
        #: Of all interfaces in the "root", so that they can be deleted at once.
        self._group = next(_groups)
        self._stopped = False
        #: Containers that have been asked for, by their engine node.
        self._containers: dict[Container, Host] = {}
        super().__init__(topo, switch, host, controller, link, intf, **options)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        machines.refuse_clusters(cls)

    # -- building and taking down ------------------------------------------------------------------

    def build(self) -> None:
        with together(self._group):
            super().build()

    def addLink(self, node1: Any, node2: Any, *arguments: Any, **params: Any) -> Any:
        """Add a link; between switches that run already it becomes a port of each."""
        with together(self._group):
            link = super().addLink(node1, node2, *arguments, **params)
        if self.built:
            self._look_for_loops()
        return link

    def delLink(self, link: Any) -> None:
        """Take a link away; a spare one may take its place."""
        super().delLink(link)
        self._look_for_loops()

    def delNode(self, node: Any, nodes: list[Any] | None = None) -> None:
        """Take a node away, and its links with it; a way through it may have to be another's."""
        for link in [link for link in self.links if node in _ends(link)]:
            link.delete()
            self.links.remove(link)
        super().delNode(node, nodes)
        self._look_for_loops()

    def start(self) -> None:
        if not self.built:
            self.build()
        self._look_for_loops()
        super().start()
        self._wait_until_active()

    def stop(self) -> None:
        """End everything the network consists of; a second time does nothing."""
        if self._stopped:
            return
        self._stopped = True
        # All interfaces in the "root"; those of hosts go with these, or with the hosts.
        for link in self.links:
            link.gone = True
        try:
            machines.root().rtnl.now.delete_group(self._group)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
        super().stop()

    def __enter__(self) -> Mininet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def addNAT(
        self, name: str = "nat0", connect: Any = True, inNamespace: bool = False, **params: Any
    ) -> Any:  # fmt: skip
        """A host that masquerades for the others, and their default route."""
        nat = self.addHost(name, cls=NAT, inNamespace=inNamespace, subnet=self.ipBase, **params)
        if connect:
            switch = connect if isinstance(connect, Node) else self.switches[0]
            self.addLink(nat, switch)
            address = nat.params["ip"].partition("/")[0]
            for host in self.hosts:
                if host is not nat and host.inNamespace:
                    host.setDefaultRoute(f"via {address}")
        return nat

    def staticArp(self) -> None:
        """Permanent ARP entries for all pairs of hosts."""
        everybody = [(host.IP(), host.MAC()) for host in self.hosts]
        for host in self.hosts:
            own = host.IP()
            host.set_neighbours([entry for entry in everybody if entry[0] != own])

    def addController(self, name: Any = "c0", controller: Any = None, **params: Any) -> Any:
        """Something that stands for a learning controller, as the switches need none."""
        controller = controller or self.controller or default_controller
        return super().addController(name, controller, **params)

    def startTerms(self) -> None:
        """Refused: a display cannot be reached from inside a sandbox."""
        log.error("*** no display can be reached from inside a sandbox: no terminals\n")

    def configureControlNetwork(self) -> None:
        """Nothing is to be controlled."""

    def interact(self) -> Any:
        """Start, command line, stop."""
        self.start()
        result = CLI(self)
        self.stop()
        return result

    # -- loops -------------------------------------------------------------------------------------

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """Bring links up or down; a spare one may take another's place then."""
        super().configLinkStatus(src, dst, status)
        self._look_for_loops()

    def _look_for_loops(self) -> None:
        """Leave out links between switches that would close a loop, as STP does, but at once.

        One that is down gives way to those that are up.  Where none of these leads it stays plugged
        in, and is used as soon as it is up, whoever sees to that.  Bridges with STP see to it
        themselves.
        """
        root: dict[Any, Any] = {}

        def find(node: Any) -> Any:
            while root.setdefault(node, node) is not node:
                node = root[node]
            return node

        between = [link for link in self.links if _may_close_a_loop(link)]
        changed = False
        for link in sorted(between, key=_is_down):
            one, other = link.intf1, link.intf2
            a, b = find(one.node), find(other.node)
            root[a] = b
            for intf in (one, other):
                if intf.node.leave_out(intf, a is b):
                    changed = True
        if changed:
            # Hosts may now be behind other ports; STP has a message for that.
            for switch in self.switches:
                switch.forget_macs()

    # -- containers --------------------------------------------------------------------------------

    def _look_for_containers(self) -> None:
        """Containers are hosts while they run, under the engine's name: "h1/c1"."""
        running = {c for node in self.hosts for c in getattr(node.machine, "containers", ())}
        for gone in [c for c in self._containers if c not in running]:
            node = self._containers.pop(gone)
            self.hosts.remove(node)
            del self.nameToNode[node.name]
            self.links = [link for link in self.links if node not in _ends(link)]
            node.terminate()
        for container in sorted(running - set(self._containers), key=lambda c: c.name):
            owner = self.nameToNode.get(container.host.name)
            node = self._containers[container] = Host(container.name, machine=container)
            self.hosts.append(node)
            self.nameToNode[node.name] = node
            self.links.append(FoundLink((node, "eth0"), (owner, container.host_interface)))

    def __getitem__(self, key: str) -> Any:
        if key not in self.nameToNode:
            self._look_for_containers()
        return super().__getitem__(key)

    def getNodeByName(self, *args: str) -> Any:
        return self[args[0]] if len(args) == 1 else [self[name] for name in args]

    def __iter__(self) -> Iterator[str]:
        self._look_for_containers()
        return iter(list(super().__iter__()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, item: object) -> bool:
        if item not in self.nameToNode:
            self._look_for_containers()
        return item in self.nameToNode

    # -- measuring ---------------------------------------------------------------------------------

    def ping(self, hosts: Sequence[Any] | None = None, timeout: Any = None) -> float:
        """One echo from each to each; returns the percentage that was not answered.

        `timeout` in seconds, 10 by default, as ping(8) has it.
        """
        self._look_for_containers()
        if not hosts:
            hosts = self.hosts
            log.output("*** Ping: testing ping reachability\n")
        # A script may have switched a link off by a command of its own.
        self._look_for_loops()
        self._wait_until_active()
        sent = received = 0
        memory = echo.Neighbours([host.machine for host in hosts])
        for source in hosts:
            log.output(f"{source.name} -> ")
            others = [host for host in hosts if host is not source]
            targets = [(host, host.IP() if host.intfs else None) for host in others]
            asked = [IPv4Address(address) for _, address in targets if address]
            answered = echo.answered(
                source.machine,
                asked,
                timeout_s=float(timeout or _ECHO_PATIENCE_S),
                neighbours=memory,
            )
            for host, address in targets:
                came = bool(address) and IPv4Address(address) in answered
                log.output(f"{host.name} " if came else "X ")
                received += came
            sent += len(asked)
            log.output("\n")
        if not sent:
            log.output("*** Warning: No packets sent\n")
            return 0.0
        lost = 100.0 * (sent - received) / sent
        log.output(f"*** Results: {int(lost)}% dropped ({received}/{sent} received)\n")
        return lost

    def pingFull(self, hosts: Sequence[Any] | None = None, timeout: Any = None) -> list[Any]:
        """ping(8) from each to each, and what it measured: (source, target, figures) each."""
        self._look_for_loops()
        return list(super().pingFull(hosts, timeout))

    def _wait_until_active(self) -> None:
        """Links just made or brought up drop packets until the kernel has come to them."""
        deadline = Deadline(_ECHO_PATIENCE_S)
        nodes = [machines.root(), *(node.machine for node in [*self.switches, *self.hosts])]
        for node in dict.fromkeys(nodes):
            if node.is_on:
                node.rtnl.wait_until_active(deadline)

    def iperf(
        self,
        hosts: Sequence[Any] | None = None,
        l4Type: str = "TCP",
        udpBw: str = "10M",
        fmt: str | None = None,
        seconds: float = 5,
        port: int | None = None,
    ) -> list[str]:
        """Throughput from one host to another: what the server got, what the client sent.

        Without a `port` it is Mininet's, 5001, or a free one if a program of the server's has that.

        With UDP the offered rate comes first.  `fmt` is a unit of iperf's: k, m, g or t for bits,
        K, M, G or T for bytes.  Measured by iperf3; UDP as Mininet does it, by iperf 2, where that
        is installed: iperf3 has a TCP connection beside it, which dies where much is lost.
        """
        self._look_for_containers()
        self._look_for_loops()
        client, server = hosts or (self.hosts[0], self.hosts[-1])
        if l4Type not in ("TCP", "UDP"):
            raise UsageError(f"iperf: l4Type is {l4Type!r}; TCP or UDP is wanted")
        if port is None:
            port = machines.inside(lambda: _free_port(server.machine))
        if l4Type == "UDP" and locate("iperf"):
            return list(super().iperf([client, server], l4Type, udpBw, fmt, seconds, port))
        log.output(f"*** Iperf: testing {l4Type} bandwidth between {client} and {server}\n")
        argv = ["iperf3", "-4", "-J", "-c", server.IP(), "-p", str(port)]
        argv += ["-t", str(max(1, round(seconds))), "--connect-timeout", "10000"]
        argv += ["-u", "-b", udpBw] if l4Type == "UDP" else []
        with server.popen("iperf3", "-4", "-J", "-s", "-1", "-p", str(port)) as listener:
            try:
                _await_listener(listener, server.name, port)
                sent, complaint, status = client.pexec(argv)
                if status:
                    # The server would wait for another client.
                    raise _failed(client.name, l4Type, _reason(sent) or complaint)
                received = listener.communicate(timeout=_PATIENCE_S)[0].decode()
            except subprocess.TimeoutExpired:
                raise _failed(server.name, l4Type, "-s did not end with its client") from None
            finally:
                listener.kill()
        told = parse_iperf(sent, received)
        seconds_received = sum(interval.seconds for interval in told.intervals)
        rate = told.received_bytes * 8 / seconds_received if seconds_received else 0.0
        result = [rate_text(rate, fmt), rate_text(told.sent_bits_per_second, fmt)]
        if l4Type == "UDP":
            result.insert(0, udpBw)
        log.output(f"*** Results: {result}\n")
        return result


def clean_up() -> None:
    """Mininet's cleanup: take away what a program that died has left in the "root".

    Its processes have ended with their terminals; the rest ends with the sandbox.

    Where it is called because of an error of ours, that is raised again: Mininet's `mn` catches
    whatever happens, cleans up and ends with status 0, and a script that means to go on would be
    left with no network.
    """
    failed = sys.exc_info()[1]
    openvswitch.clean_up()
    root = machines.root()
    for name in root.interfaces():
        if name != "lo":
            root.rtnl.remove_link(name)
    if isinstance(failed, XlabError):
        raise failed


class MininetWithControlNet(Mininet):
    """Mininet's name for a network with switches in namespaces of their own."""


def _reason(output: str | bytes) -> str:
    """What iperf3 -J gives as its error; "" if it says nothing of the kind."""
    try:
        return str(json.loads(output).get("error", ""))
    except (ValueError, AttributeError):
        return ""


def _failed(node: str, protocol: str, reason: str) -> XlabError:
    told = f"{node}: iperf3: {reason}"
    if protocol == "UDP":
        # Of every second try on a link that loses half of its packets.
        return CapabilityError(
            f"{told} (over a TCP connection of its own, which iperf 2 does without)",
            "sudo apt-get install iperf",
        )
    return XlabError(told)


def _await_listener(listener: subprocess.Popen[Any], node: str, port: int) -> None:
    """Wait until iperf3 listens: it, and not another program in the same network.

    Raises XlabError with what it said if it ended instead.
    """
    table, files = (Path(f"/proc/{listener.pid}/{name}") for name in ("net/tcp", "fd"))

    def ready() -> bool:
        if listener.poll() is not None:
            output, complaint = listener.communicate(timeout=_PATIENCE_S)
            said = _reason(output) or complaint.decode(errors="replace").strip()
            said = said or f"ended with status {listener.returncode}"
            raise XlabError(f"{node}: iperf3 -s -p {port}: {said}")
        with suppress(OSError):  # it ends just now
            there = listening(table.read_text(), port)
            return any(str(file.readlink()) in there for file in files.iterdir())
        return False

    processes.wait_until(
        ready, timeout_s=_PATIENCE_S, awaited=f"iperf3 to listen on {node}, port {port}"
    )


def _free_port(node: engine.Node) -> int:
    """Mininet's port of iperf where no program of the node's has it, else one the kernel gives.

    iperf3 has a TCP connection beside UDP, at the same port.
    """
    for wanted in (_PORT, *itertools.repeat(0, _TRIES)):
        with node.entered():
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with tcp, udp, suppress(OSError):
            # Connections that have ended do not count, as with iperf3.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("", wanted))
            port = int(tcp.getsockname()[1])
            udp.bind(("", port))
            return port
    raise XlabError(f"{node.name}: iperf: no port is free")


#: What follows "bits/sec" or "Bytes/sec" in iperf's reports, with how many bits it is.
_BIT_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def rate_text(bits_per_second: float, fmt: str | None = None) -> str:
    """ "9.56 Gbits/sec": a rate as iperf writes it, in the unit of `fmt` or a fitting one.

    Lower-case units are decimal and count bits, capital ones binary and count bytes.
    """
    if fmt is not None and fmt.lower() not in _BIT_UNITS:
        raise UsageError(f"iperf: the unit {fmt!r} is not one of k, m, g, t, K, M, G, T")
    if fmt is not None and fmt.isupper():
        power = list(_BIT_UNITS).index(fmt.lower()) + 1
        return f"{_three_digits(bits_per_second / 8 / 1024**power)} {fmt}Bytes/sec"
    if fmt is None:
        fitting = [unit for unit, bits in _BIT_UNITS.items() if bits_per_second >= bits]
        if not fitting:
            return f"{_three_digits(bits_per_second)} bits/sec"
        fmt = fitting[-1]
    prefix = fmt.upper() if fmt != "k" else "K"
    return f"{_three_digits(bits_per_second / _BIT_UNITS[fmt])} {prefix}bits/sec"


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def wait_listening(
    client: Any = None, server: Any = "127.0.0.1", port: int = 80, timeout: float | None = None
) -> bool:
    """Mininet's waitListening: whether `server`, a node or an address, takes TCP connections.

    Asked from `client`, a node, or from the "root"; False after `timeout` seconds, at once if there
    is no route.
    """
    address = server if isinstance(server, str) else server.IP()
    node = client.machine if client is not None else machines.root()
    deadline = None if timeout is None else Deadline(float(timeout))
    while True:
        error = machines.inside(lambda: _refusal(node, address, int(port)))
        if error == 0:
            return True
        if error in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            log.error(f"no route to {address}\n")
            return False
        if deadline is not None and deadline.passed():
            log.error(f"could not connect to {address} on port {port}\n")
            return False
        time.sleep(_RETRY_AFTER_S)


def _refusal(node: engine.Node, address: str, port: int) -> int:
    """The error of a connection attempt; 0 if there is none."""
    with node.entered():
        attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with attempt:
        attempt.settimeout(1.0)
        try:
            return attempt.connect_ex((address, port))
        except TimeoutError:
            return errno.ETIMEDOUT


def _may_close_a_loop(link: Any) -> bool:
    """Whether it joins two switches that leave it to us, and is there."""
    ends = link.intf1, link.intf2
    return (
        None not in ends
        and all(intf.node.forwards for intf in ends)
        and not all(intf.node.stp for intf in ends)
        # A script may have deleted it by a command of its own.
        and all(intf.status() == "OK" for intf in ends)
    )


def _is_down(link: Any) -> bool:
    return not (link.intf1.isUp() and link.intf2.isUp())


def _ends(link: Any) -> tuple[Any, ...]:
    return tuple(intf.node for intf in (link.intf1, link.intf2) if intf is not None)
