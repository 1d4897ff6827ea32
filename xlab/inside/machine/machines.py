"""The hosts of a lab that stays, as machines: commands, services, what is in their files."""

from __future__ import annotations

import threading
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from xlab.errors import XlabError
from xlab.inside.machine import systemd, tools
from xlab.inside.machine.desk import Desk
from xlab.inside.machine.systemd import (
    DockerService,
    Networking,
    OpenVSwitchService,
    Service,
    Systemd,
)
from xlab.kernel import foreign
from xlab.kernel.programs import locate
from xlab.lab import machine_root
from xlab.lab.lab import Host, Lab, concurrently

_INTERFACES = Path("/etc/network/interfaces")
_IFSTATE = Path("/run/network/ifstate")
_DOCKER_UNIT = Path("/usr/lib/systemd/system/docker.service")


class Machines:
    """Made before the lab is, and told of each host when that is furnished."""

    def __init__(self, turn: threading.Lock, *, userspace: bool) -> None:
        """`turn` is held by whoever changes the lab; `userspace` is about Open vSwitch."""
        self._turn = turn
        #: Once it has been wired.
        self._lab: Lab
        self._desks: dict[Host, Desk] = {}
        self._dockers: dict[Host, DockerService] = {}
        self._systemds: dict[Host, Systemd] = {}
        self._rebooting: set[Host] = set()
        self._lock = threading.Lock()
        tools.make(machine_root.TOOLS, userspace=userspace)
        tools.make_offline(machine_root.OFFLINE)

    def furnished(self, host: Host) -> None:
        """The host has its disk and an empty /run."""
        with self._lock:
            if host not in self._desks:
                self._dockers[host] = DockerService(host)
                self._systemds[host] = Systemd(host, self._services(host))
                self._desks[host] = Desk(host, self._systemds[host], self._reboot)
            self._desks[host].open()
        if host.docker.is_running:
            self._docker_started(host)

    def take_over(self, lab: Lab) -> None:
        """The lab has been wired."""
        self._lab = lab
        lab.after_boot = self.boot
        for host in lab.hosts:
            host.docker.on_start = partial(self._docker_started, host)

    def boot_all(self, lab: Lab) -> None:
        """Hosts as they come, eth0 with an address: that is in their files, and services start."""
        gateway = lab.gateway.device_address("eth0")

        def boot(host: Host) -> None:
            host.inhabited()  # furnished, if nothing ran there so far
            own = host.device_address("eth0")
            if own and gateway:
                self._write_interfaces(host, own, gateway.ip)
            self._systemds[host].boot()

        concurrently(boot, lab.hosts)

    def boot(self, host: Host) -> None:
        """What starts by itself when the host is switched on again: whatever is enabled.

        Addresses are what its /etc/network/interfaces says, where there is an ifup to read it.
        """
        host.inhabited()
        own = host.device_address("eth0")
        if own and locate("ifup") and self._has_interfaces(host):
            host.delete_address("eth0", own)
            # What it has then, on whichever interface, is what it is reached by.
            host.prefer_address(own.ip)
        self._systemds[host].boot()

    def _write_interfaces(self, host: Host, own: IPv4Interface, gateway: IPv4Address) -> None:
        """As if the installer had, and ifup had done it."""
        with host.entered():
            stanza = (
                f"\nauto eth0\niface eth0 inet static\n    address {own.ip}\n"
                f"    netmask {own.netmask}\n    gateway {gateway}\n"
            )
            foreign.put(_INTERFACES, foreign.read(_INTERFACES) + stanza.encode())
            _IFSTATE.parent.mkdir(exist_ok=True)
            _IFSTATE.write_text("".join(f"{name}={name}\n" for name in ("lo", "eth0")))
            for name in ("lo", "eth0"):
                _IFSTATE.with_suffix(f".{name}").write_text(f"{name}\n")

    def _has_interfaces(self, host: Host) -> bool:
        """Whether there is more in it than the loopback."""
        try:
            with host.entered():
                text = foreign.text(_INTERFACES)
        except FileNotFoundError:
            return False
        except XlabError as error:
            self._systemds[host].note("networking", str(error))
            return False
        return more_than_loopback(text)

    def _services(self, host: Host) -> dict[str, Service]:
        found: dict[str, Service] = {"networking": Networking(host)}
        if host.runs_ovs:
            found["openvswitch-switch"] = OpenVSwitchService(
                host, lambda: self._lab.restart_daemon(host, "ovs-vswitchd")
            )
        return found | {"docker": self._dockers[host]}

    def _reboot(self, host: Host) -> None:
        """Once at a time: who asked for it does not see its end, and others wait for their turn."""
        with self._lock:
            if host in self._rebooting:
                raise XlabError(f"{host} is about to reboot already")
            self._rebooting.add(host)
        crashes = host.crashes
        try:
            with self._turn:
                if host.crashes != crashes:
                    raise XlabError(f"{host} has been switched off since this was typed")
                self._lab.crash(host)
                self._lab.boot(host)
        finally:
            self._rebooting.discard(host)

    def _docker_started(self, host: Host) -> None:
        """By whom it was, its unit file says how: as if the scenario had edited it."""
        service = self._dockers.get(host)
        if service and not service.is_starting:
            unit = systemd.unit_for(host.docker.options)
            try:
                with host.entered():
                    foreign.put(_DOCKER_UNIT, unit.encode())
            except XlabError as error:
                self._systemds[host].note("docker", str(error))


def more_than_loopback(text: str) -> bool:
    """Whether interfaces(5) brings up something beside lo at boot."""
    lines = (line.split() or [""] for line in text.splitlines())
    return any(
        (word == "auto" or word.startswith("allow-")) and set(named) - {"lo"}
        for word, *named in lines
    )
