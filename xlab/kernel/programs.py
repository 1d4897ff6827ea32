"""Programs that xlab runs, or that people type: where they are, their versions, their packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xlab.kernel.clock import Deadline
from xlab.kernel.drivers import Driver, Kernel, State


@dataclass(frozen=True, slots=True)
class Tool:
    """A program xlab runs, where it is from, and what it is run for."""

    name: str
    package: str
    used_for: str
    #: What prints the version.
    version_option: str = "--version"
    #: Whether xlab has something else in its place.
    spared: bool = False


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
    Tool("netperf", "netperf", "request/response latency", "-V", spared=True),
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


def missing() -> list[str]:
    """Packages that are not there and that no lab should be without; bin/setup installs them."""
    wanted = [tool for tool in TOOLS if not (tool.spared or locate(tool.name))]
    return list(dict.fromkeys(tool.package for tool in wanted))


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
