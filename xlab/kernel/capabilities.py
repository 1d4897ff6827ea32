"""What this kernel and this machine can do, found out without making the kernel load a module.

Everything here first looks at what the kernel shows of itself (`drivers`), and tries an operation
only when what it needs is already live: opening /dev/net/tun, and in a child namespaces (`trial`).

`observe` gathers this as plain facts, `assess` draws the conclusions from them and is pure.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xlab.kernel import trial
from xlab.kernel.drivers import DRIVERS, DriverState, Kernel, State, generic_netlink_families
from xlab.kernel.trial import Trial, try_sandbox


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


# -- facts -----------------------------------------------------------------------------------------


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
    tried = seen.trial
    kind = "user and network namespaces" if seen.rootless else "network namespaces, as root"
    if not tried.errno:
        return Capability("namespaces", State.YES, kind, used_for)
    detail, remedy = _refusal(seen)
    return Capability("namespaces", State.NO, detail, used_for, remedy)


def _refusal(seen: Observation) -> tuple[str, str]:
    tried = seen.trial
    reason = os.strerror(tried.errno)
    if seen.rootless:
        # Ubuntu's restriction lets the namespace be created and takes effect at the first use.
        if seen.apparmor_restricts and tried.step != "create":
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
        if seen.in_chroot and tried.step == "create":
            return "the kernel allows no user namespaces inside a chroot", ""
    if tried.errno == errno.ENOSPC:
        return "the limit of namespaces is reached (user.max_*_namespaces)", ""
    if tried.step == "proc":
        # mount_too_revealing(): a container whose own /proc is masked gets no new one.
        return f"no new /proc can be mounted ({reason}): part of it is masked here", ""
    if not seen.rootless and tried.errno == errno.EPERM:
        return f"root has no CAP_SYS_ADMIN here ({reason})", ""
    if tried.errno == errno.ETIMEDOUT:
        return f"making namespaces did not end within {trial.LIMIT_S:g} s", ""
    what = {
        "create": "creating namespaces",
        "map": "mapping a user id",
        "mount": "mounting inside a namespace",
        "loopback": "bringing lo up inside a namespace",
    }[tried.step]
    return f"{what} is refused ({reason})", ""
