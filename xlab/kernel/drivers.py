"""What the running kernel shows of its drivers, without being made to load one.

Asking for a thing by name (a generic netlink family, a queueing discipline, a device node) makes
the kernel load the module that would provide it.  So everything here only looks:

    dump of all generic netlink families      the kernel's Open vSwitch datapath
    /proc/misc                                 whether opening /dev/net/tun loads anything
    /sys/module, modules.builtin, the config   drivers that are live
    modules.dep                                drivers that `modprobe` would find
"""

from __future__ import annotations

import gzip
import os
import re
import socket
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from xlab.kernel import container, netlink


class State(StrEnum):
    YES = "yes"
    #: The kernel has it as a module that is not loaded.
    LOADABLE = "loadable"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Driver:
    """Kernel code that may be built in or a module, by its module's and its option's name."""

    module: str
    config: str


DRIVERS: Mapping[str, Driver] = {
    "veth": Driver("veth", "CONFIG_VETH"),
    "bridge": Driver("bridge", "CONFIG_BRIDGE"),
    "masquerading": Driver("nf_nat", "CONFIG_NF_NAT"),
    "ovs_datapath": Driver("openvswitch", "CONFIG_OPENVSWITCH"),
    "ovs_gre": Driver("ip_gre", "CONFIG_NET_IPGRE"),
    "tun": Driver("tun", "CONFIG_TUN"),
    "netem": Driver("sch_netem", "CONFIG_NET_SCH_NETEM"),
    "tbf": Driver("sch_tbf", "CONFIG_NET_SCH_TBF"),
    "packet_sockets": Driver("af_packet", "CONFIG_PACKET"),
    "overlayfs": Driver("overlay", "CONFIG_OVERLAY_FS"),
}


@dataclass(frozen=True, slots=True)
class DriverState:
    state: State
    detail: str


class Kernel:
    """What the running kernel shows of its drivers; files are read when needed, and once."""

    def __init__(self, root: Path = Path("/"), release: str | None = None) -> None:
        self.root = root
        self.release = release or os.uname().release
        self.container = container.kind(root)

    def driver(self, driver: Driver) -> DriverState:
        """Live, loadable or absent, and what showed it.  Looks only; loads nothing."""
        if (self.root / "sys/module" / driver.module).is_dir():
            return DriverState(State.YES, f"{driver.module} is live")
        if self._lists(self._builtin, driver.module) or f"\n{driver.config}=y\n" in self._config:
            return DriverState(State.YES, f"{driver.module} is built into the kernel")
        if self._lists(self._modules, driver.module):
            return DriverState(State.LOADABLE, f"module {driver.module} is not loaded")
        module = f"\n{driver.config}=m\n" in self._config
        # A container sees the kernel of its host, but neither its modules nor, mostly, its
        # configuration.  The kernel loads them all the same.
        if self.container and not self._modules and (module or not self._config.strip()):
            return DriverState(State.LOADABLE, f"module {driver.module} is not loaded")
        if module:
            return DriverState(
                State.NO, f"module {driver.module} is not in /lib/modules/{self.release}"
            )
        return DriverState(State.NO, f"this kernel has no {driver.module}")

    def filesystems(self) -> frozenset[str]:
        """File systems that can be mounted without loading anything."""
        return frozenset(
            line.split("\t")[-1] for line in shown(self.root / "proc/filesystems").split("\n")
        )

    def misc_devices(self) -> frozenset[str]:
        """Drivers with a live miscellaneous device: opening any other node may load a module."""
        return frozenset(shown(self.root / "proc/misc").split()[1::2])

    def sysctl(self, name: str) -> int | None:
        """A numeric sysctl, "user.max_user_namespaces"; None where this kernel has no such key."""
        text = shown(self.root / "proc/sys" / name.replace(".", "/")).strip()
        return int(text) if text.lstrip("-").isdigit() else None

    @cached_property
    def _builtin(self) -> str:
        return shown(self.root / f"lib/modules/{self.release}/modules.builtin")

    @cached_property
    def _modules(self) -> str:
        return shown(self.root / f"lib/modules/{self.release}/modules.dep")

    @cached_property
    def _config(self) -> str:
        try:
            packed = (self.root / "proc/config.gz").read_bytes()
            return "\n" + gzip.decompress(packed).decode(errors="replace")
        except (OSError, EOFError, zlib.error):
            return "\n" + shown(self.root / f"boot/config-{self.release}")

    def _lists(self, database: str, module: str) -> bool:
        # File names have "-" where module names have "_"; a line is "kernel/net/x/NAME.ko[.xz]: …".
        return any(
            re.search(rf"^\S*/{name}\.ko\b", database, re.MULTILINE)
            for name in {module, module.replace("_", "-")}
            if f"/{name}.ko" in database
        )


def shown(path: str | Path) -> str:
    """What the kernel shows in a file; "" where it has none, or none any more."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def generic_netlink_families() -> frozenset[str]:
    """All registered families, by a dump: a look-up by name would load the module it misses."""
    ctrl, getfamily, attr_name, done, error = 16, 3, 2, 3, 2
    request, dump = 0x1, 0x300
    families: set[str] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ctrl) as channel:
        channel.settimeout(1.0)
        channel.send(struct.pack("=IHHIIBBH", 20, ctrl, request | dump, 1, 0, getfamily, 1, 0))
        while True:
            for kind, _, _, message in netlink.messages_in(channel.recv(65536)):
                if kind in (done, error):
                    return frozenset(families)
                # Behind nlmsghdr (16 bytes) and genlmsghdr (4).
                name = netlink.attributes_in(message[20:]).get(attr_name)
                if name is not None:
                    families.add(name.rstrip(b"\0").decode(errors="replace"))
