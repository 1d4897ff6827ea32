"""What a contained lab may not ask of the kernel: decided for each machine, and refused on this."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys

import pytest

from tests.support.labs import PATIENCE_S, ROOT
from xlab.errors import CapabilityError
from xlab.kernel import seccomp, syscalls

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ALLOWED = 0x7FFF0000


def decided(machine: str, number: int, arch: int, *arguments: int) -> int:
    """As the kernel goes through it (bpf(4)): an errno, 0 for what is allowed."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    program, at, word = seccomp.program(machine), 0, 0
    while True:
        code, so, otherwise, value = program[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (word,) = struct.unpack_from("<I", data, value)
        elif code == 0x15:  # BPF_JMP | BPF_JEQ
            at += so if word == value else otherwise
        elif code == 0x35:  # BPF_JMP | BPF_JGE
            at += so if word >= value else otherwise
        else:
            assert code == 0x06  # BPF_RET
            return 0 if value == ALLOWED else value & 0xFFFF


@pytest.mark.parametrize(
    ("machine", "arch", "other", "making_a_socket", "ioctl", "keys"),
    [
        ("x86_64", X86_64, I386, 41, 16, {248, 249, 250}),
        ("aarch64", AARCH64, ARM, 198, 29, {217, 218, 219}),
    ],
)
def test_what_is_refused(
    machine: str, arch: int, other: int, making_a_socket: int, ioctl: int, keys: set[int]
) -> None:
    refused = {number for number in range(600) if decided(machine, number, arch)}
    assert refused == {*keys, 425}
    assert {decided(machine, number, arch) for number in refused} == {errno.ENOSYS}
    families = {f for f in range(64) if decided(machine, making_a_socket, arch, f)}
    assert families == {40, 42}
    # The kernel takes an int from the lower half, whatever the upper one is.
    assert decided(machine, making_a_socket, arch, 7 << 32 | 40) == errno.EAFNOSUPPORT
    requests = {each for each in range(0x5400, 0x5500) if decided(machine, ioctl, arch, 0, each)}
    assert requests == {0x5412, 0x541C}
    assert decided(machine, ioctl, arch, 0, 7 << 32 | 0x5412) == errno.EPERM
    assert decided(machine, ioctl, arch, 0x5412, 0x5401) == 0
    assert {decided(machine, number, other) for number in range(600)} == {errno.ENOSYS}
    assert {decided(machine, 1 << 30 | n, arch) for n in range(600)} == {errno.ENOSYS}


def test_on_a_machine_whose_numbers_nobody_has_looked_up() -> None:
    with pytest.raises(CapabilityError, match="not known for s390x"):
        seccomp.program("s390x")


def test_a_kernel_without_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(syscalls, "filter_calls", refuse)
    with pytest.raises(CapabilityError, match="filters no system calls"):
        seccomp.refuse_unnamespaced()


#: i386's system calls are tried in a child: where the kernel has none, that ends by a signal.
_TRIES = """
import ctypes, errno, mmap, os, platform
libc = ctypes.CDLL(None, use_errno=True)

def tried(*call):
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(*call) < 0 else "done"

def i386():
    code = mmap.mmap(-1, 4096, prot=7)
    # getpid: mov $20, %eax; int $0x80; ret
    code.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
    place = ctypes.addressof(ctypes.c_char.from_buffer(code))
    os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(place)() > 0 else 1)

x86 = platform.machine() == "x86_64"
add_key, request_key, keyctl, socket_ = (248, 249, 250, 41) if x86 else (217, 218, 219, 198)
print(tried(add_key, b"user", b"x", b"x", 1, -2), tried(request_key, b"user", b"x", 0, 0))
print(tried(keyctl, 0, -3, 0), tried(425, 1, ctypes.create_string_buffer(200)))
print(tried(socket_, 40, 1, 0), tried(socket_, 42, 2, 0), tried(socket_, 2, 1, 0))
if x86:
    child = os.fork()
    if child == 0:
        i386()
    assert os.waitpid(child, 0)[1] != 0, "i386's getpid() was answered"
"""


@pytest.mark.parametrize("how", ["itself", "in what it starts", "in a thread"])
def test_it_is_refused_for_good(how: str) -> None:
    begun = {
        "itself": "exec(tries, {})",
        "in what it starts": "subprocess.run([sys.executable, '-IS', '-c', tries], check=True)",
        "in a thread": "t = threading.Thread(target=exec, args=(tries, {})); t.start(); t.join()",
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"""
import subprocess, sys, threading
from xlab.kernel import seccomp, syscalls
tries = sys.argv[1]
syscalls.gain_no_rights()
seccomp.refuse_unnamespaced()
{begun[how]}
""", _TRIES],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == [
        *["ENOSYS"] * 4, "EAFNOSUPPORT", "EAFNOSUPPORT", "done",
    ]  # fmt: skip
