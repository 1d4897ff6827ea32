"""What keeps strangers' work in: it holds, or there is no such lab, and whoever asked is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from tests.support.labs import PATIENCE_S, ROOT, why_no_sandbox
from xlab.errors import CapabilityError
from xlab.kernel import syscalls
from xlab.sandbox import containment, sandbox
from xlab.sandbox.containment import Limits


@pytest.mark.parametrize("why", [0, errno.ENOSYS, errno.EPERM])
def test_without_keys_there_are_none_to_leave(why: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "leave_keyring", lambda: _fail(why))
    containment.leave_keys()


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (errno.EDQUOT, "as many keys as one may; sudo sysctl -w kernel.keys"),
        (errno.ENOMEM, "keyctl"),
    ],
)
def test_keys_that_would_be_kept_are_an_error(
    why: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "leave_keyring", lambda: _fail(why))
    with pytest.raises(CapabilityError, match=words):
        containment.leave_keys()


def _fail(why: int) -> None:
    if why:
        raise OSError(why, f"keyctl: {os.strerror(why)}")


@pytest.mark.sandbox
def test_a_lab_that_cant_be_contained_is_the_machines_lack_not_the_labs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if missing := why_no_sandbox():
        pytest.skip(missing)

    def refuse(_: Limits) -> None:
        raise CapabilityError("no filter", "another kernel")

    monkeypatch.setattr(containment, "begin", refuse)
    # Root's can't be contained; it comes to no lab here.
    monkeypatch.setattr(sandbox, "kind", lambda: "rootless")
    with pytest.raises(CapabilityError) as met:
        sandbox.launch(lambda *_: os._exit(0), limits=Limits())
    assert (met.value.missing, met.value.remedy) == ("no filter", "another kernel")


#: Prints whether a key of the session's is found, before and after.
_BECOMES = """
import ctypes, platform
from xlab.kernel import syscalls
from xlab.sandbox import unprivileged

libc = ctypes.CDLL(None)
add_key, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
try:
    syscalls.leave_keyring()
except OSError as error:
    print("no keyrings:", error)
    raise SystemExit from None
added = libc.syscall(add_key, b"user", b"xlab-test", b"x", 1, -3)
print(libc.syscall(keyctl, 10, -3, b"user", b"xlab-test", 0) == added)
unprivileged.become("nobody", [])
print(libc.syscall(keyctl, 10, -3, b"user", b"xlab-test", 0) == added)
"""


@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="who is no root becomes nobody else")
def test_whom_root_becomes_has_none_of_roots_keys() -> None:
    if missing := why_no_sandbox():
        pytest.skip(missing)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _BECOMES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    if done.stdout.startswith("no keyrings"):
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")
