"""Weave Net on one host: the `weave` command, and the router it launches.

    c1 ethwe ── vethwe… ┐
    c2 ethwe ── vethwe… ┴ weave (bridge) ── weave0 (TAP) ── router ── UDP 6783 to its peers   sleeve
                                         └─ vxlan-6784 (kernel)    ── UDP 6784 to its peers   fastdp

The router (`xlab.weave`) is ours and speaks Weave Net's protocol.  Fastdp proper is a kernel
module's flow table; here it is the kernel's VXLAN with the same port and control plane, a "fastdp
equivalent".
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Literal

from xlab.errors import DaemonError, DeadlineError, XlabError
from xlab.kernel.clock import Deadline
from xlab.kernel.processes import Process, wait_until
from xlab.lab import commands
from xlab.lab.docker import Container, Docker
from xlab.lab.node import Node

Datapath = Literal["sleeve", "fastdp"]

SLEEVE_PORT, FASTDP_PORT, STATUS_PORT = 6783, 6784, 6784

#: What sleeve adds: IPv4 20, UDP 8, sender 6, two peers and a length 14, inner Ethernet 14.
SLEEVE_OVERHEAD_BYTES = 20 + 8 + 6 + 14 + 14
#: Weave's default for fastdp leaves room for encryption: 1376 on 1500.
FASTDP_HEADROOM_BYTES = 124

#: The name of the router's container.
ROUTER = "weave"
_BRIDGE, _TAP, _VXLAN = "weave", "weave0", "vxlan-6784"
_VXLAN_ID = 0x6784
_PATIENCE_S = 15.0
#: So much longer, for each peer, until one more connection is there: dozens of routers that hear of
#: each other at the same time keep a small machine's processors busy for minutes.
_A_PEER_S = 1.5
#: A busy router does not answer at once.
_ANSWER_S = 10.0
#: The report of one among 64 has some 100 kB.
_LONGEST_ANSWER_BYTES = 16 << 20
#: The head of an answer, as `xlab.weave.web` writes it.
_HEAD = re.compile(
    rb"HTTP/1\.1 ([0-9]{3}) [^\r]*\r\n(?:[^\r]*\r\n)*?Content-Length: ([0-9]{1,9})(?:\r|$)"
)


class Weave:
    """The weave command of one host."""

    def __init__(self, host: Node, docker: Docker, *, number: int, mtu: int) -> None:
        self.host = host
        #: Like a MAC address: how the router is called among its peers.
        self.name = f"7a:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"
        self._docker = docker
        self._underlay_mtu = mtu
        self._router: Process | None = None
        #: Where other routers are: what `weave launch` was told, and what the router found out.
        self._peers: set[IPv4Address] = set()
        self._flooded: set[IPv4Address] = set()
        self.datapath: Datapath = "sleeve"
        #: Addresses of the host's own in the containers' network.
        self._exposed: list[IPv4Interface] = []
        #: Whether iptables sends packets through the chain of `weave expose`.
        self._has_chain = False

    @property
    def port(self) -> int:
        """The UDP port of the datapath."""
        return SLEEVE_PORT if self.datapath == "sleeve" else FASTDP_PORT

    def launch(self, *peers: IPv4Address, datapath: Datapath = "sleeve") -> None:
        """`weave launch [PEER…]`: the router, as a container named weave, and the bridge weave."""
        self.datapath = datapath
        self._peers.update(peers)
        # Weave's own script takes fastdp unless it is told not to.
        words = ["WEAVE_NO_FASTDP=1"] if datapath == "sleeve" else []
        words += ["weave", "launch", *map(str, peers)]
        with commands.step(self.host.name, " ".join(words)):
            self.resume()
        if datapath == "sleeve":
            commands.is_beyond(
                "no plain tool carries frames as weave's sleeve does: that takes a router program",
                "`--set datapath=fastdp` builds the same network on the kernel's VXLAN; "
                "`--host h1` gives the commands for a real machine with Weave Net",
            )

    def resume(self) -> None:
        """`weave launch --resume`: the router once more, on connections to its previous peers.

        After `crash` everything is made anew; after `kill` the bridge, and with fastdp what the
        kernel forwards, has been there all the time.
        """
        if self._router is not None and self._router.poll() is None:
            raise XlabError(f"{self.host}: weave is running already")
        if not self.host.rtnl.has(_BRIDGE):
            self.host.add_bridge(_BRIDGE)
            self._exposed = []
        program = [sys.executable, "-P", "-m", "xlab.weave"]
        options = ["--name", self.name, "--nickname", self.host.name]
        options += ["--bind", str(self.host.address), "--tap", _TAP, "--datapath", self.datapath]
        self._router = self.host.spawn(
            [*program, *options, *map(str, sorted(self._peers))],
            # Wherever we have our own modules and numpy from, the router finds them there.
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            written=False,
        )
        self._docker.adopt(ROUTER, image="weaveworks/weave", process=self._router)
        self._await(lambda: self._report() is not None, "its status page")
        if self.datapath == "sleeve":
            self.host.add_to_bridge(_BRIDGE, _TAP)
        elif not self.host.rtnl.has(_VXLAN):
            self._add_vxlan()
            self._flood_to_peers()

    def kill(self) -> None:
        """SIGKILL to the router.  Its container has the restart policy "always", and a real Docker
        would start it again at once; here that takes a `resume`, so that there is time to look."""
        if self._router is None:
            raise XlabError(f"{self.host}: weave is not running; `weave launch` starts it")
        self._router.stop()

    def crash(self) -> None:
        """The host's power has failed: the router is gone.  It keeps its peers on disk."""
        self._router = None
        self._flooded.clear()
        self._exposed, self._has_chain = [], False

    def run(
        self,
        address: str | IPv4Interface,
        *,
        name: str | None = None,
        image: str = "ubuntu",
        command: Sequence[str] = (),
    ) -> Container:
        """`weave run ADDRESS -it --name NAME IMAGE COMMAND`: a container that also has an ethwe."""
        words = ["-it", *(["--name", name] if name else []), image, *command]
        with commands.step(
            self.host.name,
            f"weave run {address} {shlex.join(words)}",
            note="Weave Net 1: from 2.0 on it is docker run, then weave attach ADDRESS CONTAINER",
        ):
            container = self._docker.run(name, image=image, command=command)
            self.attach(address, container)
        return container

    def attach(self, address: str | IPv4Interface, container: Container) -> None:
        """`weave attach ADDRESS CONTAINER`.

        Weave switches the interface's checksum offload off; our router completes checksums itself,
        and with the offload goes segmentation.
        """
        interface = IPv4Interface(address)
        with commands.step(self.host.name, f"weave attach {address} {container.short_name}"):
            self.host.rtnl.now.add_veth(
                f"vethwe{secrets.token_hex(4)}",
                "ethwe",
                peer_namespace=container.namespaces.net,
                mtu=self.mtu,
                master=_BRIDGE,
            )
            container.add_address("ethwe", interface)
            container.add_route("224.0.0.0/4", dev="ethwe")
            container.prefer_address(interface.ip)

    def expose(self, address: str | IPv4Interface) -> None:
        """`weave expose ADDRESS`: the host is a station of the containers' network, too.

        What crosses the border of that network, either way, has the host's address from there on.
        """
        interface = IPv4Interface(address)
        self._require_bridge()
        with commands.step(self.host.name, f"weave expose {interface}"):
            if interface not in self._addresses():
                self.host.add_address(_BRIDGE, interface)
            if interface not in self._exposed:
                self._masquerade([*self._exposed, interface])

    def hide(self, address: str | IPv4Interface) -> None:
        """`weave hide ADDRESS`; nothing happens if the host has no such address there."""
        interface = IPv4Interface(address)
        self._require_bridge()
        with commands.step(self.host.name, f"weave hide {interface}"):
            if interface in self._addresses():
                self.host.delete_address(_BRIDGE, interface)
            if interface in self._exposed:
                self._masquerade([each for each in self._exposed if each != interface])

    @property
    def exposed(self) -> list[IPv4Interface]:
        """What `expose` gave the host and `hide` did not take."""
        return list(self._exposed)

    @property
    def bridge_mac(self) -> str:
        """Of the bridge weave, which the addresses are on."""
        return self.host.mac_address(_BRIDGE)

    @property
    def mtu(self) -> int:
        """The largest IP packet that crosses whole, in bytes."""
        headroom = SLEEVE_OVERHEAD_BYTES if self.datapath == "sleeve" else FASTDP_HEADROOM_BYTES
        return self._underlay_mtu - headroom

    def await_connections(self, number: int) -> None:
        """Wait until the router has `number` established connections, while more come to be."""
        while (there := len(self.connections())) < number:
            self._await(
                lambda there=there: len(self.connections()) > there,
                f"{number} established connections ({there} are there)",
                timeout_s=_PATIENCE_S + number * _A_PEER_S,
            )
        for connection in self.connections():
            self._peers.add(IPv4Address(str(connection["address"]).rpartition(":")[0]))
        if self.datapath == "fastdp":
            self._flood_to_peers()

    def connections(self) -> list[dict[str, Any]]:
        """The router's established connections, as its report has them."""
        report = self._report() or {}
        found = report.get("connections")
        return [
            each
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict) and each.get("state") == "established"
        ]

    def status(self, page: str = "") -> str | None:
        """What `weave status [connections|peers|targets]` prints; None for another page.

        XlabError if the router, stopped or busy, does not answer.
        """
        answer = self._get(f"/status/{page}" if page else "/status")
        if answer is None:
            raise XlabError(f"the router of {self.host} gives no answer within {_ANSWER_S:g} s")
        status, text = answer
        return text if status == HTTPStatus.OK else None

    def block(self) -> None:
        """Drop what peers send over the datapath's port."""
        self.host.configure(["iptables", "-I", "INPUT", *self._rule()])

    def unblock(self) -> None:
        """Undo `block`."""
        self.host.configure(["iptables", "-D", "INPUT", *self._rule()])

    def pids(self) -> list[int]:
        """The router's process number in the sandbox, if it runs."""
        return [self._router.pid] if self._router else []

    def alive(self) -> dict[str, bool]:
        """Whether the router, by its container's name, runs; empty if it was never launched."""
        return {ROUTER: self._router.poll() is None} if self._router else {}

    def require_alive(self) -> None:
        """DaemonError, with the tail of its log, if the router has died."""
        if self._router is not None and self._router.poll() is not None:
            raise self._blame("it was needed until the end")

    # -- plumbing ----------------------------------------------------------------------------------

    def _require_bridge(self) -> None:
        if not self.host.rtnl.has(_BRIDGE):
            raise XlabError(f"{self.host}: there is no bridge weave; `weave launch` makes it")

    def _addresses(self) -> list[IPv4Interface]:
        """Those of the bridge, whoever gave them."""
        found = self.host.listed(["ip", "-json", "-4", "address", "show", "dev", _BRIDGE])
        return [
            IPv4Interface(f"{each['local']}/{each['prefixlen']}")
            for link in found
            for each in link.get("addr_info", [])
        ]

    def _masquerade(self, exposed: list[IPv4Interface]) -> None:
        """Fill the chain WEAVE anew: whoever crosses the border of a network is masqueraded."""
        # Declaring a chain empties it, iptables-restore(8).
        lines = ["*nat", ":WEAVE - [0:0]"]
        if not self._has_chain:
            lines.append("-A POSTROUTING -j WEAVE")
        for each in exposed:
            subnet = each.network
            lines += [
                f"-A WEAVE -d {subnet} ! -s {subnet} -j MASQUERADE",
                f"-A WEAVE -s {subnet} ! -d {subnet} -j MASQUERADE",
            ]
        text = "\n".join([*lines, "COMMIT", ""])
        self.host.configure(["iptables-restore", "--noflush"], stdin=text.encode())
        self._exposed, self._has_chain = exposed, True

    def _rule(self) -> list[str]:
        return ["-p", "udp", "--dport", str(self.port), "-j", "DROP"]

    def _add_vxlan(self) -> None:
        """The kernel's VXLAN in the TAP's place; who is flooded to is known once peers are."""
        self.host.configure(
            ["ip", "link", "add", _VXLAN, "type", "vxlan", "id", str(_VXLAN_ID),
             "dstport", str(FASTDP_PORT), "local", str(self.host.address)]
        )  # fmt: skip
        self.host.set_mtu(_VXLAN, self.mtu)
        self.host.add_to_bridge(_BRIDGE, _VXLAN)
        self.host.set_up(_VXLAN)

    def _flood_to_peers(self) -> None:
        """An all-zero entry a peer: unknown and broadcast frames go to each of them."""
        new = sorted(self._peers - self._flooded)
        self._flooded.update(new)
        entry = f"fdb append 00:00:00:00:00:00 dev {_VXLAN} dst {{}} self\n"
        if new:
            # One process for all of them: in a mesh of 64 there are 4,032.
            lines = "".join(map(entry.format, new))
            with commands.step(self.host.name, note="the router tells the kernel of its peers"):
                self.host.configure(["bridge", "-batch", "-"], stdin=lines.encode())

    def _report(self) -> dict[str, Any] | None:
        status, text = self._get("/report") or (None, "")
        if status != HTTPStatus.OK:
            return None
        try:
            report = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return report if isinstance(report, dict) else None

    def _get(self, path: str) -> tuple[int, str] | None:
        """(status, text) from the router's status server on the host's loopback; None without one.

        Whoever is root in the host decides who answers there, and what.
        """
        deadline = Deadline(_ANSWER_S)
        with self.host.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with server:
            try:
                server.settimeout(_ANSWER_S)
                server.connect(("127.0.0.1", STATUS_PORT))
                server.sendall(f"GET {path} HTTP/1.1\r\nHost: weave\r\n\r\n".encode())
                received = bytearray()
                # One request a connection (xlab.weave.web): its end is the end of the answer.
                while data := server.recv(1 << 16):
                    received += data
                    if len(received) > _LONGEST_ANSWER_BYTES or deadline.passed():
                        return None
                    server.settimeout(max(0.001, deadline.left_s()))
            except OSError:
                return None
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        found = _HEAD.match(head)
        if found is None or int(found[2]) != len(body):
            return None
        return int(found[1]), body.decode(errors="replace")

    def _await(self, condition: Any, awaited: str, *, timeout_s: float = _PATIENCE_S) -> None:
        router = self._router
        if router is None:
            raise XlabError(f"{self.host}: weave is not running; `weave launch` starts it")
        try:
            wait_until(
                lambda: router.poll() is not None or condition(),
                timeout_s=timeout_s,
                awaited=awaited,
                pid=router.pid,
            )
        except DeadlineError as error:
            raise self._blame(str(error)) from error
        self.require_alive()

    def _blame(self, reason: str) -> DaemonError:
        assert self._router is not None
        status = self._router.poll()
        if status is not None:
            reason = f"has ended (status {status}); {reason}"
        return self._router.blamed("the weave router", reason)
