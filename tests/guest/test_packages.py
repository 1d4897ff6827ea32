"""What the virtual clock's guest is made of: the lock, and what apt has of it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from typing import Any

import pytest

from xlab.errors import CapabilityError
from xlab.guest import packages
from xlab.guest.packages import Package

POLICY = """\
libc6:
  Installed: 2.41-12
  Candidate: 2.41-13
  Version table:
     2.41-13 500
        500 http://archive.example/debian trixie/main amd64 Packages
     2.41-12+deb13u3 500
        500 http://archive.example/debian-security trixie-security/main amd64 Packages
 *** 2.41-12 100
        100 /var/lib/dpkg/status
nothing-here:
  Installed: 1.0
  Candidate: 1.0
  Version table:
 *** 1.0 100
        100 /var/lib/dpkg/status
iperf3:
  Installed: (none)
  Candidate: 3.18-2
  Version table:
     3.18-2 500
        500 http://archive.example/debian trixie/main amd64 Packages
"""


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_asked", lambda *_: POLICY)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_the_lock_pins_everything() -> None:
    plan = packages.locked()
    names = [package.name for package in plan.packages]
    assert len(set(names)) == len(names)
    assert {"libc6", "iperf3", "openvswitch-switch", "iproute2", "python3.13-minimal"} <= {*names}
    assert sum(name.startswith("linux-image-") for name in names) == 1
    for package in plan.packages:
        assert package.version
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256), package.name
    assert set(plan.python_packages) == set(packages.PYTHON_PACKAGES)
    assert plan.differences(plan) == ()


@pytest.mark.usefixtures("archive")
def test_the_pinned_version_is_taken_where_some_archive_has_it_and_else_the_candidate() -> None:
    wanted = [Package("libc6", "2.41-12+deb13u3", ""), Package("iperf3", "3.17-1", "")]
    assert packages.available(wanted) == {"libc6": "2.41-12+deb13u3", "iperf3": "3.18-2"}


def test_a_kernel_that_is_gone_has_a_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: str, __: str, *names: str) -> str:
        there = {"linux-image-7-cloud-amd64": "7.1-1", "libc6": "2.41-13"}
        return "".join(
            f"{name}:\n  Candidate: {there[name]}\n  Version table:\n"
            f"     {there[name]} 500\n        500 http://archive.example/debian trixie/main\n"
            for name in names
            if name in there
        )

    monkeypatch.setattr(packages, "_asked", asked)
    monkeypatch.setattr(packages, "kernel", lambda: "linux-image-7-cloud-amd64")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    wanted = [Package("libc6", "2.41-13", ""), Package("linux-image-6-cloud-amd64", "6.1-1", "")]
    assert packages.available(wanted) == {
        "libc6": "2.41-13",
        "linux-image-7-cloud-amd64": "7.1-1",
    }


@pytest.mark.usefixtures("archive")
def test_what_only_this_machine_has_cannot_be_fetched() -> None:
    with pytest.raises(CapabilityError, match=r"nothing-here.*apt-get update"):
        packages.available([Package("nothing-here", "1.0", "")])


def test_a_guest_of_other_parts_says_what_differs() -> None:
    plan = packages.locked()
    first, *others = plan.packages
    other = dataclasses.replace(
        plan, qemu="1.0", packages=(dataclasses.replace(first, version="0"), *others)
    )
    assert other.identity != plan.identity
    assert other.differences(plan) == (
        f"QEMU 1.0, not {plan.qemu}",
        f"{first.name} 0, not {first.version}",
    )


def test_another_file_of_the_same_version_is_another_guest() -> None:
    plan = packages.locked()
    first, *others = plan.packages
    other = dataclasses.replace(
        plan, packages=(dataclasses.replace(first, sha256="0" * 64), *others)
    )
    assert [said.partition(" ")[0] for said in other.differences(plan)] == [f"{first.name}'s"]


def test_without_qemu_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("qemu-system-x86_64")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(CapabilityError, match="sudo apt-get install qemu-system-x86"):
        packages.require_able()
