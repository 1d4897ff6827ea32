"""A node of the lab: a machine as the kernel sees it, that is, a set of namespaces.

Hosts, containers, the gateway and the switches' namespace are all nodes.  A node starts with no
process and no mounts of its own; the first program run in it brings a PID namespace with an init
(`catatonit -P`, which only reaps), its own /proc and /sys, and a private /run and /tmp.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from xlab.errors import XlabError
from xlab.kernel import namespaces, processes, sysctls
from xlab.kernel.namespaces import Namespaces
from xlab.kernel.processes import Completed, Process, find_program
from xlab.lab import commands
from xlab.sandbox import containment, sandbox
from xlab.sandbox.console import Console

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCGIFFLAGS = 0x8921, 0x8927, 0x8913
_IFF_UP = 0x1
#: What somebody may have set on a port of a bridge, bridge(8).
_SET_OF_BRIDGE_PORT = (
    "cost", "priority", "hairpin", "guard", "root_block", "fastleave", "learning", "flood",
    "mcast_flood", "bcast_flood", "mcast_to_unicast", "neigh_suppress", "vlan_tunnel", "isolated",
    "locked", "mab",
)  # fmt: skip
_DEFAULT = IPv4Network("0.0.0.0/0")

#: Runs as the first process of a node's PID namespace, in the node's mount namespace, and becomes
#: what the arguments say.  /proc shows the PID namespace of whoever mounts it, hence not earlier.
#: Without a user namespace /proc/sys is the machine's: all but /proc/sys/net becomes read-only
#: before anybody can see it.  Standard input is a pipe to us: a dot says that all went well.  What
#: is to be it in the end, perhaps a terminal, which then is the controlling one, is opened by name.
_FIRST_PROCESS = """
exec 3<"${XLAB_STDIN:-/dev/null}" || exit 125
p=/run/.proc
mkdir $p && mount -t proc -o nosuid,nodev,noexec proc $p || exit 125
if [ "$XLAB_GUARD" = yes ]; then
  mount --bind $p/sys/net $p/sys/net && mount --rbind $p/sys $p/sys &&
  mount -o remount,bind,ro $p/sys || exit 125
  for entry in sysrq-trigger irq bus fs; do
    [ -e $p/$entry ] || continue
    mount --bind $p/$entry $p/$entry && mount -o remount,bind,ro $p/$entry || exit 125
  done
fi
mount --move $p /proc && rmdir $p || exit 125
unset XLAB_GUARD XLAB_STDIN p
printf . >&0
exec "$@" <&3 3<&-
"""


#: Within this it must be so far; it takes some 10 ms.
_FIRST_PROCESS_S = 60.0

#: What follows is the terminal to take, "" for none, the folder, and the command.
_OPEN = """
[ -z "$1" ] || exec <"$1" || exit 125
cd "$2" && shift 2 && exec "$@"
"""

#: A new network namespace copies some settings of the machine's own (devconf_inherit_init_net);
#: these make a lab the same everywhere.  IPv6 is out of scope, and its neighbour discovery would be
#: stray packets in every proof.  The bridge keys exist where br_netfilter is there: on, bridged
#: frames would pass iptables, as on a host on which nobody has loaded that module they do not.
SYSCTLS = (
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "2"),
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.bridge.bridge-nf-call-arptables", "0"),
)
#: Those among them that have to be written here; None until the first node has been looked at.
_differing: list[tuple[str, str]] | None = None


class Node:
    """A named set of namespaces in which programs run and sockets are made."""

    #: How often its power has failed.
    crashes = 0

    def __init__(self, name: str) -> None:
        self.name = self.hostname = name
        self.boot()
        self._lock = threading.Lock()

    def boot(self) -> None:
        """Fresh namespaces: the machine as it is when it has just been switched on."""
        self._settings = sysctls.open_folder()
        try:
            made = namespaces.create(self.hostname, prepare=self._write_settings)
        except BaseException:
            os.close(self._settings)
            raise
        self.namespaces, self.rtnl = made
        commands.born(self.name, self.namespaces.net, self.rtnl)
        #: What probes and claims send to; None until the node has an address.
        self._address: IPv4Address | None = None
        self._furnished = False
        self._init: Process | None = None
        #: Its shell has once been waited for in vain, and would be each time.
        self.is_mute = False
        self._is_on = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __str__(self) -> str:
        return self.name

    # -- running things ----------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 10.0,
        check: bool = True,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program in the node to its end; see `processes.run` for the errors."""
        done = processes.run(
            argv,
            node=self.name,
            namespaces=self.inhabited(),
            timeout_s=timeout_s,
            check=check,
            stdin=stdin,
            env=env,
        )
        if done.returncode == 0:
            commands.did(self.name, argv, stdin=stdin, env=env)
        return done

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Process]:
        """A program that runs in the node while the context does."""
        return processes.running(argv, node=self.name, namespaces=self.inhabited(), env=env)

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, written: bool = True
    ) -> Process:
        """A program that runs until it ends, is stopped, or the node's init dies: for daemons.

        Not `written` into the log of commands is what the caller writes there in its own words.
        """
        process = processes.spawn(argv, node=self.name, namespaces=self.inhabited(), env=env)
        if written:
            commands.started(self.name, argv, env=env)
        return process

    def open_program(
        self,
        argv: Sequence[str],
        console: Console,
        *,
        env: Mapping[str, str] | None = None,
        folder: str = "/",
    ) -> Process:
        """A program on a console, in `folder`; errors as of `processes.spawn`."""
        find_program(argv[0])
        process = processes.spawn(
            ["/bin/sh", "-c", _OPEN, "sh", console.tty_path, folder, *argv],
            node=self.name,
            namespaces=self.inhabited(),
            env={**console.environment, **(env or {})},
            stdin=console.input_end,
            outputs=console.outputs,
        )
        console.opened()
        return process

    def configure(
        self, argv: Sequence[str], *, stdin: bytes | None = None, check: bool = True
    ) -> Completed:
        """Run a configuration tool in the node's network namespace alone: no mounts, no init.

        The program is the machine's own, whatever the node has in its place.  Names in what it says
        are those of `interfaces`.
        """
        done = processes.run(
            argv,
            node=self.name,
            namespaces=self._network_only(),
            stdin=stdin,
            check=check,
            exact=True,
        )
        commands.did(self.name, argv, stdin=stdin)
        return done

    def listed(self, argv: Sequence[str]) -> list[dict[str, Any]]:
        """What `configure` prints as JSON, objects in a list; XlabError if that is something else.

        iproute2 writes most control characters of a name as they are.
        """
        said = self.configure(argv).stdout
        try:
            found = json.loads(said or "[]", strict=False)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise XlabError(f"`{' '.join(argv)}` says what cannot be read: {said[:80]!r}")
        return found

    def entered(self) -> AbstractContextManager[None]:
        """The calling thread is in the node: sockets made inside belong to it for good."""
        self._require_on()
        return namespaces.entered(self.namespaces)

    def inhabited(self) -> Namespaces:
        """The node's namespaces, a PID namespace with a living init among them.

        What a program of the node is started in.
        """
        self._require_on()
        with self._lock:
            # In a PID namespace without one nothing can be started: ENOMEM, pid_namespaces(7).
            if self._init is None or self._init.has_ended():
                self._init = self._start_first_process([find_program("catatonit"), "-P"])
            return self.namespaces

    def make_folder(self, path: str) -> None:
        """A folder in the node's own /run or /tmp, with those above it."""
        with self._lock:
            self._furnish_once()
        with self.entered():
            Path(path).mkdir(parents=True, exist_ok=True)
        commands.did(self.name, ["mkdir", "-p", path])

    # -- network -----------------------------------------------------------------------------------

    @property
    def address(self) -> IPv4Address:
        """The node's own address, the first that was added."""
        if self._address is None:
            raise XlabError(f"{self.name} has no address yet")
        return self._address

    def prefer_address(self, address: IPv4Address) -> None:
        """Take `address`, one of the node's, for what claims and probes send to."""
        self._address = address

    def interfaces(self) -> list[str]:
        """The names of the node's network interfaces, in the kernel's order.

        Any bytes but "/", ":" and white space (dev_valid_name, net/core/dev.c), by `os.fsdecode`.
        """
        with self.entered():
            return [name for _, name in socket.if_nameindex()]

    def device_address(self, device: str) -> IPv4Interface | None:
        """The first IPv4 address on an interface, None without one (SIOCGIFADDR, netdevice(7))."""
        try:
            address = self._ask(_SIOCGIFADDR, device)[4:8]
            netmask = self._ask(_SIOCGIFNETMASK, device)[4:8]
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return None
            raise
        return IPv4Interface((address, int.from_bytes(netmask, "big").bit_count()))

    def device_addresses(self) -> dict[str, str]:
        """The first IPv4 address of each interface that has one, but of lo: "10.0.0.1/24"."""
        found = {}
        for device in self.interfaces():
            try:
                address = self.device_address(device) if device != "lo" else None
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue  # somebody has just deleted it
            if address is not None:
                found[device] = str(address)
        return found

    def add_address(
        self, device: str, address: str | IPv4Interface, *, gateway: IPv4Address | None = None
    ) -> None:
        """`ip addr add ADDRESS dev DEVICE` and `ip link set DEVICE up`.

        With a `gateway` also `ip route add default via GATEWAY dev DEVICE`.
        """
        interface = IPv4Interface(address)
        with self.rtnl.batch() as batch:
            batch.add_address(device, interface)
            batch.set_up(device)
            if gateway is not None:
                batch.add_route(_DEFAULT, via=gateway, device=device)
        if self._address is None:
            self._address = interface.ip

    def delete_address(self, device: str, address: str | IPv4Interface) -> None:
        """`ip addr del ADDRESS dev DEVICE`."""
        interface = IPv4Interface(address)
        self.rtnl.now.delete_address(device, interface)
        if self._address == interface.ip:
            self._address = None

    def add_route(
        self,
        destination: str | IPv4Network,
        *,
        via: str | IPv4Address | None = None,
        dev: str | None = None,
        onlink: bool = False,
    ) -> None:
        """`ip route add DESTINATION [via VIA] [dev DEV] [onlink]`; "default" is 0.0.0.0/0."""
        self.rtnl.now.add_route(
            _network(destination),
            via=IPv4Address(via) if via is not None else None,
            device=dev,
            onlink=onlink,
        )

    def delete_route(
        self, destination: str | IPv4Network, *, via: str | IPv4Address | None = None
    ) -> None:
        """`ip route del DESTINATION [via VIA]`."""
        self.rtnl.now.delete_route(
            _network(destination), via=IPv4Address(via) if via is not None else None
        )

    def add_bridge(self, name: str, *, mac: str | None = None) -> None:
        """`brctl addbr NAME`, up.

        With `mac` it keeps that address; without, it takes the lowest among its ports', which
        changes as ports come and go.
        """
        typed = [f"brctl addbr {name}"]
        if mac and commands.is_kept():
            typed += self._typed_for_mac(name, mac)
        typed.append(f"ip link set {name} up")
        with commands.step(self.name, *typed):
            self.rtnl.now.add_bridge(name, mac=mac)

    def add_to_bridge(self, bridge: str, port: str) -> None:
        """`brctl addif BRIDGE PORT`: like it, this does not bring the port up."""
        typed = f"brctl addif {bridge} {port}"
        with commands.step(self.name, typed):
            self.rtnl.now.set_master(port, bridge)

    def remove_from_bridge(self, port: str) -> None:
        """`ip link set PORT nomaster`, as `brctl delif BRIDGE PORT` does."""
        self.rtnl.now.set_master(port, None)

    def take_out_of_bridge(self, port: str) -> Callable[[], None]:
        """`ip link set PORT nomaster`; what is returned puts it back, with all that was set."""

        def asked() -> dict[str, Any]:
            (facts,) = self.listed(["bridge", "-d", "-j", "link", "show", "dev", port])
            return facts

        before = asked()
        self.remove_from_bridge(port)

        def put_back() -> None:
            self.add_to_bridge(before["master"], port)
            new = asked()
            for key in _SET_OF_BRIDGE_PORT:
                if key in before and before[key] != new.get(key):
                    value = {True: "on", False: "off"}.get(before[key], str(before[key]))
                    self.configure(["bridge", "link", "set", "dev", port, key, value])

        return put_back

    def set_up(self, device: str) -> None:
        self.rtnl.now.set_up(device)

    def set_down(self, device: str) -> None:
        self.rtnl.now.set_down(device)

    def mtu(self, device: str) -> int:
        """The largest packet that an interface sends, in bytes."""
        return int.from_bytes(self._ask(_SIOCGIFMTU, device)[:4], sys.byteorder)

    def set_mtu(self, device: str, mtu: int) -> None:
        self.rtnl.now.set_mtu(device, mtu)

    def mac_address(self, device: str) -> str:
        """The hardware address of an interface, "02:42:0a:d3:37:40"."""
        return self._ask(_SIOCGIFHWADDR, device)[2:8].hex(":")

    def is_up(self, device: str) -> bool:
        """Whether an interface is switched on (IFF_UP)."""
        return bool(int.from_bytes(self._ask(_SIOCGIFFLAGS, device)[:2], sys.byteorder) & _IFF_UP)

    def _ask(self, what: int, device: str) -> bytes:
        """The union in struct ifreq that an ioctl of netdevice(7) fills in."""
        request = struct.pack("16s24x", os.fsencode(device))
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            return fcntl.ioctl(query, what, request)[16:]

    def set_sysctl(self, name: str, value: int | str) -> None:
        """`sysctl -w net.…`: only keys below net belong to a network namespace."""
        with self.entered():
            sysctls.write(self._settings, name, value)
        commands.did(self.name, ["sysctl", "-qw", f"{name}={value}"])

    def sysctl(self, name: str) -> str:
        """`sysctl -n net.…`."""
        with self.entered():
            return sysctls.read(self._settings, name)

    # -- lifetime ----------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether it has namespaces: not after `close`, until `boot`."""
        return self._is_on

    def kill_all(self) -> None:
        """SIGKILL to every process of the node: with its init the PID namespace ends."""
        if self._init is not None:
            self._init.stop()

    def close(self) -> None:
        """End the node's processes and let go of its namespaces; interfaces go with them."""
        self.kill_all()
        self._is_on = False
        self.rtnl.close()
        self.namespaces.close()
        os.close(self._settings)

    def _typed_for_mac(self, bridge: str, mac: str) -> list[str]:
        """What gives a bridge the address of the interface that has it, which differs elsewhere."""
        return [
            f'ip link set {bridge} address "$(cat /sys/class/net/{device}/address)"'
            for device in self.interfaces()
            if device != "lo" and self.mac_address(device) == mac
        ]

    def _require_on(self) -> None:
        # Its descriptors have been closed, and the numbers may mean something else by now.
        if not self._is_on:
            raise XlabError(f"{self.name} is down")

    def _network_only(self) -> Namespaces:
        self._require_on()
        return Namespaces(net=self.namespaces.net, uts=namespaces.home().uts)

    def _start_first_process(
        self,
        argv: Sequence[str],
        *,
        console: Console | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        if self.is_mute:
            raise self._mute()
        self._furnish_once()
        old = self.namespaces
        ready, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                process = processes.spawn(
                    ["/bin/sh", "-c", _FIRST_PROCESS, "sh", *argv],
                    node=self.name,
                    namespaces=dataclasses.replace(old, pid=None),
                    env={
                        **(env or {}),
                        "XLAB_GUARD": "yes" if sandbox.kind() == "root" else "no",
                        "XLAB_STDIN": console.stdin_path if console else os.devnull,
                    },
                    stdin=theirs,
                    outputs=console.outputs if console else None,
                    new_pid_namespace=True,
                )
            finally:
                os.close(theirs)
            # The shell is the node's, and so is what it starts: they may be anything.
            poller = select.poll()
            poller.register(ready, select.POLLIN)
            if not poller.poll(_FIRST_PROCESS_S * 1e3):
                self.is_mute = True
                process.stop()
            well = os.read(ready, 1) == b"."
        finally:
            os.close(ready)
        self.namespaces = dataclasses.replace(old, pid=process.pid_namespace)
        if old.pid is not None:
            os.close(old.pid)
        if self.is_mute:
            raise self._mute()
        if not well:
            process.wait(5.0)
            raise XlabError(f"{self.name}: its /proc could not be made: {process.stderr_tail()}")
        processes.wait_until(
            lambda: not _is_still_the_shell(process.pid),
            timeout_s=10.0,
            awaited=f"`{argv[0]}` to be executed in {self.name}",
        )
        return process

    def _mute(self) -> XlabError:
        return XlabError(
            f"{self.name}: its /proc could not be made: nothing was heard of its /bin/sh for "
            f"{_FIRST_PROCESS_S:g} s; it is not tried again before the next boot"
        )

    def _furnish_once(self) -> None:
        if not self._furnished:
            if self.namespaces.mnt is None:
                self.namespaces = namespaces.with_own_mounts(self.namespaces)
            self._furnish()
            self._furnished = True

    def _write_settings(self) -> None:
        """Those of `SYSCTLS` that are there and that a new namespace does not have right by itself.

        Asked in the first that is made: all are alike, and each write saved is 10 us a node.
        """
        global _differing
        if _differing is None:
            _differing = [each for each in SYSCTLS if _differs(self._settings, *each)]
        for name, value in _differing:
            sysctls.write(self._settings, name, value)

    def _furnish(self) -> None:
        """Mounts that make the node feel alone: /sys of its network, private /run and /tmp."""
        with self.entered():
            if containment.limits():
                sandbox.mount_private_folders()
                containment.enter_fresh_root()
            else:
                sandbox.mount_sys(rootless=sandbox.kind() == "rootless")
                sandbox.mount_private_folders()


def _is_still_the_shell(pid: int) -> bool:
    """The dot comes from the shell, which only then becomes what it was started for."""
    try:
        return _FIRST_PROCESS.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended already


def _differs(folder: int, name: str, value: str) -> bool:
    try:
        return sysctls.read(folder, name) != value
    except FileNotFoundError:
        return False


def _network(destination: str | IPv4Network) -> IPv4Network:
    return _DEFAULT if destination == "default" else IPv4Network(destination)
