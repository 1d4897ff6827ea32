"""What the machine can do: the reading of kernel files, the conclusions, and one real trial."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.labs import ROOT
from tests.support.ordinary import ordinary_user
from xlab.kernel import capabilities, drivers, environment, limits, programs
from xlab.kernel.capabilities import Observation
from xlab.kernel.drivers import DRIVERS, Driver, DriverState, Kernel, State
from xlab.kernel.trial import Trial

RELEASE = "6.12.48+deb13-amd64"
NETEM = DRIVERS["netem"]
BRIDGE_NETFILTER = Driver("br_netfilter", "CONFIG_BRIDGE_NETFILTER")


def put(root: Path, path: str, content: str | bytes = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def observation(**changes: object) -> Observation:
    """A stock Debian 13 desktop as an ordinary user sees it, with `changes`."""
    loadable = ("ovs_datapath", "ovs_gre", "netem", "tbf", "tun")
    seen = Observation(
        kernel=RELEASE,
        rootless=True,
        drivers={
            name: DriverState(State.LOADABLE, f"module {driver.module} is not loaded")
            if name in loadable
            else DriverState(State.YES, f"{driver.module} is live")
            for name, driver in DRIVERS.items()
        },
        families=frozenset({"nlctrl", "ethtool"}),
        filesystems=frozenset({"tmpfs", "overlay"}),
        trial=Trial(overlay_errno=0),
        tun_errno=None,
        max_user_namespaces=127000,
        apparmor_restricts=False,
        clone_forbidden=False,
        filtered=False,
        container="",
        interpreter="/usr/bin/python3.12",
        in_chroot=False,
        open_files=1048576,
        neighbours=1024,
    )
    return dataclasses.replace(seen, **changes)  # type: ignore[arg-type]


# -- drivers ---------------------------------------------------------------------------------------


def test_a_loaded_module_is_live(tmp_path: Path) -> None:
    (tmp_path / "sys/module/sch_netem").mkdir(parents=True)
    assert Kernel(tmp_path, RELEASE).driver(NETEM) == DriverState(State.YES, "sch_netem is live")


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".gz"])
def test_a_module_on_disk_is_loadable_whatever_its_compression(tmp_path: Path, suffix: str) -> None:
    line = f"kernel/net/sched/sch_netem.ko{suffix}:\n"
    put(tmp_path, f"lib/modules/{RELEASE}/modules.dep", "kernel/fs/fat/fat.ko:\n" + line)
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is State.LOADABLE


def test_a_module_only_depended_upon_under_another_path_is_not_mistaken(tmp_path: Path) -> None:
    depends = "kernel/net/x.ko: kernel/net/sched/sch_netem.ko\n"
    put(tmp_path, f"lib/modules/{RELEASE}/modules.dep", depends)
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is State.NO


def test_dashes_in_file_names_stand_for_underscores_in_module_names(tmp_path: Path) -> None:
    line = "kernel/net/bridge/br-netfilter.ko: kernel/net/bridge/bridge.ko\n"
    put(tmp_path, f"lib/modules/{RELEASE}/modules.dep", line)
    assert Kernel(tmp_path, RELEASE).driver(BRIDGE_NETFILTER).state is State.LOADABLE


def test_modules_builtin_says_live(tmp_path: Path) -> None:
    put(tmp_path, f"lib/modules/{RELEASE}/modules.builtin", "kernel/net/sched/sch_netem.ko\n")
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is State.YES


@pytest.mark.parametrize("where", ["proc/config.gz", f"boot/config-{RELEASE}"])
@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("CONFIG_NET_SCH_NETEM=y", State.YES),
        ("# CONFIG_NET_SCH_NETEM is not set", State.NO),
        # A module by the configuration, but its file is not on this machine.
        ("CONFIG_NET_SCH_NETEM=m", State.NO),
        ("CONFIG_NET_SCH_NETEM_EXTRA=y", State.NO),
    ],
)
def test_the_configuration_decides_without_module_files(
    tmp_path: Path, where: str, line: str, state: State
) -> None:
    config = f"CONFIG_NET_SCHED=y\n{line}\nCONFIG_NET_CLS=y\n".encode()
    put(tmp_path, where, gzip.compress(config) if where.endswith(".gz") else config)
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is state


def test_a_damaged_configuration_is_no_evidence(tmp_path: Path) -> None:
    put(tmp_path, "proc/config.gz", gzip.compress(b"CONFIG_NET_SCH_NETEM=y\n" * 99)[:40])
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is State.NO


def test_lists_the_kernel_keeps(tmp_path: Path) -> None:
    put(tmp_path, "proc/misc", "200 tun\n 58 rfkill\n229 fuse\n")
    put(tmp_path, "proc/filesystems", "nodev\tsysfs\n\text4\nnodev\toverlay\n")
    put(tmp_path, "proc/sys/user/max_user_namespaces", "0\n")
    kernel = Kernel(tmp_path, RELEASE)
    assert kernel.misc_devices() == {"tun", "rfkill", "fuse"}
    assert {"sysfs", "ext4", "overlay"} <= kernel.filesystems()
    assert kernel.sysctl("user.max_user_namespaces") == 0
    assert kernel.sysctl("kernel.unprivileged_userns_clone") is None


# -- conclusions -----------------------------------------------------------------------------------


def test_netem_on_disk_only_is_reported_with_the_line_to_paste() -> None:
    netem = capabilities.assess(observation()).netem
    assert (netem.state, netem.usable) == (State.LOADABLE, False)
    assert netem.remedy == "sudo modprobe sch_netem"


def test_what_the_kernel_loads_by_itself_is_usable_without_a_remedy() -> None:
    tun = capabilities.assess(observation()).tun
    assert (tun.state, tun.live, tun.usable, tun.remedy) == (State.LOADABLE, False, True, "")


def test_the_family_not_the_module_makes_the_datapath_live() -> None:
    drivers = {**observation().drivers, "ovs_datapath": DriverState(State.YES, "built in")}
    without = capabilities.assess(observation(drivers=drivers))
    assert without.ovs_datapath.state is State.LOADABLE
    with_family = capabilities.assess(observation(families=frozenset({"ovs_datapath"})))
    assert with_family.ovs_datapath.live


@pytest.mark.parametrize(
    ("tun_errno", "state", "remedy"),
    [
        (0, State.YES, ""),
        (errno.EACCES, State.NO, "sudo chmod 0666 /dev/net/tun"),
        (
            errno.ENOENT,
            State.NO,
            "sudo mkdir -p /dev/net && sudo mknod -m 0666 /dev/net/tun c 10 200",
        ),
        # A container's device rules: nothing to be done from inside.
        (errno.EPERM, State.NO, ""),
    ],
)
def test_dev_net_tun(tun_errno: int, state: State, remedy: str) -> None:
    tun = capabilities.assess(observation(tun_errno=tun_errno)).tun
    assert (tun.state, tun.remedy) == (state, remedy)


PROFILE = (
    "echo 'abi <abi/4.0>, profile xlab \"/usr/bin/python3.12\" flags=(unconfined) { userns, }'"
    " | sudo tee /etc/apparmor.d/xlab && sudo apparmor_parser -r /etc/apparmor.d/xlab"
)


@pytest.mark.parametrize(
    ("changes", "remedy", "detail"),
    [
        # With Ubuntu's profile of those who have none, creating goes well, and nothing after it.
        ({"trial": Trial("map", errno.EPERM), "apparmor_restricts": True}, PROFILE, "AppArmor"),
        ({"trial": Trial("mount", errno.EACCES), "apparmor_restricts": True}, PROFILE, "AppArmor"),
        # Without that profile, and under one that denies capabilities, it ends there.
        ({"trial": Trial("create", errno.EACCES), "apparmor_restricts": True}, PROFILE, "AppArmor"),
        ({"trial": Trial("create", errno.EPERM), "apparmor_restricts": True}, PROFILE, "AppArmor"),
        (
            {"trial": Trial("create", errno.EPERM), "clone_forbidden": True},
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            "unprivileged_userns_clone is 0",
        ),
        (
            {"trial": Trial("create", errno.ENOSPC), "max_user_namespaces": 0},
            "sudo sysctl -w user.max_user_namespaces=15000",
            "is 0",
        ),
        ({"trial": Trial("create", errno.EPERM), "in_chroot": True}, "", "chroot"),
        ({"trial": Trial("create", errno.ENOSPC)}, "", "limit"),
        ({"trial": Trial("proc", errno.EPERM)}, "", "masked"),
        ({"trial": Trial("create", errno.EPERM)}, "", "creating namespaces is refused"),
        ({"trial": Trial("create", errno.EPERM), "rootless": False}, "", "CAP_SYS_ADMIN"),
        ({"trial": Trial("loopback", errno.EPERM)}, "", "lo up"),
    ],
)
def test_why_sandboxes_are_refused(changes: dict[str, object], remedy: str, detail: str) -> None:
    found = capabilities.assess(observation(**changes)).namespaces
    assert found.state is State.NO
    assert found.remedy == remedy
    assert detail in found.detail
    # What is allowed to all is said before it is pasted.
    assert bool(found.risk) == bool(remedy)


@pytest.mark.parametrize("rootless", [True, False])
@pytest.mark.parametrize(
    ("tried", "detail"),
    [(Trial("create", errno.EPERM), "seccomp"), (Trial("proc", errno.EPERM), "masked")],
)
def test_a_container_is_to_be_started_otherwise(rootless: bool, tried: Trial, detail: str) -> None:
    seen = observation(
        # An Ubuntu below it shows its setting in every container.
        trial=tried,
        filtered=True,
        container="docker",
        rootless=rootless,
        apparmor_restricts=tried.step == "create",
    )
    found = capabilities.assess(seen).namespaces
    assert found.remedy == "docker run --privileged …"
    assert found.risk == "root in such a container is root of the machine"
    if rootless or tried.step == "proc":
        assert detail in found.detail
    else:
        assert "CAP_SYS_ADMIN" in found.detail
    podman = capabilities.assess(dataclasses.replace(seen, container="podman")).namespaces
    assert podman.remedy == "podman run --privileged …"
    assert "unless the engine itself runs rootless" in podman.risk
    # Of another engine, or of systemd.
    other = capabilities.assess(dataclasses.replace(seen, container="")).namespaces
    assert not other.remedy
    assert "RestrictNamespaces=no" in other.detail


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (False, False, False, "")),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1\n"}, (True, False, False, "")),
        ({"kernel/apparmor_restrict_unprivileged_userns": "0\n"}, (False, False, False, "")),
        ({"kernel/unprivileged_userns_clone": "0\n"}, (False, True, False, "")),
        ({"kernel/unprivileged_userns_clone": "1\n"}, (False, False, False, "")),
        ({"../self/status": "Name:\tx\nSeccomp:\t2\nCpus:\t1\n"}, (False, False, True, "")),
        ({"../self/status": "Name:\tx\nSeccomp:\t0\nCpus:\t1\n"}, (False, False, False, "")),
        ({"../../.dockerenv": ""}, (False, False, False, "docker")),
        ({"../../run/.containerenv": ""}, (False, False, False, "podman")),
    ],
)
def test_what_forbids_namespaces_shows_in_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    expected: tuple[bool, bool, bool, str],
) -> None:
    monkeypatch.setattr(capabilities, "try_sandbox", lambda **_: Trial())
    (tmp_path / "proc/sys").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/exe").symlink_to("/opt/a python/bin/python3.13")
    for name, content in files.items():
        put(tmp_path, f"proc/sys/{name}", content)
    seen = capabilities.observe(Kernel(tmp_path, RELEASE))
    found = (seen.apparmor_restricts, seen.clone_forbidden, seen.filtered, seen.container)
    assert found == expected
    assert seen.interpreter == "/opt/a python/bin/python3.13"


@pytest.mark.kernel
@pytest.mark.long_in_guest
def test_debians_switch_is_found_where_it_is(tmp_path: Path) -> None:
    if "XLAB_GUEST" not in os.environ:
        pytest.skip("changes the kernel's setting: only in the full-kernel guest")
    probe = "from xlab.kernel import capabilities; print(capabilities.probe().namespaces.detail)"
    switch = Path("/proc/sys/kernel/unprivileged_userns_clone")
    before, found = switch.read_text(), []
    try:
        with ordinary_user(tmp_path) as (python, _):
            for setting in ("1", "0"):
                switch.write_text(setting)
                done = subprocess.run(
                    [*python, "-c", probe],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found.append(done.stdout.strip())
    finally:
        switch.write_text(before)
    assert found[0] == "user and network namespaces"
    assert "kernel.unprivileged_userns_clone is 0" in found[1]


def test_apparmor_understands_the_profile(tmp_path: Path) -> None:
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin")
    if not parser:
        pytest.skip("apparmor_parser is not installed")
    restricted = observation(
        trial=Trial("map", errno.EPERM), apparmor_restricts=True, interpreter="/opt/it's a/python3"
    )
    line = capabilities.assess(restricted).namespaces.remedy
    said, _, _ = line.partition(" | ")
    profile = subprocess.run(["sh", "-c", said], capture_output=True, check=True).stdout
    # Neither the kernel nor the cache is touched.
    done = subprocess.run(
        [parser, "--skip-kernel-load", "--skip-cache", "--debug"],
        input=profile,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = (done.stdout + done.stderr).decode()
    assert re.search(r"Mode:\s+unconfined", told)
    assert "userns" in told


def test_an_overlay_counts_only_if_a_lab_may_mount_it() -> None:
    refused = observation(trial=Trial(overlay_errno=errno.EPERM))
    assert capabilities.assess(refused).overlayfs.state is State.NO
    assert capabilities.assess(observation()).overlayfs.live
    unloaded = {
        **observation().drivers,
        "overlayfs": DriverState(State.LOADABLE, "module overlay is not loaded"),
    }
    loadable = observation(
        drivers=unloaded, filesystems=frozenset({"tmpfs"}), trial=Trial(overlay_errno=None)
    )
    assert capabilities.assess(loadable).overlayfs.remedy == "sudo modprobe overlay"


# -- in a container --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "kind"),
    [("run/.containerenv", "podman"), (".dockerenv", "docker"), ("run/other", "")],
)
def test_a_container_shows_by_the_file_that_its_engine_leaves(
    tmp_path: Path, mark: str, kind: str
) -> None:
    put(tmp_path, mark)
    assert Kernel(tmp_path, RELEASE).container == kind


@pytest.mark.parametrize(
    ("mark", "config", "state"),
    [
        ("run/.containerenv", "", State.LOADABLE),
        ("run/.containerenv", "CONFIG_NET_SCH_NETEM=m\n", State.LOADABLE),
        ("run/.containerenv", "# CONFIG_NET_SCH_NETEM is not set\n", State.NO),
        ("no/container", "", State.NO),
    ],
)
def test_a_container_cannot_see_which_modules_its_host_has(
    tmp_path: Path, mark: str, config: str, state: State
) -> None:
    put(tmp_path, mark)
    if config:
        put(tmp_path, "proc/config.gz", gzip.compress(config.encode()))
    assert Kernel(tmp_path, RELEASE).driver(NETEM).state is state


def test_what_a_container_lacks_is_an_option_of_what_started_it() -> None:
    inside = observation(
        container="podman",
        rootless=False,
        lacking=("NET_ADMIN", "NET_RAW"),
        tun_errno=errno.ENOENT,
    )
    machine = capabilities.assess(inside)
    assert machine.namespaces.detail == "root has no CAP_NET_ADMIN, CAP_NET_RAW here"
    assert machine.namespaces.remedy == "podman run --cap-add NET_ADMIN --cap-add NET_RAW …"
    assert machine.tun.remedy == "podman run --device /dev/net/tun …"
    assert machine.netem.remedy == "on the host: sudo modprobe sch_netem"
    assert machine.ovs_datapath.remedy == "on the host: sudo modprobe -a openvswitch vport-gre"


def test_a_device_that_was_given_and_is_closed_is_opened_on_the_host() -> None:
    inside = observation(container="podman", tun_errno=errno.EACCES)
    tun = capabilities.assess(inside).tun
    assert (tun.state, tun.remedy) == (State.NO, "on the host: sudo chmod 0666 /dev/net/tun")


def test_a_kernel_without_tun_is_not_helped_by_a_device() -> None:
    without = {**observation().drivers, "tun": DriverState(State.NO, "this kernel has no tun")}
    inside = observation(container="podman", drivers=without, tun_errno=errno.ENOENT)
    assert capabilities.assess(inside).tun.detail == "this kernel has no tun"
    assert capabilities.assess(inside).tun.remedy == ""


# -- tools and environment: real output of Debian 13's packages ------------------------------------


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("ovs-vswitchd (Open vSwitch) 3.5.0", "3.5.0"),
        ("iperf 3.18 (cJSON 1.7.15)\nLinux vm 6.18.44 #1 SMP\nOptional features", "3.18"),
        ("tcpdump version 4.99.5\nlibpcap version 1.10.5 (with TPACKET_V3)", "4.99.5"),
        ("ping from iputils 20240905\nlibcap: yes, IDN: yes", "20240905"),
        ("iptables v1.8.11 (nf_tables)", "1.8.11 (nf_tables)"),
        ("iptables v1.8.10 (legacy)", "1.8.10 (legacy)"),
        ("ethtool version 6.14.2", "6.14.2"),
        ("tini version 0.2.1_catatonit", "0.2.1"),
        ("ip utility, iproute2-6.15.0, libbpf 1.5.0", "6.15.0"),
        ("Netperf version 2.7.1", "2.7.1"),
        ("", "unknown"),
        ("usage: tool [options]", "unknown"),
    ],
)
def test_versions_out_of_what_tools_print(output: str, version: str) -> None:
    assert programs.parse_version(output) == version


def test_tool_versions_asks_what_is_installed_and_omits_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in (("ping", "echo ping from iputils 20240905"), ("iperf3", "exit 1")):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    monkeypatch.setattr(
        programs,
        "locate",
        lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None,
    )
    assert programs.tool_versions() == {"ping": "20240905", "iperf3": "unknown"}


def test_a_tool_is_asked_once_unless_it_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison writes a record each build of each method, with all versions in it."""
    tool, asked = tmp_path / "ping", tmp_path / "asked"
    monkeypatch.setattr(programs, "locate", lambda name: str(tool) if name == "ping" else None)

    def install(version: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(f"#!/bin/sh\necho x >>{asked}\necho ping from iputils {version}\n")
        fresh.chmod(0o755)
        fresh.rename(tool)

    for version, times in (("20240905", 1), ("20250605", 2)):
        install(version)
        for _ in range(2):
            assert programs.tool_versions() == {"ping": version}
        assert asked.read_text().split() == ["x"] * times


@pytest.mark.parametrize(
    ("legacy", "live", "version"),
    [
        (True, False, "1.8.11 (nf_tables)"),
        (False, True, "1.8.11 (nf_tables)"),
        (False, False, "unknown"),
    ],
)
def test_the_nf_tables_variant_of_iptables_is_not_asked_if_that_loads_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, live: bool, version: str
) -> None:
    variants = {"xtables-nft-multi": "nf_tables"} | (
        {"iptables-legacy": "legacy"} if legacy else {}
    )
    for name, variant in variants.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'iptables v1.8.11 ({variant})'\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "iptables").symlink_to("xtables-nft-multi")
    monkeypatch.setattr(programs, "_nfnetlink_is_live", lambda: live)
    monkeypatch.setattr(
        programs,
        "locate",
        lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None,
    )
    assert programs.tool_versions() == {"iptables": version}


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        (
            "CPU implementer\t: 0x41\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
            "Raspberry Pi 4 Model B Rev 1.4",
        ),
        (
            "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n",
            "POWER9, altivec supported",
        ),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", ""),
    ],
)
def test_the_processor_has_a_name_on_several_architectures(cpuinfo: str, model: str) -> None:
    assert environment.cpu_model(cpuinfo) == model


def test_stolen_time_is_the_eighth_counter() -> None:
    assert environment.stolen_ratio("cpu  60 0 20 10 0 0 0 10 5 0\ncpu0 1 1\n") == 0.1
    assert environment.stolen_ratio("") is None
    assert environment.stolen_ratio("cpu 0 0 0 0 0 0 0 0 0 0\n") is None


@given(st.text(max_size=60) | st.lists(st.integers(-1, 2**65), max_size=12).map(
    lambda counters: " ".join(["cpu", *map(str, counters)])
))  # fmt: skip
@example("cpu a b c d e f g h")
@example("cpu " + "9" * 5000 + " 1" * 8)
def test_any_counters_give_a_share_or_none(stat: str) -> None:
    share = environment.stolen_ratio(stat)
    assert share is None or 0 <= share <= 1


@given(st.binary(max_size=60))
@example(gzip.compress(b"")[:10] + b"\xff" * 20)
def test_any_bytes_for_a_configuration_are_no_evidence(packed: bytes) -> None:
    with TemporaryDirectory() as root:
        file = Path(root, "proc", "config.gz")
        file.parent.mkdir()
        file.write_bytes(packed)
        assert Kernel(Path(root), RELEASE).driver(NETEM).state is State.NO


# -- on this machine -------------------------------------------------------------------------------


def test_this_kernel_answers_with_its_families() -> None:
    assert "nlctrl" in drivers.generic_netlink_families()


def test_probe_leaves_no_child_and_no_descriptor() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    machine = capabilities.probe()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert machine.kernel == os.uname().release


def test_environment_facts_describe_this_machine() -> None:
    facts = environment.environment_facts()
    assert facts.kernel == os.uname().release
    assert facts.cores >= 1
    assert facts.cpu_model
    assert facts.congestion_control != "unknown"


@pytest.mark.sandbox
@pytest.mark.parametrize("rootless", [True, False])
def test_a_kernel_that_forbids_namespaces_is_found_out(rootless: bool) -> None:
    """Each user namespace has limits of its own: the one made here allows no more of a kind."""
    if capabilities.probe().namespaces.state is not State.YES:
        pytest.skip(capabilities.probe().namespaces.detail)
    limit = "user" if rootless else "net"
    program = (
        "from xlab.kernel import drivers, environment, limits, programs, trial; "
        f"print(trial.try_sandbox(rootless={rootless}, overlay=False))"
    )
    script = f'echo 0 > /proc/sys/user/max_{limit}_namespaces && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    assert done.stdout.strip() == str(Trial("create", errno.ENOSPC))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to be without")
@pytest.mark.parametrize("right", ["sys_admin", "net_admin", "net_raw"])
def test_which_right_root_has_not_is_told(right: str) -> None:
    program = "from xlab.kernel import capabilities; print(capabilities.observe().lacking)"
    done = subprocess.run(
        ["setpriv", "--bounding-set", f"-{right}", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    assert done.stdout.strip() == str((right.upper(),))


@pytest.mark.sandbox
def test_a_refused_mount_is_found_out() -> None:
    """Creation works and capabilities do not, as on Ubuntu: here by a bounding set without them."""
    if capabilities.probe().namespaces.state is not State.YES:
        pytest.skip(capabilities.probe().namespaces.detail)
    if os.geteuid() != 0:
        pytest.skip("needs root to make a child that lacks CAP_SYS_ADMIN")
    program = (
        "from xlab.kernel import drivers, environment, limits, programs, trial; "
        "print(trial.try_sandbox(rootless=False, overlay=False))"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_admin", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    assert done.stdout.strip() == str(Trial("create", errno.EPERM))


def test_how_often_the_table_of_neighbours_was_full(tmp_path: Path) -> None:
    """One line a processor, in hexadecimal (net/core/neighbour.c)."""
    statistics = tmp_path / "arp_cache"
    statistics.write_text(
        "entries  allocs   forced_gc_runs unresolved_discards table_fulls\n"
        "00000440 00007f2b 0000bbf0       00000000            0000ba86\n"
        "00000440 000052b3 0000aaf2       00000000            00000010\n"
    )
    assert limits.neighbour_overflows(statistics) == 0xBA86 + 0x10
    statistics.write_text("entries allocs\n1 2\n")
    assert limits.neighbour_overflows(statistics) == 0
    assert limits.neighbour_overflows(tmp_path / "nowhere") == 0
    assert limits.neighbour_overflows() >= 0
