"""The image: built from nothing, and labs in its containers, as root and as an ordinary user.

Everything of podman's is below a temporary folder and in private namespaces, the one for networks
included: no container, image or interface of this machine's own is met.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ordinary import ORDINARY

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

RIGHTS = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"]
DEVICE = ["--device", "/dev/net/tun"]
#: What a container must be started with, at least.
LEAST = [*RIGHTS, *DEVICE]

#: Where root's programs for containers keep what runs, wherever their storage is.
_RUN = "mount -t tmpfs run /run && "
#: The image may install packages over this machine's network, and not change it.
_BUILD = ["setpriv", "--bounding-set", "-net_admin,-sys_module", "unshare", "--mount", "--pid"]
_BUILD += ["--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c"]
#: Containers are in a network namespace of their own, in one of nobody's.
_ALONE = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"]
_ALONE += ["--mount-proc", "--", "sh", "-c"]
#: crun knows a machine with version 2 of cgroups alone, or with version 1.
_USUAL_MOUNTS = f"mount -t sysfs sys /sys && mount -t cgroup2 cgroup /sys/fs/cgroup && {_RUN}"
#: With /dev/net/tun as a stock udev has it, open to all: `--device` gives what its owner may open.
_AS_ORDINARY = f"""
mkdir -p $HOME/dev && mount -t tmpfs -o mode=755 tmpfs $HOME/dev &&
mknod -m 666 $HOME/dev/tun c 10 200 && mount --bind $HOME/dev/tun /dev/net/tun &&
echo nobody:200000:65536 >$HOME/ids && chmod 644 $HOME/ids &&
mount --bind $HOME/ids /etc/subuid && mount --bind $HOME/ids /etc/subgid &&
exec setpriv --reuid {ORDINARY} --regid {ORDINARY} --clear-groups -- "$@"
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """podman of one user, with storage below a folder of theirs."""

    folder: Path
    ordinary: bool

    def do(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        become = _AS_ORDINARY if self.ordinary else 'exec "$@"'
        return self._started([*_ALONE, _USUAL_MOUNTS + become, "sh", *argv])

    def build(self) -> None:
        done = self._started([*_BUILD, _RUN + 'exec "$0"', ROOT / "image/build"])
        assert done.returncode == 0, done.stderr

    def run(self, options: Sequence[str | Path], *argv: str) -> subprocess.CompletedProcess[str]:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        return self.do(
            *("podman", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none"),
            *("--cgroups", "disabled", "--ulimit", f"nofile={files}:{files}"),
            *("--ulimit", f"nproc={processes}:{processes}", *options, "xlab", *argv),
        )

    def _started(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        storage = self.folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\n'
            f'graphroot = "{self.folder}/images"\nrunroot = "{self.folder}/run"\n'
        )
        environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "HOME": str(self.folder),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "TMPDIR": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
        }
        return subprocess.run(
            argv, env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """Root's, with the image just built, and an ordinary user's, who was given it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give podman namespaces to itself, and play an ordinary user")
    for program in ("buildah", "podman", "mmdebstrap"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="xlab-image-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = {user: Engine(folder / user, user == "ordinary") for user in ("root", "ordinary")}
        for engine in made.values():
            engine.folder.mkdir()
        made["root"].build()
        archive = folder / "xlab.tar"
        saved = made["root"].do("podman", "save", "--quiet", "--output", archive, "xlab")
        assert saved.returncode == 0, saved.stderr
        archive.chmod(0o644)
        os.chown(made["ordinary"].folder, ORDINARY, ORDINARY)
        loaded = made["ordinary"].do("podman", "load", "--quiet", "--input", archive)
        assert loaded.returncode == 0, loaded.stderr
        yield made


@pytest.fixture(params=["root", "ordinary"])
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.mark.parametrize("options", [LEAST, ["--privileged"]], ids=["least", "privileged"])
def test_a_method_passes_in_a_container_and_its_record_comes_out(
    engine: Engine, options: list[str]
) -> None:
    results = Path(tempfile.mkdtemp(dir=engine.folder))
    if engine.ordinary:
        os.chown(results, ORDINARY, ORDINARY)
    volume = ["--volume", f"{results}:/work/results"]
    done = engine.run([*options, *volume], "xlab", "run", "ovs-gre", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "passed"
    (record,) = results.glob("*-ovs-gre/run.json")
    assert json.loads(record.read_text())["scenario"] == "ovs-gre"
    assert record.stat().st_uid == (ORDINARY if engine.ordinary else 0)


def test_a_lab_stays_as_long_as_its_container_and_hosts_can_be_typed_into(engine: Engine) -> None:
    typed = "xlab up bridge --empty && xlab exec h1 -- docker run -d ubuntu sleep 99 && xlab down"
    done = engine.run(LEAST, "sh", "-c", typed)
    assert done.returncode == 0, done.stderr


def test_the_doctor_names_the_option_that_gives_what_is_missing(engine: Engine) -> None:
    """Then that option alone is added, until there is nothing to add."""
    options: list[str] = []
    told = []
    for _ in range(3):
        done = engine.run(options, "xlab", "doctor", "--json")
        missing = [found for found in json.loads(done.stdout) if found["ok"] is False]
        if not missing:
            break
        assert done.returncode == 3
        remedy = missing[0]["remedy"]
        told.append(remedy)
        assert remedy.startswith("podman run --")
        options += remedy.removeprefix("podman run ").removesuffix(" …").split()
    assert done.returncode == 0
    # With a datapath in the kernel, Open vSwitch needs no device.
    assert options in (LEAST, RIGHTS)
    assert len(told) == len(set(told)) >= 1
