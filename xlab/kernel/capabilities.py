"""What this kernel and this machine can do, found out without making the kernel load a module.

Everything here first looks at what the kernel shows of itself (`drivers`), and tries an operation
only when what it needs is already live: opening /dev/net/tun, and in a child namespaces (`trial`).

`observe` gathers this as plain facts, `assess` draws the conclusions from them and is pure.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from xlab.kernel import container, trial
from xlab.kernel.drivers import (
    DRIVERS,
    DriverState,
    Kernel,
    State,
    generic_netlink_families,
    shown,
)
from xlab.kernel.trial import Trial, try_sandbox


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing the kernel or the machine has or lacks, and what changes that."""

    name: str
    state: State
    #: What showed it, as half a sentence: "module sch_netem is loaded".
    detail: str
    #: A line to paste; empty where nothing can be done, or nothing needs to be.
    remedy: str = ""
    #: The kernel loads the module by itself when a lab uses the feature in the ordinary way.
    on_demand: bool = False
    #: What the remedy gives away, and for how long; empty where that is nothing to speak of.
    risk: str = ""

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
    #: The hard limit of open files.
    open_files: int
    #: Dynamic neighbour entries of all namespaces together (gc_thresh3); None inside a sandbox,
    #: where the kernel hides it.
    neighbours: int | None
    #: For how long the kernel kept us waiting for namespaces, in seconds.
    waited_s: float = 0.0
    container: container.Kind = ""


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
    #: System calls are filtered: what container engines, and services of systemd, do to theirs.
    filtered: bool
    #: The program that makes labs, as AppArmor knows it: Python's own file, behind all links.
    interpreter: str
    in_chroot: bool
    open_files: int
    neighbours: int | None
    #: What runs the container that this is; empty if none shows.
    container: container.Kind = ""
    #: Rights of root's that labs need and this root has not: a container's has few.
    lacking: tuple[str, ...] = ()


_TUN = "/dev/net/tun"


def observe(kernel: Kernel | None = None, *, inside: bool = False) -> Observation:
    """Look at the kernel; try namespaces in a child, and /dev/net/tun if its driver is live."""
    kernel = kernel or Kernel()
    rootless = os.geteuid() != 0
    filesystems = kernel.filesystems()
    overlay = "overlay" in filesystems
    # The kernel may load tun for whoever opens the node, but a container has no node by itself.
    no_node = bool(kernel.container) and not Path(_TUN).exists()
    return Observation(
        kernel=kernel.release,
        rootless=rootless,
        drivers={name: kernel.driver(driver) for name, driver in DRIVERS.items()},
        families=generic_netlink_families(),
        filesystems=filesystems,
        trial=Trial() if inside else try_sandbox(rootless=rootless, overlay=overlay),
        tun_errno=_open_errno(_TUN) if "tun" in kernel.misc_devices() or no_node else None,
        max_user_namespaces=kernel.sysctl("user.max_user_namespaces"),
        apparmor_restricts=kernel.sysctl("kernel.apparmor_restrict_unprivileged_userns") == 1,
        clone_forbidden=kernel.sysctl("kernel.unprivileged_userns_clone") == 0,
        filtered="\nSeccomp:\t2\n" in shown(kernel.root / "proc/self/status"),
        interpreter=_resolved(kernel.root / "proc/self/exe"),
        in_chroot=_in_chroot(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        neighbours=kernel.sysctl("net.ipv4.neigh.default.gc_thresh3"),
        container=kernel.container,
        lacking=() if rootless else _lacking(shown(kernel.root / "proc/self/status")),
    )


#: Of capabilities(7), with their numbers in linux/capability.h.
_RIGHTS = {"SYS_ADMIN": 21, "NET_ADMIN": 12, "NET_RAW": 13}


def _lacking(status: str) -> tuple[str, ...]:
    """By /proc/self/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]{1,16})$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else -1
    return tuple(name for name, number in _RIGHTS.items() if not effective >> number & 1)


def _open_errno(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _resolved(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


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
        veth=_driver(seen, "veth", on_demand=True),
        bridge=_driver(seen, "bridge", on_demand=True),
        masquerading=_driver(seen, "masquerading", on_demand=True),
        ovs_datapath=_ovs_datapath(seen),
        ovs_gre=_driver(seen, "ovs_gre", on_demand=True),
        tun=_tun(seen),
        netem=_driver(seen, "netem"),
        tbf=_driver(seen, "tbf"),
        packet_sockets=_driver(seen, "packet_sockets", on_demand=True),
        overlayfs=_overlayfs(seen),
        open_files=seen.open_files,
        neighbours=seen.neighbours,
        waited_s=seen.trial.waited_s,
        container=seen.container,
    )


def _driver(seen: Observation, name: str, *, on_demand: bool = False) -> Capability:
    found = seen.drivers[name]
    loadable = found.state is State.LOADABLE and not on_demand
    remedy = _modprobe(seen, DRIVERS[name].module) if loadable else ""
    return Capability(name, found.state, found.detail, remedy, on_demand)


def _modprobe(seen: Observation, modules: str) -> str:
    return f"{'on the host: ' if seen.container else ''}sudo modprobe {modules}"


def _ovs_datapath(seen: Observation) -> Capability:
    """The family counts, not the module: it is what ovs-vswitchd talks to."""
    found = _driver(seen, "ovs_datapath")
    if "ovs_datapath" in seen.families:
        detail = "the kernel answers to ovs_datapath"
        return replace(found, state=State.YES, detail=detail, remedy="")
    if found.state is State.NO:
        return found
    detail = "module openvswitch is not loaded"
    remedy = _modprobe(seen, "-a openvswitch vport-gre")
    return replace(found, state=State.LOADABLE, detail=detail, remedy=remedy)


def _tun(seen: Observation) -> Capability:
    node = _TUN
    found = _driver(seen, "tun", on_demand=True)
    if seen.tun_errno is None or (seen.container and found.state is State.NO):
        # The node's driver is not registered.  udev makes the node all the same, and opening it
        # loads the module for anybody who may open it.
        return found if found.state is State.LOADABLE else replace(found, state=State.NO)
    if seen.tun_errno == 0:
        return replace(found, state=State.YES, detail=f"{node} opens")
    remedy = {
        errno.EACCES: f"sudo chmod 0666 {node}",
        errno.ENOENT: f"sudo mkdir -p /dev/net && sudo mknod -m 0666 {node} c 10 200",
    }.get(seen.tun_errno, "")
    if seen.container and seen.tun_errno == errno.EACCES:
        # It was given its device, and the host's is not open to whoever has started it.
        remedy = f"on the host: {remedy}"
    elif seen.container:
        remedy = container.started_with(seen.container, f"--device {node}")
    detail = f"{node} does not open ({os.strerror(seen.tun_errno)})"
    return replace(found, state=State.NO, detail=detail, remedy=remedy)


def _overlayfs(seen: Observation) -> Capability:
    found = _driver(seen, "overlayfs")
    if "overlay" not in seen.filesystems:
        return found if found.state is State.LOADABLE else replace(found, state=State.NO)
    state, detail = State.NO, "could not be tried"
    if seen.trial.overlay_errno:
        detail = f"a lab may not mount it ({os.strerror(seen.trial.overlay_errno)})"
    elif seen.trial.overlay_errno == 0:
        state, detail = State.YES, "mounts inside a lab"
    return replace(found, state=state, detail=detail, remedy="")


def _namespaces(seen: Observation) -> Capability:
    """Whether sandboxes can be made; where not, why, as far as the kernel lets one know."""
    if seen.lacking:
        rights = ", ".join(f"CAP_{right}" for right in seen.lacking)
        options = " ".join(f"--cap-add {right}" for right in seen.lacking)
        remedy = container.started_with(seen.container, options) if seen.container else ""
        return Capability("namespaces", State.NO, f"root has no {rights} here", remedy)
    if seen.trial.errno:
        found = _settings(seen) if seen.rootless else None
        return found or _refusal(seen)
    kind = "user and network namespaces" if seen.rootless else "network namespaces, as root"
    return Capability("namespaces", State.YES, kind)


def _refused(detail: str, remedy: str = "", risk: str = "") -> Capability:
    return Capability("namespaces", State.NO, detail, remedy, risk=risk)


#: What every way of allowing user namespaces gives away.
_KERNEL_CODE = "use code of the kernel that is otherwise root's alone, and has had holes"


def _settings(seen: Observation) -> Capability | None:
    """Settings that keep user namespaces from ordinary users; None where it is none of them.

    Each as it shows on a stock kernel: a chroot, and Debian's old switch, refuse the creation with
    EPERM, the limit with ENOSPC.  AppArmor refuses it with EACCES where it may not be at all; with
    Ubuntu's own profile it is let through, and whatever comes next fails.
    """
    create = seen.trial.step == "create"
    if seen.in_chroot and create:
        return _refused("the kernel allows no user namespaces inside a chroot")
    if seen.clone_forbidden:
        return _refused(
            "this kernel keeps user namespaces to root (kernel.unprivileged_userns_clone is 0)",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            f"until the next boot every program of every user may {_KERNEL_CODE}",
        )
    if seen.max_user_namespaces == 0:
        return _refused(
            "no user namespace may be made (user.max_user_namespaces is 0)",
            "sudo sysctl -w user.max_user_namespaces=15000",
            f"until the next boot every program of every user may {_KERNEL_CODE}",
        )
    # A container's filter refuses the creation with EPERM before AppArmor is asked.
    filtered = seen.filtered and create and seen.trial.errno == errno.EPERM
    if seen.apparmor_restricts and not filtered:
        return _refused(
            "AppArmor takes all capabilities from an ordinary user's namespaces, as Ubuntu has it",
            _profile_of(seen.interpreter),
            f"from then on every program in this Python, whoever's, may {_KERNEL_CODE}; as root "
            "(sudo before the command) labs run without that line",
        )
    return None


def _profile_of(interpreter: str) -> str:
    """The line that gives one program, and no other, the right that Ubuntu took from all.

    In the form of the profiles that Ubuntu has for browsers and container engines
    (/etc/apparmor.d/buildah): it confines nothing.  What that program starts keeps its profile.
    """
    profile = f'abi <abi/4.0>, profile xlab "{interpreter}" flags=(unconfined) {{ userns, }}'
    file = "/etc/apparmor.d/xlab"
    return f"echo {shlex.quote(profile)} | sudo tee {file} && sudo apparmor_parser -r {file}"


def _refusal(seen: Observation) -> Capability:
    """What else forbids it: limits, and containers."""
    tried = seen.trial
    reason = os.strerror(tried.errno)
    if tried.errno == errno.ENOSPC:
        return _refused("the limit of namespaces is reached (user.max_*_namespaces)")
    if tried.errno == errno.ETIMEDOUT:
        return _refused(f"making namespaces did not end within {trial.LIMIT_S:g} s")
    if tried.step == "proc":
        # mount_too_revealing(): a container whose own /proc is masked gets no new one.
        masked = f"no new /proc can be mounted ({reason}): part of it is masked here"
        return _confined(masked, seen)
    if not seen.rootless and tried.errno == errno.EPERM:
        return _confined(f"root has no CAP_SYS_ADMIN here ({reason})", seen)
    if seen.filtered and tried.step == "create" and tried.errno == errno.EPERM:
        filtered = f"a filter of system calls (seccomp) refuses namespaces ({reason})"
        return _confined(filtered, seen)
    what = {
        "create": "creating namespaces",
        "map": "mapping a user id",
        "mount": "mounting inside a namespace",
        "loopback": "bringing lo up inside a namespace",
    }[tried.step]
    return _refused(f"{what} is refused ({reason})")


def _confined(detail: str, seen: Observation) -> Capability:
    """By whoever started this: what they can do about it from outside, and what that gives away."""
    if seen.container:
        rootless = ", unless the engine itself runs rootless" if seen.container == "podman" else ""
        return _refused(
            detail,
            container.started_with(seen.container, "--privileged"),
            f"root in such a container is root of the machine{rootless}",
        )
    if seen.filtered:
        # A container of another engine, or a service of systemd: no line of ours would help there.
        detail += (
            "; what started this can lift that: a container engine by its privileged mode, "
            "systemd by RestrictNamespaces=no"
        )
    return _refused(detail)
