"""What no namespace keeps apart is refused for good, by a filter of system calls (seccomp(2)).

A key is for whoever has its owner's number outside, keyrings(7), which root of a lab has; and a
socket of AF_VSOCK, vsock(7), leads out of a virtual machine from any network namespace.  Who has a
terminal as the controlling one can type there in its user's place, ioctl_tty(2).

    of another architecture         ENOSYS        the same by other numbers: i386's int 0x80, x32
    keyctl, add_key, request_key    ENOSYS        as where the kernel has no keyrings
    io_uring_setup                  ENOSYS        what a ring does is no call: IORING_OP_SOCKET
    socket: AF_VSOCK, AF_QIPCRTR    EAFNOSUPPORT  as where the kernel has none
    ioctl: TIOCSTI, TIOCLINUX       EPERM         as of a terminal that is not one's own
    any other                       as ever
"""

from __future__ import annotations

import errno
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from xlab.errors import CapabilityError
from xlab.kernel import syscalls


@dataclass(frozen=True, slots=True)
class _Machine:
    #: As linux/audit.h has it, for programs of 64 bits, least significant byte first.
    audit_arch: int
    socket: int
    ioctl: int
    keys: tuple[int, ...]


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 41, 16, (248, 249, 250)),
    "aarch64": _Machine(0xC00000B7, 198, 29, (217, 218, 219)),
}
#: The same on every architecture.
_IO_URING_SETUP = 425
#: x32's numbers have this bit; nobody else's are so large.
_X32 = 0x40000000
#: Not every Python knows them.  The latter's ports are the whole machine's (qrtr_ports,
#: net/qrtr/af_qrtr.c).
_AF_VSOCK, _AF_QIPCRTR = 40, 42
#: The former puts a byte into a terminal's input, the latter pastes on a virtual console.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

#: Instructions (linux/bpf_common.h): load a word of struct seccomp_data, go on if, and decide.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _DECIDE = 0x20, 0x15, 0x35, 0x06
#: Where in it; of an argument the low half, which is all that the kernel sees of an int.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def refuse_unnamespaced() -> None:
    """For the calling thread and all that it starts; CapabilityError where that can't be."""
    # On an arm64 kernel programs of 32 bits, a Python of them too, have numbers of their own.
    machine = platform.machine() if sys.maxsize >> 32 else f"{platform.machine()}, 32 bits"
    try:
        syscalls.filter_calls(program(machine))
    except OSError as error:
        raise CapabilityError(f"this kernel filters no system calls ({error.strerror})") from error


def program(machine: str) -> list[syscalls.Instruction]:
    """By a name as `platform.machine` has it."""
    known = _MACHINES.get(machine)
    if known is None:
        raise CapabilityError(f"which system calls to filter is not known for {machine}")
    absent = _ERROR | errno.ENOSYS
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, known.audit_arch),
        (_DECIDE, 0, 0, absent),
        (_LOAD, 0, 0, _NUMBER),
        *_decide_if(_IF_AT_LEAST, _X32, absent),
        *(each for number in (*known.keys, _IO_URING_SETUP)
          for each in _decide_if(_IF_EQUAL, number, absent)),
        *_refuse_with(known.socket, _FIRST_ARGUMENT, (_AF_VSOCK, _AF_QIPCRTR), errno.EAFNOSUPPORT),
        *_refuse_with(known.ioctl, _SECOND_ARGUMENT, (_TIOCSTI, _TIOCLINUX), errno.EPERM),
        (_DECIDE, 0, 0, _ALLOW),
    ]  # fmt: skip


def _refuse_with(
    number: int, argument: int, values: Sequence[int], error: int
) -> list[syscalls.Instruction]:
    """Decide on the call of that number: it is refused with one of the values as argument."""
    decided = [
        (_LOAD, 0, 0, argument),
        *(each for value in values for each in _decide_if(_IF_EQUAL, value, _ERROR | error)),
        (_DECIDE, 0, 0, _ALLOW),
    ]
    return [(_IF_EQUAL, 0, len(decided), number), *decided]


def _decide_if(condition: int, value: int, decision: int) -> list[syscalls.Instruction]:
    return [(condition, 0, 1, value), (_DECIDE, 0, 0, decision)]
