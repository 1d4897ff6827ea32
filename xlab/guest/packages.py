"""What the guest of the virtual clock is made of: Debian's packages, pinned.

`lock.json` names each with its version and the checksum of its file.  One that can't be had in that
version any more (a point release replaces it), or elsewhere than on Debian, is taken as it is: the
guest is then another machine, and its figures say so.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from xlab.errors import CapabilityError

LOCK = Path(__file__).with_name("lock.json")
_KERNEL = "linux-image-"
#: Python packages that the work in a guest imports; they come from the environment we run in.
PYTHON_PACKAGES = ("mininet", "pyroute2", "setuptools")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of Debian: `sha256` is its file's, "" while it is not known."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Parts:
    """All that figures of the virtual clock depend on, beside the code that is measured."""

    #: "10.0": digits after that mend what is broken.
    qemu: str
    machine: str
    processor: str
    memory_mib: int
    packages: tuple[Package, ...]
    #: By name, the version.
    python_packages: Mapping[str, str]

    @property
    def identity(self) -> str:
        """The same for machines that give the same digits."""
        told = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def differences(self, other: Parts) -> tuple[str, ...]:
        """What is otherwise here than in `other`, in words."""
        pairs: list[tuple[str, object, object]] = [
            ("QEMU", self.qemu, other.qemu),
            ("machine", self.machine, other.machine),
            ("processor", self.processor, other.processor),
            ("memory", self.memory_mib, other.memory_mib),
        ]
        theirs = {package.name: package for package in other.packages}
        for package in self.packages:
            pair = theirs.get(package.name)
            pairs.append((package.name, package.version, pair and pair.version))
            if pair and pair.version == package.version and pair.sha256 != package.sha256:
                pairs.append((f"{package.name}'s file", package.sha256[:12], pair.sha256[:12]))
        for name, version in self.python_packages.items():
            pairs.append((name, version, other.python_packages.get(name)))
        return tuple(f"{name} {own}, not {locked}" for name, own, locked in pairs if own != locked)


@functools.cache
def locked() -> Parts:
    """What lock.json says."""
    data = json.loads(LOCK.read_text())
    data["packages"] = tuple(Package(**each) for each in data["packages"])
    return Parts(**data)


def qemu_version() -> str:
    """ "10.0"; CapabilityError if there is none."""
    try:
        shown = subprocess.run(
            ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CapabilityError(
            "the virtual clock needs QEMU (qemu-system-x86_64)",
            "sudo apt-get install qemu-system-x86",
        ) from error
    found = re.search(r"version (\d+\.\d+)", shown)
    return found[1] if found else "unknown"


def require_able() -> None:
    """CapabilityError, with the remedy, where this machine can't run the guest at all."""
    if platform.machine() != "x86_64":
        raise CapabilityError(f"the virtual clock's guest is an x86_64, not {platform.machine()}")
    qemu_version()
    for program in ("apt-get", "dpkg-deb"):
        if not any(Path(folder, program).exists() for folder in ("/usr/bin", "/bin")):
            raise CapabilityError(
                f"the virtual clock's guest is made of Debian's packages, by {program}"
            )


def kernel() -> str:
    """The package that linux-image-cloud-amd64 stands for at present."""
    for attempt in ("with the lists at hand", "after an update"):
        if attempt == "after an update" and os.geteuid() == 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        shown = subprocess.run(
            ["apt-cache", "depends", "linux-image-cloud-amd64"],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in shown.stdout.splitlines():
            if line.strip().startswith("Depends: linux-image-"):
                return line.split()[-1]
    raise CapabilityError("apt knows no package linux-image-cloud-amd64 (Debian has it)")


def available(wanted: Sequence[Package]) -> dict[str, str]:
    """By name, the version to be had: the wanted one if apt has it, else its candidate."""
    names = [package.name for package in wanted]
    shown = _asked("apt-cache", "policy", *names)
    if os.geteuid() == 0 and len(_policies(shown)) < len(names):
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        shown = _asked("apt-cache", "policy", *names)
    policies, found = _policies(shown), {}
    for package in wanted:
        if package.name in policies:
            candidate, versions = policies[package.name]
            found[package.name] = package.version if package.version in versions else candidate
    gone = [name for name in names if name not in found and name.startswith(_KERNEL)]
    if gone:
        # Each point release has another one, whose name is another.
        names = [name for name in names if name not in gone]
        found |= available([Package(kernel(), "", "")])
    missing = [name for name in names if name not in found]
    if missing:
        raise CapabilityError(
            f"apt knows no package {', '.join(missing[:5])}, of which the virtual clock's guest is "
            "made",
            "sudo apt-get update",
        )
    return found


def _asked(*argv: str) -> str:
    asked = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    return asked.stdout


def _policies(shown: str) -> dict[str, tuple[str, set[str]]]:
    """By package, the candidate and every version that some archive has, of `apt-cache policy`."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"^(?=\S)", shown, flags=re.MULTILINE):
        name = block.partition(":")[0].strip()
        candidate = re.search(r"^  Candidate: (\S+)", block, re.MULTILINE)
        # A version's sources stand below it; what only dpkg knows of can't be fetched.
        versions = set()
        for version, sources in re.findall(
            r"^ (?:\*\*\*|   ) (\S+) \d+\n((?:^ {8}\S.*\n?)*)", block, re.MULTILINE
        ):
            if re.search(r"\d+ (?!/var/lib/dpkg/status)\S", sources):
                versions.add(version)
        if candidate and versions:
            chosen = candidate[1] if candidate[1] in versions else max(versions)
            found[name] = chosen, versions
    return found


def fetch(wanted: Sequence[Package], folder: Path) -> tuple[Package, ...]:
    """Put the packages' files into a folder; returns what was got, with the files' checksums.

    CapabilityError where they can't be had.
    """
    versions = available(wanted)
    fetched = subprocess.run(
        # apt's own sandbox user can't write to a private folder.
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]
        + [f"{name}={version}" for name, version in versions.items()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        reason = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CapabilityError(f"the packages of the virtual clock's guest can't be had: {reason}")
    files = {_name_of(file): file for file in folder.glob("*.deb")}
    return tuple(
        Package(name, version, hashlib.sha256(files[name].read_bytes()).hexdigest())
        for name, version in sorted(versions.items())
    )


def _name_of(file: Path) -> str:
    """apt names it NAME_VERSION_ARCHITECTURE.deb."""
    return file.name.partition("_")[0]


def python_packages() -> dict[str, str]:
    return {name: metadata.version(name) for name in PYTHON_PACKAGES}


def python_files() -> Iterable[tuple[str, Path]]:
    """What belongs to these packages, as (path below site-packages, file)."""
    for name in PYTHON_PACKAGES:
        for file in metadata.files(name) or ():
            path = str(file)
            if ".." not in path and ".dist-info" not in path and not path.endswith(".pyc"):
                yield path, Path(str(file.locate()))


def renew(folder: Path) -> Parts:
    """Write lock.json anew, of what apt and the environment have now; `folder` is an empty one."""
    plan = locked()
    names = [p.name for p in plan.packages if not p.name.startswith(_KERNEL)]
    fetched = fetch([Package(name, "", "") for name in (*names, kernel())], folder)
    parts = Parts(
        qemu_version(), plan.machine, plan.processor, plan.memory_mib, fetched, python_packages()
    )
    LOCK.write_text(json.dumps(asdict(parts), indent=1) + "\n")
    return parts
