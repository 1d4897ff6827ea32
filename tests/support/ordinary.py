"""Tests run by root that want an ordinary user: one whom this machine gives no rights."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.labs import PATIENCE_S, ROOT

#: nobody: an ordinary user as far as the kernel is concerned.
ORDINARY = 65534

#: Started as root in a mount namespace of its own: /dev/net/tun as a stock udev has it, then for
#: good the ordinary user, and what the arguments say.
_BECOME_ORDINARY = f"""
import os, sys
from xlab.kernel import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
if os.path.exists("/dev/net/tun"):
    os.makedirs(sys.argv[1] + "/dev", exist_ok=True)
    syscalls.mount("tmpfs", sys.argv[1] + "/dev", "tmpfs", 0, "mode=755")
    os.mknod(sys.argv[1] + "/dev/tun", 0o20666, os.makedev(10, 200))
    os.chmod(sys.argv[1] + "/dev/tun", 0o666)
    syscalls.mount(sys.argv[1] + "/dev/tun", "/dev/net/tun", flags=syscalls.MS_BIND)
os.setgroups([])
os.setresgid({ORDINARY}, {ORDINARY}, {ORDINARY})
os.setresuid({ORDINARY}, {ORDINARY}, {ORDINARY})
os.environ.update(HOME=sys.argv[1], USER="nobody")
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def ordinary_user(own: Path) -> Iterator[tuple[list[str], Path]]:
    """What to start Python with so that an ordinary user runs it, and a folder that is theirs.

    That is `own` where the tests are run by one.
    """
    if os.geteuid() != 0:
        yield [sys.executable], own
        return
    # Not below pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="xlab-ordinary-") as name:
        folder = Path(name)
        os.chown(folder, ORDINARY, ORDINARY)
        python = python_for_all(folder)
        yield [sys.executable, "-P", "-c", _BECOME_ORDINARY, name, *python], folder


#: `python THIS … -c CODE` is Python with our packages, warnings being errors.
_OUR_PACKAGES = """
import os, site, sys, warnings
site.addsitedir({packages!r})
# For what is started with the same Python: routers.
os.environ["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], {packages!r}])
# Before the system's own, which may be older.
sys.path.sort(key=lambda entry: entry != {packages!r})
sys.dont_write_bytecode = True
warnings.simplefilter("error")
exec(sys.argv[sys.argv.index("-c") + 1])
"""


def python_for_all(folder: Path) -> list[str]:
    """A Python that the ordinary user may run, with the packages of xlab; skips if there is none.

    Our own environment's, or the system's with our packages if that is of the same version.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wrapper = folder / "python.py"
    wrapper.write_text(_OUR_PACKAGES.format(packages=sysconfig.get_path("purelib")))
    refused = ""
    for python in (sys.executable, f"/usr/bin/python{version}", "/usr/bin/python3"):
        refused = why_not([python, str(wrapper)])
        if not refused:
            return [python, str(wrapper)]
    pytest.skip(f"an ordinary user can't use this environment: {refused}")


def why_not(python: list[str]) -> str:
    """What keeps the ordinary user from importing xlab with `python`; empty if nothing."""
    try:
        trial = subprocess.run(
            [*python, "-c", "import pyroute2, mininet.topo, typer, xlab.experiments.runner"],
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            user=ORDINARY, group=ORDINARY, extra_groups=[], cwd="/",
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    return "" if trial.returncode == 0 else trial.stderr.splitlines()[-1]
