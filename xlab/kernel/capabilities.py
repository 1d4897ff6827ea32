"""What this kernel and this machine can do, found out without making the kernel load a module.

Asking for a thing by name (a generic netlink family, a queueing discipline, a device node) makes
the kernel load the module that would provide it.  So everything here first looks at what the kernel
shows of itself, and tries an operation only when what it needs is already live:

    dump of all generic netlink families      the kernel's Open vSwitch datapath
    /proc/misc, then open                      /dev/net/tun
    /sys/module, modules.builtin, the config   drivers that are live
    modules.dep                                drivers that `modprobe` would find
    a child that unshares and reports          namespaces, and capabilities inside them

`observe` gathers this as plain facts, `assess` draws the conclusions from them and is pure.
"""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Literal, NoReturn

from xlab.errors import CapabilityError, NetlinkError
from xlab.kernel import namespaces, netlink, patience, syscalls
from xlab.kernel.clock import Deadline
from xlab.kernel.netlink import Rtnl
from xlab.kernel.patience import Patience


class State(StrEnum):
    YES = "yes"
    #: The kernel has it as a module that is not loaded.
    LOADABLE = "loadable"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing the kernel or the machine has or lacks, and what changes that."""

    name: str
    state: State
    #: What showed it, as half a sentence: "module sch_netem is loaded".
    detail: str
    used_for: str
    #: A line to paste; empty where nothing can be done, or nothing needs to be.
    remedy: str = ""
    #: The kernel loads the module by itself when a lab uses the feature in the ordinary way.
    on_demand: bool = False

    @property
    def live(self) -> bool:
        """It is there now; using it loads nothing."""
        return self.state is State.YES

    @property
    def usable(self) -> bool:
        """It is there now, or the kernel provides it on first use."""
        return self.live or (self.state is State.LOADABLE and self.on_demand)


@dataclass(frozen=True, slots=True)
class Machine:
    """The conclusions; every field can be asked for `live` and `usable`."""

    kernel: str
    #: How labs are made: as real root, or with a user namespace each.
    sandbox: Literal["rootless", "root"]
    namespaces: Capability
    veth: Capability
    bridge: Capability
    masquerading: Capability
    ovs_datapath: Capability
    ovs_gre: Capability
    tun: Capability
    netem: Capability
    tbf: Capability
    packet_sockets: Capability
    overlayfs: Capability
    bridge_netfilter: Capability
    #: The hard limit of open files.
    open_files: int
    #: Dynamic neighbour entries of all namespaces together (gc_thresh3); None inside a sandbox,
    #: where the kernel hides it.
    neighbours: int | None
    #: For how long the kernel kept us waiting for namespaces, in seconds.
    waited_s: float = 0.0

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return tuple(value for value in values if isinstance(value, Capability))


def probe(*, inside: bool = False) -> Machine:
    """What this machine can do, in some 10 ms.  Nothing is loaded, nothing is left behind.

    While the kernel frees the network of a large lab it takes as long as that, see `patience`.

    `inside` a sandbox namespaces are not tried: they are there.
    """
    return assess(observe(inside=inside))


# -- drivers ---------------------------------------------------------------------------------------


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
    "bridge_netfilter": Driver("br_netfilter", "CONFIG_BRIDGE_NETFILTER"),
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

    def driver(self, driver: Driver) -> DriverState:
        """Live, loadable or absent, and what showed it.  Looks only; loads nothing."""
        if (self.root / "sys/module" / driver.module).is_dir():
            return DriverState(State.YES, f"{driver.module} is live")
        if self._lists(self._builtin, driver.module):
            return DriverState(State.YES, f"{driver.module} is built into the kernel")
        if f"\n{driver.config}=y\n" in self._config:
            return DriverState(State.YES, f"{driver.module} is built into the kernel")
        if self._lists(self._modules, driver.module):
            return DriverState(State.LOADABLE, f"module {driver.module} is not loaded")
        if f"\n{driver.config}=m\n" in self._config:
            return DriverState(
                State.NO, f"module {driver.module} is not in /lib/modules/{self.release}"
            )
        return DriverState(State.NO, f"this kernel has no {driver.module}")

    def filesystems(self) -> frozenset[str]:
        """File systems that can be mounted without loading anything."""
        return frozenset(
            line.split("\t")[-1] for line in self._read("proc/filesystems").split("\n")
        )

    def misc_devices(self) -> frozenset[str]:
        """Drivers with a live miscellaneous device: opening any other node may load a module."""
        return frozenset(self._read("proc/misc").split()[1::2])

    def sysctl(self, name: str) -> int | None:
        """A numeric sysctl, "user.max_user_namespaces"; None where this kernel has no such key."""
        text = self._read("proc/sys/" + name.replace(".", "/")).strip()
        return int(text) if text.lstrip("-").isdigit() else None

    @cached_property
    def _builtin(self) -> str:
        return self._read(f"lib/modules/{self.release}/modules.builtin")

    @cached_property
    def _modules(self) -> str:
        return self._read(f"lib/modules/{self.release}/modules.dep")

    @cached_property
    def _config(self) -> str:
        try:
            packed = (self.root / "proc/config.gz").read_bytes()
            return "\n" + gzip.decompress(packed).decode(errors="replace")
        except (OSError, EOFError, zlib.error):
            return "\n" + self._read(f"boot/config-{self.release}")

    def _lists(self, database: str, module: str) -> bool:
        # File names have "-" where module names have "_"; a line is "kernel/net/x/NAME.ko[.xz]: …".
        return any(
            re.search(rf"^\S*/{name}\.ko\b", database, re.MULTILINE)
            for name in {module, module.replace("_", "-")}
            if f"/{name}.ko" in database
        )

    def _read(self, path: str) -> str:
        try:
            return (self.root / path).read_text(errors="replace")
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


# -- facts -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """How far a child got in making a sandbox: `errno` 0 means all the way.

    `step` is the one that failed: "create", "map" (of user ids), "mount", "proc" or "loopback".
    """

    step: str = ""
    errno: int = 0
    #: Mounting an overlay file system inside; None if it was not tried.
    overlay_errno: int | None = None
    #: For how long the child waited for the kernel, in seconds.
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything `assess` draws on."""

    kernel: str
    rootless: bool
    drivers: Mapping[str, DriverState]
    families: frozenset[str]
    filesystems: frozenset[str]
    trial: Trial
    #: None: not opened, since that would load the module; 0: opens; else the error.
    tun_errno: int | None
    max_user_namespaces: int | None
    #: Ubuntu: an unprivileged process may create a user namespace but has no capabilities in it.
    apparmor_restricts: bool
    #: Old Debian kernels: unprivileged user namespaces are switched off.
    clone_forbidden: bool
    in_chroot: bool
    open_files: int
    neighbours: int | None


def observe(kernel: Kernel | None = None, *, inside: bool = False) -> Observation:
    """Look at the kernel; try namespaces in a child, and /dev/net/tun if its driver is live."""
    kernel = kernel or Kernel()
    rootless = os.geteuid() != 0
    filesystems = kernel.filesystems()
    overlay = "overlay" in filesystems
    return Observation(
        kernel=kernel.release,
        rootless=rootless,
        drivers={name: kernel.driver(driver) for name, driver in DRIVERS.items()},
        families=generic_netlink_families(),
        filesystems=filesystems,
        trial=Trial() if inside else try_sandbox(rootless=rootless, overlay=overlay),
        tun_errno=_open_errno("/dev/net/tun") if "tun" in kernel.misc_devices() else None,
        max_user_namespaces=kernel.sysctl("user.max_user_namespaces"),
        apparmor_restricts=kernel.sysctl("kernel.apparmor_restrict_unprivileged_userns") == 1,
        clone_forbidden=kernel.sysctl("kernel.unprivileged_userns_clone") == 0,
        in_chroot=_in_chroot(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        neighbours=kernel.sysctl("net.ipv4.neigh.default.gc_thresh3"),
    )


def _open_errno(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _in_chroot() -> bool:
    """Whether our root is a plain directory; a new root that is a mount itself goes unnoticed."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return False
    return all(line.split()[4] != "/" for line in mounts.splitlines())


# -- the trial -------------------------------------------------------------------------------------

_TRIAL_LIMIT_S = 30.0


def try_sandbox(*, rootless: bool, overlay: bool) -> Trial:
    """Let a child make the namespaces of a sandbox and use its capabilities inside them.

    That a namespace can be created says little: Ubuntu allows it and then refuses every capability
    inside.  So the child mounts a tmpfs, a /proc and, with `overlay`, an overlay file system, and
    brings `lo` up; all of it ends with the child.
    """
    receive, send = os.pipe2(os.O_CLOEXEC)
    child = syscalls.fork(lambda: _trial(send, rootless=rootless, overlay=overlay))
    os.close(send)
    limit = Patience(child, _TRIAL_LIMIT_S)
    try:
        report = _read_until_end(receive, limit)
    finally:
        os.close(receive)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        # What waits for the kernel ends when that lets it, and holds nothing: Ctrl-C does not wait.
        os.waitpid(child, os.WNOHANG if patience.is_held_up(child) else 0)
    if not report:
        return Trial("create", errno.ETIMEDOUT, waited_s=limit.waited_s)
    return dataclasses.replace(Trial(**json.loads(report)), waited_s=limit.waited_s)


def _trial(report: int, *, rootless: bool, overlay: bool) -> NoReturn:
    """Runs in the forked child and its child; reports by one write and never returns."""
    trial = Trial("create", errno.EIO)
    try:
        # Whoever waits for the end of our output would wait for the kernel, too.
        os.closerange(0, report)
        os.closerange(report + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        uid, gid = os.geteuid(), os.getegid()
        user = syscalls.CLONE_NEWUSER if rootless else 0
        trial = _step(
            "create",
            lambda: syscalls.unshare(syscalls.NEW_NAMESPACES | user),
        )
        if rootless and not trial.errno:
            trial = _step("map", lambda: namespaces.map_to_root(uid, gid))
        if not trial.errno:
            # The next child is pid 1 of the new PID namespace: /proc can be mounted only there.
            first = os.fork()
            if first:
                os.waitpid(first, 0)
                os._exit(0)
            syscalls.die_with_parent()
            trial = _use_capabilities()
            if overlay and not trial.errno:
                attempt = _step("overlay", lambda: _mount_overlay(rootless=rootless))
                trial = dataclasses.replace(trial, overlay_errno=attempt.errno)
        os.write(report, json.dumps(dataclasses.asdict(trial)).encode())
    finally:
        os._exit(0)


def _step(name: str, attempt: Callable[[], None]) -> Trial:
    try:
        attempt()
    except (OSError, NetlinkError) as error:
        return Trial(name, error.errno or errno.EIO)
    return Trial()


def _use_capabilities() -> Trial:
    def mount_tmpfs() -> None:
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("tmpfs", "/tmp", "tmpfs")

    def mount_proc() -> None:
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", "/proc", "proc", flags)

    def loopback_up() -> None:
        with closing(Rtnl()) as rtnl:
            rtnl.now.set_up("lo")

    for name, attempt in (
        ("mount", mount_tmpfs),
        ("proc", mount_proc),
        ("loopback", loopback_up),
    ):
        trial = _step(name, attempt)
        if trial.errno:
            return trial
    return Trial()


def _mount_overlay(*, rootless: bool) -> None:
    """On the child's own tmpfs; an unprivileged overlay keeps its marks in user.* attributes."""
    for folder in ("lower", "upper", "work", "merged"):
        Path("/tmp", folder).mkdir()
    layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    options = f"{layers},userxattr" if rootless else layers
    syscalls.mount("overlay", "/tmp/merged", "overlay", data=options)


def _read_until_end(descriptor: int, limit: Patience) -> bytes:
    """What the writers of a pipe leave there; empty if they keep it open for longer than that."""
    content, announced = b"", False
    while not limit.passed():
        if limit.waited_s and not announced:
            announced = True
            patience.announce()
        if select.select([descriptor], [], [], limit.turn_s())[0]:
            piece = os.read(descriptor, 4096)
            if not piece:
                return content
            content += piece
    return b""


# -- conclusions -----------------------------------------------------------------------------------


def assess(seen: Observation) -> Machine:
    """What the facts mean for labs.  Pure."""
    return Machine(
        kernel=seen.kernel,
        sandbox="rootless" if seen.rootless else "root",
        namespaces=_namespaces(seen),
        veth=_driver(seen, "veth", "every link of a lab", on_demand=True),
        bridge=_driver(seen, "bridge", "the underlay's switches, docker0 and br0", on_demand=True),
        masquerading=_driver(
            seen, "masquerading", "containers reaching the outside", on_demand=True
        ),
        ovs_datapath=_ovs_datapath(seen),
        ovs_gre=_driver(
            seen, "ovs_gre", "GRE tunnels of the kernel's Open vSwitch datapath", on_demand=True
        ),
        tun=_tun(seen),
        netem=_driver(seen, "netem", "rate, delay, jitter and loss on links, by the kernel"),
        tbf=_driver(seen, "tbf", "rates of links, by the kernel"),
        packet_sockets=_driver(
            seen, "packet_sockets", "captures, and links with a delay without netem", on_demand=True
        ),
        overlayfs=_overlayfs(seen),
        bridge_netfilter=_driver(
            seen, "bridge_netfilter", "iptables seeing frames that a bridge forwards"
        ),
        open_files=seen.open_files,
        neighbours=seen.neighbours,
        waited_s=seen.trial.waited_s,
    )


def _driver(seen: Observation, name: str, used_for: str, *, on_demand: bool = False) -> Capability:
    found = seen.drivers[name]
    loadable = found.state is State.LOADABLE and not on_demand
    return Capability(
        name=name,
        state=found.state,
        detail=found.detail,
        used_for=used_for,
        remedy=f"sudo modprobe {DRIVERS[name].module}" if loadable else "",
        on_demand=on_demand,
    )


def _ovs_datapath(seen: Observation) -> Capability:
    """The family counts, not the module: it is what ovs-vswitchd talks to."""
    used_for = "Open vSwitch in the kernel"
    if "ovs_datapath" in seen.families:
        return Capability("ovs_datapath", State.YES, "the kernel answers to ovs_datapath", used_for)
    found = seen.drivers["ovs_datapath"]
    if found.state is State.NO:
        return Capability("ovs_datapath", State.NO, found.detail, used_for)
    return Capability(
        "ovs_datapath",
        State.LOADABLE,
        "module openvswitch is not loaded",
        used_for,
        "sudo modprobe -a openvswitch vport-gre",
    )


def _tun(seen: Observation) -> Capability:
    node, used_for = "/dev/net/tun", "Open vSwitch in user space"
    if seen.tun_errno is None:
        found = seen.drivers["tun"]
        # The node's driver is not registered.  udev makes the node all the same, and opening it
        # loads the module for anybody who may open it.
        if found.state is State.LOADABLE:
            return Capability("tun", State.LOADABLE, found.detail, used_for, "", on_demand=True)
        return Capability("tun", State.NO, found.detail, used_for)
    if seen.tun_errno == 0:
        return Capability("tun", State.YES, f"{node} opens", used_for)
    remedy = {
        errno.EACCES: f"sudo chmod 0666 {node}",
        errno.ENOENT: f"sudo mkdir -p /dev/net && sudo mknod -m 0666 {node} c 10 200",
    }.get(seen.tun_errno, "")
    return Capability(
        "tun", State.NO, f"{node} does not open ({os.strerror(seen.tun_errno)})", used_for, remedy
    )


def _overlayfs(seen: Observation) -> Capability:
    used_for = "private /etc and /var of hosts that are typed into"
    found = seen.drivers["overlayfs"]
    if "overlay" not in seen.filesystems:
        if found.state is State.LOADABLE:
            return Capability(
                "overlayfs", State.LOADABLE, found.detail, used_for, "sudo modprobe overlay"
            )
        return Capability("overlayfs", State.NO, found.detail, used_for)
    if seen.trial.overlay_errno:
        reason = os.strerror(seen.trial.overlay_errno)
        return Capability("overlayfs", State.NO, f"a lab may not mount it ({reason})", used_for)
    if seen.trial.overlay_errno is None:
        return Capability("overlayfs", State.NO, "could not be tried", used_for)
    return Capability("overlayfs", State.YES, "mounts inside a lab", used_for)


def _namespaces(seen: Observation) -> Capability:
    """Whether sandboxes can be made; where not, why, as far as the kernel lets one know."""
    used_for = "every lab"
    trial = seen.trial
    kind = "user and network namespaces" if seen.rootless else "network namespaces, as root"
    if not trial.errno:
        return Capability("namespaces", State.YES, kind, used_for)
    detail, remedy = _refusal(seen)
    return Capability("namespaces", State.NO, detail, used_for, remedy)


def _refusal(seen: Observation) -> tuple[str, str]:
    trial = seen.trial
    reason = os.strerror(trial.errno)
    if seen.rootless:
        # Ubuntu's restriction lets the namespace be created and takes effect at the first use.
        if seen.apparmor_restricts and trial.step != "create":
            return (
                "AppArmor takes all capabilities from unprivileged user namespaces",
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            )
        if seen.clone_forbidden:
            return (
                "unprivileged user namespaces are switched off",
                "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            )
        if seen.max_user_namespaces == 0:
            return (
                "user.max_user_namespaces is 0",
                "sudo sysctl -w user.max_user_namespaces=15000",
            )
        if seen.in_chroot and trial.step == "create":
            return "the kernel allows no user namespaces inside a chroot", ""
    if trial.errno == errno.ENOSPC:
        return "the limit of namespaces is reached (user.max_*_namespaces)", ""
    if trial.step == "proc":
        # mount_too_revealing(): a container whose own /proc is masked gets no new one.
        return f"no new /proc can be mounted ({reason}): part of it is masked here", ""
    if not seen.rootless and trial.errno == errno.EPERM:
        return f"root has no CAP_SYS_ADMIN here ({reason})", ""
    if trial.errno == errno.ETIMEDOUT:
        return f"making namespaces did not end within {_TRIAL_LIMIT_S:g} s", ""
    what = {
        "create": "creating namespaces",
        "map": "mapping a user id",
        "mount": "mounting inside a namespace",
        "loopback": "bringing lo up inside a namespace",
    }[trial.step]
    return f"{what} is refused ({reason})", ""


# -- the one thing that labs share -----------------------------------------------------------------


def neighbour_overflows(statistics: Path = Path("/proc/net/stat/arp_cache")) -> int:
    """How often since boot an ARP entry was refused because the machine's table was full.

    The table is every namespace's, whoever fills it; only the root network namespace has the
    figures.  0 where there are none.
    """
    try:
        names, *processors = [line.split() for line in statistics.read_text().splitlines()]
        column = names.index("table_fulls")
        return sum(int(figures[column], 16) for figures in processors)
    except (OSError, ValueError, IndexError):
        return 0


# -- tools -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A program xlab runs, where it is from, and what it is run for."""

    name: str
    package: str
    used_for: str
    #: What prints the version.
    version_option: str = "--version"


TOOLS: tuple[Tool, ...] = (
    Tool("ip", "iproute2", "every lab", "-V"),
    Tool("tc", "iproute2", "link conditions", "-V"),
    Tool("ping", "iputils-ping", "claims and round-trip times", "-V"),
    Tool("catatonit", "catatonit", "the first process of hosts and containers"),
    Tool("iperf3", "iperf3", "throughput"),
    Tool("tcpdump", "tcpdump", "captures"),
    Tool("iptables", "iptables", "Docker's masquerading and FORWARD rules"),
    Tool("ethtool", "ethtool", "offloads of interfaces"),
    Tool("ovs-vswitchd", "openvswitch-switch", "Open vSwitch"),
    Tool("ovsdb-server", "openvswitch-switch", "Open vSwitch"),
    Tool("netperf", "netperf", "request/response latency", "-V"),
)

#: What the tutorial types and xlab itself never runs.
TYPED: tuple[Tool, ...] = (
    Tool("ifup", "ifupdown", "/etc/network/interfaces"),
    Tool("brctl", "bridge-utils", "bridges"),
    Tool("ifconfig", "net-tools", "addresses"),
    Tool("route", "net-tools", "routes", "-V"),
)

_VERSION_LIMIT_S = 3.0


def remedy(program: str) -> str:
    """The line to paste where a program is missing; empty for one that is none of ours."""
    for tool in (*TOOLS, *TYPED):
        if program == tool.name or program.startswith(f"{tool.name}-"):  # iptables-restore, say
            return f"sudo apt-get install {tool.package}"
    return ""


#: What is open in a lab's first process, as counted with 8 to 92 nodes while claims are checked and
#: probes run: 52 + 4 for each in the scenario that needs least, 38 + 7 in the one that needs most.
_FILES_OF_A_LAB, _FILES_OF_A_NODE, _MOST_FILES_OF_A_NODE = 48, 4, 7
#: Beside hosts and containers: the gateway, and where the cables are.
_OTHER_NODES = 2


def nodes_within(open_files: int) -> int:
    """How many hosts and containers a lab of any scenario may have under such a limit."""
    nodes = (open_files - _FILES_OF_A_LAB) // _MOST_FILES_OF_A_NODE - _OTHER_NODES
    return max(0, nodes)


def require_open_files(limit: int, nodes: int) -> None:
    """Raises CapabilityError where no lab with so many hosts and containers can be."""
    least = _FILES_OF_A_LAB + _FILES_OF_A_NODE * (nodes + _OTHER_NODES)
    if limit < least:
        lab = f"a lab with {nodes:,} hosts and containers"
        raise too_few_open_files(limit, f"{lab} needs at least {least:,}")


def too_few_open_files(limit: int, but: str) -> CapabilityError:
    """The error, with the line to paste; `but` says what the limit does not suffice for."""
    return CapabilityError(f"at most {limit:,} open files, and {but}", MORE_OPEN_FILES)


MORE_OPEN_FILES = "sudo prlimit --pid $$ --nofile=65536:65536"


def locate(name: str) -> str | None:
    """The path of a program; also looks where an ordinary user's PATH on Debian does not."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def tool_versions(tools: Sequence[Tool] = TOOLS) -> dict[str, str]:
    """Version of every tool that is installed, by name; "unknown" where it does not say.

    All are asked at once, and none again that is still the same file: a comparison makes a record
    each build.  None of the commands makes the kernel load anything.
    """
    installed = {tool.name: path for tool in tools if (path := locate(tool.name))}
    asked: dict[str, subprocess.Popen[str]] = {}
    identities: dict[str, _Identity] = {}
    versions = dict.fromkeys(installed, "unknown")
    for tool in tools:
        if tool.name in installed and (program := _safe_to_ask(installed[tool.name])):
            identity = identities[tool.name] = _identity(program, tool.version_option)
            if known := _versions.get(identity):
                versions[tool.name] = known
                continue
            asked[tool.name] = subprocess.Popen(
                [program, tool.version_option],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
            )
    deadline = Deadline(_VERSION_LIMIT_S)
    for name, process in asked.items():
        try:
            output, _ = process.communicate(timeout=deadline.left_s())
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        versions[name] = parse_version(output)
        if versions[name] != "unknown":
            _versions[identities[name]] = versions[name]
    for name, path in installed.items():
        if _is_nft_variant(path):
            versions[name] = versions[name].replace("(legacy)", "(nf_tables)")
    return versions


#: A program with the option that it is asked with, and device, inode and times of its file.
_Identity = tuple[str, str, int, int, int, int]
_versions: dict[_Identity, str] = {}


def _identity(program: str, option: str) -> _Identity:
    found = Path(program).stat()
    return program, option, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _safe_to_ask(path: str) -> str | None:
    """The program to ask for its version; None if asking would make the kernel load a module.

    The nf_tables variant of iptables opens a netfilter socket before it looks at its options, which
    loads nfnetlink.  Its twin of the same package, iptables-legacy, does not.
    """
    if not _is_nft_variant(path):
        return path
    return locate("iptables-legacy") or (path if _nfnetlink_is_live() else None)


def _is_nft_variant(path: str) -> bool:
    return "xtables-nft" in os.path.realpath(path)


def _nfnetlink_is_live() -> bool:
    return Kernel().driver(Driver("nfnetlink", "CONFIG_NETFILTER_NETLINK")).state is State.YES


def parse_version(output: str) -> str:
    """The version in the first line of a tool's answer: "3.5.0" say, or "1.8.11 (nf_tables)"."""
    first = output.strip().split("\n", 1)[0]
    match = re.search(r"(?:^|[\s-]|\bv)(\d+(?:\.\d+)*(?: \((?:nf_tables|legacy)\))?)", first)
    return match.group(1) if match else "unknown"


# -- environment -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """What a run record says about the machine, apart from what the run itself decides."""

    kernel: str
    cpu_model: str
    cores: int
    #: Averages over 1, 5 and 15 minutes.
    load: tuple[float, float, float]
    congestion_control: str
    tools: dict[str, str]
    #: What a reader needs to judge the figures: governor, virtualisation, stolen time.
    notes: tuple[str, ...]


def environment_facts() -> EnvironmentFacts:
    """The machine as it is now: some 20 ms the first time, when tools are asked their versions."""
    return EnvironmentFacts(
        kernel=os.uname().release,
        cpu_model=cpu_model(_text("/proc/cpuinfo")) or os.uname().machine,
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg(),
        congestion_control=_text("/proc/sys/net/ipv4/tcp_congestion_control").strip() or "unknown",
        tools=tool_versions(),
        notes=_environment_notes(),
    )


def cpu_model(cpuinfo: str) -> str:
    """The processor's name from /proc/cpuinfo, whose fields differ by architecture; "" if none."""
    for field in ("model name", "Model", "cpu model", "Processor", "uarch", "cpu"):
        match = re.search(rf"^{field}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if match:
            return match.group(1).strip()
    return ""


def stolen_ratio(stat: str) -> float | None:
    """Share of processor time the hypervisor took since boot, from /proc/stat; None if not told."""
    # user nice system idle iowait irq softirq steal; guest time is part of user, proc(5).
    match = re.match(r"cpu" + r" +([0-9]{1,20})" * 8 + r"\b", stat)
    if not match:
        return None
    times = [int(field) for field in match.groups()]
    return times[7] / sum(times) if sum(times) else None


def _environment_notes() -> tuple[str, ...]:
    notes = []
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    if governor:
        notes.append(f"cpu frequency governor: {governor}")
    if re.search(r"^flags\b.*\bhypervisor\b", _text("/proc/cpuinfo"), re.MULTILINE):
        notes.append("runs on a virtual machine")
    stolen = stolen_ratio(_text("/proc/stat"))
    if stolen is not None and stolen >= 0.01:
        notes.append(f"{stolen:.0%} of processor time since boot was taken by other machines")
    return tuple(notes)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
